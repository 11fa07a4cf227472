//! Files that would make a compiler another one if they appeared: libraries in folders that its loader searches earlier,
//! and specs where gcc looks for them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::elf;
use super::loader::expand;

/// What a loader looks into in each of its folders before the folder itself: of `glibc-hwcaps` the folders within,
/// of the others, which glibc had before 2.37, themselves.
const VARIANTS: [&str; 4] = ["glibc-hwcaps", "tls", "haswell", "x86_64"];

/// Where gcc's `-print-search-dirs` has the folders of `LIBRARY_PATH`, with others.
const STARTFILES: &str = "libraries: =";

/// The paths at which a library of these objects, which are programs and libraries, could come before the one that is
/// loaded, and the folders with which such paths begin. Some are there already.
pub(super) fn libraries(objects: &BTreeSet<PathBuf>, library_path: &OsStr) -> BTreeSet<PathBuf> {
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
            let expanded =
                own.chain(with_tokens.iter().copied()).filter_map(|folder| expand(folder, &origin));
            folders.extend(expanded.map(PathBuf::from));
        }
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
    paths
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
