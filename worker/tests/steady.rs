//! Many actions in a row, and helpers that are killed: nothing adds up, and nothing is left.
//!
//! One test at a time is run, in a process of its own: it counts what the process has.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

mod common;

use std::time::{Duration, Instant};

use castwork_proto::rpc::Code;
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::worker_message::Message as Heard;
use castwork_worker::sandbox::End;
use common::farm::{Farm, code};
use common::{Stage, held};
use tokio::sync::Mutex;

/// Sets how many actions there are.
const ACTIONS: &str = "CASTWORK_TESTS_ACTIONS";

/// After so many, everything is there that is made once.
const WARM: usize = 40;

/// How much the memory of this process may grow, in KiB: what an allocator keeps, not what leaks.
const GROWTH_KIB: u64 = 32 << 10;

/// How long what was given up may take to be gone on a busy machine.
const SETTLE_MAX: Duration = Duration::from_secs(60);

static ALONE: Mutex<()> = Mutex::const_new(());

/// What actions do, in turn: nothing, leave processes, use the loopback interface, leave files, fail.
const SCRIPTS: [(&str, End); 6] = [
    ("true", End::Exited(0)),
    ("(setsid sleep 1000 &) >/dev/null 2>&1; (sleep 1000 &) >/dev/null 2>&1", End::Exited(0)),
    ("echo x > /tmp/x; echo x > /dev/shm/x; mkdir -m 0 closed; mkfifo fifo", End::Exited(0)),
    ("(echo x > /dev/udp/127.0.0.1/9) 2>/dev/null; exec 3<>/dev/null", End::Exited(0)),
    ("exit 3", End::Exited(3)),
    ("kill -9 $$", End::Signaled(9)),
];

/// What must not grow.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mounts: usize,
    keepers: usize,
    /// Keepers, and who waits in them for the next action.
    processes: usize,
    /// In the worker's folder.
    files: usize,
    /// Of all controllers, empty ones too.
    cgroups: usize,
}

impl Held {
    fn by(stage: &Stage) -> Self {
        let keepers = keepers();
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            mounts: held::mounts(stage.folder.path()),
            keepers: keepers.len(),
            processes: held::below(std::process::id()).len(),
            files: held::files(stage.folder.path()),
            cgroups: held::groups(&held::group_names(&keepers)),
        }
    }
}

fn keepers() -> Vec<u32> {
    held::keepers_of(std::process::id())
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn many_actions_in_a_row_leave_nothing_behind() {
    let _alone = ALONE.lock().await;
    let Some(stage) = Stage::set().await else { return };
    let actions = std::env::var(ACTIONS).map_or(200, |count| count.parse().expect("a number of actions"));
    // The last one is of the same kind as that after which is counted: a slot that was given up would be missing.
    let actions = actions.max(2 * WARM).next_multiple_of(SCRIPTS.len()) + (WARM + 1) % SCRIPTS.len();
    let begin = Instant::now();
    let mut warm = None;
    for number in 0..actions {
        stage.input("in", "input");
        let (script, end) = SCRIPTS[number % SCRIPTS.len()];
        assert_eq!(stage.run(&stage.shell(script)).await.end, end, "{script}");
        stage.again();
        // Else the test itself would hold more and more.
        drop(stage.laid());
        if number == WARM {
            warm = Some((calm(&stage).await, resident_kib()));
        }
    }
    let (warm, memory) = warm.unwrap();
    settle(&stage, &warm).await;
    let now = resident_kib();
    eprintln!(
        "{actions} actions, {} ms each; {warm:?} after {WARM} of them and at the end; {memory} KiB became {now} KiB",
        begin.elapsed().as_millis() / actions as u128
    );
    assert!(now < memory + GROWTH_KIB, "{memory} KiB became {now} KiB");
    let names = held::group_names(&keepers());
    drop(stage);
    common::wait_until(|| keepers().is_empty(), "with the worker its keepers end").await;
    assert_eq!(held::groups(&names), 0, "with the worker its control groups go");
}

/// What is held when nothing is on its way in or out: each keeper has two processes that wait.
async fn calm(stage: &Stage) -> Held {
    let is_calm = |held: &Held| held.processes == 3 * held.keepers;
    common::wait_until(|| is_calm(&Held::by(stage)), "in each slot somebody waits for the next action").await;
    Held::by(stage)
}

/// Waits until what is held is `wanted`: the last slot that was given up may be on its way out.
async fn settle(stage: &Stage, wanted: &Held) {
    let begin = Instant::now();
    while Held::by(stage) != *wanted && begin.elapsed() < SETTLE_MAX {
        tokio::task::yield_now().await;
    }
    assert_eq!(Held::by(stage), *wanted);
}

#[tokio::test]
async fn a_keeper_that_is_killed_takes_its_action_along_and_the_next_one_runs() {
    let _alone = ALONE.lock().await;
    let Some(mut farm) = Farm::set().await else { return };
    let name = format!("castwork-bereft-{}", std::process::id());
    let script = format!("cp /bin/sleep {name}; setsid ./{name} 1000 & ./{name} 1000");
    farm.session.say(Says::Lease(farm.lease("1", &[], &script, &[]))).await;
    while !matches!(farm.session.hear().await, Some(Heard::Progress(progress)) if progress.stage == 2) {}
    common::wait_until(|| common::processes_named(&name) >= 2, "the command has started").await;
    let names = held::group_names(&keepers());
    for keeper in keepers() {
        let keeper = nix::unistd::Pid::from_raw(keeper.try_into().unwrap());
        nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let (outcome, _) = farm.session.outcome().await;
    // The worker's fault: it is tried elsewhere.
    assert_eq!(code(&outcome).0, Code::Unavailable, "{}", code(&outcome).1);
    farm.session.keep("1").await;
    common::wait_until(|| common::processes_named(&name) == 0, "nothing of it is left").await;
    for id in ["2", "3"] {
        assert_eq!(code(&farm.run(farm.lease(id, &[("in", "x")], "cat in", &[])).await).0, Code::Ok);
    }
    // The worker's own, and in it one for each keeper; none of those that were killed.
    let keepers = keepers();
    let wanted = if names.is_empty() { 0 } else { held::hierarchies(keepers[0]) * (keepers.len() + 1) };
    assert_eq!(held::groups(&names), wanted);
    common::write_down("E30", &farm.session.hello.sandbox);
}

#[test]
fn all_of_it_holds_for_a_user_without_privileges() {
    let _alone = ALONE.blocking_lock();
    common::run_again_unprivileged("all_of_it_holds_for_a_user_without_privileges");
}
