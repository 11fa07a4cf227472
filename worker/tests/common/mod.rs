//! A stage for sandbox tests: a local CAS of two files, inputs laid out from it, a sandbox.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod farm;
pub(crate) mod held;
pub(crate) mod scheduler;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use castwork_cas::{Digest, DigestFunction};
use castwork_worker::sandbox::{
    Bounds, Captured, Confined, Ended, Layout, Level, Root, RunSpec, Sandbox, SandboxError, Surroundings,
    set_mode,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Set in the environment of the run without privileges.
const AGAIN: &str = "CASTWORK_TEST_UNPRIVILEGED";

/// Where a line for each attempt that was contained goes, if this is set: its name, the level, the user.
const LIST: &str = "CASTWORK_ABUSE_LIST";

/// Set in the environment of a run at the level that has no namespaces.
const FILTERS: &str = "CASTWORK_TEST_FILTERS";

/// Whether this is that run.
pub(crate) fn filters_only() -> bool {
    std::env::var_os(FILTERS).is_some()
}

/// What must not change about a file of the CAS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Laid {
    digest: Digest,
    mode: u32,
    modified: (i64, i64),
}

impl Laid {
    pub(crate) fn of(path: &Path) -> Self {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        let digest = Digest::of(DigestFunction::Sha256, &std::fs::read(path).unwrap());
        Self { digest, mode: metadata.mode(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// One action's surroundings.
pub(crate) struct Stage {
    pub folder: TempDir,
    pub sandbox: Confined,
    cas: Mutex<Vec<(PathBuf, Laid)>>,
}

impl Stage {
    /// `None`, with the reason printed, where this machine can't confine anything.
    pub(crate) async fn set() -> Option<Self> {
        Self::set_with(Vec::new()).await
    }

    /// The same, with paths that actions must not see.
    pub(crate) async fn set_with(hidden: Vec<PathBuf>) -> Option<Self> {
        Self::bounded(hidden, Bounds::for_this_machine(2)).await
    }

    /// The same, with bounds for actions.
    pub(crate) async fn bounded(hidden: Vec<PathBuf>, bounds: Bounds) -> Option<Self> {
        Self::of(hidden, bounds, Path::new(env!("CARGO_BIN_EXE_castwork-worker"))).await
    }

    /// The same, with another program to start.
    pub(crate) async fn started_by(program: &Path) -> Option<Self> {
        Self::of(Vec::new(), Bounds::for_this_machine(2), program).await
    }

    async fn of(hidden: Vec<PathBuf>, bounds: Bounds, program: &Path) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        set_mode(folder.path(), 0o700).unwrap();
        let surroundings = Surroundings {
            data_dir: folder.path().to_owned(),
            hidden,
            level: filters_only().then_some(Level::Filters),
            bounds,
            allows_network: !filters_only(),
            program: Some(program.to_owned()),
        };
        let sandbox = match Confined::probe(&surroundings).await {
            Ok(sandbox) => sandbox,
            Err(error @ SandboxError::Unavailable { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let layout = if filters_only() { Layout::Copies } else { Layout::Links };
        assert_eq!(sandbox.layout(), layout, "this machine has overlays");
        let stage = Self { folder, sandbox, cas: Mutex::default() };
        stage.make_inputs();
        Some(stage)
    }

    fn make_inputs(&self) {
        std::fs::create_dir_all(self.inputs()).unwrap();
        self.sandbox.owner().take(&self.inputs()).unwrap();
        std::fs::create_dir_all(self.folder.path().join("cas")).unwrap();
    }

    /// The same worker, another action.
    pub(crate) fn again(&self) -> &Self {
        castwork_worker::sandbox::remove_tree(&self.scratch()).unwrap();
        self.make_inputs();
        self
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("stage/action")
    }

    fn inputs(&self) -> PathBuf {
        self.scratch().join("inputs")
    }

    /// Puts a file into the CAS and a hard link to it into the inputs.
    pub(crate) fn input(&self, path: &str, content: &str) {
        let digest = Digest::of(DigestFunction::Sha256, format!("{path} {content}").as_bytes());
        let blob = self.folder.path().join("cas").join(digest.hash_hex());
        if !blob.exists() {
            std::fs::write(&blob, content).unwrap();
            set_mode(&blob, 0o444).unwrap();
        }
        self.link(&blob, path);
    }

    /// Compiles a program that needs no shared library, if that is possible here.
    pub(crate) fn static_program(&self, source: &str) -> Option<PathBuf> {
        let (file, program) = (self.folder.path().join("program.c"), self.folder.path().join("program"));
        std::fs::write(&file, source).unwrap();
        let done = Command::new("cc").arg("-static").arg(&file).arg("-o").arg(&program).status();
        done.is_ok_and(|status| status.success()).then_some(program)
    }

    /// Puts a program into the CAS and a hard link to it into the inputs.
    pub(crate) fn copy_program(&self, from: &Path, path: &str) {
        let blob = self.folder.path().join("cas/program");
        if !blob.exists() {
            std::fs::copy(from, &blob).unwrap();
            set_mode(&blob, 0o555).unwrap();
        }
        self.link(&blob, path);
    }

    fn link(&self, blob: &Path, path: &str) {
        self.sandbox.owner().take(blob).unwrap();
        let place = self.inputs().join(path);
        let mut made = self.inputs();
        for folder in Path::new(path).parent().unwrap() {
            made.push(folder);
            if !made.exists() {
                std::fs::create_dir(&made).unwrap();
                self.sandbox.owner().take(&made).unwrap();
            }
        }
        match self.sandbox.layout() {
            Layout::Links => std::fs::hard_link(blob, place).unwrap(),
            Layout::Copies => {
                std::fs::copy(blob, &place).unwrap();
                self.sandbox.owner().take(&place).unwrap();
            }
        }
        self.cas.lock().unwrap().push((blob.to_owned(), Laid::of(blob)));
    }

    /// Every file of the CAS, as it was before the action.
    pub(crate) fn laid(&self) -> Vec<(PathBuf, Laid)> {
        std::mem::take(&mut *self.cas.lock().unwrap())
    }

    pub(crate) fn shell(&self, script: &str) -> RunSpec {
        RunSpec {
            scratch: self.scratch(),
            base: None,
            root: Root::Worker,
            network: false,
            arguments: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_directory: String::new(),
            timeout: Duration::from_secs(120),
            memory_bytes: 0,
        }
    }

    pub(crate) async fn run(&self, spec: &RunSpec) -> Ended {
        self.sandbox.run(spec, &CancellationToken::new()).await.unwrap_or_else(|error| {
            panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
        })
    }
}

/// What was captured, as text.
pub(crate) fn text(captured: &Captured) -> String {
    captured.path.as_ref().map_or_else(String::new, |path| std::fs::read_to_string(path).unwrap())
}

/// How many processes of this machine run a program of that name.
pub(crate) fn processes_named(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(name))
        .count()
}

/// Runs the whole test program once more as a user without privileges, all but the test `caller`.
pub(crate) fn run_again_unprivileged(caller: &str) {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this run is without privileges itself");
        return;
    }
    let temporary = TempDir::new().unwrap();
    set_mode(temporary.path(), 0o777).unwrap();
    let done = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--nocapture", "--skip", caller])
        .env(AGAIN, "1")
        .env("TMPDIR", temporary.path())
        .output();
    match done {
        Err(error) => eprintln!("skipped: can't start `setpriv`: {error}"),
        Ok(done) => {
            let [said, complained] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
            assert!(done.status.success(), "{said}\n{complained}");
            eprint!("{complained}");
        }
    }
}

/// Runs the whole test program once more at the level without namespaces, all but the tests named.
pub(crate) fn run_again_with_filters_only(left_out: &[&str]) {
    if filters_only() {
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.env(FILTERS, "1").args(left_out.iter().flat_map(|name| ["--skip", name]));
    let done = again.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
}

/// Waits for what has to come, as long as a busy machine may take.
pub(crate) async fn wait_until(is_so: impl Fn() -> bool, what: &str) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        tokio::task::yield_now().await;
    }
}

/// Adds a line to the list, if there is to be one.
pub(crate) fn write_down(attack: &str, level: &str) {
    let Some(list) = std::env::var_os(LIST) else { return };
    let user = if nix::unistd::geteuid().is_root() { "root" } else { "user" };
    let mut file = std::fs::File::options().create(true).append(true).open(list).unwrap();
    // One write, so that the lines of tests that run at once don't mix.
    file.write_all(format!("{attack} {level} {user}\n").as_bytes()).unwrap();
}
