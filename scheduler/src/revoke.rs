//! `castwork-scheduler revoke`: takes results back, at a server that runs or in the folder of one that does not.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::admin::admin_client::AdminClient;
use castwork_proto::admin::{self, RevokeResultsRequest, RevokeResultsResponse};
use prost_types::Timestamp;

use crate::config::{Config, RevokeArgs};
use crate::front::admin::{result_of, result_selector};
use crate::store::pins::Pins;
use crate::store::revoke::{Revocation, RevokeError};
use crate::store::{Store, StoreConfig};

/// Enough to look through millions of results.
const ANSWER_WAIT: Duration = Duration::from_secs(300);

/// Takes back what `args` say, and writes what that was.
///
/// # Errors
/// If the server or the folder can't be asked, or the results can't be taken back for good.
pub async fn run(config: &Config, args: &RevokeArgs, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let selector = admin::ResultSelector {
        worker: args.worker.clone().unwrap_or_default(),
        principal: args.principal.clone().unwrap_or_default(),
        since: args.since.map(Timestamp::from),
        action_hash: args.action.clone().unwrap_or_default(),
    };
    let request = RevokeResultsRequest { selector: Some(selector), dry_run: args.dry_run };
    let answer = match &args.server {
        Some(address) => at_server(address, request).await?,
        None => in_folder(config, request).await?,
    };
    write(out, &answer, args.dry_run)?;
    Ok(())
}

async fn at_server(
    address: &str,
    request: RevokeResultsRequest,
) -> Result<RevokeResultsResponse, Box<dyn Error>> {
    let remote = Remote::connect_lazy(&RemoteConfig {
        address: address.to_owned(),
        instance: String::new(),
        function: DigestFunction::Sha256,
        token: std::env::var("CASTWORK_TOKEN").ok().filter(|token| !token.is_empty()),
        request_metadata: None,
        timeout: ANSWER_WAIT,
    })?;
    let request = remote.with_metadata(request);
    let answer = AdminClient::new(remote.channel()).revoke_results(request).await;
    Ok(answer.map_err(|status| format!("ask `{address}`: {}", status.message()))?.into_inner())
}

async fn in_folder(
    config: &Config,
    request: RevokeResultsRequest,
) -> Result<RevokeResultsResponse, Box<dyn Error>> {
    let selector = result_selector(request.selector.unwrap_or_default())
        .map_err(|status| status.message().to_owned())?;
    let folder = StoreConfig { is_kept_small: false, ..StoreConfig::new(&config.data_dir, u64::MAX) };
    let store = Store::open(&folder, Pins::default(), Arc::default())?;
    let revoked = loop {
        match store.results().revoke(selector.clone(), request.dry_run).await {
            // Nobody waits for an answer of ours meanwhile.
            Err(RevokeError::NotKnown) => tokio::time::sleep(Duration::from_millis(50)).await,
            revoked => break revoked,
        }
    };
    tokio::task::spawn_blocking(move || store.close()).await?;
    let Revocation { count, listed } = revoked?;
    Ok(RevokeResultsResponse { results: count, listed: listed.iter().map(result_of).collect() })
}

fn write(out: &mut dyn Write, answer: &RevokeResultsResponse, is_dry: bool) -> std::io::Result<()> {
    for result in &answer.listed {
        let function = DigestFunction::from_proto(result.digest_function, DigestFunction::Sha256);
        let action = result.action_digest.as_ref();
        let action =
            action.zip(function.ok()).and_then(|(it, function)| Digest::from_proto(it, function).ok());
        let action = action.map_or_else(|| "?".to_owned(), |action| action.to_string());
        let made = result.made.map_or_else(|| "?".to_owned(), |made| made.to_string());
        let by = match (result.worker.as_str(), result.principal.as_str()) {
            ("", "") => "uploaded".to_owned(),
            ("", principal) => format!("uploaded by {principal}"),
            (worker, _) => format!("executed by {worker}"),
        };
        let run = if result.run.is_empty() { String::new() } else { format!(" for run {}", result.run) };
        let instance = &result.instance_name;
        let instance = if instance.is_empty() { String::new() } else { format!(" in `{instance}`") };
        writeln!(out, "{made}  {action}{instance}  {by}{run}")?;
    }
    let more = answer.results.saturating_sub(answer.listed.len() as u64);
    if more > 0 {
        writeln!(out, "… and {more} more")?;
    }
    let done = if is_dry { "would be taken back" } else { "taken back" };
    writeln!(out, "{} results {done}", answer.results)
}
