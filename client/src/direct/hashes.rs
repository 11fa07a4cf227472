//! [`Hashes`]: what files hold, read at most once per change.

use std::collections::HashMap;
use std::path::Path;

use castwork_cas::{Digest, DigestFunction};

use super::memo::{Hash, Key, Memo};
use crate::local::{Platform, Stamp};

/// Most bytes of a file that is hashed.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Hashes of files, by path.
pub struct Hashes {
    memo: Memo,
    /// What this process has found out; `None` for what is no file.
    known: HashMap<String, Option<Hash>>,
}

impl Hashes {
    /// Hashes with a memory in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { memo: Memo::open(folder), known: HashMap::new() }
    }

    /// The SHA-256 of what a file holds; `None` if it can't be read, or is no file.
    pub fn of(&mut self, path: &str) -> Option<Hash> {
        if let Some(known) = self.known.get(path) {
            return *known;
        }
        let hash = self.look(path);
        self.known.insert(path.to_owned(), hash);
        hash
    }

    fn look(&self, path: &str) -> Option<Hash> {
        let stamp = stamp_of_file(path)?;
        let key = Key::new("file", path, &stamp);
        if let Some(hash) = self.memo.get(&key) {
            return Some(hash);
        }
        let bytes = std::fs::read(path).ok()?;
        let hash = hash_of(&bytes);
        // If it was changed while it was read, the hash is of no moment that the stamp could name.
        if stamp_of_file(path) == Some(stamp) {
            self.memo.put(&key, &stamp, &hash);
        }
        Some(hash)
    }

    /// The shared memory.
    pub const fn memo(&self) -> &Memo {
        &self.memo
    }
}

/// The SHA-256 of bytes.
pub fn hash_of(bytes: &[u8]) -> Hash {
    Digest::of(DigestFunction::Sha256, bytes).hash().try_into().expect("a SHA-256 has 32 bytes")
}

fn stamp_of_file(path: &str) -> Option<Stamp> {
    let metadata = Path::new(path).metadata().ok().filter(std::fs::Metadata::is_file)?;
    (metadata.len() <= FILE_BYTES_MAX).then(|| Platform::stamp(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_young_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("h.h");
        let path = file.to_str().unwrap();
        for text in ["one", "two", "six"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Hashes::new(folder.path()).of(path), Some(hash_of(text.as_bytes())));
        }
        assert_eq!(Hashes::new(folder.path()).of(folder.path().to_str().unwrap()), None, "a folder");
    }
}
