//! Tries again: what failed by no fault of its own gets in line once more, each time after a longer wait.

use std::time::Duration;

use super::tasks::Phase;
use super::{Cause, Effect, Moment, Queue, Stage, TaskId};

/// How long an action waits at first before it is tried where it has failed; each further time twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// How long it waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Queue {
    /// Puts a checked action that has failed back in line: at once where it can be tried elsewhere, else after a
    /// while, lest all that failed together comes back together.
    pub(super) fn try_again(&mut self, id: TaskId, cause: Cause) {
        let wait = self.wait_of(id, cause);
        if wait.is_zero() {
            return self.enqueue(id);
        }
        let until = self.now + wait;
        self.resting.insert((until, id));
        let task = self.tasks.at_mut(id);
        task.phase = Phase::Resting(until);
        let stages = task.operations.iter().map(|operation| Effect::Stage(*operation, Stage::Queued));
        self.effects.extend(stages);
    }

    fn wait_of(&self, id: TaskId, cause: Cause) -> Duration {
        let task = self.tasks.at(id);
        let Some(spec) = &task.spec else { return Duration::ZERO };
        let is_first = task.failed_on.len() <= 1;
        // More memory is another attempt, not the same once more; and who goes is not asked again.
        if !cause.speaks_against_the_worker()
            || is_first && self.workers.has_another(&spec.needs, &task.failed_on)
        {
            return Duration::ZERO;
        }
        let times = u32::try_from(task.failed_on.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = (WAIT_FIRST * 2_u32.saturating_pow(times.min(16))).min(WAIT_MAX);
        let seed = self.incarnation ^ id.0.wrapping_mul(31).wrapping_add(times.into());
        // Between half of that and one and a half, as REAPI's clients do it. Not by chance: see the module's root.
        wait / 2 + wait * u32::from(mixed(seed).to_le_bytes()[0]) / 255
    }

    /// Gets actions in line again that have waited for long enough.
    pub(super) fn wake_the_rested(&mut self) {
        while let Some((until, id)) = self.resting.first().copied().filter(|(until, _)| *until <= self.now) {
            self.resting.remove(&(until, id));
            self.tasks.at_mut(id).phase = Phase::Checking;
            if !self.fold(id) {
                self.enqueue(id);
            }
        }
    }

    /// How long an action still waits before it is tried again.
    pub(super) fn rests_for(&self, until: Moment) -> Duration {
        until.saturating_sub(self.now)
    }
}

/// `SplitMix64`: numbers near each other become far apart.
pub(super) fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}
