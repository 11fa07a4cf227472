//! [`Pins`]: which blobs must not be evicted now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use castwork_cas::Digest;

use super::leases::{Held, LeaseLimits, Leases};
use crate::caller::Caller;

/// Counts, for every blob that is needed at this moment, by how many it is, and knows what runs hold. Cheap to
/// clone.
///
/// A pin holds off eviction and nothing else: it does not bring a blob back, and a blob that turns
/// out to be corrupt is dropped all the same. Bounded by who pins: running actions and open reads. What runs hold
/// has its own bound ([`LeaseLimits`]).
#[derive(Clone)]
pub struct Pins {
    counts: Arc<Mutex<HashMap<Digest, usize>>>,
    leases: Arc<Leases>,
}

impl Default for Pins {
    /// Without leases.
    fn default() -> Self {
        Self::new(LeaseLimits::default())
    }
}

impl Pins {
    /// With leases for runs that name themselves.
    pub fn new(leases: LeaseLimits) -> Self {
        Self { counts: Arc::default(), leases: Arc::new(Leases::new(leases)) }
    }

    /// Has the run of the current [`Caller`], if it has a name, hold `digests` until it has been quiet for long.
    pub(crate) fn hold(&self, digests: impl IntoIterator<Item = Digest>) {
        if let Some(run) = Caller::current_run() {
            self.leases.touch(&run, digests);
        }
    }

    /// Has the runs that were quiet for long let go of what they held.
    pub(crate) fn expire(&self) {
        self.leases.expire();
    }

    /// What runs hold now.
    pub(crate) fn held(&self) -> Held {
        self.leases.count()
    }

    /// Holds off the eviction of `digests` until the guard is dropped.
    ///
    /// Pin first, then ask whether the blobs are there: what is found then stays.
    #[must_use = "dropping the guard lets the blobs go"]
    pub fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> PinGuard {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *counts.entry(*digest).or_default() += 1;
        }
        PinGuard { counts: Arc::clone(&self.counts), digests }
    }

    /// Runs `evict` unless the blob is pinned or held; nobody can pin it meanwhile. Returns whether it ran.
    pub(crate) fn unless_pinned(&self, digest: &Digest, evict: impl FnOnce()) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.contains_key(digest) || self.leases.holds(digest) {
            return false;
        }
        evict();
        true
    }
}

/// Keeps its blobs from being evicted for as long as it lives.
pub struct PinGuard {
    counts: Arc<Mutex<HashMap<Digest, usize>>>,
    digests: Vec<Digest>,
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn a_blob_that_two_need_stays_until_both_are_done() {
        let pins = Pins::default();
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let first = pins.pin([digest]);
        let second = pins.pin([digest, digest]);
        drop(first);
        assert!(!pins.unless_pinned(&digest, || panic!("it is pinned")));
        drop(second);
        let mut evicted = false;
        assert!(pins.unless_pinned(&digest, || evicted = true));
        assert!(evicted);
    }
}
