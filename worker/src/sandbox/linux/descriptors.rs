//! Descriptors of a sandbox: 0, 1 and 2 are the command's, and nothing else may reach it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::dup2_stdin;

/// Where the socket to the worker goes: the first number that is not the command's.
const CONTROL: i32 = 3;

/// Takes the socket away from stdin, to where the command won't inherit it.
#[allow(unsafe_code, reason = "the number is all there is")]
pub(super) fn take_control() -> io::Result<OwnedFd> {
    let raw = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(CONTROL))?;
    // SAFETY: the call has just made this descriptor, and nobody else knows its number.
    let control = unsafe { OwnedFd::from_raw_fd(raw) };
    take_nothing_as_stdin()?;
    Ok(control)
}

/// Makes stdin an empty file that nobody else has open.
pub(super) fn take_nothing_as_stdin() -> Result<(), Errno> {
    let nothing = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&nothing)
}

/// A second handle, for reading.
pub(super) fn reader(control: &OwnedFd) -> io::Result<File> {
    Ok(File::from(control.as_fd().try_clone_to_owned()?))
}

/// Closes whatever else was inherited.
#[allow(unsafe_code, reason = "closing by number is the point")]
pub(super) fn close_others(control: &OwnedFd) -> Result<(), Errno> {
    let kept = u32::try_from(control.as_raw_fd()).expect("descriptors are not negative");
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: nobody in this process owns a descriptor in that range: it has just started,
        // and what it opened itself is `kept` and below 3.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        Errno::result(done)?;
    }
    Ok(())
}
