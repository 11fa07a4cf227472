//! Windows.

pub mod endpoint;
#[path = "no_witness.rs"]
pub mod witness;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use tempfile::NamedTempFile;

use super::{Called, MemoryFile, Stamp};

/// 100-nanosecond steps between 1601, where Windows begins to count, and 1970.
const STEPS_BEFORE_1970: i128 = 116_444_736_000_000_000;

/// The passing on of signals to a child; there are none here, and a console tells all its processes.
#[derive(Debug)]
pub struct Forwarding;

impl Forwarding {
    /// Begins.
    pub const fn to(_: &Child) -> Self {
        Self
    }

    /// Begins, for all that a child starts too.
    pub const fn to_group(_: &Child) -> Self {
        Self
    }

    /// Has signals go to other threads; there are none.
    pub const fn not_to_this_thread() {}

    /// Ends that.
    pub const fn to_this_thread_again() {}

    /// Ends, when the child has.
    pub const fn end(self, _: ExitStatus) {}

    /// Ends because the child is of no use any more.
    pub const fn end_early(self) {}
}

/// This operating system.
pub struct Platform;

impl Platform {
    /// What separates a program's name from its extension, with the extension.
    pub const PROGRAM_SUFFIX: &'static str = ".exe";

    /// Whether file paths are the kind that `paths` knows how to make virtual.
    ///
    /// Drive letters and backslashes are not yet: every compile is passed through, with that reason.
    pub const HAS_VIRTUAL_PATHS: bool = false;

    /// Value of the platform property `OSFamily`.
    pub const OS_FAMILY: &'static str = "windows";

    /// Whether programs are ELF files, whose loaders list the shared libraries that they load.
    pub const HAS_ELF_LOADER: bool = false;

    /// Runs `command` and ends with its exit code, which is as near as Windows comes to replacing a process.
    pub fn replace_process(mut command: Command) -> io::Error {
        match command.status() {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(error) => error,
        }
    }

    /// The exit code to end with when a child ended so.
    pub fn exit_code(status: ExitStatus) -> u8 {
        status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }

    /// Has a command be the first of a group of processes; there are none here.
    pub const fn lead_a_group(_: &mut Command) {}

    /// Ends a group of processes; here they end by themselves.
    pub const fn end_group(_: u32) {}

    /// Whether more runs on this machine now than it has cores; not known here.
    pub const fn is_busy() -> bool {
        false
    }

    /// The stamp of a file. Windows shows no time of change through this door, so that of writing stands in.
    pub fn stamp(metadata: &Metadata) -> Stamp {
        let written_ns = (i128::from(metadata.last_write_time()) - STEPS_BEFORE_1970) * 100;
        Stamp {
            device: 0,
            inode: metadata.creation_time(),
            size_bytes: metadata.len(),
            modified_ns: written_ns,
            changed_ns: written_ns,
        }
    }

    /// Whether the file is one that may be replaced by another under its name.
    pub fn is_replaceable(metadata: &Metadata) -> bool {
        metadata.is_file()
    }

    /// A new file, to be given its name when it is whole.
    pub fn new_output(folder: &Path, _: bool) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(".castwork-").tempfile_in(folder)
    }

    /// Whether the file has other names, as far as is known.
    pub fn is_shared(_metadata: &Metadata) -> bool {
        false
    }

    /// Whether the file may be run as a program.
    pub fn is_program(path: &Path) -> bool {
        path.is_file()
    }

    /// Its permissions, as a number that is not 0; all files have the same here.
    pub const fn permissions(_: &Metadata) -> u32 {
        1
    }

    /// Whether such permissions say that it may be run; none do here.
    pub const fn is_to_be_run(_: u32) -> bool {
        false
    }

    /// Whether two files may be written alike; whose they are is not known here.
    pub fn have_same_rights(one: &Metadata, other: &Metadata) -> bool {
        one.permissions() == other.permissions()
    }

    /// Whether a folder that was made has the permissions that any gets.
    pub const fn is_usual_folder(_: &Metadata, _: &Metadata) -> bool {
        true
    }

    /// What is taken from the permissions of new files; there is nothing like that here.
    pub const fn file_mask() -> Option<String> {
        None
    }

    /// Starts `path` under another name; programs have but one here.
    pub fn command(called: &Called<'_>) -> Command {
        let mut command = Command::new(called.path);
        command.args(called.words);
        command.envs(called.search.map(|search| ("PATH", search)));
        command
    }

    /// Whether what is said to standard output and error comes to the same end; not known here.
    pub const fn has_one_output() -> bool {
        false
    }

    /// Ends as a child did that was ended by a signal; there are none here.
    pub const fn end_like(_: ExitStatus) {}

    /// Whether its permissions say that it may be run; no such are here.
    pub const fn is_executable(_: &Metadata) -> bool {
        false
    }

    /// Reads at a place in a file, and tells how many bytes; fewer than there is room for at its end.
    pub fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(room, offset)
    }

    /// Writes at a place in a file, with one call.
    pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    /// A file in memory; none has a path here.
    pub const fn memory_file() -> Option<MemoryFile> {
        None
    }

    /// Makes a link to a program; a hard link, or a copy where that can't be, because symbolic ones are for administrators.
    pub fn make_link(target: &Path, link: &Path) -> io::Result<()> {
        std::fs::hard_link(target, link).or_else(|_| std::fs::copy(target, link).map(drop))
    }

    /// Splits a `PATH`-like variable.
    pub fn split_path(value: &OsStr) -> Vec<PathBuf> {
        std::env::split_paths(value).collect()
    }
}
