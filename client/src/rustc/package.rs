//! What cargo runs a compile again for, though nothing of it may be in dep-info: macros are programs, and read what they like.
//!
//! What a build script says that it depends on counts. If there are macros in play, or the script says nothing, all files of
//! the package do, unless it is of a registry or a checkout that nobody changes.

use std::collections::BTreeSet;
use std::path::Path;

use super::situation::{self, Situation};
use crate::direct::Hashes;
use crate::direct::hashes::hash_of;
use crate::direct::key::Said;
use crate::direct::memo::Hash;
use crate::environment;
use crate::local::Platform;
use crate::reason::Reason;

/// Most files that are looked at.
const FILES_MAX: usize = 10_000;

/// How many folders within each other are looked at; links are followed.
const LEVELS_MAX: usize = 32;

/// Most bytes of what a build script says.
const SAID_BYTES_MAX: u64 = 16 << 20;

/// Folders that hold what was, not what is.
const HISTORIES: [&str; 3] = [".git", ".hg", ".jj"];

/// What lies in a folder that can be made anew.
const CACHE_MARK: &str = "CACHEDIR.TAG";

/// What the build script that wrote to `out` has said to cargo; `None` if that isn't known.
fn said_by_script(out: &str) -> Result<Option<String>, Reason> {
    let Some(parent) = Path::new(out).parent() else { return Ok(None) };
    let file = parent.join("output");
    if file.metadata().is_ok_and(|metadata| metadata.len() > SAID_BYTES_MAX) {
        return Err("build script that says too much".into());
    }
    Ok(std::fs::read(file).ok().map(|said| String::from_utf8_lossy(&said).into_owned()))
}

/// The lines for cargo in what a build script said.
fn instructions(said: &str) -> impl Iterator<Item = &str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("cargo:"));
    lines.map(|line| line.strip_prefix(':').unwrap_or(line))
}

/// The variables that the package's build script has set for rustc.
///
/// # Errors
/// If it said more than is read.
pub fn variables_of_script() -> Result<BTreeSet<String>, Reason> {
    let said = environment::of_process("OUT_DIR").map(|out| said_by_script(&out)).transpose()?.flatten();
    let named = |line: &str| Some(line.strip_prefix("rustc-env=")?.split_once('=')?.0.to_owned());
    Ok(said.iter().flat_map(|said| instructions(said)).filter_map(named).collect())
}

/// What is below a folder.
#[derive(Default)]
pub struct Below {
    /// The files, by their paths.
    pub files: Vec<String>,
    /// The folders.
    pub folders: Vec<String>,
    /// Whether there is anything else.
    pub has_more: bool,
}

impl Below {
    /// Looks. What is no file or folder is left out, and so are links: they may lead to what is nobody's business, and `..` after
    /// them leads elsewhere than it reads. Unless it is looked at `whole`, hidden files (`.env`) and what was made are, too.
    ///
    /// # Errors
    /// If there is more than is looked at.
    pub fn look(folder: &str, here: &Situation, whole: bool) -> Result<Self, Reason> {
        let mut below = Self::default();
        let mut open = vec![(folder.trim_end_matches('/').to_owned(), LEVELS_MAX)];
        let too_many = Reason::new("package of too many files");
        while let Some((folder, levels)) = open.pop() {
            for name in names_in(&folder)? {
                let path = format!("{folder}/{name}");
                let kind = Path::new(&path).symlink_metadata().map(|metadata| metadata.file_type());
                let is_out = !whole && (name.starts_with('.') || is_left_out(&name, &path, here));
                match kind {
                    Ok(kind) if kind.is_file() && !is_out => below.files.push(path),
                    Ok(kind) if kind.is_dir() && !is_out => {
                        open.push((path, levels.checked_sub(1).ok_or(too_many.clone())?));
                    }
                    _ => below.has_more = true,
                }
            }
            below.folders.push(folder);
            if below.files.len() + below.folders.len() + open.len() > FILES_MAX {
                return Err(too_many);
            }
        }
        Ok(below)
    }
}

/// The names in a folder, in order.
fn names_in(folder: &str) -> Result<Vec<String>, Reason> {
    let mut names = Vec::new();
    for entry in Path::new(folder).read_dir().map_err(|_| Reason::new("folder that can't be read"))?.flatten()
    {
        let unusual = |_| Reason::new("folder with an unusual name");
        names.push(entry.file_name().into_string().map_err(unusual)?);
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a folder of the package is none of its own: a history, or what can be made anew.
fn is_left_out(name: &str, path: &str, here: &Situation) -> bool {
    HISTORIES.contains(&name)
        || Path::new(path).join(CACHE_MARK).is_file()
        || here.build().is_some_and(|build| build == path)
}

/// The digest of all that, as it is now. Whether there are `programs` in play says the caller.
///
/// # Errors
/// The reason to pass the call through.
pub fn digest(here: &Situation, programs: bool, hashes: &mut Hashes) -> Result<Hash, Reason> {
    let mut walk = Walk { here, hashes, said: Said::default(), left: FILES_MAX };
    let Some(folder) = environment::of_process("CARGO_MANIFEST_DIR").filter(|path| path.starts_with('/'))
    else {
        return Ok(hash_of(b""));
    };
    let script = environment::of_process("OUT_DIR").map(|out| walk.script(&folder, &out)).transpose()?;
    if !situation::is_shared(&folder) && (programs || script == Some(false)) {
        walk.said.part("package");
        walk.look("", &folder, LEVELS_MAX)?;
    }
    Ok(hash_of(walk.said.0.as_bytes()))
}

struct Walk<'a> {
    here: &'a Situation,
    hashes: &'a mut Hashes,
    said: Said,
    left: usize,
}

impl Walk<'_> {
    /// What a build script depends on; `false` if it doesn't say.
    fn script(&mut self, folder: &str, out: &str) -> Result<bool, Reason> {
        let Some(said) = said_by_script(out)? else { return Ok(false) };
        let mut says = false;
        for line in instructions(&said) {
            if let Some(path) = line.strip_prefix("rerun-if-changed=") {
                says = true;
                let path = path.trim_end();
                let name = self.here.alias(path);
                let real = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
                self.look(&name, &real, LEVELS_MAX)?;
            } else if let Some(name) = line.strip_prefix("rerun-if-env-changed=") {
                says = true;
                let value = environment::of_process(name.trim_end()).map(|value| self.here.alias(&value));
                self.said.all(&["variable", name, value.as_deref().unwrap_or("(not set)")]);
            }
        }
        Ok(says)
    }

    /// A file or folder with what it holds.
    fn look(&mut self, name: &str, path: &str, levels: usize) -> Result<(), Reason> {
        let too_many = Reason::new("package of too many files");
        self.left = self.left.checked_sub(1).ok_or(too_many.clone())?;
        let Ok(metadata) = Path::new(path).metadata() else {
            self.said.all(&["nothing", name]);
            return Ok(());
        };
        if !metadata.is_dir() {
            let hash = self.hashes.of(path).map(hex::encode);
            // What can't be read is told by its stamp.
            let hash = hash.unwrap_or_else(|| format!("{:?}", Platform::stamp(&metadata)));
            self.said.all(&["file", name, &hash]);
            return Ok(());
        }
        let levels = levels.checked_sub(1).ok_or(too_many)?;
        let names = names_in(path)?;
        self.said.all(&["folder", name]);
        for entry in names {
            let below = format!("{}/{entry}", path.trim_end_matches('/'));
            if !is_left_out(&entry, &below, self.here) {
                self.look(&format!("{name}/{entry}"), &below, levels)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Compile;
    use super::*;

    #[test]
    fn a_packages_files_are_those_that_are_neither_hidden_nor_made() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            ["src/a.rs", "src/x/b.txt", ".env", ".git/config", "target/CACHEDIR.TAG", "target/made.rs"];
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let here = Situation::find(&Compile::default(), false).unwrap();
        let root = folder.path().to_str().unwrap();
        let look = |whole| {
            let below = Below::look(root, &here, whole).unwrap();
            (below.files.into_iter().collect::<BTreeSet<_>>(), below.folders.len(), below.has_more)
        };
        let paths = |names: &[&str]| names.iter().map(|name| format!("{root}/{name}")).collect();
        assert_eq!(look(false), (paths(&["src/a.rs", "src/x/b.txt"]), 3, true));
        assert_eq!(look(true), (paths(&names), 5, false));
        Platform::make_link(&folder.path().join(".env"), &folder.path().join("src/key")).unwrap();
        assert_eq!(look(true), (paths(&names), 5, true), "links are nobody's business");
    }
}
