//! [`Breaker`]: remembers that something failed, so that the calls of the next seconds don't wait for it too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use castwork_cas::{Digest, DigestFunction};

/// How long nobody tries after a first failure.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// How long nobody tries after many.
const PAUSE_MAX: Duration = Duration::from_secs(160);

/// A file that is there while something is held to be down. Its size says how often in a row it failed.
pub struct Breaker {
    file: PathBuf,
}

impl Breaker {
    /// The breaker of what is called `name`, e.g. a server's address.
    pub fn new(folder: &Path, name: &str) -> Self {
        let name = Digest::of(DigestFunction::Sha256, name.as_bytes()).hash_hex();
        Self { file: folder.join("down").join(&name[..32]) }
    }

    /// How often in a row it failed.
    pub fn failures(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Whether it may be tried now. When a pause is over, only who asks first may: for the others it begins anew.
    pub fn allows(&self) -> bool {
        let Ok(metadata) = self.file.metadata() else { return true };
        let failures = u32::try_from(metadata.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures.min(8))).min(PAUSE_MAX);
        let now = SystemTime::now();
        // A time in the future is a clock that was set back.
        let is_over = match metadata.modified().map(|since| now.duration_since(since)) {
            Ok(Ok(age)) => age >= pause,
            _ => true,
        };
        if is_over {
            let _ = File::options().write(true).open(&self.file).and_then(|file| file.set_modified(now));
        }
        is_over
    }

    /// Notes a failure.
    pub fn failed(&self) {
        let note = || {
            std::fs::create_dir_all(self.file.parent()?).ok()?;
            let file = File::options().create(true).append(true).open(&self.file).ok()?;
            std::io::Write::write_all(&mut &file, b"x").ok()
        };
        if note().is_none() {
            tracing::debug!(file = %self.file.display(), "a failure can't be noted");
        }
    }

    /// Notes that it works.
    pub fn worked(&self) {
        if self.file.exists() {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_for_a_while_and_then_one_may_try() {
        let folder = tempfile::tempdir().unwrap();
        let breaker = Breaker::new(folder.path(), "grpc://h:1");
        assert!(breaker.allows());
        breaker.failed();
        assert!(!breaker.allows());
        assert!(Breaker::new(folder.path(), "grpc://h:2").allows());
        let past = SystemTime::now() - PAUSE_MIN;
        File::options().write(true).open(&breaker.file).unwrap().set_modified(past).unwrap();
        assert!(breaker.allows());
        assert!(!breaker.allows(), "the others go on waiting");
        breaker.worked();
        assert!(breaker.allows());
    }

    #[test]
    fn pauses_grow_with_failures() {
        let folder = tempfile::tempdir().unwrap();
        let breaker = Breaker::new(folder.path(), "x");
        breaker.failed();
        breaker.failed();
        let past = SystemTime::now() - PAUSE_MIN;
        File::options().write(true).open(&breaker.file).unwrap().set_modified(past).unwrap();
        assert!(!breaker.allows());
    }
}
