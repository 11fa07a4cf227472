//! [`Chunks`]: large blobs cut into parts that stay the same when the blob changes a little, and put together.
//!
//! A client that has an earlier version of a blob reads only the chunks that it lacks, and uploads only those
//! that are new. Blobs are cut by `FastCDC` 2020 with the parameters that capabilities state. Chunks are blobs
//! like all others; the list of a blob's chunks is remembered for as long as all of them are there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use castwork_cas::store::stream_of;
use castwork_cas::{ActionCache, ActionKey, BlobStore as _, BlobStream, ByteRange, Digest, StoreError};
use castwork_proto::reapi::{self, ActionResult, OutputFile};
use fastcdc::v2020::{Normalization, cut, select_masks};
use futures::{Stream, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::errors::{bad, to_status};
use super::instance::required_digest;
use crate::store::{DiskBlobs, Upload};

/// Size of a chunk on average, in bytes; it is never less than a quarter nor more than four times that.
pub const CHUNK_BYTES: usize = 512 << 10;

const CHUNK_BYTES_MIN: usize = CHUNK_BYTES / 4;
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES * 4;

/// Where lists of chunks are kept: an instance that no client can name, and the parameters.
const MAPPINGS: &str = "/chunks/fastcdc2020-524288-0";

/// Chunks of one blob that are stored at the same time.
const AT_ONCE: usize = 4;

/// Blobs that are cut, or put together, at the same time.
const TURNS: usize = 8;

/// Chunks up to this size are remembered while the next is the same one.
const REPEATED_BYTES_MAX: u64 = 64 << 10;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Chunks {
    blobs: DiskBlobs,
    mappings: Arc<dyn ActionCache>,
    blob_bytes_max: u64,
    turn_wait: Duration,
    turns: Arc<Semaphore>,
}

impl Chunks {
    /// Cuts the blobs of `blobs`. A list in `mappings` is one of chunks that are all there.
    pub fn new(
        blobs: DiskBlobs,
        mappings: Arc<dyn ActionCache>,
        blob_bytes_max: u64,
        turn_wait: Duration,
    ) -> Self {
        Self { blobs, mappings, blob_bytes_max, turn_wait, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Returns the chunks of a blob in order; all of them are there, and count as used just now.
    ///
    /// # Errors
    /// `NOT_FOUND` if the blob is missing.
    pub(super) async fn split(&self, blob: &Digest) -> Result<Vec<Digest>, Status> {
        let _turn = self.turn().await?;
        self.list(blob).await.map_err(to_status)
    }

    async fn list(&self, blob: &Digest) -> Result<Vec<Digest>, StoreError> {
        let key = ActionKey { instance: MAPPINGS.into(), action: *blob };
        // It also counts the blob as used.
        let is_there = self.blobs.find_missing(&[*blob]).await?.is_empty();
        let known = if is_there { self.mappings.get(&key).await? } else { None };
        if let Some(chunks) = known.and_then(|mapping| chunks_of(&mapping, blob)) {
            return Ok(chunks);
        }
        let function = blob.function();
        let chunks: Vec<Digest> = chunks(self.blobs.get(blob, ByteRange::ALL).await?)
            .map_ok(|chunk| async move {
                let digest = Digest::of(function, &chunk);
                self.blobs.put(&digest, stream_of(chunk)).await?;
                Ok(digest)
            })
            .try_buffered(AT_ONCE)
            .try_collect()
            .await?;
        self.mappings.put(&key, mapping(&chunks)).await?;
        Ok(chunks)
    }

    /// Begins to put a blob together; `None` if it is there already.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it would be larger than blobs may be.
    pub(super) async fn splice(&self, blob: &Digest) -> Result<Option<Splice>, Status> {
        let bytes_max = self.blob_bytes_max;
        if blob.size_bytes() > bytes_max {
            return Err(to_status(StoreError::TooLarge { bytes_max }));
        }
        if self.blobs.has_verified(blob).await {
            return Ok(None);
        }
        let turn = self.turn().await?;
        let upload = self.blobs.upload(blob);
        Ok(Some(Splice { blobs: self.blobs.clone(), upload, repeated: None, _turn: turn }))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        match tokio::time::timeout(self.turn_wait, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Status::unavailable("the server cuts as many blobs as it can; try again")),
        }
    }
}

/// A blob that is put together. Nothing is kept if it is dropped.
pub(super) struct Splice {
    blobs: DiskBlobs,
    upload: Upload,
    /// The chunk before, if it is small: some blobs are one chunk many times.
    repeated: Option<(Digest, Bytes)>,
    _turn: OwnedSemaphorePermit,
}

impl Splice {
    /// Appends chunks.
    ///
    /// # Errors
    /// `NOT_FOUND` if one is not there, `INVALID_ARGUMENT` if one is no digest or holds no bytes, or if they
    /// are more than the blob.
    pub(super) async fn append(&mut self, chunks: &[reapi::Digest]) -> Result<(), Status> {
        let chunks = self.check(chunks)?;
        let missing = self.blobs.find_missing(&chunks).await.map_err(to_status)?;
        if let Some(digest) = missing.first() {
            return Err(to_status(StoreError::Missing(*digest)));
        }
        for chunk in chunks {
            self.append_one(&chunk).await.map_err(to_status)?;
        }
        Ok(())
    }

    fn check(&self, chunks: &[reapi::Digest]) -> Result<Vec<Digest>, Status> {
        let blob = *self.upload.digest();
        let mut left = blob.size_bytes() - self.upload.received_bytes();
        let mut checked = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let chunk = required_digest(Some(chunk), blob.function(), "chunk_digests")?;
            if chunk.size_bytes() == 0 {
                return Err(bad("`chunk_digests`: a chunk without bytes"));
            }
            left = left
                .checked_sub(chunk.size_bytes())
                .ok_or_else(|| bad("`chunk_digests`: they have more bytes than the blob"))?;
            checked.push(chunk);
        }
        Ok(checked)
    }

    async fn append_one(&mut self, chunk: &Digest) -> Result<(), StoreError> {
        if let Some((digest, data)) = &self.repeated
            && digest == chunk
        {
            return self.upload.append(data.clone()).await;
        }
        let mut stream = self.blobs.get(chunk, ByteRange::ALL).await?;
        self.repeated = None;
        while let Some(data) = stream.try_next().await? {
            if chunk.size_bytes() <= REPEATED_BYTES_MAX && data.len() as u64 == chunk.size_bytes() {
                self.repeated = Some((*chunk, data.clone()));
            }
            self.upload.append(data).await?;
        }
        Ok(())
    }

    /// Verifies the blob and keeps it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the chunks do not make it.
    pub(super) async fn finish(self) -> Result<(), Status> {
        self.upload.finish().await.map_err(to_status)
    }
}

/// A list of chunks, as a result that names them.
fn mapping(chunks: &[Digest]) -> ActionResult {
    let file = |digest: &Digest| OutputFile { digest: Some(digest.to_proto()), ..OutputFile::default() };
    ActionResult { output_files: chunks.iter().map(file).collect(), ..ActionResult::default() }
}

fn chunks_of(mapping: &ActionResult, blob: &Digest) -> Option<Vec<Digest>> {
    let digest = |file: &OutputFile| Digest::from_proto(file.digest.as_ref()?, blob.function()).ok();
    let chunks = mapping.output_files.iter().map(digest).collect::<Option<Vec<Digest>>>()?;
    (chunks.iter().map(Digest::size_bytes).sum::<u64>() == blob.size_bytes()).then_some(chunks)
}

/// Cuts a blob. Holds one chunk of the largest size, and what came with its end.
fn chunks(blob: BlobStream) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let cutter = Cutter { blob, buffer: BytesMut::new(), is_ended: false };
    futures::stream::try_unfold(cutter, |mut cutter| async move {
        Ok(cutter.next().await?.map(|chunk| (chunk, cutter)))
    })
}

struct Cutter {
    blob: BlobStream,
    buffer: BytesMut,
    is_ended: bool,
}

impl Cutter {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.is_ended && self.buffer.len() < CHUNK_BYTES_MAX {
            match self.blob.try_next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => self.is_ended = true,
            }
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let length = first_chunk(&self.buffer);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Length of the first chunk of some bytes: the rest of a blob, or at least as many as a chunk can have.
fn first_chunk(bytes: &[u8]) -> usize {
    let (strict, relaxed) = select_masks(CHUNK_BYTES, Normalization::Level2);
    let (_, length) =
        cut(bytes, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX, strict, relaxed, strict << 1, relaxed << 1);
    length
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;
    use fastcdc::v2020::FastCDC;
    use futures::StreamExt as _;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"chunks").finalize_xof().fill(&mut bytes);
        bytes
    }

    async fn lengths(data: &[u8], piece: usize) -> Vec<usize> {
        let pieces: Vec<_> = data.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let chunks: Vec<Bytes> = chunks(futures::stream::iter(pieces).boxed()).try_collect().await.unwrap();
        assert_eq!(chunks.concat(), data);
        chunks.iter().map(Bytes::len).collect()
    }

    #[tokio::test]
    async fn a_blob_is_cut_in_the_same_places_however_its_bytes_come() {
        let data = noise(9_000_001);
        let level = Normalization::Level2;
        let whole = FastCDC::with_level(&data, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX, level);
        let expected: Vec<usize> = whole.map(|chunk| chunk.length).collect();
        assert!(expected.len() > 5, "{expected:?}");
        for piece in [100_000, 262_144, 5_000_000, 9_000_001] {
            assert_eq!(lengths(&data, piece).await, expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_cut_is_one_chunk_or_none() {
        assert_eq!(lengths(b"small", 5).await, [5]);
        assert!(lengths(b"", 5).await.is_empty());
        assert_eq!(lengths(&vec![0; 5_000_000], 99_999).await, [2_097_152, 2_097_152, 805_696]);
    }

    #[test]
    fn a_list_of_other_chunks_than_the_blobs_is_none() {
        let function = DigestFunction::Sha256;
        let parts = [Digest::of(function, b"ab"), Digest::of(function, b"c")];
        assert_eq!(chunks_of(&mapping(&parts), &Digest::of(function, b"abc")), Some(parts.to_vec()));
        assert_eq!(chunks_of(&mapping(&parts[..1]), &Digest::of(function, b"abc")), None);
    }
}
