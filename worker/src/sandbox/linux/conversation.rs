//! [`Conversation`]: the worker's end of the socket to one sandbox.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{Report, Reports};
use crate::sandbox::{Bound, End, Folder, SandboxError, Usage};

/// What has been heard from a sandbox so far.
pub(super) struct Conversation {
    stream: UnixStream,
    reports: Reports,
    is_ready: bool,
    is_closed: bool,
    end: Option<End>,
    usage: Option<Usage>,
    failure: Option<SandboxError>,
}

/// What was heard when all is over.
pub(super) struct Heard {
    /// How the command ended; `None` if its sandbox was killed before it did.
    pub end: Option<End>,
    pub usage: Usage,
    pub root: Folder,
}

impl Conversation {
    /// Sends what is left to be sent of the order.
    pub(super) async fn begin(socket: StdStream, order: &[u8]) -> Result<Self, SandboxError> {
        socket.set_nonblocking(true).map_err(SandboxError::at("use the socket"))?;
        let mut stream = UnixStream::from_std(socket).map_err(SandboxError::at("use the socket"))?;
        stream.write_all(order).await.map_err(SandboxError::at("send the order"))?;
        Ok(Self {
            stream,
            reports: Reports::default(),
            is_ready: false,
            is_closed: false,
            end: None,
            usage: None,
            failure: None,
        })
    }

    /// The command has started, or never will.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready || self.is_gone()
    }

    /// Nothing of the sandbox is left.
    pub(super) fn is_gone(&self) -> bool {
        self.is_closed || self.usage.is_some()
    }

    /// Listens until there has been enough. Cancel-safe.
    pub(super) async fn hear(&mut self, is_enough: fn(&Self) -> bool) -> Result<(), SandboxError> {
        let step = "listen to the sandbox";
        while !is_enough(self) {
            self.stream.readable().await.map_err(SandboxError::at(step))?;
            let (stream, reports) = (&self.stream, &mut self.reports);
            match stream.try_io(Interest::READABLE, || reports.receive(stream.as_fd())) {
                Ok(is_open) => self.is_closed = !is_open,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.is_closed = true,
                Err(error) => return Err(SandboxError::at(step)(error)),
            }
            while let Some(report) = self.reports.next().map_err(SandboxError::at(step))? {
                self.take(report);
            }
        }
        Ok(())
    }

    /// Closes the worker's side, which the sandbox takes for the order to die.
    pub(super) async fn ask_to_die(&mut self) {
        // Fails only if it is dead already.
        let _ = self.stream.shutdown().await;
    }

    /// Draws the conclusion.
    pub(super) fn finish(self) -> Result<Heard, SandboxError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.reports.descriptor {
            Some(root) => {
                Ok(Heard { end: self.end, usage: self.usage.unwrap_or_default(), root: Folder::of(root) })
            }
            None => Err(SandboxError::Lost { status: "no input root was sent".to_owned() }),
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Ready => self.is_ready = true,
            Report::Exited(code) => self.end = Some(End::Exited(code)),
            Report::Signaled(signal) => self.end = Some(End::Signaled(signal)),
            Report::OverMemory => self.end = Some(End::Over(Bound::Memory)),
            Report::Failed { step, errno } => {
                let source = io::Error::from_raw_os_error(errno);
                self.failure = Some(SandboxError::Setup { step, source });
            }
            Report::Gone { user_us, system_us, memory_bytes_max } => {
                let user = Duration::from_micros(user_us);
                let system = Duration::from_micros(system_us);
                self.usage = Some(Usage { user, system, memory_bytes_max });
            }
        }
    }
}
