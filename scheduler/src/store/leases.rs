//! [`Leases`]: what a run has touched stays until the run has been quiet for a while.
//!
//! A build that leaves its outputs on the server (builds without the bytes) fails if one of them is evicted before
//! the build has ended. So a run that names itself holds what it uploaded, found, read, or was told of in a result.
//! All runs together hold at most a budget, beyond which what they touch is only used last, as without a lease.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castwork_cas::Digest;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Blobs that are held at most, all runs together: about 40 bytes of memory each.
const BLOBS_MAX: usize = 1_000_000;

/// Runs that hold something at most; beyond it the quietest lets go.
const RUNS_MAX: usize = 4096;

/// How much may be held, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Bytes of blobs that all runs together may hold; with 0 none is held.
    pub bytes_max: u64,
    /// A run that touched nothing for so long lets go.
    pub quiet: Duration,
}

impl Default for LeaseLimits {
    /// No leases.
    fn default() -> Self {
        Self { bytes_max: 0, quiet: Duration::from_secs(600) }
    }
}

/// What is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Runs that hold something.
    pub runs: u64,
    /// Blobs and results, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Touches that were not held since the start, because the budget was used up.
    pub refused: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Leases {
    limits: LeaseLimits,
    /// Digests are known by a hash with this secret: if two ever meet, one is kept longer than it need be.
    secret: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<Arc<str>, Run>,
    /// By how many runs each is held, and its bytes.
    held: HashMap<u64, (u32, u64)>,
    bytes: u64,
    refused: u64,
    /// Whether it was said that the budget is used up.
    is_told: bool,
}

#[derive(Debug)]
struct Run {
    held: HashSet<u64>,
    touched: Instant,
}

impl State {
    fn release(&mut self, name: &str) {
        let Some(run) = self.runs.remove(name) else { return };
        for short in run.held {
            let Some((runs, bytes)) = self.held.get_mut(&short) else { continue };
            *runs -= 1;
            if *runs == 0 {
                self.bytes -= *bytes;
                self.held.remove(&short);
            }
        }
        self.is_told = false;
    }
}

impl Leases {
    pub(crate) fn new(limits: LeaseLimits) -> Self {
        Self { limits, secret: RandomState::new(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `run` hold what it touched just now, as far as the budget allows.
    pub(crate) fn touch(&self, run: &Arc<str>, digests: impl IntoIterator<Item = Digest>) {
        if self.limits.bytes_max == 0 {
            return;
        }
        let now = Instant::now();
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.runs.contains_key(run) && state.runs.len() >= RUNS_MAX {
            let quietest = state.runs.iter().min_by_key(|(_, run)| run.touched).map(|(name, _)| name.clone());
            state.release(&quietest.expect("there are many"));
        }
        let mine =
            state.runs.entry(Arc::clone(run)).or_insert_with(|| Run { held: HashSet::new(), touched: now });
        mine.touched = now;
        let mut refused = 0;
        for digest in digests {
            let short = self.secret.hash_one(digest);
            if mine.held.contains(&short) {
                continue;
            }
            if let Some((runs, _)) = state.held.get_mut(&short) {
                *runs += 1;
            } else {
                let bytes = digest.size_bytes();
                let has_room = state.bytes.saturating_add(bytes) <= self.limits.bytes_max;
                if !has_room || state.held.len() >= BLOBS_MAX {
                    refused += 1;
                    continue;
                }
                state.held.insert(short, (1, bytes));
                state.bytes += bytes;
            }
            mine.held.insert(short);
        }
        state.refused += refused;
        if refused > 0 && !std::mem::replace(&mut state.is_told, true) {
            let (held_bytes, bytes_max) = (state.bytes, self.limits.bytes_max);
            warn!(%run, held_bytes, bytes_max, "the leases' budget is used up; what runs touch may be evicted");
        }
    }

    /// Whether some run holds it.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.limits.bytes_max > 0 && self.lock().held.contains_key(&self.secret.hash_one(digest))
    }

    /// Has the runs that were quiet for long let go.
    pub(crate) fn expire(&self) {
        let mut state = self.lock();
        let is_over = |run: &Run| run.touched.elapsed() >= self.limits.quiet;
        let over: Vec<Arc<str>> =
            state.runs.iter().filter(|(_, run)| is_over(run)).map(|(name, _)| Arc::clone(name)).collect();
        for name in over {
            state.release(&name);
            debug!(run = %name, held_bytes = state.bytes, "a run was quiet for long, and holds nothing any more");
        }
    }

    /// What is held now.
    pub(crate) fn count(&self) -> Held {
        let state = self.lock();
        Held {
            runs: state.runs.len() as u64,
            blobs: state.held.len() as u64,
            bytes: state.bytes,
            refused: state.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    const QUIET: Duration = Duration::from_secs(600);
    const NEARLY: Duration = Duration::from_secs(599);

    fn leases(bytes_max: u64) -> Leases {
        Leases::new(LeaseLimits { bytes_max, quiet: QUIET })
    }

    /// A digest of some text, which is as long as its bytes.
    fn digest(text: &str) -> Digest {
        Digest::of(DigestFunction::Sha256, text.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_run_touched_is_held_until_the_run_was_quiet() {
        let leases = leases(100);
        let run: Arc<str> = "run".into();
        leases.touch(&run, [digest("early")]);
        tokio::time::advance(NEARLY).await;
        leases.touch(&run, [digest("late")]);
        tokio::time::advance(NEARLY).await;
        leases.expire();
        assert!(leases.holds(&digest("early")) && leases.holds(&digest("late")));
        assert!(!leases.holds(&digest("other")));
        tokio::time::advance(Duration::from_secs(1)).await;
        leases.expire();
        assert!(!leases.holds(&digest("early")) && !leases.holds(&digest("late")));
        assert_eq!(leases.count(), Held::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_of_two_runs_counts_once_and_stays_until_both_were_quiet() {
        let leases = leases(100);
        leases.touch(&"first".into(), [digest("abc"), digest("abc")]);
        tokio::time::advance(QUIET / 2).await;
        leases.touch(&"second".into(), [digest("abc")]);
        assert_eq!(leases.count(), Held { runs: 2, blobs: 1, bytes: 3, refused: 0 });
        tokio::time::advance(QUIET / 2).await;
        leases.expire();
        assert_eq!(leases.count(), Held { runs: 1, blobs: 1, bytes: 3, refused: 0 });
        assert!(leases.holds(&digest("abc")));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_budget_nothing_more_is_held_and_it_is_counted() {
        let leases = leases(8);
        leases.touch(&"run".into(), [digest("12345"), digest("6789"), digest("abc")]);
        assert_eq!(leases.count(), Held { runs: 1, blobs: 2, bytes: 8, refused: 1 });
        assert!(!leases.holds(&digest("6789")));
        tokio::time::advance(QUIET).await;
        leases.expire();
        leases.touch(&"next".into(), [digest("6789")]);
        assert!(leases.holds(&digest("6789")));
    }

    #[tokio::test]
    async fn without_a_budget_nothing_is_held() {
        let leases = leases(0);
        leases.touch(&"run".into(), [digest("abc")]);
        assert!(!leases.holds(&digest("abc")));
        assert_eq!(leases.count(), Held::default());
    }

    #[tokio::test]
    async fn runs_without_number_are_bounded() {
        let leases = leases(100);
        for number in 0..=RUNS_MAX {
            leases.touch(&format!("run-{number}").into(), [digest("abc")]);
        }
        assert_eq!(leases.count(), Held { runs: RUNS_MAX as u64, blobs: 1, bytes: 3, refused: 0 });
    }
}
