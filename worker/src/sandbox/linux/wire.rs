//! What the worker and the process that confines a command say to each other, over one socket.
//!
//! The worker sends one [`Order`] and later, if the command has to die, closes its side. It gets
//! [`Report`]s. Each is a line of JSON; a report may carry a descriptor.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::sandbox::{Bounds, Layout, Root};

/// Longest line, in bytes: the arguments and environment that a system takes are much less.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Everything there is to know about the command and its confinement.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The action's folder; everything of the action is named relative to it.
    pub scratch: PathBuf,
    /// User and group to become before anything else; `None` to stay who one is.
    pub become_id: Option<(u32, u32)>,
    /// How the inputs are laid out in it.
    pub layout: Layout,
    /// What is `/`.
    pub root: Root,
    /// Relative to the input root.
    pub working_directory: String,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Absolute paths that are not to be seen though a system folder holds them.
    pub hidden: Vec<PathBuf>,
    /// What it may use.
    pub bounds: Bounds,
}

/// What has become of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// All is set up, and the command is about to start. Carries the input root's descriptor.
    Ready,
    /// The command returned.
    Exited(i32),
    /// A signal killed the command.
    Signaled(i32),
    /// A step failed; the command was not started.
    Failed {
        /// What was tried.
        step: String,
        /// What the system said.
        errno: i32,
    },
    /// Nothing of the command is left. The last report, unless a step failed.
    Gone {
        /// Processor time in user mode, in microseconds.
        user_us: u64,
        /// Processor time in the kernel, in microseconds.
        system_us: u64,
        /// Largest resident set of one process, in bytes.
        memory_bytes_max: u64,
    },
}

/// Reads the order.
pub(super) fn read_order(socket: impl Read) -> io::Result<Order> {
    let mut line = Vec::new();
    let mut socket = io::BufReader::new(socket.take(LINE_BYTES_MAX));
    io::BufRead::read_until(&mut socket, b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// A message as it is sent.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Sends a report. Nobody may be there to read it, which is no concern of the sender's.
pub(super) fn send(socket: BorrowedFd<'_>, report: &Report, descriptor: Option<BorrowedFd<'_>>) {
    let line = line(report).expect("a report has only numbers and text");
    let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&line)], rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// Collects reports from the pieces in which they arrive.
#[derive(Debug, Default)]
pub(super) struct Reports {
    bytes: Vec<u8>,
    /// The last descriptor that came.
    pub descriptor: Option<OwnedFd>,
}

impl Reports {
    /// Reads what has arrived, without waiting; whether the other side can still say more.
    #[allow(unsafe_code, reason = "descriptors arrive as bare numbers")]
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let mut rights = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut piece)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut rights), flags)?;
        let got = message.bytes;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = part {
                for raw in descriptors {
                    // SAFETY: the kernel has just made this descriptor for us, and nobody else
                    // knows its number.
                    self.descriptor = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        self.bytes.extend_from_slice(&piece[..got]);
        Ok(got > 0)
    }

    /// Takes the next whole report.
    pub(super) fn next(&mut self) -> io::Result<Option<Report>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
