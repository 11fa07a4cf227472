//! Confining a command: one trait, an implementation for each platform, and `none`.
//!
//! Everything that depends on the platform is in this folder. `Confined` is what the platform can
//! do; `Folder`, `Owner`, `ProcessTree` and the free functions beside them are the few other
//! things that differ, with the same names from each child.

mod bounds;
mod capture;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod none;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use bounds::{Bound, Bounds};
pub use capture::Captured;
#[cfg(target_os = "linux")]
pub use linux::{Confined, enter_if_asked};
#[cfg(target_os = "macos")]
pub use macos::{Confined, enter_if_asked};
pub use none::Unconfined;
#[cfg(unix)]
pub use unix::{
    FileIdentity, Folder, Owner, ProcessTree, host_name, make_symlink, make_whiteout, remove_tree, set_mode,
    stop_asked,
};
#[cfg(windows)]
pub use windows::{
    Confined, FileIdentity, Folder, Owner, ProcessTree, enter_if_asked, host_name, make_symlink,
    make_whiteout, remove_tree, set_mode, stop_asked,
};

/// Folder in [`Surroundings::data_dir`] that every scratch folder is in. Whoever actions run as can walk
/// through it.
pub const STAGE: &str = "stage";

/// Folder in the [`STAGE`] where scratch folders are made.
pub const ACTIONS: &str = "actions";

/// Folder in [`RunSpec::scratch`] where the inputs are laid out.
pub const INPUTS: &str = "inputs";

/// Search path for a bare program name where the command's environment has no `PATH`.
pub const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What the action sees as `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Root {
    /// The worker's own system folders, read-only; the inputs are at `/build`.
    Worker,
    /// The inputs, and nothing of the worker.
    Inputs,
}

/// How far commands are confined; each includes what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not at all.
    None,
    /// Filters of files and system calls, and limits of processes: for containers in which nothing else is
    /// allowed. Actions see the machine's files, as far as they may, and each other in `/proc`.
    Filters,
    /// Namespaces besides.
    Namespaces,
    /// All that, and control groups that bound what an action uses.
    Full,
}

impl Level {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Filters => "filters",
            Self::Namespaces => "namespaces",
            Self::Full => "full",
        }
    }
}

/// How inputs have to be laid out for a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Layout {
    /// Hard links to the local CAS will do: whatever the action writes goes into a layer above.
    Links,
    /// The action can reach the files themselves, so they have to be its own.
    Copies,
}

/// A command that is ready to run.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// Absolute path of a folder in the [`STAGE`] that is this action's alone. Holds [`INPUTS`]; the sandbox puts
    /// what it needs beside that, and whoever made the folder removes it.
    pub scratch: PathBuf,
    /// A folder of inputs that lies below [`INPUTS`]: the action sees what is in it too, unless [`INPUTS`] has
    /// something of that name, or a whiteout. Read-only like that, shared with other actions, and only with
    /// [`Layout::Links`]. Relative to `scratch`, and reachable from there for whom actions run as.
    pub base: Option<PathBuf>,
    /// What the action sees as `/`.
    pub root: Root,
    /// Whether it has the machine's network; only where [`Surroundings::allows_network`].
    pub network: bool,
    /// Program and arguments; not empty, no NUL.
    pub arguments: Vec<String>,
    /// The whole environment; names not empty and without `=`, no NUL.
    pub environment: Vec<(String, String)>,
    /// Relative to the input root; empty for the root itself. Exists.
    pub working_directory: String,
    /// Wall-clock bound.
    pub timeout: Duration,
    /// Memory that is set aside for it, in bytes: it may use that much if [`Bounds::memory_bytes`] is less, up to
    /// [`Bounds::memory_bytes_max`]. 0 if nobody has said.
    pub memory_bytes: u64,
}

/// What a platform has to know of the worker to confine commands.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The worker's data folder, absolute; actions' scratch folders will be in it.
    pub data_dir: PathBuf,
    /// Absolute paths of files and folders that no action may see.
    pub hidden: Vec<PathBuf>,
    /// How far commands are to be confined, exactly; `None` for as far as can be, but not less than
    /// [`Level::Namespaces`].
    pub level: Option<Level>,
    /// What one action may use.
    pub bounds: Bounds,
    /// Whether actions may be given the machine's network.
    pub allows_network: bool,
    /// A program that calls [`enter_if_asked`] first thing; `None` for the current one.
    pub program: Option<PathBuf>,
}

/// What a name in a [`Folder`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Logical size, holes included.
        size_bytes: u64,
        /// Whether its owner may execute it.
        is_executable: bool,
    },
    /// A folder.
    Folder,
    /// A symlink, wherever it points.
    Symlink,
    /// Anything else, in words: `a FIFO`, …
    Other(&'static str),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned this exit code; 127 if the program was not found, 126 if it could not be started.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// Its time was up, and it was killed.
    TimedOut,
    /// It took more of something than it may, and was killed.
    Over(Bound),
}

/// What a command used, its children included; zero where the platform doesn't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest resident set of any one of its processes, in bytes.
    pub memory_bytes_max: u64,
}

/// What there is when a command has ended, and everything that it started with it.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What it used.
    pub usage: Usage,
    /// What it wrote to stdout.
    pub stdout: Captured,
    /// What it wrote to stderr.
    pub stderr: Captured,
    /// The input root as the command left it. Nothing else can change it any more.
    pub root: Folder,
    /// Names in it that the sandbox needed for itself, and that are nobody's output.
    pub own_names: Vec<&'static str>,
}

/// A way to run commands.
///
/// Whatever the implementation, when `run` returns no process of the command is left (`none` can
/// promise that only for processes that stayed in its process group).
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// What the scheduler and people are told: `namespaces`, `none`, …
    fn level(&self) -> &'static str;

    /// How inputs have to be laid out.
    fn layout(&self) -> Layout;

    /// Which roots can be asked for.
    fn roots(&self) -> &'static [Root];

    /// Whom laid-out inputs have to belong to.
    fn owner(&self) -> Owner;

    /// Whether an action with `root=worker` sees this absolute path of the worker's.
    fn shows(&self, path: &Path) -> bool;

    /// Runs a command to its end, to its timeout, or until `cancel`.
    ///
    /// # Errors
    /// [`SandboxError::Cancelled`], and whatever kept the command from being run.
    ///
    /// Not cancel-safe: dropping the future kills the command but does not wait for its end.
    async fn run(&self, spec: &RunSpec, cancel: &CancellationToken) -> Result<Ended, SandboxError>;
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine doesn't allow what the sandbox needs.
    #[error("commands can't be confined here: {reason}\nhint: {hint}")]
    Unavailable {
        /// What was tried and what came of it.
        reason: String,
        /// What an operator can do.
        hint: &'static str,
    },
    /// A step before the command failed: the worker's fault, not the action's.
    #[error("can't {step}")]
    Setup {
        /// What was tried.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The caller no longer wants it; it was killed if it had begun.
    #[error("the command was cancelled")]
    Cancelled,
    /// The process that confines the command ended without saying why.
    #[error("the sandbox ended without a report ({status})")]
    Lost {
        /// How it ended.
        status: String,
    },
}

impl SandboxError {
    /// For `map_err`: names the step.
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Setup { step, source }
    }
}
