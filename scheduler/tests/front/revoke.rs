//! Where results come from, taking them back, and results that are too old.

use std::process::{Command, Output};

use castwork_cas::Digest;
use castwork_proto::reapi::{
    self, Action, ActionResult, GetActionResultRequest, RequestMetadata, UpdateActionResultRequest,
};
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::connections::http_get;
use crate::support::House;

/// Uploads an action with a result, as part of a run.
async fn upload(house: &House, salt: &str, run: &str) -> Digest {
    let command = reapi::Command { arguments: vec![salt.to_owned()], ..Default::default() };
    let command_digest = Some(house.put(command.encode_to_vec()).await.to_proto());
    let action = house.put(Action { command_digest, ..Default::default() }.encode_to_vec()).await;
    let mut request = Request::new(UpdateActionResultRequest {
        action_digest: Some(action.to_proto()),
        action_result: Some(ActionResult { stdout_raw: salt.to_owned().into(), ..Default::default() }),
        ..Default::default()
    });
    let metadata = RequestMetadata { tool_invocation_id: run.to_owned(), ..Default::default() };
    let metadata = MetadataValue::from_bytes(&metadata.encode_to_vec());
    request.metadata_mut().insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", metadata);
    house.results().update_action_result(request).await.unwrap();
    action
}

async fn get(house: &House, action: &Digest) -> Result<ActionResult, Status> {
    let request = GetActionResultRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    Ok(house.results().get_action_result(request).await?.into_inner())
}

/// What `castwork-scheduler revoke` says to these words.
fn revoke(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castwork-scheduler"));
    command.arg("revoke").args(words).env_remove("CASTWORK_LOG").output().unwrap()
}

fn said(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_is_no_result_also_after_a_restart() {
    let house = House::start().await;
    let (first, second) = (upload(&house, "one", "build-1").await, upload(&house, "two", "build-2").await);
    let server = format!("grpc://{}", house.server.grpc_address());
    let at_server = |words: &[&str]| revoke(&[&["--server", server.as_str()][..], words].concat());

    let dry = at_server(&["--principal", "127.0.0.*", "--since", "1h", "--dry-run"]);
    let dry = said(&dry);
    for words in
        [&*format!("{first}  uploaded by 127.0.0.1 for run build-1"), "2 results would be taken back"]
    {
        assert!(dry.contains(words), "`{words}` is not in\n{dry}");
    }
    assert!(get(&house, &first).await.is_ok());
    for nobody in [["--worker", "*"], ["--principal", "10.*"], ["--since", "2126-01-01T00:00:00Z"]] {
        assert_eq!(said(&at_server(&nobody)), "0 results taken back\n", "{nobody:?}");
    }

    let hash = first.hash_hex();
    let one = at_server(&["--action", &hash[..12]]);
    assert!(said(&one).ends_with("\n1 results taken back\n"), "{}", said(&one));
    assert_eq!(get(&house, &first).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&house, &second).await.unwrap().stdout_raw, "two");
    assert!(http_get(&house, "/metrics").await.contains("castwork_results_revoked_total 1\n"));

    let house = house.restart().await;
    assert_eq!(get(&house, &first).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&house, &second).await.unwrap().stdout_raw, "two");
    // It can be made again.
    upload(&house, "one", "build-3").await;
    assert_eq!(get(&house, &first).await.unwrap().stdout_raw, "one");

    let data = house.folder.path().join("data");
    let folder = ["--data-dir", data.to_str().unwrap(), "--since", "1h"];
    let in_use = revoke(&folder);
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use by another server"));
    let kept = house.folder.clone();
    house.server.shutdown().await;
    assert!(said(&revoke(&folder)).ends_with("\n2 results taken back\n"));
    assert_eq!(said(&revoke(&folder)), "0 results taken back\n");
    drop(kept);
}

#[test]
fn whoever_takes_back_has_to_say_what() {
    let nothing = revoke(&["--dry-run"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("--worker"));
    let wrong = revoke(&["--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("which is no time such as"));
}

#[tokio::test]
async fn results_that_are_too_old_are_none_and_younger_ones_are() {
    let house = House::start().await;
    let action = upload(&house, "one", "").await;
    let house = house.restart_with(|args| args.results_since = Some("2126-01-01T00:00:00Z".to_owned())).await;
    assert_eq!(get(&house, &action).await.unwrap_err().code(), Code::NotFound);
    let house = house.restart_with(|args| args.result_age_max = Some("0s".to_owned())).await;
    assert_eq!(get(&house, &action).await.unwrap_err().code(), Code::NotFound);
    let house = house.restart_with(|args| args.result_age_max = Some("1h".to_owned())).await;
    assert_eq!(get(&house, &action).await.unwrap().stdout_raw, "one");
}
