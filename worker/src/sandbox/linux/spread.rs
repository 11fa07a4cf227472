//! Where on the disk the folders of actions lie.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// The top of a hierarchy, as `chattr +T` says it: `FS_TOPDIR_FL` of Linux's `fs.h`, which libc lacks.
const TOP: libc::c_long = 0x0002_0000;

/// Has each folder that is made in this one lie in another part of the disk, with all that is in it.
///
/// An ext4 without a journal, as small virtual machines have it, takes no inode that was in use within the last minute,
/// and looks at one after the other until it finds one. An action makes and removes some twelve files and folders, most
/// of them for the overlay's mount: all in one part of the disk, each of them looks at thousands.
///
/// # Errors
/// Where the file system knows nothing of it.
pub(super) fn apart(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    let flags = flags(&folder)?;
    if flags & TOP == 0 { set_flags(&folder, flags | TOP) } else { Ok(()) }
}

#[allow(unsafe_code, reason = "nix knows no flags of files")]
fn flags(folder: &File) -> io::Result<libc::c_long> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes a number that is not longer than ours, and the descriptor is open until after that.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    Errno::result(done)?;
    Ok(flags)
}

#[allow(unsafe_code, reason = "nix knows no flags of files")]
fn set_flags(folder: &File, flags: libc::c_long) -> io::Result<()> {
    // SAFETY: the kernel reads a number that is not longer than ours, and the descriptor is open until after that.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};

    use super::*;

    #[test]
    fn a_folder_is_marked_where_the_file_system_can() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let can = statfs(folder.path()).unwrap().filesystem_type() == EXT4_SUPER_MAGIC;
        for _ in 0..2 {
            assert_eq!(apart(folder.path()).is_ok(), can);
        }
        let marked = File::open(folder.path()).and_then(|folder| flags(&folder)).unwrap_or(0) & TOP;
        assert_eq!(marked != 0, can);
    }
}
