//! What a build costs whose farm fails in the middle: killed, frozen and cut off parts, with Bazel and with the wrapper.
//!
//! A build has to end, with the right outputs, and afterwards nothing may wait or run at the server. How much longer it
//! took than an undisturbed one is printed. `tests/faults` does it with large builds; `tests/run` does each fault with a
//! few files through the wrapper, and one with one program of Bazel's workspace.

#![allow(clippy::unwrap_used, reason = "a test")]

mod network;

use std::process::Command;
use std::time::{Duration, Instant};

use castwork_tests::bazel::{Bazel, TESTS};
use castwork_tests::code::{Code, Counts, number};
use castwork_tests::{Farm, Options, binary, progress};

use crate::network::Network;

/// Files that are compiled through the wrapper, unless `CASTWORK_TESTS_FILES` says how many.
const FILES: usize = 24;
/// Processes that Bazel begins before something fails, of the whole workspace and of one program of it.
const BEGUN: usize = 60;
const BEGUN_OF_ONE: usize = 6;
/// How long what is no longer wanted may take to be gone. Generous: a worker is lost after twenty seconds.
const QUIET_WITHIN: Duration = Duration::from_secs(120);

/// What happens to a farm of two workers.
#[derive(Clone, Copy, Debug)]
enum Fault {
    SchedulerKilled,
    WorkerKilled,
    BothKilled,
    WorkerFrozen,
    NetworkCut,
}

/// All of them. The first is what Bazel meets in the short form.
const FAULTS: [Fault; 5] =
    [Fault::WorkerFrozen, Fault::SchedulerKilled, Fault::WorkerKilled, Fault::BothKilled, Fault::NetworkCut];

impl Fault {
    /// Has it happen. What is killed comes back; what is frozen or cut off stays so.
    fn happen(self, farm: &mut Farm, network: Option<&Network>) {
        match self {
            Self::SchedulerKilled => {
                farm.scheduler().kill();
                farm.restart_scheduler();
            }
            Self::WorkerKilled => {
                farm.worker(0).kill();
                farm.restart_worker(0);
            }
            Self::BothKilled => {
                farm.worker(0).kill();
                farm.scheduler().kill();
                farm.restart_scheduler();
                farm.restart_worker(0);
            }
            Self::WorkerFrozen => farm.worker(0).signal("STOP"),
            Self::NetworkCut => network.unwrap().cut(),
        }
    }

    /// Takes back what stays.
    fn end(self, farm: &mut Farm, network: Option<&Network>) {
        match self {
            Self::WorkerFrozen => farm.worker(0).signal("CONT"),
            Self::NetworkCut => network.unwrap().mend(),
            Self::SchedulerKilled | Self::WorkerKilled | Self::BothKilled => {}
        }
    }
}

/// A farm for a fault, with the network of its first worker if that is what fails; `None` if there can't be one.
fn farm(test: &str, fault: Fault) -> Option<(Farm, Option<Network>)> {
    let options = Options { workers: 2, slots: 2, ..Options::default() };
    if !matches!(fault, Fault::NetworkCut) {
        return Some((Farm::with(options), None));
    }
    let network = Network::new(test)?;
    let options =
        Options { host: network.outside().to_owned(), first_worker_in: network.prefix(), ..options };
    Some((Farm::with(options), Some(network)))
}

/// Compiles twice through the wrapper, undisturbed and with the fault.
fn compile_through(fault: Fault) {
    let test = format!("{fault:?}, the wrapper");
    let Some(code) = Code::with(&test, number("CASTWORK_TESTS_FILES", FILES)) else { return };
    let Some((mut farm, network)) = farm(&test, fault) else { return };
    let address = farm.address();
    let timed = |run: usize, then: Option<&mut (dyn FnMut() + Send)>| -> (Counts, Duration) {
        code.plain(run);
        let begin = Instant::now();
        (code.compile(&address, run, then), begin.elapsed())
    };
    let (_, usual) = timed(0, None);
    let mut then = || fault.happen(&mut farm, network.as_ref());
    let (counts, took) = timed(1, Some(&mut then));
    let answered = ["remote_runs", "remote_hits", "local_runs"].map(|key| counts.of(key));
    assert_eq!(answered.iter().sum::<usize>(), code.files, "{}", counts.0);
    assert!(counts.of("remote_runs") > 0, "{}", counts.0);
    tell(&test, usual, took);
    fault.end(&mut farm, network.as_ref());
    wait_until_quiet(&farm);
}

/// What Bazel builds: the whole workspace with its tests, or one program of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Everything,
    OneProgram,
}

impl Goal {
    /// Builds it, calls `fail` when enough processes have begun, and checks what has come of it.
    fn build(self, bazel: &Bazel, mut fail: impl FnMut() + Send) {
        let begun_max = if self == Self::Everything { BEGUN } else { BEGUN_OF_ONE };
        let mut begun = 0;
        let follow = |line: &str| {
            if line.starts_with("SUBCOMMAND: ") {
                begun += 1;
                if begun == begun_max {
                    fail();
                }
            }
        };
        let flags = ["--remote_retries=10", "--subcommands"];
        let build = match self {
            Self::Everything => bazel.test_following(&flags, follow),
            Self::OneProgram => bazel.build_an_app_following(&flags, follow),
        };
        assert!(begun > begun_max, "only {begun} processes were begun: {}", build.summary);
        assert!(build.is_remote(), "{}", build.summary);
        if self == Self::Everything {
            assert_eq!(build.passed_tests, TESTS);
            bazel.check_apps();
        } else {
            bazel.check_app(0);
        }
    }
}

/// Builds with Bazel, undisturbed and with each fault.
fn build_through(goal: Goal, faults: &[Fault]) {
    let Some(mut bazel) = Bazel::with_a_workspace("a farm that fails, Bazel") else { return };
    let mut timed = |address: &str, fail: &mut (dyn FnMut() + Send)| {
        bazel.execute_on(address);
        bazel.clean();
        let begin = Instant::now();
        goal.build(&bazel, fail);
        begin.elapsed()
    };
    let mut undisturbed = || timed(&Farm::start(2, 2).address(), &mut || ());
    // Bazel's own server starts and learns with the first; the second is what the others are measured by.
    let mut usual = undisturbed();
    if faults.len() > 1 {
        usual = undisturbed();
    }
    for fault in faults {
        let test = format!("{fault:?}, Bazel");
        let Some((mut farm, network)) = farm(&test, *fault) else { return };
        let address = farm.address();
        let took = timed(&address, &mut || fault.happen(&mut farm, network.as_ref()));
        tell(&test, usual, took);
        fault.end(&mut farm, network.as_ref());
        wait_until_quiet(&farm);
    }
}

fn tell(test: &str, usual: Duration, took: Duration) {
    let lost = took.saturating_sub(usual);
    progress(&format!(
        "{test}: {:.1} s, {:.1} s more than undisturbed",
        took.as_secs_f64(),
        lost.as_secs_f64()
    ));
}

/// Nothing runs for ever, and nothing waits for ever.
fn wait_until_quiet(farm: &Farm) {
    let begin = Instant::now();
    loop {
        let mut command = Command::new(binary("castwork"));
        command.args(["status", "--json"]).env("CASTWORK_DIR", farm.folder());
        let output = command.env("CASTWORK_REMOTE", farm.address()).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let is_quiet = ["queued", "running"].iter().all(|key| status[*key] == 0);
        if is_quiet && status["workers"].as_array().is_some_and(|workers| workers.len() == 2) {
            return;
        }
        assert!(begin.elapsed() < QUIET_WITHIN, "something waits or runs for ever: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Faults that Bazel meets.
fn with_bazel() -> usize {
    number("CASTWORK_TESTS_BAZEL_FAULTS", 1)
}

#[test]
fn a_build_through_the_wrapper_survives_every_fault() {
    if with_bazel() > 1 {
        // One after the other, as their times are told.
        return FAULTS.into_iter().for_each(compile_through);
    }
    // They wait most of the time, for workers to be given up.
    std::thread::scope(|scope| {
        for fault in FAULTS {
            scope.spawn(move || compile_through(fault));
        }
    });
}

#[test]
fn a_build_with_bazel_survives_what_fails() {
    let goal = if with_bazel() > 1 { Goal::Everything } else { Goal::OneProgram };
    build_through(goal, &FAULTS[..with_bazel()]);
}
