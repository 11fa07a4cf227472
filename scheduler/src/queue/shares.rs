//! [`Shares`]: who has had how much of the farm, from instances down to runs.
//!
//! A tree: instances, in each its principals, in each its runs. Every node has a clock of its own that goes on by
//! what the node was given, divided by its weight; next is always the child whose clock is furthest behind
//! (start-time fair queueing). Who comes anew starts where its siblings are, so that having been away is neither
//! a merit nor a debt, and who can't wait for the others to catch up can't exist: each grant moves a clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::ready::ClassId;
use super::{Moment, Weights};

/// How far a clock may go ahead of its siblings by actions that take longer than was expected: a run whose
/// actions take hours has to let others go first for a while, but not for hours.
const LEAD_MAX: Clock = scaled(Duration::from_secs(10 * 60));

/// A priority of this many less doubles the weight.
const PRIORITY_DOUBLES: i32 = 100;

/// Microseconds of slots, times 2^20 so that large weights still move a clock.
pub(super) type Clock = u128;

const fn scaled(time: Duration) -> Clock {
    time.as_micros() << 20
}

/// Names a node of the tree; a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ShareId(u64);

/// The node above all instances.
pub(super) const ROOT: ShareId = ShareId(0);

/// Whose an action is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) instance: Arc<str>,
    pub(super) principal: Arc<str>,
    pub(super) run: Arc<str>,
}

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) name: Arc<str>,
    pub(super) parent: ShareId,
    /// Whether it is a run, which has actions and no children.
    pub(super) is_run: bool,
    /// In hundredths.
    weight: u32,
    pub(super) clock: Clock,
    /// Where children begin: the clock of the one that was given something last.
    floor: Clock,
    /// Tasks, or children; it is forgotten with the last.
    references: usize,
    pub(super) waiting: usize,
    pub(super) running: usize,
    /// Actions that were given to workers.
    pub(super) granted: u64,
    pub(super) since: Moment,
    /// In which classes how many actions of it wait.
    pub(super) waiting_in: BTreeMap<ClassId, usize>,
}

/// The tree.
///
/// Invariant: each node is there exactly as long as a task or a node refers to it.
pub(super) struct Shares {
    by_id: HashMap<ShareId, Share>,
    by_name: HashMap<(ShareId, Arc<str>), ShareId>,
    weights: Weights,
    made: u64,
}

impl Shares {
    pub(super) fn new(weights: Weights) -> Self {
        let mut shares = Self { by_id: HashMap::new(), by_name: HashMap::new(), weights, made: 0 };
        shares.by_id.insert(ROOT, Share::new("".into(), ROOT, 100, Moment::ZERO, 0));
        shares
    }

    pub(super) fn at(&self, id: ShareId) -> &Share {
        &self.by_id[&id]
    }

    pub(super) fn at_mut(&mut self, id: ShareId) -> &mut Share {
        self.by_id.get_mut(&id).expect("a share that is referred to is there")
    }

    /// Every node but the root, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ShareId, &Share)> {
        let mut all: Vec<_> = self.by_id.iter().filter(|(id, _)| **id != ROOT).collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(id, share)| (*id, share))
    }

    /// The node of a run, for one more task of it.
    pub(super) fn enter(&mut self, now: Moment, owner: &Owner) -> ShareId {
        let instance_weight = self.weights.of_instance(&owner.instance);
        let instance = self.child(now, ROOT, &owner.instance, instance_weight);
        let principal_weight = self.weights.of_principal(&owner.principal);
        let principal = self.child(now, instance, &owner.principal, principal_weight);
        let run = self.child(now, principal, &owner.run, 100);
        let share = self.at_mut(run);
        share.is_run = true;
        share.references += 1;
        run
    }

    fn child(&mut self, now: Moment, parent: ShareId, name: &Arc<str>, weight: u32) -> ShareId {
        if let Some(id) = self.by_name.get(&(parent, Arc::clone(name))) {
            return *id;
        }
        self.made += 1;
        let id = ShareId(self.made);
        let above = self.at_mut(parent);
        above.references += 1;
        let start = above.floor;
        self.by_id.insert(id, Share::new(Arc::clone(name), parent, weight, now, start));
        self.by_name.insert((parent, Arc::clone(name)), id);
        id
    }

    /// Forgets a task of a run, and the run with its last.
    pub(super) fn leave(&mut self, id: ShareId) {
        let share = self.at_mut(id);
        share.references -= 1;
        if share.references > 0 || id == ROOT {
            return;
        }
        let (parent, name) = (share.parent, Arc::clone(&share.name));
        self.by_id.remove(&id);
        self.by_name.remove(&(parent, name));
        self.leave(parent);
    }

    /// Whose the tasks of a run are.
    pub(super) fn owner(&self, run: ShareId) -> Owner {
        let run = self.at(run);
        let principal = self.at(run.parent);
        let instance = self.at(principal.parent);
        Owner {
            instance: Arc::clone(&instance.name),
            principal: Arc::clone(&principal.name),
            run: Arc::clone(&run.name),
        }
    }

    /// The nodes from a run up to its instance.
    pub(super) fn path(&self, run: ShareId) -> [ShareId; 3] {
        let principal = self.at(run).parent;
        [run, principal, self.at(principal).parent]
    }

    /// Where the clock of a node goes that has nothing waiting and gets something: to its siblings, if they
    /// are further.
    pub(super) fn wake(&mut self, id: ShareId) {
        let floor = self.at(self.at(id).parent).floor;
        let share = self.at_mut(id);
        share.clock = share.clock.max(floor);
    }

    /// What the clock of a node will be when it has been given `time` of a slot. Priority counts between the
    /// runs of a principal, so that nobody outdoes others by claiming to be urgent.
    pub(super) fn charged(&self, id: ShareId, time: Duration, priority: i32) -> Clock {
        let share = self.at(id);
        share.clock + share.price(time, priority)
    }

    /// The same for time that was not foreseen.
    pub(super) fn charged_late(&self, id: ShareId, time: Duration, priority: i32) -> Clock {
        let floor = self.at(self.at(id).parent).floor;
        self.charged(id, time, priority).min((floor + LEAD_MAX).max(self.at(id).clock))
    }

    /// What the clock of a node will be when time is given back that was not needed.
    pub(super) fn refunded(&self, id: ShareId, time: Duration, priority: i32) -> Clock {
        let share = self.at(id);
        let floor = self.at(share.parent).floor;
        share.clock.saturating_sub(share.price(time, priority)).max(floor.min(share.clock))
    }

    /// Notes that a node was next.
    pub(super) fn served(&mut self, id: ShareId) {
        let (parent, clock) = (self.at(id).parent, self.at(id).clock);
        let above = self.at_mut(parent);
        above.floor = above.floor.max(clock);
    }
}

impl Share {
    fn new(name: Arc<str>, parent: ShareId, weight: u32, since: Moment, clock: Clock) -> Self {
        Self {
            name,
            parent,
            is_run: false,
            weight,
            clock,
            floor: 0,
            references: 0,
            waiting: 0,
            running: 0,
            granted: 0,
            since,
            waiting_in: BTreeMap::new(),
        }
    }

    /// At least 1, so that every grant moves the clock.
    fn price(&self, time: Duration, priority: i32) -> Clock {
        let priced = scaled(time) * 100 / Clock::from(self.weight.max(1));
        if self.is_run { by_priority(priced, priority) } else { priced }.max(1)
    }
}

/// Doubles for every [`PRIORITY_DOUBLES`] that a priority is larger, evenly between.
fn by_priority(price: Clock, priority: i32) -> Clock {
    let (doublings, rest) =
        (priority.div_euclid(PRIORITY_DOUBLES), priority.rem_euclid(PRIORITY_DOUBLES).unsigned_abs());
    let price = price + price * Clock::from(rest) / Clock::from(PRIORITY_DOUBLES.unsigned_abs());
    let steps = doublings.unsigned_abs().min(20);
    if doublings < 0 { price >> steps } else { price << steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_of_priority_is_a_factor_of_two_and_what_is_between_is_even() {
        let price = 1 << 30;
        assert_eq!(by_priority(price, 0), price);
        assert_eq!(by_priority(price, 100), 2 * price);
        assert_eq!(by_priority(price, 50), price + price / 2);
        assert_eq!(by_priority(price, -200), price / 4);
        assert!(by_priority(price, -1) < price && by_priority(price, 1) > price);
    }

    #[test]
    fn a_share_is_forgotten_with_its_last_task() {
        let mut shares = Shares::new(Weights::default());
        let owner = Owner { instance: "i".into(), principal: "p".into(), run: "r".into() };
        let run = shares.enter(Moment::ZERO, &owner);
        assert_eq!(shares.enter(Moment::ZERO, &owner), run);
        assert_eq!((shares.owner(run), shares.iter().count()), (owner, 3));
        shares.leave(run);
        shares.leave(run);
        assert_eq!(shares.iter().count(), 0);
    }
}
