//! The round trip of an action: Execute of `true`, sandboxed, against starting `true`; and Execute of what is known.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use castwork_cas::{Digest, DigestFunction};
use castwork_proto::longrunning::operation::Result as Outcome;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{self, batch_update_blobs_request::Request};
use futures::future::try_join_all;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::process::Trees;
use crate::spread::{Spread, milliseconds};
use crate::table;

/// What is run; on every Linux worker.
const TRUE: &str = "/bin/true";

/// Callers that ask for what is known already, and how often each does for a round of the others.
const CACHED_CALLERS: usize = 16;
const CACHED_TIMES: usize = 10;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Counted rounds.
    pub rounds: usize,
    /// How many call at once where many do.
    pub callers: usize,
}

/// Measures with one caller and with several, against plain process starts in the same run; Markdown. `pids` are
/// the server's and the worker's processes.
///
/// # Errors
/// What could not be reached or did not end with exit code 0.
pub async fn run(address: &str, pids: &[u32], load: Load) -> Result<String, String> {
    let Load { rounds, callers } = load;
    let channel = connect(address).await?;
    let action = upload(channel.clone(), true).await?;
    execute(channel.clone(), &action).await?; // The first one pays for everything that is made once.

    let (mut spawned, mut executed) = (Vec::new(), Vec::new());
    let before = Trees::of(&[std::process::id()])?;
    for _ in 0..rounds {
        spawned.push(spawn()?);
    }
    let plain_cpu = Trees::of(&[std::process::id()])?.each_since(before, rounds);
    let before = Trees::of(pids)?;
    for _ in 0..rounds {
        executed.push(execute(channel.clone(), &action).await?);
    }
    let (spawned, alone) = (Spread::new(spawned), Crowd::of(&executed, Trees::of(pids)?, before));
    let crowd = crowd(address, pids, &action, callers, (rounds * 10).div_ceil(callers)).await?;
    let known = upload(channel.clone(), false).await?;
    execute(channel.clone(), &known).await?;
    let cached = self::crowd(address, pids, &known, CACHED_CALLERS, rounds * CACHED_TIMES).await?;

    let plain = vec!["start `true`, plain".to_owned(), milliseconds(spawned.median())];
    let plain: Vec<_> = plain.into_iter().chain([milliseconds(spawned.percentile(99))]).collect();
    let blank = [String::new(), milliseconds(plain_cpu.all()), milliseconds(plain_cpu.below)];
    let stage = |(name, time): (&&str, &Duration)| vec![(*name).to_owned(), milliseconds(*time)];
    let stages: Vec<_> = STAGES.iter().zip(&alone.stages).map(stage).collect();
    let totals = table::markdown(
        &["Execute of `true`", "p50", "p99", "per second", "CPU, each", "of that, what is started"],
        &[
            plain.into_iter().chain(blank).collect(),
            alone.row("sandboxed, 1 caller"),
            crowd.row(&format!("sandboxed, {callers} callers")),
            cached.row(&format!("from the cache, {CACHED_CALLERS} callers")),
        ],
    );
    let stages = table::markdown(&["where the time of 1 caller goes", "p50"], &stages);
    Ok(format!("{totals}\n{stages}"))
}

/// What callers at the same time have measured.
struct Crowd {
    times: Spread,
    /// Medians.
    stages: [Duration; STAGES.len()],
    /// Of all together.
    per_second: Option<f64>,
    /// Of the server and the worker.
    cpu_each: Trees,
}

impl Crowd {
    fn of(took: &[Took], now: Trees, before: Trees) -> Self {
        let cpu_each = now.each_since(before, took.len());
        let spread = |time: &dyn Fn(&Took) -> Duration| Spread::new(took.iter().map(time).collect());
        let stages = std::array::from_fn(|at| spread(&|took: &Took| took.stages[at]).median());
        Self { times: spread(&|took: &Took| took.all), stages, per_second: None, cpu_each }
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            milliseconds(self.times.median()),
            milliseconds(self.times.percentile(99)),
            self.per_second.map_or_else(String::new, |rate| format!("{rate:.0}")),
            milliseconds(self.cpu_each.all()),
            milliseconds(self.cpu_each.below),
        ]
    }
}

/// Has callers, each with a connection of its own, execute an action `times` times each.
async fn crowd(
    address: &str,
    pids: &[u32],
    action: &Digest,
    callers: usize,
    times: usize,
) -> Result<Crowd, String> {
    let channels = try_join_all((0..callers).map(|_| connect(address))).await?;
    let (before, begin) = (Trees::of(pids)?, Instant::now());
    let callers = channels.into_iter().map(|channel| tokio::spawn(repeat(channel, *action, times)));
    let mut measured = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        measured.extend(caller.await.map_err(|error| error.to_string())??);
    }
    let took = begin.elapsed();
    let count = f64::from(u32::try_from(measured.len()).unwrap_or(u32::MAX));
    let now = Trees::of(pids)?;
    Ok(Crowd { per_second: Some(count / took.as_secs_f64()), ..Crowd::of(&measured, now, before) })
}

async fn connect(address: &str) -> Result<Channel, String> {
    let url = address.replacen("grpc://", "http://", 1);
    let endpoint = Endpoint::from_shared(url).map_err(|error| format!("address `{address}`: {error}"))?;
    endpoint.tcp_nodelay(true).connect().await.map_err(|error| format!("connect to `{address}`: {error}"))
}

/// Uploads an action; if its result is never kept, each Execute is a run.
async fn upload(channel: Channel, do_not_cache: bool) -> Result<Digest, String> {
    let command = reapi::Command { arguments: vec![TRUE.to_owned()], ..reapi::Command::default() };
    let directory = reapi::Directory::default();
    let action = reapi::Action {
        command_digest: Some(digest_of(&command).to_proto()),
        input_root_digest: Some(digest_of(&directory).to_proto()),
        do_not_cache,
        ..reapi::Action::default()
    };
    let blob = |digest: Digest, data: Vec<u8>| Request {
        digest: Some(digest.to_proto()),
        data: data.into(),
        ..Request::default()
    };
    let requests = vec![
        blob(digest_of(&command), command.encode_to_vec()),
        blob(digest_of(&directory), directory.encode_to_vec()),
        blob(digest_of(&action), action.encode_to_vec()),
    ];
    let request = reapi::BatchUpdateBlobsRequest { requests, ..reapi::BatchUpdateBlobsRequest::default() };
    let answer = ContentAddressableStorageClient::new(channel)
        .batch_update_blobs(request)
        .await
        .map_err(|status| format!("upload the action: {status}"))?;
    for response in answer.into_inner().responses {
        let status = response.status.unwrap_or_default();
        if status.code != 0 {
            return Err(format!("upload the action: {}", status.message));
        }
    }
    Ok(digest_of(&action))
}

async fn repeat(channel: Channel, action: Digest, times: usize) -> Result<Vec<Took>, String> {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        all.push(execute(channel.clone(), &action).await?);
    }
    Ok(all)
}

/// How long one Execute took: in all, and from stage to stage.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    all: Duration,
    stages: [Duration; STAGES.len()],
}

/// What there is between the moments that a result names.
const STAGES: [&str; 5] = [
    "until a worker begins",
    "read, fetch and lay out",
    "confine, run and end",
    "collect and upload",
    "until the client has it",
];

impl Took {
    fn new(begin: SystemTime, all: Duration, metadata: &reapi::ExecutedActionMetadata) -> Self {
        let moments = [
            Some(begin),
            at(metadata.worker_start_timestamp.as_ref()),
            at(metadata.execution_start_timestamp.as_ref()),
            at(metadata.execution_completed_timestamp.as_ref()),
            at(metadata.worker_completed_timestamp.as_ref()),
            Some(begin + all),
        ];
        let between = |at: usize| moments[at + 1]?.duration_since(moments[at]?).ok();
        Self { all, stages: std::array::from_fn(|at| between(at).unwrap_or_default()) }
    }
}

fn at(moment: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(*moment?).ok()
}

/// One Execute, from the call to the completed operation.
async fn execute(channel: Channel, action: &Digest) -> Result<Took, String> {
    let now = SystemTime::now();
    let begin = Instant::now();
    let request =
        reapi::ExecuteRequest { action_digest: Some(action.to_proto()), ..reapi::ExecuteRequest::default() };
    let mut operations = ExecutionClient::new(channel)
        .execute(request)
        .await
        .map_err(|status| format!("Execute: {status}"))?
        .into_inner();
    while let Some(operation) = operations.message().await.map_err(|status| format!("Execute: {status}"))? {
        if !operation.done {
            continue;
        }
        let took = begin.elapsed();
        let Some(Outcome::Response(response)) = operation.result else {
            return Err("Execute ended without a response".to_owned());
        };
        let response: reapi::ExecuteResponse =
            response.to_msg().map_err(|error| format!("Execute's response: {error}"))?;
        let status = response.status.unwrap_or_default();
        let exit_code = response.result.as_ref().map(|result| result.exit_code);
        if status.code != 0 || exit_code != Some(0) {
            return Err(format!("`{TRUE}` ended with {exit_code:?}: {}", status.message));
        }
        let metadata = response.result.and_then(|result| result.execution_metadata).unwrap_or_default();
        return Ok(Took::new(now, took, &metadata));
    }
    Err("Execute ended before its operation was done".to_owned())
}

fn spawn() -> Result<Duration, String> {
    let begin = Instant::now();
    let status = Command::new(TRUE).stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("start `{TRUE}`: {error}"))?;
    if status.success() { Ok(begin.elapsed()) } else { Err(format!("`{TRUE}` {status}")) }
}

fn digest_of(message: &impl Message) -> Digest {
    Digest::of(DigestFunction::Sha256, &message.encode_to_vec())
}
