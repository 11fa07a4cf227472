//! The door for operators, and lists of operations.

use std::collections::BTreeMap;

use castwork_proto::DESCRIPTORS;
use castwork_proto::admin::admin_client::AdminClient;
use castwork_proto::admin::{
    CancelActionsRequest, DrainRequest, FindActionsRequest, GetStatusRequest, RevokeResultsRequest, Selector,
    Status, UndrainRequest, worker::State,
};
use castwork_proto::longrunning::ListOperationsRequest;
use castwork_proto::worker::Hello;
use prost::Message as _;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request};

use crate::support::{Farm, hello, limits, patient, platform};

async fn status(farm: &Farm) -> Status {
    farm.admin().get_status(GetStatusRequest {}).await.unwrap().into_inner()
}

fn by_hash(start: &str) -> Selector {
    Selector { action_hash: start.to_owned(), ..Selector::default() }
}

#[tokio::test]
async fn the_overview_names_what_waits_why_who_runs_and_what() {
    let farm = Farm::start(patient()).await;
    let mut worker = farm.worker("w1").await;
    let running = farm.action("running").await;
    let _running = farm.execute(running).await;
    worker.lease().await;
    let _waiting = farm.execute(farm.action("waiting").await).await;
    let elsewhere = farm.action_with("", |action, _| action.platform = Some(platform(&[("gpu", "1")]))).await;
    let _elsewhere = farm.execute(elsewhere).await;
    farm.until(|counts| counts.queued == 2).await;
    let status = status(&farm).await;
    assert_eq!((status.operations, status.queued, status.running), (3, 2, 1));
    let reasons: Vec<_> = status.queues.iter().map(|queue| queue.reason.as_str()).collect();
    assert!(reasons.contains(&"the only slot of the worker that could run it is taken"), "{reasons:?}");
    let waits = "no worker could run it; the server waits a moment for one to come";
    assert!(reasons.contains(&waits), "{reasons:?}");
    let [run] = &status.runs[..] else { panic!("one run") };
    assert_eq!((run.waiting, run.running, run.share_basis_points), (2, 1, 10_000));
    let [w1] = &status.workers[..] else { panic!("one worker") };
    assert_eq!((w1.name.as_str(), w1.slots_used, w1.state()), ("w1", 1, State::Ok));
    assert_eq!(w1.running[0].action_digest, Some(running.to_proto()));
}

#[tokio::test]
async fn an_action_is_found_by_the_start_of_its_hash_and_ended_for_everybody() {
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let executions = [farm.execute(action).await, farm.execute(action).await];
    let _other = farm.execute(farm.action("other").await).await;
    farm.until(|counts| counts.queued == 2).await;
    let start = &action.hash_hex()[..12];
    let request = FindActionsRequest { selector: Some(by_hash(start)) };
    let found = farm.admin().find_actions(request).await.unwrap().into_inner();
    let [found] = &found.actions[..] else { panic!("one action") };
    assert_eq!(found.operations, [executions[0].name.clone(), executions[1].name.clone()]);
    let request = CancelActionsRequest { selector: Some(by_hash(start)), reason: "it is wrong".to_owned() };
    assert_eq!(farm.admin().cancel_actions(request).await.unwrap().into_inner().operations, 2);
    for execution in executions {
        let status = execution.status().await;
        assert_eq!(status.code, Code::Cancelled as i32);
        assert_eq!(status.message, "stopped by an operator: it is wrong");
    }
    farm.until(|counts| counts.queued == 1).await;
}

#[tokio::test]
async fn one_operation_is_ended_by_its_name_and_others_for_the_same_action_go_on() {
    let farm = Farm::start(patient()).await;
    let action = farm.action("").await;
    let (first, _second) = (farm.execute(action).await, farm.execute(action).await);
    farm.until(|counts| counts.queued == 1).await;
    let selector = Some(Selector { operation: first.name.clone(), ..Selector::default() });
    let request = CancelActionsRequest { selector, reason: String::new() };
    assert_eq!(farm.admin().cancel_actions(request).await.unwrap().into_inner().operations, 1);
    assert_eq!(first.status().await.code, Code::Cancelled as i32);
    assert_eq!(farm.dispatch.stats().await.counts.operations, 1);
}

#[tokio::test]
async fn nothing_is_ended_unless_it_is_said_what() {
    let farm = Farm::start(limits()).await;
    for selector in [None, Some(Selector::default())] {
        let request = CancelActionsRequest { selector, reason: String::new() };
        assert_eq!(farm.admin().cancel_actions(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let nameless = DrainRequest::default();
    assert_eq!(farm.admin().drain(nameless).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn drained_workers_get_nothing_over_a_restart_of_the_scheduler_until_that_is_taken_back() {
    let farm = Farm::start(patient()).await;
    let request = DrainRequest { pattern: "w*".to_owned(), reason: "new disks".to_owned() };
    let drained = farm.admin().drain(request).await.unwrap().into_inner();
    assert_eq!((drained.workers.len(), drained.drains.len()), (0, 1), "nobody is here yet");
    let farm = farm.restart(patient()).await;
    let mut worker = farm.worker("w1").await;
    let execution = farm.execute(farm.action("").await).await;
    farm.until(|counts| counts.queued == 1).await;
    let seen = status(&farm).await;
    assert_eq!(seen.workers[0].state(), State::Draining);
    assert_eq!(seen.workers[0].remark, "drained by an operator: new disks");
    let taken_back = farm.admin().undrain(UndrainRequest { pattern: "*".to_owned() }).await.unwrap();
    assert!(taken_back.into_inner().drains.is_empty());
    worker.run_one(&farm).await;
    assert_eq!(execution.status().await.code, Code::Ok as i32);
}

/// A call with nothing in it, from another machine.
fn from_elsewhere<T: Default>() -> Request<T> {
    let mut request = Request::new(T::default());
    let remote_addr = Some("10.0.0.1:1".parse().unwrap());
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
    request
}

#[tokio::test]
async fn whoever_is_no_operator_may_look_and_change_nothing() {
    let farm = Farm::start(limits()).await;
    let mut admin = AdminClient::new(farm.dispatch.admin_service(None));
    // What is wrong with an empty call comes after who makes it.
    let [refused, may] = [Code::PermissionDenied, Code::InvalidArgument];
    let mut answers = BTreeMap::from([("GetStatus", admin.get_status(from_elsewhere()).await.map(|_| ()))]);
    answers.insert("FindActions", admin.find_actions(from_elsewhere()).await.map(|_| ()));
    answers.insert("CancelActions", admin.cancel_actions(from_elsewhere()).await.map(|_| ()));
    answers.insert("Drain", admin.drain(from_elsewhere()).await.map(|_| ()));
    answers.insert("Undrain", admin.undrain(from_elsewhere()).await.map(|_| ()));
    answers.insert("RevokeResults", admin.revoke_results(from_elsewhere()).await.map(|_| ()));
    let codes = answers.iter().map(|(name, answer)| (*name, answer.as_ref().err().map(tonic::Status::code)));
    let expected = [
        ("CancelActions", Some(refused)),
        ("Drain", Some(refused)),
        ("FindActions", Some(may)),
        ("GetStatus", None),
        ("RevokeResults", Some(refused)),
        ("Undrain", Some(refused)),
    ];
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    let dry = RevokeResultsRequest { dry_run: true, ..Default::default() };
    let dry = from_elsewhere().map(|(): ()| dry);
    assert_eq!(admin.revoke_results(dry).await.unwrap_err().code(), refused);

    let all = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let service = all.file.iter().flat_map(|file| &file.service).find(|service| service.name() == "Admin");
    let calls: Vec<_> =
        service.unwrap().method.iter().map(prost_types::MethodDescriptorProto::name).collect();
    assert!(calls.iter().all(|call| answers.contains_key(call)), "{calls:?} are all there is");
    assert_eq!(calls.len(), answers.len());
}

#[tokio::test]
async fn amounts_are_matched_and_what_can_not_be_is_refused_by_name() {
    let farm = Farm::start(limits()).await;
    let _worker = crate::support::Worker::attach(&farm, Hello { slots: 2, ..hello("w1") }).await.unwrap();
    let large = farm.action_with("", |action, _| action.platform = Some(platform(&[("cores", "3")]))).await;
    let refused = farm.execute(large).await.status().await;
    assert_eq!(refused.code, Code::FailedPrecondition as i32);
    assert_eq!(refused.message, "no worker offers cores=3; nearest is `w1`, which has cores=2");
    let wrong = farm.action_with("", |action, _| action.platform = Some(platform(&[("cores", "x")]))).await;
    let refused = farm.execute(wrong).await.status().await;
    assert_eq!(refused.code, Code::InvalidArgument as i32);
    assert_eq!(refused.message, "property `cores` is `x`, which is no number above zero");
}

#[tokio::test]
async fn operations_are_listed_page_by_page_each_once() {
    let farm = Farm::start(patient()).await;
    let mut names = Vec::new();
    for salt in ["a", "b", "c", "d", "e"] {
        names.push(farm.execute(farm.action(salt).await).await.name);
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOperationsRequest {
            name: "operations".to_owned(),
            page_size: 2,
            page_token,
            ..ListOperationsRequest::default()
        };
        let page = farm.operations().list_operations(request).await.unwrap().into_inner();
        listed.extend(page.operations.into_iter().map(|operation| operation.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    names.sort();
    listed.sort();
    assert_eq!(listed, names);
    let other = ListOperationsRequest { name: "other/operations".to_owned(), ..Default::default() };
    assert!(farm.operations().list_operations(other).await.unwrap().into_inner().operations.is_empty());
    let unknown = ListOperationsRequest { name: "nowhere/operations".to_owned(), ..Default::default() };
    assert_eq!(farm.operations().list_operations(unknown).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_asks_about_an_action_that_has_ended_is_told_why_it_was_run() {
    let farm = Farm::start(patient()).await;
    let mut worker = farm.worker("w1").await;
    let plain = farm.action("plain").await;
    let unkept = farm.action_with("unkept", |action, _| action.do_not_cache = true).await;
    for action in [plain, unkept, plain] {
        let execution = farm.execute(action).await;
        if action == unkept || farm.kept(action).await.is_none() {
            worker.run_one(&farm).await;
        }
        assert_eq!(execution.status().await.code, Code::Ok as i32);
    }
    let anew = farm.execute_with(plain, |request| request.skip_cache_lookup = true).await.unwrap();
    worker.run_one(&farm).await;
    assert_eq!(anew.status().await.code, Code::Ok as i32);
    for (action, expected) in [
        (plain, vec![("ran", "skip_cache_lookup"), ("hit", ""), ("ran", "never_seen")]),
        (unkept, vec![("ran", "do_not_cache")]),
    ] {
        let selector = Some(Selector { action_hash: action.hash_hex(), ..Selector::default() });
        let found = farm.admin().find_actions(FindActionsRequest { selector }).await.unwrap().into_inner();
        let told: Vec<_> =
            found.ended.iter().map(|it| (it.outcome.as_str(), it.miss_cause.as_str())).collect();
        assert_eq!(told, expected, "{action}");
    }
}
