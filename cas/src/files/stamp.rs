//! [`Stamp`]: by what a file is recognised that nobody has touched.

use std::fs::Metadata;
use std::time::SystemTime;

use super::platform;

/// Differs when the file is another, or anything about it has changed: its bytes, its times, its name. Whoever writes
/// to it and puts its time of modification back is found out too, except on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    inode: u64,
    size_bytes: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file as it is now.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            inode: platform::inode(metadata),
            size_bytes: metadata.len(),
            modified: metadata.modified().ok(),
            changed: platform::changed(metadata),
        }
    }
}
