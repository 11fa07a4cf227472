//! [`Ready`]: the actions that wait for a worker, in the order in which they get one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::shares::{Clock, Owner, ROOT, ShareId, Shares};
use super::{Moment, Needs, TaskId, Weights};

/// How much earlier in line an action stands for each priority it is more urgent: as much as if it had come that
/// much earlier. So urgent ones come first within a run, and yet whoever waits gets there.
const PRIORITY_WORTH: Duration = Duration::from_secs(1);

/// The most by which an action stands earlier in line as it is expected to take long.
const LENGTH_WORTH_MAX: Duration = Duration::from_secs(10 * 60);

/// Names a set of needs among the actions that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassId(u64);

/// When an action would have come, in milliseconds, were it like any other: the smaller is next in its run.
type Turn = i64;

/// Where an action stands in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) class: ClassId,
    turn: Turn,
}

/// What decides about an action's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) run: ShareId,
    pub(super) priority: i32,
    /// When it first got in line.
    pub(super) since: Moment,
    /// How long it is expected to run.
    pub(super) expected: Duration,
}

impl Standing {
    fn turn(&self) -> Turn {
        let millis = |time: Duration| Turn::try_from(time.as_millis()).unwrap_or(Turn::MAX / 4);
        millis(self.since) + millis(PRIORITY_WORTH) * Turn::from(self.priority)
            - millis(self.expected.min(LENGTH_WORTH_MAX))
    }
}

/// The actions that wait, by needs, share and turn.
///
/// Invariant: no class and no line in it is empty; `order` of a class names exactly the shares that have actions
/// waiting in it, by their clocks.
pub(super) struct Ready {
    classes: BTreeMap<ClassId, Class>,
    ids: HashMap<Needs, ClassId>,
    pub(super) shares: Shares,
    waiting: usize,
    classes_made: u64,
}

struct Class {
    needs: Needs,
    since: Moment,
    /// When the last action of it was given to a worker, or the first came.
    granted: Moment,
    waiting: usize,
    /// The children of a share that have something waiting here, the one that is behind first.
    order: BTreeMap<ShareId, BTreeSet<(Clock, ShareId)>>,
    /// The actions of each run.
    lines: BTreeMap<ShareId, BTreeSet<(Turn, TaskId)>>,
}

impl Ready {
    pub(super) fn new(weights: Weights) -> Self {
        Self {
            classes: BTreeMap::new(),
            ids: HashMap::new(),
            shares: Shares::new(weights),
            waiting: 0,
            classes_made: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn classes_len(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn class(&self, needs: &Needs) -> Option<ClassId> {
        self.ids.get(needs).copied()
    }

    /// Every class with its needs.
    pub(super) fn classes(&self) -> impl Iterator<Item = (ClassId, &Needs)> {
        self.classes.iter().map(|(id, class)| (*id, &class.needs))
    }

    /// The needs of a class, and the moment since which something waits in it.
    pub(super) fn class_at(&self, id: ClassId) -> Option<(&Needs, Moment)> {
        self.classes.get(&id).map(|class| (&class.needs, class.since))
    }

    /// When the last action of a class was given to a worker, or the first came.
    pub(super) fn last_granted(&self, id: ClassId) -> Option<Moment> {
        self.classes.get(&id).map(|class| class.granted)
    }

    /// Notes that an action of a class was given to a worker.
    pub(super) fn granted(&mut self, now: Moment, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.granted = now;
        }
    }

    /// How many actions wait in a class.
    pub(super) fn waiting_in(&self, id: ClassId) -> usize {
        self.classes.get(&id).map_or(0, |class| class.waiting)
    }

    /// How many runs have something waiting in a class.
    pub(super) fn runs_in(&self, id: ClassId) -> usize {
        self.classes.get(&id).map_or(0, |class| class.lines.len())
    }

    /// The actions of a class, in no order that matters.
    pub(super) fn tasks(&self, class: ClassId) -> impl Iterator<Item = TaskId> + '_ {
        let lines = self.classes.get(&class).into_iter().flat_map(|class| class.lines.values());
        lines.flatten().map(|(_, task)| *task)
    }

    /// How many of its run stand before an action, among those with the same needs; counts to `max`.
    pub(super) fn ahead(&self, place: &Place, run: ShareId, task: TaskId, max: usize) -> usize {
        let line = self.classes.get(&place.class).and_then(|class| class.lines.get(&run));
        line.map_or(0, |line| line.range(..(place.turn, task)).take(max).count())
    }

    /// The node of a run, for one more task of it.
    pub(super) fn enter(&mut self, now: Moment, owner: &Owner) -> ShareId {
        self.shares.enter(now, owner)
    }

    /// Puts an action in line.
    pub(super) fn insert(&mut self, now: Moment, needs: &Needs, standing: Standing, task: TaskId) -> Place {
        let id = self.class_made(now, needs);
        let class = self.classes.get_mut(&id).expect("the class was just made");
        let turn = standing.turn();
        let fresh = class.lines.entry(standing.run).or_default().insert((turn, task));
        assert!(fresh, "an action stands in line once");
        class.waiting += 1;
        self.waiting += 1;
        for node in self.shares.path(standing.run) {
            if self.shares.at(node).waiting == 0 {
                self.shares.wake(node);
            }
            let share = self.shares.at_mut(node);
            share.waiting += 1;
            let here = share.waiting_in.entry(id).or_default();
            *here += 1;
            if *here == 1 {
                class.order.entry(share.parent).or_default().insert((share.clock, node));
            }
        }
        Place { class: id, turn }
    }

    fn class_made(&mut self, now: Moment, needs: &Needs) -> ClassId {
        if let Some(&class) = self.ids.get(needs) {
            return class;
        }
        self.classes_made += 1;
        let id = ClassId(self.classes_made);
        let class = Class {
            needs: needs.clone(),
            since: now,
            granted: now,
            waiting: 0,
            order: BTreeMap::new(),
            lines: BTreeMap::new(),
        };
        self.classes.insert(id, class);
        self.ids.insert(needs.clone(), id);
        id
    }

    /// Takes an action out of line.
    pub(super) fn remove(&mut self, place: &Place, run: ShareId, task: TaskId) {
        let class = self.classes.get_mut(&place.class).expect("an action in line has a class");
        let line = class.lines.get_mut(&run).expect("an action in line has a run");
        assert!(line.remove(&(place.turn, task)), "an action is where its place says");
        if line.is_empty() {
            class.lines.remove(&run);
        }
        class.waiting -= 1;
        self.waiting -= 1;
        for node in self.shares.path(run) {
            let share = self.shares.at_mut(node);
            share.waiting -= 1;
            let here = share.waiting_in.get_mut(&place.class).expect("it waits in that class");
            *here -= 1;
            if *here == 0 {
                share.waiting_in.remove(&place.class);
                let siblings = class.order.get_mut(&share.parent).expect("its parent has children here");
                assert!(siblings.remove(&(share.clock, node)), "a share stands where its clock is");
                if siblings.is_empty() {
                    class.order.remove(&share.parent);
                }
            }
        }
        if class.waiting == 0 {
            self.ids.remove(&class.needs);
            self.classes.remove(&place.class);
        }
    }

    /// Notes that an action of a run is with a worker, and has the run pay for the time it is expected to take.
    pub(super) fn run_started(&mut self, run: ShareId, paid: Duration, priority: i32) {
        for node in self.shares.path(run) {
            self.shares.served(node);
            let clock = self.shares.charged(node, paid, priority);
            self.set_clock(node, clock);
            let share = self.shares.at_mut(node);
            share.running += 1;
            share.granted += 1;
        }
    }

    /// Has a run pay for time beyond what was expected.
    pub(super) fn run_goes_on(&mut self, run: ShareId, more: Duration, priority: i32) {
        for node in self.shares.path(run) {
            let clock = self.shares.charged_late(node, more, priority);
            self.set_clock(node, clock);
        }
    }

    /// Notes that an action of a run is with a worker no more, and gives back what it has paid too much.
    pub(super) fn run_stopped(&mut self, run: ShareId, unused: Duration, priority: i32) {
        for node in self.shares.path(run) {
            let clock = self.shares.refunded(node, unused, priority);
            self.set_clock(node, clock);
            self.shares.at_mut(node).running -= 1;
        }
    }

    fn set_clock(&mut self, node: ShareId, clock: Clock) {
        let share = self.shares.at_mut(node);
        let before = std::mem::replace(&mut share.clock, clock);
        if before == clock {
            return;
        }
        for class in share.waiting_in.keys() {
            let class = self.classes.get_mut(class).expect("something waits in that class");
            let siblings = class.order.get_mut(&share.parent).expect("its parent has children here");
            siblings.remove(&(before, node));
            siblings.insert((clock, node));
        }
    }

    /// The action whose turn it is among those of `classes`: that of the share that is furthest behind, chosen
    /// by `choose` from the line of its run.
    pub(super) fn next(
        &self,
        classes: &[ClassId],
        choose: &impl Fn(&mut dyn Iterator<Item = TaskId>) -> Option<TaskId>,
    ) -> Option<TaskId> {
        let classes: Vec<_> = classes.iter().filter_map(|id| self.classes.get(id)).collect();
        self.descend(ROOT, &classes, choose)
    }

    fn descend(
        &self,
        parent: ShareId,
        classes: &[&Class],
        choose: &impl Fn(&mut dyn Iterator<Item = TaskId>) -> Option<TaskId>,
    ) -> Option<TaskId> {
        let orders: Vec<_> = classes.iter().filter_map(|class| class.order.get(&parent)).collect();
        let mut children = merged(orders);
        children.find_map(|(_, child)| {
            if !self.shares.at(child).is_run {
                return self.descend(child, classes, choose);
            }
            let lines = classes.iter().filter_map(|class| class.lines.get(&child)).collect();
            choose(&mut merged(lines).map(|(_, task)| task))
        })
    }

    /// Whether the orders name exactly the shares that have something waiting, by their clocks.
    #[cfg(test)]
    pub(super) fn audit(&self) -> Result<(), String> {
        for (id, class) in &self.classes {
            let lines: usize = class.lines.values().map(BTreeSet::len).sum();
            if lines != class.waiting || lines == 0 {
                return Err(format!(
                    "{lines} actions stand in lines of {id:?} and {} are said to",
                    class.waiting
                ));
            }
            let mut waiting = self.shares.iter().filter(|(_, share)| share.waiting_in.contains_key(id));
            let stands = |node, share: &super::shares::Share| {
                class.order.get(&share.parent).is_some_and(|order| order.contains(&(share.clock, node)))
            };
            let count = waiting.by_ref().count();
            let named: usize = class.order.values().map(BTreeSet::len).sum();
            let mut again = self.shares.iter().filter(|(_, share)| share.waiting_in.contains_key(id));
            if count != named || !again.all(|(node, share)| stands(node, share)) {
                return Err(format!("the order of {id:?} is not by the clocks"));
            }
        }
        Ok(())
    }

    /// How many actions are with workers, over all runs.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.shares.iter().filter(|(_, share)| share.is_run).map(|(_, share)| share.running).sum()
    }
}

/// Members of any of the sets, in order, each once.
fn merged<T: Ord + Copy>(sets: Vec<&BTreeSet<T>>) -> impl Iterator<Item = T> + '_ {
    let mut last = None;
    std::iter::from_fn(move || {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        last = sets.iter().filter_map(|set| set.range((after, Bound::Unbounded)).next()).min().copied();
        last
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_merged_in_order() {
        let (one, two) = (BTreeSet::from([1, 4, 6]), BTreeSet::from([2, 4, 5]));
        assert_eq!(merged(vec![&one, &two]).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
        assert_eq!(merged::<u8>(Vec::new()).count(), 0);
    }

    #[test]
    fn who_waits_overtakes_who_is_more_urgent_or_longer_in_the_end() {
        let standing = |since, priority, expected| Standing {
            run: ROOT,
            priority,
            since: Duration::from_secs(since),
            expected: Duration::from_secs(expected),
        };
        let turn = |since, priority, expected| standing(since, priority, expected).turn();
        assert!(turn(0, -1, 0) < turn(0, 0, 0), "urgent first");
        assert!(turn(0, 0, 30) < turn(0, 0, 3), "long first");
        assert!(turn(0, 50, 0) < turn(51, 0, 0), "not for ever");
        assert!(turn(0, 0, 0) < turn(601, 0, 100_000), "not for ever");
    }
}
