//! The door for workers.

use std::time::Duration;

use castwork_proto::reapi::GetCapabilitiesRequest;
use castwork_proto::worker::{Heartbeat, Hello, worker_message};
use tonic::Code;

use crate::support::{Farm, Worker, hello, limits, patient};

#[tokio::test]
async fn a_worker_that_is_not_as_it_should_be_is_not_let_in() {
    let farm = Farm::start(limits()).await;
    for wrong in [
        Hello { worker_id: "W1".to_owned(), ..hello("w1") },
        Hello { slots: 0, ..hello("w1") },
        Hello { slots: 5_000, ..hello("w1") },
    ] {
        let refusal = Worker::attach(&farm, wrong).await.map(|_| ()).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{}", refusal.message());
    }
    assert!(farm.dispatch.stats().await.counts.workers.is_empty());
}

#[tokio::test]
async fn a_server_without_workers_says_so_and_is_asked_to_execute_all_the_same_by_who_wants_to() {
    async fn said(farm: &Farm) -> (bool, Option<String>) {
        let answer = farm.capabilities().get_capabilities(GetCapabilitiesRequest::default()).await.unwrap();
        let workers = answer.metadata().get("castwork-workers");
        let workers = workers.map(|said| said.to_str().unwrap().to_owned());
        (answer.into_inner().execution_capabilities.unwrap().exec_enabled, workers)
    }
    let farm = Farm::start(limits()).await;
    // The first tick has to pass.
    while farm.dispatch.expects_workers() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(said(&farm).await, (true, Some("none".to_owned())));
    let worker = farm.worker("w1").await;
    assert_eq!(said(&farm).await, (true, None));
    drop(worker);
    farm.until(|counts| counts.workers.is_empty()).await;
    assert_eq!(said(&farm).await, (true, Some("none".to_owned())));
    // An autoscaler sees what clients ask for.
    farm.dispatch.note_scaler();
    assert_eq!(said(&farm).await, (true, None));
    // As long as they may be on the way, nothing is said.
    assert_eq!(said(&Farm::start(patient()).await).await, (true, None));
}

#[tokio::test]
async fn a_worker_that_talks_nonsense_is_put_out() {
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    worker.say(worker_message::Message::Hello(hello("w1"))).await;
    assert_eq!(worker.hear().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_newer_stream_of_a_worker_replaces_the_older() {
    let farm = Farm::start(limits()).await;
    let mut old = farm.worker("w1").await;
    let mut new = farm.worker("w1").await;
    assert_eq!(old.hear().await.unwrap_err().code(), Code::Aborted);
    let execution = farm.execute(farm.action("").await).await;
    new.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn a_worker_that_says_nothing_is_held_for_lost() {
    let mut limits = patient();
    limits.heartbeat_interval = Duration::from_millis(10);
    let farm = Farm::start(limits).await;
    let mut silent = farm.worker("w1").await;
    assert_eq!(silent.hear().await.unwrap_err().code(), Code::Unavailable);
    farm.until(|counts| counts.workers.is_empty()).await;
}

#[tokio::test]
async fn a_draining_worker_gets_nothing_new() {
    let farm = Farm::start(patient()).await;
    let draining = farm.worker("w1").await;
    draining.drain().await;
    draining.say(worker_message::Message::Heartbeat(Heartbeat {})).await;
    farm.until(|counts| counts.workers[0].draining).await;
    let execution = farm.execute(farm.action("").await).await;
    farm.until(|counts| counts.queued == 1).await;
    farm.worker("w2").await.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn a_worker_gets_as_many_actions_as_it_has_slots() {
    let farm = Farm::start(patient()).await;
    let mut executions = Vec::new();
    for salt in ["1", "2", "3"] {
        executions.push(farm.execute(farm.action(salt).await).await);
    }
    farm.until(|counts| counts.queued == 3).await;
    let _worker = Worker::attach(&farm, Hello { slots: 2, ..hello("w1") }).await.unwrap();
    let stats = farm.dispatch.stats().await;
    assert_eq!((stats.counts.running, stats.counts.queued), (2, 1));
    let gauges = stats.gauges();
    let gauge = |name: &str| gauges.iter().find(|gauge| gauge.name == name).unwrap().value;
    assert_eq!((gauge("castwork_actions_queued"), gauge("castwork_worker_slots")), (1, 2));
}
