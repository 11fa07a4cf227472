//! The action cache, over a store that loses blobs. What any server has to do with results is in the conformance suite.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::reapi::{
    Action, ActionResult, Command, Directory, FileNode, GetActionResultRequest, OutputDirectory, OutputFile,
    Tree, UpdateActionResultRequest,
};
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::House;

/// Uploads an action and its command.
async fn action(house: &House, salt: &str) -> Digest {
    let command = Command { arguments: vec![salt.to_owned()], ..Default::default() };
    let command_digest = Some(house.put(command.encode_to_vec()).await.to_proto());
    house.put(Action { command_digest, ..Default::default() }.encode_to_vec()).await
}

async fn get(house: &House, action: &Digest) -> Result<ActionResult, Status> {
    let request = GetActionResultRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    Ok(house.results().get_action_result(request).await?.into_inner())
}

async fn update(house: &House, action: &Digest, result: ActionResult) -> Result<ActionResult, Status> {
    let request = UpdateActionResultRequest {
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(house.results().update_action_result(request).await?.into_inner())
}

fn file(path: &str, digest: &Digest) -> OutputFile {
    OutputFile { path: path.to_owned(), digest: Some(digest.to_proto()), ..Default::default() }
}

#[tokio::test]
async fn a_result_that_lost_a_blob_is_none_until_the_blob_is_back() {
    // [51]
    let house = House::start().await;
    let inner = Bytes::from_static(b"a file inside");
    let inner_digest = house.put(inner.clone()).await;
    let root = Directory {
        files: vec![FileNode {
            name: "inside".to_owned(),
            digest: Some(inner_digest.to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let tree = Tree { root: Some(root.clone()), children: Vec::new() }.encode_to_vec();
    let (root, tree) = (Bytes::from(root.encode_to_vec()), Bytes::from(tree));
    let (output, stdout) = (Bytes::from_static(b"an output"), Bytes::from_static(b"some words"));
    let blobs = [inner, root.clone(), tree.clone(), output.clone(), stdout.clone()];
    let result = ActionResult {
        output_files: vec![file("a", &house.put(output).await)],
        output_directories: vec![OutputDirectory {
            path: "d".to_owned(),
            tree_digest: Some(house.put(tree).await.to_proto()),
            root_directory_digest: Some(house.put(root).await.to_proto()),
            ..Default::default()
        }],
        stdout_digest: Some(house.put(stdout).await.to_proto()),
        ..Default::default()
    };
    let action = action(&house, "a").await;
    update(&house, &action, result).await.unwrap();
    assert!(get(&house, &action).await.is_ok());
    for blob in blobs {
        crate::disk::lose(&house, &blob).await;
        assert_eq!(get(&house, &action).await.unwrap_err().code(), Code::NotFound, "{blob:?}");
        house.put(blob).await;
        assert!(get(&house, &action).await.is_ok());
    }
}
