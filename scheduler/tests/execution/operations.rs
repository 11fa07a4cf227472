//! Operations by name: waited for again, looked at, cancelled, forgotten.

use std::time::Duration;

use castwork_proto::longrunning::{CancelOperationRequest, DeleteOperationRequest, GetOperationRequest};
use castwork_proto::reapi::execution_stage::Value as Stage;
use tonic::Code;

use crate::support::{Farm, limits, patient, response_of, result, stage_of};

#[tokio::test]
async fn a_client_that_went_away_finds_its_operation_again() {
    // [66]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let name = execution.name.clone();
    let lease = worker.lease().await;
    drop(execution);
    let waiting = farm.wait(&name).await.unwrap();
    assert_eq!(stage_of(&waiting.first), Stage::Executing, "it tells at once where things stand");
    worker.finish(&lease, result(0, farm.put("output").await)).await;
    assert_eq!(waiting.status().await.code, Code::Ok as i32);
    let (stages, response) = farm.wait(&name).await.unwrap().end().await;
    assert_eq!(stages, [Stage::Completed], "also when it is over");
    assert!(response.result.is_some());
}

#[tokio::test]
async fn an_operation_that_nobody_comes_back_for_is_cancelled() {
    // [66]
    let mut limits = limits();
    limits.queue.unwatched_grace = Duration::from_millis(20);
    let farm = Farm::start(limits).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let name = execution.name.clone();
    let lease = worker.lease().await;
    drop(execution);
    assert_eq!(worker.cancelled().await, lease.lease_id);
    assert_eq!(farm.wait(&name).await.unwrap().status().await.code, Code::Cancelled as i32);
}

#[tokio::test]
async fn names_that_mean_nothing_are_not_found() {
    // [66]
    let farm = Farm::start(patient()).await;
    let name = farm.execute(farm.action("").await).await.name;
    let foreign = format!("other/{name}");
    let absent = "operations/00000000-0000-4000-8000-000000000000";
    for name in ["", "garbage", "operations/", absent, &foreign] {
        assert_eq!(farm.wait(name).await.map(|_| ()).unwrap_err().code(), Code::NotFound, "{name:?}");
        let get = GetOperationRequest { name: name.to_owned() };
        assert_eq!(farm.operations().get_operation(get).await.unwrap_err().code(), Code::NotFound);
        let cancel = CancelOperationRequest { name: name.to_owned() };
        assert_eq!(farm.operations().cancel_operation(cancel).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn an_operation_can_be_looked_at_and_cancelled_down_to_the_worker() {
    // [68]
    let farm = Farm::start(limits()).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    let lease = worker.lease().await;
    let get = GetOperationRequest { name: execution.name.clone() };
    let current = farm.operations().get_operation(get.clone()).await.unwrap().into_inner();
    assert_eq!(stage_of(&current), Stage::Executing);

    let cancel = CancelOperationRequest { name: execution.name.clone() };
    farm.operations().cancel_operation(cancel.clone()).await.unwrap();
    assert_eq!(worker.cancelled().await, lease.lease_id);
    assert_eq!(execution.status().await.code, Code::Cancelled as i32);
    let current = farm.operations().get_operation(get.clone()).await.unwrap().into_inner();
    assert_eq!(response_of(&current).status.unwrap().code, Code::Cancelled as i32);

    farm.operations().cancel_operation(cancel).await.unwrap();
    let delete = DeleteOperationRequest { name: get.name };
    assert_eq!(farm.operations().delete_operation(delete).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_operation_is_forgotten_some_time_after_its_end() {
    let mut limits = limits();
    limits.queue.finished_max = 1;
    let farm = Farm::start(limits).await;
    let mut names = Vec::new();
    for salt in ["1", "2"] {
        let execution = farm.execute(farm.action(salt).await).await;
        names.push(execution.name.clone());
        assert_eq!(execution.status().await.message, "no worker has attached");
    }
    assert_eq!(farm.wait(&names[0]).await.map(|_| ()).unwrap_err().code(), Code::NotFound);
    assert!(farm.wait(&names[1]).await.is_ok());
}
