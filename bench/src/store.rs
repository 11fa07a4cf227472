//! The server's store: durable batches against the disk's own sync, lookups, and what many small blobs cost.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::batch_update_blobs_request::Request;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::{BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest};
use castwork_tests::Program;
use tonic::transport::{Channel, Endpoint};

use crate::spread::{Spread, milliseconds};
use crate::table;

/// Blobs of a batch, and the size of each.
const BATCH: u64 = 1000;
const BATCH_BLOB_BYTES: usize = 4096;

/// The size of each of many.
const MANY_BLOB_BYTES: usize = 512;

/// The same bytes as blobs of other sizes: up to 64 KiB they are records of segments, and above files of their own.
const OTHER_BLOB_BYTES: [usize; 4] = [16 << 10, 64 << 10, (64 << 10) + 1, 256 << 10];

/// Bytes of a batch of those, less than a server takes at once.
const OTHER_BATCH_BYTES: usize = 4_000_000;

/// What a file system gives out at once.
const BLOCK_BYTES: u64 = 4096;

/// Batches of the many that are on their way at the same time.
const AT_ONCE: u64 = 4;

type Client = ContentAddressableStorageClient<Channel>;

/// What is measured.
pub struct Options {
    /// The server's program.
    pub scheduler: PathBuf,
    /// Counted rounds of what is short.
    pub rounds: usize,
    /// How many small blobs it has to hold.
    pub many: u64,
}

/// Measures; Markdown.
///
/// # Errors
/// What could not be started or refused.
pub async fn run(options: &Options) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let short = short(folder.path(), options).await?;
    let many = many(folder.path(), options).await?;
    Ok(format!("{short}\n{many}"))
}

/// A server, and a client of it.
struct Server {
    program: Program,
    client: Client,
    http: String,
    ready_after: Duration,
}

async fn start(folder: &Path, options: &Options, max_size: u64) -> Result<Server, String> {
    let mut command = Command::new(&options.scheduler);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--verify-rate", "0"]);
    command.arg("--data-dir").arg(folder.join("data")).arg("--max-size").arg(max_size.to_string());
    let begin = Instant::now();
    let mut program = Program::start(command, folder, "scheduler");
    let ready = program.ready();
    let ready_after = begin.elapsed();
    let address = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    let endpoint =
        Endpoint::from_shared(format!("http://{}", address("grpc"))).map_err(|error| error.to_string())?;
    let channel = endpoint.tcp_nodelay(true).connect().await.map_err(|error| format!("connect: {error}"))?;
    let client = Client::new(channel).max_encoding_message_size(16 << 20).max_decoding_message_size(16 << 20);
    Ok(Server { program, client, http: address("http"), ready_after })
}

async fn short(folder: &Path, options: &Options) -> Result<String, String> {
    let server = start(folder, options, 20_000_000_000).await?;
    let (mut synced, mut batches, mut next) = (Vec::new(), Vec::new(), 0);
    for round in 0..=options.rounds {
        let request = batch(&mut next, BATCH, BATCH_BLOB_BYTES).0;
        let sync = write_and_sync(&folder.join("plain"))?;
        let begin = Instant::now();
        update(server.client.clone(), request).await?;
        if round > 0 {
            synced.push(sync);
            batches.push(begin.elapsed());
        }
    }
    let synced = Spread::new(synced);
    let mut rows = vec![row("write 4 MB to a file, `fdatasync`", &synced, &synced)];
    rows.push(row("BatchUpdateBlobs, 1,000 × 4 KiB, durable", &Spread::new(batches), &synced));
    for count in [1, 1000, 10_000] {
        let digests =
            (0..count).map(|number| blob(number, BATCH_BLOB_BYTES).0.to_proto()).collect::<Vec<_>>();
        let mut took = Vec::new();
        for _ in 0..=options.rounds {
            let request = FindMissingBlobsRequest { blob_digests: digests.clone(), ..Default::default() };
            let begin = Instant::now();
            server.client.clone().find_missing_blobs(request).await.map_err(|status| status.to_string())?;
            took.push(begin.elapsed());
        }
        rows.push(row(&format!("FindMissingBlobs, {count} digests"), &Spread::new(took), &synced));
    }
    for blob_bytes in OTHER_BLOB_BYTES {
        let size = format!("{} × {:.2} KiB", OTHER_BATCH_BYTES / blob_bytes, kib(blob_bytes));
        let (written, read) = sizes(&server, options, blob_bytes, &mut next).await?;
        rows.push(row(&format!("BatchUpdateBlobs, {size}, durable"), &written, &synced));
        rows.push(row(&format!("BatchReadBlobs, {size}"), &read, &synced));
    }
    drop(server);
    fs::remove_dir_all(folder.join("data")).map_err(|error| format!("remove the data: {error}"))?;
    Ok(table::markdown(&["store", "p50", "p99", "to the disk's own sync"], &rows))
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

/// Writes and reads batches of blobs of some size.
async fn sizes(
    server: &Server,
    options: &Options,
    blob_bytes: usize,
    next: &mut u64,
) -> Result<(Spread, Spread), String> {
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let request = batch(next, (OTHER_BATCH_BYTES / blob_bytes) as u64, blob_bytes).0;
        let digests = request.requests.iter().filter_map(|request| request.digest.clone()).collect();
        let begin = Instant::now();
        update(server.client.clone(), request).await?;
        let middle = Instant::now();
        let wanted = BatchReadBlobsRequest { digests, ..Default::default() };
        server.client.clone().batch_read_blobs(wanted).await.map_err(|status| status.to_string())?;
        if round > 0 {
            written.push(middle - begin);
            read.push(middle.elapsed());
        }
    }
    Ok((Spread::new(written), Spread::new(read)))
}

fn row(name: &str, spread: &Spread, to: &Spread) -> Vec<String> {
    let ratio = format!("{:.2}", spread.ratio_to(to));
    vec![name.to_owned(), milliseconds(spread.median()), milliseconds(spread.percentile(99)), ratio]
}

/// Appends as many bytes as a batch has to a file, and syncs it.
fn write_and_sync(path: &Path) -> Result<Duration, String> {
    let data = vec![7; usize::try_from(BATCH).expect("small") * BATCH_BLOB_BYTES];
    let write = || {
        let mut file = File::options().create(true).append(true).open(path)?;
        let begin = Instant::now();
        file.write_all(&data)?;
        file.sync_data()?;
        std::io::Result::Ok(begin.elapsed())
    };
    write().map_err(|error| format!("write `{}`: {error}", path.display()))
}

/// Fills a store to its bound and beyond, kills the server, and starts it again.
async fn many(folder: &Path, options: &Options) -> Result<String, String> {
    // Less than they take up, so that the last tenth has to be evicted.
    let max_size = (options.many * (MANY_BLOB_BYTES as u64 + 170) / 10 * 9).max(10_000_000);
    let mut server = start(folder, options, max_size).await?;
    let empty_kb = memory_kb(&server)?;
    let (mut next, begin) = (0, Instant::now());
    let mut over_percent = 0.0_f64;
    while next < options.many {
        let requests =
            (0..AT_ONCE).map(|_| batch(&mut next, 4 * BATCH, MANY_BLOB_BYTES).0).collect::<Vec<_>>();
        let updates = requests.into_iter().map(|request| update(server.client.clone(), request));
        futures::future::try_join_all(updates).await?;
        over_percent = over_percent.max(percent(disk_bytes(&folder.join("data")), max_size));
    }
    let filled = begin.elapsed();
    let records = metric(&server, "castwork_store_records").await?;
    let full_kb = memory_kb(&server)?;
    server.program.kill();
    let killed = start(folder, options, max_size).await?;
    let known = until_known(&killed).await?;
    let known_kb = memory_kb(&killed)?;
    let after = metric(&killed, "castwork_store_records").await?;
    stop(killed.program)?;
    let stopped_percent = percent(disk_bytes(&folder.join("data")), max_size);
    let again = start(folder, options, max_size).await?;
    let rate = f64::from(u32::try_from(next).unwrap_or(u32::MAX)) / filled.as_secs_f64();
    let per_million = |kb: u64| format!("{} MB", kb.saturating_sub(empty_kb) * 1000 / records.max(1));
    let rows = [
        ("blobs of 512 bytes that were stored", next.to_string()),
        ("stored per second, durable", format!("{rate:.0}")),
        ("records kept within the bound", records.to_string()),
        ("most bytes on disk, of the bound", format!("{over_percent:.2} %")),
        ("bytes on disk after an orderly stop, of the bound", format!("{stopped_percent:.2} %")),
        ("port open after an orderly stop", milliseconds(again.ready_after)),
        ("port open after `kill -9`", milliseconds(killed.ready_after)),
        ("all records known after", milliseconds(known)),
        ("records then", after.to_string()),
        ("memory per million records, as they were stored", per_million(full_kb)),
        ("memory per million records, after the restart", per_million(known_kb)),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    Ok(table::markdown(&["many small blobs", ""], &rows))
}

/// Asks a server to end, and waits until it has.
fn stop(mut program: Program) -> Result<(), String> {
    let asked = Command::new("kill").arg(program.pid().to_string()).status();
    asked.map_err(|error| format!("ask the server to end: {error}"))?;
    if program.wait() { Ok(()) } else { Err("the server did not end in order".to_owned()) }
}

/// How long it takes from now until the server knows all records.
async fn until_known(server: &Server) -> Result<Duration, String> {
    let begin = Instant::now();
    while metric(server, "castwork_store_loaded").await? == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(begin.elapsed())
}

fn blob(number: u64, length: usize) -> (Digest, Bytes) {
    let mut data = vec![0; length];
    for (index, word) in data.chunks_exact_mut(8).enumerate() {
        let mixed = (number + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(u32::try_from(index % 64).unwrap_or(0));
        word.copy_from_slice(&mixed.to_le_bytes());
    }
    (Digest::of(DigestFunction::Sha256, &data), data.into())
}

fn batch(next: &mut u64, count: u64, length: usize) -> (BatchUpdateBlobsRequest, u64) {
    let first = *next;
    *next += count;
    let requests = (first..*next).map(|number| {
        let (digest, data) = blob(number, length);
        Request { digest: Some(digest.to_proto()), data, ..Request::default() }
    });
    (BatchUpdateBlobsRequest { requests: requests.collect(), ..Default::default() }, first)
}

async fn update(mut client: Client, request: BatchUpdateBlobsRequest) -> Result<(), String> {
    let answer = client.batch_update_blobs(request).await.map_err(|status| status.to_string())?.into_inner();
    let refused =
        answer.responses.into_iter().filter_map(|response| response.status).find(|status| status.code != 0);
    refused.map_or(Ok(()), |status| Err(status.message))
}

/// Memory of the server, in kilobytes.
fn memory_kb(server: &Server) -> Result<u64, String> {
    let path = format!("/proc/{}/status", server.program.pid());
    let text = fs::read_to_string(&path).map_err(|error| format!("read `{path}`: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).ok_or("no VmRSS".to_owned())
}

async fn metric(server: &Server, name: &str) -> Result<u64, String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(&server.http).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let text = ask.await.map_err(|error| format!("ask for metrics: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("no metric `{name}`"))
}

/// Bytes of everything in the data folder, folders too, in whole blocks.
fn disk_bytes(data: &Path) -> u64 {
    let mut folders = vec![data.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // It may have been compacted meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.len().next_multiple_of(BLOCK_BYTES);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}
