//! Digests that are none, or not what they seem.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::reapi::{self, digest_function};
use tonic::{Code, Status};

use crate::support::{SHA256, Server, UNSET, item, pieces, write_name};

/// Sends a digest to every method that takes one.
async fn everywhere(server: &Server, digest: &reapi::Digest) -> Vec<(&'static str, Result<(), Status>)> {
    let item =
        reapi::batch_update_blobs_request::Request { digest: Some(digest.clone()), ..Default::default() };
    let read = reapi::BatchReadBlobsRequest { digests: vec![digest.clone()], ..Default::default() };
    let tree = reapi::GetTreeRequest { root_digest: Some(digest.clone()), ..Default::default() };
    let get = reapi::GetActionResultRequest { action_digest: Some(digest.clone()), ..Default::default() };
    let update = reapi::UpdateActionResultRequest {
        action_digest: Some(digest.clone()),
        action_result: Some(reapi::ActionResult::default()),
        ..Default::default()
    };
    let name = format!("{}/{}", digest.hash, digest.size_bytes);
    let write = castwork_proto::bytestream::WriteRequest {
        resource_name: format!("uploads/u/blobs/{name}"),
        finish_write: true,
        ..Default::default()
    };
    vec![
        ("FindMissingBlobs", server.missing(UNSET, vec![digest.clone()]).await.map(drop)),
        ("BatchUpdateBlobs", server.update(UNSET, vec![item]).await.map(drop)),
        ("BatchReadBlobs", server.cas().batch_read_blobs(read).await.map(drop)),
        ("GetTree", server.cas().get_tree(tree).await.map(drop)),
        ("GetActionResult", server.results().get_action_result(get).await.map(drop)),
        ("UpdateActionResult", server.results().update_action_result(update).await.map(drop)),
        ("Read", server.read(&format!("blobs/{name}"), 0, 0).await.map(drop)),
        ("Write", server.write(vec![write]).await.map(drop)),
    ]
}

#[tokio::test]
async fn what_is_no_digest_is_refused_everywhere() {
    // [10], [11], [12]
    let server = Server::start().await;
    let good = Digest::of(SHA256, b"abc").hash_hex();
    let hashes = [
        (good.to_uppercase(), 3),
        (good[1..].to_owned(), 3),
        (format!("{good}0"), 3),
        (format!("g{}", &good[1..]), 3),
        (String::new(), 3),
        (format!("../{}", &good[3..]), 3),
        ("../../../../../../../etc/passwd".to_owned(), 3),
        (format!("\0{}", &good[1..]), 3),
        (good.clone(), -1),
        (good, i64::MIN),
    ];
    for (hash, size_bytes) in hashes {
        let digest = reapi::Digest { hash, size_bytes };
        for (method, answer) in everywhere(&server, &digest).await {
            let code = answer.map_err(|status| status.code());
            assert_eq!(code, Err(Code::InvalidArgument), "{method} of {digest:?}");
        }
    }
}

#[tokio::test]
async fn the_right_hash_with_another_size_is_another_blob() {
    // [13]
    let server = Server::start().await;
    let digest = server.put("some bytes").await;
    let other = Digest::from_hex(SHA256, &digest.hash_hex(), 9).unwrap();
    assert!(!server.has(&other).await);
    let read = reapi::BatchReadBlobsRequest { digests: vec![other.to_proto()], ..Default::default() };
    let answer = server.cas().batch_read_blobs(read).await.unwrap().into_inner();
    assert_eq!(answer.responses[0].status.as_ref().unwrap().code, Code::NotFound as i32);
    assert_eq!(server.read(&format!("blobs/{other}"), 0, 0).await.unwrap_err().code(), Code::NotFound);
    let data = Bytes::from_static(b"some bytes");
    assert_eq!(server.update(UNSET, vec![item(&other, data.clone())]).await.unwrap(), [3]);
    let write = pieces(&write_name("u", &other), &data, 100);
    assert_eq!(server.write(write).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn functions_are_inferred_named_or_refused() {
    // [14], [15]
    let server = Server::start().await;
    let sha1 = reapi::Digest { hash: "0".repeat(40), size_bytes: 1 };
    let sha256 = Digest::of(SHA256, b"x").to_proto();
    let code = |answer: Result<Vec<reapi::Digest>, Status>| answer.map_err(|status| status.code());
    assert_eq!(code(server.missing(UNSET, vec![sha1.clone()]).await), Ok(vec![sha1.clone()]));
    assert_eq!(code(server.missing(UNSET, vec![sha256.clone(), sha1]).await), Err(Code::InvalidArgument));
    assert_eq!(code(server.missing(99, vec![sha256.clone()]).await), Err(Code::InvalidArgument));
    let md5 = digest_function::Value::Md5 as i32;
    assert_eq!(code(server.missing(md5, vec![sha256]).await), Err(Code::InvalidArgument));

    let digest = server.put_as(crate::support::BLAKE3, "the same bytes").await;
    assert!(server.has(&digest).await);
    assert!(!server.has(&Digest::of(SHA256, b"the same bytes")).await);
}
