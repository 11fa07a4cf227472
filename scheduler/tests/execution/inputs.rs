//! Requests that are refused, and how the client learns what is wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use castwork_cas::Digest;
use castwork_cas::merkle::TreeBuilder;
use castwork_proto::reapi::{self, Action, Command, Directory, FileNode};
use castwork_proto::rpc::{self, PreconditionFailure};
use prost::Message as _;
use tonic::Code;

use crate::support::{FUNCTION, Farm, limits, patient, platform};

/// The blobs that a refusal names as missing.
fn missing(status: &rpc::Status) -> BTreeSet<String> {
    assert_eq!(status.code, Code::FailedPrecondition as i32, "{}", status.message);
    let [detail] = &status.details[..] else { panic!("exactly one detail: {status:?}") };
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
    let failure: PreconditionFailure = detail.to_msg().unwrap();
    assert!(failure.violations.iter().all(|violation| violation.r#type == "MISSING"));
    failure.violations.into_iter().map(|violation| violation.subject).collect()
}

fn subjects<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> BTreeSet<String> {
    digests.into_iter().map(|digest| format!("blobs/{digest}")).collect()
}

#[tokio::test]
async fn all_missing_blobs_are_named_at_once_and_once_uploaded_the_action_runs() {
    // [58]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let mut tree = TreeBuilder::new();
    let contents: Vec<String> = (0..150).map(|number| format!("file {number}")).collect();
    for (number, content) in contents.iter().enumerate() {
        let digest = Digest::of(FUNCTION, content.as_bytes());
        tree.add_file(&format!("src/{number:03}"), digest, false).unwrap();
    }
    let built = tree.build(FUNCTION);
    let command = Command { arguments: vec!["cc".to_owned()], ..Default::default() }.encode_to_vec();
    let command_digest = Digest::of(FUNCTION, &command);
    let action = Action {
        command_digest: Some(command_digest.to_proto()),
        input_root_digest: Some(built.root.to_proto()),
        ..Default::default()
    };
    let action_digest = Digest::of(FUNCTION, &action.encode_to_vec());

    let status = farm.execute(action_digest).await.status().await;
    assert_eq!(missing(&status), subjects([&action_digest]));
    farm.put(action.encode_to_vec()).await;
    let status = farm.execute(action_digest).await.status().await;
    assert_eq!(missing(&status), subjects([&command_digest, &built.root]));

    for (_, data) in &built.directories {
        farm.put(data.clone()).await;
    }
    let files: Vec<_> = contents.iter().map(|content| Digest::of(FUNCTION, content.as_bytes())).collect();
    let status = farm.execute(action_digest).await.status().await;
    assert_eq!(missing(&status), subjects(files.iter().chain([&command_digest])));

    farm.put(command).await;
    for content in contents {
        farm.put(content).await;
    }
    let execution = farm.execute(action_digest).await;
    worker.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn a_request_without_a_digest_or_of_an_unknown_instance_has_no_operation() {
    // [60]
    let farm = Farm::start(limits()).await;
    let action = farm.action("").await;
    let code = |answer: Result<_, tonic::Status>| answer.map(|_| ()).unwrap_err().code();
    let none = farm.execute_with(action, |request| request.action_digest = None).await;
    assert_eq!(code(none), Code::InvalidArgument);
    let garbage = reapi::Digest { hash: "../../x".to_owned(), size_bytes: 1 };
    let garbage = farm.execute_with(action, |request| request.action_digest = Some(garbage)).await;
    assert_eq!(code(garbage), Code::InvalidArgument);
    let nowhere = farm.execute_with(action, |request| request.instance_name = "nowhere".to_owned()).await;
    assert_eq!(code(nowhere), Code::InvalidArgument);
    let unknown = farm.execute_with(action, |request| request.digest_function = 99).await;
    assert_eq!(code(unknown), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_malformed_is_the_clients_fault() {
    // [59]
    let farm = Farm::start(limits()).await;
    let refused = async |action: Digest| {
        let status = farm.execute(action).await.status().await;
        assert_eq!(status.code, Code::InvalidArgument as i32, "{}", status.message);
        status.message
    };
    refused(farm.put("\u{ff}no action").await).await;
    refused(farm.put("").await).await;
    refused(farm.action_with("1", |_, command| command.arguments.clear()).await).await;
    refused(farm.action_with("2", |_, command| command.output_paths.push("../x".to_owned())).await).await;
    let far = Some(prost_types::Duration { seconds: 90_000, nanos: 0 });
    let message = refused(farm.action_with("3", |action, _| action.timeout = far).await).await;
    assert!(message.contains("90000"), "[62] {message}");
    let node = |name: &str| FileNode {
        name: name.to_owned(),
        digest: Some(Digest::empty(FUNCTION).to_proto()),
        ..Default::default()
    };
    for names in [&["b", "a"][..], &["a", "a"], &[".."], &[""], &["a/b"]] {
        let directory =
            Directory { files: names.iter().map(|name| node(name)).collect(), ..Default::default() };
        let root = farm.put(directory.encode_to_vec()).await.to_proto();
        refused(farm.action_with("4", |action, _| action.input_root_digest = Some(root)).await).await;
    }
}

#[tokio::test]
async fn an_action_that_nobody_can_run_is_refused_by_the_nearest_worker() {
    // [61]
    let farm = Farm::start(limits()).await;
    let action =
        farm.action_with("", |action, _| action.platform = Some(platform(&[("ISA", "arm-a64")]))).await;
    let status = farm.execute(action).await.status().await;
    assert_eq!((status.code, &*status.message), (Code::FailedPrecondition as i32, "no worker has attached"));

    let mut worker = farm.worker("w1").await;
    let status = farm.execute(action).await.status().await;
    assert_eq!(status.code, Code::FailedPrecondition as i32);
    assert_eq!(status.message, "no worker offers ISA=arm-a64; nearest is `w1`, which has ISA=x86-64");
    assert!(status.details.is_empty(), "nothing is missing");

    let old = farm.action_with("", |_, command| set_platform(command, &[("ISA", "x86-64")])).await;
    let execution = farm.execute(old).await;
    worker.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn inputs_that_are_a_file_system_want_a_worker_that_makes_them_the_root() {
    let farm = Farm::start(limits()).await;
    let _worker = farm.worker("w1").await;
    let mut tree = TreeBuilder::new();
    tree.add_file("bin/sh", farm.put("a shell").await, true).unwrap();
    let built = tree.build(FUNCTION);
    for (_, data) in &built.directories {
        farm.put(data.clone()).await;
    }
    let root = Some(built.root.to_proto());
    let action = farm.action_with("", |action, _| action.input_root_digest = root).await;
    let status = farm.execute(action).await.status().await;
    let expected = "no worker offers root=inputs; nearest is `w1`, which has no property `root`; hint: ";
    assert!(status.message.starts_with(expected), "{}", status.message);
}

// As clients of before REAPI 2.2 do.
#[allow(deprecated)]
fn set_platform(command: &mut Command, pairs: &[(&str, &str)]) {
    command.platform = Some(platform(pairs));
}

#[tokio::test]
async fn an_action_waits_for_a_worker_that_may_be_on_its_way() {
    // [61]
    let farm = Farm::start(patient()).await;
    let mut execution = farm.execute(farm.action("").await).await;
    execution.reach(reapi::execution_stage::Value::Queued).await;
    farm.worker("w1").await.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn an_action_waits_for_the_kind_of_worker_that_was_there_a_moment_ago() {
    let mut limits = limits();
    limits.queue.return_grace = Duration::from_secs(3_600);
    let farm = Farm::start(limits).await;
    drop(farm.worker("w1").await);
    farm.until(|counts| counts.workers.is_empty()).await;
    let execution = farm.execute(farm.action("").await).await;
    farm.until(|counts| counts.queued == 1).await;
    farm.worker("w1").await.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn what_is_too_much_is_refused_by_name() {
    let mut limits = patient();
    limits.queue.operations_max = 1;
    let farm = Farm::start(limits).await;
    let _first = farm.execute(farm.action("1").await).await;
    let refusal = farm.execute_with(farm.action("2").await, |_| ()).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("operations"), "{}", refusal.message());
}
