//! Many actions in a row, and helpers that are killed: nothing adds up, and nothing is left.
//!
//! One test at a time is run, in a process of its own: it counts what the process has.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

mod common;

use std::time::Instant;

use castwork_proto::rpc::Code;
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::worker_message::Message as Heard;
use castwork_worker::sandbox::End;
use common::Stage;
use common::farm::{Farm, code};
use tokio::sync::Mutex;

/// Sets how many actions there are.
const ACTIONS: &str = "CASTWORK_TESTS_ACTIONS";

/// After so many, everything is there that is made once.
const WARM: usize = 40;

/// How much the memory of this process may grow, in KiB: what an allocator keeps, not what leaks.
const GROWTH_KIB: u64 = 32 << 10;

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
    scratch: usize,
    cgroups: usize,
}

impl Held {
    fn by(stage: &Stage) -> Self {
        let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = stage.folder.path().to_string_lossy();
        let keepers = keepers();
        Self {
            descriptors: count("/proc/self/fd"),
            // Others mount things, too.
            mounts: mounts.lines().filter(|line| line.contains(&*own)).count(),
            keepers: keepers.len(),
            scratch: std::fs::read_dir(stage.folder.path().join("stage")).unwrap().count(),
            // Of all controllers: the kernel counts them for the whole machine, so only ours.
            cgroups: count_groups(std::path::Path::new("/sys/fs/cgroup"), &keepers, 6),
        }
    }
}

/// Groups of slots of this process's workers.
fn count_groups(folder: &std::path::Path, own: &[i32], depth: usize) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let below =
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let holds_own = std::fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|procs| {
        folder.to_string_lossy().contains("/castwork-")
            && procs.lines().any(|pid| own.contains(&pid.parse().unwrap_or(0)))
    });
    let inner: usize =
        if depth == 0 { 0 } else { below.map(|entry| count_groups(&entry.path(), own, depth - 1)).sum() };
    inner + usize::from(holds_own)
}

/// Keepers that this process has started.
fn keepers() -> Vec<i32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = read("stat");
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent == Some(own.as_str()) && read("cmdline").starts_with("castwork-keep-slot")
    };
    numbers.filter(is_ours).collect()
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
            warm = Some((Held::by(&stage), resident_kib()));
        }
    }
    // The last slot given up may be on its way out.
    let (warm, memory) = warm.unwrap();
    common::wait_until(|| Held::by(&stage).keepers <= warm.keepers, "no keeper too many is left").await;
    assert_eq!(Held::by(&stage), warm);
    let now = resident_kib();
    eprintln!(
        "{actions} actions, {} ms each; {warm:?} after {WARM} of them and at the end; {memory} KiB became {now} KiB",
        begin.elapsed().as_millis() / actions as u128
    );
    assert!(now < memory + GROWTH_KIB, "{memory} KiB became {now} KiB");
    drop(stage);
    common::wait_until(|| keepers().is_empty(), "with the worker its keepers end").await;
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
    for keeper in keepers() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }
    let (outcome, _) = farm.session.outcome().await;
    // The worker's fault: it is tried elsewhere.
    assert_eq!(code(&outcome).0, Code::Unavailable, "{}", code(&outcome).1);
    farm.session.keep("1").await;
    common::wait_until(|| common::processes_named(&name) == 0, "nothing of it is left").await;
    for id in ["2", "3"] {
        assert_eq!(code(&farm.run(farm.lease(id, &[("in", "x")], "cat in", &[])).await).0, Code::Ok);
    }
    common::write_down("E30", &farm.session.hello.sandbox);
}

#[test]
fn all_of_it_holds_for_a_user_without_privileges() {
    let _alone = ALONE.blocking_lock();
    common::run_again_unprivileged("all_of_it_holds_for_a_user_without_privileges");
}
