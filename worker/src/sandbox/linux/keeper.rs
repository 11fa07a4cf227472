//! The keeper of a slot: a small, single-threaded process that has built once what every action in
//! its slot needs, and starts one action after the other.
//!
//! A worker has many threads and much memory, and neither `fork` nor namespaces go well with that.
//! So each slot gets a fresh start of the same program, which `enter_if_asked` turns into this. The
//! first thing it does is to give up the worker's user; what actions bring it reads only after that.

use std::ffi::OsStr;
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::filter::Around;
use super::namespaces::Network;
use super::step::{At, Failed};
use super::wire::{self, Handed, Order, Report, Setup};
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
    while let Ok(Some(handed)) = wire::receive_handed(worker.as_fd()) {
        let started = match &slot {
            Ok(_) => start(&setup, &handed),
            Err(failed) => {
                // Whoever sends an order has to get rid of it before they hear.
                let _ = descriptors::reader(&handed.control).map(wire::read_order);
                Err(failed.again())
            }
        };
        let first = match started {
            Ok(first) => first,
            Err(Failed { step, errno }) => {
                wire::send(handed.control.as_fd(), &Report::Failed { step, errno: errno as i32 }, None);
                // Whatever it is that is not as it should be: the next slot is built anew.
                return 1;
            }
        };
        // Its own processes alone hold the command's outputs: their end is the end of those.
        drop(handed);
        // It has told the worker of its end before, and taken down its namespaces since.
        while waitpid(first, None) == Err(Errno::EINTR) {}
        end_strays();
        if let Ok(Some(network)) = &mut slot
            && network.renew_if_used().is_err()
        {
            return 1;
        }
    }
    0
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
    let network = Network::raise()?;
    mounts::build(setup)?;
    Ok(Some(network))
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

/// Starts an action.
fn start(setup: &Setup, handed: &Handed) -> Result<Pid, Failed> {
    let socket = descriptors::reader(&handed.control).at("open the socket")?;
    let order: Order = wire::read_order(BufReader::new(socket)).at("read the order")?;
    match fork_into_namespaces(setup.around).at("start the first process")? {
        None => init::be_first(setup, &order, handed),
        Some(first) => Ok(first),
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
