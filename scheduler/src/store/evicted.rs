//! [`EvictedResults`]: which results were let go, so that who misses one can be told why.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use castwork_cas::ActionKey;
use tracing::warn;

use super::layout::FileKey;

/// Results that are remembered, at most; the newest stay.
const RESULTS_MAX: usize = 250_000;

/// Bytes of the mark of one result.
const MARK_BYTES: usize = 8;

/// Which results were let go. It is for people: nothing is served by it, and to lose it is no loss.
pub(crate) struct EvictedResults {
    path: PathBuf,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    /// Of the newest, how many are not in the file yet.
    unsaved: usize,
    in_file: usize,
}

impl Marks {
    fn add(&mut self, mark: u64) {
        if self.known.insert(mark) {
            self.order.push_back(mark);
            self.unsaved += 1;
        }
        if self.order.len() > RESULTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl EvictedResults {
    /// Goes on with the file at `path`, if there is one that can be read.
    pub(crate) fn open(path: &Path) -> Self {
        let mut marks = Marks::default();
        let bytes = fs::read(path).unwrap_or_default();
        for mark in bytes.chunks_exact(MARK_BYTES) {
            marks.add(u64::from_le_bytes(mark.try_into().expect("chunks are of this size")));
        }
        marks.unsaved = 0;
        marks.in_file = bytes.len() / MARK_BYTES;
        Self { path: path.to_owned(), marks: Mutex::new(marks) }
    }

    /// Notes what was let go; blobs are none of its business.
    pub(super) fn note(&self, key: &FileKey) {
        if matches!(key, FileKey::Result(..)) {
            self.marks.lock().unwrap_or_else(PoisonError::into_inner).add(mark_of(key));
        }
    }

    /// The same, of an action's result.
    #[cfg(test)]
    pub(crate) fn note_result(&self, key: &ActionKey) {
        self.note(&FileKey::of_result(key));
    }

    /// Whether the result of an action was let go at some time.
    pub(crate) fn has(&self, key: &ActionKey) -> bool {
        let mark = mark_of(&FileKey::of_result(key));
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).known.contains(&mark)
    }

    /// Writes down what is new. Blocks.
    pub(super) fn save(&self) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.unsaved > 0
            && let Err(error) = marks.save(&self.path)
        {
            warn!(%error, path = %self.path.display(), "which results were evicted is not written down");
        }
    }
}

impl Marks {
    fn save(&mut self, path: &Path) -> io::Result<()> {
        let bytes = |marks: &mut dyn Iterator<Item = &u64>| -> Vec<u8> {
            marks.flat_map(|mark| mark.to_le_bytes()).collect()
        };
        if self.in_file + self.unsaved > 2 * RESULTS_MAX {
            fs::write(path, bytes(&mut self.order.iter()))?;
            self.in_file = self.order.len();
        } else {
            let fresh = bytes(&mut self.order.iter().skip(self.order.len().saturating_sub(self.unsaved)));
            OpenOptions::new().create(true).append(true).open(path)?.write_all(&fresh)?;
            self.in_file += self.unsaved;
        }
        self.unsaved = 0;
        Ok(())
    }
}

fn mark_of(key: &FileKey) -> u64 {
    let hash = blake3::hash(key.to_string().as_bytes());
    let (mark, _) = hash.as_bytes().split_at(MARK_BYTES);
    u64::from_le_bytes(mark.try_into().expect("split off at this size"))
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;

    fn action(number: usize) -> ActionKey {
        let action = Digest::of(DigestFunction::Sha256, number.to_string().as_bytes());
        ActionKey { instance: "main".into(), action }
    }

    #[test]
    fn the_newest_are_remembered_also_by_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evicted");
        let evicted = EvictedResults::open(&path);
        for number in 0..10 {
            evicted.note(&FileKey::of_result(&action(number)));
            evicted.save();
        }
        evicted.note(&FileKey::Blob(action(11).action));
        let again = EvictedResults::open(&path);
        assert!((0..10).all(|number| again.has(&action(number))));
        assert!(!again.has(&action(11)));
        let elsewhere = ActionKey { instance: "other".into(), ..action(1) };
        assert!(!again.has(&elsewhere));
    }

    #[test]
    fn memory_and_file_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evicted");
        let mut marks = Marks::default();
        for round in 0..5 {
            (0..RESULTS_MAX as u64 / 2).for_each(|mark| marks.add(round << 32 | mark));
            marks.save(&path).unwrap();
        }
        assert_eq!(marks.order.len(), RESULTS_MAX);
        assert!(fs::metadata(&path).unwrap().len() <= (2 * RESULTS_MAX * MARK_BYTES) as u64);
        assert!(EvictedResults::open(&path).marks.into_inner().unwrap().known.contains(&(4 << 32)));
    }
}
