//! What differs between operating systems: how a file is recognised again, how a process is
//! replaced, and where processes meet.

mod deeds;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::{Forwarding, Platform, endpoint, witness};
#[cfg(windows)]
pub use windows::{Forwarding, Platform, endpoint, witness};

pub use deeds::{Deeds, Saw};

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A file in memory that programs started from here can write and read by its path.
#[derive(Debug)]
pub struct MemoryFile {
    /// It is there as long as this is open.
    _open: File,
    path: String,
}

impl MemoryFile {
    /// Its path, for us and for those programs.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A program that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// Where it is: as a shell would say it, by which scripts know themselves.
    pub path: &'a Path,
    /// What it is called by: its zeroth word.
    pub name: &'a OsStr,
    /// The words after that.
    pub words: &'a [OsString],
    /// The `PATH` that it gets, if that is not ours.
    pub search: Option<&'a OsStr>,
}

/// What the file system says about a file's content without reading it.
///
/// Two equal stamps mean equal content only if the file was settled when the first was taken: not changed
/// within the granularity of the file system's clock, see [`Stamp::is_settled_before`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Device of the file.
    pub device: u64,
    /// Number of the file on its device; 0 where the system has none.
    pub inode: u64,
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Time of the last change of content or attributes, in nanoseconds since 1970; it can't be set by hand.
    pub changed_ns: i128,
}

/// File systems that keep whole seconds only (or two, FAT) show times without a fraction.
const COARSE_GRANULARITY_NS: i128 = 2_000_000_000;

impl Stamp {
    /// Whether the file was surely not changed at `instant_ns` (of the file system's own clock) or later.
    pub fn is_settled_before(&self, instant_ns: i128) -> bool {
        let granularity = if self.changed_ns % 1_000_000_000 == 0 { COARSE_GRANULARITY_NS } else { 0 };
        self.changed_ns + granularity < instant_ns
    }
}
