//! Looks for contradictions in a queue: what must hold between any two events.

use std::collections::BTreeMap;

use super::tasks::{Attempt, Phase};
use super::{Queue, TaskId, WorkerId};

impl Queue {
    /// Says which promise the present state breaks.
    pub(super) fn audit(&self) -> Result<(), String> {
        let mut queued = 0;
        let mut running = 0;
        let mut operations = 0;
        let (mut resting, mut hedges) = (0, 0);
        for (id, task) in self.tasks.iter() {
            operations += task.operations.len();
            if let Some(stray) = task.operations.iter().find(|name| self.operations.task(**name) != Some(id))
            {
                return Err(format!("{stray:?} does not know its {id:?}"));
            }
            if task.operations.is_empty()
                && task.unclaimed_since.is_none()
                && !matches!(task.phase, Phase::Publishing(_))
            {
                return Err(format!("{id:?} is looked after for nobody"));
            }
            match &task.phase {
                Phase::Queued(_) => queued += 1,
                Phase::Running(attempt) => {
                    running += 1;
                    let worker = self.workers.get(attempt.worker).ok_or("a task runs at a stranger's")?;
                    if worker.leases.get(&attempt.lease).and_then(|held| held.task) != Some(id) {
                        return Err(format!("{id:?} runs at a worker that does not know it"));
                    }
                }
                Phase::Resting(until) => {
                    resting += 1;
                    if !self.resting.contains(&(*until, id)) {
                        return Err(format!("{id:?} rests for ever"));
                    }
                }
                Phase::Checking | Phase::Publishing(_) => {}
            }
            if let Some(hedge) = &task.hedge {
                hedges += 1;
                self.audit_hedge(id, hedge)?;
            }
        }
        let at_workers: usize = self.workers.iter().map(|(_, worker)| worker.leases.len()).sum();
        same("operations", operations, self.operations.len())?;
        same("tasks in line", queued, self.ready.len())?;
        same("actions that rest", resting, self.resting.len())?;
        let spare = hedges + self.rechecks.running();
        same("leases on spare slots", spare, self.spare.len())?;
        same("leases", running + spare, at_workers)?;
        same("running tasks by run", running, self.ready.running())?;
        self.audit_sharing()?;
        self.audit_shares()?;
        self.audit_idleness()
    }

    /// Says if an action is run twice at once without reason.
    fn audit_hedge(&self, id: TaskId, hedge: &Attempt) -> Result<(), String> {
        let task = self.tasks.at(id);
        let first = task.running().ok_or(format!("{id:?} has a second attempt and no first"))?;
        let least = self.limits.hedge_after.ok_or("second attempts are not wanted")?;
        if first.worker == hedge.worker || first.lease == hedge.lease {
            return Err(format!("{id:?} runs twice at one worker"));
        }
        if hedge.since < first.since + least {
            return Err(format!("{id:?} runs twice, and the first attempt is no straggler"));
        }
        let worker = self.workers.get(hedge.worker).ok_or("a second attempt is at a stranger's")?;
        let known = worker.leases.get(&hedge.lease).and_then(|held| held.task) == Some(id);
        if known { Ok(()) } else { Err(format!("{id:?} runs again at a worker that does not know it")) }
    }

    /// Says if a worker that was just given something has more than it can run. (It may bring
    /// more along: what it runs, and what it has ended without our knowing.)
    pub(super) fn audit_room(&self, worker: WorkerId) -> Result<(), String> {
        let worker = self.workers.get(worker).ok_or("a stranger was given an action")?;
        let tasks = worker.leases.values().filter_map(|held| held.task);
        let specs = tasks.filter_map(|task| self.tasks.at(task).spec.as_ref());
        let demands: Vec<_> = specs.map(|spec| &spec.needs.demand).collect();
        let slots = demands.iter().map(|demand| u64::from(demand.slots)).sum::<u64>();
        let memory = demands.iter().map(|demand| demand.memory_bytes).sum::<u64>();
        let gpus = demands.iter().map(|demand| demand.others.of("gpu")).sum::<u64>();
        let fits = slots <= u64::from(worker.offer.slots)
            && (memory <= worker.offer.memory_bytes.unwrap_or(u64::MAX) || demands.len() == 1)
            && gpus <= worker.offer.others.of("gpu");
        if fits { Ok(()) } else { Err(format!("`{}` was given more than it can run", worker.offer.name)) }
    }

    /// No action waits or runs twice that could be shared.
    fn audit_sharing(&self) -> Result<(), String> {
        let mut seen = BTreeMap::<_, TaskId>::new();
        for (id, task) in self.tasks.iter() {
            let active = matches!(task.phase, Phase::Queued(_) | Phase::Resting(_) | Phase::Running(_));
            if active
                && task.spec.as_ref().is_none_or(|spec| spec.mergeable)
                && let Some(other) = seen.insert(&task.key, id)
            {
                return Err(format!("{id:?} and {other:?} are the same action"));
            }
        }
        Ok(())
    }

    /// No action waits for what a second run takes up; told apart from the rest, as some changes of who may have what
    /// are acted upon at the next tick only.
    pub(super) fn audit_spare(&self) -> Result<(), String> {
        let mut classes = self.ready.classes().map(|(class, _)| class);
        match classes.find(|class| self.in_the_way_of(*class).is_some()) {
            Some(class) => Err(format!("second runs are in the way of {class:?}")),
            None => Ok(()),
        }
    }

    /// No action waits that a worker has room for, unless that worker has failed it or is kept free for a
    /// larger one.
    fn audit_idleness(&self) -> Result<(), String> {
        for (id, task) in self.tasks.iter() {
            let (Phase::Queued(place), Some(spec)) = (&task.phase, &task.spec) else { continue };
            let mut workers = self.workers.iter();
            let idle = workers.find(|(worker, state)| {
                state.takes(place.class, &spec.needs) && !task.failed_on.contains(worker)
            });
            if let Some((idle, _)) = idle {
                return Err(format!("{id:?} waits while worker {idle} has room for it"));
            }
        }
        Ok(())
    }

    /// The shares name exactly what waits and runs, and whoever has something waiting stands where its clock is.
    fn audit_shares(&self) -> Result<(), String> {
        let mut counted = BTreeMap::<_, (usize, usize)>::new();
        for (_, task) in self.tasks.iter() {
            let (waiting, running) = counted.entry(task.share).or_default();
            *waiting += usize::from(matches!(task.phase, Phase::Queued(_)));
            *running += usize::from(matches!(task.phase, Phase::Running(_)));
        }
        for (id, share) in self.ready.shares.iter().filter(|(_, share)| share.is_run) {
            let (waiting, running) = counted.get(&id).copied().unwrap_or_default();
            same("actions of a run in line", waiting, share.waiting)?;
            same("actions of a run at workers", running, share.running)?;
            same("actions of a run by class", waiting, share.waiting_in.values().sum())?;
        }
        self.ready.audit()
    }
}

fn same(what: &str, one: usize, other: usize) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one} by one count, {other} by another")) }
}
