//! E9 to E14, E19, E26, E29: processes that stay, that multiply, that take all there is.

use std::cell::Cell;
use std::time::Duration;

use castwork_worker::sandbox::{Bound, Bounds, End};

use crate::common::{processes_named, text};
use crate::trial::Trial;

#[tokio::test]
async fn e9_a_daemon_that_no_signal_reaches() {
    let Some(trial) = Trial::begin().await else { return };
    let name = format!("castwork-daemon-{}", std::process::id());
    let script = trial.prepared("daemon", "").arguments[2].replace("exec ./daemon", "");
    let ended = trial.script(&format!("{script} true && cp daemon {name} && exec ./{name} 400")).await;
    assert_eq!(ended.end, End::Exited(0), "{}", text(&ended.stderr));
    assert_eq!(processes_named(&name), 0);
    drop(ended);
    trial.contained("E9").await;
}

#[tokio::test]
async fn e10_e11_a_bomb_of_processes() {
    let few = Bounds { processes: 64, ..Bounds::for_this_machine(2) };
    let Some(trial) = Trial::bounded(few).await else { return };
    let Some(neighbour) = Trial::begin().await else { return };
    let name = format!("castwork-bomb-{}", std::process::id());
    let script = trial.prepared("bomb", "").arguments[2].replace("exec ./bomb", "");
    let mut spec = trial.stage.shell(&format!("{script} true && cp bomb {name} && exec ./{name}"));
    spec.timeout = Duration::from_secs(3);
    let is_over = Cell::new(false);
    let beside = async {
        // Its bound is its own: another action starts processes as before.
        while processes_named(&name) < 50 && !is_over.get() {
            tokio::task::yield_now().await;
        }
        neighbour.script("for i in 1 2 3 4 5; do /bin/true || exit 1; done; echo went on").await
    };
    let bomb = async {
        let ended = trial.stage.run(&spec).await;
        is_over.set(true);
        ended
    };
    let (bomb, beside) = tokio::join!(bomb, beside);
    assert_eq!(bomb.end, End::TimedOut);
    assert!(text(&bomb.stdout).starts_with('e'), "it came to its bound");
    assert_eq!(text(&beside.stdout), "went on\n");
    assert_eq!(processes_named(&name), 0);
    drop((bomb, beside));
    trial.contained("E10").await;
    neighbour.contained("E11").await;
}

#[tokio::test]
async fn e12_four_times_the_memory_there_is() {
    let little =
        Bounds { memory_bytes: 256 << 20, memory_bytes_max: 256 << 20, ..Bounds::for_this_machine(2) };
    let Some(trial) = Trial::bounded(little).await else { return };
    let ended = trial.program("memory", "1024").await;
    assert_eq!(ended.end, End::Over(Bound::Memory), "{}", text(&ended.stderr));
    assert_eq!(text(&ended.stdout), "");
    assert!(text(&ended.stderr).contains("more memory than the 256 MiB"), "{}", text(&ended.stderr));
    drop(ended);
    // However it is taken.
    for how in ["hidden", "shared", "others end all the time"] {
        trial.stage.again();
        let ended = trial.program("memory", &format!("1024 {how}")).await;
        assert_eq!(ended.end, End::Over(Bound::Memory), "{how}: {}", text(&ended.stderr));
    }
    // A part of the command that is killed is as bad: what the rest makes of it is not its result.
    trial.stage.again();
    let script = trial.prepared("memory", "1024").arguments[2].replace("exec ", "");
    let ended = trial.script(&format!("{script}; sleep 1; exit 3")).await;
    assert_eq!(ended.end, End::Over(Bound::Memory), "{}", text(&ended.stderr));
    drop(ended);
    trial.contained("E12").await;
}

#[tokio::test]
async fn e13_filling_every_disk() {
    let little =
        Bounds { disk_bytes: 32 << 20, files: 2000, tmp_bytes: 16 << 20, ..Bounds::for_this_machine(2) };
    let Some(trial) = Trial::bounded(little).await else { return };
    let script = trial.prepared("fill", "").arguments[2].replace("exec ./fill", "true");
    let memory =
        "for place in /tmp /dev/shm; do ./fill b $place 100; rm $place/fill; ./fill n $place 5000; done";
    let ended = trial.script(&format!("{script}; {memory}")).await;
    assert_eq!(text(&ended.stdout), "/tmp ENOSPC\n/tmp ENOSPC\n/dev/shm ENOSPC\n/dev/shm ENOSPC\n");
    drop(ended);
    for attack in [
        "while mkdir $((i += 1)); do ./fill b $i 20; done",
        "./fill n . 1000000; sleep 100",
        // Beyond the bound of a file, and before anybody has looked.
        ": >taken; fallocate -n -l 1G taken; sleep 100",
        "./fill unlinked . 200",
        "./fill mapped . 200",
    ] {
        trial.stage.again();
        let script = trial.prepared("fill", "").arguments[2].replace("exec ./fill", "true");
        let script = if attack.contains("fill") { format!("{script}; {attack}") } else { attack.to_owned() };
        assert_eq!(trial.script(&script).await.end, End::Over(Bound::Disk), "{attack}");
    }
    trial.contained("E13").await;
}

#[tokio::test]
async fn e14_output_without_end() {
    let Some(trial) = Trial::begin().await else { return };
    let ended = trial.script("head -c 300000000 /dev/zero; head -c 100000000 /dev/zero >&2").await;
    assert_eq!(ended.end, End::Exited(0));
    for (captured, bytes) in [(&ended.stdout, 300_000_000), (&ended.stderr, 100_000_000)] {
        assert_eq!(captured.dropped_bytes, bytes - (16 << 20));
        let kept = std::fs::metadata(captured.path.as_ref().unwrap()).unwrap().len();
        assert!((16 << 20..(16 << 20) + 100).contains(&kept));
    }
    drop(ended);
    trial.contained("E14").await;
}

#[tokio::test]
async fn e19_processes_of_the_worker() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("processes", &std::process::id().to_string()).await, 13);
    trial.contained("E19").await;
}

#[tokio::test]
async fn e26_the_clock_the_name_and_the_limits() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("limits", "").await, 14);
    trial.contained("E26").await;
}

#[tokio::test]
async fn e29_something_for_the_next_action() {
    let Some(trial) = Trial::begin().await else { return };
    let script =
        "umask 0; ulimit -n 10; echo x > /tmp/x; echo x > /dev/shm/x; echo x > left; mkdir -p /tmp/a/b
        mkfifo /tmp/fifo; (sleep 1000 &) >/dev/null 2>&1; setsid sh -c 'sleep 1000 &' >/dev/null 2>&1; true";
    assert_eq!(trial.script(script).await.end, End::Exited(0));
    trial.stage.again();
    // Uses the loopback interface, and leaves System V memory.
    trial.program("handover", "serve & sleep 0.3; true").await;
    trial.contained("E29").await;
}
