//! What a program says, passed on as it comes, and kept: until it is all said, or the program has ended.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::invocation::PASS_ON;

/// Messages beyond this are passed on, and not kept.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Most that is passed on once the program has ended, while others say more: what a pipe can hold.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// The pipes of a program that is to be started.
#[derive(Debug)]
pub(super) struct Passing {
    /// Of standard output, and of standard error unless that is the same; each with where it leads to.
    pipes: Vec<(PipeReader, OwnedFd)>,
    /// Closed on one side when the program has ended.
    stop: (PipeReader, io::PipeWriter),
}

/// The passing on, while the program runs.
#[derive(Debug)]
pub(super) struct Begun {
    threads: Vec<JoinHandle<Passed>>,
    /// Closed when the program has ended.
    stop: io::PipeWriter,
}

/// What has been passed on of a pipe.
#[derive(Debug)]
struct Passed {
    /// All of it; `None` if that was too much.
    kept: Option<Vec<u8>>,
    /// The pipe, if somebody may say more.
    open: Option<PipeReader>,
}

impl Passing {
    /// Has a command say what it says to pipes: to one, if both `are_one`, so that nothing is passed on in another order.
    pub(super) fn of(command: &mut Command, are_one: bool) -> io::Result<Self> {
        let stop = io::pipe()?;
        let (stdout, to_stdout) = io::pipe()?;
        let stdout = (stdout, output(0)?);
        if are_one {
            command.stderr(to_stdout.try_clone()?).stdout(to_stdout);
            return Ok(Self { pipes: vec![stdout], stop });
        }
        let (stderr, to_stderr) = io::pipe()?;
        command.stdout(to_stdout).stderr(to_stderr);
        Ok(Self { pipes: vec![stdout, (stderr, output(1)?)], stop })
    }

    /// Begins, once the program is started.
    pub(super) fn begin(self) -> Begun {
        let (stopped, stop) = self.stop;
        let stopped = Arc::new(stopped);
        let begin = |(pipe, to)| {
            let stopped = Arc::clone(&stopped);
            std::thread::spawn(move || pass(pipe, &stopped, &File::from(to)))
        };
        Begun { threads: self.pipes.into_iter().map(begin).collect(), stop }
    }
}

impl Begun {
    /// Ends, when the program has: passes on what it has said, and returns that.
    ///
    /// What is said later, by processes that it has left, is passed on by another process of ours.
    pub(super) fn end(self) -> [Option<Vec<u8>>; 2] {
        drop(self.stop);
        let mut kept = [Some(Vec::new()), Some(Vec::new())];
        for (number, thread) in self.threads.into_iter().enumerate() {
            let passed = thread.join().unwrap_or(Passed { kept: None, open: None });
            kept[number] = passed.kept;
            if let Some((pipe, to)) = passed.open.zip(output(number).ok()) {
                let mut command = Command::new("/proc/self/exe");
                command.arg(PASS_ON).stdin(pipe).stdout(to).stderr(Stdio::null());
                let _ = command.spawn();
            }
        }
        kept
    }
}

/// Our own standard output, or error.
fn output(number: usize) -> io::Result<OwnedFd> {
    if number == 0 {
        io::stdout().as_fd().try_clone_to_owned()
    } else {
        io::stderr().as_fd().try_clone_to_owned()
    }
}

/// Passes on from a pipe until it is closed, or until `stopped` is and the pipe is empty.
///
/// If nobody wants to hear, the pipe is closed: the program is to find out as it would without us.
fn pass(mut pipe: PipeReader, stopped: &PipeReader, mut to: &File) -> Passed {
    let mut kept = Some(Vec::new());
    let mut piece = [0; 16 << 10];
    let mut left_bytes = LEFT_BYTES_MAX;
    loop {
        let mut both =
            [PollFd::new(pipe.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return Passed { kept: None, open: None },
            Ok(_) => {}
        }
        let [is_said, is_stopped] = both.map(|one| one.any().unwrap_or(true));
        if is_stopped && (!is_said || left_bytes == 0) {
            return Passed { kept, open: Some(pipe) };
        }
        if !is_said {
            continue;
        }
        let read = match pipe.read(&mut piece) {
            Ok(0) => return Passed { kept, open: None },
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Passed { kept: None, open: None },
        };
        if is_stopped {
            left_bytes = left_bytes.saturating_sub(read);
        }
        // A gone reader, or a full disk: the tool gets to know of it.
        if to.write_all(&piece[..read]).and_then(|()| to.flush()).is_err() {
            return Passed { kept: None, open: None };
        }
        kept = kept.filter(|kept| kept.len() + read <= KEPT_BYTES_MAX);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&piece[..read]);
        }
    }
}

/// Passes standard input on to standard output until one of them is closed, and returns the exit code.
pub fn pass_on() -> u8 {
    let passed = output(0).and_then(|to| io::copy(&mut io::stdin().lock(), &mut File::from(to)));
    u8::from(passed.is_err())
}
