//! [`Drain`]: workers that operators want to take no new actions, now and when they come back.

use std::sync::Arc;

use super::pattern::matches;
use super::{Moment, Queue, WorkerId};

/// Patterns at a time, at most; an older one goes.
const DRAINS_MAX: usize = 1_000;

/// A pattern of names of workers that take no new actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) pattern: Arc<str>,
    pub(super) reason: Arc<str>,
    pub(super) since: Moment,
}

impl Queue {
    pub(super) fn drain(&mut self, pattern: Arc<str>, reason: Arc<str>) {
        self.drains.retain(|drain| drain.pattern != pattern);
        self.drains.push(Drain { pattern, reason, since: self.now });
        if self.drains.len() > DRAINS_MAX {
            self.drains.remove(0);
        }
        self.see_to_drains();
    }

    /// Takes back every drain whose pattern is `pattern`, or is meant by it.
    pub(super) fn undrain(&mut self, pattern: &str) {
        self.drains.retain(|drain| *drain.pattern != *pattern && !matches(pattern, &drain.pattern));
        self.see_to_drains();
    }

    /// Why a worker is to take no new actions, if it is.
    pub(super) fn drain_of(&self, id: WorkerId, name: &str) -> Option<Arc<str>> {
        let id = id.to_string();
        let meant = self.drains.iter().find(|drain| matches(&drain.pattern, name) || *drain.pattern == *id);
        meant.map(|drain| Arc::clone(&drain.reason))
    }

    /// Has every worker be drained or not as the patterns say.
    fn see_to_drains(&mut self) {
        let all: Vec<_> = self.workers.iter().map(|(id, worker)| (id, worker.offer.name.clone())).collect();
        for (id, name) in all {
            let drained = self.drain_of(id, &name);
            self.workers.change(id, |worker| worker.drained = drained);
            self.place_worker(id);
        }
    }
}
