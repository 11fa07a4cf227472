//! Files that would make a compiler another one if they appeared: libraries in folders that its loader searches earlier,
//! and specs where gcc looks for them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::loader::{expand, system_folders};
use crate::reason::Reason;

/// What a loader looks into in each of its folders before the folder itself: of `glibc-hwcaps` the folders within,
/// of the others, which glibc had before 2.37, themselves.
const VARIANTS: [&str; 10] = [
    "glibc-hwcaps",
    "tls",
    "haswell",
    "xeon_phi",
    "avx512_1",
    "x86_64",
    "i686",
    "sse2",
    "aarch64",
    "atomics",
];

/// Where gcc's `-print-search-dirs` has the folders of `LIBRARY_PATH`, with others.
const STARTFILES: &str = "libraries: =";

/// The paths at which a library of these objects, which are programs and libraries, could come before the one that is
/// loaded, and the folders with which such paths begin. Some are there already.
///
/// # Errors
/// The reason to pass through, if a folder is named by a token that is not understood.
pub(super) fn libraries(
    objects: &BTreeSet<PathBuf>,
    library_path: &OsStr,
) -> Result<BTreeSet<PathBuf>, Reason> {
    let library_path = library_path.to_string_lossy();
    let named = library_path.split([':', ';']).filter(|_| !library_path.is_empty());
    let (with_tokens, plain): (Vec<&str>, Vec<&str>) = named.partition(|folder| folder.contains('$'));
    // An empty one is the working folder.
    let mut folders: BTreeSet<PathBuf> = plain.iter().map(|folder| Path::new(".").join(folder)).collect();
    for object in objects {
        let Some(elf) = elf::read(object) else { continue };
        // The loader may know the object by a link's name, and by the real one.
        let names = [Some(object.clone()), object.canonicalize().ok()];
        let origins = names.iter().flatten().filter_map(|name| name.parent());
        for origin in origins {
            let origin = origin.to_string_lossy();
            let own = elf.runpath.iter().chain(&elf.rpath).map(String::as_str);
            for folder in own.chain(with_tokens.iter().copied()) {
                match expand(folder, &origin) {
                    Some(folder) => drop(folders.insert(folder.into())),
                    // What is not absolute is no token: of a program's own, and in each working folder another.
                    None if !has_other_token(folder) => {}
                    None => return Err("compiler's libraries are found by an unknown token".into()),
                }
            }
        }
        folders.extend(musl_folders(&elf).into_iter().map(PathBuf::from));
    }
    let names: BTreeSet<&OsStr> = objects.iter().filter_map(|object| object.file_name()).collect();
    let mut paths = BTreeSet::new();
    for folder in folders {
        if !folder.is_dir() {
            paths.insert(folder);
            continue;
        }
        paths.extend(names.iter().map(|name| folder.join(name)));
        for variant in VARIANTS.map(|variant| folder.join(variant)) {
            let within = std::fs::read_dir(&variant).into_iter().flatten().flatten();
            paths.extend(within.map(|entry| entry.path()));
            paths.insert(variant);
        }
    }
    Ok(paths)
}

/// Whether a folder is named by what stands for something else, other than the object's own folder.
fn has_other_token(folder: &str) -> bool {
    folder.replace("${ORIGIN}", "").replace("$ORIGIN", "").contains('$')
}

/// The folders that musl's loader searches for a program, which no cache has: one that comes earlier may be given the library
/// of a later one.
fn musl_folders(program: &Elf) -> Vec<String> {
    let Some(loader) = program.interpreter.as_deref().map(Path::new) else { return Vec::new() };
    let name = loader.file_name().unwrap_or_default().to_string_lossy();
    let Some(machine) = name.strip_prefix("ld-musl-").and_then(|rest| rest.split('.').next()) else {
        return Vec::new();
    };
    // A file takes the place of those that it knows by itself; in it they stand in lines as well.
    match std::fs::read_to_string(format!("/etc/ld-musl-{machine}.path")) {
        Ok(text) => text.split([':', '\n']).filter(|folder| !folder.is_empty()).map(str::to_owned).collect(),
        Err(_) => system_folders(loader),
    }
}

/// Where gcc looks for specs besides the folders of its programs.
pub(super) struct Specs {
    /// Because `LIBRARY_PATH` says so.
    pub named: BTreeSet<PathBuf>,
    /// Beside the libraries of its target.
    pub own: BTreeSet<PathBuf>,
}

/// Finds the places of specs in what gcc says to `-print-search-dirs`.
pub(super) fn specs(search_dirs: &str, library_path: Option<&OsStr>) -> Specs {
    // Spelled as gcc spells them; an empty one is the working folder, if it is all there is as well.
    let named: Vec<String> = match library_path {
        Some(list) => list.to_string_lossy().split(':').map(in_folder).collect(),
        None => Vec::new(),
    };
    let install = search_dirs.lines().find_map(|line| line.strip_prefix("install: ")).unwrap_or_default();
    let machine = Path::new(install).parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let of_target = format!("/../../../../{machine}/lib/");
    let line = search_dirs.lines().find_map(|line| line.strip_prefix(STARTFILES)).unwrap_or_default();
    let places = |wanted: &dyn Fn(&str) -> bool| {
        let folders = line.split(':').filter(|folder| wanted(folder));
        folders.map(|folder| Path::new(folder).join("specs")).collect()
    };
    Specs {
        named: places(&|folder| named.iter().any(|name| folder.starts_with(name))),
        own: places(&|folder| folder.contains(&of_target)),
    }
}

fn in_folder(folder: &str) -> String {
    match folder {
        "" => "./".to_owned(),
        folder => format!("{}/", folder.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_musls_loader_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let with_loader = |name: &str| {
            let loader = folder.path().join(name);
            std::fs::write(&loader, b"\0/lib:/usr/local/lib:/usr/lib\0").unwrap();
            Elf { interpreter: Some(loader.to_str().unwrap().to_owned()), ..Elf::default() }
        };
        let folders = ["/lib", "/usr/local/lib", "/usr/lib"];
        assert_eq!(musl_folders(&with_loader("ld-musl-of_no_machine.so.1")), folders);
        assert!(musl_folders(&with_loader("ld-linux-x86-64.so.2")).is_empty(), "it goes by a cache");
    }

    #[test]
    fn folders_by_tokens_that_are_not_understood_are_refused() {
        let shell = BTreeSet::from([PathBuf::from("/bin/sh")]);
        let refused = |library_path: &str| libraries(&shell, OsStr::new(library_path)).is_err();
        for library_path in ["/opt/$LIB", "/opt/x:${PLATFORM}/y", "$ORIGIN/$LIB"] {
            assert!(refused(library_path), "{library_path}");
        }
        for library_path in ["", "/opt/x:", "$ORIGIN/../lib", "${ORIGIN}"] {
            assert!(!refused(library_path), "{library_path}");
        }
    }
}
