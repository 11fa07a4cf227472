//! [`Dispatch`]: owns the queue, tells it what happens, and does what it wants.
//!
//! One task owns the queue, so nothing is locked. Whatever takes time (reading inputs, writing the
//! action cache) is a job beside it, whose end is told like any other event.

mod check;
mod command;
mod folders;
mod jobs;
mod journal;
mod kinds;
mod limits;
mod links;
mod message;
mod metrics;
mod operators;
mod owner;
mod prepared;
mod publish;
mod response;
mod spans;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use castwork_proto::admin::admin_server::AdminServer;
use castwork_proto::longrunning::operations_server::OperationsServer;
use castwork_proto::reapi::execution_server::ExecutionServer;
use castwork_proto::worker::workers_server::WorkersServer;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

pub use journal::{Journal, Recovered};
pub use kinds::{Kind, Kinds};
pub(crate) use kinds::{KindError, Offered};
pub use limits::{Limits, PRIORITIES};
pub(crate) use links::{Attachment, Link, OUTGOING_MAX};
pub(crate) use metrics::{wanted, write_to as write_metrics};
pub(crate) use operators::{Overview, Selector};
pub(crate) use response::{report_of, response_of};
pub(crate) use watch::{Watch, operation_name, parse_operation_name};

use crate::front::admin::AdminService;
use crate::front::execution::ExecutionService;
use crate::front::operations::OperationsService;
use crate::front::workers::WorkersService;
use crate::queue::{Counts, OperationId, Request, Saying, SessionId, WorkerId};
use crate::store::DiskResults;
use crate::{Gauge, Services};
use message::Message;
use owner::Owner;

/// How long who asked what to start is taken to start what is asked for.
const SCALER_GRACE: Duration = Duration::from_secs(10 * 60);

/// Bytes of a worker's message. An outcome names every output, and there may be many.
const OUTCOME_BYTES_MAX: usize = 16 << 20;

/// A running dispatch. Cheap to clone; it runs until [`Dispatch::shutdown`].
#[derive(Clone)]
pub struct Dispatch {
    inner: Arc<Inner>,
}

struct Inner {
    services: Services,
    limits: Limits,
    messages: mpsc::Sender<Message>,
    waiters: Arc<Semaphore>,
    sessions_made: AtomicU64,
    expects_workers: Arc<AtomicBool>,
    /// When an autoscaler asked last what it should start.
    scaler_asked: std::sync::Mutex<Option<Instant>>,
    stop: CancellationToken,
    owner: Mutex<Option<JoinHandle<()>>>,
    /// The tasks that listen to workers.
    listeners: TaskTracker,
}

/// Starts the task that owns the queue. Has to be called in a runtime of tokio.
pub fn start(services: Services, limits: Limits) -> Dispatch {
    start_with(services, limits, |_| ())
}

/// As [`start`], and goes on with the operations that a journal has. They are there when this returns.
pub fn resume(services: Services, limits: Limits, journal: Journal, recovered: Recovered) -> Dispatch {
    start_with(services, limits, |owner| owner.resume(journal, recovered))
}

fn start_with(services: Services, limits: Limits, prepare: impl FnOnce(&mut Owner)) -> Dispatch {
    let mut limits = limits;
    limits.queue.silence_max = limits.heartbeat_interval * 3;
    let (messages, inbox) = mpsc::channel(limits.events_max);
    let stop = CancellationToken::new();
    let expects_workers = Arc::new(AtomicBool::new(true));
    let mut owner = Owner::new(services.clone(), limits.clone(), expects_workers.clone());
    prepare(&mut owner);
    let inner = Inner {
        services,
        waiters: Arc::new(Semaphore::new(limits.waiters_max)),
        limits,
        messages,
        sessions_made: AtomicU64::new(0),
        expects_workers,
        scaler_asked: std::sync::Mutex::default(),
        owner: Mutex::new(Some(tokio::spawn(owner.run(inbox, stop.clone())))),
        stop,
        listeners: TaskTracker::new(),
    };
    Dispatch { inner: Arc::new(inner) }
}

impl Dispatch {
    /// The REAPI service `Execution`.
    pub fn execution_service(&self) -> ExecutionServer<ExecutionService> {
        ExecutionServer::new(ExecutionService::new(self.clone()))
    }

    /// The service `google.longrunning.Operations`, as far as REAPI's clients need it.
    pub fn operations_service(&self) -> OperationsServer<OperationsService> {
        OperationsServer::new(OperationsService::new(self.clone()))
    }

    /// The door for workers.
    pub fn workers_service(&self) -> WorkersServer<WorkersService> {
        WorkersServer::new(WorkersService::new(self.clone())).max_decoding_message_size(OUTCOME_BYTES_MAX)
    }

    /// The door for operators, who may take `results` back.
    pub fn admin_service(&self, results: Option<DiskResults>) -> AdminServer<AdminService> {
        AdminServer::new(AdminService::new(self.clone(), results))
    }

    /// How much there is of everything at this moment; nothing once it is shut down.
    pub async fn stats(&self) -> Stats {
        let counts = self.ask(Message::Count).await.unwrap_or_default();
        Stats { counts }
    }

    /// Whether there is anybody who runs actions, or may be on the way: else a client that can do without need not ask.
    pub fn expects_workers(&self) -> bool {
        let has_scaler = || {
            let asked = self.inner.scaler_asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.is_some_and(|asked| asked.elapsed() < SCALER_GRACE)
        };
        self.inner.expects_workers.load(Ordering::Relaxed) || has_scaler()
    }

    /// Takes note that an autoscaler asks: it starts workers for what waits, so clients have to ask for something.
    pub fn note_scaler(&self) {
        *self.inner.scaler_asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns when nobody looks after the queue any more, which is after [`Dispatch::shutdown`] or a fault of ours: no
    /// call that needs it will be answered.
    pub async fn ended(&self) {
        self.inner.messages.closed().await;
    }

    /// Ends all streams, of clients with UNAVAILABLE, which has them come back, and stops.
    ///
    /// Workers go on with what they run, and state it when they attach to the next scheduler.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let owner = self.inner.owner.lock().await.take();
        if let Some(owner) = owner
            && let Err(error) = owner.await
        {
            tracing::error!(%error, "the queue did not stop in order");
        }
        self.inner.listeners.close();
        self.inner.listeners.wait().await;
    }

    pub(crate) fn services(&self) -> &Services {
        &self.inner.services
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The tasks that listen to workers.
    pub(crate) fn listeners(&self) -> &TaskTracker {
        &self.inner.listeners
    }

    /// Opens an operation, and waits for it.
    pub(crate) async fn open(&self, request: Request) -> Result<Watch, Status> {
        let permit = self.permit()?;
        self.ask(|reply| Message::Open { request, permit, reply }).await?
    }

    /// Waits for an operation that was opened before.
    pub(crate) async fn join(&self, operation: OperationId) -> Result<Option<Watch>, Status> {
        let permit = Some(self.permit()?);
        self.ask(|reply| Message::Look { operation, permit, reply }).await
    }

    /// Looks at an operation that was opened before.
    pub(crate) async fn look(&self, operation: OperationId) -> Result<Option<Watch>, Status> {
        self.ask(|reply| Message::Look { operation, permit: None, reply }).await
    }

    /// Cancels an operation.
    pub(crate) async fn cancel(&self, operation: OperationId) -> Result<(), Status> {
        self.ask(|reply| Message::Cancel { operation, reply }).await
    }

    /// A name for a connection of a worker.
    pub(crate) fn new_session(&self) -> SessionId {
        SessionId(self.inner.sessions_made.fetch_add(1, Ordering::Relaxed))
    }

    /// Lets a worker in. What becomes of that, its stream tells.
    pub(crate) async fn attach(&self, attachment: Attachment) -> Result<(), Status> {
        self.tell(Message::Attach(attachment)).await
    }

    /// Passes on what a worker says.
    pub(crate) async fn said(
        &self,
        worker: WorkerId,
        session: SessionId,
        saying: Saying,
    ) -> Result<(), Status> {
        self.tell(Message::Said { worker, session, saying }).await
    }

    /// Passes on that a worker's stream has ended.
    pub(crate) async fn detached(&self, worker: WorkerId, session: SessionId) -> Result<(), Status> {
        self.tell(Message::Detached { worker, session }).await
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.inner.waiters).try_acquire_owned().map_err(|_| {
            let max = self.inner.limits.waiters_max;
            Status::resource_exhausted(format!("no more than {max} streams wait at a time"))
        })
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.inner.messages.send(message).await.map_err(|_| stopping())
    }
}

/// What everybody hears when the scheduler stops.
pub(crate) fn stopping() -> Status {
    Status::unavailable("the scheduler is stopping; try again")
}

/// How much there is of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// As the queue counts it.
    pub counts: Counts,
}

impl Stats {
    /// The same, for `/metrics`.
    pub fn gauges(&self) -> Vec<Gauge> {
        let counts = &self.counts;
        let workers = |wanted: fn(&crate::queue::WorkerState) -> bool| {
            counts.workers.iter().filter(|worker| wanted(worker)).count() as u64
        };
        let gauge = |name, help, value| Gauge { name, help, value };
        let slots =
            counts.workers.iter().filter(|worker| worker.connected).map(|worker| u64::from(worker.slots));
        vec![
            gauge(
                "castwork_operations",
                "Requests of clients that have not ended.",
                counts.operations as u64,
            ),
            gauge("castwork_actions_queued", "Actions that wait for a worker.", counts.queued as u64),
            gauge("castwork_actions_running", "Actions that are with workers.", counts.running as u64),
            gauge(
                "castwork_workers_connected",
                "Workers that are connected.",
                workers(|worker| worker.connected),
            ),
            gauge(
                "castwork_workers_draining",
                "Workers that take no new actions.",
                workers(|worker| worker.draining),
            ),
            gauge("castwork_workers_absent", "Workers expected back.", workers(|worker| !worker.connected)),
            gauge(
                "castwork_workers_quarantined",
                "Workers that are left out for a while.",
                workers(|worker| worker.quarantined),
            ),
            gauge("castwork_worker_slots", "Actions that connected workers can run at once.", slots.sum()),
        ]
    }
}
