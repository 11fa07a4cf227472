//! The store against `buildbox-casd`, and both against what the machine can do at all: in turn, in one run.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::bytestream::{ReadRequest, WriteRequest};
use castwork_proto::reapi::action_cache_client::ActionCacheClient;
use castwork_proto::reapi::batch_update_blobs_request::Request;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::{
    Action, ActionResult, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetActionResultRequest,
    OutputFile, UpdateActionResultRequest,
};
use castwork_tests::Program;
use prost::Message as _;
use tonic::transport::{Channel, Endpoint};

use crate::spread::{Spread, milliseconds};
use crate::table;

/// Blobs of a batch, and the size of each.
const BATCH: u64 = 1000;
const BATCH_BLOB_BYTES: usize = 4096;

/// What goes through a stream, and in pieces of what size.
const STREAM_BYTES: usize = 256 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// Rounds of what takes seconds.
const STREAM_ROUNDS: usize = 3;

/// Callers at once.
const CALLERS: usize = 64;

/// Lookups of each caller in a round.
const LOOKUPS: usize = 20;

/// Small blobs after which memory is looked at.
const MANY: u64 = 100_000;

/// How long a server may take to answer at first.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What is measured.
pub struct Options {
    /// The server's program.
    pub scheduler: PathBuf,
    /// `buildbox-casd`; left out if not given.
    pub casd: Option<PathBuf>,
    /// Counted rounds of what is short.
    pub rounds: usize,
}

struct Peer {
    name: &'static str,
    channel: Channel,
    pid: u32,
    _process: Process,
}

enum Process {
    Ours { _program: Program },
    Theirs(Child),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Theirs(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Measures; Markdown.
///
/// # Errors
/// What could not be started or refused.
pub async fn run(options: &Options) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut peers = vec![
        ours(folder.path(), options, "castwork, durable", "durable").await?,
        ours(folder.path(), options, "castwork, relaxed", "relaxed").await?,
    ];
    if let Some(casd) = &options.casd {
        peers.push(theirs(folder.path(), casd).await?);
    }
    let mut rows = Vec::new();
    batches(folder.path(), &peers, options.rounds, &mut rows).await?;
    questions(&peers, options.rounds, &mut rows).await?;
    lookups(&peers, options.rounds, &mut rows).await?;
    streams(folder.path(), &peers, &mut rows).await?;
    memory(&peers, &mut rows).await?;
    let names = peers.iter().map(|peer| peer.name);
    let heading: Vec<&str> = ["", "the machine alone"].into_iter().chain(names).collect();
    Ok(table::markdown(&heading, &rows))
}

async fn ours(
    folder: &Path,
    options: &Options,
    name: &'static str,
    durability: &str,
) -> Result<Peer, String> {
    let mut command = Command::new(&options.scheduler);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--verify-rate", "0"]);
    command.args(["--max-size", "20GB", "--durability", durability]);
    command.arg("--data-dir").arg(folder.join(durability));
    let mut program = Program::start(command, folder, durability);
    let address = program.ready()["grpc"].as_str().unwrap_or_default().to_owned();
    let pid = program.pid();
    Ok(Peer { name, channel: connect(&address).await?, pid, _process: Process::Ours { _program: program } })
}

async fn theirs(folder: &Path, program: &Path) -> Result<Peer, String> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = port.map_err(|error| format!("a free port: {error}"))?.to_string();
    let child = Command::new(program)
        .arg(format!("--bind={address}"))
        .arg(folder.join("casd"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("start `{}`: {error}", program.display()))?;
    let pid = child.id();
    let process = Process::Theirs(child);
    let begin = Instant::now();
    let channel = loop {
        match connect(&address).await {
            Ok(channel) => break channel,
            Err(error) if begin.elapsed() > READY_WITHIN => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    Ok(Peer { name: "buildbox-casd", channel, pid, _process: process })
}

async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    endpoint.connect().await.map_err(|error| format!("connect to {address}: {error}"))
}

/// A row: what, the machine's own time or nothing, and each contestant's median with its ratio to the first.
fn row(what: &str, limit: Option<&Spread>, times: Vec<Vec<Duration>>) -> Vec<String> {
    let spreads: Vec<Spread> = times.into_iter().map(Spread::new).collect();
    let first = spreads[0].clone();
    let cells = spreads.iter().enumerate().map(|(number, spread)| {
        let median = milliseconds(spread.median());
        match (number, limit) {
            (0, Some(limit)) => format!("{median} ({:.2} of the limit)", spread.ratio_to(limit)),
            (0, None) => median,
            _ => format!("{median} ({:.2})", spread.ratio_to(&first)),
        }
    });
    let limit = limit.map(|limit| milliseconds(limit.median())).unwrap_or_default();
    [what.to_owned(), limit].into_iter().chain(cells).collect()
}

async fn batches(
    folder: &Path,
    peers: &[Peer],
    rounds: usize,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), String> {
    let mut times = vec![Vec::new(); peers.len()];
    let mut synced = Vec::new();
    for round in 0..=rounds {
        let first = round as u64 * BATCH;
        synced.push(append_and_sync(&folder.join("small"), 1 << 12, 1000)?);
        for (peer, times) in peers.iter().zip(&mut times) {
            let request = batch(first, BATCH, BATCH_BLOB_BYTES);
            let begin = Instant::now();
            update(&peer.channel, request).await?;
            if round > 0 {
                times.push(begin.elapsed());
            }
        }
    }
    rows.push(row(
        "BatchUpdateBlobs, 1,000 × 4 KiB (limit: write and `fdatasync`)",
        Some(&Spread::new(synced)),
        times,
    ));
    Ok(())
}

/// Half of what is asked for is there.
async fn questions(peers: &[Peer], rounds: usize, rows: &mut Vec<Vec<String>>) -> Result<(), String> {
    for count in [1_u64, 1000, 10_000] {
        let there = (BATCH * rounds as u64).min(count.div_ceil(2));
        let numbers = (0..there).chain((0..count - there).map(|number| u64::MAX / 2 - number));
        let blob_digests = numbers.map(|number| blob(number, BATCH_BLOB_BYTES).0.to_proto()).collect();
        let request = FindMissingBlobsRequest { blob_digests, ..Default::default() };
        let mut times = vec![Vec::new(); peers.len()];
        for round in 0..=rounds {
            for (peer, times) in peers.iter().zip(&mut times) {
                let mut client = ContentAddressableStorageClient::new(peer.channel.clone());
                let request = request.clone();
                let begin = Instant::now();
                let answer = client.find_missing_blobs(request).await.map_err(|status| status.to_string())?;
                if round > 0 {
                    times.push(begin.elapsed());
                }
                let missing = answer.into_inner().missing_blob_digests.len() as u64;
                if missing != count - there {
                    return Err(format!("{}: {missing} of {} are missing", peer.name, count - there));
                }
            }
        }
        rows.push(row(&format!("FindMissingBlobs, {count}"), None, times));
    }
    Ok(())
}

async fn lookups(peers: &[Peer], rounds: usize, rows: &mut Vec<Vec<String>>) -> Result<(), String> {
    let (output, data) = blob(7, BATCH_BLOB_BYTES);
    let action = Action { command_digest: Some(output.to_proto()), ..Action::default() }.encode_to_vec();
    let digest = Digest::of(DigestFunction::Sha256, &action);
    let file =
        OutputFile { path: "out".to_owned(), digest: Some(output.to_proto()), ..OutputFile::default() };
    for peer in peers {
        let requests = [(output, data.clone()), (digest, action.clone().into())];
        let requests = requests.map(|(digest, data)| Request {
            digest: Some(digest.to_proto()),
            data,
            ..Request::default()
        });
        update(&peer.channel, BatchUpdateBlobsRequest { requests: requests.into(), ..Default::default() })
            .await?;
        let request = UpdateActionResultRequest {
            action_digest: Some(digest.to_proto()),
            action_result: Some(ActionResult { output_files: vec![file.clone()], ..Default::default() }),
            ..Default::default()
        };
        let mut client = ActionCacheClient::new(peer.channel.clone());
        client.update_action_result(request).await.map_err(|status| format!("{}: {status}", peer.name))?;
    }
    for callers in [1, CALLERS] {
        let mut times = vec![Vec::new(); peers.len()];
        for round in 0..=rounds {
            for (peer, times) in peers.iter().zip(&mut times) {
                let begin = Instant::now();
                let calls = (0..callers).map(|_| look_up(&peer.channel, &digest));
                futures::future::try_join_all(calls).await?;
                if round > 0 {
                    let calls = u32::try_from(callers * LOOKUPS).unwrap_or(u32::MAX);
                    times.push(begin.elapsed() / calls);
                }
            }
        }
        rows.push(row(&format!("GetActionResult, {callers} at once, each"), None, times));
    }
    Ok(())
}

async fn look_up(channel: &Channel, action: &Digest) -> Result<(), String> {
    let mut client = ActionCacheClient::new(channel.clone());
    for _ in 0..LOOKUPS {
        let request = GetActionResultRequest { action_digest: Some(action.to_proto()), ..Default::default() };
        client.get_action_result(request).await.map_err(|status| status.to_string())?;
    }
    Ok(())
}

async fn streams(folder: &Path, peers: &[Peer], rows: &mut Vec<Vec<String>>) -> Result<(), String> {
    let (mut writes, mut reads) = (vec![Vec::new(); peers.len()], vec![Vec::new(); peers.len()]);
    let (mut synced, mut copied, mut hashed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=STREAM_ROUNDS {
        let data = blob(u64::MAX - round as u64, STREAM_BYTES).1;
        let begin = Instant::now();
        let digest = Digest::of(DigestFunction::Sha256, &data);
        hashed.push(begin.elapsed());
        synced.push(append_and_sync(&folder.join("large"), PIECE_BYTES, STREAM_BYTES / PIECE_BYTES)?);
        copied.push(copy_over_loopback(&data)?);
        for (number, peer) in peers.iter().enumerate() {
            let begin = Instant::now();
            write(&peer.channel, &digest, &data).await.map_err(|error| format!("{}: {error}", peer.name))?;
            let written = begin.elapsed();
            let begin = Instant::now();
            read(&peer.channel, &digest).await.map_err(|error| format!("{}: {error}", peer.name))?;
            if round > 0 {
                writes[number].push(written);
                reads[number].push(begin.elapsed());
            }
        }
    }
    // What has to be done can be done side by side: the slowest part is the limit.
    let (hashed, synced, copied) = (Spread::new(hashed), Spread::new(synced), Spread::new(copied));
    let limit = [&hashed, &synced, &copied].into_iter().max_by_key(|spread| spread.median());
    let parts = format!(
        "hash {}, write and sync {}, loopback {}",
        milliseconds(hashed.median()),
        milliseconds(synced.median()),
        milliseconds(copied.median())
    );
    rows.push(row(&format!("ByteStream write, 256 MiB (limit: the slowest of {parts})"), limit, writes));
    rows.push(row("ByteStream read, 256 MiB (limit: loopback)", Some(&copied), reads));
    Ok(())
}

async fn write(channel: &Channel, digest: &Digest, data: &Bytes) -> Result<(), String> {
    let name = format!("uploads/{}/blobs/{digest}", uuid_of(digest));
    let data = data.clone();
    let count = data.len().div_ceil(PIECE_BYTES);
    let messages = (0..count).map(move |index| {
        let start = index * PIECE_BYTES;
        WriteRequest {
            resource_name: if index == 0 { name.clone() } else { String::new() },
            write_offset: i64::try_from(start).unwrap_or(i64::MAX),
            finish_write: index + 1 == count,
            data: data.slice(start..data.len().min(start + PIECE_BYTES)),
        }
    });
    let mut client = ByteStreamClient::new(channel.clone());
    let answer = client.write(tokio_stream::iter(messages)).await.map_err(|status| status.to_string())?;
    let committed = answer.into_inner().committed_size;
    if committed == i64::try_from(STREAM_BYTES).unwrap_or(i64::MAX) {
        Ok(())
    } else {
        Err(format!("{committed} bytes were committed"))
    }
}

/// Names an upload; that of another blob is another.
fn uuid_of(digest: &Digest) -> String {
    let hash = digest.hash_hex();
    format!("{}-{}-4{}-8{}-{}", &hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32])
}

async fn read(channel: &Channel, digest: &Digest) -> Result<(), String> {
    let request = ReadRequest { resource_name: format!("blobs/{digest}"), ..Default::default() };
    let mut client = ByteStreamClient::new(channel.clone()).max_decoding_message_size(16 << 20);
    let mut stream = client.read(request).await.map_err(|status| status.to_string())?.into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.map_err(|status| status.to_string())? {
        bytes += message.data.len();
    }
    if bytes == STREAM_BYTES { Ok(()) } else { Err(format!("{bytes} bytes were read")) }
}

async fn memory(peers: &[Peer], rows: &mut Vec<Vec<String>>) -> Result<(), String> {
    let mut cells = vec!["memory after 100,000 blobs of 512 bytes more (resident)".to_owned(), String::new()];
    for peer in peers {
        let mut first = 1 << 40;
        while first < (1 << 40) + MANY {
            update(&peer.channel, batch(first, BATCH, 512)).await?;
            first += BATCH;
        }
        cells.push(format!("{} MB", resident_kb(peer.pid)? / 1000));
    }
    rows.push(cells);
    Ok(())
}

fn resident_kb(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("read `{path}`: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).ok_or("no VmRSS".to_owned())
}

/// Appends pieces to a file, and syncs it: what is kept takes memory and places on the disk that are new, too.
fn append_and_sync(path: &Path, piece: usize, count: usize) -> Result<Duration, String> {
    let data = vec![7; piece];
    let write = || {
        let mut file = File::options().create(true).append(true).open(path)?;
        let begin = Instant::now();
        for _ in 0..count {
            file.write_all(&data)?;
        }
        file.sync_data()?;
        std::io::Result::Ok(begin.elapsed())
    };
    write().map_err(|error| format!("write `{}`: {error}", path.display()))
}

fn copy_over_loopback(data: &Bytes) -> Result<Duration, String> {
    let copy = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let data = data.clone();
        let sending = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            data.chunks(PIECE_BYTES).try_for_each(|piece| stream.write_all(piece))
        });
        let begin = Instant::now();
        let (mut stream, _) = listener.accept()?;
        let mut piece = vec![0; PIECE_BYTES];
        while stream.read(&mut piece)? > 0 {}
        sending.join().map_err(|_| std::io::Error::other("the sender panicked"))??;
        std::io::Result::Ok(begin.elapsed())
    };
    copy().map_err(|error| format!("copy over loopback: {error}"))
}

fn blob(number: u64, length: usize) -> (Digest, Bytes) {
    let mut data = vec![0; length];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for word in data.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    (Digest::of(DigestFunction::Sha256, &data), data.into())
}

fn batch(first: u64, count: u64, length: usize) -> BatchUpdateBlobsRequest {
    let requests = (first..first + count).map(|number| {
        let (digest, data) = blob(number, length);
        Request { digest: Some(digest.to_proto()), data, ..Request::default() }
    });
    BatchUpdateBlobsRequest { requests: requests.collect(), ..Default::default() }
}

async fn update(channel: &Channel, request: BatchUpdateBlobsRequest) -> Result<(), String> {
    let mut client =
        ContentAddressableStorageClient::new(channel.clone()).max_encoding_message_size(16 << 20);
    let answer = client.batch_update_blobs(request).await.map_err(|status| status.to_string())?.into_inner();
    let refused =
        answer.responses.into_iter().filter_map(|response| response.status).find(|status| status.code != 0);
    refused.map_or(Ok(()), |status| Err(status.message))
}
