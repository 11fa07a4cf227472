//! How leases end: well, badly, late, or not at all.

use std::sync::Arc;

use super::tasks::{Attempt, Phase};
use super::{
    Cause, Effect, Ending, LeaseId, Queue, Refusal, Report, Response, Stage, TaskId, Unpublished, WorkerId,
};

/// Memory that an action is taken to need of which nothing is known but that it did not get enough.
const MEMORY_RETRY_MIN: u64 = 1 << 30;

impl Queue {
    /// Notes that a task is with a worker.
    pub(super) fn start(&mut self, id: TaskId, attempt: Attempt) {
        let (worker, lease, (paid, priority)) = (attempt.worker, attempt.lease, attempt.paid);
        self.tasks.begin(id, attempt);
        let task = self.tasks.at(id);
        let demand = task.spec.as_ref().map(|spec| spec.needs.demand.clone()).unwrap_or_default();
        self.ready.run_started(task.share, paid * task.slots(), priority);
        self.workers.change(worker, |worker| {
            if let Some(spec) = &task.spec {
                worker.warm_up(&spec.folders);
            }
            worker.hold(lease, Some(id), demand);
        });
        let stages = task.operations.iter().map(|operation| Effect::Stage(*operation, Stage::Executing));
        self.effects.extend(stages);
    }

    /// Notes that a task is with a worker no more. What it is now, the caller says.
    pub(super) fn release(&mut self, id: TaskId, attempt: &Attempt) {
        let task = self.tasks.at(id);
        let (paid, priority) = attempt.paid;
        let unused = paid.saturating_sub(self.now.saturating_sub(attempt.since));
        self.ready.run_stopped(task.share, unused * task.slots(), priority);
        self.workers.change(attempt.worker, |worker| worker.let_go(attempt.lease));
    }

    /// Takes a task away from the worker that has it under a lease; says which attempt that was, and whether
    /// another goes on.
    fn take_away(&mut self, id: TaskId, lease: LeaseId) -> Option<(Attempt, bool)> {
        let task = self.tasks.at(id);
        if task.hedge.as_ref().is_some_and(|hedge| hedge.lease == lease) {
            return self.release_hedge(id).map(|hedge| (hedge, true));
        }
        let attempt = task.running().filter(|attempt| attempt.lease == lease)?.clone();
        self.release(id, &attempt);
        let goes_on = self.promote_hedge(id);
        Some((attempt, goes_on))
    }

    pub(super) fn reported(&mut self, worker: WorkerId, lease: LeaseId, report: Report, memory_bytes: u64) {
        if self.is_recheck_of(worker, lease) {
            return self.rechecked(worker, lease, report);
        }
        let Some(id) = self.tasks.under(lease, worker) else {
            // Of a task that has ended. The worker may forget it all the same.
            return self.effect(Effect::Keep(worker, lease));
        };
        let task = self.tasks.at(id);
        match (&task.phase, report) {
            (Phase::Publishing(attempt), _) if attempt.lease == lease => {}
            (Phase::Publishing(_), _) => self.effect(Effect::Keep(worker, lease)),
            // Another attempt, of this moment or to come, may do better: not every worker has the right compiler.
            (_, Report::Final(response)) if response.result.is_none() && !self.is_last(id, lease) => {
                let cause = response.status.as_ref().map_or("", |status| &status.message).to_owned();
                self.reported_failure(id, worker, lease, Cause::WorkerFailed, cause);
            }
            (_, Report::Final(response)) => self.publish(id, worker, lease, response, memory_bytes),
            (_, Report::OutOfMemory(response)) => {
                if self.enlarge(id, worker, memory_bytes) {
                    let cause = "it took more memory than was set aside for it".to_owned();
                    self.reported_failure(id, worker, lease, Cause::OutOfMemory, cause);
                } else {
                    self.publish(id, worker, lease, response, memory_bytes);
                }
            }
            (_, Report::Retry(cause)) => {
                // What it was given as it said that it takes no more, it has not even tried.
                if self.workers.get(worker).is_some_and(|worker| worker.draining) {
                    return self.reported_failure(id, worker, lease, Cause::WorkerDrains, cause);
                }
                self.blame(worker, id, &cause);
                self.reported_failure(id, worker, lease, Cause::WorkerFailed, cause);
            }
        }
    }

    /// Whether a lease is the only attempt at a task that is left.
    fn is_last(&self, id: TaskId, lease: LeaseId) -> bool {
        let task = self.tasks.at(id);
        task.hedge.is_none() && task.attempt(lease).is_some()
    }

    fn reported_failure(&mut self, id: TaskId, worker: WorkerId, lease: LeaseId, cause: Cause, text: String) {
        self.effect(Effect::Keep(worker, lease));
        let taken = self.take_away(id, lease);
        self.tasks.forget_lease(id, lease);
        if let Some((_, goes_on)) = taken {
            self.fail_unless(goes_on, id, worker, cause, text);
            self.place_worker(worker);
        }
    }

    /// Has more memory be set aside for an action the next time; says whether any worker has more. What it could use at
    /// that worker was too little, whatever was measured.
    fn enlarge(&mut self, id: TaskId, worker: WorkerId, memory_bytes: u64) -> bool {
        let Some(spec) = &self.tasks.at(id).spec else { return false };
        let set_aside = spec.needs.demand.memory_bytes;
        let bound = self.workers.get(worker).and_then(|worker| worker.offer.action_bound_with(set_aside));
        let too_little = bound.unwrap_or_else(|| set_aside.max(memory_bytes).max(MEMORY_RETRY_MIN));
        let mut needs = spec.needs.clone();
        needs.demand.memory_bytes = 0;
        // One that does not say how much it has would be asked again and again.
        let offers = self.workers.iter().map(|(_, worker)| &worker.offer);
        let able = offers.filter(|offer| offer.can_run(&needs)).filter_map(super::Offer::memory_of_one);
        let more = able.max().unwrap_or(0).min(too_little.saturating_mul(2));
        if more < too_little.saturating_add(too_little / 4) {
            return false;
        }
        let task = self.tasks.at_mut(id);
        task.memory_too_little = too_little;
        let demand = &mut task.spec.as_mut().expect("it was there a moment ago").needs.demand;
        (demand.memory_bytes, demand.memory_is_estimate) = (more, false);
        true
    }

    /// Takes an outcome, be it that of an earlier lease than the one that runs.
    fn publish(
        &mut self,
        id: TaskId,
        worker: WorkerId,
        lease: LeaseId,
        response: Response,
        memory_bytes: u64,
    ) {
        let attempt = self.end_attempts(id, worker, lease, memory_bytes);
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

    /// Takes a task away from everybody who has it, as an outcome has come; returns the attempt that it is of.
    fn end_attempts(&mut self, id: TaskId, worker: WorkerId, lease: LeaseId, memory_bytes: u64) -> Attempt {
        const REASON: &str = "another worker was first";
        let Some(attempt) = self.tasks.at(id).attempt(lease).cloned() else {
            self.interrupt(id, REASON);
            return Attempt {
                lease,
                worker,
                since: self.now,
                paid: Default::default(),
                commanding_since: None,
            };
        };
        self.measure(id, &attempt, memory_bytes);
        if self.tasks.at(id).running().is_some_and(|first| first.lease == lease) {
            let other = self.end_hedge(id, REASON);
            self.release(id, &attempt);
            self.tasks.at_mut(id).phase = Phase::Checking;
            if let Some(other) = other {
                self.place_worker(other);
            }
        } else {
            self.tally.hedges_first += 1;
            self.release_hedge(id);
            if let Some(first) = self.tasks.at(id).running().map(|first| first.worker) {
                self.was_overtaken(first);
            }
            self.interrupt(id, REASON);
        }
        attempt
    }

    /// Remembers how long an action took, and how much memory, for others of its kind.
    fn measure(&mut self, id: TaskId, attempt: &Attempt, memory_bytes: u64) {
        let took = self.now.saturating_sub(attempt.since);
        self.tally.ran.add(took);
        if let Some(kind) = self.tasks.at(id).spec.as_ref().and_then(|spec| spec.kind) {
            // What several processes take together is not measured, but that they did not have enough is known.
            self.estimates.learn(kind, took, memory_bytes.max(self.tasks.at(id).memory_too_little));
        }
    }

    pub(super) fn published(&mut self, id: TaskId, result: Result<Response, Unpublished>) {
        let Some(task) = self.tasks.get(id) else { return };
        let Phase::Publishing(Attempt { lease, worker, .. }) = task.phase else { return };
        self.effect(Effect::Keep(worker, lease));
        match result {
            Ok(response) => {
                self.praise(worker);
                let task = self.tasks.at(id);
                let (key, spec, origin) = (task.key.clone(), task.spec.clone(), Arc::clone(&task.origin));
                self.sample(&key, spec.as_ref(), &origin, worker, &response);
                self.end_task(id, &Ending::Answered(response));
                self.place_worker(worker);
            }
            Err(Unpublished::Refused(cause)) => {
                self.tasks.forget_lease(id, lease);
                self.blame(worker, id, &cause);
                self.fail(id, worker, Cause::ResultRefused, cause);
            }
            Err(Unpublished::Failed(cause)) => {
                self.tasks.forget_lease(id, lease);
                self.fail(id, worker, Cause::StoreFailed, cause);
            }
        }
    }

    /// Gives up a lease whose worker is lost, or does not know it. Should an outcome come after
    /// all, it is taken as long as nobody else was first.
    pub(super) fn lose_lease(&mut self, worker: WorkerId, lease: LeaseId, cause: Cause, text: String) {
        if self.take_recheck(lease) {
            return;
        }
        let Some(id) = self.tasks.under(lease, worker) else { return };
        if let Some((_, goes_on)) = self.take_away(id, lease) {
            #[cfg(test)]
            if self.broken == Some(super::simulation::Broken::ForgetsLostActions) {
                self.tasks.at_mut(id).phase = Phase::Checking;
                return;
            }
            self.fail_unless(goes_on, id, worker, cause, text);
        }
    }

    /// Notes that an attempt has failed; if that was the only one, the task is tried again.
    fn fail_unless(&mut self, goes_on: bool, id: TaskId, worker: WorkerId, cause: Cause, text: String) {
        if !goes_on {
            return self.fail(id, worker, cause, text);
        }
        if cause.speaks_against_the_worker() {
            self.tasks.at_mut(id).failed_on.push(worker);
        }
    }

    /// Has a task tried again after an attempt that failed by no fault of its own, or ends it if
    /// that was the last.
    fn fail(&mut self, id: TaskId, worker: WorkerId, cause: Cause, text: String) {
        let task = self.tasks.at_mut(id);
        task.phase = Phase::Checking;
        if cause.speaks_against_the_worker() {
            task.failed_on.push(worker);
        }
        let attempts = task.failed_on.len();
        if task.operations.is_empty() || attempts >= self.limits.attempts_max {
            return self.end_task(id, &Ending::Refused(Refusal::GivenUp { attempts, cause: text }));
        }
        *self.tally.retries.entry(cause).or_default() += 1;
        if task.spec.is_some() {
            if !self.fold(id) {
                self.try_again(id, cause);
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
