//! Windows: folders by path, no owners, no confinement yet (`--sandbox none` runs commands).

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::{Ended, Kind, Layout, Root, RunSpec, Sandbox, SandboxError, Surroundings};

/// Confinement that this version does not have here; so there is no value of it.
#[derive(Debug)]
pub enum Confined {}

impl Confined {
    /// Refuses.
    ///
    /// # Errors
    /// Always [`SandboxError::Unavailable`].
    #[allow(clippy::unused_async, reason = "it is asynchronous where there is something to find out")]
    pub async fn probe(_: &Surroundings) -> Result<Self, SandboxError> {
        Err(SandboxError::Unavailable {
            reason: "this version has no sandbox for Windows".to_owned(),
            hint: "on a machine that runs only what you trust, say `--sandbox none`",
        })
    }
}

#[async_trait]
impl Sandbox for Confined {
    fn level(&self) -> &'static str {
        match *self {}
    }

    fn layout(&self) -> Layout {
        match *self {}
    }

    fn roots(&self) -> &'static [Root] {
        match *self {}
    }

    fn owner(&self) -> Owner {
        match *self {}
    }

    fn shows(&self, _: &Path) -> bool {
        match *self {}
    }

    async fn run(&self, _: &RunSpec, _: &CancellationToken) -> Result<Ended, SandboxError> {
        match *self {}
    }
}

/// Nothing is asked of a fresh start of the program here.
pub fn enter_if_asked() {}

/// Whom laid-out inputs have to belong to: here always the worker's own user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner;

impl Owner {
    /// Whoever this process runs as.
    pub const fn of_this_process() -> Self {
        Self
    }

    /// Does nothing: what this process makes is its own.
    #[allow(clippy::unnecessary_wraps, reason = "it can fail where files have other owners")]
    pub const fn take(self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Nothing has to be given away.
    pub const fn lacks(self, _: &Metadata) -> bool {
        false
    }
}

/// Tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    size_bytes: u64,
    created: u64,
    written: u64,
}

impl FileIdentity {
    /// Reads it off metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.file_size(),
            created: metadata.creation_time(),
            written: metadata.last_write_time(),
        }
    }
}

/// A command; what it starts itself is not followed here.
#[derive(Debug)]
pub struct ProcessTree;

impl ProcessTree {
    /// Leaves the command as it is.
    pub const fn lead(_: &mut Command) {}

    /// The tree of a child.
    pub const fn of(_: &Child) -> Self {
        Self
    }

    /// Does nothing: the child itself is killed by its handle.
    pub const fn kill(&self) {}

    /// There are no signals.
    pub const fn signal_of(_: ExitStatus) -> i32 {
        0
    }
}

/// A folder that is looked into one name at a time, never through a link.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens a folder by path; it must not be a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        if std::fs::symlink_metadata(path)?.is_dir() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    }

    /// Opens a folder in this one.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Self::open(&self.path.join(name))
    }

    /// Opens a regular file in this folder for reading.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        if std::fs::symlink_metadata(&path)?.is_file() {
            return File::open(path);
        }
        Err(io::Error::other("no regular file any more"))
    }

    /// What is under that name; `None` if nothing is.
    pub fn kind_of(&self, name: &str) -> io::Result<Option<Kind>> {
        let metadata = match std::fs::symlink_metadata(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        Ok(Some(if metadata.is_symlink() {
            Kind::Symlink
        } else if metadata.is_dir() {
            Kind::Folder
        } else {
            let is_executable =
                Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe"));
            Kind::File { size_bytes: metadata.file_size(), is_executable }
        }))
    }

    /// Where the symlink of that name points to.
    pub fn link(&self, name: &str) -> io::Result<OsString> {
        Ok(std::fs::read_link(self.path.join(name))?.into_os_string())
    }

    /// The names in this folder, in no order; at most `names_max`.
    ///
    /// # Errors
    /// If there are more, besides what the system says.
    pub fn names(&self, names_max: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if names.len() == names_max {
                return Err(io::Error::other(format!("more than {names_max} entries")));
            }
            names.push(entry?.file_name());
        }
        Ok(names)
    }
}

/// Makes a symlink at `path`, to a file as far as Windows wants to know.
pub fn make_symlink(target: &str, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

/// There are no overlays.
pub fn make_whiteout(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: there are no permission bits.
#[allow(clippy::unnecessary_wraps, reason = "it can fail where there are permission bits")]
pub const fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Removes a folder and everything in it. No error if there is no such folder.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What this machine calls itself.
pub fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "unnamed".to_owned())
}

/// Returns at the next request to end: Ctrl-C.
pub async fn stop_asked() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
