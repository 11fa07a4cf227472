//! What goes wrong with simulated workers, and with the scheduler; and how they come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::world::{Link, World, promise, queue};
use crate::queue::{Condition, Event, Held, Moment, Origin, Readiness, Saying, SessionId, WorkerId};

impl World {
    pub(super) fn connect_one(&mut self) -> Result<(), String> {
        let id = self.chance.pick(self.workers.keys().copied().collect::<Vec<_>>()).expect("some");
        self.connect(id)
    }

    /// Connects a worker, even if it is connected: then the new link replaces the old.
    pub(super) fn connect(&mut self, id: WorkerId) -> Result<(), String> {
        self.names_made += 1;
        let session = SessionId(self.names_made);
        let worker = self.workers.get_mut(&id).expect("picked");
        let outcomes = worker.done.iter().map(|(lease, (_, report))| (*lease, report.clone()));
        let outbox =
            outcomes.map(|(lease, report)| Saying::Outcome { lease, report, memory_bytes: 0 }).collect();
        let done = worker.done.iter().map(|(lease, (key, _))| (lease, key));
        let held = worker.running.iter().chain(done).map(|(lease, key)| Held {
            lease: *lease,
            key: key.clone(),
            origin: Arc::new(Origin::default()),
        });
        let held = held.collect();
        let offer = worker.offer.clone();
        let condition = Condition { unfit: worker.unfit.clone(), ..Condition::default() };
        let readiness = Readiness { draining: worker.draining, condition: Some(condition) };
        worker.link = Some(Link { session, dead: false, inbox: VecDeque::new(), outbox });
        self.apply(Event::Attached { worker: id, session, offer, held, readiness })
    }

    pub(super) fn break_a_link(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let noticed = self.chance.percent(50);
        let worker = self.workers.get_mut(&id).expect("picked");
        let link = worker.link.as_mut().expect("linked");
        link.dead = true;
        let session = link.session;
        if !noticed {
            return Ok(());
        }
        worker.link = None;
        self.apply(Event::Detached { worker: id, session })
    }

    pub(super) fn crash_a_worker(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let worker = self.workers.get_mut(&id).expect("picked");
        worker.running.clear();
        worker.done.clear();
        worker.draining = false;
        let session = worker.link.take().expect("linked").session;
        self.apply(Event::Detached { worker: id, session })
    }

    pub(super) fn drain_one(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let worker = self.workers.get_mut(&id).expect("picked");
        worker.draining = true;
        let session = worker.link.as_ref().expect("linked").session;
        self.apply(Event::Said { worker: id, session, saying: Saying::Draining })
    }

    /// An operator drains workers, or takes that back.
    pub(super) fn drain_or_undrain(&mut self) -> Result<(), String> {
        let patterns = ["w*", "w1", "w?", "x"];
        let pattern = self.chance.pick(patterns).expect("some").into();
        if self.chance.percent(30) {
            return self.apply(Event::Drained(pattern, "maintenance".into()));
        }
        self.apply(Event::Undrained(pattern))
    }

    /// A worker finds out that it is not fit, or that it is again.
    pub(super) fn fall_ill_or_recover(&mut self) -> Result<(), String> {
        let Some(id) = self.linked() else { return Ok(()) };
        let unfit: Option<Arc<str>> = self.chance.percent(30).then(|| "its disk fails".into());
        let worker = self.workers.get_mut(&id).expect("picked");
        worker.unfit.clone_from(&unfit);
        let session = worker.link.as_ref().expect("linked").session;
        let saying = Saying::Condition(Condition { unfit, ..Condition::default() });
        self.apply(Event::Said { worker: id, session, saying })
    }

    /// The scheduler is stopped for a minute, and everybody hangs up on it.
    pub(super) fn stand_still(&mut self) -> Result<(), String> {
        let before = self.queue.counts();
        self.now += Duration::from_secs(60);
        let links =
            self.workers.iter_mut().filter_map(|(id, worker)| Some((*id, worker.link.take()?.session)));
        for (worker, session) in links.collect::<Vec<_>>() {
            self.apply(Event::Detached { worker, session })?;
        }
        self.apply(Event::StoodStill)?;
        self.tick()?;
        let after = self.queue.counts();
        let is_there = |id| after.workers.iter().any(|worker| worker.id == id);
        let kept = before.workers.iter().all(|worker| worker.draining || is_there(worker.id));
        promise(kept, "nobody is lost for the scheduler's own standstill")
    }

    /// The scheduler dies and comes back with nothing but its journal: the operations that had not ended.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        self.incarnation += 1;
        self.queue = queue(self.incarnation, self.broken);
        self.now = Moment::ZERO;
        self.checks.clear();
        self.publications.clear();
        for worker in self.workers.values_mut() {
            worker.link = None;
        }
        self.clients.retain(|_, client| !client.ended);
        let requests = self.clients.values_mut().map(|client| {
            client.waiters = 0;
            client.request.clone()
        });
        for request in requests.collect::<Vec<_>>() {
            let was_running = self.chance.percent(50);
            self.apply(Event::Restored { request, was_running })?;
        }
        Ok(())
    }
}
