//! Many blobs a call.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_cas::codec::compress_bytes;
use castwork_proto::reapi::{self, BatchReadBlobsRequest, BatchReadBlobsResponse, compressor};
use prost::Message as _;
use tonic::Code;

use crate::support::{SHA256, Server, UNSET, item, noise};

const BATCH_BYTES_MAX: usize = (4 << 20) - (64 << 10);

async fn read(server: &Server, digests: &[Digest], acceptable: &[i32]) -> BatchReadBlobsResponse {
    let request = BatchReadBlobsRequest {
        digests: digests.iter().map(Digest::to_proto).collect(),
        acceptable_compressors: acceptable.to_vec(),
        ..Default::default()
    };
    server.cas().batch_read_blobs(request).await.unwrap().into_inner()
}

fn codes(answer: &BatchReadBlobsResponse) -> Vec<i32> {
    answer.responses.iter().map(|response| response.status.as_ref().expect("it is always set").code).collect()
}

#[tokio::test]
async fn find_missing_knows_the_empty_blob_and_names_others_once() {
    // [17]
    let server = Server::start().await;
    let (here, gone) = (server.put("here").await, Digest::of(SHA256, b"gone"));
    let empty = Digest::empty(SHA256);
    let liar = Digest::from_hex(SHA256, &"0".repeat(64), 0).unwrap();
    assert!(server.missing(UNSET, Vec::new()).await.unwrap().is_empty());
    let asked = [here, gone, empty, liar, gone, here].iter().map(Digest::to_proto).collect();
    let mut missing = server.missing(UNSET, asked).await.unwrap();
    missing.sort_by_key(|digest| digest.size_bytes);
    assert_eq!(missing, [liar.to_proto(), gone.to_proto()]);
}

#[tokio::test]
async fn find_missing_takes_the_lists_of_large_builds() {
    // [18]
    let server = Server::start().await;
    let digests = (0..200_000_u32).map(|number| Digest::of(SHA256, &number.to_le_bytes()).to_proto());
    assert_eq!(server.missing(UNSET, digests.collect()).await.unwrap().len(), 200_000);
}

#[tokio::test]
async fn every_blob_of_an_update_has_its_own_answer() {
    // [19], [20]
    let server = Server::start().await;
    let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
    let good = item(&Digest::of(SHA256, &one), one.clone());
    let wrong = item(&Digest::of(SHA256, &two), one.clone());
    let empty = item(&Digest::empty(SHA256), Bytes::new());
    assert_eq!(server.update(UNSET, Vec::new()).await.unwrap(), [0; 0]);
    let answers = server.update(UNSET, vec![good.clone(), wrong, good.clone(), empty]).await.unwrap();
    assert_eq!(answers, [0, 3, 0, 0]);
    assert_eq!(server.update(UNSET, vec![good]).await.unwrap(), [0]);
    assert!(server.has(&Digest::of(SHA256, &one)).await);
    assert!(!server.has(&Digest::of(SHA256, &two)).await);
    let wrong = item(&Digest::of(SHA256, &one), two);
    assert_eq!(server.update(UNSET, vec![wrong]).await.unwrap(), [3], "though the blob is there");
}

#[tokio::test]
async fn an_update_that_is_too_large_stores_nothing() {
    // [21]
    let server = Server::start().await;
    let half = |seed| noise(seed, BATCH_BYTES_MAX / 2);
    let items = |blobs: &[Bytes]| -> Vec<_> {
        blobs.iter().map(|data| item(&Digest::of(SHA256, data), data.clone())).collect()
    };
    let status = server.update(UNSET, items(&[half(1), half(2), noise(3, 1)])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!server.has(&Digest::of(SHA256, &half(1))).await);
    assert_eq!(server.update(UNSET, items(&[half(1), half(2)])).await.unwrap(), [0, 0]);
    let status = server.update(UNSET, items(&[noise(4, 17 << 20)])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "though it is more than a message may be");
}

#[tokio::test]
async fn compressed_items_are_unpacked_within_what_they_declare() {
    // [22], [23]
    let server = Server::start().await;
    let zstd = compressor::Value::Zstd as i32;
    let packed = |digest: &Digest, data: Bytes, compressor: i32| reapi::batch_update_blobs_request::Request {
        compressor,
        ..item(digest, data)
    };
    let data = Bytes::from(vec![7; 100_000]);
    let digest = Digest::of(SHA256, &data);
    let frame = compress_bytes(&data).unwrap();
    let small = Digest::of(SHA256, b"12345678");
    let huge = Digest::from_hex(SHA256, &"0".repeat(64), 2 << 30).unwrap();
    let bomb = compress_bytes(&vec![0; 10_000_000]).unwrap();
    let answers = server
        .update(
            UNSET,
            vec![
                packed(&digest, frame.clone(), zstd),
                packed(&small, bomb, zstd),
                packed(&huge, frame.slice(..17), zstd),
                packed(&small, Bytes::from_static(b"no zstd at all"), zstd),
                packed(&small, Bytes::from_static(b"12345678"), 77),
                packed(&small, Bytes::from_static(b"12345678"), compressor::Value::Brotli as i32),
            ],
        )
        .await
        .unwrap();
    assert_eq!(answers, [0, 3, 3, 3, 3, 3]);
    assert_eq!(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn every_blob_of_a_read_has_its_own_answer() {
    // [24]
    let server = Server::start().await;
    let (here, gone) = (server.put("here").await, Digest::of(SHA256, b"gone"));
    let answer = read(&server, &[here, gone, Digest::empty(SHA256), here], &[]).await;
    assert_eq!(codes(&answer), [0, 5, 0, 0]);
    let data: Vec<&[u8]> = answer.responses.iter().map(|response| &response.data[..]).collect();
    assert_eq!(data, [&b"here"[..], b"", b"", b"here"]);
}

#[tokio::test]
async fn a_read_is_compressed_only_for_whoever_takes_that_and_says_so() {
    // [25]
    let server = Server::start().await;
    let plain = Bytes::from(vec![7; 50_000]);
    let digests = [server.put(plain.clone()).await, server.put(noise(1, 50_000)).await];
    let zstd = compressor::Value::Zstd as i32;
    let answer = read(&server, &digests, &[]).await;
    assert!(answer.responses.iter().all(|response| response.compressor == 0));
    let answer = read(&server, &digests, &[zstd]).await;
    assert_eq!(answer.responses[0].compressor, zstd);
    assert_eq!(zstd::bulk::decompress(&answer.responses[0].data, 50_000).unwrap(), plain);
    assert_eq!(answer.responses[1].compressor, 0, "packing would make it larger");
    assert_eq!(answer.responses[1].data, noise(1, 50_000));
}

#[tokio::test]
async fn what_does_not_fit_into_a_read_is_left_out_and_the_rest_is_there() {
    // [26]
    let server = Server::start().await;
    let mut digests = Vec::new();
    for seed in 0..6 {
        digests.push(server.put(noise(seed, 1 << 20)).await);
    }
    digests.push(server.put("small").await);
    let answer = read(&server, &digests, &[]).await;
    assert_eq!(codes(&answer), [0, 0, 0, 8, 8, 8, 0]);
    assert!(answer.encoded_len() < 4 << 20);
    let many = vec![digests[6]; 20_000];
    assert!(read(&server, &many, &[]).await.encoded_len() < 4 << 20);
    let request =
        BatchReadBlobsRequest { digests: vec![digests[6].to_proto(); 100_000], ..Default::default() };
    let status = server.cas().batch_read_blobs(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
