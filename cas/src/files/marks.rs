//! [`Marks`]: which files were verified by this process and have not changed since.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::platform;
use crate::Digest;

/// Most files that are remembered; beyond that all are forgotten, and verified again.
const MARKS_MAX: usize = 1 << 18;

/// By what a file is recognised.
///
/// Not by the time of the last change of its attributes: each hard link to it changes that. A process starts with
/// none, so what a loss of power tore is verified again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    size_bytes: u64,
    modified: Option<SystemTime>,
}

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: platform::inode(metadata),
            size_bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// Files that hold what their names say.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<HashMap<Digest, Mark>>);

impl Marks {
    /// Remembers a file that was verified while it looked so.
    pub(super) fn set(&self, digest: &Digest, metadata: &Metadata) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= MARKS_MAX {
            marks.clear();
        }
        marks.insert(*digest, Mark::of(metadata));
    }

    /// Whether an open file is one that was verified, unchanged.
    pub(super) fn has(&self, digest: &Digest, file: &File) -> bool {
        let Ok(metadata) = file.metadata() else { return false };
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(digest) == Some(&Mark::of(&metadata))
    }

    /// Forgets a file.
    pub(super) fn remove(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}
