//! What clients get to see of an action that is run, or was.

use std::time::Duration;

use castwork_proto::reapi::{ActionResult, ExecutedActionMetadata, execution_stage::Value as Stage};
use castwork_scheduler::dispatch::Limits;
use prost_types::Timestamp;
use tonic::Code;

use crate::support::{Farm, limits, patient, result, stage_of, status};

/// Times as a worker states them, a second apart.
fn metadata() -> ExecutedActionMetadata {
    let at = |seconds: i64| Some(Timestamp { seconds: 4_000_000_000 + seconds, nanos: 0 });
    ExecutedActionMetadata {
        worker: "w1".to_owned(),
        worker_start_timestamp: at(1),
        input_fetch_start_timestamp: at(2),
        input_fetch_completed_timestamp: at(3),
        execution_start_timestamp: at(4),
        execution_completed_timestamp: at(5),
        output_upload_start_timestamp: at(6),
        output_upload_completed_timestamp: at(7),
        worker_completed_timestamp: at(8),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_action_is_run_once_and_answered_from_the_cache_then() {
    // [57]
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let execution = farm.execute(action).await;
    assert!(execution.name.starts_with("operations/"), "{}", execution.name);
    assert_eq!(stage_of(&execution.first), Stage::CacheCheck);
    let mut worker = farm.worker("w1").await;
    let lease = worker.lease().await;
    let result = ActionResult { execution_metadata: Some(metadata()), ..result(0, farm.put("output").await) };
    worker.finish(&lease, result).await;
    let (stages, response) = execution.end().await;
    assert_eq!(stages, [Stage::CacheCheck, Stage::Queued, Stage::Executing, Stage::Completed]);
    assert!(!response.cached_result);
    let ran = response.result.unwrap().execution_metadata.unwrap();
    assert_eq!(ran.worker, "w1");
    let queued = ran.queued_timestamp.unwrap();
    assert!(queued.seconds > 0 && queued.seconds < ran.worker_start_timestamp.unwrap().seconds);
    assert_eq!(worker.kept().await, lease.lease_id);

    let (stages, again) = farm.execute(action).await.end().await;
    assert_eq!(stages, [Stage::CacheCheck, Stage::Completed]);
    assert!(again.cached_result);
    assert_eq!(again.result.unwrap().execution_metadata.unwrap(), ran, "it is that of the original run");
}

#[tokio::test]
async fn a_lease_carries_all_that_a_worker_needs_to_start() {
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm
        .action_with("", |action, _| {
            action.timeout = Some(prost_types::Duration { seconds: 7, nanos: 0 });
        })
        .await;
    let execution =
        farm.execute_with(action, |request| request.instance_name = "other".to_owned()).await.unwrap();
    assert!(execution.name.starts_with("other/operations/"), "{}", execution.name);
    let lease = worker.lease().await;
    assert_eq!(lease.instance_name, "other");
    assert_eq!(lease.action_digest.unwrap(), action.to_proto());
    assert_eq!(lease.timeout.unwrap().seconds, 7);
    assert!(lease.queued_unix_nanos > 0);
    assert!(!lease.action.is_empty() && !lease.command.is_empty());
}

#[tokio::test]
async fn a_lease_is_complete_also_when_there_was_no_room_to_keep_its_messages_at_hand() {
    let farm = Farm::start(Limits { prepared_bytes_max: 0, ..limits() }).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let lease = worker.run_one(&farm).await;
    assert!(!lease.action.is_empty() && !lease.command.is_empty());
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

#[tokio::test]
async fn what_fails_is_answered_and_not_kept() {
    // [63]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let execution = farm.execute(action).await;
    let lease = worker.lease().await;
    worker.finish(&lease, result(1, farm.put("output").await)).await;
    let response = execution.response().await;
    assert_eq!(response.status.unwrap().code, Code::Ok as i32);
    assert_eq!(response.result.unwrap().exit_code, 1);
    assert_eq!(farm.kept(action).await, None);
}

#[tokio::test]
async fn a_timeout_has_its_own_text_and_what_was_written_until_then() {
    // [62]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let execution = farm.execute(action).await;
    let lease = worker.lease().await;
    let partial =
        ActionResult { stdout_digest: Some(farm.put("so far").await.to_proto()), ..Default::default() };
    worker.report(&lease, status(Code::DeadlineExceeded, "killed"), Some(partial)).await;
    let response = execution.response().await;
    let status = response.status.unwrap();
    assert_eq!(status.code, Code::DeadlineExceeded as i32);
    assert!(status.message.contains("execution timeout exceeded"), "{}", status.message);
    assert!(response.result.unwrap().stdout_digest.is_some());
    assert_eq!(farm.kept(action).await, None);
}

#[tokio::test]
async fn outputs_are_in_the_answer_if_they_are_wanted_there_and_fit() {
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let action = farm.action("").await;
    let wants = |request: &mut castwork_proto::reapi::ExecuteRequest| {
        request.inline_stdout = true;
        request.inline_output_files = vec!["out".to_owned()];
    };
    let execution = farm.execute_with(action, wants).await.unwrap();
    let lease = worker.lease().await;
    let result = ActionResult {
        stdout_digest: Some(farm.put("hello").await.to_proto()),
        stderr_digest: Some(farm.put("warning").await.to_proto()),
        stderr_raw: "warning".into(),
        ..result(0, farm.put(vec![0_u8; 2 << 20]).await)
    };
    worker.finish(&lease, result).await;
    let answer = execution.response().await.result.unwrap();
    assert_eq!(answer.stdout_raw, "hello");
    assert_eq!(answer.stderr_raw, "", "it was not asked for");
    assert_eq!(answer.output_files[0].contents, "", "it is too large");
}

#[tokio::test]
async fn who_waits_is_reminded_that_it_does() {
    // [75]
    let mut limits = patient();
    limits.reminder_interval = Duration::from_millis(10);
    let farm = Farm::start(limits).await;
    let mut execution = farm.execute(farm.action("").await).await;
    execution.reach(Stage::Queued).await;
    for _ in 0..3 {
        let reminder = execution.next().await.unwrap().unwrap();
        assert_eq!(stage_of(&reminder), Stage::Queued);
    }
}

#[tokio::test]
async fn more_urgent_actions_overtake() {
    // [74]
    let farm = Farm::start(patient()).await;
    let mut executions = Vec::new();
    for (salt, priority) in [("late", 5), ("soon", -5), ("between", 0)] {
        let policy = Some(castwork_proto::reapi::ExecutionPolicy { priority });
        let action = farm.action(salt).await;
        let opened = farm.execute_with(action, |request| request.execution_policy = policy).await;
        let mut execution = opened.unwrap();
        execution.reach(Stage::Queued).await;
        executions.push((action, execution));
    }
    let mut worker = farm.worker("w1").await;
    for expected in [1, 2, 0] {
        let lease = worker.run_one(&farm).await;
        assert_eq!(lease.action_digest.unwrap(), executions[expected].0.to_proto());
    }
    for (_, execution) in executions {
        assert_eq!(execution.status().await.code, Code::Ok as i32);
    }
}

#[tokio::test]
async fn a_scheduler_that_stops_ends_its_streams_without_an_end_of_the_operation() {
    let farm = Farm::start(patient()).await;
    let mut execution = farm.execute(farm.action("").await).await;
    execution.reach(Stage::Queued).await;
    farm.dispatch.shutdown().await;
    assert_eq!(execution.next().await.unwrap_err().code(), Code::Unavailable);
}
