//! [`Start`]: when this call began, by the clock that stamps files.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::local::{Platform, Stamp};

/// How long is waited for the clock of files to tick past a file that was written just now.
const TICK_MAX: Duration = Duration::from_millis(30);

/// How long is waited between two looks at it.
const TICK_STEP: Duration = Duration::from_millis(1);

/// The moment from which on files must not change.
///
/// The clock that stamps files lags behind the one that programs read, so a file is made to see what it says.
pub struct Start {
    file: NamedTempFile,
    /// In nanoseconds since 1970.
    pub instant_ns: i128,
}

impl Start {
    /// Takes the time, by a temporary file in `folder`.
    ///
    /// If `source` was written within the same tick, as small programs that try out a compiler do, the next tick
    /// is waited for: else nobody could tell whether it changes again.
    pub fn now(folder: &Path, source: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = tempfile::Builder::new().prefix("run").tempfile_in(folder)?;
        let mut start = Self { instant_ns: stamp_of(&file)?.changed_ns, file };
        let Ok(metadata) = source.metadata() else { return Ok(start) };
        let source = Platform::stamp(&metadata);
        let mut waited = Duration::ZERO;
        while source.changed_ns == start.instant_ns && waited < TICK_MAX {
            std::thread::sleep(TICK_STEP);
            waited += TICK_STEP;
            start.file.write_all(b"\n")?;
            start.instant_ns = stamp_of(&start.file)?.changed_ns;
        }
        Ok(start)
    }

    /// The same in whole seconds.
    pub fn seconds(&self) -> u64 {
        u64::try_from(self.instant_ns / 1_000_000_000).unwrap_or(0)
    }

    /// A file for use during this call; it is removed with it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

fn stamp_of(file: &NamedTempFile) -> io::Result<Stamp> {
    Ok(Platform::stamp(&file.as_file().metadata()?))
}
