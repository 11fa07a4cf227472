//! Runs the compiler as the user asked, passing its messages on as they come and keeping them.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::local::{Called, Forwarding, Platform};

/// Messages beyond this are passed on, and not kept.
pub const KEPT_BYTES_MAX: usize = 4 << 20;

/// How a compiler ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output; `None` if there was too much to keep.
    pub stdout: Option<Vec<u8>>,
    /// All of its standard error; `None` if there was too much to keep.
    pub stderr: Option<Vec<u8>>,
    /// How long it took.
    pub took: Duration,
}

/// Runs a tool under the name that it is called by.
///
/// # Errors
/// If it can't be started.
pub fn run_called(called: &Called<'_>) -> io::Result<Ran> {
    run_telling(Platform::command(called), io::stdout(), io::stderr())
}

/// Runs a compiler, with our standard input.
pub fn run(program: &Path, arguments: &[OsString]) -> io::Result<Ran> {
    run_telling(plain(program, arguments), io::stdout(), io::stderr())
}

/// The same, but nothing of what it says is passed on yet: whoever asks may want to run it again.
pub fn run_held(program: &Path, arguments: &[OsString]) -> io::Result<Ran> {
    run_telling(plain(program, arguments), io::sink(), io::sink())
}

fn plain(program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn run_telling(
    mut command: Command,
    mut to_stdout: impl Write + Send,
    mut to_stderr: impl Write + Send,
) -> io::Result<Ran> {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let forwarding = Forwarding::to(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || stdout.and_then(|pipe| tee(pipe, &mut to_stdout)));
        let stderr = scope.spawn(move || stderr.and_then(|pipe| tee(pipe, &mut to_stderr)));
        // Before its outputs are closed: what it has started may hold them longer than it lives.
        let status = child.wait();
        forwarding.end(*status.as_ref().unwrap_or(&ExitStatus::default()));
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        Ok(Ran { status: status?, stdout, stderr, took: begun.elapsed() })
    })
}

/// Copies everything from `from` to `to`, and returns it unless it was too much.
///
/// It goes on reading if `to` is closed: the compiler is not to fail over that where it would not have by itself.
pub fn tee(mut from: impl Read, to: &mut impl Write) -> Option<Vec<u8>> {
    let mut kept = Some(Vec::new());
    let mut piece = [0; 16 << 10];
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return kept,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let _ = to.write_all(&piece[..read]).and_then(|()| to.flush());
        kept = kept.filter(|kept| kept.len() + read <= KEPT_BYTES_MAX);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&piece[..read]);
        }
    }
}

/// Becomes the compiler. Returns only if that fails, with the exit code to end with.
pub fn pass_through(program: &Path, arguments: &[OsString]) -> u8 {
    become_program(plain(program, arguments), program)
}

/// The same for a tool, under the name that it is called by.
pub fn pass_through_called(called: &Called<'_>) -> u8 {
    become_program(Platform::command(called), called.path)
}

fn become_program(command: Command, program: &Path) -> u8 {
    let error = Platform::replace_process(command);
    complain(&format!("can't start `{}`: {error}", program.display()));
    127
}

/// Says what went wrong, on standard error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "castwork: {text}");
}
