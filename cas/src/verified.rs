//! [`Verified`]: what comes out of a store, and what goes in, is what its name says.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::store::ByteRange;
use crate::{BlobStore, BlobStream, Digest, Hasher, StoreError};

/// Checks every blob against its digest, on its way in and on its way out.
///
/// A blob that is read whole is checked whole: the stream ends in [`StoreError::Mismatch`] before its last
/// bytes are handed on. A part of a blob can't be checked and passes as it is.
pub struct Verified<S> {
    inner: S,
}

impl<S> Verified<S> {
    /// Wraps a store that may be wrong.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Verified<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        let data = self.inner.get(digest, range).await?;
        let whole = range.offset == 0 && range.limit.is_none_or(|limit| limit >= digest.size_bytes());
        Ok(if whole { verify(*digest, data) } else { data })
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        self.inner.put(digest, verify(*digest, data)).await
    }
}

/// Passes a stream on and checks it; holds the newest piece back until the ones after it are known, so that
/// nobody sees the last bytes of a wrong blob.
pub fn verify(expected: Digest, data: BlobStream) -> BlobStream {
    let checking =
        Checking { data, expected, hasher: Some(Hasher::new(expected.function())), held: None, seen: 0 };
    futures::stream::try_unfold(checking, |mut checking| async move {
        Ok(checking.next().await?.map(|piece| (piece, checking)))
    })
    .boxed()
}

struct Checking {
    data: BlobStream,
    expected: Digest,
    /// Taken when the stream has ended.
    hasher: Option<Hasher>,
    held: Option<Bytes>,
    seen: u64,
}

impl Checking {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while let Some(hasher) = &mut self.hasher {
            let Some(piece) = self.data.try_next().await? else {
                self.end()?;
                break;
            };
            hasher.update(&piece);
            self.seen += piece.len() as u64;
            if self.seen > self.expected.size_bytes() {
                self.end()?;
            }
            if let Some(earlier) = self.held.replace(piece) {
                return Ok(Some(earlier));
            }
        }
        Ok(self.held.take())
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let Some(got) = self.hasher.take().map(Hasher::finish) else {
            return Ok(());
        };
        if got == self.expected {
            return Ok(());
        }
        self.held = None;
        Err(StoreError::Mismatch { expected: self.expected, got: Box::new(got) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;
    use crate::store::collect;

    fn stream(pieces: &[&'static str]) -> BlobStream {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        futures::stream::iter(pieces).boxed()
    }

    #[tokio::test]
    async fn right_bytes_pass_in_any_pieces() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        for pieces in [&["abc"][..], &["a", "bc"], &["", "a", "", "b", "c", ""]] {
            assert_eq!(collect(verify(digest, stream(pieces)), 3).await.unwrap(), "abc");
        }
        let empty = Digest::empty(DigestFunction::Blake3);
        assert_eq!(collect(verify(empty, stream(&[])), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn wrong_bytes_end_in_an_error_before_the_last_of_them() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        for pieces in [&["abx"][..], &["ab"], &["ab", "cd"], &["a", "b"], &[]] {
            let mut data = verify(digest, stream(pieces));
            let mut seen = 0;
            let error = loop {
                match data.try_next().await {
                    Ok(Some(piece)) => seen += piece.len(),
                    Ok(None) => panic!("{pieces:?} passed"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, StoreError::Mismatch { expected, .. } if expected == digest));
            assert!(seen < 3, "{pieces:?}: all bytes were handed on");
        }
    }
}
