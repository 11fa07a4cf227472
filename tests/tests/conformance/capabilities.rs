//! What the server says of itself, and to whom.

use castwork_proto::bytestream::QueryWriteStatusRequest;
use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{self, GetCapabilitiesRequest, compressor, digest_function};
use tonic::{Code, Status};

use crate::support::{BLAKE3, SHA256, Server, call_raw};

#[tokio::test]
async fn old_and_new_clients_find_what_they_look_for() {
    // [1]
    let server = Server::start().await;
    let answer = server.capabilities().await;
    let version = |version: Option<castwork_proto::semver::SemVer>| {
        let version = version.expect("a version");
        (version.major, version.minor)
    };
    assert!(version(answer.low_api_version) <= (2, 0), "Bazel 4 refuses it otherwise");
    assert!(version(answer.high_api_version) >= (2, 0));
    let cache = answer.cache_capabilities.unwrap();
    assert!(!cache.digest_functions.contains(&(digest_function::Value::Unknown as i32)));
    assert!(cache.digest_functions.contains(&(digest_function::Value::Sha256 as i32)));
    assert!(cache.max_batch_total_size_bytes > 0, "some clients take 0 for what it says");
    let zstd = compressor::Value::Zstd as i32;
    assert!(cache.supported_compressors.first().is_none_or(|first| *first == zstd), "some look at the first");
    if let Some(execution) = answer.execution_capabilities {
        assert_eq!(execution.digest_function, digest_function::Value::Sha256 as i32, "old clients look here");
        assert!(execution.digest_functions.contains(&execution.digest_function));
    }
}

#[tokio::test]
async fn an_unknown_instance_is_refused_by_every_service() {
    // [2]
    let server = Server::start().await;
    let instance_name = "nobody/here".to_owned();
    let hash = "0".repeat(64);
    let digest = Some(reapi::Digest { hash: hash.clone(), size_bytes: 1 });
    let answers: [(&str, Status); 10] = [
        ("GetCapabilities", {
            let request = GetCapabilitiesRequest { instance_name: instance_name.clone() };
            CapabilitiesClient::new(server.channel.clone()).get_capabilities(request).await.unwrap_err()
        }),
        ("FindMissingBlobs", {
            let request =
                reapi::FindMissingBlobsRequest { instance_name: instance_name.clone(), ..Default::default() };
            server.cas().find_missing_blobs(request).await.unwrap_err()
        }),
        ("BatchUpdateBlobs", {
            let request =
                reapi::BatchUpdateBlobsRequest { instance_name: instance_name.clone(), ..Default::default() };
            server.cas().batch_update_blobs(request).await.unwrap_err()
        }),
        ("BatchReadBlobs", {
            let request =
                reapi::BatchReadBlobsRequest { instance_name: instance_name.clone(), ..Default::default() };
            server.cas().batch_read_blobs(request).await.unwrap_err()
        }),
        ("GetTree", {
            let request = reapi::GetTreeRequest {
                instance_name: instance_name.clone(),
                root_digest: digest.clone(),
                ..Default::default()
            };
            server.cas().get_tree(request).await.unwrap_err()
        }),
        ("GetActionResult", {
            let request = reapi::GetActionResultRequest {
                instance_name: instance_name.clone(),
                action_digest: digest.clone(),
                ..Default::default()
            };
            server.results().get_action_result(request).await.unwrap_err()
        }),
        ("UpdateActionResult", {
            let request = reapi::UpdateActionResultRequest {
                instance_name: instance_name.clone(),
                action_digest: digest.clone(),
                ..Default::default()
            };
            server.results().update_action_result(request).await.unwrap_err()
        }),
        ("Read", server.read(&format!("{instance_name}/blobs/{hash}/1"), 0, 0).await.unwrap_err()),
        ("QueryWriteStatus", {
            let resource_name = format!("{instance_name}/uploads/u/blobs/{hash}/1");
            let request = QueryWriteStatusRequest { resource_name };
            server.bytestream().query_write_status(request).await.unwrap_err()
        }),
        ("Execute", {
            let request = reapi::ExecuteRequest {
                instance_name: instance_name.clone(),
                action_digest: digest,
                ..Default::default()
            };
            ExecutionClient::new(server.channel.clone()).execute(request).await.unwrap_err()
        }),
    ];
    for (method, status) in answers {
        assert_eq!(status.code(), Code::InvalidArgument, "{method}");
        assert!(status.message().starts_with("Invalid instance name"), "{method}: {}", status.message());
    }
}

#[tokio::test]
async fn what_is_not_offered_is_unimplemented() {
    // [4]
    let server = Server::start().await;
    for path in ["/nobody.Knows/This", "/build.bazel.remote.execution.v2.ActionCache/Forget"] {
        let status = call_raw(&server.channel, path, bytes::Bytes::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn an_unset_function_means_what_the_instance_says() {
    // [16]
    let Some(server) = Server::with_instances("the function of an instance").await else { return };
    let digest = server.put_as(BLAKE3, "some bytes").await;
    let missing = |instance_name: &str| {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: instance_name.to_owned(),
            blob_digests: vec![digest.to_proto()],
            ..Default::default()
        };
        let mut cas = server.cas();
        async move { cas.find_missing_blobs(request).await.unwrap().into_inner().missing_blob_digests.len() }
    };
    assert_eq!(missing("").await, 1);
    assert_eq!(missing("blake").await, 0);
    assert_eq!(server.read(&format!("blake/blobs/{digest}"), 0, 0).await.unwrap(), "some bytes");
    let status = server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(server.read(&format!("blobs/blake3/{digest}"), 0, 0).await.unwrap(), "some bytes");
    assert_eq!(SHA256.name(), "sha256");
}
