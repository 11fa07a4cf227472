//! What differs on Windows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt as _, OpenOptionsExt as _};
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

/// Files that may still be made: the system sets no limit.
///
/// # Errors
/// If `path` does not exist.
pub fn free_files(path: &Path) -> io::Result<Option<u64>> {
    path.metadata().map(|_| None)
}

/// Nothing to raise: the system sets no limit.
///
/// # Errors
/// None.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    Ok(None)
}

/// Reads from a place in a file, whatever others read meanwhile.
///
/// # Errors
/// `UnexpectedEof` if the file ends before `buffer` is full.
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = file.seek_read(buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}

/// Makes the names in a folder survive a loss of power: whatever was created or renamed there before.
///
/// # Errors
/// What the system says. The names may or may not be kept then, and asking again proves nothing.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).custom_flags(OPEN_FOLDERS).open(path)?.sync_all()
}

/// The safe standard library does not tell a file's number.
pub(super) fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// Nor when anything about it has changed.
pub(super) fn changed(_: &fs::Metadata) -> (i64, i64) {
    (0, 0)
}

/// Does nothing: a read-only file could not be removed again.
pub(super) fn protect(_: &File) -> io::Result<()> {
    Ok(())
}

/// Opens a file that is a regular one. Windows has no executable bit, so none has it.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, bool)> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((File::open(path)?, false))
}

/// Windows has no executable bit.
pub(crate) fn set_executable(_path: &Path, _is_executable: bool) -> io::Result<()> {
    Ok(())
}

/// Makes a symbolic link at `path`; to a file, unless its target is a folder by now.
pub(crate) fn make_symlink(target: &str, path: &Path) -> io::Result<()> {
    let native = target.replace('/', "\\");
    let is_folder = path.parent().is_some_and(|parent| parent.join(&native).is_dir());
    if is_folder {
        std::os::windows::fs::symlink_dir(&native, path)
    } else {
        std::os::windows::fs::symlink_file(&native, path)
    }
}

/// Whether a legal segment of a tree's path is one name to this system, and nothing else: no
/// separator, drive, stream or device.
pub(crate) fn is_plain_name(segment: &str) -> bool {
    const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];
    let has_meaning = segment.contains(['\\', ':', '*', '?', '"', '<', '>', '|'])
        || segment.chars().any(char::is_control)
        || segment.ends_with(['.', ' ']);
    let stem = segment.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = (stem.starts_with("COM") || stem.starts_with("LPT")) && stem.chars().count() == 4;
    !has_meaning && !is_port && !DEVICES.contains(&&*stem)
}
