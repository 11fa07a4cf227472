//! Operations outlive the scheduler: whoever waited for one finds it by its name.

use std::time::Duration;

use castwork_proto::longrunning::CancelOperationRequest;
use castwork_proto::reapi::execution_stage::Value as Stage;
use castwork_proto::worker::Hello;
use tonic::Code;

use crate::support::{Farm, Worker, hello, patient, result, running, stage_of};

#[tokio::test]
async fn a_restart_of_the_scheduler_keeps_what_runs_and_who_waits_for_it() {
    // [67]
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let mut worker = farm.worker("w1").await;
    let name = farm.execute(action).await.name;
    let lease = worker.lease().await;
    let farm = farm.restart(patient()).await;
    let waiting = farm.wait(&name).await.unwrap();
    assert_eq!(stage_of(&waiting.first), Stage::CacheCheck, "until the worker is back");
    // Another worker does not get it meanwhile, or it would be run twice.
    let _other = farm.worker("w2").await;
    let hello = Hello { running: vec![running(&lease)], ..hello("w1") };
    let mut worker = Worker::attach(&farm, hello).await.unwrap();
    let execution = farm.execute(action).await;
    farm.until(|counts| counts.running == 1).await;
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(worker.kept().await, lease.lease_id);
    assert!(!execution.response().await.cached_result);
    assert_eq!(waiting.status().await.code, Code::Ok as i32);
    assert!(farm.kept(action).await.is_some());
}

#[tokio::test]
async fn what_waited_goes_on_waiting_and_what_ran_runs_again_if_its_worker_stays_away() {
    let mut limits = patient();
    limits.queue.restored_grace = Duration::from_millis(50);
    let farm = Farm::start(limits.clone()).await;
    let mut worker = farm.worker("w1").await;
    let ran = farm.execute(farm.action("ran").await).await.name;
    let lease = worker.lease().await;
    let waited = farm.execute(farm.action("waited").await).await.name;
    farm.until(|counts| counts.queued == 1).await;
    let farm = farm.restart(limits).await;
    let waiting = [farm.wait(&ran).await.unwrap(), farm.wait(&waited).await.unwrap()];
    let mut other = farm.worker("w2").await;
    let first = other.run_one(&farm).await;
    let second = other.run_one(&farm).await;
    assert_ne!(first.action_digest, second.action_digest);
    assert_ne!(first.lease_id, lease.lease_id);
    for operation in waiting {
        assert_eq!(operation.status().await.code, Code::Ok as i32);
    }
}

#[tokio::test]
async fn what_had_ended_before_the_restart_is_not_run_again() {
    let farm = Farm::start(patient()).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let name = execution.name.clone();
    worker.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
    let farm = farm.restart(patient()).await;
    assert_eq!(farm.wait(&name).await.map(|_| ()).unwrap_err().code(), Code::NotFound);
    assert_eq!(farm.dispatch.stats().await.counts.operations, 0);
}

#[tokio::test]
async fn nobody_comes_back_for_an_operation_and_so_it_ends() {
    let mut limits = patient();
    limits.queue.unwatched_grace = Duration::from_millis(20);
    let farm = Farm::start(patient()).await;
    let name = farm.execute(farm.action("").await).await.name;
    let farm = farm.restart(limits).await;
    farm.until(|counts| counts.operations == 0).await;
    assert_eq!(farm.wait(&name).await.unwrap().status().await.code, Code::Cancelled as i32);
}

#[tokio::test]
async fn who_had_joined_what_ran_finds_it_running_after_a_restart() {
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let mut worker = farm.worker("w1").await;
    let first = farm.execute(action).await.name;
    let lease = worker.lease().await;
    let second = farm.execute(action).await.name;
    farm.operations().cancel_operation(CancelOperationRequest { name: first }).await.unwrap();
    let farm = farm.restart(patient()).await;
    let waiting = farm.wait(&second).await.unwrap();
    // Had it been looked at, it would be the first that this one is given.
    let mut other = farm.worker("w2").await;
    let later = farm.action("later").await;
    farm.execute(later).await;
    assert_eq!(other.lease().await.action_digest, Some(later.to_proto()));
    let hello = Hello { running: vec![running(&lease)], ..hello("w1") };
    let mut worker = Worker::attach(&farm, hello).await.unwrap();
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(worker.kept().await, lease.lease_id);
    assert_eq!(waiting.status().await.code, Code::Ok as i32);
}
