//! Reading blobs so that no wrong byte gets out.
//!
//! Small blobs are verified whenever they are read. A file that was verified within the hour, and has not changed, is
//! read as it is. Any other is
//! verified on this occasion: a small one in memory, a part of a large one by a pass over all of it, and a
//! large one that is read whole on the way, with the last piece held back until the hash is right.

use std::io::{self, Read, Seek as _};
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::files::Stamp;
use castwork_cas::store::stream_of;
use castwork_cas::{BlobStream, ByteRange, Digest, Hasher, StoreError};
use futures::StreamExt as _;
use tracing::warn;

use super::layout::FileKey;
use super::packed;
use super::pins::PinGuard;
use super::shared::{OpenFile, Shared, blocking, disk};
use crate::front::errors::with_cause;

/// Files up to this size are read in one go.
const ONE_GO_BYTES_MAX: u64 = 256 * 1024;

/// Larger ones are read in pieces of this size.
const PIECE_BYTES: u64 = 256 * 1024;

/// What a look at the bytes of a blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is there, and a power cut will not take it away.
    Verified,
    /// It is not there, or not yet for good.
    Absent,
    /// It is there, or was, and the disk does not give its bytes.
    Unreadable,
}

impl Shared {
    /// Whether a blob is there with the right bytes, and will be after a power cut. Blocks; reads all of
    /// the blob if it was not verified yet.
    pub(crate) fn has_verified(&self, digest: &Digest) -> bool {
        // If it can't be read it is as good as absent: whoever asks has the bytes.
        self.look(digest) == Look::Verified
    }

    /// As [`Shared::has_verified`], for who is about to store the blob. Blocks.
    pub(crate) fn look(&self, digest: &Digest) -> Look {
        let looked = if FileKey::Blob(*digest).is_small() {
            self.look_at_small(digest)
        } else {
            self.look_at_file(digest)
        };
        match looked {
            Ok(true) => Look::Verified,
            Ok(false) => Look::Absent,
            Err(error) => {
                warn!(error = with_cause(&error), %digest, "a blob can't be read; an upload takes its place");
                Look::Unreadable
            }
        }
    }

    fn look_at_small(&self, digest: &Digest) -> Result<bool, StoreError> {
        let key = FileKey::Blob(*digest);
        // What is not known yet is uploaded once more, which costs less than to wait.
        Ok(self.read_small(&key)?.is_some() && self.is_kept(&key)?)
    }

    fn look_at_file(&self, digest: &Digest) -> Result<bool, StoreError> {
        if !self.is_kept(&FileKey::Blob(*digest))? {
            return Ok(false);
        }
        let Some(mut open) = self.open_blob(digest)? else { return Ok(false) };
        self.verify(digest, &mut open)
    }

    /// Whether the file holds the blob; if not, it is dropped. Blocks.
    fn verify(&self, digest: &Digest, open: &mut OpenFile) -> Result<bool, StoreError> {
        if self.verified.contains(digest, open.stamp) {
            return Ok(true);
        }
        self.verify_bytes(digest, open)
    }

    fn verify_bytes(&self, digest: &Digest, open: &mut OpenFile) -> Result<bool, StoreError> {
        let failed = |source| disk("read", &self.layout.path(&FileKey::Blob(*digest)), source);
        let got = open.file.try_clone().and_then(|file| {
            let again = OpenFile { file, ..*open };
            hash(packed::reader(again, 0)?.take(digest.size_bytes() + 1), digest)
        });
        open.file.rewind().map_err(failed)?;
        match got {
            Ok(got) => Ok(self.judge(digest, open.stamp, &got)),
            Err(error) if packed::is_of_bytes(&error) => {
                self.drop_corrupt(&FileKey::Blob(*digest), open.stamp);
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads a file whole, and drops it if it does not hold the blob. Blocks.
    pub(crate) fn verify_file(&self, digest: &Digest) -> Result<(), StoreError> {
        // It may be evicted meanwhile.
        let Some(mut open) = self.open_blob(digest)? else { return Ok(()) };
        self.verify_bytes(digest, &mut open).map(|_| ())
    }

    /// Remembers that a file is good, or drops it.
    fn judge(&self, digest: &Digest, stamp: Stamp, got: &Digest) -> bool {
        if got == digest {
            self.verified.insert(digest, stamp);
        } else {
            self.drop_corrupt(&FileKey::Blob(*digest), stamp);
        }
        got == digest
    }
}

fn hash(mut bytes: impl Read, digest: &Digest) -> io::Result<Digest> {
    let mut hasher = Hasher::new(digest.function());
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = bytes.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

/// Begins to read a blob as the zstd that it is kept as; `None` if it is not. It stays pinned until the stream is
/// dropped.
pub(crate) async fn read_packed(
    shared: Arc<Shared>,
    digest: Digest,
) -> Result<Option<BlobStream>, StoreError> {
    let pin = shared.pins.pin([digest]);
    let reading = blocking(move || Reading::begin_packed(shared, digest, pin)).await?;
    Ok(reading.map(stream))
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
    Ok(stream(reading))
}

fn stream(reading: Reading) -> BlobStream {
    futures::stream::try_unfold(reading, |reading| async move {
        if reading.position == reading.end {
            return Ok(None);
        }
        blocking(move || reading.next_piece()).await.map(Some)
    })
    .boxed()
}

fn is_some_bytes(piece: &Result<Bytes, StoreError>) -> std::future::Ready<bool> {
    std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty))
}

fn in_memory(position: u64) -> usize {
    usize::try_from(position).expect("a small blob fits into memory")
}

fn read_whole(shared: &Shared, digest: &Digest) -> Result<Bytes, StoreError> {
    let open = shared.open_blob(digest)?.ok_or(StoreError::Missing(*digest))?;
    let stamp = open.stamp;
    let mut data = Vec::with_capacity(in_memory(digest.size_bytes()));
    let read =
        packed::reader(open, 0).and_then(|bytes| bytes.take(digest.size_bytes() + 1).read_to_end(&mut data));
    match read {
        Ok(_) => {}
        // What was read is not the blob.
        Err(error) if packed::is_of_bytes(&error) => data.clear(),
        Err(source) => return Err(disk("read", &shared.layout.path(&FileKey::Blob(*digest)), source)),
    }
    let is_good = shared.verified.contains(digest, stamp) && data.len() as u64 == digest.size_bytes()
        || shared.judge(digest, stamp, &Digest::of(digest.function(), &data));
    if is_good { Ok(data.into()) } else { Err(StoreError::Missing(*digest)) }
}

/// A large blob that is being read.
struct Reading {
    shared: Arc<Shared>,
    digest: Digest,
    bytes: Box<dyn io::Read + Send>,
    stamp: Stamp,
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
        let hashes = is_whole && !shared.verified.contains(&digest, open.stamp);
        if !hashes && !shared.verify(&digest, &mut open)? {
            return Err(StoreError::Missing(digest));
        }
        let stamp = open.stamp;
        let bytes = packed::reader(open, range.start)
            .map_err(|source| disk("read", &shared.layout.path(&FileKey::Blob(digest)), source))?;
        let hasher = hashes.then(|| Hasher::new(digest.function()));
        Ok(Self { shared, digest, bytes, stamp, position: range.start, end: range.end, hasher, _pin: pin })
    }

    fn begin_packed(shared: Arc<Shared>, digest: Digest, pin: PinGuard) -> Result<Option<Self>, StoreError> {
        let mut open = shared.open_blob(&digest)?.ok_or(StoreError::Missing(digest))?;
        let Some(end) = open.packed_bytes else { return Ok(None) };
        if !shared.verify(&digest, &mut open)? {
            return Err(StoreError::Missing(digest));
        }
        let OpenFile { file, stamp, .. } = open;
        let bytes = Box::new(file.take(end));
        Ok(Some(Self { shared, digest, bytes, stamp, position: 0, end, hasher: None, _pin: pin }))
    }

    fn next_piece(mut self) -> Result<(Bytes, Self), StoreError> {
        let length = (self.end - self.position).min(PIECE_BYTES);
        let mut piece = vec![0; in_memory(length)];
        if let Err(error) = self.bytes.read_exact(&mut piece) {
            return Err(self.failed(error));
        }
        self.position += length;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        let hasher = if self.position == self.end { self.hasher.take() } else { None };
        if let Some(hasher) = hasher
            && !self.shared.judge(&self.digest, self.stamp, &hasher.finish())
        {
            return Err(StoreError::Missing(self.digest));
        }
        Ok((piece.into(), self))
    }

    fn failed(&self, error: io::Error) -> StoreError {
        let key = FileKey::Blob(self.digest);
        if packed::is_of_bytes(&error) {
            self.shared.drop_corrupt(&key, self.stamp);
            return StoreError::Missing(self.digest);
        }
        disk("read", &self.shared.layout.path(&key), error)
    }
}
