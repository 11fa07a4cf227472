//! [`DiskBlobs`]: the blobs of a [`Store`](super::Store).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use castwork_cas::{BlobStore, BlobStream, ByteRange, Digest, StoreError};
use futures::TryStreamExt as _;

use super::layout::FileKey;
use super::many;
use super::read;
use super::shared::{Shared, blocking};
use super::upload::Upload;
use crate::tier::Tier;

/// Digests that are looked up, and pinned meanwhile, together.
const LOOKUP_DIGESTS: usize = 1000;

/// Keeps blobs, durably unless told otherwise. Cheap to clone.
#[derive(Clone)]
pub struct DiskBlobs {
    shared: Arc<Shared>,
    /// Has what is not here.
    tier: Option<Arc<Tier>>,
}

impl DiskBlobs {
    pub(super) fn new(shared: Arc<Shared>, tier: Option<Arc<Tier>>) -> Self {
        Self { shared, tier }
    }

    /// Begins to store a blob whose bytes come bit by bit.
    pub fn upload(&self, digest: &Digest) -> Upload {
        Upload::begin(Arc::clone(&self.shared), *digest)
    }

    /// Whether a blob is there with the right bytes, so that nobody need send them; it then counts as used
    /// just now.
    ///
    /// Other than `find_missing`, this reads a blob that was not verified since the server started: the
    /// answer to a write is a promise.
    pub async fn has_verified(&self, digest: &Digest) -> bool {
        if digest.is_empty_blob() {
            return true;
        }
        let (shared, digest) = (Arc::clone(&self.shared), *digest);
        let _pin = self.shared.pins.pin([digest]);
        let has = blocking(move || shared.has_verified(&digest)).await;
        if has {
            self.used(&FileKey::Blob(digest), &digest);
        }
        has
    }

    /// A blob as the zstd frames that it is kept as; `None` if it is not, or not there.
    ///
    /// # Errors
    /// As [`BlobStore::get`].
    pub async fn get_packed(&self, digest: &Digest) -> Result<Option<BlobStream>, StoreError> {
        let key = FileKey::Blob(*digest);
        if key.is_small() {
            return Ok(None);
        }
        let stream = match read::read_packed(Arc::clone(&self.shared), *digest).await {
            Ok(Some(stream)) => stream,
            Ok(None) | Err(StoreError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.used(&key, digest);
        Ok(Some(self.counted(stream)))
    }

    fn counted(&self, stream: BlobStream) -> BlobStream {
        self.shared.counters.blobs_read.add(1);
        let shared = Arc::clone(&self.shared);
        Box::pin(stream.inspect_ok(move |piece| shared.counters.blob_bytes_read.add(piece.len() as u64)))
    }

    fn used(&self, key: &FileKey, digest: &Digest) {
        self.shared.pins.hold([*digest]);
        if !self.shared.segments.touch(key) && !key.is_small() {
            self.shared.ledger.used([(*key, digest.size_bytes())]);
        }
    }

    /// Keeps many blobs whose bytes are in memory, with as few syncs as there can be; for each, whether it
    /// is kept. When this returns, a power cut will not take those away.
    pub async fn put_all(&self, blobs: Vec<(Digest, Bytes)>) -> Vec<Result<(), StoreError>> {
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let stored = many::put_all(&self.shared, blobs).await;
        let kept = digests.into_iter().zip(&stored).filter(|(_, stored)| stored.is_ok());
        self.shared.pins.hold(kept.map(|(digest, _)| digest));
        stored
    }
}

impl DiskBlobs {
    /// Those of `wanted` that are not there, as far as all segments are known.
    async fn lookup(&self, wanted: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        let shared = Arc::clone(&self.shared);
        let mut missing = Vec::with_capacity(wanted.len());
        let mut elsewhere = Vec::new();
        for (number, digest) in wanted.into_iter().enumerate() {
            let key = FileKey::Blob(digest);
            if !key.is_small() || shared.is_older.load(Ordering::Relaxed) {
                elsewhere.push(digest);
            } else if !shared.segments.touch(&key) {
                missing.push(digest);
            }
            if number % LOOKUP_DIGESTS == LOOKUP_DIGESTS - 1 {
                tokio::task::yield_now().await;
            }
        }
        if elsewhere.is_empty() {
            return Ok(missing);
        }
        let in_files = blocking(move || {
            let mut missing = Vec::new();
            for some in elsewhere.chunks(LOOKUP_DIGESTS) {
                missing.extend(find_missing(&shared, some)?);
            }
            Ok::<_, StoreError>(missing)
        });
        missing.extend(in_files.await?);
        Ok(missing)
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let wanted: Vec<Digest> = digests.iter().filter(|digest| !digest.is_empty_blob()).copied().collect();
        let was_loaded = self.shared.segments.is_loaded();
        let mut missing = self.lookup(wanted).await?;
        if !was_loaded && let Some(first) = missing.iter().find(|digest| FileKey::Blob(**digest).is_small()) {
            self.shared.loaded(&FileKey::Blob(*first)).await?;
            missing = self.lookup(missing).await?;
        }
        let mut seen = HashSet::new();
        missing.retain(|digest| seen.insert(*digest));
        // After the look, which had them count as used just now: nothing that is there goes in between.
        self.shared.pins.hold(digests.iter().filter(|digest| !seen.contains(digest)).copied());
        match &self.tier {
            Some(tier) => Ok(tier.find_missing(missing).await),
            None => Ok(missing),
        }
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        let shared = Arc::clone(&self.shared);
        let key = FileKey::Blob(*digest);
        if digest.is_empty_blob() && range.offset == 0 {
            return Ok(Box::pin(futures::stream::empty()));
        }
        if range.offset > digest.size_bytes() {
            return Err(StoreError::Range { digest: *digest, offset: range.offset });
        }
        let stream = match (read::read(Arc::clone(&shared), *digest, range).await, &self.tier) {
            (Err(StoreError::Missing(missing)), Some(tier)) => match tier.read(digest, range).await {
                None => return Err(StoreError::Missing(missing)),
                Some(None) => read::read(shared, *digest, range).await?,
                // The store has no room for it.
                Some(Some(stream)) => return Ok(self.counted(stream)),
            },
            (stream, _) => stream?,
        };
        self.used(&key, digest);
        Ok(self.counted(stream))
    }

    async fn put(&self, digest: &Digest, mut data: BlobStream) -> Result<(), StoreError> {
        if self.has_verified(digest).await {
            return Ok(());
        }
        let mut upload = self.upload(digest);
        while let Some(piece) = data.try_next().await? {
            upload.append(piece).await?;
        }
        upload.finish().await
    }
}

/// Looks blobs up; those that are there are pinned until their use is written down, so that the answer
/// still holds when it is given.
fn find_missing(shared: &Shared, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
    let _pin = shared.pins.pin(digests.iter().copied());
    let mut missing = Vec::new();
    let mut present = Vec::new();
    for digest in digests {
        let key = FileKey::Blob(*digest);
        if shared.segments.touch(&key) {
            continue;
        }
        if shared.is_kept(&key)? {
            present.push((key, digest.size_bytes()));
        } else {
            missing.push(*digest);
        }
    }
    shared.ledger.used(present);
    Ok(missing)
}
