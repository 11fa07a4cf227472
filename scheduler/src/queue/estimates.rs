//! [`Estimates`]: how long actions of a kind took, and how much memory, the last times.

use std::collections::HashMap;
use std::time::Duration;

/// Kinds that are remembered, at most twice as many: a generation that is full becomes the older one, and what
/// is not asked for while it is the older one is forgotten with it.
const GENERATION_MAX: usize = 100_000;

/// What an action is taken to be like of which nothing is known.
pub(super) const DURATION_UNKNOWN: Duration = Duration::from_secs(1);

/// Bytes below which memory is not worth a thought.
const MEMORY_MIN: u64 = 256 << 20;

/// What a kind of action is expected to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Mean of the last runs, the later the more.
    pub(super) duration: Duration,
    /// The most that any run took lately.
    pub(super) memory_bytes: u64,
}

/// Estimates by kind, bounded.
#[derive(Default)]
pub(super) struct Estimates {
    young: HashMap<u64, Estimate>,
    old: HashMap<u64, Estimate>,
}

impl Estimates {
    pub(super) fn of(&mut self, kind: u64) -> Option<Estimate> {
        if let Some(estimate) = self.young.get(&kind) {
            return Some(*estimate);
        }
        let estimate = self.old.remove(&kind)?;
        self.keep(kind, estimate);
        Some(estimate)
    }

    /// Takes in how long a run took, and how much memory, 0 if that was not measured.
    pub(super) fn learn(&mut self, kind: u64, took: Duration, memory_bytes: u64) {
        let next = match self.of(kind) {
            None => Estimate { duration: took, memory_bytes },
            Some(known) => Estimate {
                duration: (known.duration * 3 + took) / 4,
                // What it no longer takes is forgotten slowly: too much costs a slot, too little a run.
                memory_bytes: memory_bytes.max(known.memory_bytes - known.memory_bytes / 16),
            },
        };
        self.keep(kind, next);
    }

    fn keep(&mut self, kind: u64, estimate: Estimate) {
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&kind) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(kind, estimate);
    }
}

/// Memory to be set aside for an action that took `bytes` before: a quarter more, and rounded up so that alike
/// actions ask for the same. 0 if it is too little to matter.
pub(super) fn set_aside(bytes: u64) -> u64 {
    if bytes < MEMORY_MIN {
        0
    } else {
        bytes.saturating_add(bytes / 4).checked_next_power_of_two().unwrap_or(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_estimate_follows_what_was_measured() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.of(1), None);
        estimates.learn(1, 8 * SECOND, 1_000);
        estimates.learn(1, 4 * SECOND, 160);
        assert_eq!(estimates.of(1), Some(Estimate { duration: 7 * SECOND, memory_bytes: 938 }));
    }

    #[test]
    fn what_is_not_asked_for_is_forgotten_and_what_is_stays() {
        let mut estimates = Estimates::default();
        for kind in 0..3 * GENERATION_MAX as u64 {
            estimates.learn(kind, SECOND, 0);
            assert!(estimates.of(0).is_some());
        }
        assert!(estimates.young.len() + estimates.old.len() <= 2 * GENERATION_MAX);
        assert_eq!(estimates.of(1), None);
    }

    #[test]
    fn little_memory_is_not_set_aside_and_much_is_rounded_up() {
        assert_eq!(set_aside(200 << 20), 0);
        assert_eq!(set_aside(1 << 30), 2 << 30);
        assert_eq!(set_aside(u64::MAX / 2 + 1), u64::MAX / 2 + 1);
        assert_eq!(set_aside(u64::MAX), u64::MAX, "whatever a worker says");
    }
}
