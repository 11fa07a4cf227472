//! Process 1 of an action: mounts what is the action's alone, starts the command, and reaps what it
//! leaves.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdout, fork};

use super::exec::Program;
use super::filter::{Around, Filter};
use super::keeper::exit_now;
use super::step::{At, Failed};
use super::walls::Grants;
use super::wire::{self, Handed, Order, Report, Setup};
use super::{descriptors, memory, mounts, privileges, walls};
use crate::sandbox::{INPUTS, Root};

/// How often memory is looked at where nothing else bounds it, in milliseconds.
const LOOK_EVERY_MS: u8 = 100;

/// Becomes process 1 of the new namespace, which ends with it.
pub(super) fn be_first(setup: &Setup, order: &Order, handed: &Handed) -> ! {
    if let Err(Failed { step, errno }) = live(setup, order, handed) {
        wire::send(handed.control.as_fd(), &Report::Failed { step, errno: errno as i32 }, None);
    }
    exit_now(0)
}

/// Returning ends the namespace, if there is one, and with it every process in it.
fn live(setup: &Setup, order: &Order, handed: &Handed) -> Result<(), Failed> {
    let control = &handed.control;
    dup2_stdout(&handed.stdout).at("take stdout")?;
    dup2_stderr(&handed.stderr).at("take stderr")?;
    descriptors::close_others(control).at("close descriptors")?;
    let Surroundings { inputs, grants, more } = match setup.around {
        Around::Namespaces => in_namespaces(setup, order)?,
        Around::Nothing => in_the_open(setup, order)?,
    };
    send_root(&inputs, setup.around, control)?;
    chdir(&inputs.join(&order.working_directory)).at("enter the working directory")?;
    privileges::drop_all()?;
    if setup.around == Around::Nothing {
        walls::fence()?;
    }
    let program = Program::of(order, &setup.bounds, more.as_ref());
    let filter = Filter::new(setup.around);
    let ended = hear_of_children().at("wait for signals")?;
    match fork_alone().at("start the command")? {
        ForkResult::Child => {
            // Not in process 1 itself, which so is outside of what the command may signal.
            if let Err(Failed { step, errno }) = wall_in(&grants, &filter) {
                wire::send(control.as_fd(), &Report::Failed { step, errno: errno as i32 }, None);
                exit_now(0);
            }
            program.become_it()
        }
        ForkResult::Parent { child } => {
            let memory_max = setup.watch_memory.then_some(setup.bounds.memory_bytes);
            let end = see_off(child, control, &ended, memory_max).at("wait for the command")?;
            let gone = kill_the_rest().at("kill what the command left")?;
            wire::tell(control.as_fd(), &end.into_iter().chain([gone]).collect::<Vec<_>>());
            Ok(())
        }
    }
}

/// What is around a command.
struct Surroundings {
    /// The input root.
    inputs: PathBuf,
    /// What it may do where.
    grants: Grants,
    /// A variable that it gets unless it has it.
    more: Option<(String, String)>,
}

fn in_namespaces(setup: &Setup, order: &Order) -> Result<Surroundings, Failed> {
    // The worker's end needs nothing of this kind: then the control socket is closed.
    prctl::set_pdeathsig(Signal::SIGKILL).at("ask for a signal when the keeper dies")?;
    mounts::add(setup, order)?;
    let inputs = PathBuf::from(match order.root {
        Root::Worker => mounts::BUILD,
        Root::Inputs => "/",
    });
    // What the mounts allow as well: to read all that there is, and to change what is the action's.
    let grants = Grants {
        read: vec!["/".into()],
        change: vec![inputs.clone(), "/tmp".into(), "/dev/shm".into()],
        use_as_is: mounts::devices(),
    };
    Ok(Surroundings { inputs, grants, more: None })
}

/// Without namespaces the machine's own files are all there, and only what is granted can be had.
fn in_the_open(setup: &Setup, order: &Order) -> Result<Surroundings, Failed> {
    prctl::set_child_subreaper(true).at("become a reaper")?;
    let scratch = setup.stage.join(&order.scratch);
    chdir(&scratch).at("enter the action's folder")?;
    let (inputs, temporary) = (scratch.join(INPUTS), scratch.join("tmp"));
    std::fs::create_dir(&temporary).at("make a folder for temporary files")?;
    let grants = Grants {
        read: mounts::system_folders().chain(["/proc".into()]).collect(),
        change: vec![inputs.clone(), temporary.clone()],
        use_as_is: mounts::devices(),
    };
    let more = Some(("TMPDIR".to_owned(), temporary.to_string_lossy().into_owned()));
    Ok(Surroundings { inputs, grants, more })
}

/// Ends every other process of the namespace, and lets go of the command's outputs; what was used.
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
    // The other end takes that for the end of the outputs.
    let nothing = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Ok(Report::Gone {
        user_us: microseconds(usage.user_time()),
        system_us: microseconds(usage.system_time()),
        memory_bytes_max: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    })
}

fn wall_in(grants: &Grants, filter: &Filter) -> Result<(), Failed> {
    grants.enforce()?;
    filter.install().at("filter system calls")
}

/// Opens the input root and hands it over. The mount lives as long as that descriptor.
fn send_root(inputs: &Path, around: Around, control: &OwnedFd) -> Result<(), Failed> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = match around {
        // Alone: what is mounted in it goes at some time after the command, and is no output until then.
        Around::Namespaces => {
            let tree = mounts::without_those_below(inputs)?;
            openat(&tree, ".", flags, Mode::empty()).at("open the input root")?
        }
        Around::Nothing => open(inputs, flags, Mode::empty()).at("open the input root")?,
    };
    // Nobody has a business in this process.
    prctl::set_dumpable(false).at("become undumpable")?;
    wire::send(control.as_fd(), &Report::Ready, Some(root.as_fd()));
    Ok(())
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
    memory_max: Option<u64>,
) -> Result<Option<Report>, Errno> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(Some(Report::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(Some(Report::Signaled(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
        let timeout = if memory_max.is_some() { PollTimeout::from(LOOK_EVERY_MS) } else { PollTimeout::NONE };
        let mut polled =
            [PollFd::new(ended.as_fd(), PollFlags::POLLIN), PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(0) if memory_max.is_some_and(|most| memory::in_use_below(std::process::id()) > most) => {
                return Ok(Some(Report::OverMemory));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if polled[1].any() == Some(true) {
            return Ok(None);
        }
        while matches!(ended.read_signal(), Ok(Some(_))) {}
    }
}
