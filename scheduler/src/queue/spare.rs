//! Second runs of actions on slots that nobody else wants: of stragglers (here), and to see whether results can be
//! repeated (`recheck`). They give way to whatever waits.

use std::time::Duration;

use super::ready::ClassId;
use super::tasks::{Attempt, Phase, Task};
use super::workers::Worker;
use super::{Effect, LeaseId, Needs, Queue, Spec, TaskId, WorkerId};

/// How many times as long as expected an action runs before it counts as a straggler.
const EXPECTED_TIMES: u32 = 3;

/// Actions of a class that are looked at to see whether one of them could have a worker.
const LOOKED_AT_MAX: usize = 64;

/// What a lease on a spare slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The second attempt at a task, beside the first.
    Hedge(TaskId),
    /// A run whose result is only compared.
    Recheck,
}

impl Worker {
    /// Whether it has room for something that nobody waits for.
    fn has_spare_room_for(&self, needs: &Needs) -> bool {
        self.reserved_for.is_none() && self.has_room_for(needs)
    }

    /// Whether it could take an action of a class if it gave up one of its leases.
    fn would_take_instead(&self, lease: LeaseId, class: ClassId, needs: &Needs) -> bool {
        self.reserved_for.is_none_or(|other| other == class)
            && self.could_take(needs)
            && self.offer.has_room(&needs.demand, &self.used_without(lease))
    }
}

impl Queue {
    /// Fills slots that are free while nothing waits for them.
    pub(super) fn use_spare_room(&mut self) {
        if self.workers.free().next().is_none() {
            return;
        }
        self.hedge_stragglers();
        self.recheck_some();
    }

    fn hedge_stragglers(&mut self) {
        let held = self.workers.iter().flat_map(|(_, worker)| worker.leases.values());
        let stragglers = held.filter_map(|held| held.task).filter(|id| self.is_straggler(self.tasks.at(*id)));
        for id in stragglers.collect::<Vec<_>>() {
            if self.spare.len() >= self.limits.spare_max {
                return;
            }
            let Some(worker) = self.room_for_hedge(id) else { continue };
            self.hedge(id, worker);
        }
    }

    fn is_straggler(&self, task: &Task) -> bool {
        let (Phase::Running(attempt), Some(spec)) = (&task.phase, &task.spec) else { return false };
        let Some(least) = self.limits.hedge_after else { return false };
        // What asks not to be cached may have a reason not to be run twice.
        let may_be = spec.mergeable && task.hedge.is_none() && !task.operations.is_empty();
        let ran = self.now.saturating_sub(attempt.since);
        #[cfg(test)]
        if self.broken == Some(super::simulation::Broken::HedgesAnything) {
            return may_be;
        }
        may_be && task.is_expectation_known && ran >= least.max(task.expected * EXPECTED_TIMES)
    }

    fn room_for_hedge(&self, id: TaskId) -> Option<WorkerId> {
        let task = self.tasks.at(id);
        let (attempt, spec) = (task.running()?, task.spec.as_ref()?);
        let tried = |id: &WorkerId| {
            // A worker that is tried again does not save what is late already.
            let is_doubtful = self.workers.get(*id).is_some_and(|worker| worker.conduct.is_on_probation());
            is_doubtful || *id == attempt.worker || task.failed_on.contains(id)
        };
        self.spare_room(spec, tried)
    }

    /// The freest worker with room for something that nobody waits for, but none of those that are `left_out`.
    pub(super) fn spare_room(&self, spec: &Spec, left_out: impl Fn(&WorkerId) -> bool) -> Option<WorkerId> {
        let has_room = |id: &WorkerId| {
            let worker = self.workers.get(*id);
            worker.is_some_and(|worker| worker.has_spare_room_for(&spec.needs))
        };
        self.workers.free().find(|id| !left_out(id) && has_room(id))
    }

    fn hedge(&mut self, id: TaskId, worker: WorkerId) {
        let lease = self.new_lease();
        let task = self.tasks.at(id);
        let spec = task.spec.clone().expect("a straggler was checked");
        let grant = Effect::Grant {
            worker,
            lease,
            key: task.key.clone(),
            timeout: spec.timeout,
            memory_bytes: spec.needs.demand.memory_bytes,
            origin: task.origin.clone(),
        };
        let paid = (Duration::ZERO, task.priority);
        self.effect(grant);
        self.tally.hedges += 1;
        self.spare.insert(lease, (worker, Purpose::Hedge(id)));
        let attempt = Attempt { lease, worker, since: self.now, paid, commanding_since: None };
        self.tasks.begin_hedge(id, attempt);
        self.workers.change(worker, |worker| worker.hold(lease, Some(id), spec.needs.demand));
    }

    /// Takes the second attempt away from its worker, if there is one. What that is told, the caller says.
    pub(super) fn release_hedge(&mut self, id: TaskId) -> Option<Attempt> {
        let hedge = self.tasks.at_mut(id).hedge.take()?;
        self.spare.remove(&hedge.lease);
        self.workers.change(hedge.worker, |worker| worker.let_go(hedge.lease));
        Some(hedge)
    }

    /// Ends the second attempt, if there is one; says at which worker.
    pub(super) fn end_hedge(&mut self, id: TaskId, reason: &'static str) -> Option<WorkerId> {
        let hedge = self.release_hedge(id)?;
        self.effect(Effect::Revoke(hedge.worker, hedge.lease, reason));
        Some(hedge.worker)
    }

    /// Has the second attempt be the only one, if there is one; the first is gone.
    pub(super) fn promote_hedge(&mut self, id: TaskId) -> bool {
        let Some(hedge) = self.tasks.at_mut(id).hedge.take() else { return false };
        self.spare.remove(&hedge.lease);
        self.start(id, hedge);
        true
    }

    /// Ends second runs as long as actions of a class wait that could have their room.
    pub(super) fn make_room(&mut self, class: ClassId) {
        #[cfg(test)]
        if self.broken == Some(super::simulation::Broken::KeepsSecondRuns) {
            return;
        }
        while let Some((lease, worker)) = self.in_the_way_of(class) {
            self.end_spare(lease, "something waits for the slot");
            self.place_worker(worker);
        }
    }

    pub(super) fn in_the_way_of(&self, class: ClassId) -> Option<(LeaseId, WorkerId)> {
        let (needs, _) = self.ready.class_at(class)?;
        // The youngest first: it loses least.
        let mut spare = self.spare.iter().rev().map(|(lease, (worker, _))| (*lease, *worker));
        spare.find(|(lease, id)| {
            let worker = self.workers.get(*id);
            worker.is_some_and(|worker| worker.would_take_instead(*lease, class, needs))
                && self
                    .ready
                    .tasks(class)
                    .take(LOOKED_AT_MAX)
                    .any(|task| !self.should_go_elsewhere(task, *id))
        })
    }

    /// Ends all second runs at a worker.
    pub(super) fn end_spare_at(&mut self, worker: WorkerId) {
        let there = self.spare.iter().filter(|(_, (at, _))| *at == worker).map(|(lease, _)| *lease);
        for lease in there.collect::<Vec<_>>() {
            self.end_spare(lease, "the worker is kept free for something larger");
        }
    }

    fn end_spare(&mut self, lease: LeaseId, reason: &'static str) {
        match self.spare.get(&lease) {
            Some((_, Purpose::Hedge(task))) => {
                let task = *task;
                self.end_hedge(task, reason);
            }
            Some((worker, Purpose::Recheck)) => {
                self.effect(Effect::Revoke(*worker, lease, reason));
                self.postpone_recheck(lease);
            }
            None => {}
        }
    }
}
