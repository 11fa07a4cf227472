//! [`Owner`]: the one task that has the queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castwork_cas::ActionKey;
use castwork_proto::worker::{
    CancelLease, Lease, OutcomeKept, Welcome, scheduler_message::Message as ToWorker,
};
use castwork_trace::Tracer;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use super::Limits;
use super::check::{Findings, Pinned};
use super::jobs::{Done, Jobs};
use super::journal::{Journal, Recovered};
use super::links::{Attachment, Links};
use super::message::Message;
use super::prepared::{Prepared, PreparedActions};
use super::publish::Publication;
use super::response::{code_name, code_of, failed};
use super::spans::Stages;
use super::watch::{State, Waiter, Watch, operation_name};
use crate::Services;
use crate::queue::{
    Effect, Ending, Event, Finding, LeaseId, OperationId, Origin, Queue, Refusal, Report, Request, Saying,
    SessionId, Stage, TaskId, WorkerId,
};
use crate::runs::{self, Asker, Runs};

/// A tick that comes so much late tells that this process was stopped, or the whole machine.
const STANDSTILL_MIN: Duration = Duration::from_secs(5);

/// The queue and everything that its effects act upon.
pub(super) struct Owner {
    pub(super) queue: Queue,
    started: Instant,
    ticked: Instant,
    limits: Limits,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    links: Links,
    jobs: Jobs,
    prepared: PreparedActions,
    /// Leases that are granted and wait for their messages to be read.
    unsent: HashMap<LeaseId, Grant>,
    pins: HashMap<TaskId, Pinned>,
    pins_len: usize,
    /// What has followed from the event at hand and is still to be told to the queue.
    followups: VecDeque<Event>,
    /// Set while an operation is opened that the queue does not take.
    refusal: Option<Refusal>,
    /// The operation that is being opened, of which the journal does not know yet.
    opening: Option<OperationId>,
    pub(super) journal: Option<Journal>,
    /// Is told how each operation ended.
    runs: Arc<Runs>,
    tracer: Tracer,
    /// Whether anybody runs actions, for those who ask without waiting for this task.
    expects_workers: Arc<AtomicBool>,
    leaves: mpsc::UnboundedSender<OperationId>,
    left: mpsc::UnboundedReceiver<OperationId>,
}

pub(super) struct Operation {
    key: ActionKey,
    state: watch::Sender<State>,
    origin: Arc<Origin>,
    lookup: bool,
    stages: Stages,
    /// Whether its action was run for another one.
    is_shared: bool,
    /// Whether an earlier life of this server left it.
    is_restored: bool,
}

/// Tells who asked what became of opening an operation.
type Reply = oneshot::Sender<Result<Watch, Status>>;

/// A lease on its way to a worker.
struct Grant {
    worker: WorkerId,
    lease: LeaseId,
    key: ActionKey,
    timeout: Duration,
    memory_bytes: u64,
    origin: Arc<Origin>,
}

impl Owner {
    pub(super) fn new(services: Services, limits: Limits, expects_workers: Arc<AtomicBool>) -> Self {
        let (leaves, left) = mpsc::unbounded_channel();
        Self {
            queue: Queue::new(limits.queue.clone(), rand::random()),
            expects_workers,
            started: Instant::now(),
            ticked: Instant::now(),
            operations: BTreeMap::new(),
            links: Links::default(),
            runs: Arc::clone(&services.runs),
            tracer: services.tracer.clone(),
            jobs: Jobs::new(services, &limits),
            prepared: PreparedActions::new(limits.prepared_bytes_max),
            limits,
            unsent: HashMap::new(),
            pins: HashMap::new(),
            pins_len: 0,
            followups: VecDeque::new(),
            refusal: None,
            opening: None,
            journal: None,
            leaves,
            left,
        }
    }

    /// Works until `stop`, then drops every stream.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.limits.tick_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                Some(operation) = self.left.recv() => self.apply(Event::WaiterLeft(operation)),
                done = self.jobs.next() => self.finish_job(done),
                _ = ticks.tick() => self.tick(),
            }
        }
        self.jobs.stop().await;
    }

    fn tick(&mut self) {
        let ticked = std::mem::replace(&mut self.ticked, Instant::now());
        let late = self.ticked.duration_since(ticked);
        if late > self.limits.tick_interval + STANDSTILL_MIN {
            warn!(seconds = late.as_secs(), "the server stood still; workers get the time to come back");
            self.apply(Event::StoodStill);
        }
        self.apply(Event::Tick);
        if let Some(journal) = &self.journal {
            journal.flush();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Open { request, permit, reply } => self.open(request, permit, reply),
            Message::Look { operation, permit, reply } => {
                if permit.is_some() {
                    self.apply(Event::WaiterJoined(operation));
                }
                let _ = reply.send(self.watch(operation, permit));
            }
            Message::Cancel { operation, reply } => {
                self.apply(Event::Cancelled(operation));
                let _ = reply.send(());
            }
            Message::Attach(attachment) => self.attach(attachment),
            Message::Said { worker, session, saying } => self.apply(Event::Said { worker, session, saying }),
            Message::Detached { worker, session } => {
                self.links.remove(worker, session);
                self.apply(Event::Detached { worker, session });
            }
            Message::Count(reply) => {
                let _ = reply.send(self.queue.counts());
            }
            other => self.take_from_operator(other),
        }
    }

    fn open(&mut self, request: Request, permit: OwnedSemaphorePermit, reply: Reply) {
        let name = request.operation;
        let noted = self.journal.is_some().then(|| request.clone());
        self.add(&request);
        self.opening = Some(name);
        self.apply(Event::Opened(request));
        self.opening = None;
        let answer = match self.refusal.take() {
            Some(refusal) => Err(Status::new(code_of(&refusal), refusal.to_string())),
            None => Ok(self.watch(name, Some(permit)).expect("an operation is there once it is opened")),
        };
        let goes_on = answer.as_ref().is_ok_and(|watch| watch.state.borrow().ending.is_none());
        // Who asked and is gone by now counts as one who left.
        match (&self.journal, noted) {
            (Some(journal), Some(request)) if goes_on => {
                // What it joined may run already.
                let is_running = self.operations.get(&name).is_some_and(Operation::is_running);
                journal.opened(&request, is_running, move || drop(reply.send(answer)));
            }
            _ => drop(reply.send(answer)),
        }
    }

    fn add(&mut self, request: &Request) {
        let state = watch::Sender::new(State::default());
        let Request { operation, key, origin, lookup, .. } = request;
        let (key, origin) = (key.clone(), Arc::clone(origin));
        let stages = Stages::default();
        let fresh =
            Operation { key, state, origin, lookup: *lookup, stages, is_shared: false, is_restored: false };
        self.operations.insert(*operation, fresh);
    }

    /// Goes on with what an earlier life has left.
    pub(super) fn resume(&mut self, journal: Journal, recovered: Recovered) {
        self.journal = Some(journal);
        let count = recovered.operations.len();
        for (pattern, reason) in recovered.drains {
            self.apply(Event::Drained(pattern, reason));
        }
        for (request, was_running) in recovered.operations {
            self.add(&request);
            if let Some(operation) = self.operations.get_mut(&request.operation) {
                operation.is_restored = true;
            }
            let name = request.operation;
            self.apply(Event::Restored { request, was_running });
            if let (Some(_), Some(journal)) = (self.refusal.take(), &self.journal) {
                journal.ended(name);
            }
        }
        if count > 0 {
            info!(operations = count, "operations of before the restart go on");
        }
    }

    /// A look at an operation; with a permit it is a wait, of which the queue knows.
    pub(super) fn watch(&self, name: OperationId, permit: Option<OwnedSemaphorePermit>) -> Option<Watch> {
        let operation = self.operations.get(&name)?;
        let waiter =
            permit.map(|permit| Waiter { operation: name, leaves: self.leaves.clone(), _permit: permit });
        Some(Watch {
            name: operation_name(&operation.key.instance, name),
            operation: name,
            key: operation.key.clone(),
            state: operation.state.subscribe(),
            _waiter: waiter,
        })
    }

    fn attach(&mut self, attachment: Attachment) {
        let Attachment { worker, session, offer, held, void, readiness, link } = attachment;
        info!(%worker, name = &*offer.name, slots = offer.slots, held = held.len(), "worker attached");
        self.links.insert(session, link);
        self.apply(Event::Attached { worker, session, offer, held, readiness });
        for lease in void {
            self.revoke(worker, lease, "for an instance or action that is not known here");
        }
    }

    fn finish_job(&mut self, done: Done) {
        match done {
            Done::Checked { task, key, findings } => self.take_findings(task, key, findings),
            Done::Published { task, result } => self.apply(Event::Published { task, result }),
            Done::Corrected => {}
            Done::Prepared { lease, key, prepared } => match prepared {
                Ok(prepared) => {
                    self.prepared.insert(key, prepared.clone());
                    if let Some(grant) = self.unsent.remove(&lease)
                        && self.queue.holds(grant.worker, lease)
                    {
                        self.send_lease(grant, prepared);
                    }
                }
                Err(status) => self.take_for_outcome(lease, status),
            },
        }
        self.follow_up();
    }

    fn take_findings(&mut self, task: TaskId, key: ActionKey, findings: Findings) {
        let Findings { verdict, prepared, pins } = findings;
        if let Some(prepared) = prepared {
            self.prepared.insert(key, prepared);
        }
        self.apply(Event::Checked { task, verdict });
        if let Some(pins) = pins
            && self.pins_len + pins.len <= self.limits.pins_max
            // It may have ended while it was checked, or by the check.
            && self.queue.has(task)
        {
            self.unpin(task);
            self.pins_len += pins.len;
            self.pins.insert(task, pins);
        }
    }

    /// Ends a lease that could not be sent, as if the worker had said so.
    fn take_for_outcome(&mut self, lease: LeaseId, status: castwork_proto::rpc::Status) {
        let Some(Grant { worker, .. }) = self.unsent.remove(&lease) else { return };
        let Some(session) = self.links.current(worker) else { return };
        let report = if status.code == Code::Internal as i32 {
            Report::Retry(status.message)
        } else {
            Report::Final(failed(status))
        };
        self.apply(Event::Said {
            worker,
            session,
            saying: Saying::Outcome { lease, report, memory_bytes: 0 },
        });
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.followups.push_back(event);
        self.follow_up();
    }

    fn follow_up(&mut self) {
        while let Some(event) = self.followups.pop_front() {
            for effect in self.queue.apply(self.started.elapsed(), event) {
                self.act(effect);
            }
        }
        self.expects_workers.store(self.queue.expects_workers(), Ordering::Relaxed);
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Refuse(operation, refusal) => {
                self.operations.remove(&operation);
                self.refusal = Some(refusal);
            }
            Effect::Check { task, key, lookup } => self.jobs.check(task, key, lookup),
            Effect::Stage(operation, stage) => {
                if let (Stage::Executing, Some(journal)) = (stage, &self.journal)
                    && self.opening != Some(operation)
                {
                    journal.started(operation);
                }
                if let Some(operation) = self.operations.get_mut(&operation) {
                    operation.stages.enter(stage);
                    operation.state.send_if_modified(|state| state.enter(stage));
                }
            }
            Effect::Shared(operation) => {
                if let Some(operation) = self.operations.get_mut(&operation) {
                    operation.is_shared = true;
                }
            }
            Effect::Finish(operation, ending) => self.finish(operation, ending),
            Effect::Forget(operation) => {
                self.operations.remove(&operation);
            }
            Effect::Welcome(worker, session) => self.welcome(worker, session),
            Effect::Disconnect(worker, session, refusal) => {
                info!(%worker, reason = %refusal, "worker disconnected");
                self.links.disconnect(worker, session, &refusal);
            }
            Effect::Grant { worker, lease, key, timeout, memory_bytes, origin } => {
                self.grant(Grant { worker, lease, key, timeout, memory_bytes, origin });
            }
            Effect::Revoke(worker, lease, reason) => self.revoke(worker, lease, reason),
            Effect::Keep(worker, lease) => {
                self.send(worker, ToWorker::OutcomeKept(OutcomeKept { lease_id: lease.to_string() }));
            }
            Effect::Publish { task, key, response, origin, worker_name, cacheable } => {
                self.jobs.publish(task, Publication { key, response, origin, worker_name, cacheable });
            }
            Effect::Correct { key, response, origin, worker_name } => {
                self.jobs.correct(Publication { key, response, origin, worker_name, cacheable: Some(true) });
            }
            Effect::Found(finding) => tell(&finding),
            Effect::Over(task) => self.unpin(task),
        }
    }

    fn finish(&mut self, name: OperationId, ending: Ending) {
        if let Some(journal) = &self.journal {
            journal.ended(name);
        }
        let Some(operation) = self.operations.get(&name) else { return };
        operation.count(&self.runs, &ending);
        let Operation { key, origin, .. } = operation;
        let (action, run) = (key.action.to_string(), origin.run());
        let trace = origin.trace.map(|begun| begun.context.trace_hex());
        let trace = trace.as_deref();
        operation.stages.record(&self.tracer, origin, &action, &ending);
        match &ending {
            Ending::Answered(response) => {
                let code = response.status.as_ref().map_or(0, |status| status.code);
                let exit_code = response.result.as_ref().map(|result| result.exit_code);
                info!(
                    action,
                    run,
                    trace,
                    cached = response.cached_result,
                    code,
                    exit_code,
                    "operation ended"
                );
            }
            Ending::Refused(refusal) => {
                info!(action, run, trace, reason = %refusal, "operation refused");
            }
        }
        operation.state.send_modify(|state| state.ending = Some(ending));
    }

    fn welcome(&mut self, worker: WorkerId, session: SessionId) {
        self.links.welcome(worker, session);
        let interval = prost_types::Duration::try_from(self.limits.heartbeat_interval)
            .expect("an interval of seconds fits");
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.send(worker, ToWorker::Welcome(Welcome { heartbeat_interval: Some(interval), version }));
    }

    fn grant(&mut self, grant: Grant) {
        if let Some(prepared) = self.prepared.get(&grant.key).cloned() {
            return self.send_lease(grant, prepared);
        }
        self.jobs.prepare(grant.lease, grant.key.clone());
        self.unsent.insert(grant.lease, grant);
    }

    fn send_lease(&mut self, grant: Grant, prepared: Prepared) {
        let Grant { worker, lease, key, timeout, memory_bytes, origin } = grant;
        debug!(action = %key.action, %worker, %lease, "lease granted");
        let timeout = prost_types::Duration::try_from(timeout).expect("a checked timeout fits");
        let lease = Lease {
            lease_id: lease.to_string(),
            instance_name: key.instance.to_string(),
            action_digest: Some(key.action.to_proto()),
            digest_function: key.action.function().to_proto() as i32,
            action: prepared.action,
            command: prepared.command,
            timeout: Some(timeout),
            memory_bytes,
            queued_unix_nanos: origin.queued_unix_nanos,
            request_metadata: origin.metadata.clone(),
            traceparent: origin.trace.map(|begun| begun.context.to_string()).unwrap_or_default(),
        };
        self.send(worker, ToWorker::Lease(lease));
    }

    fn revoke(&mut self, worker: WorkerId, lease: LeaseId, reason: &str) {
        let cancel = CancelLease { lease_id: lease.to_string(), reason: reason.to_owned() };
        self.send(worker, ToWorker::CancelLease(cancel));
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Err(session) = self.links.send(worker, message) {
            info!(%worker, "worker does not read what it is sent");
            self.links.remove(worker, session);
            self.followups.push_back(Event::Detached { worker, session });
        }
    }

    fn unpin(&mut self, task: TaskId) {
        if let Some(pins) = self.pins.remove(&task) {
            self.pins_len -= pins.len;
        }
    }
}

impl Operation {
    /// Whether its action is with a worker.
    fn is_running(&self) -> bool {
        self.state.borrow().stages.last() == Some(&Stage::Executing)
    }

    /// Tells how it ended to who counts that.
    fn count(&self, runs: &Runs, ending: &Ending) {
        let response = match ending {
            Ending::Answered(response) => Some(response),
            Ending::Refused(_) => None,
        };
        let code = match ending {
            Ending::Answered(response) => response.status.as_ref().map_or(Code::Ok, |it| it.code.into()),
            Ending::Refused(refusal) => code_of(refusal),
        };
        let result = response.and_then(|response| response.result.as_ref().map(|it| (response, it)));
        let ended = match result {
            Some((response, result)) if response.cached_result => runs::Ending::Cached(result),
            Some((_, result)) if code == Code::Ok => runs::Ending::Ran { result, is_shared: self.is_shared },
            _ => runs::Ending::Refused(code_name(code)),
        };
        // It had ended before the restart, and was counted then: only the line in the journal had not come to the disk.
        if self.is_restored && matches!(ended, runs::Ending::Cached(_)) {
            return;
        }
        let asker = self.origin.metadata.as_ref().and_then(Asker::of);
        runs.executed(asker.as_ref(), &self.key, self.lookup, &ended);
    }
}

/// Says what running an action again has shown.
fn tell(finding: &Finding) {
    let differences = finding.differences.join(", ");
    warn!(action = %finding.key.action, differences, "results differ: {}", finding.verdict);
}
