//! [`Memo`]: what was found out about files, by what they are recognised by, in one file that all processes share.
//!
//! The file is a table of records of one size, each at a place that its key gives; a record is read and written with one
//! call and checked as a whole, so nobody has to lock it, and what is torn or overwritten is merely not known. It may
//! be deleted at any time.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use castwork_cas::{DigestFunction, Hasher};

use crate::local::{Platform, Stamp};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// A hash of content.
pub type Hash = [u8; HASH_BYTES];

/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// Bytes of the check of a record.
const CHECK_BYTES: usize = 16;

/// A record: key, value, check.
const RECORD_BYTES: usize = KEY_BYTES + HASH_BYTES + CHECK_BYTES;

/// Records that one place has room for.
const BUCKET_RECORDS: usize = 4;

/// Bytes that are read at once.
const BUCKET_BYTES: usize = RECORD_BYTES * BUCKET_RECORDS;

/// Places; the file has at most 2 MiB.
const BUCKETS: u64 = 8192;

/// A file that was changed less than this ago may be changed again and keep its stamp, as far as clocks go: it is
/// looked at each time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What a record is found by.
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key of something about the file or folder at `path`, which has this stamp.
    pub fn new(kind: &str, path: &str, stamp: &Stamp) -> Self {
        let mut hasher = Hasher::new(DigestFunction::Sha256);
        for text in [kind, path] {
            hasher.update(&text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&stamp.device.to_le_bytes());
        hasher.update(&stamp.inode.to_le_bytes());
        hasher.update(&stamp.size_bytes.to_le_bytes());
        hasher.update(&stamp.modified_ns.to_le_bytes());
        hasher.update(&stamp.changed_ns.to_le_bytes());
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&hasher.finish().hash()[..KEY_BYTES]);
        Self(key)
    }

    fn offset(&self) -> u64 {
        let number = u64::from_le_bytes(self.0[..8].try_into().expect("eight of sixteen bytes"));
        (number % BUCKETS) * BUCKET_BYTES as u64
    }
}

/// The shared table. Without a file it knows nothing, and all is found out anew.
pub struct Memo {
    file: Option<File>,
    /// Files changed since then are not remembered, in nanoseconds since 1970.
    settled_ns: i128,
}

impl Memo {
    /// Opens the table in a folder, creating it if need be.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("files");
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open()
            .or_else(|_| std::fs::create_dir_all(folder).and_then(|()| open()))
            .or_else(|_| File::open(&path));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled_ns = now.saturating_sub(SETTLED_AFTER).as_nanos();
        Self { file: file.ok(), settled_ns: i128::try_from(settled_ns).unwrap_or(0) }
    }

    /// What is known under a key.
    pub fn get(&self, key: &Key) -> Option<Hash> {
        let bucket = self.bucket(key)?;
        let record = bucket.chunks_exact(RECORD_BYTES).find(|record| record[..KEY_BYTES] == key.0)?;
        let (said, check) = record.split_at(KEY_BYTES + HASH_BYTES);
        (check_of(said) == check).then(|| said[KEY_BYTES..].try_into().expect("as long as a hash"))
    }

    /// Remembers something about a file with this stamp, unless the file is so young that it may still change unseen.
    pub fn put(&self, key: &Key, stamp: &Stamp, value: &Hash) {
        if !stamp.is_settled_before(self.settled_ns) {
            return;
        }
        let (Some(file), Some(bucket)) = (&self.file, self.bucket(key)) else { return };
        let free = bucket
            .chunks_exact(RECORD_BYTES)
            .position(|record| record[..KEY_BYTES] == key.0 || record.iter().all(|byte| *byte == 0));
        // If there is no room, something gives way; what is decided by the key's own bits, which say nothing about use.
        let at = free.unwrap_or(usize::from(key.0[KEY_BYTES - 1]) % BUCKET_RECORDS);
        let mut record = Vec::with_capacity(RECORD_BYTES);
        record.extend_from_slice(&key.0);
        record.extend_from_slice(value);
        record.extend_from_slice(&check_of(&record));
        // A failure costs the next call the same work.
        let _ = Platform::write_at(file, &record, key.offset() + (at * RECORD_BYTES) as u64);
    }

    fn bucket(&self, key: &Key) -> Option<[u8; BUCKET_BYTES]> {
        let mut bucket = [0; BUCKET_BYTES];
        let read = Platform::read_at(self.file.as_ref()?, &mut bucket, key.offset()).ok()?;
        // Beyond the end of the file nothing is written yet; half a record fails its check.
        bucket[read..].fill(0);
        Some(bucket)
    }
}

fn check_of(said: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Hasher::new(DigestFunction::Sha256);
    hasher.update(b"castwork memo 1");
    hasher.update(said);
    hasher.finish().hash()[..CHECK_BYTES].try_into().expect("a part of a hash")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64, changed_ns: i128) -> Stamp {
        Stamp { device: 1, inode, size_bytes: 3, modified_ns: 5, changed_ns }
    }

    #[test]
    fn what_was_put_is_known_to_others_and_only_for_that_very_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::open(&folder.path().join("new"));
        let old = stamp(7, 1_000_000_001);
        memo.put(&Key::new("file", "/x", &old), &old, &[9; HASH_BYTES]);
        let other = Memo::open(&folder.path().join("new"));
        assert_eq!(other.get(&Key::new("file", "/x", &old)), Some([9; HASH_BYTES]));
        for key in [
            Key::new("folder", "/x", &old),
            Key::new("file", "/y", &old),
            Key::new("file", "/x", &stamp(8, old.changed_ns)),
            Key::new("file", "/x", &stamp(7, old.changed_ns + 1)),
            Key::new("file", "/x", &Stamp { size_bytes: 4, ..old }),
            Key::new("file", "/x", &Stamp { modified_ns: 6, ..old }),
            Key::new("file", "/x", &Stamp { device: 2, ..old }),
        ] {
            assert_eq!(other.get(&key), None);
        }
    }

    #[test]
    fn young_files_are_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::open(folder.path());
        let now_ns = i128::try_from(UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
        for changed_ns in [now_ns, now_ns + 1_000_000_000_000] {
            let young = stamp(7, changed_ns);
            memo.put(&Key::new("file", "/x", &young), &young, &[9; HASH_BYTES]);
            assert_eq!(memo.get(&Key::new("file", "/x", &young)), None);
        }
    }

    #[test]
    fn a_torn_or_foreign_record_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::open(folder.path());
        let old = stamp(7, 1);
        let key = Key::new("file", "/x", &old);
        memo.put(&key, &old, &[9; HASH_BYTES]);
        let path = folder.path().join("files");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..RECORD_BYTES {
            let mut torn = whole.clone();
            torn[usize::try_from(key.offset()).unwrap() + at] ^= 1;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(Memo::open(folder.path()).get(&key), None, "byte {at}");
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(Memo::open(folder.path()).get(&key), None);
    }

    #[test]
    fn the_table_has_a_bound_and_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::open(folder.path());
        for inode in 0..60_000 {
            let old = stamp(inode, 1);
            memo.put(&Key::new("file", "/x", &old), &old, &[1; HASH_BYTES]);
        }
        let last = stamp(59_999, 1);
        assert!(memo.get(&Key::new("file", "/x", &last)).is_some());
        let bytes = folder.path().join("files").metadata().unwrap().len();
        assert!(bytes <= BUCKETS * BUCKET_BYTES as u64, "{bytes}");
    }
}
