//! What the passing of time alone brings about.

use super::quarantine::LEFT_OUT_MAX;
use super::tasks::Phase;
use super::{Cause, Effect, Ending, LeaseId, Queue, Refusal, TaskId};

impl Queue {
    pub(super) fn tick(&mut self) {
        if self.patient_until <= self.now {
            self.give_up_what_is_overdue();
        }
        self.look_at_restored();
        self.charge_what_goes_on();
        self.test_again();
        self.wake_the_rested();
        self.reserve();
        self.forget_finished();
        // Whether an action should go elsewhere may have changed by a worker's leaving.
        let classes: Vec<_> = self.ready.classes().map(|(class, _)| class).collect();
        for class in classes {
            self.place_class(class);
            self.make_room(class);
        }
        self.use_spare_room();
    }

    fn give_up_what_is_overdue(&mut self) {
        self.hang_up_on_the_silent();
        self.lose_the_absent();
        self.workers.forget_departed(self.now.saturating_sub(self.limits.return_grace));
        self.workers.forget_conduct(self.now.saturating_sub(LEFT_OUT_MAX));
        self.end_overruns();
        self.end_what_nobody_waits_for();
        self.refuse_what_nobody_can_run();
    }

    /// The scheduler itself stood still. What others said meanwhile it has not heard yet, and who hung up on it is
    /// given the time to come back.
    pub(super) fn stood_still(&mut self) {
        self.patient_until = self.now + self.limits.restored_grace;
    }

    /// What workers have, but for runs whose results are only compared.
    fn held(&self) -> impl Iterator<Item = (LeaseId, TaskId)> {
        let leases = self.workers.iter().flat_map(|(_, worker)| &worker.leases);
        leases.filter_map(|(lease, held)| Some((*lease, held.task?)))
    }

    /// Takes commands away from workers that should have killed them long ago, and what is before or after its command
    /// from those that are not fit.
    fn end_overruns(&mut self) {
        const CAUSE: &str = "the worker did not end it in time";
        let overrun = |(lease, id): (LeaseId, TaskId)| {
            let task = self.tasks.get(id)?;
            let attempt = task.attempt(lease)?;
            let until = if let Some(since) = attempt.commanding_since {
                since + task.spec.as_ref()?.timeout + self.limits.overrun_grace
            } else {
                let since = self.workers.get(attempt.worker)?.unfit_since?;
                since.max(attempt.since) + self.limits.unfit_grace
            };
            (until <= self.now).then_some((attempt.worker, lease, id))
        };
        let overruns: Vec<_> = self.held().filter_map(overrun).collect();
        for (worker, lease, id) in overruns {
            self.effect(Effect::Revoke(worker, lease, "runs longer than it may"));
            self.blame(worker, id, CAUSE);
            self.lose_lease(worker, lease, Cause::Overrun, CAUSE.to_owned());
            self.place_worker(worker);
        }
    }

    /// Has runs pay for actions that take longer than was expected.
    fn charge_what_goes_on(&mut self) {
        let running: Vec<_> = self.held().map(|(_, task)| task).collect();
        for id in running {
            let now = self.now;
            let task = self.tasks.at_mut(id);
            let share = task.share;
            let slots = task.slots();
            let Phase::Running(attempt) = &mut task.phase else { continue };
            let (paid, priority) = attempt.paid;
            let more = now.saturating_sub(attempt.since).saturating_sub(paid);
            attempt.paid.0 += more;
            self.ready.run_goes_on(share, more * slots, priority);
        }
    }

    fn end_what_nobody_waits_for(&mut self) {
        let Some(since) = self.now.checked_sub(self.limits.unwatched_grace) else { return };
        for operation in self.operations.unwatched_since(since) {
            self.drop_operation(operation, Refusal::Abandoned);
        }
        let unclaimed = |id: &TaskId| self.tasks.at(*id).unclaimed_since.is_some_and(|at| at <= since);
        let unclaimed: Vec<_> = self.held().map(|(_, task)| task).filter(unclaimed).collect();
        for id in unclaimed {
            self.end_task(id, &Ending::Refused(Refusal::Abandoned));
        }
    }

    fn refuse_what_nobody_can_run(&mut self) {
        let classes: Vec<_> = self.ready.classes().map(|(class, _)| class).collect();
        for class in classes {
            let Some(refusal) = self.cannot_be_served(class) else { continue };
            for task in self.ready.tasks(class).collect::<Vec<_>>() {
                self.end_task(task, &Ending::Refused(refusal.clone()));
            }
        }
    }

    pub(super) fn forget_finished(&mut self) {
        let limits = &self.limits;
        let (kept, count_max, bytes_max) =
            (limits.finished_kept, limits.finished_max, limits.finished_bytes_max);
        while let Some(operation) = self.operations.forget_one(self.now, kept, count_max, bytes_max) {
            self.effect(Effect::Forget(operation));
        }
    }
}
