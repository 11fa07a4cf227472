//! [`ExistenceCached`]: remembers for a while which blobs a store has.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::store::ByteRange;
use crate::{BlobStore, BlobStream, Digest, StoreError};

/// Answers `find_missing` from memory for blobs seen within `ttl`.
///
/// Sound only over a store that keeps a blob at least `ttl` after it was last touched. Only presence is
/// remembered, never absence: a blob may be uploaded by somebody else at any moment.
pub struct ExistenceCached<S> {
    inner: S,
    ttl: Duration,
    entries_max: usize,
    seen: Mutex<HashMap<Digest, Instant>>,
}

impl<S> ExistenceCached<S> {
    /// Remembers at most `entries_max` blobs, each for `ttl` after it was seen.
    pub fn new(inner: S, ttl: Duration, entries_max: usize) -> Self {
        Self { inner, ttl, entries_max, seen: Mutex::default() }
    }

    /// The store behind.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// The digests that were not seen lately.
    fn unknown(&self, digests: &[Digest]) -> Vec<Digest> {
        let now = Instant::now();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |digest: &Digest| seen.get(digest).is_some_and(|at| now.duration_since(*at) < self.ttl);
        digests.iter().filter(|digest| !fresh(digest)).copied().collect()
    }

    fn remember(&self, digests: impl Iterator<Item = Digest>) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in digests {
            if seen.len() >= self.entries_max && !seen.contains_key(&digest) {
                self.make_room(&mut seen, now);
            }
            seen.insert(digest, now);
        }
    }

    /// Forgets what is stale; if that is nothing, everything: asking again is always right.
    fn make_room(&self, seen: &mut HashMap<Digest, Instant>, now: Instant) {
        let before = seen.len();
        seen.retain(|_, at| now.duration_since(*at) < self.ttl);
        if seen.len() == before {
            seen.clear();
        }
    }

    /// Has the store be asked again, as what was said of this blob turned out to be wrong.
    pub fn forget(&self, digest: &Digest) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for ExistenceCached<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let unknown = self.unknown(digests);
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.inner.find_missing(&unknown).await?;
        let absent: std::collections::HashSet<_> = missing.iter().copied().collect();
        self.remember(unknown.into_iter().filter(|digest| !absent.contains(digest)));
        Ok(missing)
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        let answer = self.inner.get(digest, range).await;
        if matches!(answer, Err(StoreError::Missing(_))) {
            self.forget(digest);
        }
        answer
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        self.inner.put(digest, data).await?;
        self.remember(std::iter::once(*digest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::DigestFunction;
    use crate::store::stream_of;

    /// Has every blob but those of size 1, and counts what it is asked for.
    #[derive(Default)]
    struct Counting {
        asked: AtomicUsize,
    }

    #[async_trait]
    impl BlobStore for Counting {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.asked.fetch_add(digests.len(), Ordering::Relaxed);
            Ok(digests.iter().filter(|digest| digest.size_bytes() == 1).copied().collect())
        }

        async fn get(&self, digest: &Digest, _: ByteRange) -> Result<BlobStream, StoreError> {
            Err(StoreError::Missing(*digest))
        }

        async fn put(&self, _: &Digest, _: BlobStream) -> Result<(), StoreError> {
            Ok(())
        }
    }

    const TTL: Duration = Duration::from_secs(60);

    fn store(entries_max: usize) -> ExistenceCached<Counting> {
        ExistenceCached::new(Counting::default(), TTL, entries_max)
    }

    fn blob(text: &str) -> Digest {
        Digest::of(DigestFunction::Sha256, text.as_bytes())
    }

    async fn asks(store: &ExistenceCached<Counting>, text: &str) -> usize {
        let before = store.inner().asked.load(Ordering::Relaxed);
        store.find_missing(&[blob(text)]).await.unwrap();
        store.inner().asked.load(Ordering::Relaxed) - before
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_seen_a_minute_ago_is_asked_for_again() {
        let store = store(10);
        assert_eq!(asks(&store, "abc").await, 1);
        assert_eq!(asks(&store, "abc").await, 0);
        tokio::time::advance(TTL).await;
        assert_eq!(asks(&store, "abc").await, 1);
    }

    #[tokio::test]
    async fn absence_is_never_remembered() {
        let store = store(10);
        assert_eq!(store.find_missing(&[blob("x")]).await.unwrap(), [blob("x")]);
        assert_eq!(asks(&store, "x").await, 1);
    }

    #[tokio::test]
    async fn an_upload_is_remembered_and_a_lost_blob_forgotten() {
        let store = store(10);
        store.put(&blob("abc"), stream_of("abc".into())).await.unwrap();
        assert_eq!(asks(&store, "abc").await, 0);
        assert!(store.get(&blob("abc"), ByteRange::ALL).await.is_err());
        assert_eq!(asks(&store, "abc").await, 1);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let store = store(3);
        for text in ["aa", "bb", "cc", "dd", "ee"] {
            asks(&store, text).await;
            assert!(store.seen.lock().unwrap().len() <= 3);
        }
    }
}
