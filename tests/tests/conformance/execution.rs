//! When an action is run, and when it is not.

use castwork_cas::Digest;
use castwork_proto::longrunning::{CancelOperationRequest, GetOperationRequest};
use castwork_proto::reapi::{ExecuteRequest, GetActionResultRequest, WaitExecutionRequest, execution_client};
use castwork_proto::worker::ExecutionFacts;
use futures::future::join_all;
use tonic::Code;

use crate::jobs::{Ended, Job, execute, operations, stdout, wait};
use crate::support::{SHA256, Server, noise};

/// Says something else each time that it is run.
const CHANCE: &str = "date +%s%N";

async fn is_cached(server: &Server, action: &Digest) -> bool {
    let request = GetActionResultRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    match server.results().get_action_result(request).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound);
            false
        }
    }
}

#[tokio::test]
async fn an_action_is_run_and_then_answered_from_the_cache() {
    // [57]
    let Some(server) = Server::with_a_worker("an action").await else { return };
    let job = Job::shell(CHANCE);
    let first = job.run(&server).await;
    assert_eq!((first.code(), first.response.cached_result), (Code::Ok, false), "{:?}", first.response);
    let result = first.response.result.unwrap();
    let times = result.execution_metadata.clone().expect("some clients need it");
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
    let order: Vec<(i64, i32)> = order.map(|time| time.map(|it| (it.seconds, it.nanos)).unwrap()).to_vec();
    assert!(order.is_sorted(), "{order:?}");
    let second = job.run(&server).await;
    assert!(second.response.cached_result);
    assert_eq!(stdout(&server, &second.response.result.unwrap()).await, stdout(&server, &result).await);
    let again = execute(&server, &job.upload(&server).await, |it| it.skip_cache_lookup = true).await.unwrap();
    let again = again.end().await.response;
    assert!(!again.cached_result);
    let other = stdout(&server, &again.result.unwrap()).await;
    assert_ne!(other, stdout(&server, &result).await, "[64] it was run again");
    let third = job.succeed(&server).await;
    assert_eq!(stdout(&server, &third).await, other, "[64] and that is the result now");
}

#[tokio::test]
async fn a_result_says_who_made_it_how_confined_and_what_it_took() {
    let test = "the facts of a run";
    let Some(server) = Server::with_a_worker(test).await else { return };
    if server.farm(test).is_none() {
        return;
    }
    let input = noise(1, 1000);
    let mut job = Job::shell("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; cat 000000 000000 >out");
    job.root = crate::actions::directory_of(std::iter::once(Digest::of(SHA256, &input)));
    server.put(input).await;
    let job = job.with_outputs(&["out"]);
    let made = job.succeed(&server).await.execution_metadata.unwrap();
    let facts: ExecutionFacts = made.auxiliary_metadata[0].to_msg().unwrap();
    assert!(!made.worker.is_empty());
    assert!(["full", "namespaces", "filters"].contains(&facts.sandbox.as_str()), "{facts:?}");
    let took = |time: Option<prost_types::Duration>| std::time::Duration::try_from(time.unwrap()).unwrap();
    assert!(took(facts.user_time) + took(facts.system_time) > std::time::Duration::ZERO, "{facts:?}");
    assert!(!took(facts.layout_time).is_zero() && !took(made.virtual_execution_duration).is_zero());
    assert!(facts.memory_bytes_max > 1 << 16, "{facts:?}");
    assert!((facts.fetched_blobs, facts.input_entries) >= (2, 1), "{facts:?}");
    assert!(facts.fetched_bytes > 1000, "{facts:?}");
    assert_eq!((facts.uploaded_blobs, facts.uploaded_bytes), (1, 2000));
    // And so it says later, to whoever takes it from the cache.
    let kept = job.run(&server).await.response;
    assert!(kept.cached_result);
    assert_eq!(kept.result.unwrap().execution_metadata, Some(made));
}

#[tokio::test]
async fn what_must_not_be_cached_is_run_each_time() {
    // [64]
    let Some(server) = Server::with_a_worker("do_not_cache").await else { return };
    let mut job = Job::shell(CHANCE);
    job.action.do_not_cache = true;
    let action = job.upload(&server).await;
    let runs = join_all((0..2).map(|_| job.succeed(&server))).await;
    assert_ne!(stdout(&server, &runs[0]).await, stdout(&server, &runs[1]).await);
    assert!(!is_cached(&server, &action).await);
}

#[tokio::test]
async fn many_who_want_the_same_get_one_run() {
    // [65]
    let Some(server) = Server::with_a_worker("equal actions").await else { return };
    let job = Job::shell(CHANCE);
    let action = job.upload(&server).await;
    let mut running = Vec::new();
    for _ in 0..100 {
        running.push(execute(&server, &action, |_| ()).await.unwrap());
    }
    // All but some leave.
    running.truncate(20);
    let mut said = Vec::new();
    for one in running {
        said.push(stdout(&server, &one.end().await.response.result.unwrap()).await);
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn whoever_left_can_come_back() {
    // [66], [68]
    let Some(server) = Server::with_a_worker("waiting again").await else { return };
    let action = Job::shell("echo done").upload(&server).await;
    let running = execute(&server, &action, |_| ()).await.unwrap();
    let name = running.name.clone();
    drop(running);
    let ended = wait(&server, &name).await.unwrap().end().await;
    assert_eq!(ended.code(), Code::Ok);
    let operation =
        operations(&server).get_operation(GetOperationRequest { name }).await.unwrap().into_inner();
    assert!(operation.done);
    assert_eq!(stdout(&server, &Ended::of(&operation).response.result.unwrap()).await, "done\n");
    for name in ["operations/00000000-0000-0000-0000-000000000000", "garbage", ""] {
        let request = WaitExecutionRequest { name: name.to_owned() };
        let mut client = execution_client::ExecutionClient::new(server.channel.clone());
        let code = client.wait_execution(request).await.map(drop).map_err(|status| status.code());
        assert_eq!(code, Err(Code::NotFound), "{name:?}");
    }
}

#[tokio::test]
async fn an_operation_that_is_cancelled_ends() {
    // [68]
    let Some(server) = Server::with_a_worker("cancelling").await else { return };
    let action = Job::shell("sleep 600").upload(&server).await;
    let running = execute(&server, &action, |_| ()).await.unwrap();
    let request = CancelOperationRequest { name: running.name.clone() };
    operations(&server).cancel_operation(request.clone()).await.unwrap();
    assert_eq!(running.end().await.code(), Code::Cancelled);
    operations(&server).cancel_operation(request).await.unwrap();
    assert!(!is_cached(&server, &action).await);
}

#[tokio::test]
async fn what_is_missing_is_named_in_the_operation_and_only_there() {
    // [58]
    let Some(server) = Server::with_a_worker("missing inputs").await else { return };
    let mut job = Job::shell("cat a");
    let inputs: Vec<_> = (0..150).map(|seed| noise(seed, 100)).collect();
    job.root = crate::actions::directory_of(inputs.iter().map(|data| Digest::of(SHA256, data)));
    let blobs = job.blobs();
    let action = Digest::of(SHA256, &blobs[2]);
    let missing = async |expected: Vec<Digest>| {
        let ended = execute(&server, &action, |_| ()).await.unwrap().end().await;
        assert_eq!(ended.code(), Code::FailedPrecondition, "{}", ended.message());
        let mut expected: Vec<String> = expected.iter().map(|digest| format!("blobs/{digest}")).collect();
        expected.sort();
        assert_eq!(crate::actions::violations(&ended), expected);
    };
    missing(vec![action]).await;
    server.put(blobs[2].clone()).await;
    missing(vec![Digest::of(SHA256, &blobs[0]), Digest::of(SHA256, &blobs[1])]).await;
    server.put(blobs[0].clone()).await;
    server.put(blobs[1].clone()).await;
    missing(inputs.iter().map(|data| Digest::of(SHA256, data)).collect()).await;
    for data in inputs {
        server.put(data).await;
    }
    let ended = execute(&server, &action, |_| ()).await.unwrap().end().await;
    assert_eq!(ended.code(), Code::Ok, "{}", ended.message());
}

#[tokio::test]
async fn a_request_without_an_action_is_refused_at_once() {
    // [60]
    let Some(server) = Server::with_a_worker("no action").await else { return };
    let mut client = execution_client::ExecutionClient::new(server.channel.clone());
    let status = client.execute(ExecuteRequest::default()).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
