//! The system calls that a command may make: all but those that only attack or configure a kernel.
//!
//! A second wall. The first, namespaces and no capabilities, refuses most of it already; this one
//! keeps the code behind those calls out of reach, and closes what no namespace covers: keyrings,
//! vsock, `io_uring`, other ABIs of the same processor.
//!
//! The program is our own and not of the crate `seccompiler`, whose filters compare one call after
//! the other, give the same answer to every call that they refuse, and take calls of the x32 ABI
//! for calls that nobody has mentioned. Here it is a search tree, with an answer for each call.

mod calls;
mod program;

use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};

/// What else stands between a command and the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Around {
    /// Namespaces of its own: it can do to its own processes and sockets what it likes.
    Namespaces,
    /// Nothing but Landlock: what reaches across to other processes or to the network is refused.
    Nothing,
}

/// The filter, ready to be installed as often as it is needed.
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Makes it.
    pub(super) fn new(around: Around) -> Self {
        Self(program::of(&calls::refused(around)))
    }

    /// Puts the calling process, and whatever it starts, under the filter for good.
    ///
    /// `no_new_privs` has to be set.
    #[allow(unsafe_code, reason = "nix has no seccomp")]
    pub(super) fn install(&self) -> Result<(), Errno> {
        let len = u16::try_from(self.0.len()).expect("a filter has some hundred instructions");
        let program = sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // Without mitigations that cost every call of the command: what it could spy on by
        // speculation is its own.
        let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // SAFETY: the program and its instructions live until the call is over, and the kernel
        // only reads them.
        let done = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        Errno::result(done).map(drop)
    }
}

#[cfg(test)]
mod tests;
