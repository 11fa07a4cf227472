//! Process 1 of a sandbox: builds what the command sees, starts it, and reaps what it leaves.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, sethostname};

use super::exec::Program;
use super::step::{At, Failed};
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
    match fork_alone().at("start the command")? {
        ForkResult::Child => program.become_it(),
        ForkResult::Parent { child } => {
            let report = reap_until(child).at("wait for the command")?;
            wire::send(control.as_fd(), &report, None);
            Ok(())
        }
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
