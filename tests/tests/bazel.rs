//! Bazel, unmodified, builds and tests a C++ workspace of 71 targets on a farm of ours.
//!
//! Bazel says itself, in the summary of each build, where every process ran: that is what is checked.

#![allow(clippy::unwrap_used, reason = "a test")]

use castwork_tests::bazel::{self, Bazel, PARTS, TESTS};
use castwork_tests::{Farm, progress};

/// Processes that Bazel 4.2.3 starts for the workspace, beside its internal ones. At least; toolchains differ.
const PROCESSES_MIN: usize = 150;

#[test]
fn every_action_runs_remotely_and_the_second_time_none() {
    let Some(mut bazel) = Bazel::with_a_workspace("bazel, remote execution") else { return };
    let farm = Farm::start(2, 2);
    bazel.execute_on(&farm.address());

    progress("first build, all of it on the workers");
    let cold = bazel.test(&[]);
    assert_eq!(cold.places(), ["internal", "remote"], "{}", cold.summary);
    assert!(cold.count("remote") >= PROCESSES_MIN, "{}", cold.summary);
    assert_eq!(cold.executed_tests(), TESTS);
    bazel.check_apps();

    progress("again after `bazel clean`, all of it from the cache");
    bazel.clean();
    let warm = bazel.test(&[]);
    assert_eq!(warm.places(), ["internal", "remote cache hit"], "{}", warm.summary);
    assert_eq!(warm.count("remote cache hit"), cold.count("remote"), "{}", warm.summary);
    assert_eq!(warm.executed_tests(), 0);
    bazel.check_apps();
}

#[test]
fn outputs_that_are_not_downloaded_are_inputs_all_the_same() {
    let Some(mut bazel) = Bazel::with_a_workspace("bazel, --remote_download_minimal") else { return };
    let farm = Farm::start(2, 2);
    bazel.execute_on(&farm.address());
    let minimal = ["--remote_download_minimal"];

    progress("first build, nothing downloaded");
    let cold = bazel.test(&minimal);
    assert_eq!(cold.places(), ["internal", "remote"], "{}", cold.summary);
    assert!(!bazel.has_app(0), "an output was downloaded");

    progress("again after `bazel clean`");
    bazel.clean();
    let warm = bazel.test(&minimal);
    assert_eq!(warm.places(), ["internal", "remote cache hit"], "{}", warm.summary);
    assert_eq!(warm.executed_tests(), 0);

    progress("after a change, with inputs that only the server has");
    bazel.change_the_first_part();
    let changed = bazel.test(&minimal);
    // What is built from outputs that came out the same is in the cache already.
    assert!(changed.is_remote(), "{}", changed.summary);
    assert!(changed.count("remote") > 0, "{}", changed.summary);
    assert!(!bazel.has_app(0), "an output was downloaded");
}

#[test]
fn a_farm_without_workers_is_a_cache_for_local_builds() {
    let Some(mut bazel) = Bazel::with_a_workspace("bazel, --remote_cache") else { return };
    let farm = Farm::start(0, 1);
    bazel.cache_in(&farm.address());

    progress("first build, all of it local");
    let cold = bazel.test(&[]);
    assert_eq!(cold.places(), ["internal", "local"], "{}", cold.summary);
    assert!(cold.count("local") >= PROCESSES_MIN, "{}", cold.summary);

    progress("again after `bazel clean`, all of it from the cache");
    bazel.clean();
    let warm = bazel.test(&[]);
    assert_eq!(warm.places(), ["internal", "remote cache hit"], "{}", warm.summary);
    assert_eq!(warm.count("remote cache hit"), cold.count("local"), "{}", warm.summary);
    assert_eq!(warm.executed_tests(), 0);
    bazel.check_apps();
}

#[test]
fn the_http_port_is_a_cache_for_local_builds_too() {
    let Some(mut bazel) = Bazel::with_a_workspace("bazel, --remote_cache over HTTP") else { return };
    let farm = Farm::start(0, 1);
    bazel.cache_in(&format!("http://{}", farm.http()));

    progress("first build, all of it local");
    let cold = bazel.build_an_app();
    assert_eq!(cold.places(), ["internal", "local"], "{}", cold.summary);

    progress("again after `bazel clean`, all of it from the cache");
    bazel.clean();
    let warm = bazel.build_an_app();
    assert_eq!(warm.places(), ["internal", "remote cache hit"], "{}", warm.summary);
    assert_eq!(warm.count("remote cache hit"), cold.count("local"), "{}", warm.summary);
    bazel.check_app(0);
}

#[test]
fn a_scheduler_and_a_worker_killed_in_the_middle_change_nothing_but_time() {
    let Some(mut bazel) = Bazel::with_a_workspace("bazel, kill -9") else { return };
    let mut farm = Farm::start(2, 2);
    bazel.execute_on(&farm.address());

    progress("a build whose scheduler and whose worker are killed on the way");
    let mut begun = 0;
    let cold = bazel.test_following(&["--remote_retries=10", "--subcommands"], |line| {
        // Bazel names every process that it begins; it goes on while this is looked at.
        begun += usize::from(line.starts_with("SUBCOMMAND: "));
        match begun {
            40 if line.starts_with("SUBCOMMAND: ") => {
                farm.scheduler().kill();
                farm.restart_scheduler();
            }
            100 if line.starts_with("SUBCOMMAND: ") => farm.worker(0).kill(),
            _ => {}
        }
    });
    assert!(begun >= PROCESSES_MIN, "only {begun} processes were begun");
    assert!(cold.is_remote(), "{}", cold.summary);
    assert_eq!(cold.passed_tests, TESTS);
    bazel.check_apps();

    progress("again after `bazel clean`: nothing that was answered is lost");
    bazel.clean();
    let warm = bazel.test(&["--remote_retries=10"]);
    assert_eq!(warm.places(), ["internal", "remote cache hit"], "{}", warm.summary);
    bazel.check_apps();
}

#[test]
fn a_part_is_the_sum_of_its_number_and_its_halves() {
    // What the workspace's tests and programs are checked against.
    assert_eq!([0, 1, 5, PARTS - 1].map(bazel::value_of), [0, 1, 5 + 2 + 1, 25 + 12 + 6 + 3 + 1]);
}
