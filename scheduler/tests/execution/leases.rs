//! Leases whose worker or scheduler does not live to see their end.

use std::time::Duration;

use castwork_proto::reapi::execution_stage::Value as Stage;
use castwork_proto::worker::Hello;
use tonic::Code;

use crate::support::{Farm, Worker, hello, limits, patient, result, running, status};

#[tokio::test]
async fn what_a_lost_worker_ran_another_runs() {
    // [67]
    let farm = Farm::start(limits()).await;
    let mut first = farm.worker("first").await;
    let execution = farm.execute(farm.action("").await).await;
    first.lease().await;
    let mut second = farm.worker("second").await;
    drop(first);
    second.run_one(&farm).await;
    let (stages, response) = execution.end().await;
    assert_eq!(response.status.unwrap().code, Code::Ok as i32);
    let again = [Stage::Queued, Stage::Executing, Stage::Queued, Stage::Executing, Stage::Completed];
    assert_eq!(stages[1..], again);
    assert_eq!(farm.dispatch.stats().await.counts.running, 0, "no slot is taken any more");
}

#[tokio::test]
async fn an_action_that_loses_worker_after_worker_is_given_up() {
    // [67]
    let mut limits = patient();
    limits.queue.attempts_max = 3;
    limits.queue.return_grace = Duration::from_secs(3_600);
    let farm = Farm::start(limits).await;
    let execution = farm.execute(farm.action("").await).await;
    for name in ["w1", "w2", "w3"] {
        farm.worker(name).await.lease().await;
    }
    let status = execution.status().await;
    assert_eq!(status.code, Code::Unavailable as i32);
    assert_eq!(status.message, "given up after 3 attempts: worker `w3` was lost");
}

#[tokio::test]
async fn a_worker_that_fails_is_not_asked_again_while_there_is_another() {
    let farm = Farm::start(limits()).await;
    let mut bad = farm.worker("bad").await;
    let execution = farm.execute(farm.action("").await).await;
    let lease = bad.lease().await;
    let mut good = farm.worker("good").await;
    bad.report(&lease, status(Code::Internal, "disk is gone"), None).await;
    assert_eq!(bad.kept().await, lease.lease_id);
    good.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn a_worker_whose_outputs_are_not_there_is_not_believed() {
    let mut limits = limits();
    limits.queue.attempts_max = 2;
    let farm = Farm::start(limits).await;
    let action = farm.action("").await;
    let mut worker = farm.worker("liar").await;
    let execution = farm.execute(action).await;
    for _ in 0..2 {
        let lease = worker.lease().await;
        let claimed = castwork_cas::Digest::of(crate::support::FUNCTION, b"never uploaded");
        worker.finish(&lease, result(0, claimed)).await;
        assert_eq!(worker.kept().await, lease.lease_id);
    }
    let status = execution.status().await;
    assert_eq!(status.code, Code::Unavailable as i32);
    assert!(status.message.contains("which is not there"), "{}", status.message);
    assert_eq!(farm.kept(action).await, None);
}

#[tokio::test]
async fn a_worker_that_comes_back_in_time_goes_on() {
    let mut limits = limits();
    limits.queue.reconnect_grace = Duration::from_secs(3_600);
    let farm = Farm::start(limits).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let lease = worker.lease().await;
    drop(worker);
    farm.until(|counts| !counts.workers[0].connected).await;
    let hello = Hello { running: vec![running(&lease)], ..hello("w1") };
    let mut worker = Worker::attach(&farm, hello).await.unwrap();
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(worker.kept().await, lease.lease_id);
    let (stages, response) = execution.end().await;
    assert!(response.result.is_some());
    assert_eq!(stages.last_chunk(), Some(&[Stage::Queued, Stage::Executing, Stage::Completed]));
}

#[tokio::test]
async fn a_worker_that_comes_back_without_its_lease_gets_it_anew() {
    let mut limits = limits();
    limits.queue.reconnect_grace = Duration::from_secs(3_600);
    let farm = Farm::start(limits).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let lost = worker.lease().await;
    drop(worker);
    let mut worker = farm.worker("w1").await;
    assert_ne!(worker.run_one(&farm).await.lease_id, lost.lease_id);
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn a_late_outcome_counts_if_nobody_was_quicker_and_is_kept_in_any_case() {
    let mut limits = limits();
    limits.queue.return_grace = Duration::from_secs(3_600);
    let farm = Farm::start(limits).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let lease = worker.lease().await;
    drop(worker);
    farm.until(|counts| counts.workers.is_empty() && counts.queued == 1).await;
    let back = Hello { running: vec![running(&lease)], ..hello("w1") };
    let mut worker = Worker::attach(&farm, back.clone()).await.unwrap();
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(worker.kept().await, lease.lease_id);
    assert_eq!(execution.status().await.code, Code::Ok as i32);
    worker.finish(&lease, result(1, farm.put("output").await)).await;
    assert_eq!(worker.kept().await, lease.lease_id, "said twice, forgotten all the same");
    drop(worker);
    let mut worker = Worker::attach(&farm, back).await.unwrap();
    assert_eq!(worker.cancelled().await, lease.lease_id, "the kept one got lost, so it is told again");
}

#[tokio::test]
async fn an_outcome_that_outlived_the_scheduler_goes_into_the_cache() {
    let farm = Farm::start(patient()).await;
    let kept = farm.action("").await;
    let uncached = farm.action_with("", |action, _| action.do_not_cache = true).await;
    let mut worker = Worker::attach(&farm, Hello { slots: 2, ..hello("w1") }).await.unwrap();
    let executions = [farm.execute(kept).await, farm.execute(uncached).await];
    let leases = [worker.lease().await, worker.lease().await];
    drop(executions);
    let farm = farm.restart(patient()).await;
    let running = leases.iter().map(running).collect();
    let hello = Hello { slots: 2, running, ..hello("w1") };
    let mut worker = Worker::attach(&farm, hello).await.unwrap();
    for lease in &leases {
        worker.finish(lease, result(0, farm.put("output").await)).await;
    }
    let mut confirmed = [worker.kept().await, worker.kept().await];
    confirmed.sort();
    let mut expected = leases.map(|lease| lease.lease_id);
    expected.sort();
    assert_eq!(confirmed, expected);
    assert!(farm.kept(kept).await.is_some());
    assert!(farm.kept(uncached).await.is_none());
}
