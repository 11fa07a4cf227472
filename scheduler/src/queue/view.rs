//! [`View`]: the queue as people see it, and why what waits does.

use std::sync::Arc;
use std::time::Duration;

use castwork_cas::ActionKey;

use super::ready::ClassId;
use super::reasons::Reasons;
use super::tasks::Task;
use super::{LeaseId, Moment, Needs, OperationId, Queue, Stage, TaskId, WorkerId};

/// Operations of one action that are listed, at most.
const OPERATIONS_LISTED_MAX: usize = 100;

/// How much there is of everything, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of clients that have not ended.
    pub operations: usize,
    /// Actions that are looked after, equal requests counted once.
    pub tasks: usize,
    /// Actions that wait for a worker.
    pub queued: usize,
    /// Actions that are with workers.
    pub running: usize,
    /// The workers, by id.
    pub workers: Vec<WorkerState>,
}

/// What is to be said about a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Its id.
    pub id: WorkerId,
    /// Its name, for people.
    pub name: String,
    /// Whether there is a connection at the moment; if not, it is expected back.
    pub connected: bool,
    /// Whether it takes no new actions, as it or an operator said.
    pub draining: bool,
    /// Whether it is left out for a while, as it failed too often.
    pub quarantined: bool,
    /// How many actions it runs at once.
    pub slots: u32,
    /// How many actions it runs.
    pub running: usize,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Time since the scheduler started.
    pub now: Moment,
    /// What waits, by what it needs.
    pub classes: Vec<ClassView>,
    /// The runs that have something waiting or running.
    pub runs: Vec<RunView>,
    /// The workers, by name.
    pub workers: Vec<WorkerView>,
    /// What operators have drained.
    pub drains: Vec<DrainView>,
}

/// Actions that wait and need the same.
#[derive(Clone, Debug)]
pub struct ClassView {
    /// What they need.
    pub needs: Needs,
    /// How many wait.
    pub waiting: usize,
    /// Since when something waits.
    pub since: Moment,
    /// Why.
    pub reason: String,
    /// Slots that they would fill if there were enough.
    pub slots_wanted: u64,
    /// Slots of workers that could run them, busy or not.
    pub slots_able: u64,
}

/// A run that has something waiting or running.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Instance, principal and name of the run.
    pub owner: [Arc<str>; 3],
    /// Actions that wait.
    pub waiting: usize,
    /// Actions that are with workers.
    pub running: usize,
    /// Actions that were given to workers so far.
    pub granted: u64,
    /// When its first action came.
    pub since: Moment,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// What is to be said in short.
    pub state: WorkerState,
    /// What it offers, with name and version.
    pub offer: super::Offer,
    /// Slots and bytes of memory that its actions take up.
    pub used: (u32, u64),
    /// How it says it is.
    pub condition: super::Condition,
    /// When it came first.
    pub since: Moment,
    /// Why it is not given anything, or only one action at a time.
    pub remark: Option<String>,
    /// What it runs.
    pub leases: Vec<LeaseView>,
}

/// An action at a worker.
#[derive(Clone, Debug)]
pub struct LeaseView {
    /// The lease.
    pub lease: LeaseId,
    /// The action.
    pub key: ActionKey,
    /// Its run.
    pub run: Arc<str>,
    /// Since when.
    pub since: Moment,
}

/// An action that is looked after.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The action.
    pub key: ActionKey,
    /// Instance, principal and run.
    pub owner: [Arc<str>; 3],
    /// Where it has got to.
    pub stage: Stage,
    /// Who waits for it.
    pub operations: Vec<OperationId>,
    /// Its priority.
    pub priority: i32,
    /// How often it failed by no fault of its own.
    pub attempts: usize,
    /// Since when it waits or runs.
    pub since: Option<Moment>,
    /// How long it is expected to run.
    pub expected: Duration,
    /// Why it waits, or where it runs.
    pub reason: String,
}

/// A pattern of names of workers that take no new actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// The pattern.
    pub pattern: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// Since when.
    pub since: Moment,
}

impl Queue {
    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        Counts {
            operations: self.operations.len(),
            tasks: self.tasks.len(),
            queued: self.ready.len() + self.resting.len(),
            running: self.workers.iter().map(|(_, worker)| worker.leases.len()).sum(),
            workers: self.workers.iter().map(|(id, _)| self.state_of(id)).collect(),
        }
    }

    /// What running actions again has shown lately, the oldest first.
    pub fn findings(&self) -> impl Iterator<Item = &super::Finding> {
        self.rechecks.findings.iter()
    }

    /// What was done so far.
    pub fn tally(&self) -> &super::Tally {
        &self.tally
    }

    pub(super) fn state_of(&self, id: WorkerId) -> WorkerState {
        let worker = self.workers.get(id).expect("it was there a moment ago");
        WorkerState {
            id,
            name: worker.offer.name.to_string(),
            connected: worker.session().is_some(),
            draining: worker.draining || worker.drained.is_some(),
            quarantined: worker.is_left_out(),
            slots: worker.offer.slots,
            running: worker.leases.len(),
        }
    }

    /// Everything but single actions.
    pub fn view(&self) -> View {
        let drain = |drain: &super::Drain| DrainView {
            pattern: Arc::clone(&drain.pattern),
            reason: Arc::clone(&drain.reason),
            since: drain.since,
        };
        let mut workers: Vec<_> = self.workers.iter().map(|(id, _)| self.view_worker(id)).collect();
        workers
            .sort_by(|one, other| (&one.state.name, one.state.id).cmp(&(&other.state.name, other.state.id)));
        View {
            now: self.now,
            classes: self.ready.classes().map(|(class, needs)| self.view_class(class, needs)).collect(),
            runs: self.view_runs(),
            workers,
            drains: self.drains.iter().map(drain).collect(),
        }
    }

    fn view_class(&self, class: ClassId, needs: &Needs) -> ClassView {
        let able = self.workers.iter().filter(|(_, worker)| worker.could_take(needs));
        let waiting = self.ready.waiting_in(class);
        ClassView {
            needs: needs.clone(),
            waiting,
            since: self.ready.class_at(class).map_or(self.now, |(_, since)| since),
            reason: self.why(class),
            slots_wanted: waiting as u64 * u64::from(needs.demand.slots),
            slots_able: able.map(|(_, worker)| u64::from(worker.offer.slots)).sum(),
        }
    }

    fn view_runs(&self) -> Vec<RunView> {
        let runs = self.ready.shares.iter().filter(|(_, share)| share.is_run);
        let runs = runs.map(|(id, share)| {
            let owner = self.ready.shares.owner(id);
            RunView {
                owner: [owner.instance, owner.principal, owner.run],
                waiting: share.waiting,
                running: share.running,
                granted: share.granted,
                since: share.since,
            }
        });
        runs.collect()
    }

    fn view_worker(&self, id: WorkerId) -> WorkerView {
        let worker = self.workers.get(id).expect("it was there a moment ago");
        let leases = worker.leases.iter().filter_map(|(lease, held)| {
            let task = self.tasks.at(held.task?);
            let since = task.attempt(*lease).map_or(self.now, |attempt| attempt.since);
            let run = self.ready.shares.at(task.share).name.clone();
            Some(LeaseView { lease: *lease, key: task.key.clone(), run, since })
        });
        let leases = leases.collect();
        WorkerView {
            state: self.state_of(id),
            offer: worker.offer.clone(),
            used: (worker.used().slots, worker.used().memory_bytes),
            condition: worker.condition.clone(),
            since: worker.since,
            remark: self.remark(id),
            leases,
        }
    }

    /// Why a worker is given nothing, or less than it could run.
    fn remark(&self, id: WorkerId) -> Option<String> {
        let worker = self.workers.get(id)?;
        if let Some(reason) = &worker.drained {
            return Some(format!("drained by an operator: {reason}"));
        }
        if worker.draining {
            return Some("it finishes what it runs and goes".to_owned());
        }
        if let Some(reason) = &worker.condition.unfit {
            return Some(format!("not fit, as it says: {reason}; it tries again by itself"));
        }
        if let Some((reason, until)) = worker.conduct.blemish() {
            let then = until.map_or_else(
                || "gets one action at a time until one ends well".to_owned(),
                |until| format!("is tried again in {} s", until.saturating_sub(self.now).as_secs()),
            );
            return Some(format!("{reason}; it {then}"));
        }
        if worker.session().is_none() {
            return Some("its connection is lost; it is expected back".to_owned());
        }
        if let Some(remark) = worker.conduct.suspicion() {
            return Some(remark);
        }
        worker.reserved_for.map(|_| "kept free for an action that takes more than one slot".to_owned())
    }

    /// The actions that are looked after and that `wanted` picks by action, run and operations, the oldest first,
    /// at most `max`.
    pub fn find(
        &self,
        wanted: impl Fn(&ActionKey, &str, &[OperationId]) -> bool,
        max: usize,
    ) -> Vec<TaskView> {
        let mut reasons = Reasons::default();
        self.matching(wanted).take(max).map(|(id, task)| self.view_task(id, task, &mut reasons)).collect()
    }

    /// The operations that have not ended of the actions that `wanted` picks.
    pub fn operations_of(
        &self,
        wanted: impl Fn(&ActionKey, &str, &[OperationId]) -> bool,
    ) -> Vec<OperationId> {
        self.matching(wanted).flat_map(|(_, task)| task.operations.iter().copied()).collect()
    }

    fn matching(
        &self,
        wanted: impl Fn(&ActionKey, &str, &[OperationId]) -> bool,
    ) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().filter(move |(_, task)| {
            wanted(&task.key, &self.ready.shares.at(task.share).name, &task.operations)
        })
    }

    fn view_task(&self, id: TaskId, task: &Task, reasons: &mut Reasons) -> TaskView {
        let owner = self.ready.shares.owner(task.share);
        TaskView {
            key: task.key.clone(),
            owner: [owner.instance, owner.principal, owner.run],
            stage: task.stage(),
            operations: task.operations.iter().take(OPERATIONS_LISTED_MAX).copied().collect(),
            priority: task.priority,
            attempts: task.failed_on.len(),
            since: task.running().map(|attempt| attempt.since).or(task.since),
            expected: task.expected,
            reason: self.why_task(id, task, reasons),
        }
    }
}
