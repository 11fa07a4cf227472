//! Many C++ files through the wrapper onto two workers, as `make -j8` does it, and with parts of the farm killed.
//!
//! Objects, dependency files and messages have to be those of plain `g++`, byte for byte. `tests/soak` does the same
//! with more files and more often.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Event, Farm, binary, each, finish, have, progress};
use tempfile::TempDir;

/// Compiles at a time.
const JOBS: usize = 8;
/// Far above what one compile takes, whatever is killed meanwhile.
const COMPILE_MAX: Duration = Duration::from_secs(5 * 60);

#[test]
fn two_workers_compile_everything_and_the_cache_has_it_then() {
    let Some(code) = Code::new("the wrapper on two workers") else { return };
    let farm = Farm::start(2, 2);
    for run in 0..number("CASTWORK_TESTS_RUNS", 1) {
        progress(&format!("run {run}: {} files, cold", code.files));
        let cold = code.compile(&farm.address(), run, None);
        assert_eq!([cold.of("compiles"), cold.of("remote_runs")], [code.files, code.files], "{}", cold.0);
        let warm = code.compile(&farm.address(), run, None);
        assert_eq!([warm.of("compiles"), warm.of("remote_hits")], [code.files, code.files], "{}", warm.0);
        assert_eq!(warm.of("preprocessed"), 0, "what was seen is known to the server too: {}", warm.0);
    }
    let mut revoke = Command::new(binary("castwork-scheduler"));
    revoke.args(["revoke", "--server", &farm.address(), "--worker", "*", "--dry-run"]);
    let listed = finish(revoke, COMPILE_MAX);
    listed.must_succeed("list what the workers made");
    let executed = listed.stdout.lines().filter(|line| line.contains("  executed by ")).count();
    assert!(executed >= code.files, "{}", listed.stdout);
}

#[test]
fn a_worker_killed_in_the_middle_changes_nothing_but_time() {
    let Some(code) = Code::new("the wrapper, a worker killed") else { return };
    let mut farm = Farm::start(2, 2);
    let address = farm.address();
    for run in 0..number("CASTWORK_TESTS_RUNS", 1) {
        progress(&format!("run {run}: {} files, a worker killed on the way", code.files));
        let counts = code.compile(&address, run, Some(&mut || farm.worker(0).kill()));
        // What it was at runs again on the other one, so nobody has to compile for themself.
        assert_eq!(
            [counts.of("compiles"), counts.of("remote_runs")],
            [code.files, code.files],
            "{}",
            counts.0
        );
        farm.restart_worker(0);
    }
}

#[test]
fn a_scheduler_killed_and_restarted_in_the_middle_changes_nothing_but_time() {
    let Some(code) = Code::new("the wrapper, the scheduler killed") else { return };
    let mut farm = Farm::start(2, 2);
    let address = farm.address();
    for run in 0..number("CASTWORK_TESTS_RUNS", 1) {
        progress(&format!("run {run}: {} files, the scheduler killed and restarted on the way", code.files));
        let mut kill_and_restart = || {
            farm.scheduler().kill();
            farm.restart_scheduler();
        };
        let counts = code.compile(&address, run, Some(&mut kill_and_restart));
        // Whoever found no server has compiled by themself; everybody has an answer.
        let answered = ["remote_runs", "remote_hits", "local_runs"].map(|key| counts.of(key));
        assert_eq!(answered.iter().sum::<usize>(), code.files, "{}", counts.0);
        assert!(counts.of("remote_runs") > 0, "{}", counts.0);

        let again = code.compile(&address, run, None);
        assert_eq!([again.of("compiles"), again.of("fallbacks")], [code.files, 0], "{}", again.0);
    }
}

/// A setting of `tests/soak`.
fn number(variable: &str, default: usize) -> usize {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("`{variable}` is no number")))
}

/// A folder of small C++ files.
struct Code {
    files: usize,
    sources: Vec<String>,
    folder: TempDir,
}

impl Code {
    /// Writes it. `None` if there is no compiler; the test is skipped then.
    fn new(test: &str) -> Option<Self> {
        if !have(test, "g++") {
            return None;
        }
        let files = number("CASTWORK_TESTS_FILES", 60);
        let folder = tempfile::Builder::new().prefix("castwork-code-").tempdir().unwrap();
        fs::write(folder.path().join("shared.h"), SHARED_H).unwrap();
        let sources: Vec<String> = (0..files).map(|file| format!("part_{file}.cc")).collect();
        for (file, source) in sources.iter().enumerate() {
            fs::write(folder.path().join(source), part(file)).unwrap();
        }
        Some(Self { files, sources, folder })
    }

    /// Compiles everything with plain `g++`, then through the wrapper with an empty local cache, and `then` is called
    /// when a third of that is done. What comes out has to be the same. Returns the wrapper's counts.
    fn compile(&self, remote: &str, run: usize, then: Option<&mut (dyn FnMut() + Send)>) -> Counts {
        let plain = self.plain(run);
        let (ours, cache) = (self.empty("ours"), self.empty("cache"));
        let wrapper = || {
            let mut command = Command::new(binary("castwork"));
            set(&mut command, remote, &cache, self.folder.path());
            command
        };
        let event = then.map(|then| Event { after: self.files / 3, then });
        let through = |source: &String| {
            let mut command = wrapper();
            command.arg("g++");
            self.compile_one(command, source, run, &ours);
        };
        each(&self.sources, JOBS, through, event);
        self.compare(&plain, &ours);
        let mut stats = wrapper();
        stats.args(["stats", "--json"]);
        let counted = finish(stats, COMPILE_MAX);
        counted.must_succeed("castwork stats");
        Counts(serde_json::from_str(&counted.stdout).unwrap())
    }

    /// What plain `g++` makes of it in a run.
    fn plain(&self, run: usize) -> PathBuf {
        let name = format!("plain-{run}");
        let folder = self.folder.path().join(&name);
        if !folder.exists() {
            let folder = self.empty(&name);
            each(
                &self.sources,
                2,
                |source| self.compile_one(Command::new("g++"), source, run, &folder),
                None,
            );
        }
        folder
    }

    fn compile_one(&self, mut compiler: Command, source: &str, run: usize, into: &Path) {
        let out = |end: &str| into.join(source).with_extension(end);
        compiler.current_dir(self.folder.path());
        compiler.args(["-O1", "-g", "-Wall", "-MD", "-MT", "object"]).arg(format!("-DRUN={run}"));
        compiler.arg("-MF").arg(out("d")).args(["-c", source, "-o"]).arg(out("o"));
        let done = finish(compiler, COMPILE_MAX);
        done.must_succeed(source);
        fs::write(out("messages"), format!("{}{}", done.stdout, done.stderr)).unwrap();
    }

    fn compare(&self, plain: &Path, ours: &Path) {
        let content = |folder: &Path, source: &str, end: &str| {
            let path = folder.join(source).with_extension(end);
            fs::read(&path).unwrap_or_else(|error| panic!("read `{}`: {error}", path.display()))
        };
        for source in &self.sources {
            for end in ["d", "messages", "o"] {
                let (plain, ours) = (content(plain, source, end), content(ours, source, end));
                let text = String::from_utf8_lossy;
                assert!(plain == ours || end == "o", "{source}: {}---\n{}", text(&plain), text(&ours));
                assert!(plain == ours, "the object of `{source}` is not the one that g++ makes");
            }
        }
    }

    fn empty(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir(&folder).unwrap();
        folder
    }
}

/// What the wrapper counted.
struct Counts(serde_json::Value);

impl Counts {
    fn of(&self, key: &str) -> usize {
        let count = self.0[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {}", self.0));
        usize::try_from(count).unwrap()
    }
}

/// The wrapper's settings, and none of the machine's.
fn set(command: &mut Command, remote: &str, cache: &Path, project: &Path) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CASTWORK_") {
            command.env_remove(name);
        }
    }
    command.env("CASTWORK_REMOTE", remote).env("CASTWORK_DIR", cache).env("CASTWORK_CONFIG", "/dev/null");
    command.env("CASTWORK_PROJECT_ROOT", project);
}

/// What every file includes: enough to have something to optimize, and compiled in a few hundredths of a second.
const SHARED_H: &str = "\
#pragma once
template <int N> struct Sum { static constexpr long value = N * RUN + Sum<N - 1>::value; };
template <> struct Sum<0> { static constexpr long value = RUN; };
template <typename T> inline T mix(T a, T b) { return (a << 3) ^ (b >> 1) ^ RUN; }
";

/// A file; every seventh makes the compiler warn.
fn part(number: usize) -> String {
    let warns = if number % 7 == 3 { "    int unused = 1;\n" } else { "" };
    let depth = 20 + number % 40;
    format!(
        "#include \"shared.h\"\n\
         long part_{number}(const long *from, int count) {{\n\
         {warns}    long all = Sum<{depth}>::value;\n\
         \x20   for (int at = 0; at < count; ++at) all = mix(all + {number}, from[at]);\n\
         \x20   return all;\n\
         }}\n"
    )
}
