//! What differs on Windows.

use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes that may still be written on the volume of `path`; `None` where the system does not tell, which is
/// always the case here: the safe standard library has no call for it.
///
/// # Errors
/// If `path` does not exist.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    path.metadata().map(|_| None)
}

/// Does nothing: a read-only file could not be removed again.
pub(super) fn protect(_: &File) -> io::Result<()> {
    Ok(())
}
