//! [`Evictor`]: lets go of what was not used for longest, but of nothing that is needed now.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};

use super::evicted::EvictedResults;
use super::index::{Index, IndexError};
use super::layout::{FileKey, Layout};
use super::ledger::{Ledger, Use, now_ms};
use super::pins::Pins;
use super::segments::{Place, Segments};
use crate::counters::Counters;

/// Files that are looked at together.
const BATCH_FILES: usize = 64;

/// Records that are looked at together: finding the oldest takes a look at all.
const BATCH_RECORDS: usize = 16_384;

pub(crate) struct Evictor {
    pub(crate) layout: Layout,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) pins: Pins,
    pub(crate) counters: Arc<Counters>,
    pub(crate) evicted_results: Arc<EvictedResults>,
    /// Numbers the files that are on their way out.
    pub(crate) removed: AtomicU64,
}

/// What was not used for longest, of files and of records; and what turned out to be needed.
#[derive(Default)]
struct Oldest {
    files: VecDeque<(FileKey, Use)>,
    records: VecDeque<(u64, Place)>,
    needed_files: HashSet<FileKey>,
    needed_records: HashSet<Place>,
}

enum Next {
    File(FileKey, Use),
    Record(u64, Place),
}

impl Oldest {
    /// The next to go; `None` if all that is left is needed.
    fn next(&mut self, index: &Index, segments: &Segments) -> Result<Option<Next>, IndexError> {
        if self.files.is_empty() {
            self.files = oldest_files(index, &self.needed_files)?.into();
        }
        if self.records.is_empty() {
            let oldest = segments.oldest(BATCH_RECORDS + self.needed_records.len()).into_iter();
            self.records = oldest.filter(|(_, place)| !self.needed_records.contains(place)).collect();
        }
        let file_is_older = match (self.files.front(), self.records.front()) {
            (Some((_, file)), Some((used_ms, _))) => file.used_ms <= *used_ms,
            (file, _) => file.is_some(),
        };
        Ok(if file_is_older {
            self.files.pop_front().map(|(key, entry)| Next::File(key, entry))
        } else {
            self.records.pop_front().map(|(used_ms, place)| Next::Record(used_ms, place))
        })
    }
}

/// The oldest files but the `needed` ones, which are now behind all others unless the clock jumped.
fn oldest_files(index: &Index, needed: &HashSet<FileKey>) -> Result<Vec<(FileKey, Use)>, IndexError> {
    let few = index.oldest(BATCH_FILES)?;
    let is_free = |(key, _): &(FileKey, Use)| !needed.contains(key);
    if few.iter().any(is_free) {
        return Ok(few.into_iter().filter(is_free).collect());
    }
    Ok(index.oldest(BATCH_FILES + needed.len())?.into_iter().filter(is_free).collect())
}

/// What an eviction brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Files that were removed and records that no longer count.
    pub(crate) count: u64,
    /// What the files took up.
    pub(crate) file_bytes: u64,
    /// What the records take up until their segments are compacted.
    pub(crate) record_bytes: u64,
}

impl Evicted {
    fn bytes(self) -> u64 {
        self.file_bytes + self.record_bytes
    }
}

enum Fate {
    Removed,
    Needed,
}

impl Evictor {
    /// Evicts what takes up `excess_bytes`, or as much as there is that nobody needs.
    pub(crate) fn evict(&self, index: &mut Index, excess_bytes: u64) -> Result<Evicted, IndexError> {
        let (mut oldest, mut evicted) = (Oldest::default(), Evicted::default());
        while evicted.bytes() < excess_bytes {
            match oldest.next(index, &self.segments)? {
                None => break,
                Some(Next::File(key, entry)) => match self.remove(&key) {
                    Fate::Removed => {
                        self.evicted_results.note(&key);
                        index.remove(&[key])?;
                        evicted.count += 1;
                        evicted.file_bytes += entry.bytes;
                    }
                    Fate::Needed => {
                        index.put(&[(key, Use { used_ms: now_ms(), ..entry })])?;
                        oldest.needed_files.insert(key);
                    }
                },
                Some(Next::Record(used_ms, place)) => {
                    if let Some(bytes) = self.evict_record(used_ms, place) {
                        evicted.count += 1;
                        evicted.record_bytes += bytes;
                    } else {
                        oldest.needed_records.insert(place);
                    }
                }
            }
        }
        self.counters.evictions.add(evicted.count);
        self.counters.evicted_bytes.add(evicted.bytes());
        if evicted.count > 0 {
            self.evicted_results.save();
            info!(count = evicted.count, bytes = evicted.bytes(), excess_bytes, "evicted");
        }
        Ok(evicted)
    }

    /// Evicts files, or as many as there are that nobody needs.
    pub(crate) fn evict_files(&self, index: &mut Index, count: u64) -> Result<(), IndexError> {
        let (mut needed, mut evicted, mut evicted_bytes) = (HashSet::new(), 0, 0);
        while evicted < count {
            let oldest = oldest_files(index, &needed)?;
            if oldest.is_empty() {
                break;
            }
            let left = usize::try_from(count - evicted).unwrap_or(usize::MAX);
            for (key, entry) in oldest.into_iter().take(left) {
                if matches!(self.remove(&key), Fate::Needed) {
                    index.put(&[(key, Use { used_ms: now_ms(), ..entry })])?;
                    needed.insert(key);
                    continue;
                }
                index.remove(&[key])?;
                evicted += 1;
                evicted_bytes += entry.bytes;
            }
        }
        self.counters.evictions.add(evicted);
        self.counters.evicted_bytes.add(evicted_bytes);
        if evicted > 0 {
            info!(
                files = evicted,
                bytes = evicted_bytes,
                "evicted, because the disk has few files left to make"
            );
        }
        Ok(())
    }

    fn evict_record(&self, used_ms: u64, place: Place) -> Option<u64> {
        let key = match self.segments.name(place) {
            Ok(name) => name?,
            Err(error) => {
                warn!(%error, ?place, "a record could not be evicted");
                return None;
            }
        };
        let (FileKey::Blob(digest) | FileKey::Result(_, digest)) = &key;
        let mut bytes = None;
        self.pins.unless_pinned(digest, || bytes = self.segments.evict(&key, place, used_ms));
        if bytes.is_some() {
            self.evicted_results.note(&key);
        } else {
            // Behind all others, or the next round looks at it first again.
            self.segments.touch(&key);
        }
        bytes
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
