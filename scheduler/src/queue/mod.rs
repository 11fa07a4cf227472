//! [`Queue`]: decides what runs where, and when, and what becomes of it.
//!
//! A pure state machine: [`Queue::apply`] takes a moment and an [`Event`] and returns
//! [`Effect`]s. There is no I/O, no clock, no lock and no chance in here, so a run of it can be
//! repeated event by event; `simulation.rs` does that by the hundred thousand. `dispatch` owns the
//! one queue of a scheduler, tells it what happens and does what it wants.
//!
//! The words: a client's request is an *operation*, with a name of its own. Equal operations share
//! a *task*, which is one action being looked after: checked, queued, run by a worker under a
//! *lease*, published. A lease is one attempt; a task may need several.

mod demand;
mod drains;
mod estimates;
mod event;
mod limits;
mod operations;
mod outcomes;
mod pattern;
mod placing;
mod properties;
mod quarantine;
mod ready;
mod reasons;
mod recheck;
mod refusal;
mod requests;
mod retry;
mod sessions;
mod shares;
mod spare;
mod tally;
mod tasks;
mod tick;
mod view;
mod weights;
mod workers;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use demand::{Amounts, Demand, Needs};
pub use event::{
    Checked, Condition, Effect, Ending, Event, Held, LeaseId, Moment, Offer, OperationId, Origin, Readiness,
    Report, Request, Response, Saying, SessionId, Spec, Stage, TaskId, Unpublished, WorkerId, id_from_hex,
};
pub use limits::Limits;
pub use pattern::matches as name_matches;
pub use properties::Properties;
pub use recheck::{Finding, RecheckTally, Verdict};
pub use refusal::Refusal;
pub use tally::{Cause, Histogram, Tally};
pub use view::{ClassView, Counts, DrainView, LeaseView, RunView, TaskView, View, WorkerState, WorkerView};
pub use weights::Weights;

use drains::Drain;
use estimates::Estimates;
use operations::Operations;
use ready::Ready;
use recheck::Rechecks;
use spare::Purpose;
use tasks::Tasks;
use workers::Workers;

/// The operations, tasks and workers of one scheduler.
pub struct Queue {
    limits: Limits,
    /// Tells leases of this life of the scheduler from those of others.
    incarnation: u64,
    leases_made: u64,
    now: Moment,
    /// Until then nothing is given up for being overdue.
    patient_until: Moment,
    operations: Operations,
    tasks: Tasks,
    ready: Ready,
    workers: Workers,
    drains: Vec<Drain>,
    /// Actions that wait for a worker to come back with them, and since when; the oldest first.
    expected_back: VecDeque<(Moment, TaskId)>,
    /// Actions that have failed and wait to be tried again, by when.
    resting: BTreeSet<(Moment, TaskId)>,
    /// Leases on slots that nobody else wants, each held by that worker.
    spare: BTreeMap<LeaseId, (WorkerId, Purpose)>,
    rechecks: Rechecks,
    estimates: Estimates,
    tally: Tally,
    /// What the event at hand has brought about so far.
    effects: Vec<Effect>,
    #[cfg(test)]
    broken: Option<simulation::Broken>,
}

impl Queue {
    /// An empty queue. `incarnation` must differ from that of every earlier life of the scheduler.
    pub fn new(limits: Limits, incarnation: u64) -> Self {
        Self {
            ready: Ready::new(limits.weights.clone()),
            limits,
            incarnation,
            leases_made: 0,
            now: Moment::ZERO,
            patient_until: Moment::ZERO,
            operations: Operations::default(),
            tasks: Tasks::default(),
            workers: Workers::default(),
            drains: Vec::new(),
            expected_back: VecDeque::new(),
            resting: BTreeSet::new(),
            spare: BTreeMap::new(),
            rechecks: Rechecks::default(),
            estimates: Estimates::default(),
            tally: Tally::default(),
            effects: Vec::new(),
            #[cfg(test)]
            broken: None,
        }
    }

    /// Takes in what happened, and returns what is to be done about it, in this order.
    ///
    /// Events that no longer mean anything (an answer for a task that has ended, words of a
    /// connection that was replaced) are no error and change nothing.
    pub fn apply(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Opened(request) => self.opened(request),
            Event::Restored { request, was_running } => self.restored(request, was_running),
            Event::Checked { task, verdict } => self.checked(task, verdict),
            Event::WaiterJoined(operation) => self.operations.waiter_joined(operation),
            Event::WaiterLeft(operation) => self.operations.waiter_left(self.now, operation),
            Event::Cancelled(operation) => self.drop_operation(operation, Refusal::Cancelled),
            Event::Stopped(operation, why) => self.drop_operation(operation, Refusal::Stopped(why)),
            Event::Drained(pattern, why) => self.drain(pattern, why),
            Event::Undrained(pattern) => self.undrain(&pattern),
            Event::Attached { worker, session, offer, held, readiness } => {
                self.attached(worker, session, offer, &held, readiness);
            }
            Event::Detached { worker, session } => self.detached(worker, session),
            Event::Said { worker, session, saying } => self.said(worker, session, saying),
            Event::Published { task, result } => self.published(task, result),
            Event::StoodStill => self.stood_still(),
            Event::Tick => self.tick(),
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether a task has not ended.
    pub fn has(&self, task: TaskId) -> bool {
        self.tasks.get(task).is_some()
    }

    /// Whether a worker holds a lease that is not void.
    pub fn holds(&self, worker: WorkerId, lease: LeaseId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.leases.contains_key(&lease))
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
