//! Which program a compiler's name stands for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::local::Platform;
use crate::reason::Reason;

/// Wrappers that are called through links named like compilers; behind them on `PATH` is the real one.
const WRAPPERS: [&str; 7] = ["ccache", "sccache", "distcc", "icecc", "zccache", "buildcache", "kache"];

/// What a compiler's name stands for.
#[derive(Clone, Debug)]
pub struct Found {
    /// What to run when the call is passed through: what the user would have got.
    pub program: PathBuf,
    /// The compiler itself behind links and wrappers, or why none is understood.
    pub compiler: Result<PathBuf, Reason>,
}

/// Finds the program for a name, or for a path, that is not ourselves.
///
/// Returns `None` if there is none.
pub fn find(name: &str, search: &OsStr, folder: &Path) -> Option<Found> {
    if name.contains('/') {
        let program = folder.join(name);
        // A link to ourselves that is given by its path: the real one is further along.
        if !is_ourselves(&program) {
            return Platform::is_program(&program).then(|| judge(program, search));
        }
    }
    let name = Path::new(name).file_name()?;
    let program = candidates(name, search, folder).find(|path| !is_ourselves(path))?;
    Some(judge(program, search))
}

/// The programs of that name on a `PATH`, in order.
pub fn candidates<'a>(
    name: &'a OsStr,
    search: &OsStr,
    folder: &'a Path,
) -> impl Iterator<Item = PathBuf> + use<'a> {
    Platform::split_path(search)
        .into_iter()
        .map(move |entry| folder.join(entry).join(name))
        .flat_map(|path| {
            let mut with_suffix = path.clone().into_os_string();
            with_suffix.push(Platform::PROGRAM_SUFFIX);
            let with_suffix = PathBuf::from(with_suffix);
            if with_suffix == path { vec![path] } else { vec![path, with_suffix] }
        })
        .filter(|path| Platform::is_program(path))
}

fn judge(program: PathBuf, search: &OsStr) -> Found {
    let compiler = behind_wrappers(&program, search);
    Found { program, compiler }
}

fn behind_wrappers(program: &Path, search: &OsStr) -> Result<PathBuf, Reason> {
    let Some(wrapper) = wrapper_behind(program) else {
        return is_machine_code(program).map(|()| program.to_owned());
    };
    let called = program.file_name().unwrap_or_default();
    if called == OsStr::new(wrapper) {
        return Err("compiler is another wrapper".into());
    }
    // These make the wrapper start something else than what is next on `PATH`.
    let redirections =
        ["CCACHE_CC", "CCACHE_COMPILER", "CCACHE_PATH", "CCACHE_PREFIX", "CCACHE_CONFIGPATH", "CCACHE_CPP2"];
    if redirections.iter().any(|variable| std::env::var_os(variable).is_some()) {
        return Err("another wrapper that is told its compiler".into());
    }
    let next = candidates(called, search, Path::new("/"))
        .find(|path| !is_ourselves(path) && wrapper_behind(path).is_none())
        .ok_or(Reason::new("no compiler behind another wrapper"))?;
    is_machine_code(&next).map(|()| next)
}

/// Where a compiler lies, all links followed.
///
/// # Errors
/// The reason to pass through, if there is none.
pub fn real(compiler: &Path) -> Result<PathBuf, Reason> {
    compiler.canonicalize().map_err(|_| Reason::new("compiler can't be read"))
}

/// The wrapper that a link leads to, if it does.
fn wrapper_behind(program: &Path) -> Option<&'static str> {
    let real = program.canonicalize().ok()?;
    let name = real.file_stem()?.to_str()?.to_owned();
    WRAPPERS.into_iter().find(|wrapper| name == *wrapper)
}

/// Checks that a program is not a script, whose effect we can't know.
fn is_machine_code(program: &Path) -> Result<(), Reason> {
    let mut start = [0; 4];
    let read = File::open(program).and_then(|mut file| file.read_exact(&mut start));
    match (read, &start) {
        // Linux's programs, macOS's of both widths and of several architectures, and those of Windows.
        (
            Ok(()),
            b"\x7fELF" | [0xcf | 0xce, 0xfa, 0xed, 0xfe] | [0xca, 0xfe, 0xba, 0xbe] | [b'M', b'Z', ..],
        ) => Ok(()),
        (Ok(()), [b'#', b'!', ..]) => Err("compiler is a script".into()),
        _ => Err("compiler is no program".into()),
    }
}

/// A `PATH` without the folders in which there is nothing but us under names of compilers; `None` if there is no such.
pub fn without_ourselves(search: &OsStr, folder: &Path) -> Option<OsString> {
    let entries = Platform::split_path(search);
    let others: Vec<&PathBuf> =
        entries.iter().filter(|entry| !holds_only_ourselves(&folder.join(entry))).collect();
    if others.len() == entries.len() {
        return None;
    }
    std::env::join_paths(others).ok()
}

/// Whether there are files in a folder, and all of them are this program.
fn holds_only_ourselves(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else { return false };
    let mut entries = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).peekable();
    entries.peek().is_some() && entries.all(|path| is_ourselves(&path))
}

/// Whether a file is this program, or a link to it, or a copy.
fn is_ourselves(path: &Path) -> bool {
    let Ok(ourselves) = std::env::current_exe() else { return false };
    let (Ok(theirs), Ok(own)) = (path.metadata(), ourselves.metadata()) else { return false };
    theirs.len() == own.len()
        && (Platform::stamp(&theirs) == Platform::stamp(&own)
            || matches!((std::fs::read(path), std::fs::read(&ourselves)), (Ok(a), Ok(b)) if a == b))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn program(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn ourselves_are_skipped_on_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("a/gcc"), folder.path().join("b/gcc"));
        program(&real, b"\x7fELF....");
        std::fs::create_dir_all(folder.path().join("a")).unwrap();
        symlink(std::env::current_exe().unwrap(), &link).unwrap();
        let search = std::env::join_paths([folder.path().join("a"), folder.path().join("b")]).unwrap();
        for name in ["gcc", link.to_str().unwrap()] {
            let found = find(name, &search, folder.path()).unwrap();
            assert_eq!((&found.program, found.compiler.as_ref().unwrap()), (&real, &real));
        }
        assert!(find("clang", &search, folder.path()).is_none());
    }

    #[test]
    fn a_folder_of_links_to_us_is_left_out_of_a_path() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["links", "mixed", "real", "empty"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for link in ["links/gcc", "links/g++", "mixed/gcc"] {
            symlink(std::env::current_exe().unwrap(), folder.path().join(link)).unwrap();
        }
        program(&folder.path().join("mixed/ld"), b"\x7fELF....");
        program(&folder.path().join("real/gcc"), b"\x7fELF....");
        let path = |names: &[&str]| std::env::join_paths(names).unwrap();
        let without = |names: &[&str]| without_ourselves(&path(names), folder.path());
        assert_eq!(
            without(&["links", "mixed", "real", "empty", "none"]),
            Some(path(&["mixed", "real", "empty", "none"]))
        );
        assert_eq!(without(&["mixed", "real", "empty", "none"]), None);
    }

    #[test]
    fn a_link_to_another_wrapper_leads_to_the_compiler_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (wrapper, real) = (folder.path().join("bin/ccache"), folder.path().join("b/gcc"));
        program(&wrapper, b"\x7fELFccache");
        program(&real, b"\x7fELF....");
        std::fs::create_dir_all(folder.path().join("a")).unwrap();
        symlink(&wrapper, folder.path().join("a/gcc")).unwrap();
        let search = std::env::join_paths([folder.path().join("a"), folder.path().join("b")]).unwrap();
        let found = find("gcc", &search, folder.path()).unwrap();
        assert_eq!(found.program, folder.path().join("a/gcc"));
        assert_eq!(found.compiler.unwrap(), real);
    }

    #[test]
    fn a_script_is_not_taken_for_a_compiler() {
        let folder = tempfile::tempdir().unwrap();
        program(&folder.path().join("gcc"), b"#!/bin/sh\nexec gcc-12 \"$@\"\n");
        let found = find("gcc", folder.path().as_os_str(), folder.path()).unwrap();
        assert_eq!(found.compiler.unwrap_err().as_str(), "compiler is a script");
    }
}
