//! [`WorkersService`]: the door for workers, one stream each.

use std::time::Duration;

use castwork_proto::worker::worker_message::Message;
use castwork_proto::worker::workers_server::Workers;
use castwork_proto::worker::{self, Progress, SchedulerMessage, WorkerMessage, progress};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::errors::bad;
use super::hello::{Hello, HelloError, lease_id};
use super::instance::clip;
use crate::dispatch::{Attachment, Dispatch, Link, OUTGOING_MAX, report_of};
use crate::queue::{Condition, Readiness, Saying, SessionId, WorkerId};

/// How long a worker may take to say who it is.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// The door for workers.
pub struct WorkersService {
    dispatch: Dispatch,
}

impl WorkersService {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch }
    }
}

#[tonic::async_trait]
impl Workers for WorkersService {
    type AttachStream = ReceiverStream<Result<SchedulerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.dispatch.services().counters.requests.add(1);
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_WAIT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the worker did not say who it is"))??;
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(bad(HelloError::NotFirst.to_string()));
        };
        let readiness =
            Readiness { draining: hello.draining, condition: hello.condition.clone().map(condition_of) };
        let kinds = &self.dispatch.limits().kinds;
        let hello = Hello::check(hello, &self.dispatch.services().instances, kinds);
        let Hello { worker, offer, held, void } = hello.map_err(|error| bad(error.to_string()))?;
        let session = self.dispatch.new_session();
        let (outgoing, messages) =
            mpsc::channel(OUTGOING_MAX + 2 * offer.slots as usize + held.len() + void.len());
        let stop = CancellationToken::new();
        let listener = Listener { dispatch: self.dispatch.clone(), worker, session, stop: stop.clone() };
        let link = Link { outgoing: outgoing.clone(), _listening: stop.drop_guard() };
        self.dispatch.attach(Attachment { worker, session, offer, held, void, readiness, link }).await?;
        self.dispatch.listeners().spawn(listener.listen(incoming, outgoing.downgrade()));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Hears one worker out, until its stream ends or is ended.
struct Listener {
    dispatch: Dispatch,
    worker: WorkerId,
    session: SessionId,
    stop: CancellationToken,
}

impl Listener {
    async fn listen(
        self,
        mut incoming: Streaming<WorkerMessage>,
        outgoing: mpsc::WeakSender<Result<SchedulerMessage, Status>>,
    ) {
        let stop = self.stop.clone();
        let heard = stop.run_until_cancelled(async {
            while let Some(message) = incoming.message().await? {
                let saying = saying_of(message)?;
                self.dispatch.said(self.worker, self.session, saying).await?;
            }
            Ok::<(), Status>(())
        });
        if let Some(Err(error)) = heard.await {
            tracing::info!(worker = %self.worker, code = ?error.code(), message = error.message(), "worker's stream ended");
            if let Some(outgoing) = outgoing.upgrade() {
                // A worker that talks nonsense is told so; one that is gone does not hear it.
                let _ = outgoing.try_send(Err(error));
            }
        }
        // An error means that the scheduler stops.
        let _ = self.dispatch.detached(self.worker, self.session).await;
    }
}

fn condition_of(condition: worker::Condition) -> Condition {
    let worker::Condition { unfit, cache_bytes, cache_bytes_max, cache_horizon } = condition;
    Condition {
        unfit: (!unfit.is_empty()).then(|| clip(&unfit).into()),
        cache_bytes: (cache_bytes, cache_bytes_max),
        cache_horizon: cache_horizon.and_then(|horizon| Duration::try_from(horizon).ok()),
    }
}

fn saying_of(message: WorkerMessage) -> Result<Saying, Status> {
    let lease = |text: &str| lease_id(text).map_err(|error| bad(error.to_string()));
    match message.message {
        Some(Message::Draining(_)) => Ok(Saying::Draining),
        Some(Message::Condition(condition)) => Ok(Saying::Condition(condition_of(condition))),
        Some(Message::Progress(Progress { lease_id, stage })) => {
            let commanding = stage == progress::Stage::Executing as i32;
            Ok(Saying::Progress { lease: lease(&lease_id)?, commanding })
        }
        Some(Message::Outcome(outcome)) => {
            let (lease, memory_bytes) = (lease(&outcome.lease_id)?, outcome.memory_bytes_max);
            Ok(Saying::Outcome { lease, report: report_of(outcome), memory_bytes })
        }
        Some(Message::Hello(_)) => Err(bad("a worker says hello once")),
        // Without a message it is of a later version; what it means can't matter to this one.
        Some(Message::Heartbeat(_)) | None => Ok(Saying::Heartbeat),
    }
}
