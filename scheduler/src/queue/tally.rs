//! [`Tally`]: what the queue has done since it began, for metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Upper bounds of the buckets of a histogram, in milliseconds.
const BOUNDS: [u64; 14] =
    [1, 5, 20, 50, 100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000, 300_000, 1_800_000];

/// Why an action had to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The worker fell silent and did not come back in time.
    WorkerLost,
    /// The worker came back without it.
    WorkerForgot,
    /// The worker said that it could not.
    WorkerFailed,
    /// What the worker reported was not so.
    ResultRefused,
    /// The worker did not end it when its time was up.
    Overrun,
    /// It took more memory than there was for it.
    OutOfMemory,
    /// The scheduler's own store failed when the result was to be kept.
    StoreFailed,
    /// The worker had said meanwhile that it takes nothing new.
    WorkerDrains,
}

impl Cause {
    /// Whether the action had better run elsewhere, and has lost one of its attempts. There are only so many of the
    /// others: more memory is tried until there is no more, and a worker that goes is given nothing.
    pub(super) fn speaks_against_the_worker(self) -> bool {
        !matches!(self, Self::OutOfMemory | Self::WorkerDrains)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkerLost => "worker_lost",
            Self::WorkerForgot => "worker_forgot",
            Self::WorkerFailed => "worker_failed",
            Self::ResultRefused => "result_refused",
            Self::Overrun => "overrun",
            Self::OutOfMemory => "out_of_memory",
            Self::StoreFailed => "store_failed",
            Self::WorkerDrains => "worker_drains",
        })
    }
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    pub(super) fn add(&mut self, time: Duration) {
        let at = BOUNDS.partition_point(|bound| u128::from(*bound) < time.as_millis());
        if let Some(bucket) = self.counts.get_mut(at) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += time;
    }

    /// Each bound in milliseconds, and how many took no longer than that.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        BOUNDS.iter().zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }

    /// How many there were, and how long they took together.
    pub fn total(&self) -> (u64, Duration) {
        (self.count, self.sum)
    }
}

/// What the queue has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Leases that were granted.
    pub granted: u64,
    /// Of these, to a worker that was thought to have some of the inputs.
    pub granted_warm: u64,
    /// Requests that shared an action with others.
    pub shared: u64,
    /// Leases of an earlier life of the scheduler that went on.
    pub adopted: u64,
    /// How often a worker was left out for a while.
    pub quarantines: u64,
    /// Leases of actions that took longer than expected, beside the first.
    pub hedges: u64,
    /// Of these, how many were first.
    pub hedges_first: u64,
    /// Results that were compared with those of another run.
    pub rechecks: super::RecheckTally,
    /// Actions that were tried again, by cause.
    pub retries: BTreeMap<Cause, u64>,
    /// From getting in line to being granted.
    pub waited: Histogram,
    /// From being granted to the outcome.
    pub ran: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 5_000_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative[..2], [(1, 2), (5, 3)]);
        assert_eq!(cumulative.last(), Some(&(1_800_000, 3)));
        assert_eq!(histogram.total(), (4, Duration::from_millis(5_000_003)));
    }
}
