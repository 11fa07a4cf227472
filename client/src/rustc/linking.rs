//! What a link reads: the linker says it in a dependency file, and where libraries might appear is added.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::arguments::Compile;
use super::has_ending;
use super::passed;
use crate::clock::Start;
use crate::dependencies::prerequisites;
use crate::direct::Hashes;
use crate::direct::memo::Hash;
use crate::invocation::is_compiler;
use crate::local::Platform;
use crate::paths::normal;
use crate::reason::Reason;
use crate::toolchain::resolve::{self, Found};

/// What rustc calls to link, unless it is told otherwise.
const DEFAULT: &str = "cc";

/// Variables by which gcc finds other parts of itself, and linkers other libraries.
const REFUSED: [&str; 9] = [
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "LIBRARY_PATH",
    "LPATH",
    "LD_RUN_PATH",
    "LDEMULATION",
    "COLLECT_LTO_WRAPPER",
    "LLD_REPRODUCE",
    "LLD_VERSION",
];

/// The programs that gcc starts to link, whatever is linked.
const PARTS: [&str; 2] = ["collect2", "ld"];

/// The names by which they look for a linker on the search path.
const LINKERS: [&str; 8] =
    ["collect2", "collect-ld", "real-ld", "ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold"];

/// What gcc reads, and has the linker load, if it is among its libraries.
const OWN: [&str; 2] = ["specs", "liblto_plugin.so"];

/// The program that rustc links with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// As it is called.
    pub name: String,
    /// Where it is, all links followed.
    pub real: PathBuf,
    /// What it holds.
    pub hash: Hash,
    /// The linkers that it would find by the search path, with what they hold.
    pub on_path: Vec<(&'static str, Option<Hash>)>,
}

impl Linker {
    /// Finds the linker of a compile.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn find(compile: &Compile, hashes: &mut Hashes) -> Result<Self, Reason> {
        if !Platform::HAS_ELF_LOADER {
            return Err("linking on this operating system".into());
        }
        if compile.target.as_ref().is_some_and(|target| !target.contains("-linux-")) {
            return Err("linking for another operating system".into());
        }
        // What is linked then is not what the linker reads.
        let said = compile.words.windows(2).filter(|pair| pair[0] == "-C").map(|pair| pair[1].as_str());
        let optimises = |word: &&str| matches!(word.split('=').next(), Some("lto" | "linker-plugin-lto"));
        if let Some(word) = said.filter(optimises).find(|word| !word.ends_with("=off")) {
            return Err(Reason::of(format!("linking with `-C {word}`")));
        }
        for variable in REFUSED {
            if std::env::var_os(variable).is_some() {
                return Err(Reason::of(format!("linking while `{variable}` is set")));
            }
        }
        passed::check(&compile.link_arguments)?;
        let name = compile.linker.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let search = std::env::var_os("PATH").unwrap_or_default();
        let folder = std::env::current_dir().unwrap_or_default();
        let found = resolve::find(&name, &search, &folder);
        let Found { compiler, .. } = found.ok_or(Reason::new("no linker"))?;
        let real = resolve::real(&compiler?)?;
        let file_name = real.file_name().unwrap_or_default();
        if !is_compiler(file_name) || file_name.to_string_lossy().contains("clang") {
            return Err("linking by another compiler than gcc".into());
        }
        let path = real.to_str().ok_or(Reason::new("folder with an unusual name"))?;
        let hash = hashes.of(path).ok_or(Reason::new("linker can't be read"))?;
        Ok(Self { name, real, hash, on_path: on_path(&search, &folder, hashes)? })
    }

    /// Asks it something about itself.
    fn says(&self, question: &str) -> Option<String> {
        let mut command = Command::new(&self.real);
        command.arg(question).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
    }

    /// Its own files that no dependency file names.
    fn parts(&self, folders: &[String]) -> Result<BTreeSet<PathBuf>, Reason> {
        let own = folders.iter().flat_map(|folder| OWN.map(|name| Path::new(folder).join(name)));
        let own: Vec<PathBuf> = own.filter(|path| path.is_file()).collect();
        let mut parts = BTreeSet::from([self.real.clone()]);
        for part in PARTS {
            let said = self.says(&format!("-print-prog-name={part}")).unwrap_or_default();
            let path = resolve::real(Path::new(&said)).ok().filter(|_| said.starts_with('/'));
            // `ld` alone is the one on the search path.
            let search = std::env::var_os("PATH").unwrap_or_default();
            let path = path.or_else(|| {
                let first = resolve::candidates(part.as_ref(), &search, Path::new("/")).next();
                first.and_then(|path| resolve::real(&path).ok())
            });
            parts.insert(path.ok_or(Reason::new("linker whose parts are not found"))?);
        }
        parts.extend(own);
        Ok(parts)
    }

    /// The folders in which it looks for libraries, in order.
    fn folders(&self) -> Option<Vec<String>> {
        let said = self.says("-print-search-dirs")?;
        let line = said.lines().find_map(|line| line.strip_prefix("libraries: ="))?;
        Some(line.split(':').filter(|folder| folder.starts_with('/')).map(normal).collect())
    }
}

/// What is found by the search path, and what that holds.
fn on_path(
    search: &OsStr,
    folder: &Path,
    hashes: &mut Hashes,
) -> Result<Vec<(&'static str, Option<Hash>)>, Reason> {
    let unread = Reason::new("linker can't be read");
    let found = LINKERS.iter().map(|name| {
        let Some(path) = resolve::candidates(name.as_ref(), search, folder).next() else {
            return Ok((*name, None));
        };
        let path = path.to_str().ok_or(unread.clone())?;
        Ok((*name, Some(hashes.of(path).ok_or(unread.clone())?)))
    });
    found.collect()
}

/// A link that says what it reads.
pub struct Watch {
    file: String,
}

/// What a link read.
#[derive(Debug, Default)]
pub struct Read {
    /// The files.
    pub files: BTreeSet<String>,
    /// Where there was no library.
    pub absent: BTreeSet<String>,
}

impl Watch {
    /// Has the linker write to the file of this call.
    ///
    /// # Errors
    /// The reason not to keep anything.
    pub fn new(start: &Start) -> Result<Self, Reason> {
        let file = start.path().to_str().filter(|path| !path.contains([',', ' ', '@']));
        let file = file.ok_or(Reason::new("cache folder with an unusual name"))?;
        Ok(Self { file: file.to_owned() })
    }

    /// What rustc is told in addition.
    pub fn words(&self) -> [String; 2] {
        ["-C".to_owned(), format!("link-arg=-Wl,--dependency-file={}", self.file)]
    }

    /// What the link has read, but for what rustc made for it and removed again, and for files that are `known`.
    ///
    /// # Errors
    /// The reason not to keep what was linked.
    pub fn read(
        &self,
        linker: &Linker,
        compile: &Compile,
        known: &BTreeSet<PathBuf>,
    ) -> Result<Read, Reason> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let named = prerequisites(&text);
        if named.is_empty() {
            return Err("linker that doesn't say what it reads".into());
        }
        let mut read = Read::default();
        let folder = std::env::current_dir().map_err(|_| Reason::new("folder with an unusual name"))?;
        for name in named {
            let path = same(&folder.join(name))?;
            if known.contains(Path::new(&path)) {
                continue;
            }
            if Path::new(&path).is_file() {
                read.files.insert(path);
            } else if !is_temporary(&path) {
                tracing::debug!(path, "a file that was linked is gone");
                return Err("linked file that is gone".into());
            }
        }
        let searched = compile.search.iter().map(|(_, path)| same(&folder.join(path)));
        let mut folders = searched.collect::<Result<Vec<String>, Reason>>()?;
        let own = linker.folders().ok_or(Reason::new("linker that doesn't say where it looks"))?;
        let parts = linker.parts(&own)?;
        let own_names = own.iter().flat_map(|folder| OWN.map(|name| format!("{folder}/{name}")));
        read.absent = own_names.filter(|path| !Path::new(path).exists()).collect();
        folders.extend(own);
        read.absent.extend(absent(&read.files, &folders));
        for part in parts {
            let path = part.to_str().ok_or(Reason::new("folder with an unusual name"))?;
            read.files.insert(path.to_owned());
        }
        Ok(read)
    }
}

/// The path without `..`, if it leads to the same.
fn same(spelled: &Path) -> Result<String, Reason> {
    let path = normal(spelled.to_str().ok_or(Reason::new("folder with an unusual name"))?);
    let is_other = |real: PathBuf| Some(real) != Path::new(&path).canonicalize().ok();
    if spelled.components().any(|part| part == Component::ParentDir)
        && spelled.canonicalize().is_ok_and(is_other)
    {
        return Err("`..` after a symbolic link".into());
    }
    Ok(path)
}

/// Whether a path is of what rustc makes for the linker alone.
fn is_temporary(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_in_own_folder = path.rsplit('/').nth(1).is_some_and(|folder| folder.starts_with("rustc"));
    // A copy of a crate would be of one that was not seen.
    (is_in_own_folder && !has_ending(name, "rlib")) || (has_ending(name, "o") && name.contains(".rcgu."))
}

/// Where libraries of the same names as those that were found might appear, and be found first.
fn absent(files: &BTreeSet<String>, folders: &[String]) -> BTreeSet<String> {
    let mut absent = BTreeSet::new();
    for file in files {
        let Some((found_in, name)) = file.rsplit_once('/') else { continue };
        // Whatever it was found as.
        if let Some(at) = folders.iter().position(|folder| folder == found_in) {
            let earlier = folders[..at].iter().map(|folder| format!("{folder}/{name}"));
            absent.extend(earlier.filter(|path| Path::new(path).symlink_metadata().is_err()));
        }
        let stem = name.strip_suffix(".so").or_else(|| name.strip_suffix(".a"));
        let Some(stem) = stem.filter(|stem| stem.starts_with("lib")) else { continue };
        for folder in folders {
            for ending in [".so", ".a"] {
                let path = format!("{folder}/{stem}{ending}");
                if Path::new(&path).symlink_metadata().is_err() {
                    absent.insert(path);
                }
            }
            if folder == found_in {
                break;
            }
        }
    }
    absent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_might_appear_before_where_they_were_found_and_beside() {
        let files = ["/b/liba.so", "/b/x.o", "/c/libz-1f.rlib"].map(str::to_owned).into();
        let folders = ["/a", "/b", "/c"].map(str::to_owned);
        let absent = absent(&files, &folders);
        let expected = [
            "/a/liba.a",
            "/a/liba.so",
            "/a/libz-1f.rlib",
            "/a/x.o",
            "/b/liba.a",
            "/b/liba.so",
            "/b/libz-1f.rlib",
        ];
        assert_eq!(absent.iter().collect::<Vec<_>>(), expected, "nothing is there on this machine");
    }

    #[test]
    fn what_rustc_made_for_the_linker_is_told_from_what_was_there() {
        assert!(is_temporary("/t/deps/a-1f.a.0.rcgu.o") && is_temporary("/tmp/rustcAbC/symbols.o"));
        assert!(is_temporary("/t/deps/rustcAbC/list") && !is_temporary("/t/deps/rustcAbC/libb.rlib"));
        assert!(!is_temporary("/usr/lib/crt1.o") && !is_temporary("/t/out/libx.a"));
    }
}
