//! What differs on Windows.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;

/// Without it the system opens no folders (`FILE_FLAG_BACKUP_SEMANTICS`).
const OPEN_FOLDERS: u32 = 0x0200_0000;

/// Bytes that may still be written on the volume of `path`; `None` where the system does not tell, which is
/// always the case here: the safe standard library has no call for it.
///
/// # Errors
/// If `path` does not exist.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    path.metadata().map(|_| None)
}

/// Makes the names in a folder survive a loss of power: whatever was created or renamed there before.
///
/// # Errors
/// What the system says. The names may or may not be kept then, and asking again proves nothing.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).custom_flags(OPEN_FOLDERS).open(path)?.sync_all()
}

/// Does nothing: a read-only file could not be removed again.
pub(super) fn protect(_: &File) -> io::Result<()> {
    Ok(())
}
