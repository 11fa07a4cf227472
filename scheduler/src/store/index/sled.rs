//! [`SledIndex`]: the index on disk.
//!
//! Trees: `files` from a file's name to its size and last use, and `ages` from last use and name to
//! nothing, for the order. A third, `records`, has the last uses of records, many to a value. A crash may leave them in disagreement; after a crash the index is thrown away.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sled::{Db, Tree};

use super::{IndexError, Total};
use crate::store::layout::FileKey;
use crate::store::ledger::Use;
use crate::store::segments::Place;

/// Uses of records in one value, of 16 bytes each.
const RECORDS_AT_ONCE: usize = 1024;

/// Memory for pages, in bytes.
const CACHE_BYTES: u64 = 64 << 20;

/// See [`super::Index`].
#[derive(Debug)]
pub(crate) struct SledIndex {
    folder: PathBuf,
    db: Db,
    files: Tree,
    ages: Tree,
    records: Tree,
    total: Total,
}

impl SledIndex {
    /// Opens the index in `folder`, or makes one there, and reads all of it once.
    pub(crate) fn open(folder: &Path) -> Result<Self, IndexError> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            // Nothing rests on what is on disk before the index is closed.
            .flush_every_ms(None)
            .open()?;
        let files = db.open_tree("files")?;
        let ages = db.open_tree("ages")?;
        let records = db.open_tree("records")?;
        let mut total = Total::default();
        for item in &files {
            let (name, value) = item?;
            read_key(&name)?;
            total.replace(None, Some(read_use(&value)?.bytes));
        }
        Ok(Self { folder: folder.to_owned(), db, files, ages, records, total })
    }

    pub(crate) fn put(&mut self, key: &FileKey, mut entry: Use) -> Result<(), IndexError> {
        let name = key.to_string();
        let old = self.files.get(&name)?.map(|value| read_use(&value)).transpose()?;
        if let Some(old) = old {
            entry.used_ms = entry.used_ms.max(old.used_ms);
            entry.bytes = entry.bytes.min(old.bytes);
            self.ages.remove(age_key(old.used_ms, &name))?;
        }
        self.ages.insert(age_key(entry.used_ms, &name), &[])?;
        self.files.insert(&name, &write_use(entry))?;
        self.total.replace(old.map(|old| old.bytes), Some(entry.bytes));
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &FileKey) -> Result<(), IndexError> {
        let name = key.to_string();
        if let Some(value) = self.files.remove(&name)? {
            let old = read_use(&value)?;
            self.ages.remove(age_key(old.used_ms, &name))?;
            self.total.replace(Some(old.bytes), None);
        }
        Ok(())
    }

    pub(crate) fn oldest(&self, count: usize) -> Result<Vec<(FileKey, Use)>, IndexError> {
        let mut oldest = Vec::with_capacity(count);
        for item in self.ages.iter().keys().take(count) {
            let age = item?;
            let name = age.get(8..).ok_or(IndexError::Illegible)?;
            let value = self.files.get(name)?.ok_or(IndexError::Illegible)?;
            oldest.push((read_key(name)?, read_use(&value)?));
        }
        Ok(oldest)
    }

    pub(crate) fn put_record_uses(&mut self, uses: &[(Place, u64)]) -> Result<(), IndexError> {
        self.records.clear()?;
        for some in uses.chunks(RECORDS_AT_ONCE) {
            let (first, _) = some[0];
            let key = [first.segment.to_be_bytes(), first.offset.to_be_bytes()].concat();
            let mut value = Vec::with_capacity(some.len() * 16);
            for (place, used_ms) in some {
                value.extend(place.segment.to_be_bytes());
                value.extend(place.offset.to_be_bytes());
                value.extend(used_ms.to_be_bytes());
            }
            self.records.insert(key, value)?;
        }
        Ok(())
    }

    pub(crate) fn record_uses(&self) -> Result<Vec<(Place, u64)>, IndexError> {
        let mut uses = Vec::new();
        for value in self.records.iter().values() {
            let value = value?;
            let (all, rest) = value.as_chunks::<16>();
            if !rest.is_empty() {
                return Err(IndexError::Illegible);
            }
            uses.extend(all.iter().map(|use_| {
                let number = u128::from_be_bytes(*use_);
                let half =
                    |shift: u32| u32::try_from(number >> shift & u128::from(u32::MAX)).expect("masked");
                let used_ms = u64::from(half(32)) << 32 | u64::from(half(0));
                (Place { segment: half(96), offset: half(64) }, used_ms)
            }));
        }
        if uses.is_sorted_by_key(|(place, _)| *place) { Ok(uses) } else { Err(IndexError::Illegible) }
    }

    pub(crate) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    pub(crate) fn total(&self) -> Total {
        self.total
    }

    /// Closes it with everything on stable storage, which `flush` alone does not see to.
    pub(crate) fn close(self) -> Result<PathBuf, IndexError> {
        self.db.flush()?;
        drop((self.files, self.ages, self.records, self.db));
        let failed = |source| IndexError::Disk { step: format!("sync `{}`", self.folder.display()), source };
        sync_tree(&self.folder).map_err(failed)?;
        Ok(self.folder)
    }
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::options().write(true).open(&path)?.sync_all()?;
        }
    }
    castwork_cas::files::sync_folder(folder)
}

fn read_key(name: &[u8]) -> Result<FileKey, IndexError> {
    str::from_utf8(name).ok().and_then(FileKey::parse).ok_or(IndexError::Illegible)
}

fn age_key(used_ms: u64, name: &str) -> Vec<u8> {
    [&used_ms.to_be_bytes()[..], name.as_bytes()].concat()
}

fn write_use(entry: Use) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&entry.bytes.to_be_bytes());
    value[8..].copy_from_slice(&entry.used_ms.to_be_bytes());
    value
}

fn read_use(value: &[u8]) -> Result<Use, IndexError> {
    let (bytes, used_ms) = value.split_at_checked(8).ok_or(IndexError::Illegible)?;
    let number = |half: &[u8]| half.try_into().map(u64::from_be_bytes).map_err(|_| IndexError::Illegible);
    Ok(Use { bytes: number(bytes)?, used_ms: number(used_ms)? })
}
