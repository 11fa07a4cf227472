//! Reading blobs so that no wrong byte gets out.
//!
//! Small blobs are verified whenever they are read. A file that was verified since the server started, and has not changed, is read as it is. Any other is
//! verified on this occasion: a small one in memory, a part of a large one by a pass over all of it, and a
//! large one that is read whole on the way, with the last piece held back until the hash is right.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use castwork_cas::store::stream_of;
use castwork_cas::{BlobStream, ByteRange, Digest, Hasher, StoreError};
use futures::StreamExt as _;

use super::layout::FileKey;
use super::pins::PinGuard;
use super::shared::{OpenFile, Shared, blocking, disk};

/// Files up to this size are read in one go.
const ONE_GO_BYTES_MAX: u64 = 256 * 1024;

/// Larger ones are read in pieces of this size.
const PIECE_BYTES: u64 = 256 * 1024;

impl Shared {
    /// Whether a blob is there with the right bytes, and will be after a power cut. Blocks; reads all of
    /// the blob if it was not verified yet.
    pub(crate) fn has_verified(&self, digest: &Digest) -> bool {
        let key = FileKey::Blob(*digest);
        if key.is_small() {
            // What is not known yet is uploaded once more, which costs less than to wait.
            return matches!(self.read_small(&key), Ok(Some(_))) && self.is_kept(&key).unwrap_or(false);
        }
        let verify = || -> Result<bool, StoreError> {
            if !self.is_kept(&FileKey::Blob(*digest))? {
                return Ok(false);
            }
            let Some(mut open) = self.open_blob(digest)? else { return Ok(false) };
            self.verify(digest, &mut open)
        };
        // If it can't be read it is as good as absent: whoever asks has the bytes.
        verify().unwrap_or(false)
    }

    /// Whether the file holds the blob; if not, it is dropped. Blocks.
    fn verify(&self, digest: &Digest, open: &mut OpenFile) -> Result<bool, StoreError> {
        if self.verified.contains(digest, open.changed) {
            return Ok(true);
        }
        self.verify_bytes(digest, open)
    }

    fn verify_bytes(&self, digest: &Digest, open: &mut OpenFile) -> Result<bool, StoreError> {
        let failed = |source| disk("read", &self.layout.path(&FileKey::Blob(*digest)), source);
        let mut hasher = Hasher::new(digest.function());
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = open.file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        open.file.rewind().map_err(failed)?;
        Ok(self.judge(digest, open.changed, &hasher.finish()))
    }

    /// Reads a file whole, and drops it if it does not hold the blob. Blocks.
    pub(crate) fn verify_file(&self, digest: &Digest) -> Result<(), StoreError> {
        // It may be evicted meanwhile.
        let Some(mut open) = self.open_blob(digest)? else { return Ok(()) };
        self.verify_bytes(digest, &mut open).map(|_| ())
    }

    /// Remembers that a file is good, or drops it.
    fn judge(&self, digest: &Digest, changed: SystemTime, got: &Digest) -> bool {
        if got == digest {
            self.verified.insert(digest, changed);
        } else {
            self.drop_corrupt(&FileKey::Blob(*digest), changed);
        }
        got == digest
    }
}

/// Begins to read a blob, which stays pinned until the stream is dropped.
pub(crate) async fn read(
    shared: Arc<Shared>,
    digest: Digest,
    range: ByteRange,
) -> Result<BlobStream, StoreError> {
    let pin = shared.pins.pin([digest]);
    let size = digest.size_bytes();
    let end = range.limit.map_or(size, |limit| size.min(range.offset.saturating_add(limit)));
    let (offset, is_whole) = (range.offset, range.offset == 0 && end == size);
    if size <= ONE_GO_BYTES_MAX {
        let key = FileKey::Blob(digest);
        let data = if key.is_small() {
            shared.find_small(key).await?.ok_or(StoreError::Missing(digest))?
        } else {
            blocking(move || read_whole(&shared, &digest)).await?
        };
        let (start, end) = (in_memory(offset), in_memory(end));
        return Ok(stream_of(data.slice(start..end)).filter(is_some_bytes).boxed());
    }
    let reading = blocking(move || Reading::begin(shared, digest, offset..end, is_whole, pin)).await?;
    Ok(futures::stream::try_unfold(reading, |reading| async move {
        if reading.position == reading.end {
            return Ok(None);
        }
        blocking(move || reading.next_piece()).await.map(Some)
    })
    .boxed())
}

fn is_some_bytes(piece: &Result<Bytes, StoreError>) -> std::future::Ready<bool> {
    std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty))
}

fn in_memory(position: u64) -> usize {
    usize::try_from(position).expect("a small blob fits into memory")
}

fn read_whole(shared: &Shared, digest: &Digest) -> Result<Bytes, StoreError> {
    let mut open = shared.open_blob(digest)?.ok_or(StoreError::Missing(*digest))?;
    let mut data = Vec::with_capacity(in_memory(open.bytes));
    open.file
        .read_to_end(&mut data)
        .map_err(|source| disk("read", &shared.layout.path(&FileKey::Blob(*digest)), source))?;
    let is_good = shared.verified.contains(digest, open.changed) && data.len() as u64 == open.bytes
        || shared.judge(digest, open.changed, &Digest::of(digest.function(), &data));
    if is_good { Ok(data.into()) } else { Err(StoreError::Missing(*digest)) }
}

/// A large blob that is being read.
struct Reading {
    shared: Arc<Shared>,
    digest: Digest,
    file: File,
    changed: SystemTime,
    position: u64,
    end: u64,
    /// Hashes on the way, if the file is not known to be good.
    hasher: Option<Hasher>,
    _pin: PinGuard,
}

impl Reading {
    fn begin(
        shared: Arc<Shared>,
        digest: Digest,
        range: std::ops::Range<u64>,
        is_whole: bool,
        pin: PinGuard,
    ) -> Result<Self, StoreError> {
        let mut open = shared.open_blob(&digest)?.ok_or(StoreError::Missing(digest))?;
        let hashes = is_whole && !shared.verified.contains(&digest, open.changed);
        if !hashes && !shared.verify(&digest, &mut open)? {
            return Err(StoreError::Missing(digest));
        }
        let OpenFile { mut file, changed, .. } = open;
        file.seek(SeekFrom::Start(range.start))
            .map_err(|source| disk("read", &shared.layout.path(&FileKey::Blob(digest)), source))?;
        let hasher = hashes.then(|| Hasher::new(digest.function()));
        Ok(Self { shared, digest, file, changed, position: range.start, end: range.end, hasher, _pin: pin })
    }

    fn next_piece(mut self) -> Result<(Bytes, Self), StoreError> {
        let length = (self.end - self.position).min(PIECE_BYTES);
        let mut piece = vec![0; in_memory(length)];
        if let Err(error) = self.file.read_exact(&mut piece) {
            return Err(self.failed(error));
        }
        self.position += length;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        let hasher = if self.position == self.end { self.hasher.take() } else { None };
        if let Some(hasher) = hasher
            && !self.shared.judge(&self.digest, self.changed, &hasher.finish())
        {
            return Err(StoreError::Missing(self.digest));
        }
        Ok((piece.into(), self))
    }

    fn failed(&self, error: io::Error) -> StoreError {
        let key = FileKey::Blob(self.digest);
        if error.kind() == io::ErrorKind::UnexpectedEof {
            self.shared.drop_corrupt(&key, self.changed);
            return StoreError::Missing(self.digest);
        }
        disk("read", &self.shared.layout.path(&key), error)
    }
}
