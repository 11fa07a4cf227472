//! Actions that are wrong, fail, or take too long.

use castwork_cas::Digest;
use castwork_proto::reapi::{
    Directory, DirectoryNode, ExecutionPolicy, FileNode, GetActionResultRequest, SymlinkNode,
};
use castwork_proto::rpc;
use prost::Message as _;
use prost_types::Duration;
use tonic::Code;

use crate::jobs::{Ended, Job, execute, stdout};
use crate::support::{SHA256, Server};

/// A directory with a file for each digest.
pub(crate) fn directory_of(digests: impl Iterator<Item = Digest>) -> Vec<u8> {
    let node = |(number, digest): (usize, Digest)| file(&format!("{number:06}"), &digest);
    Directory { files: digests.enumerate().map(node).collect(), ..Default::default() }.encode_to_vec()
}

fn file(name: &str, digest: &Digest) -> FileNode {
    FileNode { name: name.to_owned(), digest: Some(digest.to_proto()), ..Default::default() }
}

/// The blobs that a failed precondition names, sorted.
pub(crate) fn violations(ended: &Ended) -> Vec<String> {
    let status = ended.response.status.as_ref().unwrap();
    assert_eq!(status.details.len(), 1, "some clients take no more than one");
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
    let failure: rpc::PreconditionFailure = status.details[0].to_msg().unwrap();
    assert!(failure.violations.iter().all(|it| it.r#type == "MISSING"));
    let mut subjects: Vec<String> = failure.violations.into_iter().map(|it| it.subject).collect();
    subjects.sort();
    subjects
}

#[tokio::test]
async fn what_is_no_action_is_refused() {
    // [59]
    let Some(server) = Server::with_a_worker("malformed actions").await else { return };
    let empty = Digest::empty(SHA256);
    let names = |names: &[&str]| Directory {
        files: names.iter().map(|name| file(name, &empty)).collect(),
        ..Default::default()
    };
    for directory in [
        names(&[".."]),
        names(&["."]),
        names(&[""]),
        names(&["a/b"]),
        names(&["b", "a"]),
        names(&["a", "a"]),
        Directory {
            directories: vec![DirectoryNode { name: "a".to_owned(), digest: Some(empty.to_proto()) }],
            ..names(&["a"])
        },
    ] {
        let job = Job { root: directory.encode_to_vec(), ..Job::shell("true") };
        assert_eq!(job.run(&server).await.code(), Code::InvalidArgument, "{directory:?}");
    }
    let mut nothing = Job::shell("true");
    nothing.command.arguments.clear();
    assert_eq!(nothing.run(&server).await.code(), Code::InvalidArgument);
    let garbage = server.put(vec![0xff; 30]).await;
    let ended = execute(&server, &garbage, |_| ()).await.unwrap().end().await;
    assert_eq!(ended.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_link_out_of_the_inputs_is_refused() {
    // [71]
    let Some(server) = Server::with_a_worker("absolute links").await else { return };
    let link = SymlinkNode { name: "a".to_owned(), target: "/etc/passwd".to_owned(), ..Default::default() };
    let root = Directory { symlinks: vec![link], ..Default::default() };
    let job = Job { root: root.encode_to_vec(), ..Job::shell("cat a") };
    assert_eq!(job.run(&server).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_command_that_fails_is_a_result_that_is_not_kept() {
    // [63]
    let Some(server) = Server::with_a_worker("failing commands").await else { return };
    for (script, expected) in [("echo said; exit 7", 7), ("echo said; kill -9 $$", 128 + 9)] {
        let job = Job::shell(script);
        let result = job.succeed(&server).await;
        assert_eq!((result.exit_code, stdout(&server, &result).await), (expected, "said\n".to_owned()));
        let action_digest = Some(job.upload(&server).await.to_proto());
        let request = GetActionResultRequest { action_digest, ..Default::default() };
        let status = server.results().get_action_result(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    let mut nowhere = Job::shell("");
    nowhere.command.arguments = vec!["there-is-no-such-program".to_owned()];
    let ended = nowhere.run(&server).await;
    let is_said = ended.code() == Code::FailedPrecondition
        || ended.code() == Code::Ok && ended.response.result.as_ref().unwrap().exit_code == 127;
    assert!(is_said, "{:?}", ended.response);
}

#[tokio::test]
async fn a_command_may_not_take_longer_than_its_action_says() {
    // [62]
    let Some(server) = Server::with_a_worker("timeouts").await else { return };
    let mut job = Job::shell("echo begun; sleep 600");
    job.action.timeout = Some(Duration { seconds: 1, nanos: 0 });
    let ended = job.run(&server).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert!(ended.message().contains("execution timeout exceeded"), "some clients look for it");
    if let Some(result) = &ended.response.result {
        assert_eq!(stdout(&server, result).await, "begun\n");
    }
    let request = GetActionResultRequest {
        action_digest: Some(job.upload(&server).await.to_proto()),
        ..Default::default()
    };
    assert_eq!(server.results().get_action_result(request).await.unwrap_err().code(), Code::NotFound);
    job.action.timeout = Some(Duration { seconds: 1 << 40, nanos: 0 });
    assert_eq!(job.run(&server).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_priority_is_taken_or_bounded() {
    // [74]
    let Some(server) = Server::with_a_worker("priorities").await else { return };
    let action = Job::shell("true").upload(&server).await;
    for priority in [-1, 0, 1] {
        let policy = |it: &mut castwork_proto::reapi::ExecuteRequest| {
            it.execution_policy = Some(ExecutionPolicy { priority });
        };
        let ended = execute(&server, &action, policy).await.unwrap().end().await;
        assert_eq!(ended.code(), Code::Ok, "{priority}");
    }
}
