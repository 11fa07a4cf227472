//! Linux, macOS and the other Unixes.

pub mod endpoint;
mod signals;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod witness;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "no_witness.rs"]
pub mod witness;

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use super::{Called, MemoryFile, Stamp};

pub use signals::Forwarding;

/// Set in permissions that are known.
const KNOWN: u32 = 1 << 16;

/// This operating system.
pub struct Platform;

impl Platform {
    /// What separates a program's name from its extension, with the extension; empty here.
    pub const PROGRAM_SUFFIX: &'static str = "";

    /// Whether file paths are the kind that `paths` knows how to make virtual.
    pub const HAS_VIRTUAL_PATHS: bool = true;

    /// Value of the platform property `OSFamily`.
    pub const OS_FAMILY: &'static str = if cfg!(target_os = "macos") { "macos" } else { "linux" };

    /// Whether programs are ELF files, whose loaders list the shared libraries that they load.
    pub const HAS_ELF_LOADER: bool = cfg!(target_os = "linux");

    /// Becomes `command`; returns only if that failed, with why.
    pub fn replace_process(mut command: Command) -> io::Error {
        command.exec()
    }

    /// The exit code to end with when a child ended so: its own, or 128 and the signal's number, as shells have it.
    pub fn exit_code(status: ExitStatus) -> u8 {
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }

    /// Has a command, once started, be the first of a group of processes, which can be ended together.
    pub fn lead_a_group(command: &mut Command) {
        command.process_group(0);
    }

    /// Ends a group of processes by who leads it.
    pub fn end_group(leader: u32) {
        use nix::sys::signal::{Signal, killpg};
        use nix::unistd::Pid;

        if let Ok(leader) = i32::try_from(leader) {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGTERM);
        }
    }

    /// Whether more runs on this machine now than it has cores; `false` where that is not known.
    pub fn is_busy() -> bool {
        // Three means, then how many run of how many there are.
        let running = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
            let (running, _) = text.split(' ').nth(3)?.split_once('/')?;
            running.parse::<usize>().ok()
        });
        // This process is one of them.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        running.is_some_and(|running| running > cores)
    }

    /// The stamp of a file.
    pub fn stamp(metadata: &Metadata) -> Stamp {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file is one that may be replaced by another under its name: not a device or the like.
    pub fn is_replaceable(metadata: &Metadata) -> bool {
        let kind = metadata.file_type();
        !(kind.is_symlink()
            || kind.is_char_device()
            || kind.is_block_device()
            || kind.is_fifo()
            || kind.is_socket()
            || kind.is_dir())
    }

    /// Whether the file has other names.
    pub fn is_shared(metadata: &Metadata) -> bool {
        metadata.nlink() > 1
    }

    /// A new file with a compiler's permissions, `0666` or `0777` less the mask, to be given its name when it is whole.
    pub fn new_output(folder: &Path, is_executable: bool) -> io::Result<NamedTempFile> {
        let permissions = Permissions::from_mode(if is_executable { 0o777 } else { 0o666 });
        tempfile::Builder::new().prefix(".castwork-").permissions(permissions).tempfile_in(folder)
    }

    /// Whether the file may be run as a program.
    pub fn is_program(path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && Self::is_executable(&metadata))
    }

    /// Its permissions, as a number that is not 0.
    pub fn permissions(metadata: &Metadata) -> u32 {
        KNOWN | (metadata.mode() & 0o7777)
    }

    /// Whether such permissions say that it may be run.
    pub const fn is_to_be_run(permissions: u32) -> bool {
        permissions & 0o111 != 0
    }

    /// Whether two files belong to the same user and group, and have the same permissions.
    pub fn have_same_rights(one: &Metadata, other: &Metadata) -> bool {
        (one.uid(), one.gid(), one.mode()) == (other.uid(), other.gid(), other.mode())
    }

    /// Whether a folder that was made has the permissions that any gets, as `usual`, a new program, has: but for those
    /// that it takes from the folder that it is in.
    pub fn is_usual_folder(metadata: &Metadata, usual: &Metadata) -> bool {
        metadata.mode() & 0o1777 == usual.mode() & 0o1777
    }

    /// A program, to be started under the name that it is called by.
    pub fn command(called: &Called<'_>) -> Command {
        let mut command = Command::new(called.path);
        command.arg0(called.name).args(called.words);
        command.envs(called.search.map(|search| ("PATH", search)));
        command
    }

    /// Whether what is said to standard output and error comes to the same end: the order of it can be seen then.
    pub fn has_one_output() -> bool {
        let identity = |output: BorrowedFd<'_>| {
            let metadata =
                output.try_clone_to_owned().map(File::from).and_then(|file| file.metadata()).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let stdout = identity(io::stdout().as_fd());
        stdout.is_some() && stdout == identity(io::stderr().as_fd())
    }

    /// Ends as a child did that was ended by a signal. Returns if it wasn't, or if this process can't be ended by that.
    pub fn end_like(status: ExitStatus) {
        use nix::sys::resource::{Resource, setrlimit};

        if let Some(signal) = status.signal().and_then(|signal| Signal::try_from(signal).ok()) {
            // The child has left its memory to be looked at; ours is of no interest.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            // The first may be caught, once, by who looks after the stack.
            signals::die(signal);
            signals::die(signal);
        }
    }

    /// What is taken from the permissions of new files; `None` if this system doesn't say.
    pub fn file_mask() -> Option<String> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        status.lines().find_map(|line| line.strip_prefix("Umask:")).map(|mask| mask.trim().to_owned())
    }

    /// Whether its permissions say that it may be run.
    pub fn is_executable(metadata: &Metadata) -> bool {
        metadata.permissions().mode() & 0o111 != 0
    }

    /// Reads at a place in a file, and tells how many bytes; fewer than there is room for at its end.
    pub fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(room, offset)
    }

    /// Writes at a place in a file, with one call.
    pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// A file in memory; `None` where there is none with a path.
    #[cfg(target_os = "linux")]
    pub fn memory_file() -> Option<MemoryFile> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        use std::os::fd::AsRawFd;

        // Without `MFD_CLOEXEC`, so that it is open in programs that are started.
        let open = File::from(memfd_create("castwork", MFdFlags::empty()).ok()?);
        let path = format!("/proc/self/fd/{}", open.as_raw_fd());
        Path::new(&path).exists().then_some(MemoryFile { _open: open, path })
    }

    /// A file in memory; `None` where there is none with a path.
    #[cfg(not(target_os = "linux"))]
    pub fn memory_file() -> Option<MemoryFile> {
        None
    }

    /// Makes a link to a program.
    pub fn make_link(target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    /// Splits a `PATH`-like variable.
    pub fn split_path(value: &OsStr) -> Vec<PathBuf> {
        std::env::split_paths(value).collect()
    }
}
