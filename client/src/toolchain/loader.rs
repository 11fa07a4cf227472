//! Which shared libraries a program runs with: asked of its own loader, and worked out by the loader's rules for a
//! root that holds nothing but what travels. Only if both agree does a compiler travel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Roles;
use super::elf::{self, Elf};
use super::luggage::Luggage;
use crate::reason::Reason;

/// Variables with which the system's loader is told to take other libraries than the program's own.
const FOREIGN: [&str; 2] = ["LD_PRELOAD", "LD_AUDIT"];

/// Where it is told to look first.
pub(super) const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// With which the loader lists versions as well.
const VERBOSE: &str = "LD_VERBOSE";

/// What the kernel puts into every program, which is no file.
const KERNELS: [&str; 2] = ["linux-vdso", "linux-gate"];

/// Under which variables a loader is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// As they are set here.
    Everything,
    /// Without those that put in foreign libraries.
    LibraryPath,
    /// Without any.
    Nothing,
}

/// Asks a program's loader what it loads for it, itself included; nothing for what is static or no ELF file.
///
/// # Errors
/// The reason to pass through, if it doesn't find everything.
pub fn listed(program: &Path, under: Under) -> Result<BTreeSet<PathBuf>, Reason> {
    let Some(loader) = elf::read(program).and_then(|elf| elf.interpreter) else {
        return Ok(BTreeSet::new());
    };
    let unknown = Reason::new("compiler's libraries are not known");
    let mut command = Command::new(&loader);
    command.arg("--list").arg(program).env("LC_ALL", "C").env_remove(VERBOSE).stdin(Stdio::null());
    let left_out: &[&str] = match under {
        Under::Everything => &[],
        Under::LibraryPath => &FOREIGN,
        Under::Nothing => &[FOREIGN[0], FOREIGN[1], LIBRARY_PATH],
    };
    for variable in left_out {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|_| unknown.clone())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("not found") {
        return Err(unknown);
    }
    let mut paths = BTreeSet::from([PathBuf::from(loader)]);
    // Where an object is loaded stands behind it; what is said otherwise names none.
    for line in text.lines().map(str::trim).filter(|line| line.contains("(0x")) {
        let path = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = path.split('(').next().unwrap_or_default().trim();
        if path.starts_with('/') {
            paths.insert(PathBuf::from(path));
        } else if !path.is_empty() && !KERNELS.iter().any(|name| path.starts_with(name)) {
            // Found by a relative or empty folder of `LD_LIBRARY_PATH`: another one in each working folder.
            return Err("compiler's libraries depend on the working folder".into());
        }
    }
    Ok(paths)
}

/// Finds what `LD_LIBRARY_PATH` an action needs so that `programs` load there what they load here, and sets it.
///
/// # Errors
/// Why it can't be made so, for people.
pub(super) fn settle(luggage: &mut Luggage, programs: &Roles) -> Result<(), String> {
    let mut expected = Vec::new();
    let mut folders = Vec::new();
    for program in programs.keys() {
        let listed = listed(program, Under::LibraryPath).map_err(|reason| reason.to_string())?;
        let mut files = BTreeSet::new();
        for library in &listed {
            let file = luggage.file_at(library);
            files.insert(file.ok_or_else(|| format!("`{}` was not packed", library.display()))?);
            folders.extend(library.parent().and_then(Path::to_str).map(str::to_owned));
        }
        expected.push((program, files));
    }
    let root = Root::new(luggage);
    let is_settled = |library_path: &[String]| {
        expected.iter().all(|(program, files)| root.loads(program, library_path).as_ref() == Some(files))
    };
    if is_settled(&[]) {
        return Ok(());
    }
    folders.sort();
    folders.dedup();
    if is_settled(&folders) {
        luggage.library_path = Some(folders.join(":"));
        return Ok(());
    }
    Err("its loader finds its libraries by rules that are not understood".to_owned())
}

/// A root that holds nothing but what travels.
struct Root<'a> {
    luggage: &'a Luggage,
    files: BTreeMap<&'a Path, Elf>,
}

/// An object that is loaded.
struct Loaded<'a> {
    file: &'a Path,
    /// What `$ORIGIN` stands for.
    origin: PathBuf,
    /// The one that needed it, by its place in the list.
    parent: Option<usize>,
}

impl<'a> Root<'a> {
    fn new(luggage: &'a Luggage) -> Self {
        let files = luggage.files.keys().filter_map(|path| Some((path.as_path(), elf::read(path)?)));
        Self { luggage, files: files.collect() }
    }

    /// The files that a program is run with besides itself; `None` if one is not found. `ld.so(8)` has the rules.
    fn loads(&self, program: &Path, library_path: &[String]) -> Option<BTreeSet<PathBuf>> {
        let (program, elf) = self.at(program)?;
        let Some(interpreter) = &elf.interpreter else { return Some(BTreeSet::new()) };
        let (loader, _) = self.at(Path::new(interpreter))?;
        let system = system_folders(loader);
        let origin = program.parent()?.to_owned();
        let mut loaded = vec![Loaded { file: program, origin, parent: None }];
        // The loader is there already, by the name under which libraries need it too.
        let loader_name = interpreter.rsplit('/').next()?;
        let mut known: BTreeMap<&str, &Path> = BTreeMap::from([(loader_name, loader)]);
        let mut open = VecDeque::from([0]);
        while let Some(at) = open.pop_front() {
            for name in &self.files[loaded[at].file].needed {
                // musl's loader is its C library, by whatever name.
                let is_loader = loader_name.starts_with("ld-musl")
                    && (name == "libc.so" || name.starts_with("libc.musl-"));
                if is_loader || known.contains_key(name.as_str()) {
                    continue;
                }
                let folders = self.folders(&loaded, at, library_path, &system);
                let candidates = folders.iter().map(|folder| Path::new(folder).join(name));
                let candidates: Vec<PathBuf> =
                    if name.contains('/') { vec![PathBuf::from(name)] } else { candidates.collect() };
                let (path, file) = candidates.into_iter().find_map(|path| {
                    let (file, library) = self.at(&path)?;
                    (library.machine == elf.machine).then_some((path, file))
                })?;
                known.insert(name, file);
                loaded.push(Loaded { file, origin: path.parent()?.to_owned(), parent: Some(at) });
                open.push_back(loaded.len() - 1);
            }
        }
        Some(known.into_values().map(Path::to_owned).collect())
    }

    /// The folders in which a library that `at` needs is looked for, in order.
    fn folders(
        &self,
        loaded: &[Loaded<'a>],
        at: usize,
        library_path: &[String],
        system: &[String],
    ) -> Vec<String> {
        let elf = |at: usize| &self.files[loaded[at].file];
        let expanded = |at: usize, list: &[String]| -> Vec<String> {
            let origin = loaded[at].origin.to_string_lossy();
            list.iter().filter_map(|folder| expand(folder, &origin)).collect()
        };
        let mut folders = Vec::new();
        if elf(at).runpath.is_empty() {
            let mut ancestor = Some(at);
            while let Some(at) = ancestor {
                if elf(at).runpath.is_empty() {
                    folders.extend(expanded(at, &elf(at).rpath));
                }
                ancestor = loaded[at].parent;
            }
        }
        folders.extend(library_path.iter().cloned());
        folders.extend(expanded(at, &elf(at).runpath));
        folders.extend(system.iter().cloned());
        folders
    }

    fn at(&self, path: &Path) -> Option<(&'a Path, &Elf)> {
        let file = self.luggage.file_at(path)?;
        let (path, _) = self.luggage.files.get_key_value(&file)?;
        Some((path, self.files.get(path.as_path())?))
    }
}

/// A folder of a search path; `None` with tokens that we don't replace, so that it counts as not searched.
pub(super) fn expand(folder: &str, origin: &str) -> Option<String> {
    let folder = folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    (!folder.contains('$') && folder.starts_with('/')).then_some(folder)
}

/// The folders that a loader searches by itself, read out of it: they differ between distributions.
pub(super) fn system_folders(loader: &Path) -> Vec<String> {
    let bytes = std::fs::read(loader).unwrap_or_default();
    let holds = |text: &str| find(&bytes, text.as_bytes()).is_some();
    // musl has them as one text.
    let musl = "/lib:/usr/local/lib:/usr/lib";
    if holds(musl) {
        return musl.split(':').map(str::to_owned).collect();
    }
    // glibc has them one after the other, each with a slash and a NUL at its end.
    let mut folders: Vec<(usize, String)> = Vec::new();
    let mut from = 0;
    while let Some(end) = find(&bytes[from..], b"/\0").map(|end| from + end) {
        let begin = bytes[..end].iter().rposition(|byte| *byte == 0).map_or(0, |nul| nul + 1);
        if let Ok(text) = std::str::from_utf8(&bytes[begin..end])
            && (text.starts_with("/lib") || text.starts_with("/usr/lib"))
        {
            folders.push((begin, text.to_owned()));
        }
        from = end + 2;
    }
    folders.into_iter().map(|(_, folder)| folder).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_are_not_known_are_not_searched() {
        assert_eq!(expand("$ORIGIN/../lib", "/opt/x/bin").as_deref(), Some("/opt/x/bin/../lib"));
        assert_eq!(expand("${ORIGIN}", "/opt/x/bin").as_deref(), Some("/opt/x/bin"));
        assert_eq!(expand("/opt/$LIB", "/opt/x/bin"), None);
        assert_eq!(expand("lib", "/opt/x/bin"), None);
    }

    #[test]
    fn a_loaders_own_folders_are_read_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ld.so");
        std::fs::write(
            &path,
            b"\0x/\0\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0",
        )
        .unwrap();
        let expected = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];
        assert_eq!(system_folders(&path), expected);
        std::fs::write(&path, b"\0/lib:/usr/local/lib:/usr/lib\0").unwrap();
        assert_eq!(system_folders(&path), ["/lib", "/usr/local/lib", "/usr/lib"]);
    }
}
