//! [`Slots`]: how many compilers run here at once while a server runs the others.
//!
//! A build on a farm is started with many more jobs than this machine has cores. What the farm does not take must not run
//! here all at once. A slot is a file that its holder has locked, so that it is free again whenever that process ends.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest wait for a slot: then the compiler runs without one. A build never stands still because of us.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The first pause before looking again, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// The slots of this machine, shared by the processes of a user.
pub struct Slots {
    folder: PathBuf,
    count: usize,
}

/// A slot that is held.
pub struct Slot(#[expect(dead_code, reason = "its lock is what is held")] File);

impl Slots {
    /// The slots that are kept in a folder, one for each core.
    pub fn new(dir: &Path) -> Self {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { folder: dir.join("slots"), count }
    }

    /// Takes one that is free now.
    ///
    /// # Errors
    /// If there can be none: no folder to lock files in, or a file system without locks.
    pub fn try_take(&self) -> std::io::Result<Option<Slot>> {
        std::fs::create_dir_all(&self.folder)?;
        for at in 0..self.count {
            let path = self.folder.join(at.to_string());
            let file = File::options().create(true).append(true).open(path)?;
            match file.try_lock() {
                Ok(()) => return Ok(Some(Slot(file))),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits for one, ten minutes at most. `None` if there can be none, or that was too long.
    pub fn take(&self) -> Option<Slot> {
        let begun = Instant::now();
        let [mut pause, longest] = PAUSES;
        loop {
            match self.try_take() {
                Ok(None) if begun.elapsed() < WAIT_MAX => {}
                taken => return taken.ok().flatten(),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_are_said_and_each_can_be_had_again() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots { count: 2, ..Slots::new(folder.path()) };
        let take = || slots.try_take().unwrap();
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some() && take().is_none());
        drop(first);
        assert!(take().is_some());
        let third = slots.take();
        assert!(third.is_some() && take().is_none());
    }

    #[test]
    fn where_nothing_can_be_written_nobody_waits() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let slots = Slots::new(file.path());
        assert!(slots.try_take().is_err());
        assert!(slots.take().is_none());
    }
}
