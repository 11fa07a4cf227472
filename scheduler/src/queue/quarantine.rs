//! [`Conduct`]: workers that fail what others do well are left out for a while, and then tried again.

use std::sync::Arc;
use std::time::Duration;

use super::{Moment, Queue, TaskId, WorkerId};

/// Failures in a row, of different actions, after which a worker is left out.
const FAILURES_MAX: usize = 3;

/// How long it is left out the first time; each further time twice as long.
const LEFT_OUT_FIRST: Duration = Duration::from_secs(30);
/// How long it is left out at most.
pub(super) const LEFT_OUT_MAX: Duration = Duration::from_secs(15 * 60);

/// Results that others did not get, after which a worker is left out; and how often that counts as having been left
/// out before.
const SUSPICIONS_MAX: usize = 2;
const LEFT_OUT_LONG: u32 = 4;

/// Actions that others ended sooner though they began later, after which a worker is left out; and actions that it
/// has to end well without that for them to be forgotten.
const OVERTAKEN_MAX: usize = 3;
const OVERTAKEN_FORGOTTEN: usize = 30;

/// How a worker has behaved.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// The actions that it has failed since it last ended one well.
    failed: Vec<TaskId>,
    /// How many results of its, of different actions, others did not get.
    suspicions: usize,
    /// How many actions others ended sooner though they began later, and how many it has ended well since.
    overtaken: usize,
    well_since: usize,
    /// How often it was left out since then.
    times: u32,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Trusted,
    Quarantined {
        until: Moment,
        reason: Arc<str>,
    },
    /// Gets one action at a time until it ends one well.
    Probation {
        reason: Arc<str>,
    },
}

impl Conduct {
    pub(super) fn is_quarantined(&self) -> bool {
        matches!(self.state, State::Quarantined { .. })
    }

    /// Whether there is nothing to be remembered.
    pub(super) fn is_spotless(&self) -> bool {
        let counts = [self.failed.len(), self.suspicions, self.overtaken];
        matches!(self.state, State::Trusted) && counts == [0; 3]
    }

    pub(super) fn is_on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    /// Why it is left out or tried again, if it is; and until when it is left out.
    pub(super) fn blemish(&self) -> Option<(Arc<str>, Option<Moment>)> {
        match &self.state {
            State::Trusted => None,
            State::Quarantined { until, reason } => Some((Arc::clone(reason), Some(*until))),
            State::Probation { reason } => Some((Arc::clone(reason), None)),
        }
    }

    /// What running its actions elsewhere has shown, if that speaks against it.
    pub(super) fn suspicion(&self) -> Option<String> {
        (self.suspicions > 0)
            .then(|| format!("its results of {} actions are none that others get", self.suspicions))
    }

    fn failed(&mut self, now: Moment, task: TaskId, cause: &str) -> bool {
        if !self.failed.contains(&task) {
            self.failed.push(task);
        }
        if self.failed.len() < FAILURES_MAX && !self.is_on_probation() {
            return false;
        }
        let reason = format!("failed {} actions in a row, the last because {cause}", self.failed.len());
        self.failed.truncate(FAILURES_MAX);
        self.leave_out(now, reason.into());
        true
    }

    /// It could not run what it was tried with, which nobody waits for.
    fn failed_trial(&mut self, now: Moment, cause: &str) -> bool {
        let is_trial = self.is_on_probation();
        if is_trial {
            self.leave_out(now, format!("failed when it was tried again, because {cause}").into());
        }
        is_trial
    }

    fn leave_out(&mut self, now: Moment, reason: Arc<str>) {
        let wait = (LEFT_OUT_FIRST * 2_u32.saturating_pow(self.times)).min(LEFT_OUT_MAX);
        self.times = (self.times + 1).min(16);
        self.state = State::Quarantined { until: now + wait, reason };
    }

    /// Its result of an action is one that others did not get.
    fn suspected(&mut self, now: Moment) -> bool {
        self.suspicions += 1;
        let left_out = self.suspicions.is_multiple_of(SUSPICIONS_MAX);
        if left_out {
            // It ends actions well, so it would be trusted again at once.
            self.times = self.times.max(LEFT_OUT_LONG);
            let reason = format!("its results of {} actions are none that others get", self.suspicions);
            self.leave_out(now, reason.into());
        }
        left_out
    }

    /// Another has ended an action of its sooner, and began later.
    fn overtaken(&mut self, now: Moment) -> bool {
        self.overtaken += 1;
        self.well_since = 0;
        let left_out = self.overtaken >= OVERTAKEN_MAX;
        if left_out {
            let reason =
                format!("{} of its actions were ended sooner by others that began later", self.overtaken);
            self.overtaken = 0;
            self.leave_out(now, reason.into());
        }
        left_out
    }

    fn ended_well(&mut self) {
        // What it had before it was left out says nothing new.
        if self.is_quarantined() {
            return;
        }
        let well_since = self.well_since + 1;
        let overtaken = if well_since < OVERTAKEN_FORGOTTEN { self.overtaken } else { 0 };
        *self = Self { suspicions: self.suspicions, overtaken, well_since, ..Self::default() };
    }

    fn let_out(&mut self, now: Moment, is_needed: bool) -> bool {
        let State::Quarantined { until, reason } = &self.state else { return false };
        if *until > now && !is_needed {
            return false;
        }
        self.state = State::Probation { reason: Arc::clone(reason) };
        true
    }
}

impl Queue {
    /// Notes that a worker could not run an action for no fault of the action. The only worker that is left is
    /// not left out: then nobody can say whose fault it is.
    pub(super) fn blame(&mut self, worker: WorkerId, task: TaskId, cause: &str) {
        self.mark_down(worker, |conduct, now| conduct.failed(now, task, cause));
    }

    /// Notes that a worker could not run what is only compared. That counts if it is tried again: else it may be any
    /// number of failures of one action.
    pub(super) fn blame_trial(&mut self, worker: WorkerId, cause: &str) {
        self.mark_down(worker, |conduct, now| conduct.failed_trial(now, cause));
    }

    /// Notes that a worker's result of an action is one that two others did not get.
    pub(super) fn distrust(&mut self, worker: WorkerId) {
        self.mark_down(worker, Conduct::suspected);
    }

    /// Notes that another worker has ended an action of this one's sooner, though it began later: a slow disk, or a
    /// machine that does other things.
    pub(super) fn was_overtaken(&mut self, worker: WorkerId) {
        self.mark_down(worker, Conduct::overtaken);
    }

    /// Has a worker be left out if `mark` says so, and there are others.
    fn mark_down(&mut self, worker: WorkerId, mark: impl FnOnce(&mut Conduct, Moment) -> bool) {
        let now = self.now;
        if !self.workers.iter().any(|(id, other)| id != worker && other.is_open()) {
            return;
        }
        let mut left_out = false;
        self.workers.change(worker, |worker| left_out = mark(&mut worker.conduct, now));
        self.tally.quarantines += u64::from(left_out);
    }

    /// Notes that a worker has ended an action well.
    pub(super) fn praise(&mut self, worker: WorkerId) {
        self.workers.change(worker, |worker| worker.conduct.ended_well());
    }

    /// Tries workers again that were left out for long enough, or without whom something can't be run.
    pub(super) fn test_again(&mut self) {
        let now = self.now;
        let left_out = self.workers.iter().filter(|(_, worker)| worker.conduct.is_quarantined());
        for id in left_out.map(|(id, _)| id).collect::<Vec<_>>() {
            let is_needed = self.is_needed(id);
            let mut is_out = false;
            self.workers.change(id, |worker| is_out = worker.conduct.let_out(now, is_needed));
            if is_out {
                self.place_worker(id);
            }
        }
    }

    /// Whether something waits that this worker can run, and none that may be given it.
    fn is_needed(&self, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let mut wanting = self.ready.classes().filter(|(_, needs)| worker.offer.can_run(needs));
        wanting.any(|(_, needs)| !self.workers.has_another(needs, &[id]))
    }
}
