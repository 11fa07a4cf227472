//! [`MemoryBlobs`] and [`MemoryActions`]: content in memory, bounded, for as long as the process lives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use castwork_proto::reapi::ActionResult;
use prost::Message as _;

use crate::store::{ByteRange, collect, stream_of};
use crate::verified::verify;
use crate::{ActionCache, ActionKey, BlobStore, BlobStream, Digest, StoreError};

/// What an entry costs beside its bytes, so that a million empty ones are not free.
const ENTRY_BYTES: u64 = 200;

/// Blobs in memory; those unused for longest make room for new ones.
pub struct MemoryBlobs {
    blobs: Mutex<Lru<Digest, Bytes>>,
}

impl MemoryBlobs {
    /// Holds at most `bytes_max` bytes, some per entry counted in.
    pub fn new(bytes_max: u64) -> Self {
        Self { blobs: Mutex::new(Lru::new(bytes_max)) }
    }

    /// Returns a blob, if it is there; it counts as used just now.
    pub fn get_bytes(&self, digest: &Digest) -> Option<Bytes> {
        if digest.is_empty_blob() {
            return Some(Bytes::new());
        }
        self.lock().get(digest).cloned()
    }

    /// Keeps bytes.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if they are not the digest's, [`StoreError::Full`] if they alone are more
    /// than fits.
    pub fn put_bytes(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let got = Digest::of(digest.function(), &data);
        if got != *digest {
            return Err(StoreError::mismatch(digest, got));
        }
        self.keep(digest, data)
    }

    /// Forgets a blob, as if it had made room for others.
    pub fn remove(&self, digest: &Digest) {
        self.lock().remove(digest);
    }

    fn keep(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let bytes = data.len() as u64;
        if self.lock().put(*digest, data, bytes) {
            Ok(())
        } else {
            Err(StoreError::Full { digest: *digest, source: None })
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lru<Digest, Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut blobs = self.lock();
        let mut seen = HashSet::new();
        let is_missing = |digest: &&Digest| {
            seen.insert(**digest) && !digest.is_empty_blob() && blobs.get(digest).is_none()
        };
        Ok(digests.iter().filter(is_missing).copied().collect())
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        let data = self.get_bytes(digest).ok_or(StoreError::Missing(*digest))?;
        let past = || StoreError::Range { digest: *digest, offset: range.offset };
        let offset = usize::try_from(range.offset).map_err(|_| past())?;
        if offset > data.len() {
            return Err(past());
        }
        let limit = range.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(stream_of(data.slice(offset..data.len().min(offset.saturating_add(limit)))))
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        if digest.is_empty_blob() || self.lock().get(digest).is_some() {
            return Ok(());
        }
        if digest.size_bytes() > self.lock().bytes_max {
            return Err(StoreError::Full { digest: *digest, source: None });
        }
        let data = collect(verify(*digest, data), digest.size_bytes()).await?;
        self.keep(digest, data)
    }
}

/// Results in memory; those unused for longest make room for new ones.
pub struct MemoryActions {
    results: Mutex<Lru<ActionKey, ActionResult>>,
}

impl MemoryActions {
    /// Holds at most `bytes_max` bytes of encoded results, some per entry counted in.
    pub fn new(bytes_max: u64) -> Self {
        Self { results: Mutex::new(Lru::new(bytes_max)) }
    }

    fn lock(&self) -> MutexGuard<'_, Lru<ActionKey, ActionResult>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ActionCache for MemoryActions {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        Ok(self.lock().get(key).cloned())
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let bytes = (key.instance.len() + result.encoded_len()) as u64;
        if self.lock().put(key.clone(), result, bytes) {
            Ok(())
        } else {
            Err(StoreError::Full { digest: key.action, source: None })
        }
    }
}

/// A map bounded by what its entries weigh.
struct Lru<K, V> {
    bytes_max: u64,
    /// Invariant: the sum of `bytes` of all entries, at most `bytes_max`.
    bytes: u64,
    /// Counts uses.
    now: u64,
    entries: HashMap<K, Kept<V>>,
    /// Invariant: for each entry its last use, and nothing else.
    uses: BTreeMap<u64, K>,
}

struct Kept<V> {
    value: V,
    bytes: u64,
    used: u64,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, now: 0, entries: HashMap::new(), uses: BTreeMap::new() }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        self.now += 1;
        let key = self.uses.remove(&entry.used).expect("every entry has its use");
        entry.used = self.now;
        self.uses.insert(self.now, key);
        Some(&entry.value)
    }

    /// Keeps a value in place of an earlier one; `false` if it alone is more than fits.
    fn put(&mut self, key: K, value: V, bytes: u64) -> bool {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        self.remove(&key);
        if bytes > self.bytes_max {
            return false;
        }
        while self.bytes_max - self.bytes < bytes {
            let (_, oldest) = self.uses.first_key_value().expect("what weighs something is in here");
            self.remove(&oldest.clone());
        }
        self.now += 1;
        self.bytes += bytes;
        self.uses.insert(self.now, key.clone());
        self.entries.insert(key, Kept { value, bytes, used: self.now });
        true
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.uses.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;

    fn blob(size: usize, fill: u8) -> (Digest, Bytes) {
        let data = Bytes::from(vec![fill; size]);
        (Digest::of(DigestFunction::Sha256, &data), data)
    }

    #[tokio::test]
    async fn a_blob_comes_back_whole_and_in_parts() {
        let store = MemoryBlobs::new(1 << 20);
        let data = Bytes::from_static(b"0123456789");
        let digest = Digest::of(DigestFunction::Blake3, &data);
        assert_eq!(store.find_missing(&[digest, digest]).await.unwrap(), [digest]);
        store.put(&digest, stream_of(data)).await.unwrap();
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        let read = |offset, limit| {
            let store = &store;
            async move {
                collect(store.get(&digest, ByteRange { offset, limit }).await.unwrap(), 10).await.unwrap()
            }
        };
        assert_eq!(read(0, None).await, "0123456789");
        assert_eq!(read(3, Some(4)).await, "3456");
        assert_eq!(read(8, Some(4)).await, "89");
        assert_eq!(read(10, None).await, "");
        assert_eq!(read(0, Some(0)).await, "");
        let past = store.get(&digest, ByteRange { offset: 11, limit: None }).await;
        assert!(matches!(past, Err(StoreError::Range { offset: 11, .. })));
    }

    #[tokio::test]
    async fn the_empty_blob_is_always_there() {
        let store = MemoryBlobs::new(0);
        let empty = Digest::empty(DigestFunction::Sha256);
        assert_eq!(store.find_missing(&[empty]).await.unwrap(), []);
        store.put(&empty, stream_of(Bytes::new())).await.unwrap();
        assert_eq!(collect(store.get(&empty, ByteRange::ALL).await.unwrap(), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_blob_with_wrong_bytes_is_refused() {
        let store = MemoryBlobs::new(1 << 20);
        let (digest, _) = blob(3, 1);
        for wrong in ["abc", "ab", "abcd", ""] {
            let answer = store.put(&digest, stream_of(wrong.into())).await;
            assert!(matches!(answer, Err(StoreError::Mismatch { .. })), "{wrong}");
            assert!(store.put_bytes(&digest, wrong.into()).is_err());
        }
        assert!(matches!(store.get(&digest, ByteRange::ALL).await, Err(StoreError::Missing(_))));
    }

    #[tokio::test]
    async fn what_was_not_used_for_longest_goes_first_and_the_bound_is_kept() {
        let each = 1000 + ENTRY_BYTES;
        let store = MemoryBlobs::new(3 * each);
        let blobs: Vec<_> = (0..4).map(|fill| blob(1000, fill)).collect();
        for (digest, data) in &blobs[..3] {
            store.put_bytes(digest, data.clone()).unwrap();
        }
        // Being asked after is a use.
        store.find_missing(&[blobs[0].0]).await.unwrap();
        store.put_bytes(&blobs[3].0, blobs[3].1.clone()).unwrap();
        let there: Vec<bool> = blobs.iter().map(|(digest, _)| store.get_bytes(digest).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        assert_eq!(store.lock().bytes, 3 * each);
    }

    #[tokio::test]
    async fn a_blob_beyond_the_bound_is_refused_and_evicts_nothing() {
        let store = MemoryBlobs::new(1500);
        let (small, data) = blob(1000, 1);
        store.put_bytes(&small, data).unwrap();
        let (large, data) = blob(2000, 2);
        assert!(matches!(store.put(&large, stream_of(data)).await, Err(StoreError::Full { .. })));
        assert!(store.get_bytes(&small).is_some());
    }

    #[tokio::test]
    async fn a_result_is_replaced_and_instances_are_apart() {
        let store = MemoryActions::new(1 << 20);
        let key = |instance: &str| ActionKey { instance: instance.into(), action: blob(1, 1).0 };
        for exit_code in [1, 2] {
            store.put(&key("a"), ActionResult { exit_code, ..Default::default() }).await.unwrap();
        }
        assert_eq!(store.get(&key("a")).await.unwrap().unwrap().exit_code, 2);
        assert_eq!(store.get(&key("b")).await.unwrap(), None);
        assert_eq!(store.lock().entries.len(), 1);
    }
}
