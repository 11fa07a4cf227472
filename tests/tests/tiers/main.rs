//! A server in front of a slower, larger place: an S3 server, another server of ours, and such that are dead or wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/s3.rs"]
mod s3;
mod troubles;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use castwork_cas::store::{collect, stream_of};
use castwork_cas::{
    ActionKey, BlobStore as _, ByteRange, Digest, DigestFunction, Remote, RemoteConfig, StoreError,
};
use castwork_proto::reapi::{Action, ActionResult, Command, ExecutedActionMetadata, OutputFile};
use castwork_tests::{Farm, Options};
use prost::Message as _;
use tokio::net::TcpListener;

use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// Far above what it takes until what was offered is written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// A server in front of `tier`, with the credentials of the S3 server here.
fn in_front_of(tier: &str) -> Farm {
    started(&["--tier", tier])
}

fn started(arguments: &[&str]) -> Farm {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Farm::with(Options {
        workers: 0,
        scheduler_arguments: arguments.iter().map(ToString::to_string).collect(),
        environment: vec![
            variable("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ],
        ..Options::default()
    })
}

fn client(farm: &Farm) -> Remote {
    Remote::connect_lazy(&RemoteConfig {
        address: farm.address(),
        instance: String::new(),
        function: DigestFunction::Sha256,
        token: None,
        request_metadata: None,
        timeout: Duration::from_secs(60),
    })
    .unwrap()
}

/// A value of `/metrics`.
fn metric(farm: &Farm, name: &str) -> u64 {
    let mut stream = TcpStream::connect(farm.http()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no `{name}` in\n{text}"))
}

async fn until(farm: &Farm, what: &str, is_so: impl Fn(&Farm) -> bool) {
    let begin = Instant::now();
    while !is_so(farm) {
        assert!(begin.elapsed() < WRITTEN_WITHIN, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn blob(data: impl Into<Bytes>) -> (Digest, Bytes) {
    let data = data.into();
    (Digest::of(DigestFunction::Sha256, &data), data)
}

/// What a build leaves: a result whose one output is larger than what is kept in segments, and one blob that nothing
/// names.
struct Build {
    blobs: Vec<(Digest, Bytes)>,
    key: ActionKey,
    result: ActionResult,
}

impl Build {
    fn new(name: &str) -> Self {
        let output = blob(name.repeat(100_000));
        let other = blob(format!("a source of {name}"));
        let command =
            blob(Command { arguments: vec![name.to_owned()], ..Command::default() }.encode_to_vec());
        let action = Action {
            command_digest: Some(command.0.to_proto()),
            input_root_digest: Some(Digest::empty(DigestFunction::Sha256).to_proto()),
            ..Action::default()
        };
        let action = blob(action.encode_to_vec());
        let file =
            OutputFile { path: "out".to_owned(), digest: Some(output.0.to_proto()), ..OutputFile::default() };
        Self {
            key: ActionKey { instance: "".into(), action: action.0 },
            blobs: vec![output, other, command, action],
            result: ActionResult { output_files: vec![file], exit_code: 0, ..ActionResult::default() },
        }
    }

    async fn store(&self, server: &Remote) {
        for (digest, data) in &self.blobs {
            server.put(digest, stream_of(data.clone())).await.unwrap();
        }
        castwork_cas::ActionCache::put(server, &self.key, self.result.clone()).await.unwrap();
    }

    async fn is_there(&self, server: &Remote) {
        let result = find(server, &self.key).await.expect("the result is there");
        assert_eq!(result.output_files, self.result.output_files);
        let digests: Vec<Digest> = self.blobs.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(server.find_missing(&digests).await.unwrap(), []);
        // All at once, so that fetches are shared.
        let reads = (0..8).map(|_| async {
            for (digest, data) in &self.blobs {
                let stream = server.get(digest, ByteRange::ALL).await.unwrap();
                assert!(collect(stream, u64::MAX).await.unwrap() == *data, "{digest}");
            }
        });
        futures::future::join_all(reads).await;
    }
}

async fn find(server: &Remote, key: &ActionKey) -> Option<ActionResult> {
    castwork_cas::ActionCache::get(server, key).await.unwrap()
}

async fn two_servers_share(tier: &str) -> (Farm, Farm) {
    let build = Build::new("one");
    let first = in_front_of(tier);
    build.store(&client(&first)).await;
    until(&first, "the result is written to the tier", |farm| {
        metric(farm, "castwork_tier_written_results_total") == 1 && metric(farm, "castwork_tier_queued") == 0
    })
    .await;
    assert_eq!(metric(&first, "castwork_tier_dropped_total"), 0);
    assert_eq!(metric(&first, "castwork_tier_failures_total"), 0);
    let second = in_front_of(tier);
    build.is_there(&client(&second)).await;
    assert_eq!(metric(&second, "castwork_tier_result_hits_total"), 1);
    assert_eq!(metric(&second, "castwork_tier_fetched_total"), 4, "each blob was fetched once");
    assert_eq!(
        metric(&second, "castwork_tier_written_blobs_total"),
        0,
        "what came from the tier did not go back"
    );
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path()).await;
    let (mut first, _) = two_servers_share(&server.url("team")).await;
    let log = std::fs::read_to_string(first.folder().join("scheduler.log")).unwrap();
    assert!(!log.contains(SECRET_KEY), "{log}");

    // The S3 server goes away. Nobody is stopped by that, and what is there is served.
    drop(server);
    let build = Build::new("two");
    build.store(&client(&first)).await;
    build.is_there(&client(&first)).await;
    until(&first, "a failure is counted", |farm| metric(farm, "castwork_tier_failures_total") > 0).await;
    first.scheduler().kill();
    first.restart_scheduler();
    build.is_there(&client(&first)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_third_one() {
    let behind = Farm::start(0, 1);
    two_servers_share(&behind.address()).await;
    Build::new("one").is_there(&client(&behind)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_is_only_read_gets_nothing() {
    let behind = Farm::start(0, 1);
    let (here, there) = (Build::new("here"), Build::new("there"));
    there.store(&client(&behind)).await;
    let front = in_front_of(&format!("{}?mode=ro", behind.address()));
    here.store(&client(&front)).await;
    there.is_there(&client(&front)).await;
    here.is_there(&client(&front)).await;
    assert_eq!(metric(&front, "castwork_tier_queued"), 0);
    assert_eq!(find(&client(&behind), &here.key).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_the_tier_that_does_not_say_how_old_it_is_may_be_too_old() {
    let behind = Farm::start(0, 1);
    let (silent, mut dated) = (Build::new("silent"), Build::new("dated"));
    let metadata = ExecutedActionMetadata {
        worker_completed_timestamp: Some(SystemTime::now().into()),
        ..ExecutedActionMetadata::default()
    };
    dated.result.execution_metadata = Some(metadata);
    silent.store(&client(&behind)).await;
    dated.store(&client(&behind)).await;
    let front = started(&["--tier", &behind.address(), "--results-since", "1970-01-02T00:00:00Z"]);
    assert_eq!(find(&client(&front), &silent.key).await, None);
    dated.is_there(&client(&front)).await;
}

/// One that never answers, and one that answers what is no HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_is_silent_or_talks_garbage_stops_nobody() {
    for garbage in [None, Some(&b"\0\x01\x02 what is this?\r\n\r\n"[..])] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let talking = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                if let Some(garbage) = garbage {
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, garbage).await;
                }
                open.push(socket);
            }
        });
        let front = in_front_of(&format!("grpc://{address}"));
        let build = Build::new("one");
        let server = client(&front);
        assert_eq!(find(&server, &build.key).await, None);
        let (missing, _) = blob("nobody has it");
        assert!(matches!(server.get(&missing, ByteRange::ALL).await, Err(StoreError::Missing(_))));
        build.store(&server).await;
        build.is_there(&server).await;
        until(&front, "a failure is counted", |farm| metric(farm, "castwork_tier_failures_total") > 0).await;
        talking.abort();
    }
}
