//! A client of a farm, whose objects and messages have to be its compiler's own.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Farm, binary, finish};
use tempfile::TempDir;

/// Far above what one compile takes.
pub(crate) const COMPILE_MAX: Duration = Duration::from_secs(5 * 60);

/// Where zig keeps what it has made before.
pub(crate) const ZIG_CACHES: [&str; 2] = ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"];

/// Where the worker has something of the machine's.
pub(crate) const SOURCE: &str = "\
#include <map>
#include <regex>
#include <iostream>
int count(const char *text) {
    std::map<std::string, int> words;
    const std::regex word(\"[a-z]+\");
    for (std::cregex_iterator at(text, text + 5, word), end; at != end; ++at) ++words[at->str()];
    std::cout << __FILE__ << words.size();
    int unused;
    return (int)words.size();
}
";

pub(crate) fn finish_line(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// A client of the farm with one source and a cache of its own.
pub(crate) struct Client {
    folder: TempDir,
    remote: String,
    source: String,
    pub(crate) first_on_path: Option<PathBuf>,
    pub(crate) library_path: Option<PathBuf>,
    /// The word after the compiler's name, if it is a compiler only then.
    pub(crate) mode: Option<&'static str>,
}

impl Client {
    pub(crate) fn new(farm: &Farm, source: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = source.to_owned();
        Self { folder, remote: farm.address(), source, first_on_path: None, library_path: None, mode: None }
    }

    /// The same, but its source is named by its absolute path.
    pub(crate) fn by_its_absolute_name(self) -> Self {
        let source = format!("{}/{}", self.folder.path().display(), self.source);
        Self { source, ..self }
    }

    /// Removes what is kept locally, counters as well.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.folder.path().join("cache")).unwrap();
    }

    /// Long enough before the compile that it is not taken for a file that changes.
    pub(crate) fn write(&self, text: &str) {
        let path = self.folder.path().join(&self.source);
        fs::write(&path, text).unwrap();
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
    }

    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_clear();
        let path = std::env::var_os("PATH").unwrap();
        let path = self.first_on_path.iter().cloned().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap()).env("LC_ALL", "C.UTF-8");
        command.env("CCACHE_DISABLE", "1");
        command.envs(self.library_path.as_ref().map(|folder| ("LD_LIBRARY_PATH", folder)));
        command.env("CASTWORK_REMOTE", &self.remote).env("CASTWORK_DIR", self.folder.path().join("cache"));
        command.env("CASTWORK_RACE_AFTER", "never");
        command.env("CASTWORK_CONFIG", "/dev/null").env("CASTWORK_PROJECT_ROOT", self.folder.path());
        command
    }

    /// Compiles through the wrapper and without: object, dependency file and messages have to be the same.
    pub(crate) fn check(&self, compiler: &str, flags: &str) {
        let compile = |mut command: Command, object: &str| {
            // What zig has in its own caches comes without the warnings.
            let caches = tempfile::tempdir().unwrap();
            command.envs(ZIG_CACHES.map(|name| (name, caches.path())));
            command.args(self.mode).args(flags.split(' ')).args(["-c", &self.source, "-o", object]);
            let done = finish(command, COMPILE_MAX);
            done.must_succeed(&format!("{compiler} {flags}"));
            let object = self.folder.path().join(object);
            let headers = fs::read_to_string(object.with_extension("d")).unwrap_or_default();
            let headers = headers.split_once(':').map(|(_, headers)| headers.to_owned());
            (fs::read(object).unwrap(), headers, done.stderr)
        };
        // Names of one length: where lines are broken depends on it.
        let (bare, headers, said) = compile(self.command(compiler), "bare.o");
        let mut wrapped = self.command(binary("castwork"));
        wrapped.arg(compiler);
        let (ours, ours_headers, ours_said) = compile(wrapped, "ours.o");
        // On a machine that is slow, an upload says how far it is.
        let is_ours = |line: &&str| !line.starts_with("castwork: uploaded ");
        let ours_said: String = ours_said.split_inclusive('\n').filter(is_ours).collect();
        assert_eq!(ours_said, said, "{compiler} {flags}");
        assert_eq!(ours_headers, headers, "{compiler} {flags}");
        assert!(ours == bare, "{compiler} {flags}: another object");
    }

    /// Compiles, runs on workers, and compiles here because something failed.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let stats = self.stats();
        ["compiles", "remote_runs", "fallbacks"]
            .map(|key| stats[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {stats}")))
    }

    /// How often a reason was counted.
    pub(crate) fn reason(&self, reason: &str) -> u64 {
        self.stats()["reasons"][reason].as_u64().unwrap_or(0)
    }

    fn stats(&self) -> serde_json::Value {
        let mut stats = self.command(binary("castwork"));
        stats.args(["stats", "--json"]);
        serde_json::from_str(&finish(stats, COMPILE_MAX).stdout).unwrap()
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-RL").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "copy {}", from.display());
}
