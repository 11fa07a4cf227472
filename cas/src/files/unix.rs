//! What differs on Unix.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Bytes that an ordinary user may still write on the file system of `path`; `None` where the system does
/// not tell.
///
/// # Errors
/// What `statvfs` says, for instance that `path` does not exist.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(
        clippy::unnecessary_fallible_conversions,
        clippy::useless_conversion,
        reason = "the types differ by system"
    )]
    let (blocks, size) = (u64::try_from(stat.blocks_available()), u64::try_from(stat.fragment_size()));
    Ok(blocks.ok().zip(size.ok()).map(|(blocks, size)| blocks.saturating_mul(size)))
}

/// Makes the names in a folder survive a loss of power: whatever was created or renamed there before.
///
/// # Errors
/// What the system says. The names may or may not be kept then, and asking again proves nothing.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a finished file readable for everyone and writable for no one, so that whoever gets a hard link to
/// it does not change it by accident.
pub(super) fn protect(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))
}
