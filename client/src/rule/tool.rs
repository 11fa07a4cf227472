//! What a tool is: its program, the libraries that it loads, the interpreter of a script, and what its rule adds.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use castwork_cas::{DigestFunction, Hasher};
use serde::{Deserialize, Serialize};

use super::book::Rule;
use super::remembered::Remembered;
use crate::direct::Hashes;
use crate::direct::memo::Hash;
use crate::reason::Reason;
use crate::toolchain::{libraries_of, resolve};

/// Scripts whose interpreters are scripts: so many are followed.
const SCRIPTS_MAX: usize = 4;

/// Most bytes of a script's first line.
const FIRST_LINE_BYTES_MAX: u64 = 4096;

/// Most files that a rule may add.
const FILES_MAX: usize = 10_000;

/// Variables by which a loader is told to load something else.
const LOADER: [&str; 3] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"];

/// The hash of all that a tool consists of, by content.
///
/// # Errors
/// The reason to pass the call through.
pub fn fingerprint(rule: &Rule, program: &Path, dir: &Path, hashes: &mut Hashes) -> Result<Hash, Reason> {
    let mut files = BTreeMap::new();
    let mut program = program.to_owned();
    for depth in 0.. {
        if depth == SCRIPTS_MAX {
            return Err("tool whose interpreter is not understood".into());
        }
        let real = program.canonicalize().map_err(|_| Reason::new("tool that can't be read"))?;
        for library in libraries(&real, dir)? {
            add(&mut files, &library, hashes)?;
        }
        add(&mut files, &real, hashes)?;
        match interpreter(&real)? {
            Some(next) => program = next,
            None => break,
        }
        if depth == 0 {
            of_rule(rule, &real, &mut files, hashes)?;
        }
    }
    let mut hasher = Hasher::new(DigestFunction::Sha256);
    for (path, hash) in files {
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path.as_bytes());
        hasher.update(&hash);
    }
    Ok(hasher.finish().hash().try_into().expect("a SHA-256 has 32 bytes"))
}

fn add(files: &mut BTreeMap<String, Hash>, path: &Path, hashes: &mut Hashes) -> Result<(), Reason> {
    let path = path.to_str().ok_or(Reason::new("tool with an unusual name"))?;
    let hash = hashes.of(path).ok_or(Reason::new("tool that can't be read"))?;
    files.insert(path.to_owned(), hash);
    Ok(())
}

/// Adds what a rule says is part of the tool.
fn of_rule(
    rule: &Rule,
    program: &Path,
    files: &mut BTreeMap<String, Hash>,
    hashes: &mut Hashes,
) -> Result<(), Reason> {
    let folder = program.parent().and_then(Path::to_str).unwrap_or_default();
    for pattern in &rule.tool {
        let pattern = pattern.replace("{}", &glob::Pattern::escape(folder));
        for path in glob::glob(&pattern).map_err(|_| Reason::new("glob that is none"))?.flatten() {
            if path.is_file() {
                add(files, &path, hashes)?;
            }
            if files.len() > FILES_MAX {
                return Err("tool of too many files".into());
            }
        }
    }
    Ok(())
}

/// What the loader loads for a program, as it was the last time unless one of these files is another.
fn libraries(program: &Path, dir: &Path) -> Result<Vec<PathBuf>, Reason> {
    let loader: Vec<_> = LOADER.iter().map(std::env::var_os).collect();
    let remembered = Remembered::of(dir, "libraries", &(program, loader));
    if let Some(Libraries(paths)) = remembered.recall() {
        return Ok(paths);
    }
    let paths: Vec<PathBuf> = libraries_of(program)?.into_iter().collect();
    remembered.keep(&Libraries(paths.clone()), paths.iter().map(PathBuf::as_path).chain([program]));
    Ok(paths)
}

#[derive(Serialize, Deserialize)]
struct Libraries(Vec<PathBuf>);

/// The program that a script is run by.
fn interpreter(program: &Path) -> Result<Option<PathBuf>, Reason> {
    let unread = |_| Reason::new("tool that can't be read");
    let mut start = Vec::new();
    let file = std::fs::File::open(program).map_err(unread)?;
    file.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut start).map_err(unread)?;
    let Some(rest) = start.strip_prefix(b"#!") else { return Ok(None) };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Reason::new("tool with an unusual name"))?;
    let mut words = line.split_whitespace();
    let first = words.next().ok_or(Reason::new("script without an interpreter"))?;
    if Path::new(first).file_name().is_some_and(|name| name == "env") {
        let name = words.next().filter(|name| !name.starts_with('-') && !name.contains('='));
        let name = name.ok_or(Reason::new("tool whose interpreter is not understood"))?;
        let search = std::env::var_os("PATH").unwrap_or_default();
        let found = resolve::candidates(name.as_ref(), &search, Path::new("/")).next();
        return found.map(Some).ok_or(Reason::new("script without an interpreter"));
    }
    Ok(Some(first.into()))
}
