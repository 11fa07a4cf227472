//! [`Counters`]: what became of each call, in two files that all processes share.
//!
//! A call that belongs to a run is counted to that, too. A call adds a line to a log, which is one write; now and then the log is added up, so that it has a bound.

mod runs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::reason::Reason;

pub use runs::{Configuration, LocalRun, LocalRuns, Part, Tag, platform};

/// How long is waited for another process that counts; a lost count is better than a held-up build.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long is waited between two tries.
const LOCK_STEP: Duration = Duration::from_millis(1);

/// Most different reasons that are kept apart.
const REASONS_MAX: usize = 200;

/// What the rest is counted as.
const OTHER_REASONS: &str = "other reasons";

/// Most bytes of the file of sums.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of the file of runs.
const RUNS_BYTES_MAX: u64 = 64 << 20;

/// A log of so many bytes is added up.
const LOG_BYTES_MAX: u64 = 256 << 10;

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
    /// Compiles that were not recognised by their command and files alone, but preprocessed first.
    pub preprocessed: u64,
    /// Why calls were passed through, fell back, or were not kept: how often for each reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Counters {
    /// Counts a reason.
    pub fn count(&mut self, reason: &Reason) {
        self.count_times(reason.as_str(), 1);
    }

    fn count_times(&mut self, reason: &str, times: u64) {
        let is_new = !self.reasons.contains_key(reason);
        let name = if is_new && self.reasons.len() >= REASONS_MAX { OTHER_REASONS } else { reason };
        let number = self.reasons.entry(name.to_owned()).or_default();
        *number = number.saturating_add(times);
    }

    /// Reads the counters of a folder; zero if there are none.
    pub fn read(folder: &Path) -> Self {
        Self::read_with_runs(folder).0
    }

    /// Reads the counters of a folder, and those of each run.
    pub fn read_with_runs(folder: &Path) -> (Self, LocalRuns) {
        let mut sums = Sums::read(folder);
        if let Ok(mut log) = File::open(log_in(folder)) {
            sums.add_log(&mut log);
        }
        (sums.counters, sums.runs)
    }

    /// Counts a call: `change` is applied to counters of zero, and those are added to the folder's, and to those
    /// of a run.
    ///
    /// # Errors
    /// If the folder can't be written, or others hold the lock for too long.
    pub fn add(folder: &Path, tag: Option<Tag>, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let mut counters = Self::default();
        change(&mut counters);
        let mut line = serde_json::to_vec(&Line::of(&counters, tag))?;
        line.push(b'\n');
        let mut log = locked_log(folder, File::try_lock_shared)?;
        // One write, at the end: lines of processes that count at once don't mix.
        log.write_all(&line)?;
        let is_long = log.metadata()?.len() > LOG_BYTES_MAX;
        drop(log);
        if is_long { Self::update(folder, |_| {}) } else { Ok(()) }
    }

    /// Changes the counters of a folder, one process after another.
    ///
    /// # Errors
    /// As [`Counters::add`].
    pub fn update(folder: &Path, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let mut log = locked_log(folder, File::try_lock)?;
        let mut sums = Sums::read(folder);
        let runs_before = sums.runs.clone();
        sums.add_log(&mut log);
        change(&mut sums.counters);
        files::write_whole(&sums_in(folder), &serde_json::to_vec_pretty(&sums.counters)?)?;
        if sums.runs != runs_before {
            files::write_whole(&runs_in(folder), &serde_json::to_vec(&sums.runs)?)?;
        }
        // A process that is killed here leaves the log counted twice: these are statistics.
        log.set_len(0)
    }
}

/// What the folder's files add up to.
struct Sums {
    counters: Counters,
    runs: LocalRuns,
}

impl Sums {
    fn read(folder: &Path) -> Self {
        Self {
            counters: read_json(&sums_in(folder), FILE_BYTES_MAX),
            runs: read_json(&runs_in(folder), RUNS_BYTES_MAX),
        }
    }

    fn add_log(&mut self, log: &mut File) {
        let mut text = Vec::new();
        // Others may be adding lines, so it may be longer than where it is added up.
        if log.rewind().and_then(|()| log.take(2 * LOG_BYTES_MAX).read_to_end(&mut text)).is_err() {
            return;
        }
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                let Line(numbers, reasons, tag) = line;
                if let Some(tag) = tag {
                    self.runs.add(tag, |counters| counters.add_line(numbers, &reasons));
                }
                self.counters.add_line(numbers, &reasons);
            }
        }
    }
}

fn read_json<T: Default + for<'a> Deserialize<'a>>(path: &Path, bytes_max: u64) -> T {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut text));
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What a call adds, as short as it can be said: the numbers in the order of the struct, the reasons, and the
/// run if it has one.
#[derive(Serialize, Deserialize)]
struct Line(
    [u64; 8],
    BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Tag>,
);

impl Line {
    fn of(counters: &Counters, tag: Option<Tag>) -> Self {
        let Counters {
            compiles,
            local_hits,
            remote_hits,
            remote_runs,
            local_runs,
            passed_through,
            fallbacks,
            preprocessed,
            reasons,
        } = counters;
        let numbers = [
            compiles,
            local_hits,
            remote_hits,
            remote_runs,
            local_runs,
            passed_through,
            fallbacks,
            preprocessed,
        ];
        Self(numbers.map(|number| *number), reasons.clone(), tag)
    }
}

impl Counters {
    fn add_line(&mut self, numbers: [u64; 8], reasons: &BTreeMap<String, u64>) {
        let sums = [
            &mut self.compiles,
            &mut self.local_hits,
            &mut self.remote_hits,
            &mut self.remote_runs,
            &mut self.local_runs,
            &mut self.passed_through,
            &mut self.fallbacks,
            &mut self.preprocessed,
        ];
        for (sum, number) in sums.into_iter().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
        for (reason, number) in reasons {
            self.count_times(reason, *number);
        }
    }
}

/// Opens the log, for adding and reading, and locks it.
fn locked_log(folder: &Path, lock: impl Fn(&File) -> Result<(), std::fs::TryLockError>) -> io::Result<File> {
    let path = log_in(folder);
    let open = || File::options().create(true).read(true).append(true).open(&path);
    let log = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).and_then(|()| open())
        }
        opened => opened,
    }?;
    let begun = Instant::now();
    while lock(&log).is_err() {
        if begun.elapsed() > LOCK_WAIT_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(LOCK_STEP);
    }
    Ok(log)
}

fn sums_in(folder: &Path) -> PathBuf {
    folder.join("stats.json")
}

fn runs_in(folder: &Path) -> PathBuf {
    folder.join("runs.json")
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("stats.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_add_up_also_while_the_log_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let folder = folder.path();
                scope.spawn(move || {
                    for _ in 0..20 {
                        let configuration = Configuration::default();
                        let tag = Tag { run: "r".to_owned(), configuration };
                        Counters::add(folder, Some(tag), |counters| {
                            counters.compiles += 1;
                            counters.count(&"why".into());
                        })
                        .unwrap();
                    }
                    Counters::update(folder, |counters| counters.fallbacks += 1).unwrap();
                });
            }
        });
        let (counters, runs) = Counters::read_with_runs(folder.path());
        assert_eq!((counters.compiles, counters.fallbacks, counters.reasons["why"]), (160, 8, 160));
        let run = &runs.get("r").unwrap().parts[0].counters;
        assert_eq!((run.compiles, run.reasons["why"]), (160, 160));
    }

    #[test]
    fn the_log_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let lines = b"[[1,0,0,0,0,0,0,0],{}]\n".repeat(usize::try_from(LOG_BYTES_MAX).unwrap() / 22);
        std::fs::write(log_in(folder.path()), &lines).unwrap();
        Counters::add(folder.path(), None, |counters| counters.compiles += 1).unwrap();
        assert_eq!(Counters::read(folder.path()).compiles, lines.len() as u64 / 23 + 1);
        assert_eq!(log_in(folder.path()).metadata().unwrap().len(), 0);
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
        std::fs::write(sums_in(folder.path()), "{\"compiles\": 3").unwrap();
        std::fs::write(log_in(folder.path()), "[[1,0,0,0,0,0,0,0],{}]\n[[1,0,").unwrap();
        assert_eq!(Counters::read(folder.path()).compiles, 1);
    }
}
