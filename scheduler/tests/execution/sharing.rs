//! Which requests share a run, and which must not.

use castwork_proto::longrunning::CancelOperationRequest;
use castwork_proto::reapi::execution_stage::Value as Stage;
use futures::future::join_all;
use tonic::Code;

use crate::support::{Farm, Worker, hello, limits, patient, result};

#[tokio::test]
async fn a_hundred_equal_requests_share_one_run() {
    // [65]
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let executions = join_all((0..100).map(|_| farm.execute(action))).await;
    let mut worker = farm.worker("w1").await;
    worker.run_one(&farm).await;
    let responses = join_all(executions.into_iter().map(super::support::Execution::response)).await;
    assert_eq!(responses.len(), 100);
    assert!(responses.iter().all(|response| response.result.is_some() && !response.cached_result));
    let counts = farm.dispatch.stats().await.counts;
    assert_eq!((counts.tasks, counts.operations), (0, 0));
}

#[tokio::test]
async fn the_last_of_a_hundred_is_answered_though_the_others_cancel() {
    // [65]
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let mut executions = join_all((0..100).map(|_| farm.execute(action))).await;
    let last = executions.pop().unwrap();
    let mut worker = farm.worker("w1").await;
    let lease = worker.lease().await;
    for execution in executions {
        let request = CancelOperationRequest { name: execution.name.clone() };
        farm.operations().cancel_operation(request).await.unwrap();
        assert_eq!(execution.status().await.code, Code::Cancelled as i32);
    }
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(last.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn what_may_not_be_cached_may_not_be_shared_either() {
    // [64]
    let farm = Farm::start(patient()).await;
    let action = farm.action_with("", |action, _| action.do_not_cache = true).await;
    let executions = join_all((0..2).map(|_| farm.execute(action))).await;
    let mut worker =
        Worker::attach(&farm, castwork_proto::worker::Hello { slots: 2, ..hello("w1") }).await.unwrap();
    let leases = [worker.lease().await, worker.lease().await];
    assert_ne!(leases[0].lease_id, leases[1].lease_id);
    for lease in &leases {
        worker.finish(lease, result(0, farm.put("output").await)).await;
    }
    for execution in executions {
        assert_eq!(execution.status().await.code, Code::Ok as i32);
    }
    assert_eq!(farm.kept(action).await, None);
}

#[tokio::test]
async fn who_skips_the_cache_gets_a_new_run_whose_result_replaces_the_old() {
    // [64]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let execution = farm.execute(action).await;
    worker.run_one(&farm).await;
    execution.response().await;

    let execution = farm.execute_with(action, |request| request.skip_cache_lookup = true).await.unwrap();
    let lease = worker.lease().await;
    let newer = farm.put("newer output").await;
    worker.finish(&lease, result(0, newer)).await;
    let response = execution.response().await;
    assert!(!response.cached_result);
    assert_eq!(farm.kept(action).await.unwrap().output_files[0].digest, Some(newer.to_proto()));
}

#[tokio::test]
async fn who_skips_the_cache_may_share_a_run_that_nobody_has_seen_the_result_of() {
    // [64]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let first = farm.execute(action).await;
    let lease = worker.lease().await;
    let second = farm.execute_with(action, |request| request.skip_cache_lookup = true).await.unwrap();
    assert_eq!(super::support::stage_of(&second.first), Stage::Executing);
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert!(first.response().await.result.is_some());
    assert!(second.response().await.result.is_some());
}

#[tokio::test]
async fn equal_actions_of_two_instances_are_two() {
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let one = farm.execute(action).await;
    worker.run_one(&farm).await;
    let other =
        farm.execute_with(action, |request| request.instance_name = "other".to_owned()).await.unwrap();
    assert_eq!(worker.run_one(&farm).await.instance_name, "other");
    assert!(!one.response().await.cached_result);
    assert!(!other.response().await.cached_result);
}
