//! Talks to a real server on this machine, well-behaved and not.

mod server;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use castwork_proto::reapi;
use futures::StreamExt as _;
use rand::{Rng as _, SeedableRng as _};
use server::{Behaviour, Fault, Server};
use tonic::Code;

use super::{REQUEST_METADATA, Remote, RemoteConfig};
use crate::store::{ByteRange, collect, stream_of};
use crate::{ActionCache, ActionKey, BlobStore, BlobStream, Digest, DigestFunction, StoreError};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

fn config(address: String) -> RemoteConfig {
    RemoteConfig {
        address,
        instance: "main".to_owned(),
        function: FUNCTION,
        token: None,
        request_metadata: None,
        timeout: Duration::from_secs(60),
    }
}

async fn start(behaviour: Behaviour) -> (Server, Remote) {
    let server = Server::start(behaviour).await;
    let remote = Remote::connect_lazy(&config(format!("grpc://{}", server.address))).unwrap();
    (server, remote)
}

/// Bytes that do not compress.
fn blob(size: usize, seed: u64) -> (Digest, Bytes) {
    let mut data = vec![0; size];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut data[..]);
    (Digest::of(FUNCTION, &data), data.into())
}

/// Bytes that compress well.
fn text(size: usize) -> (Digest, Bytes) {
    let data: Bytes = b"the same again. ".iter().copied().cycle().take(size).collect();
    (Digest::of(FUNCTION, &data), data)
}

fn pieces(data: &Bytes, size: usize) -> BlobStream {
    let pieces: Vec<_> = data.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces).boxed()
}

async fn read(remote: &Remote, digest: &Digest, range: ByteRange) -> Result<Bytes, StoreError> {
    collect(BlobStore::get(remote, digest, range).await?, u64::MAX).await
}

fn code(error: &StoreError) -> Code {
    match error {
        StoreError::Remote { source, .. } => source.code(),
        other => panic!("{other:?} is not of the server"),
    }
}

/// Sizes around every bound: batch or stream, one message or several.
const SIZES: [usize; 9] = [0, 1, 4096, 262_144, 262_145, 1_048_575, 1_048_576, 1_048_577, 5_000_000];

#[tokio::test]
async fn blobs_of_any_size_survive_both_ways_plain_and_compressed() {
    for zstd in [false, true] {
        let (_server, remote) = start(Behaviour { zstd, ..Behaviour::default() }).await;
        for size in SIZES {
            for (digest, data) in [blob(size, 1), text(size)] {
                BlobStore::put(&remote, &digest, pieces(&data, 70_001)).await.unwrap();
                assert_eq!(remote.find_missing(&[digest]).await.unwrap(), [], "{size}");
                assert_eq!(read(&remote, &digest, ByteRange::ALL).await.unwrap(), data, "{size}");
                let offset = size as u64 / 3;
                let range = ByteRange { offset, limit: None };
                assert_eq!(read(&remote, &digest, range).await.unwrap(), data[size / 3..], "{size}");
                let range = ByteRange { offset, limit: Some(7) };
                let part = &data[size / 3..(size / 3 + 7).min(size)];
                assert_eq!(read(&remote, &digest, range).await.unwrap(), part, "{size}");
                let range = ByteRange { offset, limit: Some(0) };
                assert_eq!(read(&remote, &digest, range).await.unwrap(), "", "{size}");
            }
        }
    }
}

#[tokio::test]
async fn many_blobs_take_few_calls_and_large_ones_go_beside() {
    for zstd in [false, true] {
        let (server, remote) = start(Behaviour { zstd, ..Behaviour::default() }).await;
        let mut blobs: Vec<_> = (0..1000).map(|seed| blob(1000, seed)).collect();
        blobs.extend([blob(0, 0), blob(3_000_000, 1), text(2_000_000)]);
        blobs.push(blobs[0].clone());
        remote.put_many(blobs.clone()).await.unwrap();
        assert_eq!(server.calls("batch_update"), 2, "a thousand of a thousand bytes into a MiB each");
        assert_eq!(server.calls("write"), 2);
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(remote.find_missing(&digests).await.unwrap(), []);
        let answers = remote.get_many(&digests).await;
        assert_eq!(answers.len(), 1003, "each once");
        for (digest, answer) in answers {
            assert_eq!(Digest::of(FUNCTION, &answer.unwrap()), digest);
        }
        assert_eq!((server.calls("batch_read"), server.calls("read")), (2, 2));
        assert_eq!(server.calls("capabilities"), 1, "asked once");
    }
}

#[tokio::test]
async fn missing_blobs_are_missing_in_every_way_to_ask() {
    let (_server, remote) = start(Behaviour::default()).await;
    let (there, data) = blob(10, 1);
    BlobStore::put(&remote, &there, stream_of(data)).await.unwrap();
    let (small, large) = (blob(10, 2).0, blob(2_000_000, 3).0);
    let mut missing = remote.find_missing(&[small, there, large, small]).await.unwrap();
    missing.sort();
    let mut expected = [small, large];
    expected.sort();
    assert_eq!(missing, expected, "each once");
    for digest in [small, large] {
        for range in
            [ByteRange::ALL, ByteRange { offset: 1, limit: Some(3) }, ByteRange { offset: 1, limit: Some(0) }]
        {
            let answer = read(&remote, &digest, range).await;
            assert!(matches!(answer, Err(StoreError::Missing(missing)) if missing == digest));
        }
    }
    for (digest, answer) in remote.get_many(&[small, there, large]).await {
        assert_eq!(answer.is_ok(), digest == there);
        assert!(digest == there || matches!(answer, Err(StoreError::Missing(_))));
    }
    let past = BlobStore::get(&remote, &there, ByteRange { offset: 11, limit: None }).await;
    assert!(matches!(past, Err(StoreError::Range { offset: 11, .. })));
}

#[tokio::test]
async fn wrong_bytes_of_a_server_reach_nobody() {
    for zstd in [false, true] {
        let (_server, remote) =
            start(Behaviour { fault: Some(Fault::WrongBytes), zstd, ..Behaviour::default() }).await;
        for size in [1, 10_000, 3_000_000] {
            let (digest, data) = blob(size, 1);
            BlobStore::put(&remote, &digest, stream_of(data)).await.unwrap();
            let answer = read(&remote, &digest, ByteRange::ALL).await;
            assert!(matches!(answer, Err(StoreError::Mismatch { .. })), "{size}: {answer:?}");
            let (_, answer) = remote.get_many(&[digest]).await.pop().unwrap();
            assert!(matches!(answer, Err(StoreError::Mismatch { .. })), "{size}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_ends_short_is_an_error_whole_or_in_part() {
    let (_server, remote) = start(Behaviour { fault: Some(Fault::Short), ..Behaviour::default() }).await;
    let (digest, data) = blob(1_500_000, 1);
    BlobStore::put(&remote, &digest, stream_of(data)).await.unwrap();
    let whole = read(&remote, &digest, ByteRange::ALL).await;
    assert!(matches!(whole, Err(StoreError::Mismatch { .. })));
    let part = read(&remote, &digest, ByteRange { offset: 5, limit: Some(1000) }).await.unwrap_err();
    assert_eq!(code(&part), Code::DataLoss);
}

#[tokio::test]
async fn a_blob_with_wrong_bytes_is_never_sent_whole() {
    let (_server, remote) = start(Behaviour::default()).await;
    for size in [10, 2_000_000] {
        let (digest, data) = blob(size, 1);
        for wrong in [data.slice(1..), [&data[..], b"x"].concat().into(), blob(size, 2).1] {
            let answer = BlobStore::put(&remote, &digest, pieces(&wrong, 50_000)).await;
            assert!(matches!(answer, Err(StoreError::Mismatch { expected, .. }) if expected == digest));
        }
        assert_eq!(remote.find_missing(&[digest]).await.unwrap(), [digest]);
    }
}

#[tokio::test]
async fn the_error_of_who_gives_the_bytes_comes_back_to_them() {
    let (server, remote) = start(Behaviour::default()).await;
    let (digest, data) = blob(5_000_000, 1);
    let broken = pieces(&data.slice(..3_000_000), 100_000)
        .chain(futures::stream::once(async move { Err(StoreError::Missing(digest)) }));
    let answer = BlobStore::put(&remote, &digest, broken.boxed()).await;
    assert!(matches!(answer, Err(StoreError::Missing(_))), "{answer:?}");
    assert!(server.state.blobs.get_bytes(&digest).is_none());
}

#[tokio::test]
async fn uploads_go_in_messages_of_a_mebibyte_and_the_name_stands_in_the_first() {
    let (server, remote) = start(Behaviour::default()).await;
    let (digest, data) = blob(2_500_000, 1);
    for size in [1000, 5_000_000] {
        BlobStore::put(&remote, &digest, pieces(&data, size)).await.unwrap();
        let writes = std::mem::take(&mut *server.state.writes.lock().unwrap());
        let sizes: Vec<usize> = writes.iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]);
        assert!(
            writes[0].0.starts_with("main/uploads/") && writes[1..].iter().all(|(name, _)| name.is_empty())
        );
    }
}

#[tokio::test]
async fn a_server_that_has_the_blob_may_answer_before_the_end() {
    // Plain: the size. Compressed: -1, or whatever came so far, which is looked into.
    for (zstd, committed) in [(false, 20_000_000), (true, -1), (true, 1_048_576)] {
        let behaviour = Behaviour { zstd, early: Some(committed), ..Behaviour::default() };
        let (server, remote) = start(behaviour).await;
        let (digest, data) = blob(20_000_000, 1);
        server.state.blobs.put_bytes(&digest, data.clone()).unwrap();
        BlobStore::put(&remote, &digest, pieces(&data, 1 << 20)).await.unwrap();
        assert_eq!(server.calls("write"), 1);
        assert_eq!(server.calls("find_missing"), usize::from(committed == 1_048_576));
    }
}

#[tokio::test]
async fn a_server_that_says_it_has_less_has_not_kept_the_blob() {
    let (_server, remote) = start(Behaviour { early: Some(1000), ..Behaviour::default() }).await;
    let (digest, data) = blob(2_000_000, 1);
    let error = BlobStore::put(&remote, &digest, stream_of(data)).await.unwrap_err();
    assert_eq!(code(&error), Code::DataLoss);
}

#[tokio::test]
async fn statuses_that_are_left_out_mean_ok() {
    let (_server, remote) = start(Behaviour { fault: Some(Fault::NoStatus), ..Behaviour::default() }).await;
    let (digest, data) = blob(100, 1);
    remote.put_many(vec![(digest, data.clone())]).await.unwrap();
    assert_eq!(remote.get_many(&[digest]).await.pop().unwrap().1.unwrap(), data);
}

#[tokio::test]
async fn blobs_that_a_batch_leaves_out_are_read_each_by_itself() {
    for code in [Code::Ok, Code::ResourceExhausted] {
        let (server, remote) = start(Behaviour { in_batches: Some(code), ..Behaviour::default() }).await;
        let blobs: Vec<_> = (0..5).map(|seed| blob(100, seed)).collect();
        for (digest, data) in &blobs {
            server.state.blobs.put_bytes(digest, data.clone()).unwrap();
        }
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let answers = remote.get_many(&digests).await;
        assert!(answers.len() == 5 && answers.iter().all(|(_, answer)| answer.is_ok()));
        assert_eq!(server.calls("read"), 5);
    }
}

#[tokio::test]
async fn a_blob_that_a_batch_refuses_or_forgets_is_an_error() {
    let put = async |code| {
        let (_server, remote) = start(Behaviour { in_batches: Some(code), ..Behaviour::default() }).await;
        remote.put_many(vec![blob(100, 1)]).await
    };
    assert_eq!(code(&put(Code::Ok).await.unwrap_err()), Code::DataLoss, "no answer is no promise");
    assert_eq!(code(&put(Code::InvalidArgument).await.unwrap_err()), Code::InvalidArgument);
    assert!(matches!(put(Code::ResourceExhausted).await, Err(StoreError::Full { .. })));
    assert!(put(Code::AlreadyExists).await.is_ok());
}

#[tokio::test]
async fn what_fails_once_is_tried_again_and_what_fails_twice_is_not() {
    let (server, remote) = start(Behaviour::default()).await;
    let (small, large) = (blob(100, 1), blob(3_000_000, 2));
    remote.capabilities().await.unwrap();
    let once = || server.state.failing.store(1, Ordering::Release);
    once();
    remote.put_many(vec![small.clone()]).await.unwrap();
    once();
    remote.put_many(vec![large.clone()]).await.unwrap();
    once();
    assert_eq!(remote.find_missing(&[small.0]).await.unwrap(), []);
    once();
    assert_eq!(read(&remote, &large.0, ByteRange::ALL).await.unwrap(), large.1);
    server.state.failing.store(2, Ordering::Release);
    let error = remote.find_missing(&[small.0]).await.unwrap_err();
    assert_eq!(code(&error), Code::Unavailable);
    assert_eq!(server.calls("find_missing"), 4);
}

#[tokio::test]
async fn a_server_that_says_that_it_has_no_workers_is_believed() {
    for no_workers in [false, true] {
        let (_server, remote) = start(Behaviour { no_workers, ..Behaviour::default() }).await;
        assert_eq!(remote.capabilities().await.unwrap().has_workers, !no_workers);
    }
}

#[tokio::test]
async fn capabilities_that_could_not_be_had_are_asked_for_again() {
    let (server, remote) = start(Behaviour::default()).await;
    server.state.failing.store(2, Ordering::Release);
    let (digest, data) = blob(10, 1);
    assert!(remote.get_many(&[digest, blob(10, 2).0]).await.iter().all(|(_, answer)| answer.is_err()));
    BlobStore::put(&remote, &digest, stream_of(data)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for_for_ever() {
    let server = Server::start(Behaviour { fault: Some(Fault::Silent), ..Behaviour::default() }).await;
    let config =
        RemoteConfig { timeout: Duration::from_millis(50), ..config(format!("grpc://{}", server.address)) };
    let remote = Remote::connect_lazy(&config).unwrap();
    let (digest, data) = blob(2_000_000, 1);
    let error = remote.find_missing(&[digest]).await.unwrap_err();
    // Whichever of the two clocks is first.
    assert!(matches!(code(&error), Code::DeadlineExceeded | Code::Cancelled), "{error:?}");
    let error = remote.write_stream(&digest, stream_of(data)).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    // A port that is taken, so that nobody else gets it, and on which nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let remote = Remote::connect_lazy(&config(format!("grpc://{address}"))).unwrap();
    let error = remote.find_missing(&[blob(1, 1).0]).await.unwrap_err();
    assert_eq!(code(&error), Code::Unavailable);
}

#[tokio::test]
async fn results_are_kept_and_an_unknown_action_has_none() {
    let (_server, remote) = start(Behaviour::default()).await;
    let key = ActionKey { instance: "of another place".into(), action: blob(5, 1).0 };
    assert_eq!(ActionCache::get(&remote, &key).await.unwrap(), None);
    let result = reapi::ActionResult { exit_code: 3, ..Default::default() };
    ActionCache::put(&remote, &key, result.clone()).await.unwrap();
    assert_eq!(ActionCache::get(&remote, &key).await.unwrap(), Some(result));
}

#[tokio::test]
async fn every_call_says_who_asks() {
    let server = Server::start(Behaviour::default()).await;
    let metadata =
        |run: &str| reapi::RequestMetadata { tool_invocation_id: run.to_owned(), ..Default::default() };
    let config = RemoteConfig {
        token: Some("s3cret".to_owned()),
        request_metadata: Some(metadata("run 1")),
        ..config(format!("grpc://{}", server.address))
    };
    assert!(!format!("{config:?}").contains("s3cret"));
    let remote = Remote::connect_lazy(&config).unwrap();
    let said = || {
        let seen = server.state.metadata.lock().unwrap().clone();
        let run = seen.get_bin(REQUEST_METADATA).unwrap().to_bytes().unwrap();
        let run: reapi::RequestMetadata = prost::Message::decode(run).unwrap();
        (seen.get("authorization").unwrap().to_str().unwrap().to_owned(), run.tool_invocation_id)
    };
    let (digest, data) = blob(2_000_000, 1);
    remote.find_missing(&[digest]).await.unwrap();
    assert_eq!(said(), ("Bearer s3cret".to_owned(), "run 1".to_owned()));
    let other = remote.with_request_metadata(&metadata("run 2"));
    BlobStore::put(&other, &digest, stream_of(data)).await.unwrap();
    assert_eq!(said(), ("Bearer s3cret".to_owned(), "run 2".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_an_address_a_name_or_a_token_is_refused_before_any_call() {
    let refused = |config: &RemoteConfig| {
        let error = Remote::connect_lazy(config).err().unwrap();
        assert_eq!(code(&error), Code::InvalidArgument);
        format!("{error:?}")
    };
    let good = config("grpc://127.0.0.1:1".to_owned());
    assert!(Remote::connect_lazy(&good).is_ok());
    refused(&config("grpcs://127.0.0.1:1".to_owned()));
    refused(&RemoteConfig { instance: "a/blobs".to_owned(), ..good.clone() });
    let said = refused(&RemoteConfig { token: Some("s3cret\n".to_owned()), ..good });
    assert!(!said.contains("s3cret"));
}
