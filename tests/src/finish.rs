//! Running a command to its end, within a bound, and following what it says on the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Checks that the exit code was 0.
    ///
    /// # Panics
    /// With all that the command wrote, if not.
    pub fn must_succeed(&self, what: &str) {
        assert!(
            self.status.success(),
            "{what}: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it can't be started, or is not done within `limit`: it is killed then.
pub fn finish(command: Command, limit: Duration) -> Finished {
    finish_following(command, limit, |_| {})
}

/// Runs a command to its end, and calls `follow` with each line of stderr as it comes.
///
/// # Panics
/// If it can't be started, or is not done within `limit`: it is killed then.
pub fn finish_following(
    mut command: Command,
    limit: Duration,
    mut follow: impl FnMut(&str) + Send,
) -> Finished {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stdout = child.stdout.take().expect("piped above");
    let stderr = child.stderr.take().expect("piped above");
    let (done, is_done) = mpsc::channel::<()>();
    let (stdout, stderr, status) = thread::scope(|threads| {
        let stdout = threads.spawn(move || text_of(stdout));
        let stderr = threads.spawn(move || {
            // Dropped at the end of stderr, however this thread ends.
            let _done = done;
            lines_of(stderr, &mut follow)
        });
        if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Fails only if it has just ended; its pipes end with it, and so do the threads.
            let _ = child.kill();
            let said = stderr.join().unwrap_or_default();
            panic!("not done in {} s: {command:?}\n{said}", limit.as_secs());
        }
        let status = child.wait().expect("an own child can be waited for");
        let (stdout, stderr) = (stdout.join(), stderr.join());
        (stdout, stderr, status)
    });
    let stderr = stderr.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Finished { status, stdout: stdout.expect("reading does not panic"), stderr }
}

fn text_of(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // A pipe that breaks has told what it could.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lines_of(from: impl Read, follow: &mut impl FnMut(&str)) -> String {
    let (mut text, mut reader, mut line) = (String::new(), BufReader::new(from), Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let piece = String::from_utf8_lossy(&line);
        follow(piece.trim_end());
        text.push_str(&piece);
        line.clear();
    }
    text
}

/// Tells a person who waits where a long test is; past cargo, which keeps back what a test prints.
pub fn progress(what: &str) {
    let line = format!("    {}: {what}\n", thread::current().name().unwrap_or("a test"));
    // Nobody is there to read it if this fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
