//! [`ReadThrough`]: a fast store in front of a slow one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;
use tracing::debug;

use crate::store::ByteRange;
use crate::{BlobStore, BlobStream, Digest, StoreError};

/// Reads from `fast`; what is not there is first copied from `slow`. Writes go to both.
///
/// Any number of concurrent reads of one blob share one fetch from `slow`.
pub struct ReadThrough<Fast, Slow> {
    fast: Fast,
    slow: Slow,
    turns: Turns,
}

impl<Fast: BlobStore, Slow: BlobStore> ReadThrough<Fast, Slow> {
    /// Puts `fast` in front of `slow`.
    pub fn new(fast: Fast, slow: Slow) -> Self {
        Self { fast, slow, turns: Mutex::default() }
    }

    /// Sees to it that the fast store has a blob.
    ///
    /// # Errors
    /// What the slow store says, or the fast one if it can't keep the blob.
    pub async fn fetch(&self, digest: &Digest) -> Result<(), StoreError> {
        let turn = self.turn(digest);
        let _mine = turn.lock.lock().await;
        self.fetch_alone(digest).await
    }

    async fn fetch_alone(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.fast.find_missing(std::slice::from_ref(digest)).await?.is_empty() {
            return Ok(());
        }
        debug!(%digest, "read through");
        self.fast.put(digest, self.slow.get(digest, ByteRange::ALL).await?).await
    }

    fn turn(&self, digest: &Digest) -> Turn<'_> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = turns.entry(*digest).or_default().clone();
        Turn { turns: &self.turns, digest: *digest, lock }
    }
}

type Turns = Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>;

/// The lock of everyone who fetches a blob now; forgotten with the last of them, also one who gives up.
struct Turn<'a> {
    turns: &'a Turns,
    digest: Digest,
    lock: Arc<AsyncMutex<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // One is the map's, one is ours; nobody can take another while the map is locked.
        if Arc::strong_count(&self.lock) == 2 {
            turns.remove(&self.digest);
        }
    }
}

#[async_trait]
impl<Fast: BlobStore, Slow: BlobStore> BlobStore for ReadThrough<Fast, Slow> {
    /// What the slow store lacks; the fast one may forget at any time.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.slow.find_missing(digests).await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        match self.fast.get(digest, range).await {
            Err(StoreError::Missing(_)) => {}
            answer => return answer,
        }
        match self.fetch(digest).await {
            // It is too large for the fast store; that is no reason not to have it.
            Err(StoreError::Full { .. }) => return self.slow.get(digest, range).await,
            fetched => fetched?,
        }
        match self.fast.get(digest, range).await {
            // It had to make room for others in between.
            Err(StoreError::Missing(_)) => self.slow.get(digest, range).await,
            answer => answer,
        }
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        self.fast.put(digest, data).await?;
        self.slow.put(digest, self.fast.get(digest, ByteRange::ALL).await?).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::DigestFunction;
    use crate::store::{collect, stream_of};

    /// A store in a map, slow if told so, that counts reads.
    #[derive(Default)]
    struct Map {
        blobs: Mutex<HashMap<Digest, Bytes>>,
        reads: AtomicUsize,
    }

    #[async_trait]
    impl BlobStore for Map {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            let blobs = self.blobs.lock().unwrap();
            Ok(digests.iter().filter(|digest| !blobs.contains_key(digest)).copied().collect())
        }

        async fn get(&self, digest: &Digest, _: ByteRange) -> Result<BlobStream, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let blob = self.blobs.lock().unwrap().get(digest).cloned();
            blob.map(stream_of).ok_or(StoreError::Missing(*digest))
        }

        async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
            let data = collect(data, u64::MAX).await?;
            self.blobs.lock().unwrap().insert(*digest, data);
            Ok(())
        }
    }

    type Both = ReadThrough<Arc<Map>, Arc<Map>>;

    fn stores() -> (Arc<Map>, Arc<Map>, Both, Digest) {
        let (fast, slow) = <(Arc<Map>, Arc<Map>)>::default();
        (fast.clone(), slow.clone(), ReadThrough::new(fast, slow), Digest::of(DigestFunction::Sha256, b"abc"))
    }

    #[tokio::test]
    async fn concurrent_reads_of_one_blob_share_one_fetch() {
        let (fast, slow, store, digest) = stores();
        slow.put(&digest, stream_of("abc".into())).await.unwrap();
        let reads = (0..20)
            .map(|_| async { collect(store.get(&digest, ByteRange::ALL).await.unwrap(), 3).await.unwrap() });
        assert!(futures::future::join_all(reads).await.iter().all(|data| data == "abc"));
        assert_eq!(slow.reads.load(Ordering::Relaxed), 1);
        assert!(fast.find_missing(&[digest]).await.unwrap().is_empty());
        assert!(store.turns.lock().unwrap().is_empty(), "turns are forgotten");
    }

    #[tokio::test]
    async fn what_neither_has_is_missing_and_what_is_written_reaches_both() {
        let (fast, slow, store, digest) = stores();
        assert!(matches!(store.get(&digest, ByteRange::ALL).await, Err(StoreError::Missing(_))));
        store.put(&digest, stream_of("abc".into())).await.unwrap();
        for end in [fast, slow] {
            assert!(end.find_missing(&[digest]).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_blob_too_large_for_the_fast_store_comes_from_the_slow_one() {
        let slow = Arc::new(Map::default());
        let store = ReadThrough::new(crate::MemoryBlobs::new(1), slow.clone());
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        slow.put(&digest, stream_of("abc".into())).await.unwrap();
        let data = store.get(&digest, ByteRange::ALL).await.unwrap();
        assert_eq!(collect(data, 3).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let (_, slow, store, digest) = stores();
        slow.put(&digest, stream_of("abc".into())).await.unwrap();
        {
            let mut read = std::pin::pin!(store.get(&digest, ByteRange::ALL));
            // The first poll goes as far as the fast store, the next ones into the fetch.
            while store.turns.lock().unwrap().is_empty() {
                assert!(futures::poll!(read.as_mut()).is_pending());
            }
        }
        assert!(store.turns.lock().unwrap().is_empty());
        assert!(store.get(&digest, ByteRange::ALL).await.is_ok());
    }
}
