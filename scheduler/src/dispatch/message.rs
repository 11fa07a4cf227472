//! [`Message`]: what the owner of the queue is told.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::Status;

use super::links::Attachment;
use super::operators::{Overview, Selector};
use super::watch::Watch;
use crate::queue::{Counts, Finding, OperationId, Request, Saying, SessionId, TaskView, WorkerId};

/// What the owner is told.
pub(super) enum Message {
    Open {
        request: Request,
        permit: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Watch, Status>>,
    },
    Look {
        operation: OperationId,
        /// Set by who wants to wait.
        permit: Option<OwnedSemaphorePermit>,
        reply: oneshot::Sender<Option<Watch>>,
    },
    Cancel {
        operation: OperationId,
        reply: oneshot::Sender<()>,
    },
    Attach(Attachment),
    Said {
        worker: WorkerId,
        session: SessionId,
        saying: Saying,
    },
    Detached {
        worker: WorkerId,
        session: SessionId,
    },
    Count(oneshot::Sender<Counts>),
    View(oneshot::Sender<Overview>),
    Find {
        selector: Selector,
        max: usize,
        reply: oneshot::Sender<(Vec<TaskView>, Vec<Finding>)>,
    },
    Stop {
        selector: Selector,
        reason: Arc<str>,
        reply: oneshot::Sender<usize>,
    },
    Drain {
        pattern: Arc<str>,
        reason: Arc<str>,
        reply: oneshot::Sender<()>,
    },
    Undrain {
        pattern: Arc<str>,
        reply: oneshot::Sender<()>,
    },
    List {
        after: Option<OperationId>,
        max: usize,
        reply: oneshot::Sender<Vec<Watch>>,
    },
}
