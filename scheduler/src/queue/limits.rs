//! [`Limits`]: how much, how many and how long, each with a name.

use std::time::Duration;

use super::Weights;

/// The bounds of the queue.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Operations that have not ended, at most.
    pub operations_max: usize,
    /// Actions that wait for a worker, at most.
    pub queued_max: usize,
    /// Different sets of requirements among the actions that wait, at most.
    pub classes_max: usize,
    /// Workers, connected or expected back within [`Limits::reconnect_grace`], at most.
    pub workers_max: usize,
    /// Workers that are gone but remembered for [`Limits::return_grace`], at most.
    pub departed_max: usize,
    /// Ended operations that can still be asked for, at most.
    pub finished_max: usize,
    /// Bytes of the responses of ended operations that can still be asked for, at most.
    pub finished_bytes_max: usize,
    /// How long an ended operation can be asked for.
    pub finished_kept: Duration,
    /// How often an action is tried if workers fail it.
    pub attempts_max: usize,
    /// How long workers have to come (back) after the scheduler has started, before an action
    /// that nobody offers to run is refused. No less than it may take them.
    pub start_grace: Duration,
    /// How long an action waits at least where there is no worker at all.
    pub first_grace: Duration,
    /// How long what a lost worker offered still counts as offered.
    pub return_grace: Duration,
    /// How long a worker whose connection has ended keeps its leases.
    pub reconnect_grace: Duration,
    /// How long workers have, after the scheduler has come back, to bring along what they ran for it. No less than
    /// it may take them.
    pub restored_grace: Duration,
    /// How long a worker may say nothing; three times the heartbeat interval.
    pub silence_max: Duration,
    /// How long an operation goes on that nobody waits for.
    pub unwatched_grace: Duration,
    /// How much longer than its timeout a command may seem to run, before its worker is held to
    /// have hung.
    pub overrun_grace: Duration,
    /// How long a worker that is not fit may have actions whose commands do not run: it may hang with its disk.
    pub unfit_grace: Duration,
    /// How long an action waits that takes more than one slot before a worker is kept free for it.
    pub reserve_after: Duration,
    /// How long the first in line of a run can be overtaken by those whose inputs a worker has.
    pub overtaken_max: Duration,
    /// How long an action runs at least before a second worker is given it too, should it take much longer than
    /// others of its kind; `None` for never.
    pub hedge_after: Option<Duration>,
    /// How many of a million results of actions are compared with those of another run.
    pub recheck_per_million: u32,
    /// Second runs of actions at a time, at most.
    pub spare_max: usize,
    /// How large the shares are, where they are not equal.
    pub weights: Weights,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations_max: 1_000_000,
            queued_max: 1_000_000,
            classes_max: 1_024,
            workers_max: 4_096,
            departed_max: 1_024,
            finished_max: 10_000,
            finished_bytes_max: 64 << 20,
            finished_kept: Duration::from_secs(5 * 60),
            attempts_max: 4,
            start_grace: Duration::from_secs(30),
            first_grace: Duration::from_secs(10),
            return_grace: Duration::from_secs(60),
            reconnect_grace: Duration::from_secs(5),
            restored_grace: Duration::from_secs(30),
            silence_max: Duration::from_secs(15),
            unwatched_grace: Duration::from_secs(2 * 60),
            overrun_grace: Duration::from_secs(60),
            unfit_grace: Duration::from_secs(5 * 60),
            reserve_after: Duration::from_secs(10),
            overtaken_max: Duration::from_secs(10),
            hedge_after: Some(Duration::from_secs(30)),
            recheck_per_million: 0,
            spare_max: 256,
            weights: Weights::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_wait_as_long_as_they_may_are_back_in_time() {
        let limits = Limits::default();
        let margin = Duration::from_secs(3);
        let longest = castwork_worker::RETURN_WAIT_MAX + margin;
        assert!(limits.start_grace >= longest && limits.restored_grace >= longest);
    }
}
