//! [`Verified`]: which files have been seen to hold what their names say, since the server started.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use castwork_cas::Digest;

/// Files in each of the two generations: about 20 MB of memory in all.
const GENERATION_FILES_MAX: usize = 200_000;

/// Remembers files by the start of their hash and their time of change.
///
/// A file that is forgotten, or has changed since, is only verified once more.
#[derive(Default)]
pub(crate) struct Verified {
    generations: Mutex<[HashMap<u128, SystemTime>; 2]>,
}

impl Verified {
    pub(crate) fn contains(&self, digest: &Digest, changed: SystemTime) -> bool {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().any(|generation| generation.get(&short(digest)) == Some(&changed))
    }

    pub(crate) fn insert(&self, digest: &Digest, changed: SystemTime) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= GENERATION_FILES_MAX {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[1].remove(&short(digest));
        generations[0].insert(short(digest), changed);
    }
}

fn short(digest: &Digest) -> u128 {
    let start = digest.hash()[..16].try_into().expect("a hash has at least 16 bytes");
    u128::from_le_bytes(start) ^ u128::from(digest.size_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn a_file_that_changed_is_not_verified_any_more() {
        let verified = Verified::default();
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let then = SystemTime::UNIX_EPOCH;
        assert!(!verified.contains(&digest, then));
        verified.insert(&digest, then);
        assert!(verified.contains(&digest, then));
        assert!(!verified.contains(&digest, then + Duration::from_nanos(1)));
    }

    #[test]
    fn the_latest_files_are_remembered_and_the_memory_is_bounded() {
        let verified = Verified::default();
        let digest = |number: usize| Digest::of(DigestFunction::Blake3, &number.to_le_bytes());
        let then = SystemTime::UNIX_EPOCH;
        for number in 0..=2 * GENERATION_FILES_MAX {
            verified.insert(&digest(number), then);
        }
        assert!(verified.contains(&digest(2 * GENERATION_FILES_MAX), then));
        assert!(verified.contains(&digest(GENERATION_FILES_MAX), then));
        assert!(!verified.contains(&digest(0), then));
    }
}
