//! Brings actions that wait and workers with free slots together.
//!
//! Invariant between events: no action waits that a worker with room for it could be given, unless that room
//! is kept for a larger one. So only what has just changed has to be looked at: a class in which an action got
//! in line, or a worker that got a slot free.

use super::ready::ClassId;
use super::tasks::{Attempt, Phase};
use super::{Effect, LeaseId, Moment, Queue, Refusal, TaskId, WorkerId, properties};

/// Actions of one run that a worker passes over, at most, because another should try them.
const SKIPPED_MAX: usize = 64;

/// Actions at the front of a run's line among which a worker gets that whose inputs it has.
const CHOICE: usize = 16;

/// Workers among which the best for an action is chosen.
const CANDIDATES: usize = 32;

impl Queue {
    /// Gives actions of a class to workers with free slots, the freest first.
    pub(super) fn place_class(&mut self, class: ClassId) {
        while let Some((worker, task)) = self.match_for(class) {
            self.grant(worker, task);
        }
    }

    fn match_for(&self, class: ClassId) -> Option<(WorkerId, TaskId)> {
        let (needs, _) = self.ready.class_at(class)?;
        let takes = |id: &WorkerId| self.workers.get(*id).is_some_and(|worker| worker.takes(class, needs));
        let candidates: Vec<_> = self.workers.free().filter(takes).take(CANDIDATES).collect();
        let found = candidates.iter().find_map(|id| self.next_for(*id).map(|task| (*id, task)));
        // Beyond those, as each of them may have failed what waits.
        let found = found.or_else(|| {
            let rest = self.workers.free().filter(takes).skip(candidates.len());
            rest.into_iter().find_map(|id| self.next_for(id).map(|task| (id, task)))
        });
        let (first, task) = found?;
        Some((self.best_for(task, first, &candidates), task))
    }

    /// The worker that an action should be given to: that which has what is preferred, then that which has most
    /// of the inputs, then the first.
    fn best_for(&self, id: TaskId, first: WorkerId, candidates: &[WorkerId]) -> WorkerId {
        let task = self.tasks.at(id);
        let (Some(spec), Phase::Queued(place)) = (&task.spec, &task.phase) else { return first };
        if spec.folders.is_empty() && spec.needs.preferred.pairs().is_empty() {
            return first;
        }
        let merit = |id: WorkerId| {
            let worker = self.workers.get(id)?;
            let preferred = worker.offer.properties.count_of(&spec.needs.preferred);
            Some((preferred, worker.warmth(&spec.folders)))
        };
        let could = candidates.iter().copied().filter(|other| {
            let worker = self.workers.get(*other);
            worker.is_some_and(|worker| worker.takes(place.class, &spec.needs))
                && !self.should_go_elsewhere(id, *other)
        });
        could.fold(first, |best, other| if merit(other) > merit(best) { other } else { best })
    }

    /// Gives actions to a worker, as long as it has free slots.
    pub(super) fn place_worker(&mut self, id: WorkerId) {
        while self.workers.get(id).is_some_and(|worker| worker.free() > 0) {
            let Some(task) = self.next_for(id) else { return };
            self.grant(id, task);
        }
    }

    /// The action that a worker should be given, of all that it could be given.
    fn next_for(&self, id: WorkerId) -> Option<TaskId> {
        let worker = self.workers.get(id)?;
        let fitting = self.ready.classes().filter(|(class, needs)| worker.takes(*class, needs));
        let fitting: Vec<_> = fitting.map(|(class, _)| class).collect();
        #[cfg(test)]
        let fitting = match self.broken {
            Some(super::simulation::Broken::IgnoresRoom) => {
                self.ready.classes().map(|(class, _)| class).collect()
            }
            _ => fitting,
        };
        self.ready.next(&fitting, &|line| self.choose(id, line))
    }

    /// The action of one run's line that a worker should be given: the first, unless the worker has more of
    /// another's inputs and the first has not waited for long.
    fn choose(&self, id: WorkerId, line: &mut dyn Iterator<Item = TaskId>) -> Option<TaskId> {
        let worker = self.workers.get(id)?;
        let mut fit = line.take(SKIPPED_MAX).filter(|task| !self.should_go_elsewhere(*task, id));
        let first = fit.next()?;
        let warmth = |task: TaskId| {
            let spec = self.tasks.at(task).spec.as_ref();
            spec.map_or(0, |spec| worker.warmth(&spec.folders))
        };
        let head = self.tasks.at(first);
        let has_waited = head.since.is_some_and(|since| since + self.limits.overtaken_max <= self.now);
        if has_waited || head.spec.as_ref().is_none_or(|spec| spec.folders.is_empty()) {
            return Some(first);
        }
        let rest = fit.take(CHOICE - 1).map(|task| (warmth(task), task));
        let (_, best) =
            rest.fold((warmth(first), first), |best, next| if next.0 > best.0 { next } else { best });
        Some(best)
    }

    /// Whether a worker has failed an action that another could be given.
    pub(super) fn should_go_elsewhere(&self, task: TaskId, worker: WorkerId) -> bool {
        let task = self.tasks.at(task);
        let (true, Some(spec)) = (task.failed_on.contains(&worker), &task.spec) else { return false };
        self.workers.has_another(&spec.needs, &task.failed_on)
    }

    fn grant(&mut self, worker: WorkerId, id: TaskId) {
        let lease = self.new_lease();
        let task = self.tasks.at(id);
        let Phase::Queued(place) = &task.phase else { unreachable!("an action in line is queued") };
        let class = place.class;
        self.ready.remove(place, task.share, id);
        let spec = task.spec.as_ref().expect("an action in line was checked");
        let grant = Effect::Grant {
            worker,
            lease,
            key: task.key.clone(),
            timeout: spec.timeout,
            memory_bytes: spec.needs.demand.memory_bytes,
            origin: task.origin.clone(),
        };
        let (paid, waited) =
            ((task.expected, task.priority), task.since.map(|since| self.now.saturating_sub(since)));
        let is_warm = self.workers.get(worker).is_some_and(|worker| worker.warmth(&spec.folders) > 0);
        self.tally.granted += 1;
        self.tally.granted_warm += u64::from(is_warm);
        self.tally.waited.add(waited.unwrap_or_default());
        self.effect(grant);
        self.ready.granted(self.now, class);
        self.workers.change(worker, |worker| {
            worker.reserved_for.take_if(|reserved| *reserved == class);
        });
        self.start(id, Attempt { lease, worker, since: self.now, paid, commanding_since: None });
    }

    /// A name for another attempt.
    pub(super) fn new_lease(&mut self) -> LeaseId {
        self.leases_made += 1;
        LeaseId::new(self.incarnation, self.leases_made)
    }

    /// Keeps a worker free for each class whose actions take so much that they would never get it while smaller
    /// ones take every slot that gets free; and lets go of those that are no longer needed.
    pub(super) fn reserve(&mut self) {
        let reserved = self.workers.iter().filter_map(|(id, worker)| Some((id, worker.reserved_for?)));
        for (id, class) in reserved.collect::<Vec<_>>() {
            let worker = self.workers.get(id).expect("it was there a moment ago");
            let needed = self.ready.class_at(class).is_some_and(|(needs, _)| worker.could_take(needs));
            if !needed {
                self.workers.change(id, |worker| worker.reserved_for = None);
                self.place_worker(id);
            }
        }
        let classes: Vec<_> = self.ready.classes().map(|(class, _)| class).collect();
        for class in classes {
            if let Some(worker) = self.to_be_reserved(class) {
                let now = self.now;
                self.workers.change(worker, |worker| {
                    worker.reserved_for = Some(class);
                    worker.reserved_last = Some(now);
                });
                self.end_spare_at(worker);
            }
        }
    }

    /// The worker that is to be kept free for a class, if it needs one and has none. After that the worker is
    /// left to the others for a while, lest it is they who never get it.
    fn to_be_reserved(&self, class: ClassId) -> Option<WorkerId> {
        let (needs, _) = self.ready.class_at(class)?;
        let due = |since: Moment| since + self.limits.reserve_after <= self.now;
        let has_one = self.workers.iter().any(|(_, worker)| worker.reserved_for == Some(class));
        if needs.demand.is_small() || has_one || !self.ready.last_granted(class).is_some_and(due) {
            return None;
        }
        let able = self.workers.iter().filter(|(_, worker)| {
            worker.reserved_for.is_none() && worker.reserved_last.is_none_or(due) && worker.could_take(needs)
        });
        able.max_by_key(|(_, worker)| worker.free()).map(|(id, _)| id)
    }

    /// Whether there is anybody who runs actions, or may be on the way: where actions are to wait for workers for longer
    /// than usual, somebody starts them when they do.
    pub fn expects_workers(&self) -> bool {
        self.now < self.limits.start_grace
            || self.workers.offers().next().is_some()
            || self.limits.return_grace > super::Limits::default().return_grace
    }

    /// Why the actions of a class will not be run, if nobody offers to and nobody is expected.
    pub(super) fn cannot_be_served(&self, class: ClassId) -> Option<Refusal> {
        let (needs, since) = self.ready.class_at(class)?;
        if self.workers.offers().any(|offer| offer.can_run(needs)) {
            return None;
        }
        let explanation = properties::nearest(needs, &self.workers.offers());
        // Somebody is sure to come where nobody is yet, so each class gets a grace of its own.
        let first = if explanation.is_none() { since + self.limits.first_grace } else { Moment::ZERO };
        (first.max(self.limits.start_grace) <= self.now)
            .then(|| explanation.map_or(Refusal::NoWorker, Refusal::NoMatch))
    }
}
