//! [`Ready`]: the actions that wait for a worker, in the order in which they get one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Moment, Properties, TaskId};

/// Actions of one run that a worker passes over, at most, because another should try them.
const SKIPPED_MAX: usize = 64;

/// Priority, actions of the run at workers, the run's turn, the action, whose number tells its age:
/// the smaller is next.
type Standing = (i32, usize, u64, TaskId);

/// Names a set of requirements among the actions that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassId(u64);

/// Where an action stands in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) class: ClassId,
    pub(super) priority: i32,
    pub(super) run: Arc<str>,
}

/// The actions that wait, by requirements, priority, run and age.
///
/// Invariant: no class and no line in it is empty; a run is known exactly as long as it has
/// actions that wait or are with a worker.
#[derive(Default)]
pub(super) struct Ready {
    classes: BTreeMap<ClassId, Class>,
    ids: HashMap<Properties, ClassId>,
    runs: HashMap<Arc<str>, Run>,
    waiting: usize,
    classes_made: u64,
    turns: u64,
}

struct Class {
    requirements: Properties,
    since: Moment,
    lines: BTreeMap<i32, BTreeMap<Arc<str>, BTreeSet<TaskId>>>,
}

#[derive(Default)]
struct Run {
    waiting: usize,
    running: usize,
    /// When it last had its turn; larger is later.
    turn: u64,
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn classes_len(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn class(&self, requirements: &Properties) -> Option<ClassId> {
        self.ids.get(requirements).copied()
    }

    /// Every class with its requirements.
    pub(super) fn classes(&self) -> impl Iterator<Item = (ClassId, &Properties)> {
        self.classes.iter().map(|(id, class)| (*id, &class.requirements))
    }

    /// The requirements of a class, and the moment since which something waits in it.
    pub(super) fn class_at(&self, id: ClassId) -> Option<(&Properties, Moment)> {
        self.classes.get(&id).map(|class| (&class.requirements, class.since))
    }

    /// The actions of a class, in no order that matters.
    pub(super) fn tasks(&self, class: ClassId) -> Vec<TaskId> {
        let lines = self.classes.get(&class).into_iter().flat_map(|class| class.lines.values());
        lines.flat_map(BTreeMap::values).flatten().copied().collect()
    }

    /// Puts an action in line.
    pub(super) fn insert(
        &mut self,
        now: Moment,
        requirements: &Properties,
        (priority, run): (i32, Arc<str>),
        task: TaskId,
    ) -> Place {
        let class = self.class_made(now, requirements);
        let lines = &mut self.classes.get_mut(&class).expect("the class was just made").lines;
        let line = lines.entry(priority).or_default().entry(Arc::clone(&run)).or_default();
        assert!(line.insert(task), "an action stands in line once");
        self.runs.entry(Arc::clone(&run)).or_default().waiting += 1;
        self.waiting += 1;
        Place { class, priority, run }
    }

    fn class_made(&mut self, now: Moment, requirements: &Properties) -> ClassId {
        if let Some(&class) = self.ids.get(requirements) {
            return class;
        }
        self.classes_made += 1;
        let id = ClassId(self.classes_made);
        let class = Class { requirements: requirements.clone(), since: now, lines: BTreeMap::new() };
        self.classes.insert(id, class);
        self.ids.insert(requirements.clone(), id);
        id
    }

    /// Takes an action out of line.
    pub(super) fn remove(&mut self, place: &Place, task: TaskId) {
        let class = self.classes.get_mut(&place.class).expect("an action in line has a class");
        let lines = class.lines.get_mut(&place.priority).expect("an action in line has a priority");
        let line = lines.get_mut(&place.run).expect("an action in line has a run");
        assert!(line.remove(&task), "an action is where its place says");
        if line.is_empty() {
            lines.remove(&place.run);
        }
        if lines.is_empty() {
            class.lines.remove(&place.priority);
        }
        if class.lines.is_empty() {
            self.ids.remove(&class.requirements);
            self.classes.remove(&place.class);
        }
        self.waiting -= 1;
        self.change_run(&place.run, |run| run.waiting -= 1);
    }

    /// Notes that an action of a run is with a worker.
    pub(super) fn run_started(&mut self, run: &Arc<str>) {
        self.turns += 1;
        let turn = self.turns;
        let run = self.runs.entry(Arc::clone(run)).or_default();
        run.running += 1;
        run.turn = turn;
    }

    /// Notes that an action of a run is with a worker no more.
    pub(super) fn run_stopped(&mut self, run: &Arc<str>) {
        self.change_run(run, |run| run.running -= 1);
    }

    fn change_run(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Run)) {
        let run = self.runs.get_mut(name).expect("a run with actions is known");
        change(run);
        if run.waiting == 0 && run.running == 0 {
            self.runs.remove(name);
        }
    }

    /// The action whose turn it is, among those of `classes` that `accept` lets pass: the lowest
    /// priority number, in it the run with the fewest actions at workers, in it the oldest.
    pub(super) fn next(
        &self,
        classes: impl Iterator<Item = ClassId>,
        accept: impl Fn(TaskId) -> bool,
    ) -> Option<TaskId> {
        classes
            .filter_map(|class| self.next_in(self.classes.get(&class)?, &accept))
            .min()
            .map(|(.., task)| task)
    }

    fn next_in(&self, class: &Class, accept: &impl Fn(TaskId) -> bool) -> Option<Standing> {
        class.lines.iter().find_map(|(priority, runs)| {
            let heads = runs.iter().filter_map(|(name, line)| {
                let task = *line.iter().take(SKIPPED_MAX).find(|task| accept(**task))?;
                let run = &self.runs[name];
                Some((*priority, run.running, run.turn, task))
            });
            heads.min()
        })
    }

    /// How many actions are with workers, over all runs.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.runs.values().map(|run| run.running).sum()
    }
}
