//! The round trip of an action: Execute of `true`, sandboxed, against starting `true`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use castwork_cas::{Digest, DigestFunction};
use castwork_proto::longrunning::operation::Result as Outcome;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::{self, batch_update_blobs_request::Request};
use futures::future::try_join_all;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::spread::{Spread, milliseconds};
use crate::table;

/// What is run; on every Linux worker.
const TRUE: &str = "/bin/true";

/// Measures with one caller and with several, against plain process starts in the same run; Markdown.
///
/// # Errors
/// What could not be reached or did not end with exit code 0.
pub async fn run(address: &str, rounds: usize, callers: usize) -> Result<String, String> {
    let channel = connect(address).await?;
    let action = upload(channel.clone()).await?;
    execute(channel.clone(), &action).await?; // The first one pays for everything that is made once.

    let (mut spawned, mut executed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        spawned.push(spawn()?);
        executed.push(execute(channel.clone(), &action).await?);
    }
    let (spawned, executed) = (Spread::new(spawned), Spread::new(executed));

    let begin = Instant::now();
    let each = rounds.div_ceil(callers);
    let crowd = try_join_all((0..callers).map(|_| repeat(channel.clone(), &action, each))).await?;
    let took = begin.elapsed();
    let crowd = Spread::new(crowd.into_iter().flatten().collect());

    let row = |name: String, spread: &Spread, rate: String| {
        vec![
            name,
            milliseconds(spread.median()),
            milliseconds(spread.percentile(99)),
            format!("{:.1}", spread.ratio_to(&spawned)),
            rate,
        ]
    };
    let rate = f64::from(u32::try_from(each * callers).unwrap_or(u32::MAX)) / took.as_secs_f64();
    Ok(table::markdown(
        &["Execute of `true`", "p50", "p99", "to starting it", "per second"],
        &[
            row("start `true`, plain".to_owned(), &spawned, String::new()),
            row("Execute, sandboxed, 1 caller".to_owned(), &executed, String::new()),
            row(format!("Execute, sandboxed, {callers} callers"), &crowd, format!("{rate:.0}")),
        ],
    ))
}

async fn connect(address: &str) -> Result<Channel, String> {
    let url = address.replacen("grpc://", "http://", 1);
    let endpoint = Endpoint::from_shared(url).map_err(|error| format!("address `{address}`: {error}"))?;
    endpoint.tcp_nodelay(true).connect().await.map_err(|error| format!("connect to `{address}`: {error}"))
}

/// Uploads an action that is never cached, so that each Execute is a run.
async fn upload(channel: Channel) -> Result<Digest, String> {
    let command = reapi::Command { arguments: vec![TRUE.to_owned()], ..reapi::Command::default() };
    let directory = reapi::Directory::default();
    let action = reapi::Action {
        command_digest: Some(digest_of(&command).to_proto()),
        input_root_digest: Some(digest_of(&directory).to_proto()),
        do_not_cache: true,
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

async fn repeat(channel: Channel, action: &Digest, times: usize) -> Result<Vec<Duration>, String> {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        all.push(execute(channel.clone(), action).await?);
    }
    Ok(all)
}

/// One Execute, from the call to the completed operation.
async fn execute(channel: Channel, action: &Digest) -> Result<Duration, String> {
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
        let exit_code = response.result.map(|result| result.exit_code);
        if status.code != 0 || exit_code != Some(0) {
            return Err(format!("`{TRUE}` ended with {exit_code:?}: {}", status.message));
        }
        return Ok(took);
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
