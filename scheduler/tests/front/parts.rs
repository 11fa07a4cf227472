//! Messages of few bytes and very many parts, which would take a hundred times their length in memory.

use castwork_proto::reapi::{
    ActionResult, Directory, FileNode, GetTreeRequest, OutputFile, UpdateActionResultRequest,
};
use prost::Message as _;
use tonic::Code;

use crate::http::{get, put};
use crate::support::House;

const PARTS: usize = 100_000;

#[tokio::test]
async fn a_message_of_too_many_parts_is_refused_before_it_is_decoded_whoever_sends_it() {
    let house = House::start().await;
    let result = ActionResult { output_files: vec![OutputFile::default(); PARTS], ..Default::default() };
    let bytes = result.encode_to_vec();
    assert_eq!(bytes.len(), 2 * PARTS);

    let request = UpdateActionResultRequest { action_result: Some(result), ..Default::default() };
    let refused = house.results().update_action_result(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("so many parts"), "{refused}");

    let path = format!("/ac/{}", "a".repeat(64));
    assert_eq!(put(&house, &path, &bytes).await, 400);
    assert_eq!(get(&house, &path).await.status, 404);
    // One of as many bytes that says something is taken.
    let long = ActionResult { stdout_raw: vec![7; 2 * PARTS].into(), ..Default::default() };
    assert_eq!(put(&house, &path, &long.encode_to_vec()).await, 201);
    assert_eq!(get(&house, &path).await.status, 200);

    let directory = Directory { files: vec![FileNode::default(); PARTS], ..Default::default() };
    let root = house.put(directory.encode_to_vec()).await;
    let request = GetTreeRequest { root_digest: Some(root.to_proto()), ..Default::default() };
    assert_eq!(house.cas().get_tree(request).await.unwrap_err().code(), Code::InvalidArgument);
}
