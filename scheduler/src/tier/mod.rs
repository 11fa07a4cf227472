//! [`Tier`]: a slower, larger place behind the store: another REAPI server, or an object store.
//!
//! What the store takes is offered to the tier and written there later, from a queue of bounded length; nobody waits for
//! that, and what finds the queue full is not written, and counted. What the store lacks is looked for in the tier, for a
//! bounded time, and copied into the store when it is read. A tier that fails is left alone for a while. So builds go on
//! as if there were none, whatever becomes of it.

mod breaker;
mod end;
mod offers;
mod writer;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castwork_cas::{
    ActionCache, ActionKey, BlobStore as _, Digest, ExistenceCached, ReadThrough, StoreError,
};
use castwork_proto::reapi::ActionResult;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, info, warn};

use self::breaker::Breaker;
use self::end::End;
pub(crate) use self::end::check_address;
pub(crate) use self::offers::Offers;
use crate::counters::{Counters, Gauge};
use crate::store::{DiskBlobs, Store};

/// The longest wait for what the tier has: a build would otherwise be done sooner without.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// The longest wait for an answer in a transfer, and for the next bytes.
const TRANSFER_WAIT: Duration = Duration::from_secs(20);

/// The longest time a blob may take to come from the tier: this, and what it takes at this speed.
const FETCH_WAIT: Duration = Duration::from_secs(3);
const FETCH_BYTES_PER_S: u64 = 2_000_000;

/// Digests that an object store is asked for by one call of ours; a request each. Those beyond count as missing.
const ASKED_MAX: usize = 2000;

/// How often it is looked whether all is written when the server ends.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);

/// How long it is believed that the tier still has what it had.
const PRESENCE_TTL: Duration = Duration::from_secs(600);

/// Of how many blobs that is remembered, some 100 bytes each.
const PRESENCE_MAX: usize = 500_000;

type Cached = ExistenceCached<Arc<End>>;

/// See the module.
pub(crate) struct Tier {
    end: Arc<End>,
    presence: Arc<Cached>,
    reading: ReadThrough<DiskBlobs, Arc<Cached>>,
    offers: Offers,
    breaker: Breaker,
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
            reading: ReadThrough::new(store.blobs(), Arc::clone(&presence)),
            end,
            presence,
            offers: offers.clone(),
            breaker: Breaker::default(),
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

    /// Writes what is queued, as far as that takes no longer than `wait`, and then no more.
    pub(crate) async fn close(&self, wait: Duration) {
        let written = async {
            while self.queued.load(Ordering::Relaxed) > 0 && !self.breaker.is_open() {
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
    pub(crate) async fn find_missing(&self, missing: Vec<Digest>) -> Vec<Digest> {
        if missing.is_empty() {
            return missing;
        }
        let asked = &missing[..missing.len().min(self.end.asked_max())];
        let Some(lacking) = self.bounded(LOOKUP_WAIT, self.presence.find_missing(asked)).await else {
            return missing;
        };
        let (asked, lacking): (HashSet<Digest>, HashSet<Digest>) =
            (asked.iter().copied().collect(), lacking.into_iter().collect());
        self.counters.tier_blob_hits.add((asked.len() - lacking.len()) as u64);
        missing.into_iter().filter(|digest| !asked.contains(digest) || lacking.contains(digest)).collect()
    }

    /// Copies a blob into the store, once for all who want it now; whether it is there.
    pub(crate) async fn fetch(&self, digest: &Digest) -> bool {
        let _fetching = self.offers.fetching(digest);
        let wait = FETCH_WAIT + Duration::from_secs(digest.size_bytes() / FETCH_BYTES_PER_S);
        match self.bounded(wait, self.reading.fetch(digest)).await {
            Some(()) => {
                self.counters.tier_fetched.add(1);
                self.counters.tier_fetched_bytes.add(digest.size_bytes());
                true
            }
            None => false,
        }
    }

    /// Looks for a result.
    pub(crate) async fn result(&self, key: &ActionKey) -> Option<ActionResult> {
        let found = self.bounded(LOOKUP_WAIT, ActionCache::get(&self.end, key)).await.flatten();
        if found.is_some() {
            self.counters.tier_result_hits.add(1);
        }
        found
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
                value: u64::from(!self.breaker.is_open()),
            },
        ]
    }

    /// Has the tier do something within a time, unless it failed lately; `None` if nothing came of it.
    async fn bounded<T>(
        &self,
        wait: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        if self.breaker.is_open() {
            return None;
        }
        let error = match timeout(wait, call).await {
            Ok(Ok(value)) => {
                self.breaker.succeeded();
                return Some(value);
            }
            Ok(Err(StoreError::Missing(_))) => {
                self.breaker.succeeded();
                return None;
            }
            Ok(Err(error)) => error,
            Err(_) => self.end.late(),
        };
        self.failed(&error);
        None
    }

    /// Counts a failure; what is only refused says nothing about the tier as a whole.
    fn failed(&self, error: &StoreError) {
        self.counters.tier_failures.add(1);
        let opened = !is_refusal(error) && self.breaker.failed();
        let source = std::error::Error::source(error).map(ToString::to_string);
        if opened {
            warn!(address = self.end.address(), %error, source, "the tier fails and is left alone for a while");
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
