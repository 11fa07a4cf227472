//! [`Bazel`]: an own server of Bazel's with an own workspace, and what its builds report.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::{finish, finish_following, have, skip};

/// Tests in the workspace that `write-workspace` writes.
pub const TESTS: usize = 14;
/// Libraries in it.
pub const PARTS: usize = 26;
/// Programs in it.
const APPS: usize = 12;

/// Far above what a build takes on two slow cores.
const BUILD_MAX: Duration = Duration::from_secs(8 * 60);
/// What starting, cleaning and stopping may take.
const COMMAND_MAX: Duration = Duration::from_secs(2 * 60);

/// What the workspace takes from Debian's packages instead of the network.
const RULES: [&str; 2] = ["/usr/share/bazel/rules/java", "/usr/share/bazel/tools/platforms"];

/// A Bazel of 2 GiB is enough at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A workspace, and a server of Bazel's that has nothing to do with any other on the machine.
pub struct Bazel {
    workspace: PathBuf,
    flags: Vec<String>,
    folder: TempDir,
    // Last: the next one begins when this is all gone.
    _turn: MutexGuard<'static, ()>,
}

impl Bazel {
    /// Writes a workspace. `None` if there is no such Bazel here; the test is skipped then.
    pub fn with_a_workspace(test: &str) -> Option<Self> {
        if !have(test, "bazel") {
            return None;
        }
        if let Some(missing) = RULES.iter().find(|folder| !Path::new(folder).is_dir()) {
            skip(test, &format!("there is no `{missing}` (Debian's bazel-rules-java and bazel-platforms)"));
            return None;
        }
        // A test that failed while it held this leaves nothing wrong behind.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new()
            .prefix("castwork-bazel-")
            .tempdir()
            .expect("prepare a workspace for bazel");
        let workspace = folder.path().join("workspace");
        let writer = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/bazel/write-workspace");
        let mut write = Command::new(writer);
        write.arg(&workspace);
        finish(write, COMMAND_MAX).must_succeed("write the workspace");
        Some(Self { workspace, flags: Vec::new(), folder, _turn: turn })
    }

    /// From now on everything is executed by the server at `address`.
    pub fn execute_on(&mut self, address: &str) {
        self.flags = vec![
            format!("--remote_executor={address}"),
            "--spawn_strategy=remote".to_owned(),
            "--genrule_strategy=remote".to_owned(),
            "--remote_default_exec_properties=OSFamily=linux".to_owned(),
            "--remote_timeout=60".to_owned(),
            "--jobs=8".to_owned(),
        ];
    }

    /// From now on everything is executed here, with the server at `address` as a cache.
    pub fn cache_in(&mut self, address: &str) {
        self.flags = vec![
            format!("--remote_cache={address}"),
            "--spawn_strategy=local".to_owned(),
            "--genrule_strategy=local".to_owned(),
            "--remote_timeout=60".to_owned(),
            "--jobs=2".to_owned(),
        ];
    }

    /// Builds and tests everything, with more flags. It has to succeed.
    pub fn test(&self, flags: &[&str]) -> Build {
        self.test_following(flags, |_| {})
    }

    /// Builds one of the programs, which has to succeed.
    pub fn build_an_app(&self) -> Build {
        self.build_an_app_following(&[], |_| {})
    }

    /// The same with more flags; `follow` is called with each line that Bazel writes on the way.
    pub fn build_an_app_following(&self, flags: &[&str], follow: impl FnMut(&str) + Send) -> Build {
        let mut command = self.command();
        command.arg("build").args(&self.flags).args(flags).arg("//app:app_0");
        let done = finish_following(command, BUILD_MAX, follow);
        done.must_succeed("bazel build //app:app_0");
        Build::read(&format!("{}\n{}", done.stderr, done.stdout))
    }

    /// The same; `follow` is called with each line that Bazel writes on the way.
    pub fn test_following(&self, flags: &[&str], follow: impl FnMut(&str) + Send) -> Build {
        let mut command = self.command();
        command.arg("test").args(&self.flags).args(flags).args(["--test_output=errors", "//..."]);
        let done = finish_following(command, BUILD_MAX, follow);
        done.must_succeed("bazel test //...");
        Build::read(&format!("{}\n{}", done.stderr, done.stdout))
    }

    /// Forgets all outputs, and that they were built.
    pub fn clean(&self) {
        let mut command = self.command();
        command.arg("clean");
        finish(command, COMMAND_MAX).must_succeed("bazel clean");
    }

    /// Changes a header that everything includes in the end, but no result.
    pub fn change_the_first_part(&self) {
        let path = self.workspace.join("lib/part_0.h");
        let mut header = OpenOptions::new().append(true).open(path).expect("prepare a workspace for bazel");
        header.write_all(b"static const int changed = 1;\n").expect("prepare a workspace for bazel");
    }

    /// Whether a program is on this machine.
    pub fn has_app(&self, number: usize) -> bool {
        self.app(number).exists()
    }

    /// Runs every program that was built here.
    pub fn check_apps(&self) {
        (0..APPS).for_each(|number| self.check_app(number));
    }

    /// Runs a program that was built here.
    pub fn check_app(&self, number: usize) {
        let said = finish(Command::new(self.app(number)), COMMAND_MAX);
        said.must_succeed("a built program");
        assert_eq!(said.stdout, format!("app {number}: {}\n", value_of(PARTS - 1 - number)));
    }

    fn app(&self, number: usize) -> PathBuf {
        self.workspace.join(format!("bazel-bin/app/app_{number}"))
    }

    fn output_root(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("bazel");
        command.current_dir(&self.workspace);
        command.arg(format!("--output_user_root={}", self.output_root().display()));
        // Debian's own rc file has to be read: it says where Bazel's parts are.
        command.args(["--nohome_rc", "--host_jvm_args=-Xmx2g", "--max_idle_secs=120"]);
        command
    }

    /// Ends the server that the first command started.
    fn stop(&self) {
        let mut command = self.command();
        command.arg("shutdown");
        let asked = command.output();
        if asked.is_ok_and(|output| output.status.success()) {
            return;
        }
        let bases = fs::read_dir(self.output_root()).into_iter().flatten().flatten();
        for pid in bases.filter_map(|base| fs::read_to_string(base.path().join("server/server.pid.txt")).ok())
        {
            // It is gone already if this fails.
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

impl Drop for Bazel {
    fn drop(&mut self) {
        self.stop();
        // Folders that are outputs are read-only, and can't be emptied by anyone but root.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.folder.path()).status();
    }
}

/// What `part_N` of the workspace returns.
pub fn value_of(part: usize) -> usize {
    std::iter::successors(Some(part), |part| Some(part / 2)).take_while(|part| *part > 0).sum()
}

/// What Bazel said of a build that succeeded.
pub struct Build {
    /// The line with the processes, e.g. `309 processes: 135 internal, 174 remote.`
    pub summary: String,
    /// How many tests passed, now or in an earlier run.
    pub passed_tests: usize,
    executed_tests: Option<usize>,
    processes: BTreeMap<String, usize>,
}

impl Build {
    /// Reads it from everything that was printed.
    fn read(said: &str) -> Self {
        let after =
            |mark: &'static str| move |line: &str| line.split_once(mark).map(|(_, rest)| rest.to_owned());
        let summary = said.lines().find_map(after(" processes: ")).expect("a summary of the processes");
        let processes = summary.trim_end_matches('.').split(", ").map(|part| {
            let (count, place) = part.split_once(' ').expect("a number and a place");
            (place.to_owned(), count.parse().expect("a number"))
        });
        let executed = said.lines().find_map(after("Executed ")).map(|rest| {
            rest.split(' ').next().and_then(|count| count.parse().ok()).expect("a number of tests")
        });
        Self {
            processes: processes.collect(),
            passed_tests: said
                .lines()
                .filter(|line| line.starts_with("//") && line.contains(" PASSED in "))
                .count(),
            executed_tests: executed,
            summary,
        }
    }

    /// Where processes ran, sorted.
    pub fn places(&self) -> Vec<&str> {
        self.processes.keys().map(String::as_str).collect()
    }

    /// Whether nothing was run on this machine.
    pub fn is_remote(&self) -> bool {
        self.processes
            .keys()
            .all(|place| ["internal", "remote", "remote cache hit"].contains(&place.as_str()))
    }

    /// How many ran there.
    pub fn count(&self, place: &str) -> usize {
        self.processes.get(place).copied().unwrap_or_default()
    }

    /// How many tests were run for this build.
    pub fn executed_tests(&self) -> usize {
        self.executed_tests.expect("Bazel says how many tests it executed")
    }
}
