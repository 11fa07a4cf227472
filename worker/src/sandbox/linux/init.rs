//! Process 1 of an action: mounts what is the action's alone, has the command started, and reaps what it
//! leaves.
//!
//! It is there before the action is, with all done that is the same whichever action comes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork};

use super::filter::Around;
use super::keeper::exit_now;
use super::processes::Processes;
use super::step::{At, Failed};
use super::wire::{self, Handed, Order, Report, Setup};
use super::{command, mounts, privileges, walls};
use crate::sandbox::{INPUTS, Root};

/// Exit code that tells the keeper that the worker is gone.
pub(super) const HUNG_UP: i32 = 3;

/// How often memory is looked at where nothing else bounds it, in milliseconds.
const LOOK_EVERY_MS: u8 = 100;

/// Becomes process 1 of the new namespace, which ends with it. Waits for an action that comes over `worker`.
pub(super) fn be_first(setup: &Setup, worker: &OwnedFd) -> ! {
    let ready = Ready::for_any(setup);
    let Ok(Some((handed, line))) = wire::receive_handed(worker.as_fd()) else { exit_now(HUNG_UP) };
    let Ok(control) = handed.control.try_clone() else { exit_now(1) };
    if let Err(failed) = ready.and_then(|ready| ready.live(setup, handed, line, &control)) {
        wire::send(control.as_fd(), &failed.report(), None);
    }
    exit_now(0)
}

/// Process 1 with what it has before there is an action.
struct Ready {
    /// Who becomes the command, and the way to speak to it.
    command: Pid,
    socket: OwnedFd,
    /// Readable when a child has ended.
    ended: SignalFd,
    /// The folder of actions, if it can't be had by its name any more.
    stage: Option<OwnedFd>,
    /// Through which to look at the action's processes, if their memory is to be watched.
    processes: Option<Processes>,
}

impl Ready {
    fn for_any(setup: &Setup) -> Result<Self, Failed> {
        let mut processes = None;
        let stage = match setup.around {
            Around::Namespaces => {
                // The worker's end needs nothing of this kind: then the sockets are closed.
                prctl::set_pdeathsig(Signal::SIGKILL).at("ask for a signal when the keeper dies")?;
                let stage = mounts::stage()?;
                if setup.watch_memory {
                    processes = Some(mounts::processes()?);
                }
                mounts::add_own(&setup.bounds)?;
                Some(stage)
            }
            Around::Nothing => {
                prctl::set_child_subreaper(true).at("become a reaper")?;
                processes = Some(Processes::open(Path::new("/proc")).at("open `/proc`")?);
                None
            }
        };
        privileges::take_no_more()?;
        if setup.around == Around::Nothing {
            privileges::drop_all()?;
            walls::fence()?;
        }
        // What is forked from this one inherits it.
        privileges::be_the_first_to_go().at("be the first to go")?;
        // Nobody has a business in this process.
        prctl::set_dumpable(false).at("become undumpable")?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).at("make a socket")?;
        let ended = hear_of_children().at("wait for signals")?;
        match fork_alone().at("start the command")? {
            ForkResult::Child => command::become_one(setup, &theirs),
            ForkResult::Parent { child } => Ok(Self { command: child, socket, ended, stage, processes }),
        }
    }

    /// Returning ends the namespace, if there is one, and with it every process in it.
    fn live(self, setup: &Setup, handed: Handed, line: Vec<u8>, control: &OwnedFd) -> Result<(), Failed> {
        let line = wire::whole_line(line, control).at("read the order")?;
        wire::pass_on(self.socket.as_fd(), &handed, &line).at("pass the order on")?;
        // The command's own processes alone hold its outputs: their end is the end of those.
        drop(handed);
        let order = wire::order_of(&line).at("read the order")?;
        let place = Place::of(setup, &order);
        match &self.stage {
            Some(stage) => mounts::add_inputs(setup, &order, stage)?,
            None => place.enter_in_the_open(setup, &order)?,
        }
        // To let go of a mount takes the kernel as long as all the rest, so that is left to this process's end.
        let (root, _mount) = open_root(&place.inputs, setup.around)?;
        if setup.around == Around::Namespaces && order.root == Root::Inputs {
            // The command's process sees for itself when that is done, which is before this one is told.
            wire::say_go(self.socket).at("start the command")?;
            mounts::let_go_of_old_root()?;
            privileges::drop_all()?;
        } else {
            privileges::drop_all()?;
            wire::say_go(self.socket).at("start the command")?;
        }
        // The mount lives as long as this descriptor.
        wire::send(control.as_fd(), &Report::Ready, Some(root.as_fd()));
        drop(root);
        let watch = self.processes.filter(|_| setup.watch_memory);
        let most = order.memory_bytes;
        let watch = watch.map(|processes| MemoryWatch { processes, most, looked: Instant::now() });
        let end = see_off(self.command, control, &self.ended, watch).at("wait for the command")?;
        let gone = kill_the_rest().at("kill what the command left")?;
        wire::tell(control.as_fd(), &end.into_iter().chain([gone]).collect::<Vec<_>>());
        Ok(())
    }
}

/// Bounds memory where no control group does.
struct MemoryWatch {
    processes: Processes,
    /// What all processes of the action may use together, in bytes.
    most: u64,
    looked: Instant,
}

impl MemoryWatch {
    /// Looks at it from time to time, however often this is called.
    fn is_exceeded(&mut self) -> bool {
        if self.looked.elapsed() < Duration::from_millis(LOOK_EVERY_MS.into()) {
            return false;
        }
        let below = self.processes.below(std::process::id());
        let in_use: u64 = below.into_iter().map(|pid| self.processes.memory_of(pid)).sum();
        self.looked = Instant::now();
        in_use > self.most
    }
}

/// Where an action's folders are, as its command sees them.
pub(super) struct Place {
    /// The input root.
    pub inputs: PathBuf,
    /// Where temporary files go, unless that is `/tmp`.
    pub temporary: Option<PathBuf>,
}

impl Place {
    pub(super) fn of(setup: &Setup, order: &Order) -> Self {
        match (setup.around, order.root) {
            (Around::Namespaces, Root::Worker) => Self { inputs: mounts::BUILD.into(), temporary: None },
            (Around::Namespaces, Root::Inputs) => Self { inputs: "/".into(), temporary: None },
            (Around::Nothing, _) => {
                let scratch = setup.stage.join(&order.scratch);
                Self { inputs: scratch.join(INPUTS), temporary: Some(scratch.join("tmp")) }
            }
        }
    }

    /// Without namespaces the machine's own files are all there, and these among them.
    fn enter_in_the_open(&self, setup: &Setup, order: &Order) -> Result<(), Failed> {
        chdir(&setup.stage.join(&order.scratch)).at("enter the action's folder")?;
        if let Some(temporary) = &self.temporary {
            std::fs::create_dir(temporary).at("make a folder for temporary files")?;
        }
        Ok(())
    }
}

/// Ends every other process of the namespace; what was used.
///
/// The kernel would do it when this process ends, but taking down the namespaces takes longer, and
/// nobody has to wait for that.
fn kill_the_rest() -> Result<Report, Errno> {
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        // Not permitted: nobody is left whom this process might.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => break,
            Err(errno) => return Err(errno),
        }
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Ok(Report::Gone {
        user_us: microseconds(usage.user_time()),
        system_us: microseconds(usage.system_time()),
        memory_bytes_max: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    })
}

/// Opens the input root; and the mount that it is in, if that is in no place.
fn open_root(inputs: &Path, around: Around) -> Result<(OwnedFd, Option<OwnedFd>), Failed> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match around {
        // Alone: what is mounted in it goes at some time after the command, and is no output until then.
        Around::Namespaces => {
            let mount = mounts::without_those_below(inputs)?;
            let root = openat(&mount, ".", flags, Mode::empty()).at("open the input root")?;
            Ok((root, Some(mount)))
        }
        Around::Nothing => Ok((open(inputs, flags, Mode::empty()).at("open the input root")?, None)),
    }
}

#[allow(unsafe_code, reason = "there is no safe fork")]
fn fork_alone() -> Result<ForkResult, Errno> {
    // SAFETY: this process was forked from one with a single thread and has started none.
    unsafe { fork() }
}

/// Something to poll that is readable when a child has ended.
fn hear_of_children() -> Result<SignalFd, Errno> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Reaps orphans until the command itself has ended, or has to; `None` if the worker wants its end,
/// or is gone.
fn see_off(
    command: Pid,
    control: &OwnedFd,
    ended: &SignalFd,
    mut watch: Option<MemoryWatch>,
) -> Result<Option<Report>, Errno> {
    loop {
        if watch.as_mut().is_some_and(MemoryWatch::is_exceeded) {
            return Ok(Some(Report::OverMemory));
        }
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(Some(Report::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(Some(Report::Signaled(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        let timeout = if watch.is_some() { PollTimeout::from(LOOK_EVERY_MS) } else { PollTimeout::NONE };
        let mut polled =
            [PollFd::new(ended.as_fd(), PollFlags::POLLIN), PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if polled[1].any() == Some(true) {
            return Ok(None);
        }
        while matches!(ended.read_signal(), Ok(Some(_))) {}
    }
}
