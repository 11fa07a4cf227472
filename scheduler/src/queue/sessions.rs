//! Workers come, state what they run, fall silent and go.

use std::sync::Arc;

use super::shares::Owner;
use super::tasks::{Attempt, Phase, Task};
use super::workers::Presence;
use super::{
    Cause, Condition, Effect, Held, LeaseId, Moment, Offer, Queue, Readiness, Refusal, Saying, SessionId,
    Stage, TaskId, WorkerId,
};

impl Queue {
    pub(super) fn attached(
        &mut self,
        id: WorkerId,
        session: SessionId,
        offer: Offer,
        held: &[Held],
        readiness: Readiness,
    ) {
        let known = self.workers.get(id);
        if known.is_none() && self.workers.len() >= self.limits.workers_max {
            let refusal = Refusal::Full { what: "workers", max: self.limits.workers_max };
            return self.effect(Effect::Disconnect(id, session, refusal));
        }
        if let Some(replaced) = known.and_then(super::workers::Worker::session) {
            self.effect(Effect::Disconnect(id, replaced, Refusal::Replaced));
        }
        let name = offer.name.clone();
        let drained = self.drain_of(id, &name);
        let lost_before = self.workers.lost_with(id);
        self.workers.attach(self.now, id, session, offer);
        self.workers.change(id, |worker| {
            worker.drained = drained;
            worker.draining = readiness.draining;
        });
        if let Some(condition) = readiness.condition {
            self.is_in_condition(id, condition);
        }
        self.effect(Effect::Welcome(id, session));
        for held in held {
            self.take_back(id, held);
        }
        let brought = |lease: &LeaseId| held.iter().any(|held| held.lease == *lease);
        let worker = self.workers.get(id).expect("the worker has just attached");
        let lost: Vec<_> = worker.leases.iter().filter(|(lease, _)| !brought(lease)).collect();
        // Whatever it has lost, it was lost at once: it counts as one failure, be it that of its machine.
        let forgotten = lost.iter().find_map(|(_, held)| held.task);
        let forgotten = forgotten.or(lost_before.filter(|(lease, _)| !brought(lease)).map(|(_, task)| task));
        let lost: Vec<_> = lost.into_iter().map(|(lease, _)| *lease).collect();
        if let Some(task) = forgotten {
            self.blame(id, task, "the worker came back without it");
        }
        for lease in lost {
            self.lose_lease(id, lease, Cause::WorkerForgot, format!("worker `{name}` came back without it"));
        }
        self.place_worker(id);
    }

    /// Has a worker go on with a lease that it brought along, or forget it.
    fn take_back(&mut self, worker: WorkerId, held: &Held) {
        if self.is_recheck_of(worker, held.lease) {
            return;
        }
        match self.tasks.under(held.lease, worker) {
            Some(id) => match &self.tasks.at(id).phase {
                // Goes on; or its outcome has come, which will be confirmed when it is kept.
                Phase::Publishing(attempt) if attempt.lease == held.lease => {}
                Phase::Running(_) if self.tasks.at(id).attempt(held.lease).is_some() => {}
                Phase::Queued(_) | Phase::Resting(_) => self.resume(id, worker, held.lease),
                Phase::Checking if !self.is_looked_after_elsewhere(id) => self.resume(id, worker, held.lease),
                _ => self.effect(Effect::Revoke(worker, held.lease, "looked after elsewhere by now")),
            },
            None if held.lease.incarnation() == self.incarnation => {
                self.effect(Effect::Revoke(worker, held.lease, "no longer wanted"));
            }
            None => self.adopt(worker, held),
        }
    }

    /// Whether there is an equal task that is further than being checked.
    fn is_looked_after_elsewhere(&self, id: TaskId) -> bool {
        let further = |task: &Task| task.phase != Phase::Checking && task.may_be_joined(true);
        self.tasks.of(&self.tasks.at(id).key).any(|(other, task)| other != id && further(task))
    }

    /// Takes on a lease that an earlier life of the scheduler has granted.
    fn adopt(&mut self, worker: WorkerId, held: &Held) {
        let is_running = |task: &Task| task.stage() == Stage::Executing;
        let equals: Vec<_> = self.tasks.of(&held.key).collect();
        let is_shared = |task: &&Task| task.may_be_joined(true) && is_running(task);
        let is_elsewhere = equals.iter().any(|(_, task)| is_shared(task));
        // The one that is furthest, for only one may go on. Of those that may not be shared each has a lease of its own.
        let waiting = equals.iter().filter(|(_, task)| !is_running(task));
        let waiting = waiting.filter(|(_, task)| task.may_be_joined(true) || task.is_alone());
        let known = waiting.max_by_key(|(_, task)| task.stage()).map(|(id, _)| *id);
        let is_alone_elsewhere = known.is_none() && equals.iter().any(|(_, task)| task.is_alone());
        if is_elsewhere || is_alone_elsewhere {
            return self.effect(Effect::Revoke(worker, held.lease, "looked after elsewhere by now"));
        }
        let id = known.unwrap_or_else(|| {
            let instance = Arc::clone(&held.key.instance);
            let owner = Owner { instance, principal: "".into(), run: "".into() };
            let share = self.ready.enter(self.now, &owner);
            let task = Task::new(held.key.clone(), held.origin.clone(), share);
            self.tasks.insert(Task { unclaimed_since: Some(self.now), ..task })
        });
        self.tally.adopted += 1;
        self.resume(id, worker, held.lease);
        if self.tasks.at(id).spec.is_none() {
            self.effect(Effect::Check { task: id, key: held.key.clone(), lookup: false });
        }
    }

    /// Notes that a task is with a worker that says so.
    fn resume(&mut self, id: TaskId, worker: WorkerId, lease: LeaseId) {
        let task = self.tasks.at(id);
        match &task.phase {
            Phase::Queued(place) => self.ready.remove(place, task.share, id),
            Phase::Resting(until) => drop(self.resting.remove(&(*until, id))),
            Phase::Checking | Phase::Running(_) | Phase::Publishing(_) => {}
        }
        let task = self.tasks.at(id);
        let paid = (task.expected, task.priority);
        self.start(id, Attempt { lease, worker, since: self.now, paid, commanding_since: None });
    }

    pub(super) fn detached(&mut self, id: WorkerId, session: SessionId) {
        if !self.is_current(id, session) {
            return;
        }
        let since = self.now;
        self.workers.change(id, |worker| worker.presence = Presence::Absent { since });
        let gone = self.workers.get(id).is_some_and(|worker| worker.draining && worker.leases.is_empty());
        if gone {
            self.lose_worker(id);
        }
    }

    pub(super) fn is_current(&self, id: WorkerId, session: SessionId) -> bool {
        self.workers.get(id).is_some_and(|worker| worker.session() == Some(session))
    }

    pub(super) fn said(&mut self, id: WorkerId, session: SessionId, saying: Saying) {
        if !self.is_current(id, session) {
            return;
        }
        let heard = self.now;
        self.workers.change(id, |worker| worker.presence = Presence::Connected { session, heard });
        match saying {
            Saying::Heartbeat => {}
            Saying::Condition(condition) => {
                self.is_in_condition(id, condition);
                self.place_worker(id);
            }
            Saying::Draining => self.workers.change(id, |worker| worker.draining = true),
            Saying::Progress { lease, commanding } => self.progressed(id, lease, commanding),
            Saying::Outcome { lease, report, memory_bytes } => self.reported(id, lease, report, memory_bytes),
        }
    }

    /// Notes how a worker says it is. One that is not fit is given nothing, be it the last.
    fn is_in_condition(&mut self, id: WorkerId, condition: Condition) {
        let is_unfit = condition.unfit.is_some();
        let mut was_unfit = false;
        let now = self.now;
        self.workers.change(id, |worker| {
            was_unfit = std::mem::replace(&mut worker.condition, condition).unfit.is_some();
            worker.unfit_since = is_unfit.then(|| worker.unfit_since.unwrap_or(now));
        });
        self.tally.quarantines += u64::from(is_unfit && !was_unfit);
    }

    fn progressed(&mut self, worker: WorkerId, lease: LeaseId, commanding: bool) {
        let now = self.now;
        let Some(id) = self.tasks.under(lease, worker) else { return };
        if let Some(attempt) = self.tasks.at_mut(id).attempt_mut(lease) {
            attempt.commanding_since = commanding.then(|| attempt.commanding_since.unwrap_or(now));
        }
    }

    /// Ends connections that have been silent for too long.
    pub(super) fn hang_up_on_the_silent(&mut self) {
        let silent = |heard: Moment| heard + self.limits.silence_max < self.now;
        let gone: Vec<_> = self
            .workers
            .iter()
            .filter_map(|(id, worker)| match worker.presence {
                Presence::Connected { session, heard } if silent(heard) => Some((id, session)),
                _ => None,
            })
            .collect();
        for (id, session) in gone {
            self.effect(Effect::Disconnect(id, session, Refusal::Silent));
            self.detached(id, session);
        }
    }

    /// Gives up workers that were away for too long.
    pub(super) fn lose_the_absent(&mut self) {
        let grace = self.limits.reconnect_grace;
        let lost: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| match worker.presence {
                Presence::Absent { since } => since + grace <= self.now,
                Presence::Connected { .. } => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in lost {
            self.lose_worker(id);
        }
    }

    fn lose_worker(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let leases: Vec<_> = worker.leases.keys().copied().collect();
        let cause = format!("worker `{}` was lost", worker.offer.name);
        self.workers.lose(self.now, id, self.limits.departed_max);
        for lease in leases {
            self.lose_lease(id, lease, Cause::WorkerLost, cause.clone());
        }
    }
}
