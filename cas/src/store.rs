//! [`BlobStore`] and [`ActionCache`]: the two places content is kept in, three verbs and two.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use castwork_proto::reapi::ActionResult;
use futures::{Stream, StreamExt, TryStreamExt};

use crate::{Digest, DigestError};

/// The bytes of a blob, in order, in pieces of any size.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// Wraps bytes that are in memory.
pub fn stream_of(data: Bytes) -> BlobStream {
    futures::stream::once(async move { Ok(data) }).boxed()
}

/// Gathers a stream of at most `bytes_max` bytes.
///
/// # Errors
/// [`StoreError::TooLarge`] as soon as there are more, and whatever the stream ends in.
pub async fn collect(mut stream: BlobStream, bytes_max: u64) -> Result<Bytes, StoreError> {
    let mut all = Vec::new();
    while let Some(piece) = stream.try_next().await? {
        if (all.len() + piece.len()) as u64 > bytes_max {
            return Err(StoreError::TooLarge { bytes_max });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// Which part of a blob is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// Bytes to leave out at the start; at most the blob's size.
    pub offset: u64,
    /// Most bytes to return; `None` for all there are.
    pub limit: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: Self = Self { offset: 0, limit: None };
}

/// A place where blobs are kept under their digests.
///
/// Every store behaves as if it held the empty blob of every function (REAPI).
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Returns the digests the store lacks, each once; the others count as used just now.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;

    /// Returns the bytes of a blob, or of a part of it; the blob counts as used just now.
    ///
    /// The stream ends in an error, never short, if the blob is lost while it is read.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such blob, [`StoreError::Range`] if the range
    /// starts past its end.
    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError>;

    /// Keeps a blob. Returns when it is kept as firmly as this store keeps anything.
    ///
    /// A store that already has the blob may return without reading `data` to its end.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if the bytes are not the digest's; nothing is kept then.
    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError>;
}

/// What a result is kept under: the instance and the action's digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionKey {
    /// REAPI instance name; may be empty.
    pub instance: Arc<str>,
    /// Digest of the Action message.
    pub action: Digest,
}

/// A place where the results of actions are kept.
#[async_trait]
pub trait ActionCache: Send + Sync + 'static {
    /// Returns the result of an action, if one is known; it counts as used just now.
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError>;

    /// Keeps a result in place of an earlier one. Whoever reads sees the old or the new, whole.
    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError>;
}

#[async_trait]
impl<T: BlobStore + ?Sized> BlobStore for Arc<T> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        (**self).find_missing(digests).await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        (**self).get(digest, range).await
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        (**self).put(digest, data).await
    }
}

#[async_trait]
impl<T: ActionCache + ?Sized> ActionCache for Arc<T> {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        (**self).get(key).await
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        (**self).put(key, result).await
    }
}

impl StoreError {
    /// The error for bytes that were to be `expected` and are `got`.
    pub fn mismatch(expected: &Digest, got: Digest) -> Self {
        Self::Mismatch { expected: *expected, got: Box::new(got) }
    }
}

/// Why a store could not do what was asked; a variant for each thing that a caller may do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such blob: upload it, or treat what named it as absent.
    #[error("blob `{0}` is not there")]
    Missing(Digest),
    /// The store does not know yet whether it has it, because it has just started: ask again.
    #[error("the store has just started and does not know yet whether it has `{0}`")]
    NotKnown(Digest),
    /// The range starts past the end of the blob.
    #[error("offset {offset} is past the end of blob `{digest}`")]
    Range {
        /// The blob.
        digest: Digest,
        /// Where the range starts, in bytes.
        offset: u64,
    },
    /// The bytes are not those of the digest: whoever sent them is wrong.
    #[error("bytes sent as `{expected}` are `{got}`")]
    Mismatch {
        /// What they were to be.
        expected: Digest,
        /// What they are; if they were too many, the digest of those read.
        got: Box<Digest>,
    },
    /// More bytes than are taken here.
    #[error("more than {bytes_max} bytes")]
    TooLarge {
        /// The bound, in bytes.
        bytes_max: u64,
    },
    /// No room: disk full, or a quota.
    #[error("no room to keep `{digest}`")]
    Full {
        /// What was to be kept.
        digest: Digest,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// Compressed bytes that do not decode.
    #[error("compressed bytes do not decode")]
    Encoding(#[source] io::Error),
    /// The other side named something that is no digest.
    #[error("a digest from the other side")]
    Digest(#[from] DigestError),
    /// The disk failed.
    #[error("{step}")]
    Disk {
        /// What was tried, on which file.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The other server refused, or could not be reached.
    #[error("{step} at `{address}`")]
    Remote {
        /// What was tried.
        step: &'static str,
        /// Which server.
        address: Arc<str>,
        /// What it answered.
        #[source]
        source: Box<tonic::Status>,
    },
}
