//! Looks for contradictions in a queue: what must hold between any two events.

use std::collections::BTreeMap;

use super::tasks::Phase;
use super::{Queue, TaskId, WorkerId};

impl Queue {
    /// Says which promise the present state breaks.
    pub(super) fn audit(&self) -> Result<(), String> {
        let mut queued = 0;
        let mut running = 0;
        let mut operations = 0;
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
                    if worker.leases.get(&attempt.lease).map(|held| held.task) != Some(id) {
                        return Err(format!("{id:?} runs at a worker that does not know it"));
                    }
                }
                Phase::Checking | Phase::Publishing(_) => {}
            }
        }
        let at_workers: usize = self.workers.iter().map(|(_, worker)| worker.leases.len()).sum();
        same("operations", operations, self.operations.len())?;
        same("tasks in line", queued, self.ready.len())?;
        same("leases", running, at_workers)?;
        same("running tasks by run", running, self.ready.running())?;
        self.audit_sharing()?;
        self.audit_shares()?;
        self.audit_idleness()
    }

    /// Says if a worker that was just given something has more than it can run. (It may bring
    /// more along: what it runs, and what it has ended without our knowing.)
    pub(super) fn audit_room(&self, worker: WorkerId) -> Result<(), String> {
        let worker = self.workers.get(worker).ok_or("a stranger was given an action")?;
        let specs = worker.leases.values().filter_map(|held| self.tasks.at(held.task).spec.as_ref());
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
            let active = matches!(task.phase, Phase::Queued(_) | Phase::Running(_));
            if active
                && task.spec.as_ref().is_none_or(|spec| spec.mergeable)
                && let Some(other) = seen.insert(&task.key, id)
            {
                return Err(format!("{id:?} and {other:?} are the same action"));
            }
        }
        Ok(())
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
