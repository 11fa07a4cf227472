//! [`Bound`]: how large the store may become, and what it takes up besides blobs and results.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use castwork_cas::files::{free_bytes, free_files};
use tracing::warn;

use super::layout::Layout;
use super::ledger::{Fullness, bytes_on_disk};

/// The most bytes that are left free on the disk for others, if the bound is large.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

/// The most files that others can still make.
const RESERVE_FILES_MAX: u64 = 10_000;

/// The reserve is this part of the bound, or of what is free, if that is less.
const RESERVE_PART: u64 = 20;

/// Eviction begins above this share of the bound, and ends below the other.
const HIGH_PERCENT: u64 = 95;
const LOW_PERCENT: u64 = 90;

/// If others leave so little of the disk that more than this share of the store would have to go, none
/// does: what is there stays, and writes are refused until there is room again.
const DISK_EVICTS_PERCENT_MAX: u64 = 20;

/// How often the files besides blobs and results are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the index takes up for each record when the server stops: it then gets the last use of each. Measured: 16
/// bytes and a little.
const INDEX_BYTES_A_RECORD: u64 = 20;

/// What others leave on the disk; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) bytes: Option<u64>,
    pub(crate) files: Option<u64>,
}

impl Free {
    pub(crate) fn of(layout: &Layout) -> Self {
        let told = |free: std::io::Result<Option<u64>>| {
            free.unwrap_or_else(|error| {
                warn!(%error, "the disk does not say how much of it is free");
                None
            })
        };
        Self { bytes: told(free_bytes(layout.root())), files: told(free_files(layout.root())) }
    }
}

/// How large the store may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) bytes_max: u64,
    /// What stays free on the disk, whoever uses the rest.
    pub(crate) reserve_bytes: u64,
    /// Files that others can still make.
    pub(crate) reserve_files: u64,
}

impl Bound {
    /// For a store of at most `bytes_max` on a disk with so much to spare.
    pub(crate) fn new(bytes_max: u64, free: Free) -> Self {
        let whole_bytes = bytes_max.min(free.bytes.unwrap_or(u64::MAX));
        Self {
            bytes_max,
            reserve_bytes: (whole_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX),
            reserve_files: free.files.map_or(0, |files| (files / RESERVE_PART).min(RESERVE_FILES_MAX)),
        }
    }

    /// The bound of a store that takes up `bytes` on a disk with `free_bytes` to spare, if that is known.
    pub(crate) fn bytes(self, bytes: u64, free_bytes: Option<u64>) -> u64 {
        let disk = free_bytes.map_or(u64::MAX, |free| (bytes + free).saturating_sub(self.reserve_bytes));
        self.bytes_max.min(disk)
    }

    /// What is to be evicted from a store that is so full.
    pub(crate) fn excess_bytes(self, fullness: Fullness) -> u64 {
        let Fullness { bytes, wanted_bytes, bound_bytes } = fullness;
        let demand = bytes.saturating_add(wanted_bytes);
        if demand <= percent(bound_bytes, HIGH_PERCENT) {
            return 0;
        }
        let excess = demand - percent(bound_bytes, LOW_PERCENT);
        let is_others_fault = bound_bytes < self.bytes_max;
        if is_others_fault && excess > percent(bytes, DISK_EVICTS_PERCENT_MAX) {
            if wanted_bytes > 0 {
                warn!(bytes, bound_bytes, "others have filled the disk; the store takes no writes");
            }
            return 0;
        }
        excess
    }

    /// How many files are to go, of the `files` that the store has, so that others can make theirs.
    pub(crate) fn excess_files(self, files: u64, free_files: Option<u64>) -> u64 {
        let short = free_files.map_or(0, |free| self.reserve_files.saturating_sub(free));
        if short > percent(files, DISK_EVICTS_PERCENT_MAX) {
            warn!(files, short, "others have used up the disk's files");
            return 0;
        }
        short
    }

    /// How many files the store may make, until what is left of them for others is half of the reserve.
    pub(crate) fn files_left(self, free_files: Option<u64>) -> u64 {
        free_files.map_or(u64::MAX, |free| free.saturating_sub(self.reserve_files / 2))
    }
}

/// What the data folder takes up besides blobs, results and uploads: the index, folders, and single files.
#[derive(Debug)]
pub(crate) struct Besides {
    /// `None` if nothing of it counts, as where a test has a bound that is smaller than an empty index.
    layout: Option<Layout>,
    looked: Option<Instant>,
    bytes: u64,
}

impl Besides {
    pub(crate) fn new(layout: Option<Layout>) -> Self {
        Self { layout, looked: None, bytes: 0 }
    }

    /// Bytes, with what the index will take up for so many records when the server stops.
    pub(crate) fn bytes(&mut self, records: usize) -> u64 {
        let Some(layout) = &self.layout else { return 0 };
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            self.bytes = look(layout);
        }
        self.bytes + records as u64 * INDEX_BYTES_A_RECORD
    }
}

fn look(layout: &Layout) -> u64 {
    let mut bytes = bytes_below(&layout.index(), usize::MAX, false);
    bytes += bytes_below(layout.root(), 0, false);
    // A folder grows with the names in it: data folder, function, first byte of the hash.
    bytes + layout.trees().iter().map(|tree| bytes_below(tree, 1, true)).sum::<u64>()
}

/// What lies in a folder, and in those below it down to `depth`; with `only_folders`, what folders themselves take up.
fn bytes_below(folder: &Path, depth: usize, only_folders: bool) -> u64 {
    let mut bytes = fs::metadata(folder).map_or(0, |folder| bytes_on_disk(folder.len()));
    // What can't be read now is read next time.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_dir() {
            bytes += if only_folders { 0 } else { bytes_on_disk(metadata.len()) };
        } else if depth > 0 {
            bytes += if depth == 1 && only_folders {
                bytes_on_disk(metadata.len())
            } else {
                bytes_below(&entry.path(), depth - 1, only_folders)
            };
        }
    }
    bytes
}

fn percent(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent + bytes % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { bytes_max: 1000, reserve_bytes: 100, reserve_files: 50 };

    #[test]
    fn the_bound_leaves_the_disk_its_reserve() {
        assert_eq!(BOUND.bytes(500, Some(10_000)), 1000);
        assert_eq!(BOUND.bytes(500, Some(200)), 600);
        assert_eq!(BOUND.bytes(500, Some(0)), 400);
        assert_eq!(BOUND.bytes(50, Some(0)), 0);
        assert_eq!(BOUND.bytes(500, None), 1000);
    }

    #[test]
    fn the_reserve_is_a_part_of_what_there_is() {
        let bound = Bound::new(1 << 40, Free { bytes: Some(2000), files: Some(400) });
        assert_eq!((bound.reserve_bytes, bound.reserve_files), (100, 20));
        let bound = Bound::new(1 << 40, Free { bytes: Some(1 << 40), files: Some(1 << 30) });
        assert_eq!((bound.reserve_bytes, bound.reserve_files), (RESERVE_BYTES_MAX, RESERVE_FILES_MAX));
        // As on btrfs, which makes files for as long as there are bytes.
        let bound = Bound::new(1000, Free::default());
        assert_eq!((bound.reserve_bytes, bound.reserve_files), (50, 0));
        assert_eq!(bound.files_left(None), u64::MAX);
    }

    #[test]
    fn eviction_ends_below_where_it_begins() {
        let excess = |bytes, wanted_bytes, bound_bytes| {
            BOUND.excess_bytes(Fullness { bytes, wanted_bytes, bound_bytes })
        };
        assert_eq!(excess(950, 0, 1000), 0);
        assert_eq!(excess(951, 0, 1000), 51);
        assert_eq!(excess(900, 100, 1000), 100);
        assert_eq!(excess(900, 900, 1000), 900);
    }

    #[test]
    fn a_disk_that_others_fill_does_not_empty_the_store() {
        let excess =
            |bytes, bound_bytes| BOUND.excess_bytes(Fullness { bytes, wanted_bytes: 0, bound_bytes });
        assert_eq!(excess(500, 500), 50);
        assert_eq!(excess(500, 400), 0);
        assert_eq!(excess(500, 0), 0);
    }

    #[test]
    fn files_go_when_few_can_be_made_and_no_more_are_made_than_leave_half_of_the_reserve() {
        assert_eq!(BOUND.excess_files(1000, Some(50)), 0);
        assert_eq!(BOUND.excess_files(1000, Some(20)), 30);
        assert_eq!(BOUND.excess_files(100, Some(20)), 0);
        assert_eq!(BOUND.excess_files(1000, None), 0);
        assert_eq!([30, 25, 24].map(|free| BOUND.files_left(Some(free))), [5, 0, 0]);
    }

    #[test]
    fn what_lies_besides_blobs_counts_in_whole_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let empty = look(&layout);
        fs::create_dir_all(layout.index().join("v2-1")).unwrap();
        fs::write(layout.index().join("v2-1/db"), vec![0; 5000]).unwrap();
        fs::write(layout.root().join("operations.journal"), "x").unwrap();
        fs::create_dir_all(layout.root().join("cas/sha256/ab")).unwrap();
        fs::write(layout.root().join("cas/sha256/ab/blob"), vec![0; 100_000]).unwrap();
        let more = look(&layout) - empty;
        // Five folders, a file of two blocks, and one of one. How large an empty folder is, file systems differ.
        assert!((3 * 4096..=8 * 4096).contains(&more), "{more}");
        assert_eq!(Besides::new(Some(layout.clone())).bytes(1000), look(&layout) + 20_000);
        assert_eq!(Besides::new(None).bytes(1000), 0);
    }

    #[test]
    fn percents_of_large_numbers_do_not_overflow() {
        assert_eq!(percent(u64::MAX, 50), u64::MAX / 2);
        assert_eq!(percent(1000, 95), 950);
    }
}
