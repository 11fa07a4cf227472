//! Copies blobs from the tier into the store: each once, however many want it, and whoever of them goes away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use castwork_cas::{BlobStore as _, BlobStream, ByteRange, Digest, StoreError};
use futures::future::{BoxFuture, FutureExt as _, Shared};
use futures::stream::{self, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::Tier;
use crate::store::DiskBlobs;

/// The longest time a blob may take to come from the tier: this, and what it takes at this speed.
const FETCH_WAIT: Duration = Duration::from_secs(3);
const FETCH_BYTES_PER_S: u64 = 2_000_000;

/// Blobs that are fetched at once; who wants another one is told that it is missing.
const FETCHES_MAX: usize = 1000;

/// Blobs that are remembered as wrong in the tier, and for how long.
const WRONG_MAX: usize = 10_000;
const WRONG_FOR: Duration = Duration::from_secs(600);

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    /// The tier lacks it, or could not give it.
    Absent,
    /// The tier has it, and the store can't keep it: the disk is full, or can only be read.
    NoRoom,
}

type Fetch = Shared<BoxFuture<'static, Outcome>>;

/// See the module.
pub(super) struct Fetches {
    store: DiskBlobs,
    under_way: Mutex<HashMap<Digest, Fetch>>,
    /// Blobs whose bytes in the tier were others, so that they count as missing there, and since when.
    wrong: Mutex<HashMap<Digest, Instant>>,
}

impl Fetches {
    /// Into `store`, which must not have a tier itself.
    pub(super) fn new(store: DiskBlobs) -> Self {
        Self { store, under_way: Mutex::default(), wrong: Mutex::default() }
    }

    /// Whether the tier has other bytes under this name.
    pub(super) fn is_wrong(&self, digest: &Digest) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(digest).is_some_and(|since| since.elapsed() < WRONG_FOR)
    }

    /// The tier has the right bytes now.
    pub(super) fn put_right(&self, digest: &Digest) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    fn note_wrong(&self, digest: &Digest) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= WRONG_MAX {
            wrong.retain(|_, since| since.elapsed() < WRONG_FOR);
        }
        if wrong.len() < WRONG_MAX {
            wrong.insert(*digest, Instant::now());
        }
    }
}

/// Ends a fetch, also one that panicked: the next one is begun anew.
struct UnderWay<'a> {
    tier: &'a Tier,
    digest: Digest,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let under_way = &self.tier.fetches.under_way;
        under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

impl Tier {
    /// Looks for a blob that the store lacks. `Some(None)`: it is in the store now. `Some(Some(…))`: its bytes, as the
    /// store can't keep them.
    pub(crate) async fn read(
        self: &Arc<Self>,
        digest: &Digest,
        range: ByteRange,
    ) -> Option<Option<BlobStream>> {
        // Whoever waits longest waits as long as the fetch may take; that is no failure of its own.
        match self.fetch(digest)?.await {
            Outcome::Kept => Some(None),
            Outcome::Absent => None,
            Outcome::NoRoom => self.presence.get(digest, range).await.ok().map(Some),
        }
    }

    fn fetch(self: &Arc<Self>, digest: &Digest) -> Option<Fetch> {
        // What anybody can forge is not taken from a place that others write to.
        if digest.function().is_forgeable() || self.fetches.is_wrong(digest) {
            return None;
        }
        let mut under_way = self.fetches.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = under_way.get(digest) {
            return Some(fetch.clone());
        }
        if under_way.len() >= FETCHES_MAX || !self.reads.allows() {
            return None;
        }
        let (tier, digest) = (Arc::clone(self), *digest);
        let fetching = tokio::spawn(async move {
            let _ending = UnderWay { tier: &tier, digest };
            tier.fetch_alone(&digest).await
        });
        let fetch = async { fetching.await.unwrap_or(Outcome::Absent) }.boxed().shared();
        under_way.insert(digest, fetch.clone());
        Some(fetch)
    }

    async fn fetch_alone(&self, digest: &Digest) -> Outcome {
        let _fetching = self.offers.fetching(digest);
        let store = &self.fetches.store;
        // Who fetched it before may have been done between our look and now.
        if store.find_missing(std::slice::from_ref(digest)).await.is_ok_and(|missing| missing.is_empty()) {
            return Outcome::Kept;
        }
        let wait = FETCH_WAIT + Duration::from_secs(digest.size_bytes() / FETCH_BYTES_PER_S);
        let error = match self.copy(digest, Instant::now() + wait).await {
            Ok(()) => {
                self.reads.succeeded();
                self.counters.tier_fetched.add(1);
                self.counters.tier_fetched_bytes.add(digest.size_bytes());
                return Outcome::Kept;
            }
            Err(StoreError::Missing(_)) => {
                self.reads.succeeded();
                return Outcome::Absent;
            }
            Err(error) => error,
        };
        match &error {
            StoreError::Full { .. } | StoreError::Disk { .. } => {
                self.reads.succeeded();
                return Outcome::NoRoom;
            }
            StoreError::Mismatch { .. } | StoreError::Encoding(_) | StoreError::TooLarge { .. } => {
                self.presence.forget(digest);
                self.fetches.note_wrong(digest);
            }
            _ => {}
        }
        self.failed(&self.reads, &error);
        Outcome::Absent
    }

    /// Copies a blob. Only the tier has a deadline: what has come is stored in peace.
    async fn copy(&self, digest: &Digest, deadline: Instant) -> Result<(), StoreError> {
        let opened = timeout_at(deadline, self.presence.get(digest, ByteRange::ALL)).await;
        let data = opened.unwrap_or_else(|_| Err(self.end.late()))?;
        let end = Arc::clone(&self.end);
        let data = stream::try_unfold((data, end), move |(mut data, end)| async move {
            match timeout_at(deadline, data.next()).await {
                Ok(Some(piece)) => Ok(Some((piece?, (data, end)))),
                Ok(None) => Ok(None),
                Err(_) => Err(end.late()),
            }
        });
        self.fetches.store.put(digest, data.boxed()).await
    }
}
