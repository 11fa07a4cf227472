//! What is common to all calls: messages, headers, compression, the HTTP port.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse, RequestMetadata};
use castwork_scheduler::front::metadata::HEADER;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::support::{House, SHA256, call_raw};

const FIND_MISSING: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";

/// What the HTTP port answers.
pub(crate) async fn http_get(house: &House, path: &str) -> String {
    let mut stream = TcpStream::connect(house.server.http_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metadata_changes_no_answer_whatever_is_in_it() {
    // [3]
    let house = House::start().await;
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
        let answer = house.cas().find_missing_blobs(request).await.unwrap().into_inner();
        assert_eq!(answer.missing_blob_digests.len(), 1, "{header:?}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_clients_fault_and_the_connection_goes_on() {
    // [5]
    let house = House::start().await;
    // A length beyond the end; a hash that is no UTF-8.
    for garbage in [&b"\x12\xff\xff"[..], b"\x12\x04\x0a\x02\xff\xfe"] {
        let status = call_raw(&house.channel, FIND_MISSING, Bytes::from_static(garbage)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
        let status =
            call_raw(&house.channel, "/google.bytestream.ByteStream/Write", Bytes::from_static(garbage))
                .await
                .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    let answer = call_raw(&house.channel, FIND_MISSING, Bytes::new()).await.unwrap();
    assert_eq!(FindMissingBlobsResponse::decode(answer).unwrap(), FindMissingBlobsResponse::default());
}

#[tokio::test]
async fn compressed_messages_are_taken() {
    // [6]
    let house = House::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let request = FindMissingBlobsRequest {
            blob_digests: vec![Digest::of(SHA256, b"x").to_proto(); 100],
            ..Default::default()
        };
        let answer = house.cas().send_compressed(encoding).find_missing_blobs(request).await.unwrap();
        assert_eq!(answer.into_inner().missing_blob_digests.len(), 1);
    }
}

#[tokio::test]
async fn the_http_port_has_health_and_metrics() {
    let house = House::start().await;
    house.put("four").await;
    assert!(http_get(&house, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
    let metrics = http_get(&house, "/metrics").await;
    for line in [
        "castwork_requests_total 1",
        "castwork_blobs_stored_total 1",
        "castwork_blob_stored_bytes_total 4",
        "castwork_store_bytes 4096",
        "castwork_actions_queued 0",
        "# TYPE castwork_store_bytes gauge",
    ] {
        assert!(metrics.lines().any(|got| got == line), "{line} is not in\n{metrics}");
    }
    assert!(http_get(&house, "/nothing").await.starts_with("HTTP/1.1 404"));
}
