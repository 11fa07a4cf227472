//! [`Folder`]: a folder held by descriptor, looked into one name at a time, never through a link.
//!
//! Every step takes a single name relative to an open folder and refuses symlinks, so whatever a
//! command left there, nothing outside can be reached. (Linux could do many steps at once with
//! `openat2`; this is as safe, and the same on macOS.)

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use crate::sandbox::Kind;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

impl Folder {
    /// Opens a folder by path; the last component must not be a symlink.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path, flags(OFlag::O_DIRECTORY), Mode::empty())?;
        Ok(Self { fd })
    }

    /// Takes a descriptor of a folder.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "only Linux gets descriptors sent"))]
    pub(in crate::sandbox) const fn of(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a folder in this one.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        let fd = openat(&self.fd, name, flags(OFlag::O_DIRECTORY), Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens a regular file in this folder for reading. Doesn't wait for a FIFO's other end.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let fd = openat(&self.fd, name, flags(OFlag::O_NONBLOCK | OFlag::O_NOCTTY), Mode::empty())?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("no regular file any more"));
        }
        Ok(file)
    }

    /// What is under that name; `None` if nothing is.
    pub fn kind_of(&self, name: &str) -> io::Result<Option<Kind>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(kind(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where the symlink of that name points to.
    pub fn link(&self, name: &str) -> io::Result<OsString> {
        Ok(readlinkat(&self.fd, name)?)
    }

    /// The names in this folder, in no order; at most `names_max`.
    ///
    /// # Errors
    /// If there are more, besides what the system says.
    pub fn names(&self, names_max: usize) -> io::Result<Vec<OsString>> {
        let own = openat(&self.fd, ".", flags(OFlag::O_DIRECTORY), Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(own)?.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == names_max {
                return Err(io::Error::other(format!("more than {names_max} entries")));
            }
            names.push(OsString::from_vec(name));
        }
        Ok(names)
    }

    pub(super) fn as_fd(&self) -> impl AsFd + '_ {
        self.fd.as_fd()
    }
}

fn flags(more: OFlag) -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | more
}

fn kind(stat: &FileStat) -> Kind {
    let mode = stat.st_mode;
    match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::File {
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            is_executable: mode & Mode::S_IXUSR.bits() != 0,
        },
        SFlag::S_IFDIR => Kind::Folder,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFIFO => Kind::Other("a FIFO"),
        SFlag::S_IFSOCK => Kind::Other("a socket"),
        _ => Kind::Other("a device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_is_never_stepped_through() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        assert!(folder.folder("link").is_err());
        assert!(folder.file("file").is_err());
        assert!(Folder::open(&inside.path().join("link")).is_err());
        assert!(matches!(folder.kind_of("file").unwrap(), Some(Kind::Symlink)));
    }

    #[test]
    fn a_fifo_is_told_from_a_file_and_does_not_block() {
        let inside = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&inside.path().join("fifo"), Mode::S_IRWXU).unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        assert!(matches!(folder.kind_of("fifo").unwrap(), Some(Kind::Other("a FIFO"))));
        assert!(folder.file("fifo").is_err());
    }

    #[test]
    fn too_many_names_are_refused() {
        let inside = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(inside.path().join(name), "").unwrap();
        }
        let folder = Folder::open(inside.path()).unwrap();
        assert!(folder.names(2).is_err());
        assert_eq!(folder.names(3).unwrap().len(), 3);
    }
}
