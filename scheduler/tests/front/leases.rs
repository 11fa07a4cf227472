//! Builds that leave their outputs on the server, while others fill it.

use std::time::Duration;

use bytes::Bytes;
use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_cas::{BlobStore as _, Digest};
use castwork_proto::reapi::RequestMetadata;

use crate::connections::http_get;
use crate::support::{House, SHA256, noise};

/// A client that names its run, if `run` is not empty.
fn client(house: &House, run: &str) -> Remote {
    let metadata = RequestMetadata { tool_invocation_id: run.to_owned(), ..RequestMetadata::default() };
    let config = RemoteConfig {
        address: format!("grpc://{}", house.server.grpc_address()),
        instance: String::new(),
        function: SHA256,
        token: None,
        request_metadata: (!run.is_empty()).then_some(metadata),
        timeout: Duration::from_secs(60),
    };
    Remote::connect_lazy(&config).unwrap()
}

/// Blobs of two kinds: records of segments, and files.
fn blobs(first: u32, count: u32) -> Vec<(Digest, Bytes)> {
    let length = |seed: u32| if seed.is_multiple_of(4) { 150_000 } else { 30_000 };
    let blob = |seed| noise(seed, length(seed));
    (first..first + count).map(|seed| (Digest::of(SHA256, &blob(seed)), blob(seed))).collect()
}

fn digests(blobs: &[(Digest, Bytes)]) -> Vec<Digest> {
    blobs.iter().map(|(digest, _)| *digest).collect()
}

/// Stores more than twice what there is room for, in small steps.
async fn fill(house: &House, first: u32) {
    let other = client(house, "");
    for step in 0..20 {
        other.put_many(blobs(first + step * 20, 20)).await.unwrap();
    }
}

async fn metric(house: &House, name: &str) -> u64 {
    let metrics = http_get(house, "/metrics").await;
    let row = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    row.unwrap_or_else(|| panic!("no `{name}` in {metrics}")).parse().unwrap()
}

async fn house(lease_quiet: &str) -> House {
    House::start_with(
        |args| {
            args.max_size = Some("10MB".to_owned());
            args.lease_size = Some("2MB".to_owned());
            args.lease_quiet = Some(lease_quiet.to_owned());
        },
        |_| (),
    )
    .await
}

#[tokio::test]
async fn a_run_that_names_itself_never_sees_an_eviction_within_the_budget() {
    let house = house("1h").await;
    // Two thirds are uploaded by the run, and a third was there before: it is only asked for.
    let (own, known, unnamed) = (blobs(0, 20), blobs(1000, 8), blobs(2000, 8));
    client(&house, "").put_many(known.clone()).await.unwrap();
    client(&house, "").put_many(unnamed.clone()).await.unwrap();
    let build = client(&house, "build-1");
    build.put_many(own.clone()).await.unwrap();
    assert_eq!(build.find_missing(&digests(&known)).await.unwrap(), []);
    let held = own.iter().chain(&known).map(|(digest, _)| digest.size_bytes()).sum::<u64>();
    assert!(held < 2_000_000);
    assert_eq!(metric(&house, "castwork_lease_bytes").await, held);
    fill(&house, 10_000).await;
    assert!(metric(&house, "castwork_evictions_total").await > 200);
    // Asked by somebody else, for whom nothing is held.
    let other = client(&house, "");
    assert_eq!(other.find_missing(&digests(&own)).await.unwrap(), []);
    assert_eq!(other.find_missing(&digests(&known)).await.unwrap(), []);
    assert_eq!(other.find_missing(&digests(&unnamed)).await.unwrap().len(), unnamed.len());
    for (digest, got) in other.get_many(&digests(&own)).await {
        assert_eq!(Digest::of(SHA256, &got.unwrap()), digest);
    }
}

#[tokio::test]
async fn runs_together_hold_no_more_than_the_budget() {
    let house = house("1h").await;
    for run in 0..4 {
        client(&house, &format!("build-{run}")).put_many(blobs(run * 100, 20)).await.unwrap();
    }
    let held = metric(&house, "castwork_lease_bytes").await;
    assert!((1_800_000..=2_000_000).contains(&held), "{held}");
    assert!(metric(&house, "castwork_lease_refused").await > 0);
    // What is held leaves room for everybody else.
    fill(&house, 10_000).await;
    let first = digests(&blobs(0, 20));
    assert_eq!(client(&house, "").find_missing(&first).await.unwrap(), []);
}

#[tokio::test]
async fn a_run_that_has_been_quiet_holds_nothing() {
    let house = house("0s").await;
    client(&house, "build-1").put_many(blobs(0, 20)).await.unwrap();
    fill(&house, 10_000).await;
    assert_eq!(metric(&house, "castwork_lease_bytes").await, 0);
    assert_eq!(client(&house, "").find_missing(&digests(&blobs(0, 20))).await.unwrap().len(), 20);
}
