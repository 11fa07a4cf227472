//! What a build costs whose farm fails in the middle: killed, frozen and cut off parts, with Bazel and with the wrapper.
//!
//! A build has to end, with the right outputs, and afterwards nothing may wait or run at the server. How much longer it
//! took than an undisturbed one is printed. `tests/faults` runs all of it; `tests/run` what takes seconds.

#![allow(clippy::unwrap_used, reason = "a test")]

mod network;

use std::process::Command;
use std::time::{Duration, Instant};

use castwork_tests::bazel::{Bazel, TESTS};
use castwork_tests::code::{Code, Counts};
use castwork_tests::{Farm, Options, binary, progress};

use crate::network::Network;

/// Processes that Bazel begins before something fails.
const BEGUN: usize = 60;
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

/// Compiles twice through the wrapper, undisturbed and with the fault; the latter's counts.
fn compile_through(fault: Fault) {
    let test = format!("{fault:?}, the wrapper");
    let Some(code) = Code::new(&test) else { return };
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

/// Builds twice with Bazel, undisturbed and with the fault.
fn build_through(fault: Fault) {
    let test = format!("{fault:?}, Bazel");
    let Some((farm_of_before, _)) = farm(&test, Fault::SchedulerKilled) else { return };
    let Some(mut bazel) = Bazel::with_a_workspace(&test) else { return };
    bazel.execute_on(&farm_of_before.address());
    let begin = Instant::now();
    bazel.test(&[]);
    let usual = begin.elapsed();
    drop(farm_of_before);
    let Some((mut farm, network)) = farm(&test, fault) else { return };
    bazel.execute_on(&farm.address());
    bazel.clean();
    let (begin, mut begun) = (Instant::now(), 0);
    let build = bazel.test_following(&["--remote_retries=10", "--subcommands"], |line| {
        begun += usize::from(line.starts_with("SUBCOMMAND: "));
        if begun == BEGUN && line.starts_with("SUBCOMMAND: ") {
            fault.happen(&mut farm, network.as_ref());
        }
    });
    let took = begin.elapsed();
    assert!(begun > BEGUN, "only {begun} processes were begun");
    assert!(build.is_remote(), "{}", build.summary);
    assert_eq!(build.passed_tests, TESTS);
    bazel.check_apps();
    tell(&test, usual, took);
    fault.end(&mut farm, network.as_ref());
    wait_until_quiet(&farm);
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

#[test]
fn a_build_survives_the_end_of_a_scheduler_and_of_a_worker_at_once() {
    compile_through(Fault::BothKilled);
}

#[test]
fn a_build_survives_a_worker_that_freezes() {
    compile_through(Fault::WorkerFrozen);
}

#[test]
#[ignore = "takes minutes: tests/faults"]
fn a_build_through_the_wrapper_survives_everything_else() {
    for fault in [Fault::SchedulerKilled, Fault::WorkerKilled, Fault::NetworkCut] {
        compile_through(fault);
    }
}

#[test]
#[ignore = "takes minutes: tests/faults"]
fn a_build_with_bazel_survives_everything() {
    for fault in [
        Fault::SchedulerKilled,
        Fault::WorkerKilled,
        Fault::BothKilled,
        Fault::WorkerFrozen,
        Fault::NetworkCut,
    ] {
        build_through(fault);
    }
}
