//! The action cache.

use castwork_cas::Digest;
use castwork_proto::reapi::{
    self, Action, ActionResult, Command, GetActionResultRequest, OutputFile, UpdateActionResultRequest,
};
use castwork_proto::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::{self, SHA256, Server, call_raw, noise};

/// Uploads an action and its command.
async fn action(server: &Server, salt: &str) -> Digest {
    let command = Command { arguments: vec![salt.to_owned(), support::salt()], ..Default::default() };
    let command_digest = Some(server.put(command.encode_to_vec()).await.to_proto());
    server.put(Action { command_digest, ..Default::default() }.encode_to_vec()).await
}

async fn get(server: &Server, action: &Digest) -> Result<ActionResult, Status> {
    get_with(server, action, GetActionResultRequest::default()).await
}

async fn get_with(
    server: &Server,
    action: &Digest,
    hints: GetActionResultRequest,
) -> Result<ActionResult, Status> {
    let request = GetActionResultRequest { action_digest: Some(action.to_proto()), ..hints };
    Ok(server.results().get_action_result(request).await?.into_inner())
}

async fn update(server: &Server, action: &Digest, result: ActionResult) -> Result<ActionResult, Status> {
    update_in(server, "", action, result).await
}

async fn update_in(
    server: &Server,
    instance_name: &str,
    action: &Digest,
    result: ActionResult,
) -> Result<ActionResult, Status> {
    let request = UpdateActionResultRequest {
        instance_name: instance_name.to_owned(),
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(server.results().update_action_result(request).await?.into_inner())
}

fn file(path: &str, digest: &Digest) -> OutputFile {
    OutputFile { path: path.to_owned(), digest: Some(digest.to_proto()), ..Default::default() }
}

#[tokio::test]
async fn a_result_comes_back_as_it_was_stated_also_after_a_restart() {
    // [50]
    let server = Server::start().await;
    let action = action(&server, "a").await;
    assert_eq!(get(&server, &action).await.unwrap_err().code(), Code::NotFound);
    let output = server.put("object code").await;
    let result = ActionResult {
        output_files: vec![file("out/a.o", &output)],
        exit_code: 0,
        stderr_digest: Some(server.put("a warning").await.to_proto()),
        ..Default::default()
    };
    let stated = update(&server, &action, result.clone()).await.unwrap();
    assert_eq!(stated.output_files, result.output_files);
    assert!(stated.execution_metadata.is_some(), "some clients need it");
    assert_eq!(get(&server, &action).await.unwrap(), stated);
    let Some(server) = server.restart().await else { return };
    assert_eq!(get(&server, &action).await.unwrap(), stated);
}

#[tokio::test]
async fn fields_that_nobody_knows_do_no_harm() {
    // [50]
    let server = Server::start().await;
    let action = action(&server, "a").await;
    let request = UpdateActionResultRequest {
        action_digest: Some(action.to_proto()),
        action_result: Some(ActionResult { exit_code: 7, ..Default::default() }),
        ..Default::default()
    };
    let mut message = request.encode_to_vec();
    // Field 999, a varint.
    message.extend_from_slice(&[0xb8, 0x3e, 0x01]);
    let path = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
    call_raw(&server.channel, path, message.into()).await.unwrap();
    assert_eq!(get(&server, &action).await.unwrap().exit_code, 7);
}

#[tokio::test]
async fn outputs_are_inlined_for_whoever_asks_as_far_as_they_fit() {
    // [52]
    let server = Server::start().await;
    let (stdout, large) = (server.put("some words").await, server.put(noise(1, 2 << 20)).await);
    let result = ActionResult {
        output_files: vec![file("small", &stdout), file("large", &large), file("other", &stdout)],
        stdout_digest: Some(stdout.to_proto()),
        stderr_digest: Some(stdout.to_proto()),
        ..Default::default()
    };
    let action = action(&server, "a").await;
    update(&server, &action, result).await.unwrap();
    let plain = get(&server, &action).await.unwrap();
    assert!(plain.stdout_raw.is_empty() && plain.output_files.iter().all(|file| file.contents.is_empty()));
    let hints = GetActionResultRequest {
        inline_stdout: true,
        inline_output_files: vec!["small".to_owned(), "large".to_owned(), "nowhere".to_owned()],
        ..Default::default()
    };
    let inlined = get_with(&server, &action, hints).await.unwrap();
    assert_eq!(inlined.stdout_raw, "some words");
    assert!(inlined.stderr_raw.is_empty());
    let contents: Vec<&[u8]> = inlined.output_files.iter().map(|file| &file.contents[..]).collect();
    assert_eq!(contents, [&b"some words"[..], b"", b""]);
    assert!(inlined.stdout_digest.is_some() && inlined.output_files[0].digest.is_some());
}

#[tokio::test]
async fn what_is_no_result_is_refused() {
    // [53], [54]
    let server = Server::start().await;
    let action = action(&server, "a").await;
    let output = server.put("object code").await;
    let request = UpdateActionResultRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    let status = server.results().update_action_result(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let request =
        UpdateActionResultRequest { action_result: Some(ActionResult::default()), ..Default::default() };
    let status = server.results().update_action_result(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut malformed = file("a", &output);
    malformed.digest = Some(reapi::Digest { hash: "abc".to_owned(), size_bytes: 3 });
    let results = [
        vec![malformed],
        vec![file("../x", &output)],
        vec![file("/x", &output)],
        vec![file("a//b", &output)],
        vec![file("a", &output), file("a", &output)],
    ];
    for output_files in results {
        let result = ActionResult { output_files: output_files.clone(), ..Default::default() };
        let status = update(&server, &action, result).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{output_files:?}");
    }
    assert_eq!(get(&server, &action).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_a_result_rests_on_has_to_be_uploaded_first() {
    // [55]
    let server = Server::start().await;
    let nowhere = Digest::of(SHA256, b"nowhere");
    let orphan = Action { command_digest: Some(nowhere.to_proto()), ..Default::default() };
    let orphan = server.put(orphan.encode_to_vec()).await;
    let action = action(&server, "a").await;
    let incomplete = ActionResult { output_files: vec![file("a", &nowhere)], ..Default::default() };
    for (action, result) in
        [(nowhere, ActionResult::default()), (orphan, ActionResult::default()), (action, incomplete)]
    {
        let status = update(&server, &action, result).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = rpc::Status::decode(status.details()).unwrap();
        let failure: rpc::PreconditionFailure = details.details[0].to_msg().unwrap();
        assert_eq!(failure.violations[0].subject, format!("blobs/{nowhere}"));
        assert_eq!(get(&server, &action).await.unwrap_err().code(), Code::NotFound);
    }
    let no_action = server.put(vec![0xff; 20]).await;
    let status = update(&server, &no_action, ActionResult::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn instances_have_results_of_their_own() {
    // [56]
    let Some(server) = Server::with_instances("results of instances").await else { return };
    let action = action(&server, "a").await;
    let result = |exit_code| ActionResult { exit_code, ..Default::default() };
    update_in(&server, "", &action, result(1)).await.unwrap();
    update_in(&server, "team/main", &action, result(2)).await.unwrap();
    let hints = |name: &str| GetActionResultRequest { instance_name: name.to_owned(), ..Default::default() };
    assert_eq!(get_with(&server, &action, hints("")).await.unwrap().exit_code, 1);
    assert_eq!(get_with(&server, &action, hints("team/main")).await.unwrap().exit_code, 2);
    let status = get_with(&server, &action, hints("blake")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
