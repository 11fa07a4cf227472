//! [`Workers`]: who is connected, who is expected back, and who is remembered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::demand::{Demand, Used};
use super::quarantine::Conduct;
use super::ready::ClassId;
use super::{Condition, LeaseId, Moment, Needs, Offer, Properties, SessionId, TaskId, WorkerId};

/// Folders of inputs that a worker is thought to have still, at most.
const WARM_MAX: usize = 64;

/// A worker that is connected, or whose connection ended a moment ago.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) offer: Offer,
    pub(super) presence: Presence,
    pub(super) since: Moment,
    /// It said that it takes no new actions.
    pub(super) draining: bool,
    /// An operator said so, and why.
    pub(super) drained: Option<Arc<str>>,
    /// How it behaves.
    pub(super) conduct: Conduct,
    /// How it says it is.
    pub(super) condition: Condition,
    /// Since when it says that it is not fit.
    pub(super) unfit_since: Option<Moment>,
    /// Kept free for actions of that class, which otherwise might wait for ever until enough is free at once.
    pub(super) reserved_for: Option<ClassId>,
    /// When it was kept free last.
    pub(super) reserved_last: Option<Moment>,
    /// What it runs. More than its slots only if it brought them along.
    pub(super) leases: BTreeMap<LeaseId, Held>,
    /// Invariant: the sum of the demands of `leases`.
    used: Used,
    /// Folders of inputs that it was given last, the newest last.
    warm: VecDeque<u64>,
    /// Under how many free slots it is filed in [`Workers::free`].
    filed: u32,
}

/// A lease at a worker.
#[derive(Debug)]
pub(super) struct Held {
    /// `None` for a run whose result is only compared.
    pub(super) task: Option<TaskId>,
    demand: Demand,
}

/// Whether there is a connection to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Connected { session: SessionId, heard: Moment },
    Absent { since: Moment },
}

impl Worker {
    /// Slots that could be filled now.
    pub(super) fn free(&self) -> u32 {
        if !self.is_open() || (self.conduct.is_on_probation() && !self.leases.is_empty()) {
            return 0;
        }
        self.offer.slots.saturating_sub(self.used.slots)
    }

    /// Whether an action could be given to it now.
    pub(super) fn has_room_for(&self, needs: &Needs) -> bool {
        self.free() > 0
            && self.offer.has_room(&needs.demand, &self.used)
            && self.offer.properties.satisfy(&needs.properties)
    }

    /// As [`Worker::has_room_for`], and nothing else has a better claim to it.
    pub(super) fn takes(&self, class: ClassId, needs: &Needs) -> bool {
        self.reserved_for.is_none_or(|other| other == class) && self.has_room_for(needs)
    }

    /// Whether it could be given an action like that now or once it has ended something.
    pub(super) fn could_take(&self, needs: &Needs) -> bool {
        self.is_open() && self.offer.can_run(needs)
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        match self.presence {
            Presence::Connected { session, .. } => Some(session),
            Presence::Absent { .. } => None,
        }
    }

    /// Whether it may be given actions once it has a free slot.
    pub(super) fn is_open(&self) -> bool {
        self.session().is_some() && !self.draining && self.drained.is_none() && !self.is_left_out()
    }

    /// Whether it is given nothing because of how it behaves, or says it is.
    pub(super) fn is_left_out(&self) -> bool {
        self.conduct.is_quarantined() || self.condition.unfit.is_some()
    }

    /// What its actions take up.
    pub(super) fn used(&self) -> &Used {
        &self.used
    }

    /// What they would take up without one of them.
    pub(super) fn used_without(&self, lease: LeaseId) -> Used {
        let mut used = self.used.clone();
        if let Some(held) = self.leases.get(&lease) {
            used.subtract(&held.demand);
        }
        used
    }

    pub(super) fn hold(&mut self, lease: LeaseId, task: Option<TaskId>, demand: Demand) {
        self.used.add(&demand);
        if let Some(before) = self.leases.insert(lease, Held { task, demand }) {
            self.used.subtract(&before.demand);
        }
    }

    pub(super) fn let_go(&mut self, lease: LeaseId) {
        if let Some(held) = self.leases.remove(&lease) {
            self.used.subtract(&held.demand);
        }
    }

    /// Notes which folders of inputs it has from now on.
    pub(super) fn warm_up(&mut self, folders: &[(u64, u64)]) {
        for (folder, _) in folders {
            self.warm.retain(|known| known != folder);
            self.warm.push_back(*folder);
        }
        while self.warm.len() > WARM_MAX {
            self.warm.pop_front();
        }
    }

    /// Bytes of `folders` that it is thought to have.
    pub(super) fn warmth(&self, folders: &[(u64, u64)]) -> u64 {
        folders.iter().filter(|(folder, _)| self.warm.contains(folder)).map(|(_, bytes)| *bytes).sum()
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
    /// Workers that left with something to be said about them.
    remembered: BTreeMap<WorkerId, Remembered>,
}

/// What is to be said about a worker that has left.
#[derive(Debug)]
struct Remembered {
    since: Moment,
    conduct: Conduct,
    /// A lease that it had, and of which action.
    lost: Option<(LeaseId, TaskId)>,
}

impl Workers {
    /// What a worker had when it was lost, if it was; it may bring that along.
    pub(super) fn lost_with(&self, id: WorkerId) -> Option<(LeaseId, TaskId)> {
        self.remembered.get(&id)?.lost
    }

    /// Forgets how workers have behaved that were lost at `since` or earlier.
    pub(super) fn forget_conduct(&mut self, since: Moment) {
        self.remembered.retain(|_, worker| worker.since > since);
    }

    fn remember(&mut self, now: Moment, id: WorkerId, worker: &mut Worker, max: usize) {
        let lost = worker.leases.iter().find_map(|(lease, held)| Some((*lease, held.task?)));
        if lost.is_none() && worker.conduct.is_spotless() {
            return;
        }
        let conduct = std::mem::take(&mut worker.conduct);
        self.remembered.insert(id, Remembered { since: now, conduct, lost });
        if self.remembered.len() > max {
            let oldest = self.remembered.iter().min_by_key(|(_, worker)| worker.since).map(|(id, _)| *id);
            oldest.map(|id| self.remembered.remove(&id));
        }
    }

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
        let remembered = self.remembered.remove(&id);
        let worker = self.by_id.entry(id).or_insert_with(|| Worker {
            offer: offer.clone(),
            presence,
            since: now,
            draining: false,
            drained: None,
            conduct: remembered.map(|worker| worker.conduct).unwrap_or_default(),
            condition: Condition::default(),
            unfit_since: None,
            reserved_for: None,
            reserved_last: None,
            leases: BTreeMap::new(),
            used: Used::default(),
            warm: VecDeque::new(),
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

    /// Strikes a worker off, but remembers what it offered and how it behaved.
    pub(super) fn lose(&mut self, now: Moment, id: WorkerId, departed_max: usize) -> Option<Worker> {
        let mut worker = self.by_id.remove(&id)?;
        self.remember(now, id, &mut worker, departed_max);
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
    pub(super) fn offers(&self) -> impl Iterator<Item = &Offer> + Clone {
        let present = self.by_id.values().map(|worker| &worker.offer);
        present.chain(self.departed.iter().map(|(_, offer)| offer))
    }

    /// The worker that left last of those that could have run an action, and when.
    pub(super) fn last_departed(&self, needs: &Needs) -> Option<(Moment, &Offer)> {
        let fits = self.departed.iter().rev().find(|(_, offer)| offer.can_run(needs));
        fits.map(|(at, offer)| (*at, offer))
    }

    /// Properties that are needed and that no worker offers which is here.
    pub(super) fn missing_everywhere(&self, needs: &Needs) -> Properties {
        let offers = || self.by_id.values().map(|worker| &worker.offer.properties);
        let pairs = needs.properties.pairs().iter();
        let missing =
            pairs.filter(|pair| !offers().any(|offered| offered.pairs().binary_search(pair).is_ok()));
        Properties::new(missing.cloned().collect())
    }

    /// Whether another than those in `tried` could be given an action with these needs.
    pub(super) fn has_another(&self, needs: &Needs, tried: &[WorkerId]) -> bool {
        self.by_id.iter().any(|(id, worker)| !tried.contains(id) && worker.could_take(needs))
    }
}
