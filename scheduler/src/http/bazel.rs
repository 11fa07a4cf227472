//! Bazel's HTTP cache: results below `/ac/`, blobs below `/cas/`.
//!
//! A result is kept as the bytes that were sent. It is answered only while every blob that it names can be
//! had here. Blobs are those of the whole server, so what another client has uploaded is not stored twice;
//! but paths say no sizes, so for each blob that came this way the size is written down beside it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use castwork_cas::complete::missing_of;
use castwork_cas::store::collect;
use castwork_cas::{ActionCache, ActionKey, BlobStore, BlobStream, ByteRange, Digest, StoreError};
use castwork_proto::reapi::ActionResult;
use castwork_proto::weigh::{self, Refused, weight_max};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::answer::Refusal;
use super::body::Upload;
use super::memory::Memory;
use super::range::Part;
use super::values::{self, Value, Values};
use crate::store::DiskBlobs;

/// Bytes of a result, at most; those are held in memory.
pub(super) const RESULT_BYTES_MAX: u64 = 4 << 20;

/// Where the sizes of blobs are kept.
const SIZES: &str = "/http/sizes";

/// Sizes that are looked up at the same time.
const LOOKUPS: usize = 64;

/// The blobs that can be had by their hash alone. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sized {
    pub(super) blobs: DiskBlobs,
    pub(super) results: Arc<dyn ActionCache>,
}

impl Sized {
    /// The whole digest of a blob, if it came with one and is there; it counts as used just now.
    pub(super) async fn find(&self, hash: &Digest) -> Result<Option<Digest>, StoreError> {
        let Some(digest) = self.digest_of(hash).await? else { return Ok(None) };
        let missing = self.blobs.find_missing(&[digest]).await?;
        Ok(missing.is_empty().then_some(digest))
    }

    /// Takes a blob of `bytes` bytes.
    pub(super) async fn keep(&self, hash: &Digest, bytes: u64, upload: &mut Upload) -> Result<(), Refusal> {
        let digest = Digest::from_hex(hash.function(), &hash.hash_hex(), bytes).map_err(StoreError::from)?;
        if !self.blobs.has_verified(&digest).await {
            let mut blob = self.blobs.upload(&digest);
            while let Some(data) = upload.next().await? {
                blob.append(data).await?;
            }
            blob.finish().await?;
        }
        self.note(&digest).await?;
        Ok(())
    }

    async fn digest_of(&self, hash: &Digest) -> Result<Option<Digest>, StoreError> {
        if *hash == Digest::empty(hash.function()) {
            return Ok(Some(*hash));
        }
        let noted = self.results.get(&size_key(hash)).await?.and_then(|result| result.stdout_digest);
        let digest = noted.and_then(|noted| Digest::from_proto(&noted, hash.function()).ok());
        Ok(digest.filter(|digest| digest.hash() == hash.hash()))
    }

    /// Writes the size of a blob down, which is known to be right.
    async fn note(&self, digest: &Digest) -> Result<(), StoreError> {
        let key = size_key(digest);
        let noted = Some(digest.to_proto());
        if self.results.get(&key).await?.is_some_and(|result| result.stdout_digest == noted) {
            return Ok(());
        }
        self.results.put(&key, ActionResult { stdout_digest: noted, ..ActionResult::default() }).await
    }
}

fn size_key(hash: &Digest) -> ActionKey {
    let hash = Digest::from_hex(hash.function(), &hash.hash_hex(), 0).expect("the hash of a digest");
    ActionKey { instance: SIZES.into(), action: hash }
}

#[async_trait]
impl BlobStore for Sized {
    /// What can't be had by its hash is missing here, whoever else has it.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut missing = self.blobs.find_missing(digests).await?;
        let absent: HashSet<Digest> = missing.iter().copied().collect();
        let there: BTreeSet<Digest> =
            digests.iter().filter(|digest| !absent.contains(digest)).copied().collect();
        let unknown = stream::iter(there)
            .map(|digest| async move {
                let found = self.digest_of(&digest).await?;
                Ok::<_, StoreError>((found != Some(digest)).then_some(digest))
            })
            .buffer_unordered(LOOKUPS)
            .try_filter_map(|digest| std::future::ready(Ok(digest)));
        missing.extend(unknown.try_collect::<Vec<Digest>>().await?);
        Ok(missing)
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        self.blobs.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        self.blobs.put(digest, data).await?;
        self.note(digest).await
    }
}

/// The results of Bazel's HTTP cache.
#[derive(Clone)]
pub(super) struct Results {
    pub(super) values: Values,
    pub(super) blobs: Sized,
    pub(super) memory: Memory,
}

impl Results {
    /// Finds a result whose blobs are all there.
    pub(super) async fn find(&self, instance: &str, hash: &Digest) -> Result<Value, Refusal> {
        let value = self.values.find(&result_key(instance, hash)).await?;
        if value.bytes == 0 {
            return Err(Refusal::Missing);
        }
        // Nobody stores a larger one.
        if value.bytes > RESULT_BYTES_MAX {
            return Err(Refusal::Missing);
        }
        let _memory = self.memory.take(held_bytes(value.bytes)).await?;
        let stream = self.values.read(&value, Part { start: 0, end: value.bytes }).await?;
        let data = collect(stream, RESULT_BYTES_MAX).await?;
        let result = decode(data).map_err(|_| Refusal::Missing)?;
        match missing_of(&self.blobs, &result, hash.function()).await {
            Ok(missing) if missing.is_empty() => Ok(value),
            Ok(_) | Err(StoreError::Digest(_)) => Err(Refusal::Missing),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a result.
    pub(super) async fn keep(
        &self,
        instance: &str,
        hash: &Digest,
        upload: &mut Upload,
    ) -> Result<(), Refusal> {
        let data = upload.gather(usize::MAX).await?;
        decode(data.clone())?;
        Ok(self.values.keep_bytes(&result_key(instance, hash), data).await?)
    }
}

fn result_key(instance: &str, hash: &Digest) -> ActionKey {
    values::key(&format!("bazel/{instance}"), &format!("{hash:?}"))
}

/// What whoever looks at a result of so many bytes, or fewer than there may be, holds in memory.
pub(super) fn held_bytes(bytes: u64) -> u64 {
    bytes + weight_max(usize::try_from(bytes).unwrap_or(usize::MAX)) as u64
}

/// Anything may be stored under an action, but it has to be a result, and not the empty one, which says
/// that all went well and nothing came of it.
fn decode(data: Bytes) -> Result<ActionResult, Refusal> {
    let no_result = "what belongs below /ac/ is an ActionResult; ccache's entries belong below /ccache/";
    let is_empty = data.is_empty();
    let result = match weigh::decode::<ActionResult>(data) {
        Ok(result) => Some(result).filter(|_| !is_empty),
        Err(Refused::Malformed) => None,
        Err(refused) => return Err(Refusal::Bad(refused.to_string())),
    };
    result.ok_or_else(|| Refusal::Bad(no_result.to_owned()))
}
