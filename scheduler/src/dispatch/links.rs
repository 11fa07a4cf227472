//! [`Links`]: the connections to workers, as far as messages go out on them.

use std::collections::HashMap;

use castwork_proto::worker::{SchedulerMessage, scheduler_message};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tonic::Status;

use super::response::code_of;
use crate::queue::{Held, LeaseId, Offer, Readiness, Refusal, SessionId, WorkerId};

/// Messages to a worker that wait to be sent, at most, beside two for each of its slots.
pub(crate) const OUTGOING_MAX: usize = 64;

/// What goes to a worker: messages, or the reason why its stream ends.
pub(crate) type Outgoing = mpsc::Sender<Result<SchedulerMessage, Status>>;

/// A worker that wants in.
pub(crate) struct Attachment {
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) offer: Offer,
    pub(crate) held: Vec<Held>,
    /// Leases that it brings along and that can't be for anybody here.
    pub(crate) void: Vec<LeaseId>,
    pub(crate) readiness: Readiness,
    pub(crate) link: Link,
}

/// A connection to a worker. Dropping it ends the worker's stream, both ways.
pub(crate) struct Link {
    pub(crate) outgoing: Outgoing,
    /// Ends the task that listens.
    pub(crate) _listening: DropGuard,
}

/// The connections to workers.
#[derive(Default)]
pub(super) struct Links {
    by_session: HashMap<SessionId, Link>,
    /// The connection that the queue knows of.
    current: HashMap<WorkerId, SessionId>,
}

impl Links {
    pub(super) fn insert(&mut self, session: SessionId, link: Link) {
        self.by_session.insert(session, link);
    }

    /// Notes that the queue has let a worker in.
    pub(super) fn welcome(&mut self, worker: WorkerId, session: SessionId) {
        self.current.insert(worker, session);
    }

    /// The connection to a worker that the queue knows of.
    pub(super) fn current(&self, worker: WorkerId) -> Option<SessionId> {
        self.current.get(&worker).copied()
    }

    /// Ends a connection, and says why if it can still be said.
    pub(super) fn disconnect(&mut self, worker: WorkerId, session: SessionId, refusal: &Refusal) {
        if let Some(link) = self.by_session.remove(&session) {
            // If there is no room, the worker learns from the stream's end.
            let _ = link.outgoing.try_send(Err(Status::new(code_of(refusal), refusal.to_string())));
        }
        self.remove(worker, session);
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&mut self, worker: WorkerId, session: SessionId) {
        self.by_session.remove(&session);
        if self.current.get(&worker) == Some(&session) {
            self.current.remove(&worker);
        }
    }

    /// Sends a message to a worker, if it is connected.
    ///
    /// # Errors
    /// The connection, if the worker does not take in what it is sent; it should be given up.
    pub(super) fn send(
        &mut self,
        worker: WorkerId,
        message: scheduler_message::Message,
    ) -> Result<(), SessionId> {
        let Some(session) = self.current.get(&worker) else { return Ok(()) };
        let Some(link) = self.by_session.get(session) else { return Ok(()) };
        let message = SchedulerMessage { message: Some(message) };
        match link.outgoing.try_send(Ok(message)) {
            // That it is closed, the task that listens will tell.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(*session),
        }
    }
}
