//! Object stores as places for blobs and results, for programs and for the wrapper: an S3 server and a Redis, real
//! ones, on loopback, and a stand-in for GitHub's cache.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/gha.rs"]
mod gha;
mod promises;
mod redis;
#[path = "../support/s3.rs"]
mod s3;
mod wrapper;

use std::time::Duration;

use castwork_cas::{BlobStore as _, Digest, DigestFunction, Objects, StoreError};
use tokio::net::TcpListener;

use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// Far above what any answer here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The variables of the environment that go with the S3 server.
fn environment(name: &str) -> Option<String> {
    match name {
        "AWS_ACCESS_KEY_ID" => Some(ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET_KEY.to_owned()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_keeps_all_promises_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path()).await;
    let objects = Objects::open_with(&server.url("a/prefix"), TIMEOUT, &environment).unwrap();
    let place = folder.path().join("builds/a/prefix");
    promises::kept(&objects, |name, bytes| std::fs::write(place.join(name), bytes).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_of_a_bucket_know_nothing_of_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path()).await;
    let open = |prefix| Objects::open_with(&server.url(prefix), TIMEOUT, &environment).unwrap();
    let (one, other) = (open("one"), open("other"));
    let (digest, data) = promises::blob(1, 10_000);
    one.put(&digest, castwork_cas::store::stream_of(data)).await.unwrap();
    assert_eq!(one.find_missing(&[digest]).await.unwrap(), []);
    assert_eq!(other.find_missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_so_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path()).await;
    let wrong = |name: &str| match name {
        "AWS_SECRET_ACCESS_KEY" => Some(format!("{SECRET_KEY}-but-wrong")),
        name => environment(name),
    };
    let objects = Objects::open_with(&server.url("p"), TIMEOUT, &wrong).unwrap();
    let (digest, data) = promises::blob(1, 1000);
    for error in [
        objects.find_missing(&[digest]).await.unwrap_err(),
        objects.put(&digest, castwork_cas::store::stream_of(data)).await.unwrap_err(),
    ] {
        let StoreError::Remote { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.code(), tonic::Code::PermissionDenied, "{source:?}");
        let shown = format!("{error} {error:?} {source} {objects:?}");
        assert!(!shown.contains(SECRET_KEY), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_dead_or_silent_is_an_error_and_no_wait() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let digest = Digest::of(DigestFunction::Sha256, b"abc");
    for address in [silent.local_addr().unwrap(), dead] {
        for url in [
            format!("s3://bucket/prefix?endpoint=http://{address}"),
            format!("redis://us:{SECRET_KEY}@{address}/1/prefix"),
            format!("webdav+http://us:{SECRET_KEY}@{address}/prefix"),
        ] {
            let objects = Objects::open_with(&url, Duration::from_millis(300), &environment).unwrap();
            let error = objects.find_missing(&[digest]).await.unwrap_err();
            let StoreError::Remote { source, .. } = &error else { panic!("{url}: {error:?}") };
            let shown = format!("{error} {error:?} {source}");
            assert!(!shown.contains(SECRET_KEY), "{shown}");
        }
    }
}
