//! [`Verified`]: which files have been seen, not long ago, to hold what their names say.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use castwork_cas::Digest;
use castwork_cas::files::Stamp;

/// Files in each of the two generations: about 20 MB of memory in all.
const GENERATION_FILES_MAX: usize = 200_000;

/// So long a file is believed: bits that a disk loses change nothing about a file but its bytes.
const BELIEVED_FOR: Duration = Duration::from_secs(60 * 60);

/// Remembers files by the start of their hash and their stamp.
///
/// A file that is forgotten, or has changed since, is only verified once more.
pub(crate) struct Verified {
    generations: Mutex<[HashMap<u128, Seen>; 2]>,
    secret: RandomState,
    begin: Instant,
}

/// When a file was verified last, and how it was then.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Of its stamp; a stamp itself would take four times as much.
    hash: u64,
    /// Since the beginning.
    at: Duration,
}

impl Default for Verified {
    fn default() -> Self {
        Self { generations: Mutex::default(), secret: RandomState::new(), begin: Instant::now() }
    }
}

impl Verified {
    pub(crate) fn contains(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.contained(digest, stamp, self.begin.elapsed())
    }

    fn contained(&self, digest: &Digest, stamp: Stamp, now: Duration) -> bool {
        let hash = self.secret.hash_one(stamp);
        let is_it = |seen: &Seen| seen.hash == hash && now.saturating_sub(seen.at) < BELIEVED_FOR;
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().any(|generation| generation.get(&short(digest)).is_some_and(is_it))
    }

    pub(crate) fn insert(&self, digest: &Digest, stamp: Stamp) {
        let seen = Seen { hash: self.secret.hash_one(stamp), at: self.begin.elapsed() };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= GENERATION_FILES_MAX {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[1].remove(&short(digest));
        generations[0].insert(short(digest), seen);
    }
}

fn short(digest: &Digest) -> u128 {
    let start = digest.hash()[..16].try_into().expect("a hash has at least 16 bytes");
    u128::from_le_bytes(start) ^ u128::from(digest.size_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use castwork_cas::DigestFunction;

    use super::*;

    fn stamp(bytes: &[u8]) -> Stamp {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, bytes).unwrap();
        Stamp::of(&file.path().metadata().unwrap())
    }

    #[test]
    fn a_file_that_changed_is_not_verified_any_more_nor_one_that_was_an_hour_ago() {
        let verified = Verified::default();
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let (then, changed) = (stamp(b"abc"), stamp(b"abcd"));
        assert!(!verified.contains(&digest, then));
        verified.insert(&digest, then);
        assert!(verified.contains(&digest, then));
        assert!(!verified.contains(&digest, changed));
        let later = |minutes: u64| verified.begin.elapsed() + Duration::from_secs(minutes * 60);
        assert!(verified.contained(&digest, then, later(59)));
        assert!(!verified.contained(&digest, then, later(61)));
    }

    #[test]
    fn the_latest_files_are_remembered_and_the_memory_is_bounded() {
        let verified = Verified::default();
        let digest = |number: usize| Digest::of(DigestFunction::Blake3, &number.to_le_bytes());
        let then = stamp(b"");
        for number in 0..=2 * GENERATION_FILES_MAX {
            verified.insert(&digest(number), then);
        }
        assert!(verified.contains(&digest(2 * GENERATION_FILES_MAX), then));
        assert!(verified.contains(&digest(GENERATION_FILES_MAX), then));
        assert!(!verified.contains(&digest(0), then));
    }
}
