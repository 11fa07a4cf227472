//! [`Tasks`]: the actions that are being looked after, and the leases they are or were under.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::ActionKey;

use super::estimates::DURATION_UNKNOWN;
use super::ready::{Place, Standing};
use super::shares::ShareId;
use super::{LeaseId, Moment, OperationId, Origin, Spec, Stage, TaskId, WorkerId};

/// One action that is being looked after.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) key: ActionKey,
    pub(super) origin: Arc<Origin>,
    /// That of the first client's build; the task counts as part of it.
    pub(super) share: ShareId,
    /// The most urgent of those that were asked for.
    pub(super) priority: i32,
    /// Whether a result of earlier will do.
    pub(super) lookup: bool,
    /// Not known before the check, nor for a lease that a worker brought along.
    pub(super) spec: Option<Spec>,
    /// How long it is expected to run, by what is known of its kind.
    pub(super) expected: Duration,
    /// Whether anything is known of its kind.
    pub(super) is_expectation_known: bool,
    /// When it first got in line.
    pub(super) since: Option<Moment>,
    pub(super) phase: Phase,
    /// A second attempt, on a spare slot; only beside one that runs.
    pub(super) hedge: Option<Attempt>,
    /// Who waits. Each is live and knows this task.
    pub(super) operations: Vec<OperationId>,
    /// Workers that failed it, in order.
    pub(super) failed_on: Vec<WorkerId>,
    /// The most memory that it could use when it was killed for want of it, in bytes.
    pub(super) memory_too_little: u64,
    /// What it is or was under, as far as an outcome may still come.
    pub(super) leases: Vec<LeaseId>,
    /// Set while the task was brought along by a worker and no client has asked for it yet.
    pub(super) unclaimed_since: Option<Moment>,
}

/// Where a task has got to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Is looked up and checked.
    Checking,
    /// Waits for a worker.
    Queued(Place),
    /// Has failed, and waits until then before it gets in line again.
    Resting(Moment),
    /// Is with a worker.
    Running(Attempt),
    /// Has an outcome, whose blobs are looked for and which goes into the action cache.
    Publishing(Attempt),
}

/// A task at a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) lease: LeaseId,
    pub(super) worker: WorkerId,
    /// Since when the worker has it.
    pub(super) since: Moment,
    /// The time that its run has paid for, and by which priority.
    pub(super) paid: (Duration, i32),
    /// Since when the command itself runs, as far as the worker has said.
    pub(super) commanding_since: Option<Moment>,
}

impl Task {
    /// A task that nothing is known of but the action.
    pub(super) fn new(key: ActionKey, origin: Arc<Origin>, share: ShareId) -> Self {
        Self {
            key,
            origin,
            share,
            priority: 0,
            lookup: true,
            spec: None,
            expected: DURATION_UNKNOWN,
            is_expectation_known: false,
            since: None,
            phase: Phase::Checking,
            hedge: None,
            operations: Vec::new(),
            failed_on: Vec::new(),
            memory_too_little: 0,
            leases: Vec::new(),
            unclaimed_since: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Checking => Stage::Checking,
            Phase::Queued(_) | Phase::Resting(_) => Stage::Queued,
            Phase::Running(_) | Phase::Publishing(_) => Stage::Executing,
        }
    }

    /// Whether another request for the same action may share this task.
    ///
    /// Who won't have a result of earlier must not get one from the check, nor one that others
    /// could see before the request came (REAPI, `skip_cache_lookup`).
    pub(super) fn may_be_joined(&self, lookup: bool) -> bool {
        match (&self.spec, &self.phase) {
            (Some(spec), _) if !spec.mergeable => false,
            (_, Phase::Checking) => lookup || !self.lookup,
            (_, Phase::Queued(_) | Phase::Resting(_) | Phase::Running(_)) => true,
            (_, Phase::Publishing(_)) => lookup,
        }
    }

    /// Whether it is known that no other request may share it.
    pub(super) fn is_alone(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !spec.mergeable)
    }

    /// What decides about its place in line, if it gets there at `now`.
    pub(super) fn standing(&self, now: Moment) -> Standing {
        let since = self.since.unwrap_or(now);
        Standing { run: self.share, priority: self.priority, since, expected: self.expected }
    }

    /// How many slots it takes.
    pub(super) fn slots(&self) -> u32 {
        self.spec.as_ref().map_or(1, |spec| spec.needs.demand.slots)
    }

    pub(super) fn running(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Running(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// The attempt that runs under a lease.
    pub(super) fn attempt(&self, lease: LeaseId) -> Option<&Attempt> {
        let attempts = self.running().into_iter().chain(&self.hedge);
        attempts.into_iter().find(|attempt| attempt.lease == lease)
    }

    /// The same, to be changed.
    pub(super) fn attempt_mut(&mut self, lease: LeaseId) -> Option<&mut Attempt> {
        let running = match &mut self.phase {
            Phase::Running(attempt) => Some(attempt),
            _ => None,
        };
        running.into_iter().chain(&mut self.hedge).find(|attempt| attempt.lease == lease)
    }
}

/// The tasks, by number, by action and by lease.
///
/// Invariant: the indices name exactly the tasks there are, and their leases.
#[derive(Default)]
pub(super) struct Tasks {
    by_id: BTreeMap<TaskId, Task>,
    by_key: HashMap<ActionKey, Vec<TaskId>>,
    /// Also leases that are void, as an outcome may come late.
    by_lease: HashMap<LeaseId, (TaskId, WorkerId)>,
    made: u64,
}

impl Tasks {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Task> {
        self.by_id.get(&id)
    }

    /// A task that must be there.
    pub(super) fn at(&self, id: TaskId) -> &Task {
        &self.by_id[&id]
    }

    /// A task that must be there.
    pub(super) fn at_mut(&mut self, id: TaskId) -> &mut Task {
        self.by_id.get_mut(&id).expect("the task was found a moment ago")
    }

    pub(super) fn insert(&mut self, task: Task) -> TaskId {
        self.made += 1;
        let id = TaskId(self.made);
        self.by_key.entry(task.key.clone()).or_default().push(id);
        self.by_id.insert(id, task);
        id
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Task {
        let task = self.by_id.remove(&id).expect("a task ends once");
        let equals = self.by_key.get_mut(&task.key).expect("a task is found by its action");
        equals.retain(|other| *other != id);
        if equals.is_empty() {
            self.by_key.remove(&task.key);
        }
        for lease in &task.leases {
            self.by_lease.remove(lease);
        }
        task
    }

    /// The tasks for an action, oldest first.
    pub(super) fn of<'a>(&'a self, key: &ActionKey) -> impl Iterator<Item = (TaskId, &'a Task)> + use<'a> {
        self.by_key.get(key).into_iter().flatten().map(|id| (*id, &self.by_id[id]))
    }

    /// Notes that a task is with a worker.
    pub(super) fn begin(&mut self, id: TaskId, attempt: Attempt) {
        self.note_lease(id, &attempt);
        self.at_mut(id).phase = Phase::Running(attempt);
    }

    /// Notes that a task is with another worker, too.
    pub(super) fn begin_hedge(&mut self, id: TaskId, attempt: Attempt) {
        self.note_lease(id, &attempt);
        self.at_mut(id).hedge = Some(attempt);
    }

    fn note_lease(&mut self, id: TaskId, attempt: &Attempt) {
        let task = self.at_mut(id);
        if !task.leases.contains(&attempt.lease) {
            task.leases.push(attempt.lease);
        }
        self.by_lease.insert(attempt.lease, (id, attempt.worker));
    }

    /// Takes no outcome of that lease any more.
    pub(super) fn forget_lease(&mut self, id: TaskId, lease: LeaseId) {
        self.by_lease.remove(&lease);
        self.at_mut(id).leases.retain(|other| *other != lease);
    }

    /// The task that a lease is or was for, if it has not ended and the worker is the right one.
    pub(super) fn under(&self, lease: LeaseId, worker: WorkerId) -> Option<TaskId> {
        self.by_lease.get(&lease).filter(|(_, holder)| *holder == worker).map(|(task, _)| *task)
    }

    /// Every task, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.by_id.iter().map(|(id, task)| (*id, task))
    }
}
