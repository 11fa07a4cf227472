//! [`ProcessTree`]: a command and what it started, as far as they stay in one process group.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// A process group led by a child of ours.
#[derive(Debug)]
pub struct ProcessTree(Option<Pid>);

impl ProcessTree {
    /// Has the command lead its own group.
    pub fn lead(command: &mut Command) {
        command.process_group(0);
    }

    /// The group that a child leads.
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Kills whoever is left in the group.
    pub fn kill(&self) {
        if let Some(group) = self.0 {
            // Fails exactly if nobody is left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// The signal that ended a process without an exit code.
    pub fn signal_of(status: ExitStatus) -> i32 {
        status.signal().unwrap_or(0)
    }
}
