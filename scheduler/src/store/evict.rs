//! [`Evictor`]: removes the files that were not used for longest, but none that is needed now.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};

use super::index::{Index, IndexError};
use super::layout::{FileKey, Layout};
use super::ledger::{Ledger, Use, now_ms};
use super::pins::Pins;
use crate::counters::Counters;

/// Files that are looked at together.
const BATCH_FILES: usize = 64;

pub(crate) struct Evictor {
    pub(crate) layout: Layout,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) pins: Pins,
    pub(crate) counters: Arc<Counters>,
    /// Numbers the files that are on their way out.
    pub(crate) removed: AtomicU64,
}

/// The oldest files but the `needed` ones, which are now behind all others unless the clock jumped.
fn next(index: &Index, needed: &HashSet<FileKey>) -> Result<Vec<(FileKey, Use)>, IndexError> {
    let few = index.oldest(BATCH_FILES)?;
    let is_free = |(key, _): &(FileKey, Use)| !needed.contains(key);
    if few.iter().any(is_free) {
        return Ok(few.into_iter().filter(is_free).collect());
    }
    Ok(index.oldest(BATCH_FILES + needed.len())?.into_iter().filter(is_free).collect())
}

enum Fate {
    Removed,
    Needed,
}

impl Evictor {
    /// Evicts files that take up `excess_bytes`, or as many as there are that nobody needs.
    pub(crate) fn evict(&self, index: &mut Index, excess_bytes: u64) -> Result<(), IndexError> {
        let mut needed = HashSet::new();
        let (mut files, mut bytes) = (0_u64, 0_u64);
        while bytes < excess_bytes {
            let oldest = next(index, &needed)?;
            if oldest.is_empty() {
                break;
            }
            for (key, entry) in oldest {
                if bytes >= excess_bytes {
                    break;
                }
                match self.remove(&key) {
                    Fate::Removed => {
                        index.remove(&[key])?;
                        files += 1;
                        bytes += entry.bytes;
                    }
                    Fate::Needed => {
                        index.put(&[(key, Use { used_ms: now_ms(), ..entry })])?;
                        needed.insert(key);
                    }
                }
            }
        }
        self.counters.evictions.add(files);
        self.counters.evicted_bytes.add(bytes);
        if files > 0 {
            info!(files, bytes, excess_bytes, "evicted");
        }
        Ok(())
    }

    fn remove(&self, key: &FileKey) -> Fate {
        let (FileKey::Blob(digest) | FileKey::Result(_, digest)) = key;
        let mut fate = Fate::Needed;
        let mut aside = None;
        self.pins.unless_pinned(digest, || {
            if !self.ledger.was_used(key) {
                (fate, aside) = self.set_aside(key);
            }
        });
        // Outside of the lock, because freeing a large file takes the system some time.
        if let Some(path) = aside
            && let Err(error) = fs::remove_file(&path)
        {
            warn!(%error, path = %path.display(), "an evicted file could not be removed");
        }
        fate
    }

    fn set_aside(&self, key: &FileKey) -> (Fate, Option<PathBuf>) {
        let number = self.removed.fetch_add(1, Ordering::Relaxed);
        let aside = self.layout.tmp().join(format!("evicted-{number}"));
        match fs::rename(self.layout.path(key), &aside) {
            Ok(()) => (Fate::Removed, Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Fate::Removed, None),
            Err(error) => {
                warn!(%error, %key, "a file could not be evicted");
                (Fate::Needed, None)
            }
        }
    }
}
