//! [`Counters`]: what became of each call, in a file that all processes share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::reason::Reason;

/// How long is waited for another process that counts; a lost count is better than a held-up build.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long is waited between two tries.
const LOCK_STEP: Duration = Duration::from_millis(1);

/// Most different reasons that are kept apart.
const REASONS_MAX: usize = 200;

/// What the rest is counted as.
const OTHER_REASONS: &str = "other reasons";

/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Compiles that were understood: each is a hit or a run, of one of the four kinds below.
    pub compiles: u64,
    /// Answered from the local cache.
    pub local_hits: u64,
    /// Answered from a remote cache.
    pub remote_hits: u64,
    /// Compiled by a worker.
    pub remote_runs: u64,
    /// Compiled here.
    pub local_runs: u64,
    /// Calls handed to the compiler as they are; not among the compiles.
    pub passed_through: u64,
    /// Local runs that were to be remote, but for a failure.
    pub fallbacks: u64,
    /// Why calls were passed through, fell back, or were not kept: how often for each reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Counters {
    /// Counts a reason.
    pub fn count(&mut self, reason: &Reason) {
        let is_new = !self.reasons.contains_key(reason.as_str());
        let name = if is_new && self.reasons.len() >= REASONS_MAX { OTHER_REASONS } else { reason.as_str() };
        *self.reasons.entry(name.to_owned()).or_default() += 1;
    }

    /// Reads the counters of a folder; zero if there are none.
    pub fn read(folder: &Path) -> Self {
        let mut text = Vec::new();
        let read =
            File::open(file_in(folder)).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
        read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Changes the counters of a folder, one process after another.
    ///
    /// # Errors
    /// If the folder can't be written, or others hold the lock for too long.
    pub fn update(folder: &Path, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let lock = File::options().create(true).append(true).open(folder.join("stats.lock"))?;
        let begun = Instant::now();
        while lock.try_lock().is_err() {
            if begun.elapsed() > LOCK_WAIT_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(LOCK_STEP);
        }
        let mut counters = Self::read(folder);
        change(&mut counters);
        let text = serde_json::to_vec_pretty(&counters)?;
        files::write_whole(&file_in(folder), &text)
    }
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("stats.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_add_up() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Counters::update(folder.path(), |counters| counters.compiles += 1).unwrap());
            }
        });
        assert_eq!(Counters::read(folder.path()).compiles, 8);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut counters = Counters::default();
        for number in 0..1000 {
            counters.count(&Reason::of(format!("unknown flag `-{number}`")));
        }
        assert_eq!(counters.reasons.len(), REASONS_MAX + 1);
        assert_eq!(counters.reasons[OTHER_REASONS], 1000 - REASONS_MAX as u64);
    }

    #[test]
    fn a_torn_file_counts_from_zero() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file_in(folder.path()), "{\"compiles\": 3").unwrap();
        assert_eq!(Counters::read(folder.path()), Counters::default());
    }
}
