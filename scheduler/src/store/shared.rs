//! [`Shared`]: what blobs, results and uploads have in common.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use castwork_cas::files::Stamp;
use castwork_cas::{Digest, StoreError};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tracing::error;

use super::commit::Committer;
use super::health::Health;
use super::layout::{FileKey, Layout};
use super::ledger::{Ledger, now_ms};
use super::lock::FolderLock;
use super::packed;
use super::pins::Pins;
use super::provenance::AgeLimit;
use super::segments::{Segments, body_is_right};
use super::verified::Verified;
use crate::counters::Counters;
use crate::tier::Offers;

/// What was used within this time is in the system's memory, and what is no larger than this is verified in no time.
const AT_ONCE_WITHIN_MS: u64 = 60_000;
const AT_ONCE_BYTES_MAX: u64 = 16 << 10;

pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) committer: Committer,
    pub(crate) segments: Arc<Segments>,
    /// Whether there may be files of what belongs into segments.
    pub(crate) is_older: Arc<AtomicBool>,
    pub(crate) durable: bool,
    /// Which results are too old to be answered.
    pub(crate) results_age: AgeLimit,
    pub(crate) pins: Pins,
    /// Held alone while results are taken back.
    pub(crate) revoking: RwLock<()>,
    pub(crate) verified: Arc<Verified>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) health: Arc<Health>,
    /// Who is told what was taken, if the store stands in front of a tier.
    pub(crate) offers: OnceLock<Offers>,
    /// Let go of last, when nobody uses the store any more.
    pub(crate) _lock: FolderLock,
}

/// A file of the store that is open.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) stamp: Stamp,
    /// How much of it is zstd, if it is kept so ([`super::packed`]).
    pub(crate) packed_bytes: Option<u64>,
}

impl Shared {
    /// Opens a file; `None` if there is none. Blocks.
    pub(crate) fn open(&self, key: &FileKey) -> Result<Option<OpenFile>, StoreError> {
        let path = self.layout.path(key);
        let failed = |source| disk("open", &path, source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        let stamp = Stamp::of(&metadata);
        Ok(Some(OpenFile { file, bytes: metadata.len(), stamp, packed_bytes: None }))
    }

    /// Opens a blob of the right length, or one that is packed and was not cut short; `None` if there is none.
    /// Blocks.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<OpenFile>, StoreError> {
        let key = FileKey::Blob(*digest);
        let Some(mut open) = self.open(&key)? else {
            return Ok(None);
        };
        if open.bytes == digest.size_bytes() {
            return Ok(Some(open));
        }
        if open.bytes < digest.size_bytes() {
            let packed = packed::packed_bytes(&open.file, open.bytes);
            open.packed_bytes = packed.map_err(|source| disk("read", &self.layout.path(&key), source))?;
            if open.packed_bytes.is_some() {
                return Ok(Some(open));
            }
        }
        self.drop_corrupt(&key, open.stamp);
        Ok(None)
    }

    /// Whether a file is there, and will be after a power cut; of blobs only the length is looked at, and the end.
    /// Blocks.
    pub(crate) fn is_kept(&self, key: &FileKey) -> Result<bool, StoreError> {
        if key.is_small() {
            if self.segments.contains(key) {
                return Ok(true);
            }
            if !self.is_older.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        let path = self.layout.path(key);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // One of an older layout may have been moved just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.segments.contains(key)),
            Err(error) => return Err(disk("look at", &path, error)),
        };
        if let FileKey::Blob(digest) = key
            && metadata.len() != digest.size_bytes()
            && self.open_blob(digest)?.is_none()
        {
            return Ok(false);
        }
        Ok(!self.committer.unsynced().lock().contains(key))
    }

    /// Removes a file whose bytes turned out not to be what its name says, unless another has taken its
    /// place since. Blocks.
    pub(crate) fn drop_corrupt(&self, key: &FileKey, stamp: Stamp) {
        let path = self.layout.path(key);
        // While this is held no file gets its name without being in the set first.
        let unsynced = self.committer.unsynced().lock();
        let is_the_same = fs::metadata(&path).is_ok_and(|now| Stamp::of(&now) == stamp);
        if unsynced.contains(key) || !is_the_same {
            return;
        }
        let removed = fs::remove_file(&path);
        drop(unsynced);
        self.counters.corrupt.add(1);
        self.ledger.gone(*key);
        error!(%key, ?removed, "a file was dropped because its bytes are not what its name says");
    }

    /// Reads and verifies what belongs into a segment, as far as all segments are known; also from a file of
    /// an older layout. Blocks.
    pub(crate) fn read_small(&self, key: &FileKey) -> Result<Option<Bytes>, StoreError> {
        if let Some(body) = self.read_record(key)? {
            return Ok(Some(body));
        }
        if !self.is_older.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(mut open) = self.open(key)? else {
            // It may have been moved just now.
            return self.read_record(key);
        };
        let mut body = Vec::new();
        open.file.read_to_end(&mut body).map_err(|source| disk("read", &self.layout.path(key), source))?;
        if body_is_right(key, &body) {
            return Ok(Some(body.into()));
        }
        self.drop_corrupt(key, open.stamp);
        Ok(None)
    }

    fn read_record(&self, key: &FileKey) -> Result<Option<Bytes>, StoreError> {
        self.segments
            .read(key)
            .map_err(|source| disk("read", &self.layout.segments().join(key.to_string()), source))
    }

    /// As [`Shared::read_small`], and waits until all segments are known before it says that there is
    /// nothing.
    pub(crate) async fn find_small(self: &Arc<Self>, key: FileKey) -> Result<Option<Bytes>, StoreError> {
        let read = || {
            let shared = Arc::clone(self);
            blocking(move || shared.read_small(&key))
        };
        let was_loaded = self.segments.is_loaded();
        if was_loaded && !self.is_older.load(Ordering::Relaxed) {
            match self.segments.last_use(&key) {
                None => return Ok(None),
                Some((used_ms, bytes)) if is_in_memory(used_ms, bytes) => return self.read_small(&key),
                Some(_) => {}
            }
        }
        let found = read().await?;
        if found.is_some() || was_loaded {
            return Ok(found);
        }
        self.loaded(&key).await?;
        read().await
    }

    /// Waits until all segments are known.
    pub(crate) async fn loaded(&self, key: &FileKey) -> Result<(), StoreError> {
        let (FileKey::Blob(digest) | FileKey::Result(_, digest)) = key;
        if self.segments.loaded().await { Ok(()) } else { Err(StoreError::NotKnown(*digest)) }
    }

    /// The error for a write that failed; if it was for lack of room, the keeper makes some.
    pub(crate) fn write_failed(&self, digest: &Digest, step: &str, source: io::Error) -> StoreError {
        let is_refusal = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        );
        self.health.failed(&source);
        if is_refusal {
            self.ledger.press();
            return self.full(digest, source);
        }
        StoreError::Disk { step: format!("{step} `{digest}`"), source }
    }

    /// The error for a write that finds no room within the bound.
    pub(crate) fn no_room(&self, digest: &Digest) -> StoreError {
        let fullness = self.ledger.fullness();
        let text = format!(
            "{} of {} bytes are in use, and no more can be evicted now",
            fullness.bytes, fullness.bound_bytes
        );
        self.full(digest, io::Error::new(io::ErrorKind::StorageFull, text))
    }

    /// The error for a write to a disk on which hardly any files can be made.
    pub(crate) fn no_files(&self, digest: &Digest) -> StoreError {
        self.ledger.press();
        let text = "the disk has hardly any files left to make (inodes)";
        self.full(digest, io::Error::new(io::ErrorKind::StorageFull, text))
    }

    fn full(&self, digest: &Digest, source: io::Error) -> StoreError {
        self.counters.refused_full.add(1);
        StoreError::Full { digest: *digest, source: Some(source) }
    }
}

/// Whether reading a record takes less time than having another thread do so: it was used a moment ago, so the
/// system has it in memory, and there is little to verify.
fn is_in_memory(used_ms: u64, bytes: u64) -> bool {
    bytes <= AT_ONCE_BYTES_MAX && now_ms().saturating_sub(used_ms) <= AT_ONCE_WITHIN_MS
}

/// The error for a file that could not be used.
pub(crate) fn disk(step: &str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Disk { step: format!("{step} `{}`", path.display()), source }
}

/// Runs blocking work off the async threads; a panic there is a panic here.
///
/// The work goes on if the caller is dropped.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    ended(tokio::task::spawn_blocking(work)).await
}

/// What came of blocking work that was begun before.
pub(crate) async fn ended<T>(working: JoinHandle<T>) -> T {
    match working.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("blocking work is never cancelled: {error}"),
        },
    }
}
