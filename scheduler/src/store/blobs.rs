//! [`DiskBlobs`]: the blobs of a [`Store`](super::Store).

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use castwork_cas::{BlobStore, BlobStream, ByteRange, Digest, StoreError};
use futures::TryStreamExt as _;

use super::layout::FileKey;
use super::read;
use super::shared::{Shared, blocking};
use super::upload::Upload;

/// Digests that are looked up, and pinned meanwhile, together.
const LOOKUP_DIGESTS: usize = 1000;

/// Keeps blobs as files, durably. Cheap to clone.
#[derive(Clone)]
pub struct DiskBlobs {
    shared: Arc<Shared>,
}

impl DiskBlobs {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
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
            self.shared.ledger.used([(FileKey::Blob(digest), digest.size_bytes())]);
        }
        has
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let wanted: BTreeSet<Digest> =
            digests.iter().filter(|digest| !digest.is_empty_blob()).copied().collect();
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let wanted: Vec<Digest> = wanted.into_iter().collect();
            let mut missing = Vec::new();
            for some in wanted.chunks(LOOKUP_DIGESTS) {
                missing.extend(find_missing(&shared, some)?);
            }
            Ok(missing)
        })
        .await
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
        let stream = read::read(shared, *digest, range).await?;
        self.shared.ledger.used([(key, digest.size_bytes())]);
        self.shared.counters.blobs_read.add(1);
        let shared = Arc::clone(&self.shared);
        let counted = stream.inspect_ok(move |piece| shared.counters.blob_bytes_read.add(piece.len() as u64));
        Ok(Box::pin(counted))
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
    let mut present = Vec::with_capacity(digests.len());
    for digest in digests {
        let key = FileKey::Blob(*digest);
        if shared.is_kept(&key)? {
            present.push((key, digest.size_bytes()));
        } else {
            missing.push(*digest);
        }
    }
    shared.ledger.used(present);
    Ok(missing)
}
