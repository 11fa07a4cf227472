//! What the worker and a slot's keeper say to each other.
//!
//! One socket for as long as the slot is there: the worker sends one [`Setup`], and then for each
//! action a [`Handed`] set of descriptors with an [`Order`]. One of those is a socket of the action's
//! own: an order that is too long goes there, and later, if the command has to die, the worker closes
//! its side; it gets [`Report`]s. Messages are lines of JSON; a report may carry a descriptor.
//!
//! Whoever becomes the command hears of it from process 1 in the same way.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, send as send_bytes, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::descriptors;
use super::filter::Around;
use crate::sandbox::{Bounds, Layout, Root};

/// Longest line, in bytes: the arguments and environment that a system takes are much less.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Longest line that is sent together with descriptors, in bytes, and longest piece of others.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;

/// Longest setup, in bytes.
const SETUP_BYTES_MAX: usize = 128 << 10;

/// Everything about a slot that is the same for all its actions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The folder that all scratch folders are in.
    pub stage: PathBuf,
    /// User and group to become before anything else; `None` to stay who one is.
    pub become_id: Option<(u32, u32)>,
    /// What there is besides filters of files and system calls.
    pub around: Around,
    /// How inputs are laid out.
    pub layout: Layout,
    /// Absolute paths that are not to be seen though a system folder holds them.
    pub hidden: Vec<PathBuf>,
    /// What an action may use.
    pub bounds: Bounds,
    /// Whether memory is to be watched because nothing else bounds it.
    pub watch_memory: bool,
    /// Whether actions have the machine's network.
    pub network: bool,
}

/// What comes with an action.
#[derive(Debug)]
pub(super) struct Handed {
    /// The action's own socket.
    pub control: OwnedFd,
    /// Where the command's stdout goes.
    pub stdout: OwnedFd,
    /// Where the command's stderr goes.
    pub stderr: OwnedFd,
}

/// Everything there is to know about a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The action's folder, relative to the stage; everything of the action is named relative to it.
    pub scratch: PathBuf,
    /// A folder of inputs below its own, relative to that folder.
    pub base: Option<PathBuf>,
    /// What is `/`.
    pub root: Root,
    /// Relative to the input root.
    pub working_directory: String,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The most memory that it may use, in bytes, where that is watched.
    pub memory_bytes: u64,
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
    /// The command took more memory than it may, and was killed.
    OverMemory,
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

/// Understands an order.
pub(super) fn order_of(line: &[u8]) -> io::Result<Order> {
    Ok(serde_json::from_slice(line)?)
}

/// The line that came with descriptors, or else the one that comes over the action's own socket.
pub(super) fn whole_line(came: Vec<u8>, control: &OwnedFd) -> io::Result<Vec<u8>> {
    if came.len() > 1 {
        return Ok(came);
    }
    let mut line = Vec::new();
    let mut socket = io::BufReader::new(descriptors::reader(control)?.take(LINE_BYTES_MAX));
    io::BufRead::read_until(&mut socket, b'\n', &mut line)?;
    Ok(line)
}

/// A message as it is sent.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Sends a slot's setup.
pub(super) fn send_setup(socket: BorrowedFd<'_>, setup: &Setup) -> io::Result<()> {
    let line = line(setup)?;
    send_bytes(socket.as_raw_fd(), &line, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Waits for the setup.
pub(super) fn receive_setup(socket: BorrowedFd<'_>) -> io::Result<Setup> {
    let mut bytes = vec![0; SETUP_BYTES_MAX];
    let got = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    Ok(serde_json::from_slice(&bytes[..got])?)
}

/// Sends what comes with an action, and its order if that is short enough. Whether it was.
pub(super) fn hand_over(socket: BorrowedFd<'_>, handed: &Handed, line: &[u8]) -> io::Result<bool> {
    let is_short = line.len() <= PIECE_BYTES_MAX;
    send_with(socket, handed, if is_short { line } else { b"\n" })?;
    Ok(is_short)
}

/// Waits for the next action, and its order unless that was too long; `None` if there will be none.
pub(super) fn receive_handed(socket: BorrowedFd<'_>) -> io::Result<Option<(Handed, Vec<u8>)>> {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    let mut rights = cmsg_space!([RawFd; 3]);
    let (got, mut descriptors) = receive(socket, &mut piece, &mut rights, MsgFlags::empty())?;
    if got == 0 {
        return Ok(None);
    }
    piece.truncate(got);
    let mut next = || descriptors.pop().ok_or_else(|| io::Error::other("a descriptor is missing"));
    let (stderr, stdout, control) = (next()?, next()?, next()?);
    Ok(Some((Handed { control, stdout, stderr }, piece)))
}

/// Sends the same to who takes it at once, however long the order is.
pub(super) fn pass_on(socket: BorrowedFd<'_>, handed: &Handed, line: &[u8]) -> io::Result<()> {
    let mut pieces = line.chunks(PIECE_BYTES_MAX);
    send_with(socket, handed, pieces.next().unwrap_or(b"\n"))?;
    for piece in pieces {
        send_bytes(socket.as_raw_fd(), piece, MsgFlags::MSG_NOSIGNAL)?;
    }
    Ok(())
}

/// Waits for that; `None` if nobody is there any more.
pub(super) fn take_over(socket: BorrowedFd<'_>) -> io::Result<Option<(Handed, Vec<u8>)>> {
    let Some((handed, mut line)) = receive_handed(socket)? else { return Ok(None) };
    let mut piece = vec![0; PIECE_BYTES_MAX];
    while line.last() != Some(&b'\n') {
        match recv(socket.as_raw_fd(), &mut piece, MsgFlags::empty())? {
            0 => return Ok(None),
            got => line.extend_from_slice(&piece[..got]),
        }
    }
    Ok(Some((handed, line)))
}

/// Gives the word to start, the last one.
pub(super) fn say_go(socket: OwnedFd) -> io::Result<()> {
    send_bytes(socket.as_raw_fd(), b"!", MsgFlags::MSG_NOSIGNAL)?;
    drop(socket);
    Ok(())
}

/// Waits for it, and until the socket is closed, so that the command can't see that there was one; `false` if the
/// word will never be given.
pub(super) fn hear_go(socket: BorrowedFd<'_>) -> bool {
    let hear = || recv(socket.as_raw_fd(), &mut [0], MsgFlags::empty());
    hear().is_ok_and(|got| got > 0) && hear().is_ok_and(|got| got == 0)
}

fn send_with(socket: BorrowedFd<'_>, handed: &Handed, bytes: &[u8]) -> io::Result<()> {
    let raw = [&handed.control, &handed.stdout, &handed.stderr].map(AsRawFd::as_raw_fd);
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Sends a report. Nobody may be there to read it, which is no concern of the sender's.
pub(super) fn send(socket: BorrowedFd<'_>, report: &Report, descriptor: Option<BorrowedFd<'_>>) {
    let line = line(report).expect("a report has only numbers and text");
    let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&line)], rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// The same for several at once, without descriptors.
pub(super) fn tell(socket: BorrowedFd<'_>, reports: &[Report]) {
    let lines = reports.iter().map(|report| line(report).expect("a report has only numbers and text"));
    let bytes: Vec<u8> = lines.flatten().collect();
    let _ = send_bytes(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
}

/// One `recvmsg`: how many bytes came, and which descriptors.
#[allow(unsafe_code, reason = "descriptors arrive as bare numbers")]
fn receive(
    socket: BorrowedFd<'_>,
    piece: &mut [u8],
    rights: &mut [u8],
    flags: MsgFlags,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(piece)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(rights), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows
            // their numbers.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok((message.bytes, descriptors))
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
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let mut rights = cmsg_space!(RawFd);
        let (got, descriptors) = receive(socket, &mut piece, &mut rights, MsgFlags::MSG_DONTWAIT)?;
        if let Some(descriptor) = descriptors.into_iter().next_back() {
            self.descriptor = Some(descriptor);
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
