//! Runs actions: fetches their inputs, confines their commands, uploads their outputs.
//!
//! [`run`] is a whole worker. It dials a scheduler (`attach`, `session`), keeps account of its leases
//! (`ledger`), and around each action (`lease`, `execute`) it fetches and lays out inputs, has a
//! [`sandbox`] run the command, and collects and uploads outputs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod action;
mod attach;
mod blocking;
mod canary;
pub mod config;
mod data_dir;
mod execute;
mod failure;
pub mod flags;
mod groups;
mod host_files;
mod inputs;
mod lease;
mod ledger;
mod local;
mod outputs;
mod remotes;
pub mod sandbox;
mod session;
mod spans;

use std::path::PathBuf;
use std::sync::Arc;

use castwork_cas::{DigestFunction, StoreError};
use castwork_proto::worker::Hello;
use castwork_trace::Tracer;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::attach::Attendance;
pub use crate::attach::RETURN_WAIT_MAX;
pub use crate::config::{SandboxChoice, WorkerConfig};
use crate::data_dir::DataDir;
pub use crate::data_dir::DataDirError;
use crate::execute::Workshop;
use crate::host_files::HostFiles;
use crate::inputs::{Bases, Fetcher, Stage};
use crate::local::Local;
use crate::remotes::Remotes;
use crate::sandbox::{Bounds, Confined, Root, Sandbox, SandboxError, Surroundings, Unconfined};

/// Turns this process into the sandbox of one command if it was started to be that.
///
/// Every program that runs a worker calls this first thing in `main`, before it starts a second
/// thread: commands are confined by a fresh, single-threaded start of the same program.
pub fn enter_sandbox_if_asked() {
    sandbox::enter_if_asked();
}

/// Share of the bound on bytes for input trees that stay laid out, in percent. Their files are mostly those of the
/// local CAS; but what that evicts they keep.
const BASES_PERCENT: u64 = 20;

/// How a worker is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take nothing new, finish what runs (within [`WorkerConfig::drain_wait`]), then end.
    pub drain: CancellationToken,
    /// Kill what runs and end.
    pub now: CancellationToken,
}

/// Why a worker can't start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The data folder can't be used.
    #[error("the data folder can't be used")]
    DataDir(#[from] DataDirError),
    /// Commands can't be confined as they are to be.
    #[error("commands can't be run as configured")]
    Sandbox(#[from] SandboxError),
    /// The local CAS can't be opened.
    #[error("the local CAS can't be opened")]
    Local(#[source] StoreError),
    /// The scheduler's address is none.
    #[error("the scheduler's address can't be used")]
    Scheduler(#[source] StoreError),
    /// A root was configured that the sandbox can't give.
    #[error("property `root={root}` needs more than `--sandbox {level}` can do")]
    Root {
        /// The value.
        root: String,
        /// What the sandbox is.
        level: &'static str,
    },
}

/// Runs a worker until it is asked to stop; nothing of it is left when this returns.
///
/// Losing the scheduler is no error: the worker goes on with what it has and tries again, for ever.
///
/// # Errors
/// Only before it has begun: something configured can't be had.
pub async fn run(config: WorkerConfig, stop: Stop) -> Result<(), WorkerError> {
    let data_dir = DataDir::open(&config.data_dir, config.slots.saturating_add(config.ahead))?;
    let sandbox = open_sandbox(&config, data_dir.path()).await?;
    let properties = config::properties(&config.properties, &root_names(&*sandbox), config.allows_network);
    let offered = |root: &&str| properties.iter().any(|own| own.name == "root" && own.value == **root);
    let possible = root_names(&*sandbox);
    if let Some(root) = ["worker", "inputs"].iter().find(|root| offered(root) && !possible.contains(root)) {
        return Err(WorkerError::Root { root: (*root).to_owned(), level: sandbox.level() });
    }
    let bases_max = config.bytes_max / 100 * BASES_PERCENT;
    let local = Local::open(data_dir.path(), config.bytes_max - bases_max, sandbox.owner());
    let local = local.map_err(WorkerError::Local)?;
    let remotes = Remotes::new(&config.scheduler);
    let remote = remotes.get("", DigestFunction::Sha256).map_err(WorkerError::Scheduler)?;
    let name = if config.name.is_empty() { sandbox::host_name() } else { config.name };
    // Without a sandbox nothing bounds what an action uses.
    let bounds = config.bounds.unwrap_or_else(|| Bounds::for_this_machine(config.slots));
    let is_bounded = config.sandbox != SandboxChoice::None;
    let [action_memory_bytes, action_memory_bytes_max] =
        [bounds.memory_bytes, bounds.memory_bytes_max].map(|bytes| if is_bounded { bytes } else { 0 });
    let hello = Hello {
        worker_id: data_dir.worker_id().to_owned(),
        name: name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        properties: config::with_memory(properties),
        action_memory_bytes,
        action_memory_bytes_max,
        slots: u32::try_from(config.slots).unwrap_or(u32::MAX),
        running: Vec::new(),
        sandbox: sandbox.level().to_owned(),
        // As it is when it connects.
        draining: false,
        condition: None,
    };
    info!(name, worker = hello.worker_id, slots = config.slots, sandbox = sandbox.level(), "worker started");
    let inputs = Stage {
        local: local.clone(),
        fetcher: Fetcher::new(local.clone()),
        bases: Arc::new(Bases::new(&data_dir.bases(), bases_max)),
    };
    let host_files = Arc::new(HostFiles::default());
    let (tracer, exporting) =
        config.traces.map(|settings| Tracer::start(settings, "castwork-worker")).unzip();
    let workshop = Arc::new(Workshop {
        name,
        sandbox,
        allows_network: config.allows_network,
        local,
        inputs,
        host_files,
        data_dir,
        remotes,
        turns: Semaphore::new(config.slots.min(Semaphore::MAX_PERMITS)),
        ahead: config.ahead,
        tracer: tracer.unwrap_or_default(),
    });
    let (told, condition) = watch::channel(canary::condition(&workshop, String::new()));
    let canary = tokio::spawn(canary::watch_over(workshop.clone(), config.trial_every, told));
    let attendance =
        Attendance::new(workshop, remote, hello, condition, config.ready_file, config.drain_wait, stop);
    attendance.attend().await;
    canary.abort();
    let _ = canary.await;
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    info!("worker ended");
    Ok(())
}

async fn open_sandbox(
    config: &WorkerConfig,
    data_dir: &std::path::Path,
) -> Result<Arc<dyn Sandbox>, SandboxError> {
    if config.sandbox == SandboxChoice::None {
        if config.bounds.is_some() {
            let reason = "nothing bounds what an action uses without a sandbox".to_owned();
            let hint = "leave out `--action-memory` and `--action-cpus`, or use another `--sandbox`";
            return Err(SandboxError::Unavailable { reason, hint });
        }
        tracing::warn!("commands are not confined, as configured: they can do whatever the worker can");
        return Ok(Arc::new(Unconfined));
    }
    let mut hidden: Vec<PathBuf> = config.hidden.clone();
    hidden.push(data_dir.to_owned());
    let surroundings = Surroundings {
        data_dir: data_dir.to_owned(),
        hidden,
        level: config.sandbox.level(),
        bounds: config.bounds.unwrap_or_else(|| Bounds::for_this_machine(config.slots)),
        allows_network: config.allows_network,
        program: config.sandbox_program.clone(),
    };
    Ok(Arc::new(Confined::probe(&surroundings).await?))
}

/// The property `root` as messages have it.
fn root_names(sandbox: &dyn Sandbox) -> Vec<&'static str> {
    let name = |root: &Root| match root {
        Root::Worker => "worker",
        Root::Inputs => "inputs",
    };
    sandbox.roots().iter().map(name).collect()
}
