//! What a server takes long over is compiled here too, and the first one wins; and of what it doesn't take, no more is
//! compiled here at once than there are cores.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use castwork_tests::code::Code;
use castwork_tests::{Farm, binary, have};
use tempfile::TempDir;

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(120);

/// A source, and the wrapper with a cache of its own on a farm.
struct Source {
    folder: TempDir,
    remote: String,
}

impl Source {
    fn new(farm: &Farm, text: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("castwork-race-").tempdir().unwrap();
        fs::write(folder.path().join("a.cc"), text).unwrap();
        Self { folder, remote: farm.address() }
    }

    fn edit(&self, text: &str) {
        fs::write(self.folder.path().join("a.cc"), text).unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("CASTWORK_CONFIG", "/dev/null");
        command.env("CASTWORK_REMOTE", &self.remote).env("CASTWORK_DIR", self.cache());
        command.env("CASTWORK_RACE_AFTER", "0").stdin(Stdio::null());
        command
    }

    fn cached(&self) -> Command {
        let mut command = self.command(binary("castwork"));
        command.args(["g++", "-O1", "-Wall", "-MD", "-c", "a.cc", "-o", "a.o"]);
        command
    }

    /// Has the farm compile something, so that it has the compiler.
    fn warm_up(&self) {
        assert!(self.cached().env("CASTWORK_RACE_AFTER", "never").output().unwrap().status.success());
        assert_eq!(self.counts()["remote_runs"], 1);
    }

    /// What plain `g++` says, and makes.
    fn plain(&self) -> (Output, Option<Vec<u8>>) {
        let said =
            self.command("g++").args(["-O1", "-Wall", "-c", "a.cc", "-o", "plain.o"]).output().unwrap();
        (said, fs::read(self.folder.path().join("plain.o")).ok())
    }

    fn object(&self) -> Option<Vec<u8>> {
        fs::read(self.folder.path().join("a.o")).ok()
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn counts(&self) -> serde_json::Value {
        let stats = self.command(binary("castwork")).args(["stats", "--json"]).output().unwrap();
        serde_json::from_slice(&stats.stdout).unwrap()
    }

    /// Folders of races that are there now.
    fn races(&self) -> usize {
        let entries = self.cache().join("cache/tmp").read_dir().into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("race-")).count()
    }

    /// Processes that name our folder of races.
    fn compilers(&self) -> usize {
        let name = self.cache().join("cache/tmp/race-").display().to_string();
        let processes = Path::new("/proc").read_dir().unwrap().flatten();
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(&name)).count()
    }
}

/// Waits until something is so.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_worker_stands_still_over_is_compiled_here() {
    if !have("a race", "g++") {
        return;
    }
    let mut farm = Farm::start(1, 2);
    let source = Source::new(&farm, "int first() { return 1; }\n");
    source.warm_up();
    source.edit("int f() { int unused; return 7; }\n");
    farm.worker(0).signal("STOP");
    let ended = source.cached().output().unwrap();
    let (plain, object) = source.plain();
    assert!(ended.status.success());
    assert_eq!((ended.stderr, source.object()), (plain.stderr, object));
    assert!(source.folder.path().join("a.d").is_file());
    let status = source.command(binary("castwork")).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (&status["queued"], &status["running"]),
        (&0.into(), &0.into()),
        "nobody waits for it any more: {status}"
    );
    let counts = source.counts();
    assert_eq!(counts["reasons"]["compiled here while the server was at it"], 1, "{counts}");
    assert_eq!((&counts["local_runs"], &counts["fallbacks"]), (&1.into(), &0.into()), "{counts}");

    // What was won is kept as what was made here always is.
    assert!(source.cached().output().unwrap().status.success());
    assert_eq!(source.counts()["local_hits"], 1);

    // An error that the compiler finds is its own.
    source.edit("int f() { return \"text\"; }\n");
    fs::remove_file(source.folder.path().join("a.o")).unwrap();
    fs::remove_file(source.folder.path().join("plain.o")).unwrap();
    let ended = source.cached().output().unwrap();
    let (plain, object) = source.plain();
    assert_eq!(
        (ended.status.code(), ended.stderr, source.object()),
        (plain.status.code(), plain.stderr, object)
    );
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(source.races(), 0);
    farm.worker(0).signal("CONT");
}

#[test]
fn whoever_is_first_the_object_is_the_compilers() {
    let Some(code) = Code::with("a race at once", 24) else { return };
    let code = code.racing_after("0");
    let farm = Farm::start(1, 2);
    for run in 0..2 {
        let counts = code.compile(&farm.address(), run, None);
        let answered = ["remote_runs", "local_runs"].map(|key| counts.of(key));
        assert_eq!(answered.iter().sum::<usize>(), code.files, "{}", counts.0);
        assert_eq!(counts.of("fallbacks"), 0, "{}", counts.0);
        let again = code.compile(&farm.address(), run, None);
        assert_eq!(again.of("remote_hits"), code.files, "what is won is kept for others too: {}", again.0);
    }
}

#[test]
fn who_is_ended_in_a_race_leaves_no_compiler() {
    if !have("a race that is ended", "g++") {
        return;
    }
    let mut farm = Farm::start(1, 2);
    let source = Source::new(&farm, "int first() { return 1; }\n");
    source.warm_up();
    farm.worker(0).signal("STOP");
    for signal in ["TERM", "INT"] {
        // Long enough to be met at it, each time.
        source.edit(&format!("#include <regex>\nstd::regex a(\"a+{signal}\");\n"));
        let mut wrapper = source.cached().stderr(Stdio::null()).spawn().unwrap();
        wait("the compiler is started here", || source.compilers() > 0);
        let killed = Command::new("kill").args([&format!("-{signal}"), &wrapper.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let ended = wrapper.wait().unwrap();
        // Unless it was done just then.
        assert!(ended.signal().is_some() || ended.success(), "{ended}");
        wait("the compiler has ended with it", || source.compilers() == 0);
        assert_eq!(source.races(), 0);
    }
    farm.worker(0).signal("CONT");
}

#[test]
fn of_what_a_farm_does_not_take_no_more_is_compiled_here_than_there_are_cores() {
    if !have("slots", "g++") {
        return;
    }
    let mut farm = Farm::start(1, 2);
    let source = Source::new(&farm, "int first() { return 1; }\n");
    source.warm_up();
    farm.scheduler().kill();
    let cores = std::thread::available_parallelism().unwrap().get();
    fs::create_dir_all(source.cache().join("slots")).unwrap();
    let slots: Vec<File> = (0..cores)
        .map(|at| {
            let path = source.cache().join("slots").join(at.to_string());
            let file = File::options().create(true).append(true).open(path).unwrap();
            file.lock().unwrap();
            file
        })
        .collect();
    source.edit("int second() { return 2; }\n");
    let mut waits = source.cached().spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(waits.try_wait().unwrap().is_none(), "all slots are taken");
    drop(slots);
    assert!(waits.wait().unwrap().success());
    assert_eq!(source.object(), source.plain().1);
}
