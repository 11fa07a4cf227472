//! [`Recent`]: what became of actions a while ago, for who asks about one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use castwork_cas::{ActionKey, Digest};

use super::cause::Cause;

/// Ended actions that are remembered, at most.
const ENDED_MAX: usize = 20_000;

/// Actions that run or wait of which it is remembered why they had no result, at most.
const CAUSES_MAX: usize = 500_000;

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) key: ActionKey,
    pub(crate) run: Arc<str>,
    /// Since the epoch of Unix.
    pub(crate) at_ms: u64,
    /// `hit`, `miss`, `ran`, `shared`, `failed`, `stored`, or the code of a refusal.
    pub(crate) outcome: &'static str,
    pub(crate) cause: Option<Cause>,
    pub(crate) worker: Arc<str>,
    pub(crate) took_ms: u64,
}

/// The newest of everything; what is older makes room.
#[derive(Default)]
pub(crate) struct Recent {
    ended: VecDeque<Ended>,
    causes: HashMap<Digest, Cause>,
    order: VecDeque<Digest>,
}

impl Recent {
    pub(crate) fn add(&mut self, ended: Ended) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// Those whose hash begins so, the newest first, at most `max`.
    pub(crate) fn find(&self, hash_start: &str, max: usize) -> Vec<Ended> {
        let is_meant = |ended: &&Ended| ended.key.action.hash_hex().starts_with(hash_start);
        self.ended.iter().rev().filter(is_meant).take(max).cloned().collect()
    }

    /// Notes why an action that is going to be run had no result.
    pub(crate) fn missed(&mut self, action: Digest, cause: Cause) {
        if self.causes.insert(action, cause).is_none() {
            self.order.push_back(action);
        }
        while self.order.len() > CAUSES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.causes.remove(&oldest);
            }
        }
    }

    pub(crate) fn cause(&self, action: &Digest) -> Option<Cause> {
        self.causes.get(action).copied()
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn what_is_remembered_has_a_bound_and_the_newest_comes_first() {
        let digest = |number: usize| Digest::of(DigestFunction::Sha256, number.to_string().as_bytes());
        let mut recent = Recent::default();
        for number in 0..=ENDED_MAX {
            recent.add(Ended {
                key: ActionKey { instance: "".into(), action: digest(number % 2) },
                run: "".into(),
                at_ms: number as u64,
                outcome: "hit",
                cause: None,
                worker: "".into(),
                took_ms: 0,
            });
        }
        let found = recent.find(&digest(0).hash_hex()[..12], 3);
        let newest = ENDED_MAX as u64;
        assert_eq!(found.iter().map(|it| it.at_ms).collect::<Vec<_>>(), [newest, newest - 2, newest - 4]);
        assert_eq!(recent.ended.len(), ENDED_MAX);
    }
}
