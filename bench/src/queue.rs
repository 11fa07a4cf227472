//! A hundred thousand actions from fifty runs onto simulated workers, over real connections: what the scheduler
//! alone costs.
//!
//! The workers say what real ones say and run nothing. They hold on to their first leases until everything is
//! queued; from then on each answers at once, so the scheduler is never waited with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::admin::{GetStatusRequest, admin_client::AdminClient};
use castwork_proto::longrunning::operation::Result as Ended;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{self, RequestMetadata, batch_update_blobs_request::Request};
use futures::future::try_join_all;
use prost::Message as _;
use tokio::sync::{Barrier, watch};
use tonic::transport::Channel;

use crate::process::Process;
use crate::simulated::{Phase, connect, work};
use crate::spread::{Spread, milliseconds};
use crate::table;

/// REAPI's header for who asks.
const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Executes under way on one connection; the server takes a few more.
pub(crate) const CALLS_MAX: usize = 1_000;

/// Blobs that are uploaded in one call.
const UPLOAD: usize = 1_000;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Actions of all runs together.
    pub actions: usize,
    /// Runs that they come from.
    pub runs: usize,
    /// Simulated workers.
    pub workers: usize,
    /// Slots of each.
    pub slots: usize,
}

/// Measures, and returns a Markdown table. `pid` is the scheduler's process.
///
/// # Errors
/// What could not be reached, or did not end as it has to.
pub async fn run(address: &str, pid: u32, load: Load) -> Result<String, String> {
    let each = load.actions.div_ceil(load.runs);
    let channel = connect(address).await?;
    let before = Process::of(pid)?;
    let (go, gate) = watch::channel(Phase::Hold);
    let workers = (0..load.workers)
        .map(|number| tokio::spawn(work(address.to_owned(), number, load.slots, gate.clone())));
    let workers: Vec<_> = workers.collect();
    let uploaded = Instant::now();
    let mut digests = Vec::new();
    for run in 0..load.runs {
        digests.push(upload(channel.clone(), &run.to_string(), each).await?);
    }
    let uploaded = uploaded.elapsed();
    let begun = Instant::now();
    // Everybody has asked before anything may end.
    let asked = Arc::new(Barrier::new(load.runs * each.div_ceil(CALLS_MAX) + 1));
    let mut runs = Vec::new();
    for (run, digests) in digests.into_iter().enumerate() {
        for part in digests.chunks(CALLS_MAX) {
            let (address, asked) = (address.to_owned(), Arc::clone(&asked));
            runs.push(tokio::spawn(build(address, format!("run-{run}"), part.to_vec(), asked)));
        }
    }
    asked.wait().await;
    let total = load.runs * each;
    let waiting = total.saturating_sub(load.workers * load.slots);
    until_queued(channel.clone(), waiting as u64).await?;
    let queued = begun.elapsed();
    let full = Process::of(pid)?;
    let drained = Instant::now();
    go.send_replace(Phase::Answer { after: Duration::ZERO });
    for run in try_join_all(runs).await.map_err(|error| error.to_string())? {
        run?;
    }
    let drained = drained.elapsed();
    let after = Process::of(pid)?;
    go.send_replace(Phase::End);
    let mut pauses = Vec::new();
    for paused in try_join_all(workers).await.map_err(|error| error.to_string())? {
        pauses.extend(paused?);
    }
    let pauses = Spread::new(pauses);
    let totals = Totals { total, uploaded, queued, drained, cpu: after.cpu.saturating_sub(full.cpu), pauses };
    Ok(totals.table(load, &before, &full))
}

struct Totals {
    total: usize,
    uploaded: Duration,
    queued: Duration,
    drained: Duration,
    cpu: Duration,
    /// From each outcome to the next lease of its worker.
    pauses: Spread,
}

impl Totals {
    fn table(&self, load: Load, before: &Process, full: &Process) -> String {
        let count = f64::from(u32::try_from(self.total).unwrap_or(u32::MAX));
        let per_second = |time: Duration| format!("{:.0}", count / time.as_secs_f64());
        let microseconds = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6 / count);
        let memory = full.memory_bytes.saturating_sub(before.memory_bytes);
        let rows = [
            ("upload the actions", per_second(self.uploaded) + " a second"),
            ("ask for them, until all are queued", per_second(self.queued) + " a second"),
            ("run them", per_second(self.drained) + " a second"),
            (
                "from an outcome to that worker's next lease, p50 and p99",
                format!(
                    "{}, {}",
                    milliseconds(self.pauses.median()),
                    milliseconds(self.pauses.percentile(99))
                ),
            ),
            ("CPU of the scheduler for an action that is run", microseconds(self.cpu)),
            ("actions run for a second of that CPU", per_second(self.cpu)),
            (
                "memory for an action that is queued and waited for",
                format!("{:.1} KB", to_float(memory) / 1e3 / count),
            ),
        ];
        let heading = format!(
            "{} actions of {} runs, {} workers of {} slots",
            self.total, load.runs, load.workers, load.slots
        );
        let rows: Vec<_> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
        table::markdown(&[&heading, ""], &rows)
    }
}

/// Uploads the actions of a run; each is another, and none is kept.
pub(crate) async fn upload(channel: Channel, run: &str, count: usize) -> Result<Vec<Digest>, String> {
    let command = reapi::Command { arguments: vec!["true".to_owned()], ..reapi::Command::default() };
    let directory = reapi::Directory::default();
    let mut blobs = vec![command.encode_to_vec(), directory.encode_to_vec()];
    let (command, root) = (digest_of(&blobs[0]), digest_of(&blobs[1]));
    let mut digests = Vec::with_capacity(count);
    for number in 0..count {
        let action = reapi::Action {
            command_digest: Some(command.to_proto()),
            input_root_digest: Some(root.to_proto()),
            do_not_cache: true,
            salt: Bytes::from(format!("{run}/{number}")),
            ..reapi::Action::default()
        };
        blobs.push(action.encode_to_vec());
        digests.push(digest_of(blobs.last().expect("it was just pushed")));
    }
    for part in blobs.chunks(UPLOAD) {
        let blob = |data: &Vec<u8>| Request {
            digest: Some(digest_of(data).to_proto()),
            data: data.clone().into(),
            ..Request::default()
        };
        let requests = part.iter().map(blob).collect();
        let request = reapi::BatchUpdateBlobsRequest { requests, ..Default::default() };
        let mut client = ContentAddressableStorageClient::new(channel.clone());
        let answer =
            client.batch_update_blobs(request).await.map_err(|status| format!("upload: {status}"))?;
        let wrong = answer.into_inner().responses.into_iter().filter_map(|response| response.status);
        if let Some(status) = wrong.into_iter().find(|status| status.code != 0) {
            return Err(format!("upload: {}", status.message));
        }
    }
    Ok(digests)
}

fn digest_of(data: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, data)
}

/// A part of a run: asks for all its actions at once and waits for all of them.
pub(crate) async fn build(
    address: String,
    run: String,
    digests: Vec<Digest>,
    asked: Arc<Barrier>,
) -> Result<(), String> {
    let channel = connect(&address).await?;
    let metadata = RequestMetadata { tool_invocation_id: run, ..RequestMetadata::default() };
    let metadata = tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec());
    let mut streams = Vec::with_capacity(digests.len());
    for digest in &digests {
        let request = reapi::ExecuteRequest { action_digest: Some(digest.to_proto()), ..Default::default() };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert_bin(METADATA, metadata.clone());
        let stream = ExecutionClient::new(channel.clone()).execute(request).await;
        streams.push(stream.map_err(|status| format!("Execute: {status}"))?.into_inner());
    }
    asked.wait().await;
    for mut stream in streams {
        loop {
            let operation = stream.message().await.map_err(|status| format!("Execute: {status}"))?;
            let operation = operation.ok_or("Execute ended before its operation was done")?;
            if operation.done {
                let Some(Ended::Response(response)) = operation.result else {
                    return Err("no response".into());
                };
                let response: reapi::ExecuteResponse =
                    response.to_msg().map_err(|error| error.to_string())?;
                match response.status {
                    Some(status) if status.code != 0 => return Err(status.message),
                    _ => break,
                }
            }
        }
    }
    Ok(())
}

pub(crate) async fn until_queued(channel: Channel, count: u64) -> Result<(), String> {
    let mut admin = AdminClient::new(channel).max_decoding_message_size(64 << 20);
    loop {
        let status =
            admin.get_status(GetStatusRequest {}).await.map_err(|status| format!("status: {status}"))?;
        if status.into_inner().queued >= count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn to_float(number: u64) -> f64 {
    number as f64
}
