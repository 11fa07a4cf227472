//! [`Table`]: where each record lies and when it was last used, in memory.
//!
//! It is filled from the segments after a start. A key is 16 bytes that are made of the name with a secret
//! of this process, so nobody can have two names meet; and whoever reads a record compares the whole name.

use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::layout::FileKey;

/// Parts with a lock each; while one grows, the others answer.
const SHARDS: usize = 64;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// A record: its place, what it takes up with header and padding, and its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) used_ms: u64,
    pub(crate) place: Place,
    pub(crate) bytes: u32,
}

/// A key of the table; evenly spread.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Short(u64, u64);

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Hashes what is a hash already.
#[derive(Clone, Copy, Default)]
struct AsIs(u64);

impl BuildHasher for AsIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is hashed as a number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Shard = HashMap<Short, Entry, AsIs>;

/// See the module.
pub(crate) struct Table {
    secrets: [RandomState; 2],
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Table {
    fn default() -> Self {
        Self {
            secrets: [RandomState::new(), RandomState::new()],
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Table {
    fn short(&self, key: &FileKey) -> Short {
        let [first, second] = self.secrets.each_ref().map(|secret| secret.hash_one(key));
        Short(first, second)
    }

    fn shard(&self, short: Short) -> MutexGuard<'_, Shard> {
        let number = usize::try_from(short.1 % SHARDS as u64).expect("less than the number of shards");
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &FileKey) -> Option<Entry> {
        let short = self.short(key);
        self.shard(short).get(&short).copied()
    }

    /// As [`Table::get`]; the record then counts as used at `now_ms`.
    pub(crate) fn touch(&self, key: &FileKey, now_ms: u64) -> Option<Entry> {
        let short = self.short(key);
        let mut shard = self.shard(short);
        let entry = shard.get_mut(&short)?;
        entry.used_ms = entry.used_ms.max(now_ms);
        Some(*entry)
    }

    /// Sets an entry, and returns the one before it.
    pub(crate) fn insert(&self, key: &FileKey, entry: Entry) -> Option<Entry> {
        let short = self.short(key);
        self.shard(short).insert(short, entry)
    }

    /// Sets an entry if `wins` over the one that is there, or if none is. Returns what is now out of the
    /// table: the entry before, or the one that was to be set.
    pub(crate) fn insert_if(
        &self,
        key: &FileKey,
        entry: Entry,
        wins: impl FnOnce(&Entry) -> bool,
    ) -> Option<Entry> {
        let short = self.short(key);
        let mut shard = self.shard(short);
        match shard.get_mut(&short) {
            Some(before) if wins(before) => Some(std::mem::replace(before, entry)),
            Some(_) => Some(entry),
            None => shard.insert(short, entry),
        }
    }

    /// Has the record lie at `place` from now on, if it is still at `from`. Returns whether it was.
    pub(crate) fn relocate(&self, key: &FileKey, from: Place, place: Place) -> bool {
        let short = self.short(key);
        let mut shard = self.shard(short);
        let Some(entry) = shard.get_mut(&short).filter(|entry| entry.place == from) else { return false };
        entry.place = place;
        true
    }

    /// Forgets a record if `is_the_one` says so of its entry.
    pub(crate) fn remove_if(&self, key: &FileKey, is_the_one: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let short = self.short(key);
        let mut shard = self.shard(short);
        if shard.get(&short).is_some_and(is_the_one) { shard.remove(&short) } else { None }
    }

    /// The places of the `count` records that were not used for longest, those first, with their last use.
    pub(crate) fn oldest(&self, count: usize) -> Vec<(u64, Place)> {
        let mut oldest = BinaryHeap::with_capacity(count + 1);
        self.each(|entry| {
            let age = (entry.used_ms, entry.place);
            if oldest.len() < count {
                oldest.push(age);
            } else if oldest.peek().is_some_and(|youngest| age < *youngest) {
                oldest.pop();
                oldest.push(age);
            }
        });
        oldest.into_sorted_vec()
    }

    /// Shows every entry, a shard at a time.
    pub(crate) fn each(&self, mut show: impl FnMut(&Entry)) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(&mut show);
        }
    }

    /// As [`Table::each`], to change entries.
    pub(crate) fn each_mut(&self, mut change: impl FnMut(&mut Entry)) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(&mut change);
        }
    }

    /// Forgets all records of which `is_gone` says so, and returns them.
    pub(crate) fn remove_all(&self, is_gone: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            gone.extend(shard.extract_if(|_, entry| is_gone(entry)).map(|(_, entry)| entry));
        }
        gone
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;

    fn key(number: u32) -> FileKey {
        FileKey::Blob(Digest::of(DigestFunction::Sha256, &number.to_le_bytes()))
    }

    fn entry(number: u32) -> Entry {
        Entry { used_ms: u64::from(number), place: Place { segment: 1, offset: number * 8 }, bytes: 8 }
    }

    #[test]
    fn the_oldest_come_first_whatever_shard_they_are_in() {
        let table = Table::default();
        for number in (0..1000).rev() {
            assert_eq!(table.insert(&key(number), entry(number)), None);
        }
        let expected: Vec<_> = (0..10).map(|number| (u64::from(number), entry(number).place)).collect();
        assert_eq!(table.oldest(10), expected);
        table.touch(&key(0), 5000);
        assert_eq!(table.oldest(9), expected[1..]);
        assert_eq!((table.len(), table.oldest(0)), (1000, Vec::new()));
    }

    #[test]
    fn a_record_that_moved_meanwhile_is_neither_relocated_nor_forgotten() {
        let table = Table::default();
        table.insert(&key(1), entry(1));
        assert!(!table.relocate(&key(1), entry(2).place, entry(3).place));
        assert!(table.relocate(&key(1), entry(1).place, entry(3).place));
        assert_eq!(table.remove_if(&key(1), |now| now.place == entry(1).place), None);
        assert_eq!(table.get(&key(1)).unwrap().place, entry(3).place);
        assert_eq!(table.get(&key(1)).unwrap().used_ms, 1);
    }

    #[test]
    fn a_use_never_makes_a_record_older() {
        let table = Table::default();
        table.insert(&key(7), entry(7));
        assert_eq!(table.touch(&key(7), 3).unwrap().used_ms, 7);
        assert_eq!(table.touch(&key(8), 3), None);
    }
}
