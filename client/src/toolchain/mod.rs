//! The compiler as part of the key: every program and library that has a say in the object, by content.

mod appearing;
pub(crate) mod command;
mod elf;
mod linking;
pub mod loader;
mod luggage;
mod memory;
mod multitool;
mod probe;
pub mod resolve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_cas::{Digest, DigestFunction, Hasher};
use serde::{Deserialize, Serialize};

use crate::command_line::Dialect;
use crate::local::{Platform, Stamp};
use crate::reason::Reason;

pub use luggage::{Luggage, Packed, check_place};
pub use memory::ToolchainMemory;
pub use multitool::{CACHES, Mode};
pub use probe::{IncludeDirs, check_program, ignored_folders, search_list as probe_search_list};

/// Whose compiler it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// GCC.
    Gcc,
    /// Clang, Apple's too.
    Clang,
}

/// In which shape a compiler's messages come out under the user's locale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Messages {
    /// English, with ASCII quotes: as under `LC_ALL=C`.
    Ascii,
    /// English, with typographic quotes: as under `LC_ALL=C.UTF-8`.
    Utf8,
    /// Another language, named by the variables that chose it.
    Translated(String),
}

/// A program or library that has a say in the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Where it was found; where it has to be for an action.
    pub path: PathBuf,
    /// By what it is recognised without being read.
    pub stamp: Stamp,
    /// `HASH/SIZE`, SHA-256.
    pub digest: String,
    /// What it is there for, for people.
    pub role: String,
}

/// The program that makes an object of a compiler's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assembler {
    /// Where it is.
    pub path: PathBuf,
    /// The name that was looked up on `PATH`; `None` if the compiler knows the path itself.
    pub looked_up: Option<String>,
    /// Whether it is GNU's, which tells by `--MD` what it read.
    pub is_gnu: bool,
}

impl Assembler {
    /// Whether `PATH`, which may be another one today, still leads to it.
    fn is_where_it_was(&self) -> bool {
        self.looked_up.as_ref().is_none_or(|name| probe::on_path(name).as_ref() == Some(&self.path))
    }
}

/// Whether a compiler goes along with the actions that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Travel {
    /// It does, as a part of their inputs.
    Along(Luggage),
    /// It doesn't, for this reason: a worker has to have the same one.
    Stays(String),
}

/// A compiler for one language, identified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// What is run: the driver, at the path that selects its behaviour.
    pub driver: PathBuf,
    /// As what it is called, if it is a compiler only then.
    pub mode: Option<Mode>,
    /// In which words it is told what to do.
    pub dialect: Dialect,
    /// Whose compiler it is.
    pub family: Family,
    /// The machine that it runs on, by its name in Rust; by default ours.
    pub machine: String,
    /// Its major version.
    pub major: u32,
    /// Whether it takes C for C++.
    pub is_cxx_driver: bool,
    /// The program that does the compiling, `cc1plus` or the like; with clang the driver itself.
    pub frontend: PathBuf,
    /// The assembler; `None` if the front end does that as well.
    pub assembler: Option<Assembler>,
    /// The folder of an assembler that isn't found on the `PATH` of the action.
    pub assembler_folder: Option<PathBuf>,
    /// Driver, front end, assembler, the shared libraries of each, and files that they go by.
    pub tools: Vec<Tool>,
    /// Files with specs that the driver reads by itself.
    pub specs: Vec<PathBuf>,
    /// Files that would take precedence if they appeared, and what the loader goes by: with their stamps now.
    pub watched: Vec<(PathBuf, Option<Stamp>)>,
    /// Set if a worker's own would run with other libraries.
    pub is_bound_here: Option<String>,
    /// Whether it goes along with actions.
    pub travel: Travel,
    /// The compiler's own folders of headers, by the flags that choose them.
    pub include_dirs: BTreeMap<String, IncludeDirs>,
    /// How messages look, by the variables of the locale.
    pub messages: BTreeMap<String, Messages>,
}

/// The folders in which an action looks for `as`.
pub const ACTION_PATH: &str = "/usr/bin:/bin";

impl Toolchain {
    /// A call of the compiler.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.driver);
        command.args(self.mode.map(Mode::word));
        command
    }

    /// The version of DWARF that `-g` gives.
    pub const fn default_dwarf_version(&self) -> u8 {
        match self.family {
            Family::Gcc if self.major < 11 => 4,
            Family::Clang if self.major < 14 => 4,
            _ => 5,
        }
    }

    /// Whether `__FILE__` can be renamed.
    pub const fn has_macro_prefix_map(&self) -> bool {
        match self.family {
            Family::Gcc => self.major >= 8,
            Family::Clang => self.major >= 10,
        }
    }

    /// Whether `SOURCE_DATE_EPOCH` decides what `__DATE__` and `__TIME__` say.
    pub const fn has_source_date_epoch(&self) -> bool {
        match self.family {
            Family::Gcc => self.major >= 7,
            Family::Clang => self.major >= 16,
        }
    }

    /// A name by which people tell it from others, the same wherever its files are: `gcc-12 cc1plus 3fa2bc99`.
    pub fn name(&self) -> String {
        // FNV-1a: this is no key, and computed with every call.
        let digests = self.tools.iter().flat_map(|tool| tool.digest.bytes());
        let hash = digests.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let family = match self.family {
            Family::Gcc => "gcc",
            Family::Clang => "clang",
        };
        let frontend = self.frontend.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        format!("{family}-{} {frontend} {:08x}", self.major, hash >> 32)
    }

    /// Whether a file of it is a program that it starts.
    fn is_program(&self, path: &Path) -> bool {
        let assembler = self.assembler.as_ref().map(|assembler| assembler.path.as_path());
        [Some(self.driver.as_path()), Some(&self.frontend), assembler].contains(&Some(path))
    }

    /// The files that go along with its actions, and what they hold; each content once.
    pub fn traveling_files(&self) -> Vec<(Digest, PathBuf)> {
        let Travel::Along(luggage) = &self.travel else { return Vec::new() };
        let digest = |file: &Packed| file.digest.parse::<Digest>().expect("written by us, from a digest");
        let files: BTreeMap<Digest, PathBuf> =
            luggage.files.iter().map(|(path, file)| (digest(file), path.clone())).collect();
        files.into_iter().collect()
    }

    /// Whether nothing that was asked of the compiler can have changed.
    pub fn is_current(&self) -> bool {
        let stamp = |path: &Path| path.metadata().ok().map(|metadata| Platform::stamp(&metadata));
        self.tools.iter().all(|tool| stamp(&tool.path) == Some(tool.stamp))
            && self.watched.iter().all(|(path, then)| stamp(path) == *then)
            && self.assembler.iter().all(Assembler::is_where_it_was)
    }
}

/// What the system starts in a program's place: its loader, or a script's interpreter; nothing for what is static.
/// `None` if a file is no program that is understood.
pub fn interpreter_of(program: &Path) -> Option<Option<String>> {
    let mut begin = [0; SCRIPT_LINE_BYTES];
    let mut file = std::fs::File::open(program).ok()?;
    let mut read = 0;
    while read < begin.len() {
        match std::io::Read::read(&mut file, &mut begin[read..]).ok()? {
            0 => break,
            more => read += more,
        }
    }
    let Some(line) = begin[..read].strip_prefix(b"#!") else {
        return elf::read(program).map(|elf| elf.interpreter);
    };
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&line[..end]).ok()?;
    Some(Some(line.split_whitespace().next()?.to_owned()))
}

/// Whether a shared library has a section of this name; `None` if it is none that is understood.
pub fn has_section(library: &Path, name: &str) -> Option<bool> {
    elf::has_section(library, name.as_bytes())
}

/// The names of the libraries that a shared library needs; `None` if it is none that is understood.
pub fn needed_by(library: &Path) -> Option<Vec<String>> {
    elf::read(library).map(|elf| elf.needed)
}

/// Whether a program is built with a sanitizer that looks for leaks: it watches itself, so nobody else may.
pub fn finds_leaks(program: &Path) -> bool {
    elf::read(program).is_some_and(|elf| elf.finds_leaks)
}

/// Most bytes of a script's first line that systems read.
const SCRIPT_LINE_BYTES: usize = 256;

/// Files by the paths under which they are opened, with what each is there for.
type Roles = BTreeMap<PathBuf, String>;

/// Identifies files.
///
/// # Errors
/// The reason to pass through, as for [`identify_file`].
fn identify_files(roles: &Roles) -> Result<Vec<Tool>, Reason> {
    roles.iter().map(|(path, role)| identify_file(path, role)).collect()
}

/// Reads a file and tells its digest, with the stamp it had.
///
/// # Errors
/// The reason to pass through, if it can't be read or changes meanwhile.
fn identify_file(path: &Path, role: &str) -> Result<Tool, Reason> {
    let unreadable = |_| Reason::new("compiler can't be read");
    let stamp_now = || path.metadata().map(|metadata| Platform::stamp(&metadata)).map_err(unreadable);
    let before = stamp_now()?;
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut hasher = Hasher::new(DigestFunction::Sha256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let digest: Digest = hasher.finish();
    if stamp_now()? != before {
        return Err("compiler is being replaced".into());
    }
    Ok(Tool { path: path.to_owned(), stamp: before, digest: digest.to_string(), role: role.to_owned() })
}
