//! Folders that have a name of their own in actions: that of the build, that of its sources, and those with random names
//! that tools for Python's packages make for each build.
//!
//! Only where the object does not hold its place: with debug information that can't move, or with maps of the user's,
//! nothing would be shared in any case. One within another is no matter, even for debug information that moves: compilers and
//! assemblers ask whether two folders have the same name, and of two that differ the virtual names differ as well.

use crate::builds::Build;
use crate::command_line::{Argument, Compile};
use crate::paths::{BUILD, BUILD_INSIDE, ISOLATED, Mount, PROJECT, PYTHON, Place, UNPACKED};

/// How folders begin that pip, `build` and uv make in the folder for temporary files, or in their cache.
const ISOLATED_BEGINNINGS: [&str; 3] = ["pip-build-env-", "build-env-", "cibw-run-"];

/// How folders begin that sources are unpacked to.
const UNPACKED_BEGINNINGS: [&str; 4] = ["pip-req-build-", "pip-install-", "pip-wheel-", "build-via-sdist-"];

/// What uv calls the folder in its cache in which it makes a folder for each build.
const UV_BUILDS: &str = "builds-v0";

/// Finds the folders that a compile names, or works in; `moves` says whether debug information may move.
pub fn of(compile: &Compile, place: &Place, moves: bool) -> Vec<Mount> {
    let maps = compile.arguments.iter().any(|argument| matches!(argument, Argument::PrefixMap { .. }));
    if compile.has_debug && !moves || maps || compile.place_matters.is_some() {
        return Vec::new();
    }
    let mut mounts = Vec::new();
    let named =
        std::iter::once(place.folder.as_str()).chain(names(compile).filter(|name| name.starts_with('/')));
    for path in named {
        mounts.extend(random_folder(path));
        mounts.extend(python_folder(path).filter(|_| is_without_assertions(compile)));
    }
    mounts.extend(Build::of(&place.folder).map(|build| of_build(compile, place, &build)).unwrap_or_default());
    // Two of a kind would be one.
    let is_alone =
        |mount: &Mount| mounts.iter().all(|other| other.name != mount.name || other.real == mount.real);
    let mut alone: Vec<Mount> = mounts.iter().filter(|mount| is_alone(mount)).cloned().collect();
    alone.dedup();
    alone
}

/// The folder of a build and that of its sources.
fn of_build(compile: &Compile, place: &Place, build: &Build) -> Vec<Mount> {
    let mount = |name: &'static str, real: &str| Mount { name, real: real.to_owned() };
    let sources = if place.is_guess { build.sources() } else { None };
    let project = sources.filter(|sources| !is_below(sources, &build.folder) && sources.len() > 1);
    let climbs = |name: &str| !name.starts_with('/') && name.split('/').any(|part| part == "..");
    if !names(compile).any(climbs) {
        let project = project.map(|sources| mount(PROJECT, &sources));
        return [mount(BUILD, &build.folder)].into_iter().chain(project).collect();
    }
    // A way out of the folder would lead elsewhere from one with another name, unless that lies in the same folder.
    let root = place.root.as_deref().unwrap_or_default();
    let is_inside = build.folder.rsplit_once('/').is_some_and(|(above, _)| above == root)
        && build.folder == place.folder
        && std::path::Path::new(root).join(&BUILD_INSIDE[PROJECT.len() + 1..]).symlink_metadata().is_err();
    is_inside.then(|| mount(BUILD_INSIDE, &build.folder)).into_iter().collect()
}

/// Whether a path is a folder or in it.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The paths of the command.
fn names(compile: &Compile) -> impl Iterator<Item = &str> {
    let of_headers = compile.arguments.iter().filter_map(|argument| match argument {
        Argument::SearchDir { folder: path, .. } | Argument::IncludeFile { file: path, .. } => {
            Some(path.as_str())
        }
        _ => None,
    });
    of_headers.chain([compile.source.as_str()])
}

/// The folder with a random name that a path is in.
fn random_folder(path: &str) -> Option<Mount> {
    let mut end = 0;
    let mut before = "";
    for part in path.split('/') {
        end += part.len();
        let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| part.starts_with(beginning));
        let name = if begins(&ISOLATED_BEGINNINGS) || before == UV_BUILDS {
            Some(ISOLATED)
        } else if begins(&UNPACKED_BEGINNINGS) {
            Some(UNPACKED)
        } else {
            None
        };
        if let Some(name) = name {
            return Some(Mount { name, real: path[..end].to_owned() });
        }
        before = part;
        end += 1;
    }
    None
}

/// Whether assertions are left out: those of Python's headers name these, and with a name of its own the folder would count
/// where it shows.
fn is_without_assertions(compile: &Compile) -> bool {
    let says = |word: &String| matches!(word.as_str(), "-DNDEBUG" | "NDEBUG" | "-DNDEBUG=1");
    compile.arguments.iter().any(|argument| match argument {
        Argument::Words(words) => words.iter().any(says),
        _ => false,
    })
}

/// The folder of a Python's headers, if a path is one: `/opt/python/cp312-cp312/include/python3.12`.
///
/// Most sources are handed it, and few include anything from it. The system's own is one of many in its folder, and is
/// called so by what lies beside it.
fn python_folder(path: &str) -> Option<Mount> {
    let (above, name) = path.rsplit_once('/')?;
    let is_python = (name.starts_with("python3.") || name.starts_with("pypy3."))
        && above.ends_with("/include")
        && above != "/usr/include";
    is_python.then(|| Mount { name: PYTHON, real: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(folder: &str, line: &str) -> Vec<(&'static str, String)> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let compile = Compile::parse(&words, Path::new(folder)).unwrap();
        let place = Place::new(folder.to_owned(), Some("/tmp".to_owned())).unwrap();
        of(&compile, &place, false).into_iter().map(|mount| (mount.name, mount.real)).collect()
    }

    #[test]
    fn folders_with_random_names_are_found_in_every_path_of_a_call() {
        let line = "-isystem /tmp/pip-build-env-x1/overlay/include -c /tmp/pip-req-build-y2/a.cc";
        let expected =
            [(ISOLATED, "/tmp/pip-build-env-x1".to_owned()), (UNPACKED, "/tmp/pip-req-build-y2".to_owned())];
        assert_eq!(found("/tmp/z", line), expected);
        assert_eq!(
            found("/home/me/.cache/uv/builds-v0/.tmpAb/x", "-c a.c"),
            [(ISOLATED, "/home/me/.cache/uv/builds-v0/.tmpAb".to_owned())]
        );
    }

    #[test]
    fn two_of_a_kind_and_objects_that_hold_their_place_are_left_alone() {
        assert_eq!(found("/tmp/pip-build-env-1", "-I/tmp/pip-build-env-2/i -c a.c"), []);
        assert_eq!(found("/tmp/pip-build-env-1", "-g -c a.c"), []);
        assert_eq!(found("/tmp/pip-build-env-1", "-fmacro-prefix-map=/a=/b -c a.c"), []);
    }

    #[test]
    fn the_folder_of_a_build_is_the_nearest_that_was_configured() {
        let folder = tempfile::tempdir().unwrap();
        let build = folder.path().join("out/release");
        std::fs::create_dir_all(build.join("sub")).unwrap();
        std::fs::write(build.join("CMakeCache.txt"), "").unwrap();
        let (build, sub) = (build.to_str().unwrap(), build.join("sub"));
        let sub = sub.to_str().unwrap();
        assert_eq!(found(sub, "-c /src/a.c"), [(BUILD, build.to_owned())]);
        assert_eq!(found(sub, "-c ../../../a.c"), []);
    }
}
