//! Writes behind: takes what was offered, and puts it into the tier, a result only after its blobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castwork_cas::complete::missing_of;
use castwork_cas::store::collect;
use castwork_cas::{ActionCache, ActionKey, BlobStore as _, ByteRange, Digest, StoreError};
use castwork_proto::reapi::{Action, ActionResult};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::offers::Offer;
use super::{Tier, is_refusal};
use crate::store::{DiskBlobs, DiskResults};

/// Offers that are taken together, so that one question asks for all their blobs.
const TAKEN_MAX: usize = 500;

/// Transfers under way at once.
const TRANSFERS_MAX: usize = 8;

/// The longest time that writing one blob or result may take.
const WRITE_WAIT: Duration = Duration::from_secs(600);

/// While the tier is left alone, what is queued waits; it is looked after this often.
const PAUSE: Duration = Duration::from_millis(500);

/// How often something is tried that fails while the tier does other things.
const TRIES: u32 = 3;

/// Runs until the tier is closed.
pub(super) async fn run(
    tier: Arc<Tier>,
    blobs: DiskBlobs,
    results: DiskResults,
    mut queue: mpsc::Receiver<Offer>,
) {
    let stop = tier.stop.clone();
    let writing = async {
        let writer = Writer { tier: &tier, blobs, results, has_worked: AtomicBool::new(false) };
        let mut offers = Vec::new();
        while queue.recv_many(&mut offers, TAKEN_MAX).await > 0 {
            let taken = offers.len() as u64;
            writer.write_all(offers.drain(..)).await;
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
    /// Whether the tier has done anything since this was last looked at.
    has_worked: AtomicBool,
}

/// What came of writing something.
enum Written {
    /// Or it need not be, or can't be, written.
    Done,
    /// The tier failed; another time it may not.
    NotYet,
}

impl Writer<'_> {
    /// Writes what was offered. While the tier fails it is waited for: the queue fills up meanwhile.
    async fn write_all(&self, offers: impl Iterator<Item = Offer>) {
        let (mut digests, mut keys) = (BTreeSet::new(), Vec::new());
        for offer in offers {
            match offer {
                Offer::Blob(digest) => {
                    digests.insert(digest);
                }
                Offer::Result(key) => keys.push(key),
            }
        }
        let mut digests: Vec<Digest> = digests.into_iter().collect();
        // A tier that lacks one function refuses all who ask together with it.
        digests.sort_by_key(|digest| digest.function().name());
        let mut tries = 0;
        while !(digests.is_empty() && keys.is_empty()) {
            while !self.tier.writes.allows() {
                tokio::time::sleep(PAUSE).await;
            }
            self.has_worked.store(false, Ordering::Relaxed);
            digests = self.copy_all(digests).await;
            keys = self.write_results(keys).await;
            // If nothing worked, it is the tier; if something did, it is what is left.
            tries += u32::from(self.has_worked.load(Ordering::Relaxed));
            if tries == TRIES {
                self.tier.counters.tier_dropped.add((digests.len() + keys.len()) as u64);
                return;
            }
            if !(digests.is_empty() && keys.is_empty()) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Copies blobs; those for which it has to be tried again.
    async fn copy_all(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let mut left = Vec::new();
        let of_a_function = digests.chunk_by(|one, next| one.function() == next.function());
        for some in of_a_function.flat_map(|some| some.chunks(self.tier.end.asked_max())) {
            // One after the other fails: there is no use in trying them all.
            if self.tier.writes.is_open() && !left.is_empty() {
                left.extend_from_slice(some);
                continue;
            }
            match self.missing(some).await {
                Ok(missing) => left.extend(self.copy(missing).await),
                Err(error) => match self.account(&error) {
                    Written::NotYet => left.extend_from_slice(some),
                    // One of them is counted already.
                    Written::Done => self.tier.counters.tier_dropped.add(some.len() as u64 - 1),
                },
            }
        }
        left
    }

    /// Writes results; those for which it has to be tried again.
    async fn write_results(&self, keys: Vec<ActionKey>) -> Vec<ActionKey> {
        let written = stream::iter(keys).map(|key| async move {
            let result = timeout(WRITE_WAIT, self.write_result(&key)).await;
            let result = result.unwrap_or_else(|_| Err(self.tier.end.late()));
            let written = result.map_or_else(|error| self.account(&error), |()| Written::Done);
            matches!(written, Written::NotYet).then_some(key)
        });
        let left = written.buffer_unordered(TRANSFERS_MAX).filter_map(std::future::ready);
        left.collect().await
    }

    fn worked(&self) {
        self.has_worked.store(true, Ordering::Relaxed);
        self.tier.writes.succeeded();
    }

    /// Counts a failure, and says whether it will be one again.
    fn account(&self, error: &StoreError) -> Written {
        // It was evicted before its turn came, or is too large for this kind of tier.
        let is_no_failure = matches!(error, StoreError::Missing(_) | StoreError::TooLarge { .. });
        if !is_no_failure {
            self.tier.failed(&self.tier.writes, error);
        }
        // The tier is there and does not want it, or our own disk does not give it: neither changes by asking again.
        if is_no_failure || is_refusal(error) {
            self.tier.counters.tier_dropped.add(1);
            return Written::Done;
        }
        Written::NotYet
    }

    /// Those that the tier lacks, or has wrong.
    async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked = timeout(WRITE_WAIT, self.tier.presence.find_missing(digests)).await;
        let mut missing = asked.unwrap_or_else(|_| Err(self.tier.end.late()))?;
        self.worked();
        let wrong = digests.iter().filter(|digest| self.tier.fetches.is_wrong(digest)).copied();
        let wrong: Vec<Digest> = wrong.filter(|digest| !missing.contains(digest)).collect();
        missing.extend(wrong);
        Ok(missing)
    }

    /// Copies blobs that the tier lacks; those that it has to be tried for again.
    async fn copy(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let copied = stream::iter(digests).map(|digest| async move {
            // One that fails has failed for all: while it does, no other is begun.
            if self.tier.writes.is_open() {
                return Some(digest);
            }
            let written = self.copy_one(&digest).await.map_or_else(
                |error| self.account(&error),
                |()| {
                    self.worked();
                    Written::Done
                },
            );
            matches!(written, Written::NotYet).then_some(digest)
        });
        let left = copied.buffer_unordered(TRANSFERS_MAX).filter_map(std::future::ready);
        left.collect().await
    }

    async fn copy_one(&self, digest: &Digest) -> Result<(), StoreError> {
        let copying =
            async { self.tier.presence.put(digest, self.blobs.get(digest, ByteRange::ALL).await?).await };
        timeout(WRITE_WAIT, copying).await.unwrap_or_else(|_| Err(self.tier.end.late()))?;
        self.tier.fetches.put_right(digest);
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
        // Or it may be written after it was taken back, or another one without its blobs.
        let _still = self.results.still().await;
        if self.results.get(key).await?.as_ref() != Some(&result) {
            return Ok(());
        }
        ActionCache::put(&self.tier.end, key, result).await?;
        self.worked();
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
            for digest in self.missing(some).await? {
                self.copy_one(&digest).await?;
                self.worked();
            }
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
