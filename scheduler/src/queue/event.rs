//! [`Event`] and [`Effect`]: what the queue is told, and what it wants done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::ActionKey;
use castwork_proto::reapi;

use super::{Amounts, Finding, Needs, Properties, Refusal};

/// Time since the scheduler started. The queue has no clock; it is told.
pub type Moment = Duration;

/// Names one client's request, from its first message until some minutes after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(pub u128);

/// Names an action that is being looked after; a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// Names one attempt to run an action, for ever.
///
/// The upper half tells which life of the scheduler granted it, the lower half counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u128);

/// Names a worker, over its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u128);

/// Names one connection of a worker; counted by `dispatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl LeaseId {
    pub(super) const fn new(incarnation: u64, serial: u64) -> Self {
        Self((incarnation as u128) << 64 | serial as u128)
    }

    pub(super) const fn incarnation(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// Reads 32 lower-case hexadecimal digits, which is how ids are written in messages.
pub fn id_from_hex(text: &str) -> Option<u128> {
    let well_formed = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What clients get as the end of an operation; shared, as many may wait for one action.
pub type Response = Arc<reapi::ExecuteResponse>;

/// What happens to the queue.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants an action's result, and waits.
    Opened(Request),
    /// An operation that an earlier life of the scheduler had opened, and that nobody waits for yet.
    Restored {
        /// As it was opened.
        request: Request,
        /// Whether a worker may come back with it.
        was_running: bool,
    },
    /// An [`Effect::Check`] is done.
    Checked {
        /// The task that was checked.
        task: TaskId,
        /// What came of it.
        verdict: Checked,
    },
    /// Somebody (more) waits for an operation.
    WaiterJoined(OperationId),
    /// Somebody no longer waits for an operation. It goes on without, for a while.
    WaiterLeft(OperationId),
    /// The client no longer wants the operation.
    Cancelled(OperationId),
    /// An operator does not want the operation.
    Stopped(OperationId, Arc<str>),
    /// An operator wants workers to take no new actions, by a pattern of their names or ids, and says why.
    Drained(Arc<str>, Arc<str>),
    /// An operator takes that back, by the same pattern.
    Undrained(Arc<str>),
    /// A worker has connected.
    Attached {
        /// Which worker.
        worker: WorkerId,
        /// Its connection; replaces an earlier one.
        session: SessionId,
        /// What it can do.
        offer: Offer,
        /// What it is running, or has outcomes of.
        held: Vec<Held>,
        /// Whether it takes new leases at all, and can run them.
        readiness: Readiness,
    },
    /// A worker's connection has ended.
    Detached {
        /// Which worker.
        worker: WorkerId,
        /// The connection.
        session: SessionId,
    },
    /// A worker said something on its connection.
    Said {
        /// Which worker.
        worker: WorkerId,
        /// The connection.
        session: SessionId,
        /// What it said.
        saying: Saying,
    },
    /// An [`Effect::Publish`] is done.
    Published {
        /// The task whose response it is.
        task: TaskId,
        /// The response as clients shall see it; or why there is none.
        result: Result<Response, Unpublished>,
    },
    /// Much time has passed in which the scheduler did nothing: it was stopped, or its machine was. Comes before the
    /// [`Event::Tick`].
    StoodStill,
    /// Time has passed. Expected about once a second.
    Tick,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A fresh name for the operation.
    pub operation: OperationId,
    /// Instance, digest function and digest of the action.
    pub key: ActionKey,
    /// Lower is sooner.
    pub priority: i32,
    /// The build it belongs to, the unit of fairness; may be empty.
    pub run: Arc<str>,
    /// Who asks, above the run; may be empty.
    pub principal: Arc<str>,
    /// Whether a result of earlier will do.
    pub lookup: bool,
    /// What the worker is told about where this comes from.
    pub origin: Arc<Origin>,
}

/// Where a task comes from; the queue only carries it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// When the action was asked for, in nanoseconds since the epoch of Unix.
    pub queued_unix_nanos: i64,
    /// What the client stated about its build.
    pub metadata: Option<reapi::RequestMetadata>,
    /// Which span of which trace it is, if anybody traces it.
    pub trace: Option<castwork_trace::Begun>,
}

impl Origin {
    /// The name of the build, as the client stated it; may be empty.
    pub fn run(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| metadata.tool_invocation_id.as_str())
    }
}

/// What a check has found.
#[derive(Clone, Debug)]
pub enum Checked {
    /// There is a result already, or the request is in error: nothing is to be run.
    Answered(Response),
    /// The action is fit to be run.
    Ready(Spec),
}

/// What the queue has to know about an action to have it run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What a worker must be like.
    pub needs: Needs,
    /// What actions have in common that are expected to take alike: the same tool makes the same output.
    pub kind: Option<u64>,
    /// The largest folders of its inputs, with their bytes: a worker that has had them is the better choice.
    pub folders: Arc<[(u64, u64)]>,
    /// Wall-clock bound of the command.
    pub timeout: Duration,
    /// Whether equal requests may share a run (not so with `do_not_cache`).
    pub mergeable: bool,
}

/// What a worker can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// For people.
    pub name: Arc<str>,
    /// Version of its program, for people.
    pub version: Arc<str>,
    /// What actions may ask for.
    pub properties: Properties,
    /// How many actions of one core it runs at once.
    pub slots: u32,
    /// Its memory, if it says; else nobody watches over that.
    pub memory_bytes: Option<u64>,
    /// The most memory that one action may use, if that is bounded, unless more is set aside for it.
    pub action_memory_bytes: Option<u64>,
    /// The most that may be set aside for one; nothing that is more than the above if not set.
    pub action_memory_bytes_max: Option<u64>,
    /// What else its actions consume.
    pub others: Amounts,
}

/// Whether a worker that connects is to be given anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// It takes no new leases.
    pub draining: bool,
    /// How it is itself; `None` if it does not say, and then it is as it was.
    pub condition: Option<Condition>,
}

/// A lease that a worker brings along.
#[derive(Clone, Debug)]
pub struct Held {
    /// The lease.
    pub lease: LeaseId,
    /// The action it is for.
    pub key: ActionKey,
    /// What to note for the task that may have to be made, as where it came from is forgotten.
    pub origin: Arc<Origin>,
}

/// A worker's message, after the first.
#[derive(Clone, Debug)]
pub enum Saying {
    /// It is alive.
    Heartbeat,
    /// It takes no new leases.
    Draining,
    /// How it is itself.
    Condition(Condition),
    /// The command of a lease runs, or runs no more.
    Progress {
        /// The lease.
        lease: LeaseId,
        /// Whether the command itself runs at the moment.
        commanding: bool,
    },
    /// A lease has ended.
    Outcome {
        /// The lease.
        lease: LeaseId,
        /// How.
        report: Report,
        /// The most memory that the command took at a time, in bytes; 0 if that was not measured.
        memory_bytes: u64,
    },
}

/// How a worker itself is, as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why it should be given nothing, if so.
    pub unfit: Option<Arc<str>>,
    /// What its cache holds, and may hold, in bytes.
    pub cache_bytes: (u64, u64),
    /// What was used within that time is still in its cache; `None` if all of it is.
    pub cache_horizon: Option<Duration>,
}

/// Why an outcome was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpublished {
    /// The worker's word can't be taken; says why.
    Refused(String),
    /// The scheduler's own store has failed; the worker is innocent.
    Failed(String),
}

/// How a lease ended.
#[derive(Clone, Debug)]
pub enum Report {
    /// With an answer for clients, good or bad.
    Final(Response),
    /// With the command killed as it took more memory than there was for it; what clients are told if there is
    /// no more anywhere.
    OutOfMemory(Response),
    /// By a fault of the worker; says which.
    Retry(String),
}

/// What the queue wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// There is no such operation after all: tell the caller why.
    Refuse(OperationId, Refusal),
    /// See whether the action is fit to be run, and answer [`Event::Checked`].
    Check {
        /// The task to answer for.
        task: TaskId,
        /// The action.
        key: ActionKey,
        /// Whether to look into the action cache first.
        lookup: bool,
    },
    /// Waiters of an operation learn its stage.
    Stage(OperationId, Stage),
    /// The action was run for another operation, and its outcome is this one's too. Comes before its end.
    Shared(OperationId),
    /// Waiters of an operation get its end. Once for each operation that was not refused.
    Finish(OperationId, Ending),
    /// The operation's name means nothing from now on.
    Forget(OperationId),
    /// Answer a worker's hello.
    Welcome(WorkerId, SessionId),
    /// End a worker's connection.
    Disconnect(WorkerId, SessionId, Refusal),
    /// Have a worker run an action.
    Grant {
        /// Which worker.
        worker: WorkerId,
        /// Names the attempt.
        lease: LeaseId,
        /// The action.
        key: ActionKey,
        /// Wall-clock bound of the command.
        timeout: Duration,
        /// Memory that is set aside for it, in bytes; 0 if it is not known what it needs.
        memory_bytes: u64,
        /// Where it came from.
        origin: Arc<Origin>,
    },
    /// Have a worker forget a lease, and kill what runs under it.
    Revoke(WorkerId, LeaseId, &'static str),
    /// Tell a worker that it may forget an outcome.
    Keep(WorkerId, LeaseId),
    /// See that what a response names is there, write the action cache, and answer
    /// [`Event::Published`].
    Publish {
        /// The task to answer for.
        task: TaskId,
        /// The action.
        key: ActionKey,
        /// What the worker reported.
        response: Response,
        /// Where it came from.
        origin: Arc<Origin>,
        /// The name of the worker, for people.
        worker_name: Arc<str>,
        /// Whether the result may be kept; `None` if only the action knows.
        cacheable: Option<bool>,
    },
    /// Have a result that others agree on take the place of that in the action cache.
    Correct {
        /// The action.
        key: ActionKey,
        /// What a worker reported.
        response: Response,
        /// Where the action came from.
        origin: Arc<Origin>,
        /// The name of the worker, for people.
        worker_name: Arc<str>,
    },
    /// Running an action again had another result: tell people.
    Found(Finding),
    /// The task is over; what was set aside for it can go.
    Over(TaskId),
}

/// Where an operation has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Looked up and checked.
    Checking,
    /// Waiting for a worker.
    Queued,
    /// With a worker.
    Executing,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With an answer of the cache, a check, or a worker.
    Answered(Response),
    /// By a decision of the queue.
    Refused(Refusal),
}
