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
                    if worker.leases.get(&attempt.lease) != Some(&id) {
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
        self.audit_idleness()
    }

    /// Says if a worker that was just given something has more than it can run. (It may bring
    /// more along: what it runs, and what it has ended without our knowing.)
    pub(super) fn audit_slots(&self, worker: WorkerId) -> Result<(), String> {
        let worker = self.workers.get(worker).ok_or("a stranger was given an action")?;
        let overfull = worker.leases.len() > worker.offer.slots as usize;
        if overfull { Err(format!("`{}` was given more than it can run", worker.offer.name)) } else { Ok(()) }
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

    /// No action waits that a free worker could be given, unless that worker has failed it.
    fn audit_idleness(&self) -> Result<(), String> {
        for (id, task) in self.tasks.iter() {
            let (Phase::Queued(_), Some(spec)) = (&task.phase, &task.spec) else { continue };
            let mut free = self.workers.free();
            let idle = free.find(|worker| {
                let worker_offers = &self.workers.get(*worker).expect("it is free").offer.properties;
                worker_offers.satisfy(&spec.requirements) && !task.failed_on.contains(worker)
            });
            if let Some(idle) = idle {
                return Err(format!("{id:?} waits while worker {idle} is free"));
            }
        }
        Ok(())
    }
}

fn same(what: &str, one: usize, other: usize) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one} by one count, {other} by another")) }
}
