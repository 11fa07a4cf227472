//! The keeper of a slot: a small, single-threaded process that has built once what every action in
//! its slot needs, and forks process 1 of one action after the other, each before its action is there.
//!
//! A worker has many threads and much memory, and neither `fork` nor namespaces go well with that.
//! So each slot gets a fresh start of the same program, which `enter_if_asked` turns into this. The
//! first thing it does is to give up the worker's user; what actions bring it reads only after that.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::filter::Around;
use super::namespaces::Network;
use super::step::{At, Failed};
use super::wire::{self, Setup};
use super::{descriptors, init, mounts, namespaces};

/// The name under which the program starts itself to become a keeper.
pub(super) const NAME: &str = "castwork-keep-slot";

/// Turns this process into the keeper of a slot if it was started to be one; then it doesn't return.
///
/// Has to be called first thing in `main`, before there is a second thread.
pub fn enter_if_asked() {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(NAME)) {
        return;
    }
    let code = match descriptors::take_control() {
        Ok(worker) => keep(&worker),
        // Somebody started it by hand: there is nobody to tell.
        Err(_) => 2,
    };
    std::process::exit(code);
}

/// Lives until the worker hangs up.
fn keep(worker: &OwnedFd) -> i32 {
    let Ok(setup) = wire::receive_setup(worker.as_fd()) else { return 2 };
    let mut slot = build(&setup, worker);
    loop {
        let forked = match &slot {
            Ok(_) => fork_into_namespaces(setup.around).at("start the first process"),
            Err(failed) => Err(failed.again()),
        };
        let first = match forked {
            // It makes itself ready, and then waits for the next action in this process's stead.
            Ok(None) => init::be_first(&setup, worker),
            Ok(Some(first)) => first,
            // Whatever it is that is not as it should be: the next slot is built anew.
            Err(failed) => return refuse(worker, &failed),
        };
        // It tells the worker of the command's end before its own, and takes down its namespaces after.
        let ended = wait_for(first);
        end_strays();
        if ended == Some(init::HUNG_UP) {
            return 0;
        }
        if let Ok(Some(network)) = &mut slot
            && network.renew_if_used().is_err()
        {
            return 1;
        }
    }
}

/// Answers the next action with a failure.
fn refuse(worker: &OwnedFd, failed: &Failed) -> i32 {
    if let Ok(Some((handed, line))) = wire::receive_handed(worker.as_fd()) {
        // Whoever sends an order has to get rid of it before they hear.
        let _ = wire::whole_line(line, &handed.control);
        wire::send(handed.control.as_fd(), &failed.report(), None);
    }
    1
}

/// The exit code of a child, if it had one.
fn wait_for(child: Pid) -> Option<i32> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Builds what actions share.
fn build(setup: &Setup, worker: &OwnedFd) -> Result<Option<Network>, Failed> {
    descriptors::close_others(worker).at("close descriptors")?;
    std::env::set_current_dir(&setup.stage).at("enter the folder of actions")?;
    namespaces::become_user(setup.become_id)?;
    if setup.around == Around::Nothing {
        // If somebody kills the first process of an action, what it had started comes to here.
        prctl::set_child_subreaper(true).at("become a reaper")?;
        return Ok(None);
    }
    namespaces::enter()?;
    let network = if setup.network { None } else { Some(Network::raise()?) };
    mounts::build(setup)?;
    Ok(network)
}

/// Ends what the first process of an action left, which is nothing unless it was killed itself.
fn end_strays() {
    while let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") {
        for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

/// `fork` into the namespaces that no two actions share; `None` in the child.
#[allow(unsafe_code, reason = "neither nix nor libc forks into namespaces")]
fn fork_into_namespaces(around: Around) -> Result<Option<Pid>, Errno> {
    let fresh = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    let fresh = match around {
        Around::Namespaces => fresh,
        Around::Nothing => CloneFlags::empty(),
    };
    let flags = libc::c_long::from(fresh.bits() | libc::SIGCHLD);
    // SAFETY: without a stack it is `fork`: the child goes on with a copy of everything. This
    // process has one thread, as `enter_if_asked` demands, so no lock can be held by one that the
    // child lacks.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    let child = libc::pid_t::try_from(Errno::result(child)?).expect("process numbers are small");
    Ok((child != 0).then_some(Pid::from_raw(child)))
}

/// Ends this process without the clean-up that belongs to the program it was forked from.
#[allow(unsafe_code, reason = "there is no safe _exit")]
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}
