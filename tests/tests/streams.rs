//! Thousands of streams whose clients do nothing: the server's memory stays bounded, and who works is served.
//!
//! `tests/streams` does the same with ten thousand.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::env;
use std::fs;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::bytestream::{ReadRequest, ReadResponse, WriteRequest};
use castwork_tests::{Farm, progress, skip};
use futures::StreamExt as _;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::codegen::Service as _;
use tonic::codegen::http::Request;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Streams of each connection: fewer than the server takes.
const PER_CONNECTION: usize = 500;

/// What the server may need besides, whatever is asked of it.
const BASE_BYTES: u64 = 300 << 20;

/// What one stream may need: a piece of a blob on its way, and the same once more in the transport.
const STREAM_BYTES: u64 = 600 << 10;

/// As many downloads, and as many uploads, have their turn at a time.
const TURNS: u64 = 1024 + 512;

/// What a stream that has no turn may need.
const WAITING_BYTES: u64 = 16 << 10;

/// What all requests that are under way may hold.
const REQUESTS_BYTES: u64 = 512 << 20;

/// How long a request says that it is of which only the beginning comes.
const HALF_SENT_BYTES: u32 = 1 << 20;

/// Far above what it takes until a stream that stands still has lost its turn.
const SERVED_WITHIN: Duration = Duration::from_secs(180);

const BLOB_BYTES: usize = 3 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stand_still_cost_little_and_stop_nobody() {
    let count = env::var("CASTWORK_TESTS_STREAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let mut farm = Farm::start(0, 1);
    let address = farm.address().replace("grpc://", "http://");
    let healthy = connect(&address).await;
    let blob = noise(1);
    write(&healthy, &blob).await.unwrap();

    progress(&format!("{count} streams, half of them downloads, a quarter requests, and none goes on"));
    let mut still = Vec::new();
    let (mut readers, mut askers, mut channel) = (Vec::new(), Vec::new(), healthy.clone());
    for number in 0..count {
        if number % PER_CONNECTION == 0 {
            channel = slow_connect(&address).await;
        }
        match number % 4 {
            3 => still.push(tokio::spawn(begin_to_write(channel.clone(), number))),
            2 => askers.push(tokio::spawn(begin_to_ask(channel.clone()))),
            _ => readers.push(tokio::spawn(begin_to_read(
                channel.clone(),
                Digest::of(DigestFunction::Sha256, &blob),
            ))),
        }
    }
    let mut most_bytes = resident_bytes(&mut farm);

    progress("somebody who works");
    let begin = Instant::now();
    for seed in 2..6 {
        let data = noise(seed);
        until_served(begin, || write(&healthy, &data)).await;
        let got = until_served(begin, || read(&healthy, &data)).await;
        assert!(got == data);
        most_bytes = most_bytes.max(resident_bytes(&mut farm));
    }
    let Some(most_bytes) = most_bytes else { return skip("streams", "no /proc to measure memory with") };
    let streams = count as u64;
    let requests = REQUESTS_BYTES.min(askers.len() as u64 * (u64::from(HALF_SENT_BYTES) + WAITING_BYTES));
    let bound = BASE_BYTES + requests + streams.min(TURNS) * STREAM_BYTES + streams * WAITING_BYTES;
    progress(&format!("{} MiB at most; the bound is {} MiB", most_bytes >> 20, bound >> 20));
    assert!(most_bytes < bound, "{most_bytes} bytes, and {bound} are the bound");
    for task in still {
        task.abort();
    }
    for task in readers {
        task.abort();
    }
    for task in askers {
        task.abort();
    }
}

async fn connect(address: &str) -> Channel {
    Channel::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

/// A connection whose client takes next to nothing at a time.
async fn slow_connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(address.to_owned()).unwrap();
    endpoint.initial_stream_window_size(16 << 10).connect().await.unwrap()
}

fn name(data: &[u8]) -> String {
    format!("blobs/{}", Digest::of(DigestFunction::Sha256, data))
}

/// Reads what the transport takes by itself, and then no more, for ever.
async fn begin_to_read(channel: Channel, blob: Digest) -> Result<Streaming<ReadResponse>, Status> {
    let request = ReadRequest { resource_name: format!("blobs/{blob}"), ..Default::default() };
    let stream = ByteStreamClient::new(channel).read(request).await?.into_inner();
    std::future::pending::<()>().await;
    Ok(stream)
}

/// Sends the beginning of a blob, and then no more, for ever.
async fn begin_to_write(channel: Channel, number: usize) -> Result<i64, Status> {
    let digest = Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
    let first = WriteRequest {
        resource_name: format!("uploads/still-{number}/blobs/{}/{BLOB_BYTES}", digest.hash_hex()),
        data: Bytes::from(vec![0; 1000]),
        ..Default::default()
    };
    let endless = tokio_stream::iter([first]).chain(futures::stream::pending());
    Ok(ByteStreamClient::new(channel).write(endless).await?.into_inner().committed_size)
}

/// Sends the beginning of a request, and then no more, for ever.
async fn begin_to_ask(mut channel: Channel) -> Result<(), tonic::transport::Error> {
    let begin = [&[0][..], &HALF_SENT_BYTES.to_be_bytes(), &[0; 16 << 10]].concat();
    let endless = tokio_stream::iter([Ok::<_, Status>(Bytes::from(begin))]).chain(futures::stream::pending());
    let body = Body::new(axum::body::Body::from_stream(endless));
    let request =
        Request::post("/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
    poll_fn(|cx| channel.poll_ready(cx)).await?;
    channel.call(request).await.map(drop)
}

async fn write(channel: &Channel, data: &Bytes) -> Result<(), Status> {
    let message = |(index, piece): (usize, &[u8])| WriteRequest {
        resource_name: format!("uploads/works/{}", name(data)),
        write_offset: i64::try_from(index * (1 << 20)).unwrap(),
        finish_write: (index + 1) << 20 == BLOB_BYTES,
        data: Bytes::copy_from_slice(piece),
    };
    let messages: Vec<WriteRequest> = data.chunks(1 << 20).enumerate().map(message).collect();
    ByteStreamClient::new(channel.clone()).write(tokio_stream::iter(messages)).await.map(drop)
}

async fn read(channel: &Channel, data: &Bytes) -> Result<Bytes, Status> {
    let request = ReadRequest { resource_name: name(data), ..Default::default() };
    let mut stream = ByteStreamClient::new(channel.clone()).read(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(response) = stream.message().await? {
        all.extend_from_slice(&response.data);
    }
    Ok(all.into())
}

/// Does what clients do: tries again when the server says that it has no turn now.
async fn until_served<T, F: Future<Output = Result<T, Status>>>(
    begin: Instant,
    mut ask: impl FnMut() -> F,
) -> T {
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(status) => {
                assert!(matches!(status.code(), Code::Unavailable | Code::Aborted), "{status}");
                assert!(begin.elapsed() < SERVED_WITHIN, "nobody was served: {status}");
            }
        }
    }
}

fn noise(seed: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(BLOB_BYTES + 64);
    let mut block = 0_u64;
    while bytes.len() < BLOB_BYTES {
        let text = format!("{seed} {block}");
        bytes.extend_from_slice(Digest::of(DigestFunction::Sha512, text.as_bytes()).hash());
        block += 1;
    }
    bytes.truncate(BLOB_BYTES);
    bytes.into()
}

/// What the scheduler holds in memory; `None` where the system does not say.
fn resident_bytes(farm: &mut Farm) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", farm.scheduler().pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}
