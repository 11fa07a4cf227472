//! A whole worker against a scheduler that the test drives: real inputs, sandbox and outputs.
//!
//! Runs twice where it is started as root: as root, and once more as a user without privileges.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use castwork_cas::Digest;
use castwork_cas::merkle::{Limits, TreeReader};
use castwork_proto::rpc;
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::worker_message::Message as Heard;
use castwork_proto::worker::{CancelLease, ExecutionFacts};
use castwork_worker::sandbox::Bounds;
use castwork_worker::{SandboxChoice, Stop, WorkerError};
use common::farm::{Farm, code, config, lease};
use common::scheduler::{FUNCTION, Scheduler};
use tempfile::TempDir;

#[tokio::test]
async fn a_compile_comes_back_with_its_object_its_times_and_its_stages() {
    let Some(mut farm) = Farm::set().await else { return };
    let inputs =
        [("src/a.c", "#include \"a.h\"\nint f(void) { return A; }\n"), ("src/include/a.h", "#define A 1\n")];
    let script = "cc -Isrc/include -c src/a.c -o out/a.o && echo said >&2";
    let lease = farm.lease("1", &inputs, script, &["out/a.o", "out/absent"]);
    farm.session.say(Says::Lease(lease)).await;
    let (outcome, stages) = farm.session.outcome().await;
    assert!(stages.is_sorted(), "stages never go backwards: {stages:?}");
    assert_eq!(code(&outcome), (rpc::Code::Ok, ""));
    let result = outcome.result.unwrap();
    assert_eq!(result.exit_code, 0);
    let [object] = &result.output_files[..] else { panic!("one output") };
    assert_eq!(object.path, "out/a.o");
    assert!(farm.scheduler.get(object.digest.as_ref()).starts_with(b"\x7fELF"));
    assert_eq!(farm.text(result.stderr_digest.as_ref()), "said\n");
    assert_eq!(result.stdout_digest, Some(Digest::empty(FUNCTION).to_proto()));
    let times = result.execution_metadata.unwrap();
    let order = [
        times.queued_timestamp,
        times.worker_start_timestamp,
        times.input_fetch_start_timestamp,
        times.input_fetch_completed_timestamp,
        times.execution_start_timestamp,
        times.execution_completed_timestamp,
        times.output_upload_start_timestamp,
        times.output_upload_completed_timestamp,
        times.worker_completed_timestamp,
    ];
    let order = order.map(|time| time.map(|time| (time.seconds, time.nanos)).expect("every time is set"));
    assert!(order.is_sorted(), "{order:?}");
    assert!(times.virtual_execution_duration.is_some() && times.worker == "tester");
    let facts: ExecutionFacts = times.auxiliary_metadata[0].to_msg().unwrap();
    assert_eq!(facts.sandbox, farm.session.hello.sandbox);
    // A compiler takes some of both.
    let processor =
        [facts.user_time, facts.system_time].map(|time| Duration::try_from(time.unwrap()).unwrap());
    assert!(processor.iter().sum::<Duration>() > Duration::ZERO, "{facts:?}");
    assert!(
        facts.memory_bytes_max > 1 << 20 && outcome.memory_bytes_max == facts.memory_bytes_max,
        "{facts:?}"
    );
    assert!(facts.layout_time.is_some());
    // Two files in two folders; and what is fetched are those files and the three folders' lists.
    assert_eq!(
        (facts.input_entries, facts.input_entries_made),
        (4, 5),
        "one folder more is made for the output"
    );
    assert_eq!(facts.fetched_blobs, 5);
    let fetched: u64 = inputs.iter().map(|(_, text)| text.len() as u64).sum();
    assert!(facts.fetched_bytes > fetched, "{facts:?}");
    let uploaded =
        [object.digest.as_ref(), result.stderr_digest.as_ref()].map(|digest| digest.unwrap().size_bytes);
    assert_eq!(facts.uploaded_blobs, 2);
    assert_eq!(i64::try_from(facts.uploaded_bytes), Ok(uploaded.iter().sum()));
}

#[tokio::test]
async fn what_a_worker_is_stands_in_its_hello() {
    let Some(farm) = Farm::set().await else { return };
    let hello = &farm.session.hello;
    assert_eq!((hello.slots, hello.name.as_str()), (2, "tester"));
    assert!(matches!(hello.sandbox.as_str(), "full" | "namespaces"), "{}", hello.sandbox);
    assert!(hello.worker_id.len() == 32 && hello.running.is_empty());
    let properties: Vec<_> =
        hello.properties.iter().map(|own| format!("{}={}", own.name, own.value)).collect();
    assert!(properties[2].starts_with("memory=") && hello.action_memory_bytes > 0, "{properties:?}");
    let others = [&properties[1..2], &properties[3..]].concat();
    assert_eq!(others, ["OSFamily=linux", "network=off", "root=inputs", "root=worker"]);
}

#[tokio::test]
async fn a_worker_that_may_give_the_network_offers_it_and_gives_it_to_who_asks() {
    let Some(mut farm) = Farm::set_with(|config| config.allows_network = true).await else { return };
    let offered = |farm: &Farm, value| {
        farm.session.hello.properties.iter().any(|own| own.name == "network" && own.value == value)
    };
    assert!(offered(&farm, "on") && offered(&farm, "off"));
    // The machine's interfaces against a loopback of its own.
    let script = "tail -n +3 /proc/self/net/dev | wc -l";
    let here = std::fs::read_to_string("/proc/self/net/dev").unwrap().lines().count() - 2;
    for (id, properties, interfaces) in [("1", &[("network", "on")][..], here), ("2", &[][..], 1)] {
        let lease = lease(&farm.scheduler, id, &[], script, &[], properties);
        let result = farm.run(lease).await.result.unwrap();
        assert_eq!(farm.text(result.stdout_digest.as_ref()).trim(), interfaces.to_string(), "{properties:?}");
    }
}

#[tokio::test]
async fn an_action_that_runs_out_of_memory_says_so_apart_from_its_exit_code() {
    let bounds = Bounds { memory_bytes: 128 << 20, ..Bounds::for_this_machine(2) };
    let Some(mut farm) = Farm::set_with(|config| config.bounds = Some(bounds)).await else { return };
    // All of it is one line, which is kept until its end.
    let outcome =
        farm.run(farm.lease("1", &[], "head -c 600000000 /dev/zero | tail -n 1 | wc -c", &[])).await;
    assert!(outcome.out_of_memory, "{:?}", outcome.status);
    assert_eq!((code(&outcome).0, outcome.result.unwrap().exit_code), (rpc::Code::Ok, 137));
    let outcome = farm.run(farm.lease("2", &[], "kill -9 $$", &[])).await;
    assert!(!outcome.out_of_memory);
}

#[tokio::test]
async fn a_worker_whose_disk_fails_says_so_by_itself_and_when_it_works_again() {
    let soon = Duration::from_millis(60);
    let Some(mut farm) = Farm::set_with(|config| config.trial_every = soon).await else { return };
    let first = farm.session.condition().await;
    assert!(
        first.unfit.is_empty() && first.cache_bytes_max > 0 && first.cache_horizon.is_none(),
        "{first:?}"
    );
    let actions = farm.folder.path().join("data/stage/actions");
    std::fs::rename(&actions, actions.with_extension("away")).unwrap();
    while farm.session.condition().await.unfit.is_empty() {}
    std::fs::rename(actions.with_extension("away"), &actions).unwrap();
    while !farm.session.condition().await.unfit.is_empty() {}
    let outcome = farm.run(farm.lease("1", &[], "true", &[])).await;
    assert_eq!(code(&outcome).0, rpc::Code::Ok);
}

#[tokio::test]
async fn missing_inputs_are_named_each_by_itself() {
    let Some(mut farm) = Farm::set().await else { return };
    let lease = farm.lease("1", &[("a", "one"), ("d/b", "two"), ("c", "three")], "true", &[]);
    let gone = [b"one".as_slice(), b"two"].map(|data| Digest::of(FUNCTION, data));
    for digest in &gone {
        farm.scheduler.blobs.remove(digest);
    }
    let outcome = farm.run(lease).await;
    assert_eq!(code(&outcome).0, rpc::Code::FailedPrecondition);
    let failure: rpc::PreconditionFailure = outcome.status.unwrap().details[0].to_msg().unwrap();
    let mut subjects: Vec<_> = failure.violations.into_iter().map(|violation| violation.subject).collect();
    subjects.sort();
    let mut expected = gone.map(|digest| format!("blobs/{digest}"));
    expected.sort();
    assert_eq!(subjects, expected);
}

#[tokio::test]
async fn a_timeout_is_told_as_one_and_what_was_said_is_uploaded() {
    let Some(mut farm) = Farm::set().await else { return };
    let mut lease = farm.lease("1", &[], "echo begun; sleep 1000", &["x"]);
    lease.timeout = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
    let outcome = farm.run(lease).await;
    assert_eq!(code(&outcome), (rpc::Code::DeadlineExceeded, "execution timeout exceeded"));
    assert_eq!(farm.text(outcome.result.unwrap().stdout_digest.as_ref()), "begun\n");
}

#[tokio::test]
async fn failing_and_being_killed_are_results() {
    let Some(mut farm) = Farm::set().await else { return };
    let failed = farm.run(farm.lease("1", &[], "echo x > out; exit 3", &["out"])).await;
    let result = failed.result.as_ref().unwrap();
    assert_eq!((code(&failed).0, result.exit_code, result.output_files.len()), (rpc::Code::Ok, 3, 1));
    let killed = farm.run(farm.lease("2", &[], "kill -11 $$", &[])).await;
    assert_eq!(code(&killed), (rpc::Code::Ok, "the command was killed by signal 11"));
    assert_eq!(killed.result.unwrap().exit_code, 139);
}

#[tokio::test]
async fn an_output_that_is_none_is_refused_with_its_path_and_what_was_said_is_kept() {
    let Some(mut farm) = Farm::set().await else { return };
    let outcome = farm.run(farm.lease("1", &[], "echo said; mkdir d; mkfifo d/fifo", &["d"])).await;
    let text = "output `d/fifo` is a FIFO, which can't be an output";
    assert_eq!(code(&outcome), (rpc::Code::FailedPrecondition, text));
    assert_eq!(farm.text(outcome.result.unwrap().stdout_digest.as_ref()), "said\n");
}

#[tokio::test]
async fn large_inputs_and_outputs_travel_as_streams_and_directories_as_trees() {
    let Some(mut farm) = Farm::set().await else { return };
    let large = "0123456789".repeat(300_000);
    let script = "mkdir -p d/e; cat large large > d/e/twice; ln -s e/twice d/link; head -c 3000000 /dev/zero";
    let outcome = farm.run(farm.lease("1", &[("large", large.as_str())], script, &["d"])).await;
    let result = outcome.result.unwrap();
    assert_eq!(farm.scheduler.get(result.stdout_digest.as_ref()).len(), 3_000_000);
    let tree = farm.scheduler.get(result.output_directories[0].tree_digest.as_ref());
    let tree = TreeReader::from_bytes(&tree.into(), FUNCTION, &Limits::default()).unwrap();
    let tree = tree.to_flat(&Limits::default()).unwrap();
    let paths: Vec<_> = tree.entries().map(|entry| entry.path).collect();
    assert_eq!(paths, ["link", "e", "e/twice"]);
    let twice = Digest::of(FUNCTION, (large.clone() + &large).as_bytes());
    assert!(farm.scheduler.blobs.get_bytes(&twice).is_some());
}

#[tokio::test]
async fn a_blob_that_two_actions_want_at_once_is_fetched_once_and_then_no_more() {
    let Some(mut farm) = Farm::set().await else { return };
    let input = [("shared", "the same content")];
    for lease in
        [farm.lease("1", &input, "cat shared", &[]), farm.lease("2", &input, "cat shared; true", &[])]
    {
        farm.session.say(Says::Lease(lease)).await;
    }
    for _ in 0..2 {
        let (outcome, _) = farm.session.outcome().await;
        assert_eq!(code(&outcome).0, rpc::Code::Ok);
        farm.session.keep(&outcome.lease_id).await;
    }
    farm.run(farm.lease("3", &input, "cat shared; true; true", &[])).await;
    let digest = Digest::of(FUNCTION, b"the same content");
    assert_eq!(farm.scheduler.reads.lock().unwrap()[&digest], 1);
}

#[tokio::test]
async fn a_compiler_that_is_not_the_clients_is_not_used() {
    let Some(mut farm) = Farm::set().await else { return };
    let own = Digest::of(FUNCTION, &std::fs::read("/bin/sh").unwrap());
    let other = Digest::of(FUNCTION, b"another shell");
    for (id, digest, expected) in [("1", own, rpc::Code::Ok), ("2", other, rpc::Code::FailedPrecondition)] {
        let value = format!("/bin/sh={digest}");
        let lease = lease(&farm.scheduler, id, &[], "true", &[], &[("host-file", &value)]);
        let outcome = farm.run(lease).await;
        assert_eq!(code(&outcome).0, expected, "{}", code(&outcome).1);
    }
}

#[tokio::test]
async fn a_lost_connection_keeps_what_runs_and_repeats_what_nobody_confirmed() {
    let Some(mut farm) = Farm::set().await else { return };
    farm.session.say(Says::Lease(farm.lease("done", &[], "true", &[]))).await;
    let (outcome, _) = farm.session.outcome().await;
    assert_eq!(outcome.lease_id, "done");
    farm.session.say(Says::Lease(farm.lease("runs", &[], "until [ -e /tmp/x ]; do :; done", &[]))).await;
    while !matches!(farm.session.hear().await, Some(Heard::Progress(progress)) if progress.stage == 2) {}
    // Dropping it ends the stream.
    farm.session = farm.scheduler.session_after(farm.session).await;
    let running: Vec<_> = farm.session.hello.running.iter().map(|lease| lease.lease_id.as_str()).collect();
    assert_eq!(running, ["done", "runs"]);
    let (again, stages) = farm.session.outcome().await;
    assert_eq!(again, outcome);
    assert_eq!(stages, [2], "the scheduler bounds the command that runs");
    farm.session.keep("done").await;
    let cancel = CancelLease { lease_id: "runs".to_owned(), reason: String::new() };
    farm.session.say(Says::CancelLease(cancel)).await;
    // Both slots are free again, and of neither lease anything is said any more.
    for id in ["3", "4"] {
        assert_eq!(code(&farm.run(farm.lease(id, &[], "true", &[])).await).0, rpc::Code::Ok);
    }
    farm.session = farm.scheduler.session_after(farm.session).await;
    assert!(farm.session.hello.running.is_empty());
}

#[tokio::test]
async fn inputs_of_an_action_that_waits_for_another_are_laid_out_meanwhile() {
    let Some(mut farm) = Farm::set_with(|config| (config.slots, config.ahead) = (1, 1)).await else { return };
    assert_eq!(farm.session.hello.slots, 2, "the scheduler gives it both");
    farm.session.say(Says::Lease(farm.lease("runs", &[], "until [ -e /tmp/x ]; do :; done", &[]))).await;
    while !matches!(farm.session.hear().await, Some(Heard::Progress(progress)) if progress.stage == 2) {}
    farm.session.say(Says::Lease(farm.lease("waits", &[("fetched", "x")], "cat fetched", &[]))).await;
    let stage = farm.folder.path().join("data/stage/actions");
    let is_laid_out = || {
        let folders = std::fs::read_dir(&stage).unwrap().filter_map(Result::ok);
        folders.into_iter().any(|folder| folder.path().join("inputs/fetched").exists())
    };
    common::wait_until(is_laid_out, "the inputs are there").await;
    let before = SystemTime::now();
    farm.session
        .say(Says::CancelLease(CancelLease { lease_id: "runs".to_owned(), reason: String::new() }))
        .await;
    let (outcome, _) = farm.session.outcome().await;
    assert_eq!((outcome.lease_id.as_str(), code(&outcome)), ("waits", (rpc::Code::Ok, "")));
    let result = outcome.result.unwrap();
    assert_eq!(farm.text(result.stdout_digest.as_ref()), "x");
    let begun = result.execution_metadata.unwrap().execution_start_timestamp.unwrap();
    assert!(SystemTime::try_from(begun).unwrap() >= before, "no two commands run at once");
}

#[tokio::test]
async fn a_draining_worker_finishes_what_runs_takes_nothing_new_and_ends() {
    let Some(mut farm) = Farm::set().await else { return };
    farm.session.say(Says::Lease(farm.lease("1", &[], "sleep 0.5; echo done", &[]))).await;
    while !matches!(farm.session.hear().await, Some(Heard::Progress(progress)) if progress.stage == 2) {}
    farm.stop.drain.cancel();
    let said = farm.session.hear().await;
    assert!(matches!(said, Some(Heard::Draining(_))), "{said:?}");
    farm.session.say(Says::Lease(farm.lease("2", &[], "true", &[]))).await;
    let (refused, _) = farm.session.outcome().await;
    assert_eq!((refused.lease_id.as_str(), code(&refused).0), ("2", rpc::Code::Unavailable));
    let (outcome, _) = farm.session.outcome().await;
    assert_eq!((outcome.lease_id.as_str(), code(&outcome).0), ("1", rpc::Code::Ok));
    farm.session.keep("1").await;
    farm.worker.await.unwrap().unwrap();
    let left = std::fs::read_dir(farm.folder.path().join("data/stage/actions")).unwrap().count();
    assert!(left <= 1, "a folder may still be on its way out, two can't");
}

#[tokio::test]
async fn a_worker_that_has_to_end_now_kills_what_runs() {
    let Some(farm) = Farm::set().await else { return };
    let mut farm = farm;
    let name = format!("castwork-now-{}", std::process::id());
    let script = format!("cp /bin/sleep {name}; ./{name} 1000");
    farm.session.say(Says::Lease(farm.lease("1", &[], &script, &[]))).await;
    while !matches!(farm.session.hear().await, Some(Heard::Progress(progress)) if progress.stage == 2) {}
    farm.stop.now.cancel();
    farm.worker.await.unwrap().unwrap();
    assert_eq!(common::processes_named(&name), 0);
}

#[tokio::test]
async fn a_second_worker_on_one_folder_is_refused() {
    let Some(farm) = Farm::set().await else { return };
    let second = castwork_worker::run(config(&farm.scheduler, &farm.folder), Stop::default()).await;
    assert!(matches!(second, Err(WorkerError::DataDir(_))));
}

#[tokio::test]
async fn without_a_sandbox_commands_run_as_well_and_the_hello_says_so() {
    let mut scheduler = Scheduler::start().await;
    let folder = TempDir::new().unwrap();
    let mut config = config(&scheduler, &folder);
    config.sandbox = SandboxChoice::None;
    let stop = Stop::default();
    let worker = tokio::spawn(castwork_worker::run(config, stop.clone()));
    let mut session = scheduler.session().await;
    assert_eq!(session.hello.sandbox, "none");
    let script = "cat in > d/out; echo $PATH; sleep 1000 >/dev/null 2>&1 & exit 5";
    session.say(Says::Lease(lease(&scheduler, "1", &[("in", "x")], script, &["d/out"], &[]))).await;
    let (outcome, _) = session.outcome().await;
    let result = outcome.result.unwrap();
    assert_eq!((result.exit_code, result.output_files.len()), (5, 1));
    assert_eq!(scheduler.get(result.stdout_digest.as_ref()), b"/usr/bin:/bin\n");
    session.keep("1").await;
    stop.drain.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn of_a_worker_that_is_killed_nothing_is_left_after_the_next_start() {
    if common::Stage::set().await.is_none() {
        return;
    }
    let mut scheduler = Scheduler::start().await;
    let folder = TempDir::new().unwrap();
    let address = scheduler.address.clone();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_castwork-worker"))
            .args(["--scheduler", &address, "--slots", "1"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut first = start();
    let name = format!("castwork-orphan-{}", std::process::id());
    let script = format!("mkdir -m 0 closed; cp /bin/sleep {name}; setsid ./{name} 1000 & ./{name} 1000");
    let session = scheduler.session().await;
    let id = session.hello.worker_id.clone();
    session.say(Says::Lease(lease(&scheduler, "1", &[("in", "x")], &script, &[], &[]))).await;
    while common::processes_named(&name) < 2 {
        tokio::task::yield_now().await;
    }
    let groups = common::held::group_names(&common::held::keepers_of(first.id()));
    first.kill().unwrap();
    first.wait().unwrap();
    while common::processes_named(&name) > 0 {
        tokio::task::yield_now().await;
    }
    let mut second = start();
    let mut session = scheduler.session().await;
    assert_eq!(session.hello.worker_id, id);
    assert_eq!(std::fs::read_dir(folder.path().join("data/stage/actions")).unwrap().count(), 0);
    session.say(Says::Lease(lease(&scheduler, "2", &[("in", "x")], "cat in", &[], &[]))).await;
    assert_eq!(code(&session.outcome().await.0).0, rpc::Code::Ok);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(second.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    session.keep("2").await;
    assert!(tokio::task::spawn_blocking(move || second.wait().unwrap()).await.unwrap().success());
    assert_eq!(common::held::groups(&groups), 0, "no control group of either is left");
    assert_eq!(common::held::mounts(folder.path()), 0);
}

/// Starts the program in a user namespace of its own, after `before` was done there.
fn start_after(before: &str, arguments: &[&str], data_dir: &std::path::Path) -> std::process::Child {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
        .arg(format!("{before}\nexec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_castwork-worker"), "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_machine_without_namespaces_is_refused_with_reason_and_hint() {
    if common::Stage::set().await.is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
    let child = start_after(forbid, &["--scheduler", "grpc://127.0.0.1:1"], folder.path());
    let done = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success());
    // There, root is the machine's own root, and has nobody else to run actions as.
    let reason = if nix::unistd::geteuid().is_root() { "user id 60600" } else { "make namespaces" };
    for part in [reason, "hint: ", "--sandbox none"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn where_no_overlay_can_be_had_inputs_are_copied() {
    if common::Stage::set().await.is_none() {
        return;
    }
    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: what is root in a user namespace must not be the machine's own root");
        return;
    }
    let mut scheduler = Scheduler::start().await;
    let folder = TempDir::new().unwrap();
    for name in ["lower", "upper", "work", "data"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    // An overlay can't have its upper layer on another overlay.
    let mount = format!(
        "cd '{}'; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr data",
        folder.path().display()
    );
    let mut child = start_after(&mount, &["--scheduler", &scheduler.address], &folder.path().join("data"));
    let mut session = scheduler.session().await;
    let script = "chmod u+w in && echo more >> in && cat in";
    for id in ["1", "2"] {
        session.say(Says::Lease(lease(&scheduler, id, &[("in", "input\n")], script, &["in"], &[]))).await;
        let (outcome, _) = session.outcome().await;
        let result = outcome.result.unwrap();
        assert_eq!(scheduler.get(result.stdout_digest.as_ref()), b"input\nmore\n");
        assert_eq!(scheduler.get(result.output_files[0].digest.as_ref()), b"input\nmore\n");
        session.keep(id).await;
    }
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap().stderr;
    assert!(String::from_utf8_lossy(&said).contains("inputs are copied"));
}

#[test]
fn all_of_it_holds_for_a_user_without_privileges() {
    common::run_again_unprivileged("all_of_it_holds_for_a_user_without_privileges");
}
