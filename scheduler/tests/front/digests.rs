//! Digests of every function, and those that anybody can forge. What is no digest is in the conformance suite.

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use tonic::Code;

use crate::support::{House, UNSET, item, noise, pieces};

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
