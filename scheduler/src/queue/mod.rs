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

mod event;
mod limits;
mod operations;
mod outcomes;
mod placing;
mod properties;
mod ready;
mod refusal;
mod requests;
mod sessions;
mod tasks;
mod tick;
mod workers;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use event::{
    Checked, Effect, Ending, Event, Held, LeaseId, Moment, Offer, OperationId, Origin, Report, Request,
    Response, Saying, SessionId, Spec, Stage, TaskId, WorkerId, id_from_hex,
};
pub use limits::Limits;
pub use properties::Properties;
pub use refusal::Refusal;

use operations::Operations;
use ready::Ready;
use tasks::Tasks;
use workers::Workers;

/// The operations, tasks and workers of one scheduler.
pub struct Queue {
    limits: Limits,
    /// Tells leases of this life of the scheduler from those of others.
    incarnation: u64,
    leases_made: u64,
    now: Moment,
    operations: Operations,
    tasks: Tasks,
    ready: Ready,
    workers: Workers,
    /// What the event at hand has brought about so far.
    effects: Vec<Effect>,
    #[cfg(test)]
    broken: Option<simulation::Broken>,
}

impl Queue {
    /// An empty queue. `incarnation` must differ from that of every earlier life of the scheduler.
    pub fn new(limits: Limits, incarnation: u64) -> Self {
        Self {
            limits,
            incarnation,
            leases_made: 0,
            now: Moment::ZERO,
            operations: Operations::default(),
            tasks: Tasks::default(),
            ready: Ready::default(),
            workers: Workers::default(),
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
            Event::Checked { task, verdict } => self.checked(task, verdict),
            Event::WaiterJoined(operation) => self.operations.waiter_joined(operation),
            Event::WaiterLeft(operation) => self.operations.waiter_left(self.now, operation),
            Event::Cancelled(operation) => self.drop_operation(operation, Refusal::Cancelled),
            Event::Attached { worker, session, offer, held } => self.attached(worker, session, offer, &held),
            Event::Detached { worker, session } => self.detached(worker, session),
            Event::Said { worker, session, saying } => self.said(worker, session, saying),
            Event::Published { task, result } => self.published(task, result),
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

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        let workers = self.workers.iter().map(|(id, worker)| WorkerState {
            id,
            name: worker.offer.name.to_string(),
            connected: worker.session().is_some(),
            draining: worker.draining,
            slots: worker.offer.slots,
            running: worker.leases.len(),
        });
        Counts {
            operations: self.operations.len(),
            tasks: self.tasks.len(),
            queued: self.ready.len(),
            running: self.workers.iter().map(|(_, worker)| worker.leases.len()).sum(),
            workers: workers.collect(),
        }
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

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
    /// Whether it takes no new actions.
    pub draining: bool,
    /// How many actions it runs at once.
    pub slots: u32,
    /// How many actions it runs.
    pub running: usize,
}
