//! What is common to all calls: messages, headers, compression.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse, RequestMetadata};
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::support::{SHA256, Server, call_raw};

/// Where clients say what a call is for.
const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

const FIND_MISSING: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";

#[tokio::test]
async fn metadata_changes_no_answer_whatever_is_in_it() {
    // [3]
    let server = Server::start().await;
    let digest = Digest::of(SHA256, b"x").to_proto();
    let good = RequestMetadata { tool_invocation_id: "run".to_owned(), ..Default::default() }.encode_to_vec();
    for header in [None, Some(good), Some(vec![0xff; 50]), Some(Vec::new())] {
        let mut request = Request::new(FindMissingBlobsRequest {
            blob_digests: vec![digest.clone()],
            ..Default::default()
        });
        if let Some(bytes) = &header {
            request.metadata_mut().insert_bin(HEADER, MetadataValue::from_bytes(bytes));
        }
        let answer = server.cas().find_missing_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.missing_blob_digests.len(), 1, "{header:?}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_clients_fault_and_the_connection_goes_on() {
    // [5]
    let server = Server::start().await;
    // A length beyond the end; a hash that is no UTF-8.
    for garbage in [&b"\x12\xff\xff"[..], b"\x12\x04\x0a\x02\xff\xfe"] {
        let status = call_raw(&server.channel, FIND_MISSING, Bytes::from_static(garbage)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
        let status =
            call_raw(&server.channel, "/google.bytestream.ByteStream/Write", Bytes::from_static(garbage))
                .await
                .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    let answer = call_raw(&server.channel, FIND_MISSING, Bytes::new()).await.unwrap();
    assert_eq!(FindMissingBlobsResponse::decode(answer).unwrap(), FindMissingBlobsResponse::default());
}

#[tokio::test]
async fn compressed_messages_are_taken() {
    // [6]
    let server = Server::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let request = FindMissingBlobsRequest {
            blob_digests: vec![Digest::of(SHA256, b"x").to_proto(); 100],
            ..Default::default()
        };
        let answer = server.cas().send_compressed(encoding).find_missing_blobs(request).await.unwrap();
        assert_eq!(answer.into_inner().missing_blob_digests.len(), 1);
    }
}
