//! [`Compiler`]: which rustc this is, by what its files hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::direct::Hashes;
use crate::direct::hashes::hash_of;
use crate::direct::manifest::Contents;
use crate::direct::memo::Hash;
use crate::files;
use crate::local::{Platform, Stamp};
use crate::reason::Reason;
use crate::toolchain::{loader, resolve};

/// Most files of a sysroot that are looked at.
const FILES_MAX: usize = 4096;

/// How many folders within each other are looked at; links are followed.
const LEVELS_MAX: usize = 16;

/// Where the sources of the standard library are, if they are installed.
const SOURCES: &str = "lib/rustlib/src/rust";

/// What rustup's stand-in for all its tools is called.
const RUSTUP: &str = "rustup";

/// A rustc with its standard libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The program itself, all links followed.
    pub program: PathBuf,
    /// Where its libraries are.
    pub sysroot: PathBuf,
    /// The files of that, by their full names.
    pub files: BTreeSet<PathBuf>,
    /// What all of them hold.
    pub digest: Hash,
}

/// What is remembered of a rustc.
#[derive(Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    sysroot: PathBuf,
    /// The shared libraries that it runs with.
    libraries: BTreeSet<PathBuf>,
}

impl Compiler {
    /// Finds out which rustc a program is, in the working folder and environment of this process.
    ///
    /// # Errors
    /// The reason to pass its call through.
    pub fn find(program: &Path, dir: &Path, hashes: &mut Hashes) -> Result<Self, Reason> {
        let mut real = resolve::real(program)?;
        if real.file_stem().is_some_and(|name| name == RUSTUP) {
            // Which of its rustcs it starts depends on variables and on files in this folder and those above.
            real = resolve::real(&sysroot_of(program)?.join("bin/rustc"))?;
        }
        let known = known(&real, dir)?;
        check_library_path(&known)?;
        let mut contents = Contents::default();
        let mut names = String::new();
        let libraries = known.libraries.iter().map(PathBuf::clone);
        let mut files: BTreeSet<PathBuf> = libraries.chain([real.clone()]).collect();
        if !Platform::HAS_ELF_LOADER {
            files.extend(dylibs(&known.sysroot));
        }
        for folder in targets(&known.sysroot) {
            list(&folder, LEVELS_MAX, &mut files)?;
        }
        for file in &files {
            let path = file.to_str().ok_or(Reason::new("compiler with an unusual name"))?;
            contents.add(&hashes.of(path).ok_or(Reason::new("compiler can't be read"))?);
            // Where all of it lies doesn't count.
            let name = file.strip_prefix(&known.sysroot).unwrap_or(file);
            names.push_str(&name.to_string_lossy());
            names.push('\n');
        }
        names.push_str(&hex::encode(contents.finish()));
        // With these at hand, rustc says where in them what it takes from the standard library is written.
        let mut compiler = Self { program: real, sysroot: known.sysroot, files, digest: Hash::default() };
        if compiler.sources().is_some() {
            names.push_str(&compiler.sysroot.to_string_lossy());
        }
        compiler.digest = hash_of(names.as_bytes());
        Ok(compiler)
    }
}

impl Compiler {
    /// The folder with the sources of the standard library, if it is at hand: rustc shows these then.
    pub fn sources(&self) -> Option<PathBuf> {
        Some(self.sysroot.join(SOURCES)).filter(|folder| folder.exists())
    }

    /// The files that it needs to compile for a target, by default this machine's, and not to link: what comes with other
    /// targets is left out, and so are linkers.
    pub fn files_for(&self, target: Option<&str>) -> impl Iterator<Item = &Path> {
        let targets = self.sysroot.join("lib/rustlib");
        let is_needed = move |file: &Path| {
            let Ok(below) = file.strip_prefix(&targets) else { return true };
            let mut parts = below.iter().filter_map(|part| part.to_str());
            let of = parts.next().unwrap_or_default();
            let is_wanted = match target {
                Some(target) => of == target,
                None => of.split('-').next() == Some(std::env::consts::ARCH) && of.contains("-linux-"),
            };
            is_wanted && parts.next() != Some("bin")
        };
        self.files.iter().map(PathBuf::as_path).filter(move |file| is_needed(file))
    }
}

fn sysroot_of(program: &Path) -> Result<PathBuf, Reason> {
    let mut command = Command::new(program);
    command.args(["--print", "sysroot"]).stdin(Stdio::null()).stderr(Stdio::null());
    let said = command.output().ok().filter(|output| output.status.success());
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok());
    let sysroot = said.map(|said| PathBuf::from(said.trim()));
    let sysroot = sysroot.and_then(|sysroot| sysroot.canonicalize().ok());
    sysroot.ok_or(Reason::new("rustc doesn't say where its libraries are"))
}

/// What is known of a rustc, or asked of it now.
fn known(real: &Path, dir: &Path) -> Result<Known, Reason> {
    let metadata = real.metadata().map_err(|_| Reason::new("compiler can't be read"))?;
    let stamp = Platform::stamp(&metadata);
    let name = hex::encode(&hash_of(real.as_os_str().as_encoded_bytes())[..8]);
    let memory = dir.join("rustc").join(name);
    let read = std::fs::read(&memory).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
    if let Some(known) = read.filter(|known| known.stamp == stamp) {
        return Ok(known);
    }
    let libraries = loader::listed(real, loader::Under::Nothing)?;
    let known = Known { stamp, sysroot: sysroot_of(real)?, libraries };
    // A failure costs the next call the same questions.
    let _ = serde_json::to_vec(&known).map(|bytes| files::write_one_of_many(&memory, &bytes));
    Ok(known)
}

/// Checks that no library of rustc's own is taken from elsewhere: cargo names folders of the build.
fn check_library_path(known: &Known) -> Result<(), Reason> {
    if std::env::var_os("LD_PRELOAD").is_some_and(|value| !value.is_empty()) {
        return Err("`LD_PRELOAD` is set".into());
    }
    let Some(folders) = std::env::var_os("LD_LIBRARY_PATH") else { return Ok(()) };
    for folder in Platform::split_path(&folders) {
        for library in &known.libraries {
            let other = folder.join(library.file_name().unwrap_or_default());
            let is_other = other.canonicalize().is_ok_and(|other| Some(other) != library.canonicalize().ok());
            if is_other {
                return Err("rustc with libraries by `LD_LIBRARY_PATH`".into());
            }
        }
    }
    Ok(())
}

/// The libraries that may be rustc's own, where nothing tells which it runs with.
fn dylibs(sysroot: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = sysroot.join("lib").read_dir();
    let files = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file() && path.extension().is_some_and(|ending| ending == "dylib"))
}

/// The folders of the standard libraries, by target.
fn targets(sysroot: &Path) -> Vec<PathBuf> {
    let entries = sysroot.join("lib/rustlib").read_dir();
    let folders = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.join("lib").is_dir()).collect()
}

/// Lists the files in a folder and those within.
fn list(folder: &Path, levels: usize, files: &mut BTreeSet<PathBuf>) -> Result<(), Reason> {
    let unreadable = |_| Reason::new("compiler can't be read");
    for entry in folder.read_dir().map_err(unreadable)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let levels = levels.checked_sub(1).ok_or(Reason::new("compiler of too many folders"))?;
            list(&path, levels, files)?;
        } else if path.is_file() {
            files.insert(path);
        }
        if files.len() > FILES_MAX {
            return Err("compiler of too many files".into());
        }
    }
    Ok(())
}
