//! [`Program`]: one of ours, started and ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// How long a program may take until it is ready. Generous: machines are shared.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a program may take to end after it was asked to.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How much of a program's log a failed test shows.
const LOG_LINES: usize = 60;

/// Returns the path of a program of ours, beside the test that runs.
///
/// # Panics
/// If it is not there: `cargo build --workspace` makes it.
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of the test");
    let folders = test.ancestors().skip(1).take(2);
    let candidates = folders.map(|folder| folder.join(name).with_extension(env::consts::EXE_EXTENSION));
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("`{name}` is not built: run `cargo build --workspace` first, or use tests/run")
    })
}

/// Returns the folder of an environment that `tests/run` sets up for a client, e.g. a Python one; `None` if it did not.
///
/// # Panics
/// If the running test has no path.
pub fn environment(name: &str) -> Option<PathBuf> {
    let test = env::current_exe().expect("the path of the test");
    // The test is in target/PROFILE/deps.
    let folders = test.ancestors().skip(2).take(2);
    folders.map(|folder| folder.join("test-env").join(name)).find(|folder| folder.is_dir())
}

/// A running program that writes a ready file. Killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    ready: PathBuf,
}

impl Program {
    /// Starts `command`, which is given `--ready-file`, with its output going to `FOLDER/NAME.log`.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let (log, ready) =
            (folder.join(name).with_extension("log"), folder.join(name).with_extension("ready"));
        let _ = fs::remove_file(&ready);
        let output = File::options().create(true).append(true).open(&log).expect("create a log");
        let child = command
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of a log"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self { name: name.to_owned(), child, log, ready }
    }

    /// Waits for the ready file, and returns what it says.
    ///
    /// # Panics
    /// If the program ends instead, or takes too long; with its log.
    pub fn ready(&mut self) -> serde_json::Value {
        let begin = Instant::now();
        loop {
            if let Some(ready) =
                fs::read(&self.ready).ok().and_then(|text| serde_json::from_slice(&text).ok())
            {
                return ready;
            }
            let ended = self.child.try_wait().expect("ask after a child");
            assert!(ended.is_none(), "{} ended with {ended:?}:\n{}", self.name, self.log());
            assert!(begin.elapsed() < READY_WITHIN, "{} is not ready:\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Panics
    /// If it can't be waited for.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("wait for a child");
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Panics
    /// If that can't be done.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "send {name} to {}", self.name);
    }

    /// Waits for it to end by itself; whether it ended well.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn wait(&mut self) -> bool {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ask after a child") {
                return status.success();
            }
            assert!(begin.elapsed() < END_WITHIN, "{} does not end:\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- end of the log of {}\n{}\n---", self.name, end.join("\n"));
        }
    }
}
