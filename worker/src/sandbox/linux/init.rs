//! Process 1 of a sandbox: builds what the command sees, starts it, and reaps what it leaves.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, sethostname};

use super::enter::exit_now;
use super::exec::Program;
use super::filter::{Around, Filter};
use super::step::{At, Failed};
use super::walls::Grants;
use super::wire::{self, Order, Report};
use super::{mounts, privileges};
use crate::sandbox::Root;

/// Every sandbox is on a host of this name.
const HOST_NAME: &str = "castwork";

/// Lives the life of process 1. Returning ends the namespace, and with it every process in it.
pub(super) fn run(order: &Order, control: &OwnedFd) -> Result<(), Failed> {
    sethostname(HOST_NAME).at("set the host's name")?;
    privileges::raise_loopback().at("raise the loopback interface")?;
    privileges::forbid_namespaces().at("forbid further namespaces")?;
    mounts::build(order)?;
    let inputs = match order.root {
        Root::Worker => mounts::BUILD,
        Root::Inputs => "/",
    };
    send_root(inputs, control)?;
    chdir(&Path::new(inputs).join(&order.working_directory)).at("enter the working directory")?;
    privileges::drop_all()?;
    let program = Program::of(order);
    let (grants, filter) = (grants(order.root), Filter::new(Around::Namespaces));
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
            let report = reap_until(child).at("wait for the command")?;
            wire::send(control.as_fd(), &report, None);
            Ok(())
        }
    }
}

fn wall_in(grants: &Grants, filter: &Filter) -> Result<(), Failed> {
    grants.enforce()?;
    filter.install().at("filter system calls")
}

/// What the mounts allow as well: to read all that there is, and to change what is the action's.
fn grants(root: Root) -> Grants {
    let places = |names: &[&str]| names.iter().map(PathBuf::from).collect();
    let inputs = match root {
        Root::Worker => mounts::BUILD,
        Root::Inputs => "/",
    };
    Grants {
        read: places(&["/"]),
        change: places(&[inputs, "/tmp", "/dev/shm"]),
        use_as_is: mounts::DEVICES.iter().map(|name| Path::new("/dev").join(name)).collect(),
    }
}

/// Opens the input root and hands it over. The mount lives as long as that descriptor.
fn send_root(inputs: &str, control: &OwnedFd) -> Result<(), Failed> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(inputs, flags, Mode::empty()).at("open the input root")?;
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

/// Reaps orphans until the command itself has ended.
fn reap_until(command: Pid) -> Result<Report, Errno> {
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(Report::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(Report::Signaled(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
