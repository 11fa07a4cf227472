//! Brings actions that wait and workers with free slots together.
//!
//! Invariant between events: no action waits that a worker with a free slot could be given. So
//! only what has just changed has to be looked at: a class in which an action got in line, or a
//! worker that got a slot free.

use super::ready::ClassId;
use super::tasks::{Attempt, Phase};
use super::{Effect, LeaseId, Moment, Queue, Refusal, TaskId, WorkerId, properties};

impl Queue {
    /// Gives actions of a class to workers with free slots, the freest first.
    pub(super) fn place_class(&mut self, class: ClassId) {
        while let Some((worker, task)) = self.match_for(class) {
            self.grant(worker, task);
        }
    }

    fn match_for(&self, class: ClassId) -> Option<(WorkerId, TaskId)> {
        let (required, _) = self.ready.class_at(class)?;
        self.workers.free().find_map(|id| {
            let worker = self.workers.get(id).expect("a worker with free slots is there");
            let fits = worker.offer.properties.satisfy(required);
            fits.then(|| self.next_for(id)).flatten().map(|task| (id, task))
        })
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
        let offered = &self.workers.get(id)?.offer.properties;
        let fitting = self.ready.classes().filter(|(_, required)| offered.satisfy(required));
        self.ready.next(fitting.map(|(class, _)| class), |task| !self.should_go_elsewhere(task, id))
    }

    /// Whether a worker has failed an action that another could be given.
    fn should_go_elsewhere(&self, task: TaskId, worker: WorkerId) -> bool {
        let task = self.tasks.at(task);
        let (true, Some(spec)) = (task.failed_on.contains(&worker), &task.spec) else { return false };
        self.workers.has_another(&spec.requirements, &task.failed_on)
    }

    fn grant(&mut self, worker: WorkerId, id: TaskId) {
        self.leases_made += 1;
        let lease = LeaseId::new(self.incarnation, self.leases_made);
        let task = self.tasks.at(id);
        let Phase::Queued(place) = &task.phase else { unreachable!("an action in line is queued") };
        self.ready.remove(place, id);
        let timeout = task.spec.as_ref().expect("an action in line was checked").timeout;
        let grant =
            Effect::Grant { worker, lease, key: task.key.clone(), timeout, origin: task.origin.clone() };
        self.effect(grant);
        self.start(id, Attempt { lease, worker, commanding_since: None });
    }

    /// Why the actions of a class will not be run, if nobody offers to and nobody is expected.
    pub(super) fn cannot_be_served(&self, class: ClassId) -> Option<Refusal> {
        let (required, since) = self.ready.class_at(class)?;
        if self.workers.offers().any(|offer| offer.properties.satisfy(required)) {
            return None;
        }
        let explanation = properties::nearest(required, self.workers.offers());
        // Somebody is sure to come where nobody is yet, so each class gets the grace of its own.
        let since = if explanation.is_none() { since } else { Moment::ZERO };
        (since + self.limits.start_grace <= self.now)
            .then(|| explanation.map_or(Refusal::NoWorker, Refusal::NoMatch))
    }
}
