//! How leases end: well, badly, late, or not at all.

use super::tasks::{Attempt, Phase};
use super::{Effect, Ending, LeaseId, Queue, Refusal, Report, Response, Stage, TaskId, WorkerId};

impl Queue {
    /// Notes that a task is with a worker.
    pub(super) fn start(&mut self, id: TaskId, attempt: Attempt) {
        let (worker, lease) = (attempt.worker, attempt.lease);
        self.tasks.begin(id, attempt);
        self.workers.change(worker, |worker| {
            worker.leases.insert(lease, id);
        });
        let task = self.tasks.at(id);
        self.ready.run_started(&task.run);
        let stages = task.operations.iter().map(|operation| Effect::Stage(*operation, Stage::Executing));
        self.effects.extend(stages);
    }

    /// Notes that a task is with a worker no more. What it is now, the caller says.
    pub(super) fn release(&mut self, id: TaskId, worker: WorkerId, lease: LeaseId) {
        self.ready.run_stopped(&self.tasks.at(id).run);
        self.workers.change(worker, |worker| {
            worker.leases.remove(&lease);
        });
    }

    pub(super) fn reported(&mut self, worker: WorkerId, lease: LeaseId, report: Report) {
        let Some(id) = self.tasks.under(lease, worker) else {
            // Of a task that has ended. The worker may forget it all the same.
            return self.effect(Effect::Keep(worker, lease));
        };
        let task = self.tasks.at(id);
        let current = task.running().is_some_and(|attempt| attempt.lease == lease);
        match (&task.phase, report) {
            (Phase::Publishing(attempt), _) if attempt.lease == lease => {}
            (Phase::Publishing(_), _) => self.effect(Effect::Keep(worker, lease)),
            (_, Report::Final(response)) => {
                self.publish(id, Attempt { lease, worker, commanding_since: None }, response);
            }
            (_, Report::Retry(cause)) => {
                self.effect(Effect::Keep(worker, lease));
                self.tasks.forget_lease(id, lease);
                if current {
                    self.release(id, worker, lease);
                    self.fail(id, worker, cause);
                    self.place_worker(worker);
                }
            }
        }
    }

    /// Takes an outcome, be it that of an earlier lease than the one that runs.
    fn publish(&mut self, id: TaskId, attempt: Attempt, response: Response) {
        let worker = attempt.worker;
        match self.tasks.at(id).running() {
            Some(running) if running.lease == attempt.lease => self.release(id, worker, attempt.lease),
            _ => self.interrupt(id, "another worker was first"),
        }
        let worker_name =
            self.workers.get(worker).map_or_else(|| "".into(), |worker| worker.offer.name.clone());
        let task = self.tasks.at_mut(id);
        task.phase = Phase::Publishing(attempt);
        let publish = Effect::Publish {
            task: id,
            key: task.key.clone(),
            response,
            origin: task.origin.clone(),
            worker_name,
            cacheable: task.spec.as_ref().map(|spec| spec.mergeable),
        };
        self.effect(publish);
        self.place_worker(worker);
    }

    pub(super) fn published(&mut self, id: TaskId, result: Result<Response, String>) {
        let Some(task) = self.tasks.get(id) else { return };
        let Phase::Publishing(Attempt { lease, worker, .. }) = task.phase else { return };
        self.effect(Effect::Keep(worker, lease));
        match result {
            Ok(response) => self.end_task(id, &Ending::Answered(response)),
            Err(cause) => {
                self.tasks.forget_lease(id, lease);
                self.fail(id, worker, cause);
            }
        }
    }

    /// Gives up a lease whose worker is lost, or does not know it. Should an outcome come after
    /// all, it is taken as long as nobody else was first.
    pub(super) fn lose_lease(&mut self, worker: WorkerId, lease: LeaseId, cause: String) {
        let Some(id) = self.tasks.under(lease, worker) else { return };
        if self.tasks.at(id).running().is_some_and(|attempt| attempt.lease == lease) {
            self.release(id, worker, lease);
            #[cfg(test)]
            if self.broken == Some(super::simulation::Broken::ForgetsLostActions) {
                self.tasks.at_mut(id).phase = Phase::Checking;
                return;
            }
            self.fail(id, worker, cause);
        }
    }

    /// Has a task tried again after an attempt that failed by no fault of its own, or ends it if
    /// that was the last.
    fn fail(&mut self, id: TaskId, worker: WorkerId, cause: String) {
        let task = self.tasks.at_mut(id);
        task.phase = Phase::Checking;
        task.failed_on.push(worker);
        let attempts = task.failed_on.len();
        if task.operations.is_empty() || attempts >= self.limits.attempts_max {
            return self.end_task(id, &Ending::Refused(Refusal::GivenUp { attempts, cause }));
        }
        if task.spec.is_some() {
            if !self.fold(id) {
                self.enqueue(id);
            }
            return;
        }
        // It came with a worker, and nobody has looked at it yet.
        let (key, lookup) = (task.key.clone(), task.lookup);
        let stages = task.operations.iter().map(|operation| Effect::Stage(*operation, Stage::Checking));
        self.effects.extend(stages);
        self.effect(Effect::Check { task: id, key, lookup });
    }
}
