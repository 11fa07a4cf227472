//! Many C++ files through the wrapper onto two workers, as `make -j8` does it, and with parts of the farm killed.
//!
//! Objects, dependency files and messages have to be those of plain `g++`, byte for byte. `tests/soak` does the same
//! with more files and more often.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;
use std::time::Instant;

use castwork_tests::code::{COMPILE_MAX, Code, number};
use castwork_tests::{Farm, binary, finish, progress};

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

#[test]
fn a_scheduler_that_freezes_in_the_middle_is_waited_for_once() {
    let Some(code) = Code::new("the wrapper, the scheduler frozen") else { return };
    let mut farm = Farm::start(2, 2);
    let address = farm.address();
    for run in 0..number("CASTWORK_TESTS_RUNS", 1) {
        progress(&format!("run {run}: {} files, the scheduler frozen on the way", code.files));
        code.plain(run);
        let begun = Instant::now();
        let counts = code.compile(&address, run, Some(&mut || farm.scheduler().signal("STOP")));
        progress(&format!("run {run}: {:.1} s", begun.elapsed().as_secs_f64()));
        farm.scheduler().signal("CONT");
        let answered = ["remote_runs", "local_runs"].map(|key| counts.of(key));
        assert_eq!(answered.iter().sum::<usize>(), code.files, "{}", counts.0);
        // Those that were under way found out, and told the others.
        let reasons = &counts.0["reasons"];
        let silent = reasons["wait for the server: took too long"].as_u64().unwrap_or_default();
        let told = reasons["server that was down a moment ago"].as_u64().unwrap_or_default();
        assert!(silent > 0 && told > silent, "{}", counts.0);
    }
}
