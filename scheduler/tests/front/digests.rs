//! Digests that are none, or not what they seem.

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::{self, digest_function};
use tonic::{Code, Status};

use crate::support::{House, SHA256, UNSET, item, noise, pieces, write_name};

/// Sends a digest to every method that takes one.
async fn everywhere(house: &House, digest: &reapi::Digest) -> Vec<(&'static str, Result<(), Status>)> {
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
        ("FindMissingBlobs", house.missing(UNSET, vec![digest.clone()]).await.map(drop)),
        ("BatchUpdateBlobs", house.update(UNSET, vec![item]).await.map(drop)),
        ("BatchReadBlobs", house.cas().batch_read_blobs(read).await.map(drop)),
        ("GetTree", house.cas().get_tree(tree).await.map(drop)),
        ("GetActionResult", house.results().get_action_result(get).await.map(drop)),
        ("UpdateActionResult", house.results().update_action_result(update).await.map(drop)),
        ("Read", house.read(&format!("blobs/{name}"), 0, 0).await.map(drop)),
        ("Write", house.write(vec![write]).await.map(drop)),
    ]
}

#[tokio::test]
async fn what_is_no_digest_is_refused_everywhere() {
    // [10], [11], [12]
    let house = House::start().await;
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
        for (method, answer) in everywhere(&house, &digest).await {
            let code = answer.map_err(|status| status.code());
            assert_eq!(code, Err(Code::InvalidArgument), "{method} of {digest:?}");
        }
    }
}

#[tokio::test]
async fn the_right_hash_with_another_size_is_another_blob() {
    // [13]
    let house = House::start().await;
    let digest = house.put("some bytes").await;
    let other = Digest::from_hex(SHA256, &digest.hash_hex(), 9).unwrap();
    assert!(!house.has(&other).await);
    let read = reapi::BatchReadBlobsRequest { digests: vec![other.to_proto()], ..Default::default() };
    let answer = house.cas().batch_read_blobs(read).await.unwrap().into_inner();
    assert_eq!(answer.responses[0].status.as_ref().unwrap().code, Code::NotFound as i32);
    assert_eq!(house.read(&format!("blobs/{other}"), 0, 0).await.unwrap_err().code(), Code::NotFound);
    let data = Bytes::from_static(b"some bytes");
    assert_eq!(house.update(UNSET, vec![item(&other, data.clone())]).await.unwrap(), [3]);
    let write = pieces(&write_name("u", &other), &data, 100);
    assert_eq!(house.write(write).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn functions_are_inferred_named_or_refused() {
    // [14], [15]
    let house = House::start().await;
    let sha1 = reapi::Digest { hash: "0".repeat(40), size_bytes: 1 };
    let sha256 = Digest::of(SHA256, b"x").to_proto();
    let code = |answer: Result<Vec<reapi::Digest>, Status>| answer.map_err(|status| status.code());
    assert_eq!(code(house.missing(UNSET, vec![sha1.clone()]).await), Ok(vec![sha1.clone()]));
    assert_eq!(code(house.missing(UNSET, vec![sha256.clone(), sha1]).await), Err(Code::InvalidArgument));
    assert_eq!(code(house.missing(99, vec![sha256.clone()]).await), Err(Code::InvalidArgument));
    let md5 = digest_function::Value::Md5 as i32;
    assert_eq!(code(house.missing(md5, vec![sha256]).await), Err(Code::InvalidArgument));

    let digest = house.put_as(crate::support::BLAKE3, "the same bytes").await;
    assert!(house.has(&digest).await);
    assert!(!house.has(&Digest::of(SHA256, b"the same bytes")).await);
}

#[tokio::test]
async fn every_function_names_blobs_and_is_inferred_where_its_length_tells() {
    let house = House::start_in_instance("[[instance]]\nname = \"old\"\ndigest-function = \"md5\"\n").await;
    let data = noise(5, 300_000);
    for function in DigestFunction::ALL {
        let digest = Digest::of(function, &data);
        let instance = if function == DigestFunction::Md5 { "old" } else { "" };
        let prefix = if instance.is_empty() { String::new() } else { format!("{instance}/") };
        let segment = if function == DigestFunction::Blake3 { "blake3/" } else { "" };
        let name = format!("{prefix}uploads/u/blobs/{segment}{digest}");
        assert_eq!(house.write(pieces(&name, &data, 100_000)).await.unwrap(), 300_000, "{function:?}");
        let unset = if segment.is_empty() { UNSET } else { function.to_proto() as i32 };
        assert_eq!(house.missing(unset, vec![digest.to_proto()]).await.unwrap(), [], "{function:?}");
        let name = format!("{prefix}blobs/{segment}{digest}");
        assert_eq!(house.read(&name, 0, 0).await.unwrap(), data, "{function:?}");
        let wrong = pieces(
            &format!("{prefix}uploads/u/blobs/{segment}{}", Digest::of(function, b"x")),
            &data,
            100_000,
        );
        assert_eq!(house.write(wrong).await.unwrap_err().code(), Code::InvalidArgument, "{function:?}");
        assert!(house.missing(unset, vec![Digest::empty(function).to_proto()]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_anybody_can_forge_is_stored_only_where_the_server_was_configured_for_it() {
    let house = House::start_in_instance("[[instance]]\nname = \"old\"\ndigest-function = \"md5\"\n").await;
    let md5 = Digest::of(DigestFunction::Md5, b"old");
    let messages =
        |prefix: &str| pieces(&format!("{prefix}uploads/u/blobs/{md5}"), &Bytes::from_static(b"old"), 9);
    assert_eq!(house.write(messages("")).await.unwrap_err().code(), Code::PermissionDenied);
    let refused = house.update(UNSET, vec![item(&md5, Bytes::from_static(b"old"))]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let result = reapi::UpdateActionResultRequest {
        action_digest: Some(md5.to_proto()),
        action_result: Some(reapi::ActionResult::default()),
        ..Default::default()
    };
    let refused = house.results().update_action_result(result).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(!house.has(&md5).await, "it may be asked for");
    assert_eq!(house.write(messages("old/")).await.unwrap(), 3);
    assert!(house.has(&md5).await, "and read, by everyone");
    assert_eq!(house.read(&format!("blobs/{md5}"), 0, 0).await.unwrap(), "old");
}
