//! Blobs as objects.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use opendal::{ErrorKind, Writer};
use tokio::time::timeout;
use tracing::warn;

use super::{Objects, name};
use crate::codec::{compress, decompress};
use crate::store::{ByteRange, collect, stream_of};
use crate::verified::verify;
use crate::{BlobStore, BlobStream, Digest, StoreError};

/// Questions that are under way at once: a round trip each, so one after the other would take a second a dozen.
const QUESTIONS_MAX: usize = 64;

/// Blobs up to this size are compared with their digest before the first byte is handed on.
const CHECKED_BYTES_MAX: u64 = 256 << 10;

/// Blobs up to this size are sent by one request, from memory.
const WHOLE_BYTES_MAX: u64 = 4 << 20;

/// Larger ones are sent in parts of this size, where the service takes parts …
const PART_BYTES: usize = 8 << 20;

/// … and where it does not (Redis, `WebDAV`), from memory, up to this size.
const WHOLE_BYTES_LIMIT: u64 = 64 << 20;

/// Memory of all those that are sent so at once, in MiB.
pub(super) const WHOLE_MIB_MAX: usize = (WHOLE_BYTES_LIMIT >> 20) as usize;

/// An object can be there or not; nothing here makes it count as used. Where objects are removed by age, blobs that
/// are in use are removed too, and have to be put again.
#[async_trait]
impl BlobStore for Objects {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked: BTreeSet<Digest> =
            digests.iter().filter(|digest| !digest.is_empty_blob()).copied().collect();
        futures::stream::iter(asked)
            .map(|digest| async move {
                let name = name::of_blob(&digest);
                let found = self.attempt("ask for a blob", || self.operator.stat(&name)).await?;
                Ok(Some(digest).filter(|_| found.is_none()))
            })
            .buffered(QUESTIONS_MAX)
            .try_filter_map(|missing| async move { Ok(missing) })
            .try_collect()
            .await
    }

    /// Whatever the range, the object is read from its start; what is read to its end has been compared.
    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        if range.offset > digest.size_bytes() {
            return Err(StoreError::Range { digest: *digest, offset: range.offset });
        }
        if digest.is_empty_blob() {
            return Ok(stream_of(Bytes::new()));
        }
        let name = name::of_blob(digest);
        let packed = self.read("read a blob", &name).await?.ok_or(StoreError::Missing(*digest))?;
        let this = self.clone();
        let plain = verify(*digest, decompress(packed, digest.size_bytes())).or_else(move |error| {
            let (this, name) = (this.clone(), name.clone());
            async move { Err(this.remove_if_wrong(&name, error).await) }
        });
        let plain: BlobStream = if digest.size_bytes() <= CHECKED_BYTES_MAX {
            stream_of(collect(plain.boxed(), CHECKED_BYTES_MAX).await?)
        } else {
            plain.boxed()
        };
        Ok(if range == ByteRange::ALL { plain } else { part(plain, range) })
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return Ok(());
        }
        let packed = compress(verify(*digest, data));
        let name = name::of_blob(digest);
        if digest.size_bytes() <= WHOLE_BYTES_MAX {
            self.put_object(WRITE, &name, collect(packed, u64::MAX).await?).await.map(drop)
        } else if self.operator.info().capability().write_can_multi {
            self.put_parts(&name, packed).await
        } else if digest.size_bytes() <= WHOLE_BYTES_LIMIT {
            let mib = u32::try_from(digest.size_bytes().div_ceil(1 << 20)).unwrap_or(u32::MAX);
            let _memory = self.whole.acquire_many(mib).await.map_err(|_| self.late(WRITE))?;
            self.put_object(WRITE, &name, collect(packed, u64::MAX).await?).await.map(drop)
        } else {
            Err(StoreError::TooLarge { bytes_max: WHOLE_BYTES_LIMIT })
        }
    }
}

const WRITE: &str = "write a blob";

/// What became of an object that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Written,
    /// The service never changes an object, and it is there already.
    There,
}

impl Objects {
    /// Says so if this store was opened to be read only.
    pub(super) fn may_write(&self, step: &'static str) -> Result<(), StoreError> {
        if self.is_writable {
            return Ok(());
        }
        let error = opendal::Error::new(ErrorKind::PermissionDenied, "it is only read (`mode=ro`)");
        Err(self.failed(step, &error))
    }

    /// Writes an object from memory; whoever reads it sees all of it, or what was there before.
    pub(super) async fn put_object(
        &self,
        step: &'static str,
        name: &str,
        data: Bytes,
    ) -> Result<Put, StoreError> {
        self.may_write(step)?;
        let write = || async { kept(self.operator.write(name, data.clone()).await.map(drop)) };
        self.attempt(step, write).await?.ok_or_else(|| self.nowhere(step))
    }

    fn nowhere(&self, step: &'static str) -> StoreError {
        self.failed(step, &opendal::Error::new(ErrorKind::NotFound, "there is no such bucket"))
    }

    /// Sends an object in parts; it is there when all of them are, or not at all.
    async fn put_parts(&self, name: &str, packed: BlobStream) -> Result<(), StoreError> {
        self.may_write(WRITE)?;
        let open = || async { self.operator.writer_with(name).chunk(PART_BYTES).await };
        let Some(mut writer) = self.attempt(WRITE, open).await? else {
            return Err(self.nowhere(WRITE));
        };
        if let Err(error) = self.send(&mut writer, packed).await {
            // What was sent would lie there unseen; if this fails too, the bucket's rules have to remove it.
            let _ = timeout(self.timeout, writer.abort()).await;
            return Err(error);
        }
        Ok(())
    }

    async fn send(&self, writer: &mut Writer, mut packed: BlobStream) -> Result<(), StoreError> {
        while let Some(piece) = packed.try_next().await? {
            match timeout(self.timeout, writer.write(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.failed(WRITE, &error)),
                Err(_) => return Err(self.late(WRITE)),
            }
        }
        match timeout(self.timeout, writer.close()).await {
            Ok(closed) => kept(closed.map(drop)).map(drop).map_err(|error| self.failed(WRITE, &error)),
            Err(_) => Err(self.late(WRITE)),
        }
    }

    /// Removes an object that is not what its name says, so that it is missing and can be put again.
    async fn remove_if_wrong(&self, name: &str, error: StoreError) -> StoreError {
        let is_wrong = matches!(
            error,
            StoreError::Mismatch { .. } | StoreError::Encoding(_) | StoreError::TooLarge { .. }
        );
        if is_wrong {
            // Without a permit: whoever reads holds one already.
            let removing = timeout(self.timeout, self.operator.delete(name));
            let removed = self.is_writable && matches!(removing.await, Ok(Ok(())));
            warn!(address = %self.address, name, removed, "an object is not what its name says");
        }
        error
    }
}

/// Services that never change an object say so when it is there already.
fn kept(written: opendal::Result<()>) -> opendal::Result<Put> {
    use ErrorKind::{AlreadyExists, ConditionNotMatch};
    match written {
        Ok(()) => Ok(Put::Written),
        Err(error) if matches!(error.kind(), AlreadyExists | ConditionNotMatch) => Ok(Put::There),
        Err(error) => Err(error),
    }
}

/// Leaves out what a range does not want.
fn part(data: BlobStream, range: ByteRange) -> BlobStream {
    let wanted = (range.offset, range.limit.unwrap_or(u64::MAX));
    futures::stream::try_unfold((data, wanted), |(mut data, (mut skip, mut left))| async move {
        while left > 0 {
            let Some(mut piece) = data.try_next().await? else {
                break;
            };
            let skipped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            skip -= skipped as u64;
            piece = piece.slice(skipped..);
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            if !piece.is_empty() {
                return Ok(Some((piece, (data, (skip, left)))));
            }
        }
        Ok(None)
    })
    .boxed()
}
