//! [`FileBlobs`]: blobs as plain files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::NamedTempFile;
use tracing::warn;

use super::FileActions;
use super::folder::{Folder, disk};
use super::marks::Marks;
use crate::store::ByteRange;
use crate::verified::verify;
use crate::{BlobStore, BlobStream, Digest, Hasher, StoreError};

/// What is read from or written to a file at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Blobs up to this size are read whole and verified before the first byte is handed on.
const WHOLE_BYTES_MAX: u64 = 1024 * 1024;

/// Blobs in a folder of plain files, bounded in size, shared by any number of processes.
///
/// The calls that are not `async` are for programs without a runtime; they block.
#[derive(Clone)]
pub struct FileBlobs {
    folder: Arc<Folder>,
    verified: Arc<Marks>,
}

impl FileBlobs {
    /// Opens a folder, creating it if need be, that holds at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the folder can't be created or written.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        Ok(Self { folder: Folder::open(folder, bytes_max)?, verified: Arc::default() })
    }

    /// Opens a folder that somebody else writes, and in which nothing is changed: what is put is refused, and what is
    /// wrong stays.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if it can't be read.
    pub fn open_read_only(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self { folder: Folder::open_read_only(folder)?, verified: Arc::default() })
    }

    /// The results in the same folder, under the same bound.
    pub fn results(&self) -> FileActions {
        FileActions::new(self.folder.clone())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// Bytes of all blobs and results, as far as they are counted (a process that was killed may leave the
    /// account off by a file, until the next cleaning).
    pub fn usage_bytes(&self) -> u64 {
        self.folder.usage()
    }

    /// Bytes that all blobs and results may take up.
    pub fn bytes_max(&self) -> u64 {
        self.folder.bytes_max()
    }

    /// Blobs and results that were used within that time are still there, as far as this process had to make room;
    /// `None` if it had not.
    pub fn horizon(&self) -> Option<Duration> {
        self.folder.horizon()
    }

    /// Whether a blob is there, by its file's size; it counts as used just now.
    pub fn contains(&self, digest: &Digest) -> bool {
        digest.is_empty_blob() || self.open_file(digest).is_ok_and(|file| file.is_some())
    }

    /// Returns a blob of any size, verified, or `None` if it is not there. A file that holds other bytes
    /// than its name says is removed, and is not there.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the file can't be read.
    pub fn get_bytes(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Some(Bytes::new()));
        }
        let Some(mut file) = self.open_file(digest)? else {
            return Ok(None);
        };
        let mut data = Vec::with_capacity(usize::try_from(digest.size_bytes()).unwrap_or(0));
        file.read_to_end(&mut data).map_err(|error| disk("read", &self.place(digest), error))?;
        if Digest::of(digest.function(), &data) == *digest {
            return Ok(Some(data.into()));
        }
        self.drop_wrong(digest);
        Ok(None)
    }

    /// Keeps bytes that are in memory.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if they are not the digest's; [`StoreError::Full`] or [`StoreError::Disk`]
    /// if they can't be written.
    pub fn put_bytes(&self, digest: &Digest, data: &[u8]) -> Result<(), StoreError> {
        if self.contains(digest) {
            return Ok(());
        }
        let mut writing = Writing::begin(&self.folder, *digest)?;
        writing.write(data)?;
        writing.finish(self)
    }

    /// Keeps the content of a file by copying it.
    ///
    /// # Errors
    /// As [`FileBlobs::put_bytes`].
    pub fn put_file(&self, digest: &Digest, path: &Path) -> Result<(), StoreError> {
        if self.contains(digest) {
            return Ok(());
        }
        let mut source = File::open(path).map_err(|error| disk("open", path, error))?;
        let mut writing = Writing::begin(&self.folder, *digest)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece).map_err(|error| disk("read", path, error))? {
                0 => return writing.finish(self),
                read => writing.write(&piece[..read])?,
            }
        }
    }

    /// Returns a guard with the path of a blob's file, whole and verified, for hard links and copies. While
    /// it lives, this process does not evict the blob; others may unlink it, so link it soon.
    ///
    /// A file is read to be verified once by each process, and again only if it has changed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the blob is not there.
    pub fn path_of(&self, digest: &Digest) -> Result<Pinned, StoreError> {
        let place = self.place(digest);
        self.folder.pin(&place);
        let pinned = Pinned { folder: self.folder.clone(), place };
        if digest.is_empty_blob() && !pinned.place.exists() {
            Writing::begin(&self.folder, *digest)?.finish(self)?;
        }
        if self.is_right(digest)? { Ok(pinned) } else { Err(StoreError::Missing(*digest)) }
    }

    /// Reads a blob's file and compares; a wrong one is removed.
    fn is_right(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Some(mut file) = self.open_file(digest)? else {
            return Ok(false);
        };
        if self.verified.has(digest, &file) {
            return Ok(true);
        }
        let unreadable = |error| disk("read", &self.place(digest), error);
        // As it is before it is read: what changes meanwhile makes it another.
        let metadata = file.metadata().map_err(unreadable)?;
        let mut hasher = Hasher::new(digest.function());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece).map_err(unreadable)? {
                0 => break,
                read => hasher.update(&piece[..read]),
            }
        }
        let right = hasher.finish() == *digest;
        if right {
            self.verified.set(digest, &metadata);
        } else {
            self.drop_wrong(digest);
        }
        Ok(right)
    }

    /// Opens a blob's file if it is there with the right size, and writes down the use.
    fn open_file(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let place = self.place(digest);
        let file = match File::open(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("open", &place, error)),
        };
        let bytes = file.metadata().map_err(|error| disk("stat", &place, error))?.len();
        if bytes != digest.size_bytes() {
            self.drop_wrong(digest);
            return Ok(None);
        }
        let is_verified = self.verified.has(digest, &file);
        if self.folder.touch(&file)
            && is_verified
            && let Ok(metadata) = file.metadata()
        {
            self.verified.set(digest, &metadata);
        }
        Ok(Some(file))
    }

    fn drop_wrong(&self, digest: &Digest) {
        warn!(%digest, "a file held other bytes than its name says, and was removed");
        self.verified.remove(digest);
        self.folder.remove(&self.place(digest));
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.folder.place("blobs", digest)
    }
}

/// Keeps a blob's file from being evicted by this process, and knows where it is.
pub struct Pinned {
    folder: Arc<Folder>,
    place: PathBuf,
}

impl Pinned {
    /// The file: read-only, and not to be changed through any link.
    pub fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.folder.unpin(&self.place);
    }
}

/// A blob on its way into the folder.
struct Writing {
    file: NamedTempFile,
    hasher: Hasher,
    expected: Digest,
    bytes: u64,
}

impl Writing {
    fn begin(folder: &Folder, expected: Digest) -> Result<Self, StoreError> {
        Ok(Self { file: folder.temporary()?, hasher: Hasher::new(expected.function()), expected, bytes: 0 })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(data);
        self.bytes += data.len() as u64;
        if self.bytes > self.expected.size_bytes() {
            return Err(self.mismatch());
        }
        self.file.write_all(data).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full { digest: self.expected, source: Some(error) }
            }
            _ => disk("write", self.file.path(), error),
        })
    }

    fn finish(mut self, blobs: &FileBlobs) -> Result<(), StoreError> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.expected.function()));
        let got = hasher.finish();
        if got != self.expected {
            return Err(StoreError::Mismatch { expected: self.expected, got: Box::new(got) });
        }
        let metadata = self.file.as_file().metadata();
        blobs.folder.keep(self.file, &blobs.place(&got), self.bytes)?;
        if let Ok(metadata) = metadata {
            // What was written is what was hashed.
            blobs.verified.set(&got, &metadata);
        }
        Ok(())
    }

    fn mismatch(&mut self) -> StoreError {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.expected.function()));
        StoreError::Mismatch { expected: self.expected, got: Box::new(hasher.finish()) }
    }
}

#[async_trait]
impl BlobStore for FileBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let (blobs, digests) = (self.clone(), digests.to_vec());
        blocking(move || {
            let mut seen = std::collections::HashSet::new();
            Ok(digests.into_iter().filter(|digest| seen.insert(*digest) && !blobs.contains(digest)).collect())
        })
        .await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        let (blobs, digest) = (self.clone(), *digest);
        if range.offset > digest.size_bytes() {
            return Err(StoreError::Range { digest, offset: range.offset });
        }
        if digest.size_bytes() <= WHOLE_BYTES_MAX {
            let data =
                blocking(move || blobs.get_bytes(&digest)).await?.ok_or(StoreError::Missing(digest))?;
            return Ok(crate::store::stream_of(part(&data, range)));
        }
        let file = blocking(move || blobs.open_file(&digest)).await?.ok_or(StoreError::Missing(digest))?;
        let left = range.limit.unwrap_or(u64::MAX).min(digest.size_bytes() - range.offset);
        let data = read_pieces(file, range.offset, left);
        Ok(if left == digest.size_bytes() { verify(digest, data) } else { data })
    }

    async fn put(&self, digest: &Digest, mut data: BlobStream) -> Result<(), StoreError> {
        let (blobs, digest) = (self.clone(), *digest);
        if blocking({
            let blobs = blobs.clone();
            move || Ok(blobs.contains(&digest))
        })
        .await?
        {
            return Ok(());
        }
        let mut writing = Writing::begin(&self.folder, digest)?;
        while let Some(piece) = data.try_next().await? {
            writing = blocking(move || writing.write(&piece).map(|()| writing)).await?;
        }
        blocking(move || writing.finish(&blobs)).await
    }
}

/// The part of a blob that a range names.
fn part(data: &Bytes, range: ByteRange) -> Bytes {
    let offset = usize::try_from(range.offset).map_or(data.len(), |offset| offset.min(data.len()));
    let limit = range.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    data.slice(offset..data.len().min(offset.saturating_add(limit)))
}

/// Reads `left` bytes from `offset` on; ends in an error, never short.
fn read_pieces(file: File, offset: u64, left: u64) -> BlobStream {
    futures::stream::try_unfold((file, offset, left), |(mut file, offset, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        blocking(move || {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(&mut piece))
                .map_err(|source| StoreError::Disk { step: "read a blob's file".to_owned(), source })?;
            let read = piece.len() as u64;
            Ok(Some((Bytes::from(piece), (file, offset + read, left - read))))
        })
        .await
    })
    .boxed()
}

/// Does what blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(stopped) => Err(StoreError::Disk {
                step: "the program is stopping".to_owned(),
                source: io::Error::other(stopped),
            }),
        },
    }
}
