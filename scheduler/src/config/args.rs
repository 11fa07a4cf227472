//! [`Args`]: the flags as they are typed.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{ArgGroup, Parser, Subcommand};

use super::store::parse_moment;

/// Keeps blobs and results, and has workers run actions (Remote Execution API v2).
///
/// Every flag but --config and --check-config can also stand in the configuration file (TOML) under the
/// same name. A flag wins over the file.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "castwork-scheduler", version)]
pub struct Args {
    /// Where the Remote Execution API is served; port 0 picks one [default: 127.0.0.1:8980]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where metrics, health and the HTTP cache are served; port 0 picks one [default: 127.0.0.1:8981]
    #[arg(long, value_name = "IP:PORT")]
    pub http_listen: Option<String>,
    /// What Bazel, ccache and sccache may do over HTTP: `read-write`, `read-only` or `off` [default: read-write]
    #[arg(long, value_name = "ACCESS")]
    pub http_cache: Option<String>,
    /// Where blobs and results are kept; one server a folder [default: castwork-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// What blobs and results may take up, such as 500MB or 1TiB [default: 20GB]
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,
    /// `durable`: what is acknowledged survives a loss of power; `relaxed`: only the server's end [default: durable]
    #[arg(long, value_name = "KIND")]
    pub durability: Option<String>,
    /// What is read each second in the background to verify all that is kept, such as 20MB; 0 for none [default: 10MB]
    #[arg(long, value_name = "SIZE")]
    pub verify_rate: Option<String>,
    /// What runs may hold of what they have touched, until they have been quiet for --lease-quiet, such as 5GB or 25%;
    /// 0 for nothing [default: 25%]
    #[arg(long, value_name = "SIZE")]
    pub lease_size: Option<String>,
    /// How long a run may be quiet before it holds nothing any more [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub lease_quiet: Option<String>,
    /// Results that are older, such as 30d, are not answered any more [default: none is too old]
    #[arg(long, value_name = "TIME")]
    pub result_age_max: Option<String>,
    /// Results from before this moment, such as 2026-11-21T13:00:00Z, are not answered any more
    #[arg(long, value_name = "TIME")]
    pub results_since: Option<String>,
    /// A slower, larger place for what is kept: grpc://HOST:PORT[/INSTANCE] of another server, or an object store
    /// (`s3://BUCKET/PREFIX`, `gs://`, `azblob://`, `webdav+http://`, `redis://`); with ?mode=ro it is only read
    #[arg(long, value_name = "URL")]
    pub tier: Option<String>,
    /// Run a worker in this process, with one slot a processor or as many as you say
    #[arg(long, value_name = "SLOTS", num_args = 0..=1, require_equals = true)]
    pub with_worker: Option<Option<String>>,
    /// Written when the server serves: {"grpc": ADDRESS, "http": ADDRESS, "pid": NUMBER}
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<String>,
    /// `human` or `json` [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check flags and file, say what is wrong with them, and end
    #[arg(long)]
    pub check_config: bool,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done instead of serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Reads all that is kept in --data-dir, which no server may use meanwhile, and drops what is not what its
    /// name says. Ends with 1 if there was any such
    Verify,
    /// Takes results back, so that their actions are run again: those to which all that is said applies. Asks the
    /// server at --server, or without that looks into --data-dir, which no server may use meanwhile. Blobs stay, as
    /// they prove themselves
    Revoke(RevokeArgs),
}

/// Which results are to be taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)))]
pub struct RevokeArgs {
    /// The server, if it runs
    #[arg(long, value_name = "grpc://HOST:PORT")]
    pub server: Option<String>,
    /// Executed by workers of this name; `*` and `?` stand for letters
    #[arg(long, value_name = "NAME", group = "which")]
    pub worker: Option<String>,
    /// Uploaded by somebody of this name or, as nobody is asked for one yet, from this address; likewise
    #[arg(long, value_name = "NAME", group = "which")]
    pub principal: Option<String>,
    /// Made then or later: 2026-11-21T13:00:00Z, or 3h for the last three hours
    #[arg(long, value_name = "TIME", group = "which", value_parser = parse_moment)]
    pub since: Option<SystemTime>,
    /// Of the action whose hash begins so
    #[arg(long, value_name = "HASH", group = "which")]
    pub action: Option<String>,
    /// Only say which they are
    #[arg(long)]
    pub dry_run: bool,
}
