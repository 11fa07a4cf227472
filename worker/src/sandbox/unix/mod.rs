//! What Linux and macOS have in common: folders by descriptor, owners, process groups, signals.

mod folder;
mod process;
mod remove;

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

pub use folder::Folder;
pub use process::ProcessTree;
pub use remove::remove_tree;

/// The user and group whom laid-out inputs have to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(Option<(u32, u32)>);

impl Owner {
    /// Whoever this process runs as: nothing has to be done.
    pub const fn of_this_process() -> Self {
        Self(None)
    }

    /// Another user; this process has to be allowed to give files away.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "on macOS actions run as the worker's user"))]
    pub(in crate::sandbox) const fn user(uid: u32, gid: u32) -> Self {
        Self(Some((uid, gid)))
    }

    /// Gives a file, folder or symlink (never what it points to) to this owner.
    pub fn take(self, path: &Path) -> io::Result<()> {
        match self.0 {
            None => Ok(()),
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
        }
    }

    /// Whether a file with that metadata has to be given to this owner first.
    pub fn lacks(self, metadata: &Metadata) -> bool {
        self.0.is_some_and(|(uid, gid)| metadata.uid() != uid || metadata.gid() != gid)
    }
}

/// Tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    /// Reads it off metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Makes a symlink at `path`.
pub fn make_symlink(target: &str, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Makes what hides a name of a lower layer in an overlay: a character device without a number.
pub fn make_whiteout(path: &Path) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, mknod};
    mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).map_err(io::Error::from)
}

/// Sets the permission bits, where the platform has them.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// What this machine calls itself.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Returns at the next request to end: SIGTERM or SIGINT.
pub async fn stop_asked() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
