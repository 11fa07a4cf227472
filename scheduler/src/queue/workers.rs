//! [`Workers`]: who is connected, who is expected back, and who is remembered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{LeaseId, Moment, Offer, Properties, SessionId, TaskId, WorkerId};

/// A worker that is connected, or whose connection ended a moment ago.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) offer: Offer,
    pub(super) presence: Presence,
    pub(super) draining: bool,
    /// What it runs. More than its slots only if it brought them along.
    pub(super) leases: BTreeMap<LeaseId, TaskId>,
    /// Under how many free slots it is filed in [`Workers::free`].
    filed: u32,
}

/// Whether there is a connection to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Connected { session: SessionId, heard: Moment },
    Absent { since: Moment },
}

impl Worker {
    /// Actions it could be given now.
    pub(super) fn free(&self) -> u32 {
        match self.presence {
            Presence::Connected { .. } if !self.draining => {
                self.offer.slots.saturating_sub(u32::try_from(self.leases.len()).unwrap_or(u32::MAX))
            }
            _ => 0,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        match self.presence {
            Presence::Connected { session, .. } => Some(session),
            Presence::Absent { .. } => None,
        }
    }

    /// Whether it may be given actions once it has a free slot.
    pub(super) fn is_open(&self) -> bool {
        self.session().is_some() && !self.draining
    }
}

/// The workers.
///
/// Invariant: `free` holds exactly the workers with free slots, the most first.
#[derive(Default)]
pub(super) struct Workers {
    by_id: BTreeMap<WorkerId, Worker>,
    free: BTreeSet<(Reverse<u32>, WorkerId)>,
    departed: VecDeque<(Moment, Offer)>,
}

impl Workers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.by_id.iter().map(|(id, worker)| (*id, worker))
    }

    /// Notes a connection, which may be the first. What the worker runs stays as it was.
    pub(super) fn attach(&mut self, now: Moment, id: WorkerId, session: SessionId, offer: Offer) {
        let presence = Presence::Connected { session, heard: now };
        let worker = self.by_id.entry(id).or_insert_with(|| Worker {
            offer: offer.clone(),
            presence,
            draining: false,
            leases: BTreeMap::new(),
            filed: 0,
        });
        worker.offer = offer;
        worker.presence = presence;
        worker.draining = false;
        self.file(id);
    }

    /// Changes a worker that is there.
    pub(super) fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        if let Some(worker) = self.by_id.get_mut(&id) {
            change(worker);
            self.file(id);
        }
    }

    fn file(&mut self, id: WorkerId) {
        let worker = self.by_id.get_mut(&id).expect("the worker was found a moment ago");
        let free = worker.free();
        if free == worker.filed {
            return;
        }
        self.free.remove(&(Reverse(worker.filed), id));
        if free > 0 {
            self.free.insert((Reverse(free), id));
        }
        worker.filed = free;
    }

    /// Strikes a worker off, but remembers what it offered.
    pub(super) fn lose(&mut self, now: Moment, id: WorkerId, departed_max: usize) -> Option<Worker> {
        let worker = self.by_id.remove(&id)?;
        self.free.remove(&(Reverse(worker.filed), id));
        self.departed.push_back((now, worker.offer.clone()));
        if self.departed.len() > departed_max {
            self.departed.pop_front();
        }
        Some(worker)
    }

    /// Forgets what workers offered that were lost at `since` or earlier.
    pub(super) fn forget_departed(&mut self, since: Moment) {
        while self.departed.front().is_some_and(|(at, _)| *at <= since) {
            self.departed.pop_front();
        }
    }

    /// Workers with free slots, the most first.
    pub(super) fn free(&self) -> impl Iterator<Item = WorkerId> {
        self.free.iter().map(|(_, id)| *id)
    }

    /// What is offered, and what was until a while ago.
    pub(super) fn offers(&self) -> impl Iterator<Item = &Offer> {
        let present = self.by_id.values().map(|worker| &worker.offer);
        present.chain(self.departed.iter().map(|(_, offer)| offer))
    }

    /// Whether another than those in `tried` could be given an action with these requirements.
    pub(super) fn has_another(&self, required: &Properties, tried: &[WorkerId]) -> bool {
        self.by_id.iter().any(|(id, worker)| {
            worker.is_open() && !tried.contains(id) && worker.offer.properties.satisfy(required)
        })
    }
}
