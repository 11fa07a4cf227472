//! What differs on Unix.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
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

/// Files that an ordinary user may still make on the file system of `path`; `None` where there is no limit to
/// tell of, as on btrfs.
///
/// # Errors
/// As [`free_bytes`].
pub fn free_files(path: &Path) -> io::Result<Option<u64>> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(
        clippy::unnecessary_fallible_conversions,
        clippy::useless_conversion,
        reason = "the types differ by system"
    )]
    let (all, free) = (u64::try_from(stat.files()), u64::try_from(stat.files_available()));
    Ok(free.ok().filter(|_| all.is_ok_and(|all| all > 0)))
}

/// Has this process hold as many files and connections open as the system lets it, up to a million: most give a new
/// process far fewer. Returns how many that are.
///
/// # Errors
/// What `setrlimit` says.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // More than this macOS refuses, whatever it says that the limit is.
    let most = if cfg!(target_os = "macos") { 10_240 } else { 1 << 20 };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(most).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(Some(wanted))
}

/// Reads from a place in a file, whatever others read meanwhile.
///
/// # Errors
/// `UnexpectedEof` if the file ends before `buffer` is full.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Makes the names in a folder survive a loss of power: whatever was created or renamed there before.
///
/// # Errors
/// What the system says. The names may or may not be kept then, and asking again proves nothing.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The number of a file on its device.
pub(super) fn inode(metadata: &fs::Metadata) -> u64 {
    metadata.ino()
}

/// When anything about a file has changed last, in seconds and nanoseconds; nobody can set it back.
pub(super) fn changed(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// Makes a finished file readable for everyone and writable for no one, so that whoever gets a hard link to
/// it does not change it by accident.
pub(super) fn protect(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))
}

/// Opens a file that is a regular one, and says whether it may be started.
///
/// A symbolic link is not followed, not even one that takes the file's place meanwhile.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, bool)> {
    let before = fs::symlink_metadata(path)?;
    if !before.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (before.dev(), before.ino()) {
        return Err(io::Error::other("replaced while it was opened"));
    }
    // Its owner decides; the bits of others depend on a umask.
    Ok((file, opened.permissions().mode() & 0o100 != 0))
}

/// Lets everybody start a file who may read it, or nobody.
pub(crate) fn set_executable(path: &Path, is_executable: bool) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    let before = permissions.mode();
    let mode = if is_executable { before | (before & 0o444) >> 2 } else { before & !0o111 };
    if mode == before {
        return Ok(());
    }
    permissions.set_mode(mode);
    fs::set_permissions(path, permissions)
}

/// Makes a symbolic link at `path`.
pub(crate) fn make_symlink(target: &str, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Whether a legal segment of a tree's path is one name to this system, and nothing else.
pub(crate) fn is_plain_name(_segment: &str) -> bool {
    true
}
