//! [`Tier`]: a slower, larger place behind the store: another REAPI server, or an object store.
//!
//! What the store takes is offered to the tier and written there later, from a queue of bounded length; nobody waits for
//! that, and what finds the queue full is not written, and counted. What the store lacks is looked for in the tier, for a
//! bounded time, and copied into the store when it is read. A tier that fails is left alone for a while. So builds go on
//! as if there were none, whatever becomes of it.

mod breaker;
mod end;
mod fetch;
mod offers;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castwork_cas::{ActionCache, ActionKey, BlobStore as _, Digest, ExistenceCached, StoreError, outputs};
use castwork_proto::reapi::ActionResult;
use futures::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, info, warn};

use self::breaker::Breaker;
use self::end::End;
pub(crate) use self::end::check_address;
use self::fetch::Fetches;
pub(crate) use self::offers::Offers;
use crate::counters::{Counters, Gauge};
use crate::store::Store;

/// The longest wait for what the tier has: a build would otherwise be done sooner without.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// The longest wait for an answer in a transfer, and for the next bytes.
const TRANSFER_WAIT: Duration = Duration::from_secs(20);

/// How long a tier that failed is left alone. Somebody waits for reads, and nobody for writes.
const READ_PAUSE: Duration = Duration::from_secs(15);
const WRITE_PAUSE: Duration = Duration::from_secs(3);

/// Digests that an object store is asked for together, a request each.
const ASKED_MAX: usize = 256;

/// Results that are removed at once.
const REMOVALS_MAX: usize = 16;

/// How often it is looked whether all is written when the server ends.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);

/// How long it is believed that the tier still has what it had.
const PRESENCE_TTL: Duration = Duration::from_secs(60);

/// Of how many blobs that is remembered, some 100 bytes each.
const PRESENCE_MAX: usize = 500_000;

type Cached = ExistenceCached<Arc<End>>;

/// See the module.
pub(crate) struct Tier {
    end: Arc<End>,
    presence: Arc<Cached>,
    fetches: Fetches,
    offers: Offers,
    /// One that takes nothing may well give.
    reads: Breaker,
    writes: Breaker,
    counters: Arc<Counters>,
    queued: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Tier {
    /// Puts `store` in front of what a URL names, and begins to write behind. Nothing is connected yet. The task ends
    /// after [`Tier::close`].
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn start(
        url: &str,
        store: &Store,
        counters: Arc<Counters>,
    ) -> Result<(Arc<Self>, JoinHandle<()>), StoreError> {
        let end = Arc::new(End::open(url, TRANSFER_WAIT)?);
        let presence = Arc::new(ExistenceCached::new(Arc::clone(&end), PRESENCE_TTL, PRESENCE_MAX));
        let queued = Arc::<AtomicU64>::default();
        let (offers, queue) = Offers::new(end.is_writable(), Arc::clone(&counters), Arc::clone(&queued));
        let tier = Arc::new(Self {
            fetches: Fetches::new(store.blobs()),
            end,
            presence,
            offers: offers.clone(),
            reads: Breaker::new(READ_PAUSE),
            writes: Breaker::new(WRITE_PAUSE),
            counters,
            queued,
            stop: CancellationToken::new(),
        });
        let local = (store.blobs(), store.results());
        let writing = tokio::spawn(writer::run(Arc::clone(&tier), local.0, local.1, queue));
        store.stand_in_front_of(Arc::clone(&tier), offers);
        info!(
            address = tier.end.address(),
            writes = tier.end.is_writable(),
            "the store stands in front of a tier"
        );
        Ok((tier, writing))
    }

    /// Its address as it may be shown.
    pub(crate) fn address(&self) -> &str {
        self.end.address()
    }

    /// Whether results that were stored here may be there too.
    pub(crate) fn is_written_to(&self) -> bool {
        self.end.is_writable()
    }

    /// Writes what is queued, as far as that takes no longer than `wait`, and then no more.
    pub(crate) async fn close(&self, wait: Duration) {
        let written = async {
            while self.queued.load(Ordering::Relaxed) > 0 && !self.writes.is_open() {
                tokio::time::sleep(CLOSE_PAUSE).await;
            }
        };
        let _ = timeout(wait, written).await;
        self.stop.cancel();
        let left = self.queued.load(Ordering::Relaxed);
        if left > 0 {
            warn!(left, "some blobs and results were not written to the tier");
        }
    }

    /// Those of `missing` that the tier lacks too, or of which it did not say in time that it has them.
    pub(crate) async fn find_missing(&self, mut missing: Vec<Digest>) -> Vec<Digest> {
        let may_be_there =
            |digest: &&Digest| !digest.function().is_forgeable() && !self.fetches.is_wrong(digest);
        let asked: Vec<Digest> = missing.iter().filter(may_be_there).copied().collect();
        if asked.is_empty() || !self.reads.allows() {
            return missing;
        }
        let there = self.look(&asked, Instant::now() + LOOKUP_WAIT).await;
        self.counters.tier_blob_hits.add(there.len() as u64);
        missing.retain(|digest| !there.contains(digest));
        missing
    }

    /// Those that the tier has, as far as it said so in time.
    async fn look(&self, asked: &[Digest], deadline: Instant) -> HashSet<Digest> {
        let mut there = HashSet::new();
        for (number, some) in asked.chunks(self.end.asked_max()).enumerate() {
            let lacking = match timeout_at(deadline, self.presence.find_missing(some)).await {
                Ok(Ok(lacking)) => HashSet::<Digest>::from_iter(lacking),
                Ok(Err(error)) => {
                    self.failed(&self.reads, &error);
                    return there;
                }
                // It is far away, or much was asked; one that answers nothing at all fails.
                Err(_) if number > 0 => return there,
                Err(_) => {
                    self.failed(&self.reads, &self.end.late());
                    return there;
                }
            };
            self.reads.succeeded();
            there.extend(some.iter().filter(|digest| !lacking.contains(digest)));
        }
        there
    }

    /// Looks for a result that may be believed: its outputs stay where they belong.
    pub(crate) async fn result(&self, key: &ActionKey) -> Option<ActionResult> {
        if key.action.function().is_forgeable() || !self.reads.allows() {
            return None;
        }
        let found = timeout(LOOKUP_WAIT, ActionCache::get(&self.end, key)).await;
        let found = match found.unwrap_or_else(|_| Err(self.end.late())) {
            Ok(found) => found?,
            Err(error) => {
                self.failed(&self.reads, &error);
                return None;
            }
        };
        self.reads.succeeded();
        if let Err(error) = outputs::check(&found) {
            warn!(address = self.address(), action = %key.action, %error, "a result of the tier is not believed");
            self.counters.tier_failures.add(1);
            return None;
        }
        self.counters.tier_result_hits.add(1);
        Some(found)
    }

    /// Removes results from a tier in which that can be done, however it is.
    ///
    /// # Errors
    /// The first failure, and how many results may still be there.
    pub(crate) async fn take_back(&self, keys: Vec<ActionKey>) -> Result<(), (usize, StoreError)> {
        let taken = stream::iter(keys).map(|key| async move { self.end.remove_result(&key).await });
        let failed: Vec<StoreError> = taken
            .buffer_unordered(REMOVALS_MAX)
            .filter_map(|taken| std::future::ready(taken.err()))
            .collect()
            .await;
        let count = failed.len();
        failed.into_iter().next().map_or(Ok(()), |error| Err((count, error)))
    }

    /// How it is, for `/metrics`.
    pub(crate) fn gauges(&self) -> Vec<Gauge> {
        vec![
            Gauge {
                name: "castwork_tier_queued",
                help: "Blobs and results that wait to be written to the tier.",
                value: self.queued.load(Ordering::Relaxed),
            },
            Gauge {
                name: "castwork_tier_up",
                help: "0 while the tier is left alone because it failed.",
                value: u64::from(!self.reads.is_open()),
            },
            Gauge {
                name: "castwork_tier_writable",
                help: "0 while nothing is written to the tier, because that failed or it is only read.",
                value: u64::from(self.end.is_writable() && !self.writes.is_open()),
            },
        ]
    }

    /// Counts a failure; what is only refused says nothing about the tier as a whole.
    fn failed(&self, breaker: &Breaker, error: &StoreError) {
        self.counters.tier_failures.add(1);
        let opened = !is_refusal(error) && breaker.failed();
        let source = std::error::Error::source(error).map(ToString::to_string);
        if opened && std::ptr::eq(breaker, &raw const self.writes) {
            warn!(address = self.address(), %error, source, "nothing can be written to the tier; it is tried again");
        } else if opened {
            warn!(address = self.address(), %error, source, "the tier fails and is left alone for a while");
        } else {
            debug!(address = self.end.address(), %error, source, "the tier failed");
        }
    }
}

/// Whether the tier answers, but not with what it was asked for.
fn is_refusal(error: &StoreError) -> bool {
    match error {
        StoreError::Remote { source, .. } => {
            matches!(source.code(), Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented)
        }
        // The store's own trouble, or bytes that are wrong: those of other blobs may be right.
        _ => true,
    }
}
