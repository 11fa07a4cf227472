//! [`Index`]: what each file takes up and when it was last used, in order of use; and, from one server to the
//! next, when each record was.
//!
//! It serves eviction and nothing else: it may be lost at any moment, is rebuilt by a look at the
//! files, and nothing is acknowledged on it.

pub(crate) mod memory;
pub(crate) mod place;
pub(crate) mod sled;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use self::memory::MemoryIndex;
use self::sled::SledIndex;
use super::layout::FileKey;
use super::ledger::Use;
use super::segments::Place;

/// Why an index can't be relied on; whatever it is, the index is rebuilt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// The engine says so.
    #[error("the index's engine failed")]
    Engine(#[from] ::sled::Error),
    /// The engine panicked, which sled does on bytes that it does not expect.
    #[error("the index's engine panicked")]
    Panic,
    /// An entry that this version never writes.
    #[error("the index holds an illegible entry")]
    Illegible,
    /// It does not hold what it held when it was closed.
    #[error("the index holds {got} files where {expected} were written")]
    Incomplete {
        /// Files when it was closed.
        expected: u64,
        /// Files now.
        got: u64,
    },
    /// It took too long to open.
    #[error("the index did not open in time")]
    Slow,
    /// Its folder.
    #[error("{step}")]
    Disk {
        /// What was tried.
        step: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// How many files there are, and what they take up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Total {
    fn replace(&mut self, old: Option<u64>, new: Option<u64>) {
        self.files = self.files + u64::from(new.is_some()) - u64::from(old.is_some());
        self.bytes = self.bytes + new.unwrap_or(0) - old.unwrap_or(0);
    }
}

/// The engines. A panic of either is an error here.
#[derive(Debug)]
pub(crate) enum Index {
    /// On disk, so that a restart need not look at every file.
    Sled(Box<SledIndex>),
    /// In memory: in tests, and where the disk takes no index.
    Memory(MemoryIndex),
}

impl Index {
    /// Takes up uses of files, known ones or new ones; of two uses of a file the later counts, of two lengths the
    /// lesser: a file takes up at most its blob's bytes, which is what is known of one that was only touched.
    pub(crate) fn put(&mut self, uses: &[(FileKey, Use)]) -> Result<(), IndexError> {
        guard(|| match self {
            Self::Sled(index) => uses.iter().try_for_each(|(key, entry)| index.put(key, *entry)),
            Self::Memory(index) => {
                for (key, entry) in uses {
                    index.put(*key, *entry);
                }
                Ok(())
            }
        })
    }

    /// Forgets files.
    pub(crate) fn remove(&mut self, keys: &[FileKey]) -> Result<(), IndexError> {
        guard(|| match self {
            Self::Sled(index) => keys.iter().try_for_each(|key| index.remove(key)),
            Self::Memory(index) => {
                for key in keys {
                    index.remove(key);
                }
                Ok(())
            }
        })
    }

    /// The `count` files that were not used for longest, those first.
    pub(crate) fn oldest(&self, count: usize) -> Result<Vec<(FileKey, Use)>, IndexError> {
        guard(|| match self {
            Self::Sled(index) => index.oldest(count),
            Self::Memory(index) => Ok(index.oldest(count)),
        })
    }

    /// Replaces the last uses of records, sorted by place.
    pub(crate) fn put_record_uses(&mut self, uses: &[(Place, u64)]) -> Result<(), IndexError> {
        guard(|| match self {
            Self::Sled(index) => index.put_record_uses(uses),
            Self::Memory(_) => Ok(()),
        })
    }

    /// The last uses of records as they were put, sorted by place.
    pub(crate) fn record_uses(&self) -> Result<Vec<(Place, u64)>, IndexError> {
        guard(|| match self {
            Self::Sled(index) => index.record_uses(),
            Self::Memory(_) => Ok(Vec::new()),
        })
    }

    pub(crate) fn total(&self) -> Total {
        match self {
            Self::Sled(index) => index.total(),
            Self::Memory(index) => index.total(),
        }
    }

    /// The folder it is kept in, if any.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sled(index) => Some(index.folder()),
            Self::Memory(_) => None,
        }
    }

    /// Closes it, so that everything is in its folder; which that is, if there is one.
    pub(crate) fn close(self) -> Result<Option<PathBuf>, IndexError> {
        guard(|| match self {
            Self::Sled(index) => index.close().map(Some),
            Self::Memory(_) => Ok(None),
        })
    }
}

fn guard<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    // After a panic the engine is thrown away, so nobody sees what it left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(IndexError::Panic))
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn key(number: u32) -> FileKey {
        FileKey::Blob(Digest::of(DigestFunction::Sha256, &number.to_le_bytes()))
    }

    #[test]
    fn both_engines_say_the_same_of_the_same_uses() {
        let folder = tempfile::tempdir().unwrap();
        let mut sled = Index::Sled(Box::new(SledIndex::open(&folder.path().join("v2-1")).unwrap()));
        let mut memory = Index::Memory(MemoryIndex::default());
        let mut random = StdRng::seed_from_u64(11);
        for _ in 0..2000 {
            let file = key(random.random_range(0..60));
            if random.random_range(0..4) == 0 {
                sled.remove(&[file]).unwrap();
                memory.remove(&[file]).unwrap();
            } else {
                let entry = Use { bytes: random.random_range(1..9), used_ms: random.random_range(0..50) };
                sled.put(&[(file, entry)]).unwrap();
                memory.put(&[(file, entry)]).unwrap();
            }
            let count = random.random_range(0..10);
            let oldest = memory.oldest(count).unwrap();
            assert!(oldest.is_sorted_by_key(|(_, entry)| entry.used_ms));
            assert_eq!(sled.oldest(count).unwrap(), oldest);
            assert_eq!(sled.total(), memory.total());
        }
    }

    #[test]
    fn the_last_uses_of_records_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = Index::Sled(Box::new(SledIndex::open(&folder.path().join("v2-1")).unwrap()));
        let place = |number: u32| Place { segment: number / 5000, offset: number % 5000 * 8 };
        let uses: Vec<_> = (0..12_000).map(|number| (place(number), u64::from(number) * 7)).collect();
        index.put_record_uses(&uses).unwrap();
        assert_eq!(index.record_uses().unwrap(), uses);
        index.put_record_uses(&uses[..3]).unwrap();
        assert_eq!(index.record_uses().unwrap(), uses[..3]);
    }

    #[test]
    fn an_older_use_does_not_make_a_file_older() {
        let mut index = Index::Memory(MemoryIndex::default());
        index.put(&[(key(1), Use { bytes: 5, used_ms: 100 })]).unwrap();
        index.put(&[(key(1), Use { bytes: 5, used_ms: 10 })]).unwrap();
        index.put(&[(key(1), Use { bytes: 9, used_ms: 10 })]).unwrap();
        assert_eq!(index.oldest(9).unwrap(), [(key(1), Use { bytes: 5, used_ms: 100 })]);
        assert_eq!(index.total().bytes, 5);
    }

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        assert!(matches!(guard::<()>(|| panic!("on purpose")), Err(IndexError::Panic)));
    }
}
