//! clang-cl for tests: the one that is installed, or clang called so, which is the same.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Project, program, shown, skip, text};

/// Where mingw's headers of C are.
pub const MINGW: &str = "/usr/x86_64-w64-mingw32/include";

/// A folder with a link of that name.
pub struct ClangCl {
    folder: Option<tempfile::TempDir>,
    path: String,
}

impl ClangCl {
    /// Finds it; `None` if the test has to be left out.
    pub fn find(test: &str) -> Option<Self> {
        if let Some(path) = program("clang-cl") {
            return Some(Self { folder: None, path: shown(&path) });
        }
        let Some(clang) = program("clang") else {
            skip(test, "clang is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clang-cl");
        symlink(clang, &path).unwrap();
        Some(Self { path: shown(&path), folder: Some(folder) })
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A call of it.
    pub fn line(&self, rest: &str) -> String {
        format!("{} /nologo {rest}", self.path)
    }

    /// Compiles without the wrapper and with it, and checks that nothing differs but the time in the object, which is the
    /// present one. Returns the object without the time, and what was said on standard output.
    pub fn check(&self, project: &Project, rest: &str, object: &str) -> (Vec<u8>, String) {
        let line = self.line(rest);
        let outcome = |is_cached: bool| {
            let path = project.root.join(object);
            let _ = std::fs::remove_file(&path);
            let begun = seconds_now();
            let ran = if is_cached { project.cached(&line) } else { project.plain(&line) };
            let ended = seconds_now();
            let mut made = std::fs::read(&path).unwrap_or_default();
            let time = take_time(&mut made);
            let is_present = time == 0 || (begun..=ended).contains(&time);
            assert!(is_present, "{line}: made at {time}, between {begun} and {ended}");
            (ran.status.code(), text(&ran.stdout), text(&ran.stderr), time == 0, made)
        };
        let (plain, cached) = (outcome(false), outcome(true));
        assert_eq!((&cached.1, &cached.2), (&plain.1, &plain.2), "{line}");
        assert_eq!((cached.0, cached.3), (plain.0, plain.3), "{line}");
        assert!(cached.4 == plain.4, "{line}: another object");
        (plain.4, plain.1)
    }

    /// Checks a line that compiles, twice, and that the second time it is a hit.
    pub fn check_hit(&self, project: &Project, rest: &str, object: &str) -> (Vec<u8>, String) {
        let first = self.check(project, rest, object);
        assert!(!first.0.is_empty(), "{rest}: nothing was compiled");
        project.counters();
        assert_eq!(self.check(project, rest, object), first);
        assert_eq!(project.counters().local(), [1, 1, 0, 0], "{rest}: compiles, hits, runs, passed through");
        first
    }
}

/// Whether mingw's headers are here.
pub fn has_mingw(test: &str) -> bool {
    let is_here = Path::new(MINGW).join("windows.h").is_file();
    if !is_here {
        skip(test, "mingw-w64 is not installed");
    }
    is_here
}

/// Takes the time out of a COFF object, and returns it; 0 if there is none.
pub fn take_time(object: &mut [u8]) -> u64 {
    let at = match object {
        [0x64, 0x86, ..] => 4,
        [0, 0, 0xff, 0xff, ..] => 8,
        _ => return 0,
    };
    let time = u32::from_le_bytes(object[at..at + 4].try_into().unwrap());
    object[at..at + 4].fill(0);
    time.into()
}

/// Now, in seconds since 1970.
pub fn seconds_now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}
