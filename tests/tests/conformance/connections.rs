//! What is common to all calls: messages, headers, compression, pings.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

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

/// As many as a client sends in a minute that asks every second whether the server is still there.
const PINGS: u64 = 60;

/// Kinds of frames of HTTP/2.
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_HEADERS: u8 = 4;
const ACKNOWLEDGED: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request whose body does not come, as a client writes it who knows no compression of headers.
fn write_that_waits() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/google.bytestream.ByteStream/Write"),
        (":authority", "castwork"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let literal = |(name, value)| [&[0][..], &text(name), &text(value)].concat();
    frame(HEADERS, END_HEADERS, 1, &fields.map(literal).concat())
}

/// The next frame: its kind, its flags and what is in it.
fn next_frame(stream: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    (head[3], head[4], payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_on_a_stream_that_is_idle_are_answered_however_many_come() {
    // [7]
    let server = Server::start().await;
    let address = server.address.clone();
    let pinging = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
        stream.write_all(&[preface, write_that_waits()].concat()).unwrap();
        for number in 0..PINGS {
            stream.write_all(&frame(PING, 0, 0, &number.to_be_bytes())).unwrap();
            loop {
                let (kind, flags, payload) = next_frame(&mut stream);
                assert_ne!(kind, GOAWAY, "after {number} pings: {:?}", String::from_utf8_lossy(&payload));
                if (kind, flags) == (PING, ACKNOWLEDGED) {
                    assert_eq!(payload, number.to_be_bytes());
                    break;
                }
            }
        }
    });
    pinging.await.unwrap();
}
