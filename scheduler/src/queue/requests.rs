//! What clients ask for: operations come and go, equal ones share a task, tasks get in line.

use std::sync::Arc;

use prost::Message as _;

use super::estimates::set_aside;
use super::shares::Owner;
use super::tasks::{Attempt, Phase, Task};
use super::{Checked, Effect, Ending, OperationId, Queue, Refusal, Request, Spec, Stage, TaskId};

impl Queue {
    pub(super) fn opened(&mut self, request: Request) {
        if let Some(check) = self.open(request) {
            self.effect(check);
        }
    }

    /// Goes on with an operation of an earlier life. What was at a worker is not looked at before the worker had
    /// time to bring it along, lest it is run twice.
    pub(super) fn restored(&mut self, request: Request, was_running: bool) {
        let operation = request.operation;
        let check = self.open(request);
        self.operations.waiter_left(self.now, operation);
        match check {
            Some(Effect::Check { task, .. }) if was_running => self.expected_back.push_back((self.now, task)),
            check => self.effects.extend(check),
        }
    }

    /// Looks at actions that no worker has brought along.
    pub(super) fn look_at_restored(&mut self) {
        let since = self.now.checked_sub(self.limits.restored_grace);
        while let Some((_, id)) = self.expected_back.front().copied().filter(|(at, _)| Some(*at) <= since) {
            self.expected_back.pop_front();
            if let Some(task) = self.tasks.get(id).filter(|task| task.phase == Phase::Checking) {
                let (key, lookup) = (task.key.clone(), task.lookup);
                self.effect(Effect::Check { task: id, key, lookup });
            }
        }
    }

    /// Adds an operation; returns the check that has to be made, if it is the first for its action.
    fn open(&mut self, request: Request) -> Option<Effect> {
        if self.operations.len() >= self.limits.operations_max {
            let refusal = Refusal::Full { what: "operations at a time", max: self.limits.operations_max };
            self.effect(Effect::Refuse(request.operation, refusal));
            return None;
        }
        let Request { operation, key, priority, run, principal, lookup, origin } = request;
        let joined = self.tasks.of(&key).find(|(_, task)| task.may_be_joined(lookup));
        if let Some((id, _)) = joined {
            self.operations.open(operation, id);
            self.tally.shared += 1;
            self.join(id, operation, priority);
            return None;
        }
        let owner = Owner { instance: Arc::clone(&key.instance), principal, run };
        #[cfg(test)]
        let owner = match self.broken {
            Some(super::simulation::Broken::ServesInOrder) => Owner { run: "all".into(), ..owner },
            _ => owner,
        };
        let share = self.ready.enter(self.now, &owner);
        let id = self.tasks.insert(Task { priority, lookup, ..Task::new(key.clone(), origin, share) });
        self.operations.open(operation, id);
        self.join(id, operation, priority);
        Some(Effect::Check { task: id, key, lookup })
    }

    /// Adds an operation that already names the task.
    fn join(&mut self, id: TaskId, operation: OperationId, priority: i32) {
        let task = self.tasks.at_mut(id);
        task.operations.push(operation);
        task.unclaimed_since = None;
        let stage = task.stage();
        if priority < task.priority {
            self.hasten(id, priority);
        }
        self.effect(Effect::Stage(operation, stage));
    }

    /// Moves a task forward in line, as somebody more urgent waits for it too.
    fn hasten(&mut self, id: TaskId, priority: i32) {
        let task = self.tasks.at_mut(id);
        task.priority = priority;
        let (Phase::Queued(place), Some(spec)) = (&task.phase, &task.spec) else { return };
        self.ready.remove(place, task.share, id);
        task.phase = Phase::Queued(self.ready.insert(self.now, &spec.needs, task.standing(self.now), id));
    }

    pub(super) fn checked(&mut self, id: TaskId, verdict: Checked) {
        let Some(task) = self.tasks.get(id) else { return };
        match verdict {
            Checked::Answered(response) if task.phase == Phase::Checking => {
                self.end_task(id, &Ending::Answered(response));
            }
            Checked::Ready(spec) if task.spec.is_none() => self.learn(id, spec),
            // It is known already; and a lease that a worker brought along goes on, whatever the
            // check says.
            Checked::Answered(_) | Checked::Ready(_) => {}
        }
    }

    fn learn(&mut self, id: TaskId, mut spec: Spec) {
        let mergeable = spec.mergeable;
        let known = spec.kind.and_then(|kind| self.estimates.of(kind));
        let demand = &mut spec.needs.demand;
        if let Some(known) = known
            && demand.memory_bytes == 0
        {
            demand.memory_bytes = set_aside(known.memory_bytes);
            demand.memory_is_estimate = demand.memory_bytes > 0;
        }
        let task = self.tasks.at_mut(id);
        task.expected = known.map_or(task.expected, |known| known.duration);
        task.is_expectation_known = known.is_some();
        task.spec = Some(spec);
        let checking = task.phase == Phase::Checking;
        if let Phase::Running(attempt) = &task.phase {
            // It came with a worker, and was taken to need one slot.
            let (lease, worker) = (attempt.lease, attempt.worker);
            let demand = task.spec.as_ref().map(|spec| spec.needs.demand.clone()).unwrap_or_default();
            self.workers.change(worker, |worker| worker.hold(lease, Some(id), demand));
        }
        if !mergeable {
            self.split(id);
        }
        if checking && !self.fold(id) {
            self.enqueue(id);
        }
    }

    /// Gives each operation but the first a task of its own, as they may not share (REAPI,
    /// `do_not_cache`). They were put together before this was known.
    fn split(&mut self, id: TaskId) {
        let task = self.tasks.at_mut(id);
        let others = task.operations.split_off(task.operations.len().min(1));
        for operation in others {
            let model = self.tasks.at(id);
            let share = self.ready.enter(self.now, &self.ready.shares.owner(model.share));
            let own = self.tasks.insert(Task {
                priority: model.priority,
                lookup: model.lookup,
                spec: model.spec.clone(),
                expected: model.expected,
                is_expectation_known: model.is_expectation_known,
                operations: vec![operation],
                ..Task::new(model.key.clone(), Arc::clone(&model.origin), share)
            });
            self.operations.move_to(operation, own);
            self.enqueue(own);
        }
    }

    /// Joins a task that is to be run to an equal one that is or will be, if there is one.
    pub(super) fn fold(&mut self, id: TaskId) -> bool {
        let task = self.tasks.at(id);
        if !task.spec.as_ref().is_some_and(|spec| spec.mergeable) {
            return false;
        }
        #[cfg(test)]
        if self.broken == Some(super::simulation::Broken::FoldsNothing) {
            return false;
        }
        let mut equals = self.tasks.of(&task.key).filter(|(other, _)| *other != id);
        let fits = |other: &Task| other.phase != Phase::Checking && other.may_be_joined(task.lookup);
        let Some(into) = equals.find(|(_, other)| fits(other)).map(|(into, _)| into) else { return false };
        drop(equals);
        let folded = self.forget_task(id);
        for operation in folded.operations {
            self.operations.move_to(operation, into);
            self.join(into, operation, folded.priority);
        }
        true
    }

    /// Puts a checked task in line; or ends it, if there is no use or no room.
    pub(super) fn enqueue(&mut self, id: TaskId) {
        let task = self.tasks.at(id);
        let spec = task.spec.clone().expect("a task is checked before it gets in line");
        if let Some(refusal) = self.no_room(&spec) {
            return self.end_task(id, &Ending::Refused(refusal));
        }
        let place = self.ready.insert(self.now, &spec.needs, task.standing(self.now), id);
        let class = place.class;
        let now = self.now;
        let task = self.tasks.at_mut(id);
        task.since.get_or_insert(now);
        task.phase = Phase::Queued(place);
        let effects = task.operations.iter().map(|operation| Effect::Stage(*operation, Stage::Queued));
        self.effects.extend(effects);
        if let Some(refusal) = self.cannot_be_served(class) {
            return self.end_task(id, &Ending::Refused(refusal));
        }
        self.place_class(class);
        self.make_room(class);
    }

    fn no_room(&self, spec: &Spec) -> Option<Refusal> {
        if self.ready.len() + self.resting.len() >= self.limits.queued_max {
            return Some(Refusal::Full { what: "actions in the queue", max: self.limits.queued_max });
        }
        let new_class = self.ready.class(&spec.needs).is_none();
        (new_class && self.ready.classes_len() >= self.limits.classes_max)
            .then_some(Refusal::Full { what: "different sets of needs", max: self.limits.classes_max })
    }

    /// Ends a task, whatever it is doing, and every operation that waits for it.
    pub(super) fn end_task(&mut self, id: TaskId, ending: &Ending) {
        self.interrupt(id, "no longer wanted");
        let task = self.forget_task(id);
        for (number, operation) in task.operations.into_iter().enumerate() {
            if number > 0 {
                self.effect(Effect::Shared(operation));
            }
            self.finish(operation, ending.clone());
        }
    }

    /// Forgets a task that neither waits nor runs any more.
    fn forget_task(&mut self, id: TaskId) -> Task {
        let task = self.tasks.remove(id);
        self.ready.shares.leave(task.share);
        self.effect(Effect::Over(id));
        task
    }

    /// Takes a task out of line, or away from its worker.
    pub(super) fn interrupt(&mut self, id: TaskId, reason: &'static str) {
        let task = self.tasks.at_mut(id);
        match std::mem::replace(&mut task.phase, Phase::Checking) {
            Phase::Queued(place) => self.ready.remove(&place, task.share, id),
            Phase::Resting(until) => drop(self.resting.remove(&(until, id))),
            Phase::Running(attempt) => {
                let Attempt { worker, lease, .. } = attempt;
                let other = self.end_hedge(id, reason);
                self.release(id, &attempt);
                self.effect(Effect::Revoke(worker, lease, reason));
                for worker in other.into_iter().chain([worker]) {
                    self.place_worker(worker);
                }
            }
            Phase::Checking | Phase::Publishing(_) => {}
        }
    }

    /// Ends one operation. Its task goes on as long as others wait for it.
    pub(super) fn drop_operation(&mut self, operation: OperationId, refusal: Refusal) {
        let Some(id) = self.operations.task(operation) else { return };
        self.finish(operation, Ending::Refused(refusal));
        let task = self.tasks.at_mut(id);
        task.operations.retain(|other| *other != operation);
        // What is about to be published is nearly paid for.
        if task.operations.is_empty() && !matches!(task.phase, Phase::Publishing(_)) {
            self.interrupt(id, "no longer wanted");
            self.forget_task(id);
        }
    }

    fn finish(&mut self, operation: OperationId, ending: Ending) {
        let bytes = match &ending {
            Ending::Answered(response) => response.encoded_len(),
            Ending::Refused(_) => 0,
        };
        #[cfg(test)]
        if self.broken == Some(super::simulation::Broken::AnswersTwice) {
            self.effect(Effect::Finish(operation, ending.clone()));
        }
        self.effect(Effect::Finish(operation, ending));
        self.operations.finish(self.now, operation, bytes);
        self.forget_finished();
    }
}
