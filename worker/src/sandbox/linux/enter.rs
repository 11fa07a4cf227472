//! The outermost process of a sandbox: enters the namespaces, starts their first process, and
//! sees to it that nothing outlives either side.
//!
//! A worker has many threads and much memory, and neither `fork` nor namespaces go well with
//! that. So each command gets a fresh, single-threaded start of the same program, which
//! `enter_if_asked` turns into this. stdin is the socket to the worker; stdout and stderr are
//! already the command's.

use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getegid, geteuid, setgroups, setresgid, setresuid};

use super::step::{At, Failed};
use super::wire::{self, Order, Report};
use super::{descriptors, init};

/// The name under which the program starts itself to become a sandbox.
pub(super) const NAME: &str = "castwork-enter-sandbox";

/// User and group of the command as it sees itself, the same on every worker.
const INNER_ID: u32 = 1000;

/// Turns this process into a sandbox if it was started to be one; then it doesn't return.
///
/// Has to be called first thing in `main`, before there is a second thread.
pub fn enter_if_asked() {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(NAME)) {
        return;
    }
    let code = match descriptors::take_control() {
        Ok(control) => supervise(&control),
        // Somebody started it by hand: there is nobody to tell.
        Err(_) => 2,
    };
    std::process::exit(code);
}

fn supervise(control: &OwnedFd) -> i32 {
    let last = match confine(control) {
        Ok(usage) => usage,
        Err(Failed { step, errno }) => Report::Failed { step, errno: errno as i32 },
    };
    wire::send(control.as_fd(), &last, None);
    i32::from(matches!(last, Report::Failed { .. }))
}

/// Runs the whole life of the sandbox; the last report.
fn confine(control: &OwnedFd) -> Result<Report, Failed> {
    let order = wire::read_order(io::BufReader::new(descriptors::reader(control).at("open the socket")?))
        .at("read the order")?;
    descriptors::close_others(control).at("close descriptors")?;
    std::env::set_current_dir(&order.scratch).at("enter the action's folder")?;
    umask(Mode::from_bits_truncate(0o022));
    become_user(order.become_id)?;
    enter_namespaces()?;
    let (alive, held) = io::pipe().at("make a pipe")?;
    match fork_alone().at("start the first process")? {
        ForkResult::Child => {
            drop(held);
            be_first(&order, control, &alive)
        }
        ForkResult::Parent { child } => {
            drop(alive);
            watch(child, control, held)
        }
    }
}

/// Becomes the user that actions run as. The worker's own is not to be found in the namespaces.
fn become_user(id: Option<(u32, u32)>) -> Result<(), Failed> {
    if let Some((uid, gid)) = id {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).at("drop supplementary groups")?;
        setresgid(gid, gid, gid).at("change the group")?;
        setresuid(uid, uid, uid).at("change the user")?;
    }
    // A change of user makes a process undumpable, and that makes its `/proc/self` root's.
    prctl::set_dumpable(true).at("stay dumpable")
}

fn enter_namespaces() -> Result<(), Failed> {
    let (uid, gid) = (geteuid(), getegid());
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all).at("make namespaces (user, mount, pid, ipc, uts, net, cgroup)")?;
    // Without this an unprivileged process may not write a group map.
    std::fs::write("/proc/self/setgroups", "deny").at("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{INNER_ID} {uid} 1")).at("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{INNER_ID} {gid} 1")).at("map the group")
}

#[allow(unsafe_code, reason = "there is no safe fork")]
fn fork_alone() -> Result<ForkResult, Errno> {
    // SAFETY: this process has one thread, as `enter_if_asked` demands, so no lock can be held by
    // a thread that the child lacks.
    unsafe { fork() }
}

/// Becomes process 1 of the new namespace, which ends with it.
fn be_first(order: &Order, control: &OwnedFd, alive: &PipeReader) -> ! {
    if let Err(Failed { step, errno }) = die_with_parent(alive).and_then(|()| init::run(order, control)) {
        wire::send(control.as_fd(), &Report::Failed { step, errno: errno as i32 }, None);
    }
    exit_now(0)
}

fn die_with_parent(alive: &PipeReader) -> Result<(), Failed> {
    prctl::set_pdeathsig(Signal::SIGKILL).at("ask for a signal when the parent dies")?;
    // It may have died before that: then nobody holds the other end.
    let mut polled = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).at("look for the parent")?;
    if polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
        return Err(Failed { step: "find the parent alive".to_owned(), errno: Errno::ESRCH });
    }
    Ok(())
}

/// Waits until the first process has ended, and has it end when the worker wants that or dies.
fn watch(first: Pid, control: &OwnedFd, held: PipeWriter) -> Result<Report, Failed> {
    let ended = open_pidfd(first).at("watch the first process")?;
    loop {
        let mut polled =
            [PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno).at("wait for the first process"),
        }
        if polled[0].any() == Some(true) && polled[1].any() != Some(true) {
            kill(first, Signal::SIGKILL).at("kill the first process")?;
        }
        break;
    }
    // Returns when every process of the namespace is gone: the kernel kills them with the first.
    while waitpid(first, None) == Err(Errno::EINTR) {}
    drop(held);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).at("ask what was used")?;
    Ok(Report::Gone {
        user_us: microseconds(usage.user_time()),
        system_us: microseconds(usage.system_time()),
        memory_bytes_max: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    })
}

fn microseconds(time: TimeVal) -> u64 {
    u64::try_from(time.num_microseconds()).unwrap_or(0)
}

#[allow(unsafe_code, reason = "nix has no pidfd")]
fn open_pidfd(process: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers and touches no memory of ours.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    let raw = i32::try_from(Errno::result(raw)?).expect("descriptors are small");
    // SAFETY: the call has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Ends this process without the clean-up that belongs to the program it was forked from.
#[allow(unsafe_code, reason = "there is no safe _exit")]
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}
