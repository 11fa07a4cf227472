//! Tiers that hold what they should not, are away for a while, answer late, or have to forget.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_cas::store::{collect, stream_of};
use castwork_cas::{BlobStore, ByteRange, Digest, Objects, Remote, StoreError};
use castwork_tests::{Farm, binary};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;

use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};
use crate::{Build, client, find, in_front_of, metric, until};

/// A bucket that has what one server stored, which is gone since.
async fn bucket_with(build: &Build, folder: &Path) -> S3 {
    let server = S3::start(folder).await;
    let first = in_front_of(&server.url("team"));
    build.store(&client(&first)).await;
    is_written(&first).await;
    server
}

async fn is_written(farm: &Farm) {
    until(farm, "the result is written to the tier", |farm| {
        metric(farm, "castwork_tier_written_results_total") == 1 && metric(farm, "castwork_tier_queued") == 0
    })
    .await;
}

fn object_of(folder: &Path, digest: &Digest) -> PathBuf {
    let (hash, size) = (digest.hash_hex(), digest.size_bytes());
    folder.join(format!("builds/team/cas/sha256/{}/{hash}-{size}.zst", &hash[..2]))
}

async fn is_absent(server: &Remote, digest: &Digest) {
    let read = match BlobStore::get(server, digest, ByteRange::ALL).await {
        Ok(data) => collect(data, u64::MAX).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(read, Err(StoreError::Missing(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_object_is_missing_and_is_put_right_by_the_next_upload() {
    let (folder, build) = (tempfile::tempdir().unwrap(), Build::new("one"));
    let server = bucket_with(&build, folder.path()).await;
    let (digest, data) = &build.blobs[0];
    let object = object_of(folder.path(), digest);
    let spoiled = zstd::encode_all(&vec![7; data.len()][..], 1).unwrap();

    // Where it may not be changed, it stays; and is missing all the same, once it was seen.
    fs::write(&object, &spoiled).unwrap();
    let reading = in_front_of(&format!("{}&mode=ro", server.url("team")));
    let front = client(&reading);
    assert_eq!(front.find_missing(&[*digest]).await.unwrap(), []);
    is_absent(&front, digest).await;
    assert_eq!(front.find_missing(&[*digest]).await.unwrap(), [*digest]);
    assert_eq!(find(&front, &build.key).await, None, "a result whose output is missing");
    assert_eq!(fs::read(&object).unwrap(), spoiled, "a tier that is only read stays as it is");
    BlobStore::put(&front, digest, stream_of(data.clone())).await.unwrap();
    build.is_there(&front).await;

    let writing = in_front_of(&server.url("team"));
    let front = client(&writing);
    is_absent(&front, digest).await;
    assert_eq!(front.find_missing(&[*digest]).await.unwrap(), [*digest]);
    BlobStore::put(&front, digest, stream_of(data.clone())).await.unwrap();
    until(&writing, "it is written to the tier", |farm| {
        metric(farm, "castwork_tier_written_blobs_total") == 1
    })
    .await;
    assert!(zstd::decode_all(&fs::read(&object).unwrap()[..]).unwrap() == *data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_climbs_out_or_was_moved_is_not_believed() {
    let (folder, build) = (tempfile::tempdir().unwrap(), Build::new("one"));
    let server = bucket_with(&build, folder.path()).await;
    let credentials = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET_KEY.to_owned()),
        _ => None,
    };
    let bucket = Objects::open_with(&server.url("team"), Duration::from_secs(60), &credentials).unwrap();
    let (other, moved) = (Build::new("other"), Build::new("moved"));
    let mut climbing = build.result.clone();
    climbing.output_files[0].path = "../../.profile".to_owned();
    bucket.put_new_result(&other.key, &climbing).await.unwrap();
    let place = |key: &Digest| {
        let folder = folder.path().join("builds/team/ac");
        let found = walk(&folder).into_iter().find(|path| path.to_string_lossy().contains(&key.hash_hex()));
        found.unwrap_or_else(|| panic!("no {key} below {}", folder.display()))
    };
    let from = place(&build.key.action);
    let to = from.to_string_lossy().replace(&build.key.action.hash_hex(), &moved.key.action.hash_hex());
    let to = to.replace(
        &format!("-{}", build.key.action.size_bytes()),
        &format!("-{}", moved.key.action.size_bytes()),
    );
    fs::create_dir_all(Path::new(&to).parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap();
    let front = in_front_of(&server.url("team"));
    for key in [&other.key, &moved.key] {
        assert_eq!(find(&client(&front), key).await, None);
    }
    build.is_there(&client(&front)).await;
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_removed_from_the_bucket_too() {
    let (folder, build) = (tempfile::tempdir().unwrap(), Build::new("one"));
    let server = S3::start(folder.path()).await;
    let front = in_front_of(&server.url("team"));
    build.store(&client(&front)).await;
    is_written(&front).await;
    let results = folder.path().join("builds/team/ac");
    assert_eq!(walk(&results).len(), 1);
    let revoked = Command::new(binary("castwork-scheduler"))
        .args(["revoke", "--server", &front.address(), "--principal", "*"])
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(walk(&results), Vec::<PathBuf>::new());
    assert_eq!(find(&client(&front), &build.key).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_while_the_tier_was_away_is_written_when_it_is_back() {
    let (folder, build) = (tempfile::tempdir().unwrap(), Build::new("one"));
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let front = in_front_of(&S3::url_at(&address, "team"));
    build.store(&client(&front)).await;
    until(&front, "it is left alone", |farm| metric(farm, "castwork_tier_writable") == 0).await;
    let _server = S3::start_at(&address, folder.path()).await;
    is_written(&front).await;
    assert_eq!(metric(&front, "castwork_tier_dropped_total"), 0);
    assert_eq!(metric(&front, "castwork_tier_written_blobs_total"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_the_tier_answers_late_does_not_replace_what_was_stored_meanwhile() {
    let (behind, mut build) = (Farm::start(0, 1), Build::new("one"));
    build.store(&client(&behind)).await;
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = in_front_of(&format!("grpc://{}?mode=ro", between.local_addr().unwrap()));
    let server = client(&front);
    for (digest, data) in &build.blobs {
        BlobStore::put(&server, digest, stream_of(data.clone())).await.unwrap();
    }
    let (looking, key) = (client(&front), build.key.clone());
    let look = tokio::spawn(async move { find(&looking, &key).await });
    let (mut asking, _) = between.accept().await.unwrap();
    // Now it waits for an answer.
    build.result.stdout_raw = "newer".into();
    castwork_cas::ActionCache::put(&server, &build.key, build.result.clone()).await.unwrap();
    let behind = behind.address();
    let answering = tokio::spawn(async move {
        let mut answers = TcpStream::connect(behind.trim_start_matches("grpc://")).await.unwrap();
        tokio::io::copy_bidirectional(&mut asking, &mut answers).await
    });
    look.await.unwrap();
    assert_eq!(find(&server, &build.key).await.unwrap().stdout_raw, "newer");
    answering.abort();
}

/// A tier that can be read and not written to goes on being read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_takes_nothing_goes_on_giving() {
    let (here, there) = (Build::new("here"), Build::new("there"));
    let folder = tempfile::tempdir().unwrap();
    let server = bucket_with(&there, folder.path()).await;
    // Nothing can be made in it any more: a file stands where the folders of new objects would.
    for (digest, _) in &here.blobs {
        let place = object_of(folder.path(), digest);
        let shelf = place.parent().unwrap();
        if !shelf.exists() {
            fs::write(shelf, "in the way").unwrap();
        }
    }
    let front = in_front_of(&server.url("team"));
    here.store(&client(&front)).await;
    until(&front, "nothing can be written", |farm| metric(farm, "castwork_tier_failures_total") >= 3).await;
    there.is_there(&client(&front)).await;
    assert_eq!(metric(&front, "castwork_tier_up"), 1);
}

/// What a tier refuses is not asked of it again and again, and holds up nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tier_refuses_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It speaks gRPC, and has none of the services.
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let front = in_front_of(&format!("grpc://{address}"));
    let build = Build::new("one");
    build.store(&client(&front)).await;
    until(&front, "nothing waits", |farm| {
        metric(farm, "castwork_tier_dropped_total") >= 5 && metric(farm, "castwork_tier_queued") == 0
    })
    .await;
    let failures = metric(&front, "castwork_tier_failures_total");
    assert!(failures < 50, "asked {failures} times");
    build.is_there(&client(&front)).await;
    serving.abort();
}
