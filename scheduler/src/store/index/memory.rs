//! [`MemoryIndex`]: the index without a disk.

use std::collections::{BTreeSet, HashMap};

use super::Total;
use crate::store::layout::FileKey;
use crate::store::ledger::Use;

/// See [`super::Index`]. Gone when the process ends.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    files: HashMap<FileKey, Use>,
    /// Sorted by the last use, then by name as it is written: the order of the other engine.
    by_age: BTreeSet<(u64, String)>,
    total: Total,
}

impl MemoryIndex {
    pub(crate) fn put(&mut self, key: FileKey, mut entry: Use) {
        let old = self.files.get(&key).copied();
        if let Some(old) = old {
            entry.used_ms = entry.used_ms.max(old.used_ms);
            entry.bytes = entry.bytes.min(old.bytes);
            self.by_age.remove(&(old.used_ms, key.to_string()));
        }
        self.by_age.insert((entry.used_ms, key.to_string()));
        self.files.insert(key, entry);
        self.total.replace(old.map(|old| old.bytes), Some(entry.bytes));
    }

    pub(crate) fn remove(&mut self, key: &FileKey) {
        if let Some(old) = self.files.remove(key) {
            self.by_age.remove(&(old.used_ms, key.to_string()));
            self.total.replace(Some(old.bytes), None);
        }
    }

    pub(crate) fn oldest(&self, count: usize) -> Vec<(FileKey, Use)> {
        let named = |name: &str| FileKey::parse(name).expect("the name was written by a key");
        let keys = self.by_age.iter().take(count).map(|(_, name)| named(name));
        keys.map(|key| (key, self.files[&key])).collect()
    }

    pub(crate) fn total(&self) -> Total {
        self.total
    }
}
