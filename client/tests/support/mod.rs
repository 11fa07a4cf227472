//! What the tests of the wrapper share: a project in a temporary folder, and the program in a clean environment.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, unreachable_pub)]

#[cfg(unix)]
pub mod msvc;
#[cfg(unix)]
pub mod rust;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder with a project in it, and a cache of its own.
pub struct Project {
    folder: tempfile::TempDir,
    /// The project's root.
    pub root: PathBuf,
    /// The cache.
    pub cache: PathBuf,
    /// Variables beyond the few that are always set.
    pub variables: Vec<(String, String)>,
}

impl Project {
    /// A project without files.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let root = base.join("project");
        std::fs::create_dir(&root).unwrap();
        Self { root, cache: base.join("cache"), folder, variables: Vec::new() }
    }

    /// A project with these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let project = Self::new();
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    /// The same files in another folder, with the same cache.
    pub fn copy(&self, name: &str) -> Self {
        let mut other = Self::new();
        other.cache.clone_from(&self.cache);
        other.root = other.folder.path().canonicalize().unwrap().join(name);
        let copied = Command::new("cp").arg("-r").arg(&self.root).arg(&other.root).status().unwrap();
        assert!(copied.success());
        other
    }

    /// Writes a file, and waits until the clock of files has gone on: a file that was changed within the tick in which
    /// a compile starts is rightly not trusted.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let written = path.metadata().unwrap().modified().unwrap();
        let later = self.folder.path().join("tick");
        while {
            std::fs::write(&later, "x").unwrap();
            later.metadata().unwrap().modified().unwrap() <= written
        } {}
    }

    /// Sets a variable for every call from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// A command in the project's root, with a clean environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
        command.env("PWD", &self.root).env("CASTWORK_DIR", &self.cache);
        command.env("CASTWORK_PROJECT_ROOT", &self.root);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `castwork LINE`.
    pub fn cached(&self, line: &str) -> Output {
        self.command(castwork()).args(line.split_whitespace()).output().unwrap()
    }

    /// Runs a line as it is.
    pub fn plain(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        self.command(words.next().unwrap()).args(words).output().unwrap()
    }

    /// Compiles through the wrapper and without, and checks that nothing differs. Returns the object.
    pub fn check(&self, line: &str) -> Vec<u8> {
        let plain = self.plain(&format!("{line} -o plain.o"));
        let _ = std::fs::remove_file(self.root.join("cached.o"));
        let cached = self.cached(&format!("{line} -o cached.o"));
        assert_eq!(text(&cached.stderr), text(&plain.stderr), "{line}");
        assert_eq!(cached.stdout, plain.stdout, "{line}");
        assert_eq!(cached.status.code(), plain.status.code(), "{line}");
        let object = |name: &str| std::fs::read(self.root.join(name)).unwrap_or_default();
        assert_eq!(object("cached.o"), object("plain.o"), "{line}: another object");
        object("cached.o")
    }

    /// Checks a line before and after a change, twice each, so that whatever was kept is asked for.
    pub fn check_change(&self, line: &str, change: impl FnOnce()) {
        let before = self.check(line);
        assert_eq!(self.check(line), before);
        change();
        let after = self.check(line);
        assert_eq!(self.check(line), after);
        assert_ne!(before, after, "{line}: the change doesn't show, so this tests nothing");
    }

    /// Turns a link to something else.
    #[cfg(unix)]
    pub fn turn(&self, link: &str, to: &str) {
        let _ = std::fs::remove_file(self.root.join(link));
        std::os::unix::fs::symlink(to, self.root.join(link)).unwrap();
        self.write("tick", "");
    }

    /// The counters, which begin anew.
    pub fn counters(&self) -> Counters {
        let output = self.cached("stats --json --zero");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Counters(serde_json::from_slice(&output.stdout).unwrap())
    }
}

/// What `castwork stats --json` prints.
pub struct Counters(pub Value);

impl Counters {
    /// A number.
    pub fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no number `{name}` in {}", self.0))
    }

    /// Compiles, local hits, local runs and calls that were passed through.
    pub fn local(&self) -> [u64; 4] {
        ["compiles", "local_hits", "local_runs", "passed_through"].map(|name| self.number(name))
    }

    /// How often a reason was counted.
    pub fn reason(&self, name: &str) -> u64 {
        self.0["reasons"][name].as_u64().unwrap_or(0)
    }
}

/// Our program.
pub fn castwork() -> &'static str {
    env!("CARGO_BIN_EXE_castwork")
}

/// Bytes as text, for messages.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a program is on `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Says that a test, or a part of one, is left out, and why. Where all tests have to run, as in CI, that is a failure;
/// `tests/run` counts the others by the list.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    assert!(std::env::var_os("CASTWORK_TESTS_MUST_RUN").is_none(), "`{test}` has to run here, but {reason}");
    if let Some(list) = std::env::var_os("CASTWORK_TESTS_SKIPPED") {
        let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}

/// Those of the compilers that are here; the tests need gcc, and clang can be skipped.
fn compilers(gcc: &'static str, clang: &'static str) -> Vec<&'static str> {
    assert!(program(gcc).is_some(), "the tests need {gcc}");
    if program(clang).is_none() {
        skip(clang, "it is not installed");
        return vec![gcc];
    }
    vec![gcc, clang]
}

/// The compilers of C++ that are here.
pub fn cxx_compilers() -> Vec<&'static str> {
    compilers("g++", "clang++")
}

/// The compilers of C that are here.
pub fn c_compilers() -> Vec<&'static str> {
    compilers("gcc", "clang")
}

/// The compilers for other systems that are here.
pub fn cross_compilers() -> Vec<&'static str> {
    let is_here = |name: &&str| {
        program(name).is_some() || {
            skip(name, "it is not installed");
            false
        }
    };
    ["aarch64-linux-gnu-g++", "x86_64-w64-mingw32-g++"].into_iter().filter(is_here).collect()
}

/// The folder of a path, in text.
pub fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
