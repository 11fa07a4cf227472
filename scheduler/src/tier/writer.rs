//! Writes behind: takes what was offered, and puts it into the tier, a result only after its blobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use castwork_cas::complete::missing_of;
use castwork_cas::store::collect;
use castwork_cas::{ActionCache, ActionKey, BlobStore as _, ByteRange, Digest, StoreError};
use castwork_proto::reapi::{Action, ActionResult};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Tier;
use super::offers::Offer;
use crate::store::{DiskBlobs, DiskResults};

/// Offers that are taken together, so that one question asks for all their blobs.
const TAKEN_MAX: usize = 500;

/// Transfers under way at once.
const TRANSFERS_MAX: usize = 8;

/// The longest time that writing one blob or result may take.
const WRITE_WAIT: Duration = Duration::from_secs(600);

/// While the tier is left alone, what is queued waits; it is looked after this often.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the tier is closed.
pub(super) async fn run(
    tier: Arc<Tier>,
    blobs: DiskBlobs,
    results: DiskResults,
    mut queue: mpsc::Receiver<Offer>,
) {
    let stop = tier.stop.clone();
    let writing = async {
        let writer = Writer { tier: &tier, blobs, results };
        let mut offers = Vec::new();
        while queue.recv_many(&mut offers, TAKEN_MAX).await > 0 {
            while tier.breaker.is_open() {
                tokio::time::sleep(PAUSE).await;
            }
            let taken = offers.len() as u64;
            writer.write(offers.drain(..)).await;
            tier.queued.fetch_sub(taken, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = writing => {}
        () = stop.cancelled() => {}
    }
}

struct Writer<'a> {
    tier: &'a Tier,
    blobs: DiskBlobs,
    results: DiskResults,
}

impl Writer<'_> {
    async fn write(&self, offers: impl Iterator<Item = Offer>) {
        let (mut digests, mut keys) = (BTreeSet::new(), Vec::new());
        for offer in offers {
            match offer {
                Offer::Blob(digest) => {
                    digests.insert(digest);
                }
                Offer::Result(key) => keys.push(key),
            }
        }
        let digests: Vec<Digest> = digests.into_iter().collect();
        for some in digests.chunks(self.tier.end.asked_max()) {
            let copied = self.copy(some).await;
            self.account(copied);
        }
        stream::iter(keys)
            .for_each_concurrent(TRANSFERS_MAX, |key| async move {
                let written = timeout(WRITE_WAIT, self.write_result(&key)).await;
                self.account(written.unwrap_or_else(|_| Err(self.tier.end.late())));
            })
            .await;
    }

    fn account(&self, written: Result<(), StoreError>) {
        match written {
            Ok(()) => {}
            // It was evicted before its turn came, or is too large for this kind of tier.
            Err(StoreError::Missing(_) | StoreError::TooLarge { .. }) => {
                self.tier.counters.tier_dropped.add(1);
            }
            Err(error) => {
                self.tier.counters.tier_dropped.add(1);
                self.tier.failed(&error);
            }
        }
    }

    /// Copies those blobs that the tier lacks.
    async fn copy(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let asked = timeout(WRITE_WAIT, self.tier.presence.find_missing(digests)).await;
        let missing = asked.unwrap_or_else(|_| Err(self.tier.end.late()))?;
        let copied = stream::iter(missing)
            .map(|digest| async move {
                let copied = timeout(WRITE_WAIT, self.copy_one(&digest)).await;
                copied.unwrap_or_else(|_| Err(self.tier.end.late()))
            })
            .buffer_unordered(TRANSFERS_MAX)
            .collect::<Vec<_>>()
            .await;
        // Each failure counts; the last is this call's.
        let mut failed = Ok(());
        for result in copied {
            match result {
                Ok(()) => self.tier.breaker.succeeded(),
                Err(error) => self.account(std::mem::replace(&mut failed, Err(error))),
            }
        }
        failed
    }

    async fn copy_one(&self, digest: &Digest) -> Result<(), StoreError> {
        self.tier.presence.put(digest, self.blobs.get(digest, ByteRange::ALL).await?).await?;
        self.tier.counters.tier_written_blobs.add(1);
        self.tier.counters.tier_written_bytes.add(digest.size_bytes());
        Ok(())
    }

    /// Writes the result as the store has it now, after all that it names.
    async fn write_result(&self, key: &ActionKey) -> Result<(), StoreError> {
        if !self.tier.end.takes_results_of(&key.instance) {
            return Ok(());
        }
        let Some(result) = self.results.get(key).await? else { return Ok(()) };
        self.copy_blobs_of(&result, key).await?;
        ActionCache::put(&self.tier.end, key, result).await?;
        self.tier.breaker.succeeded();
        self.tier.counters.tier_written_results.add(1);
        Ok(())
    }

    /// An action and its command go along, as far as they are here.
    async fn note_action(&self, seen: &Seen, action: &Digest) -> Result<(), StoreError> {
        let data = match self.blobs.get(action, ByteRange::ALL).await {
            Ok(data) => collect(data, ACTION_BYTES_MAX).await?,
            Err(StoreError::Missing(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let command = Action::decode(data).ok().and_then(|action| action.command_digest);
        let command = command.and_then(|it| Digest::from_proto(&it, action.function()).ok());
        seen.note(&[*action]);
        seen.note(command.as_slice());
        Ok(())
    }

    async fn copy_blobs_of(&self, result: &ActionResult, key: &ActionKey) -> Result<(), StoreError> {
        let seen = Seen { inner: self.blobs.clone(), named: std::sync::Mutex::default() };
        let missing = missing_of(&seen, result, key.action.function()).await?;
        if let Some(digest) = missing.first() {
            return Err(StoreError::Missing(*digest));
        }
        if self.tier.end.wants_actions() {
            self.note_action(&seen, &key.action).await?;
        }
        let named = seen.named.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let named: Vec<Digest> = named.into_iter().collect();
        for some in named.chunks(self.tier.end.asked_max()) {
            self.copy(some).await?;
        }
        Ok(())
    }
}

/// Bytes of an `Action` message, at most.
const ACTION_BYTES_MAX: u64 = 1 << 20;

/// The store, and everything that it is asked for: which blobs a result stands for is what the check whether it is
/// complete asks for.
struct Seen {
    inner: DiskBlobs,
    named: std::sync::Mutex<BTreeSet<Digest>>,
}

impl Seen {
    fn note(&self, digests: &[Digest]) {
        self.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(digests);
    }
}

#[tonic::async_trait]
impl castwork_cas::BlobStore for Seen {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.note(digests);
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<castwork_cas::BlobStream, StoreError> {
        self.note(&[*digest]);
        self.inner.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, data: castwork_cas::BlobStream) -> Result<(), StoreError> {
        self.inner.put(digest, data).await
    }
}
