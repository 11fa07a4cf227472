//! [`Shared`]: what blobs, results and uploads have in common.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use castwork_cas::{Digest, StoreError};
use tracing::error;

use super::commit::Committer;
use super::layout::{FileKey, Layout};
use super::ledger::Ledger;
use super::lock::FolderLock;
use super::pins::Pins;
use super::verified::Verified;
use crate::counters::Counters;

pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) committer: Committer,
    pub(crate) pins: Pins,
    pub(crate) verified: Verified,
    pub(crate) counters: Arc<Counters>,
    /// Let go of last, when nobody uses the store any more.
    pub(crate) _lock: FolderLock,
}

/// A file of the store that is open.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) changed: SystemTime,
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
        let changed = metadata.modified().map_err(failed)?;
        Ok(Some(OpenFile { file, bytes: metadata.len(), changed }))
    }

    /// Opens a blob of the right length; `None` if there is none. Blocks.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<OpenFile>, StoreError> {
        let key = FileKey::Blob(*digest);
        let Some(open) = self.open(&key)? else {
            return Ok(None);
        };
        if open.bytes == digest.size_bytes() {
            return Ok(Some(open));
        }
        self.drop_corrupt(&key, open.changed);
        Ok(None)
    }

    /// Whether a file is there, and will be after a power cut; for blobs, only its length is looked at.
    /// Blocks.
    pub(crate) fn is_kept(&self, key: &FileKey) -> Result<bool, StoreError> {
        let path = self.layout.path(key);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(disk("look at", &path, error)),
        };
        if let FileKey::Blob(digest) = key
            && metadata.len() != digest.size_bytes()
        {
            if let Ok(changed) = metadata.modified() {
                self.drop_corrupt(key, changed);
            }
            return Ok(false);
        }
        Ok(!self.committer.unsynced().lock().contains(key))
    }

    /// Removes a file whose bytes turned out not to be what its name says, unless another has taken its
    /// place since. Blocks.
    pub(crate) fn drop_corrupt(&self, key: &FileKey, changed: SystemTime) {
        let path = self.layout.path(key);
        // While this is held no file gets its name without being in the set first.
        let unsynced = self.committer.unsynced().lock();
        let is_the_same = fs::metadata(&path).and_then(|now| now.modified()).is_ok_and(|now| now == changed);
        if unsynced.contains(key) || !is_the_same {
            return;
        }
        let removed = fs::remove_file(&path);
        drop(unsynced);
        self.counters.corrupt.add(1);
        self.ledger.gone(*key);
        error!(%key, ?removed, "a file was dropped because its bytes are not what its name says");
    }

    /// The error for a write that failed; if it was for lack of room, the keeper makes some.
    pub(crate) fn write_failed(&self, digest: &Digest, step: &str, source: io::Error) -> StoreError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
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

    fn full(&self, digest: &Digest, source: io::Error) -> StoreError {
        self.counters.refused_full.add(1);
        StoreError::Full { digest: *digest, source: Some(source) }
    }
}

/// The error for a file that could not be used.
pub(crate) fn disk(step: &str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Disk { step: format!("{step} `{}`", path.display()), source }
}

/// Runs blocking work off the async threads; a panic there is a panic here.
///
/// The work goes on if the caller is dropped.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("blocking work is never cancelled: {error}"),
        },
    }
}
