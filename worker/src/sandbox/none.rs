//! [`Unconfined`]: no confinement at all. Has to be asked for by name.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::bounds::OUTPUT_BYTES;
use super::capture::{self, Capture};
use super::{
    Captured, End, Ended, Folder, INPUTS, Layout, Owner, ProcessTree, Root, RunSpec, Sandbox, SandboxError,
    Usage,
};

/// Exit code of a shell for a program that is not there.
const NOT_FOUND: i32 = 127;

/// Exit code of a shell for a program that can't be started.
const NOT_STARTED: i32 = 126;

/// Runs commands as the worker's own user, in the folder of the action, and that is all.
///
/// The command can read and write whatever the worker can, and a process that leaves its process
/// group outlives it. For machines that are a sandbox themselves.
#[derive(Debug, Default)]
pub struct Unconfined;

#[async_trait]
impl Sandbox for Unconfined {
    fn level(&self) -> &'static str {
        "none"
    }

    fn layout(&self) -> Layout {
        Layout::Copies
    }

    fn roots(&self) -> &'static [Root] {
        &[Root::Worker]
    }

    fn owner(&self) -> Owner {
        Owner::of_this_process()
    }

    fn shows(&self, _: &Path) -> bool {
        true
    }

    async fn run(&self, spec: &RunSpec, cancel: &CancellationToken) -> Result<Ended, SandboxError> {
        run_command(spec, command(spec), cancel).await
    }
}

/// The command as the specification has it, without any confinement.
pub(super) fn command(spec: &RunSpec) -> Command {
    let folder = spec.scratch.join(INPUTS).join(&spec.working_directory);
    let program = &spec.arguments[0];
    // Whether a relative program is looked up before or after the change of folder depends on
    // the platform; an absolute one leaves no doubt.
    let is_relative_path = program.contains('/') && !program.starts_with('/');
    let mut command =
        if is_relative_path { Command::new(folder.join(program)) } else { Command::new(program) };
    command.args(&spec.arguments[1..]).env_clear().envs(spec.environment.iter().map(|(k, v)| (k, v)));
    command.current_dir(folder);
    command
}

/// Runs `command` in its own process group, with its outputs captured.
pub(super) async fn run_command(
    spec: &RunSpec,
    mut command: Command,
    cancel: &CancellationToken,
) -> Result<Ended, SandboxError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    ProcessTree::lead(&mut command);
    let root = Folder::open(&spec.scratch.join(INPUTS)).map_err(SandboxError::at("open the inputs"))?;
    let stderr_path = spec.scratch.join("stderr");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return not_started(spec, &error, root).await,
    };
    let tree = ProcessTree::of(&child);
    let stdout = child.stdout.take().expect("stdout was piped");
    let stderr = child.stderr.take().expect("stderr was piped");
    let stdout = Capture::start(stdout, spec.scratch.join("stdout"), OUTPUT_BYTES);
    let stderr = Capture::start(stderr, stderr_path, OUTPUT_BYTES);
    let end =
        wait(&mut child, &tree, spec, cancel).await.map_err(SandboxError::at("wait for the command"))?;
    tree.kill();
    let stdout = stdout.finish().await.map_err(SandboxError::at("keep stdout"))?;
    let stderr = stderr.finish().await.map_err(SandboxError::at("keep stderr"))?;
    let end = end.ok_or(SandboxError::Cancelled)?;
    Ok(Ended { end, usage: Usage::default(), stdout, stderr, root, own_names: Vec::new() })
}

/// Waits for the end, or brings it about; `None` if that was because of `cancel`.
async fn wait(
    child: &mut Child,
    tree: &ProcessTree,
    spec: &RunSpec,
    cancel: &CancellationToken,
) -> io::Result<Option<End>> {
    let end = tokio::select! {
        status = child.wait() => return status.map(|status| Some(end_of(status))),
        () = tokio::time::sleep(spec.timeout) => Some(End::TimedOut),
        () = cancel.cancelled() => None,
    };
    tree.kill();
    child.kill().await?;
    Ok(end)
}

fn end_of(status: ExitStatus) -> End {
    // Without a code it was a signal; `ProcessTree` knows which, where there are signals.
    status.code().map_or_else(|| End::Signaled(ProcessTree::signal_of(status)), End::Exited)
}

async fn not_started(spec: &RunSpec, error: &io::Error, root: Folder) -> Result<Ended, SandboxError> {
    let (code, reason) = match error.kind() {
        io::ErrorKind::NotFound => (NOT_FOUND, "command not found".to_owned()),
        _ => (NOT_STARTED, error.to_string()),
    };
    let mut stderr = Captured::default();
    let line = format!("castwork: {}: {reason}", spec.arguments[0]);
    capture::add_line(&mut stderr, &spec.scratch.join("stderr"), &line)
        .await
        .map_err(SandboxError::at("keep stderr"))?;
    let (end, usage) = (End::Exited(code), Usage::default());
    Ok(Ended { end, usage, stdout: Captured::default(), stderr, root, own_names: Vec::new() })
}
