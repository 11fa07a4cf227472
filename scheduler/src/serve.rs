//! [`Server`]: the composition root. Here it is decided which store sits under which service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::{Complete, StoreError};
use castwork_trace::{Exporting, Tracer};
use castwork_worker::{Stop, WorkerConfig, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tracing::{error, info, warn};

use crate::config::{Access, Config};
use crate::dispatch::{self, Dispatch, Journal, Recovered};
use crate::front::bytestream::ByteStreamService;
use crate::front::instance::Instances;
use crate::front::limits::Limits;
use crate::grpc::{self, Parts};
use crate::http::{self, Facts, HttpCache};
use crate::ready::ReadyFile;
use crate::runs::{Causes, Runs};
use crate::store::pins::Pins;
use crate::store::{Store, StoreConfig, StoreOpenError};
use crate::tier::Tier;
use crate::{Counters, Services};

/// How long calls that are under way may take to end when the server stops. A client that retries for
/// a few seconds must find the next server before it gives up.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often uploads that nobody goes on with are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// A tier, and the task that writes to it.
type Written = (Arc<Tier>, JoinHandle<()>);

/// In the data folder: the operations that have not ended.
const JOURNAL: &str = "operations.journal";

/// In the data folder: what became of each run.
const RUNS: &str = "runs.lines";

/// How often that is written down.
const SAVE_RUNS_EVERY: Duration = Duration::from_secs(1);

/// A server that serves.
pub struct Server {
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    store: Arc<Store>,
    dispatch: Dispatch,
    bytestream: ByteStreamService,
    health: tonic_health::server::HealthReporter,
    /// Cancelled when no new calls are to be taken.
    stop: CancellationToken,
    grpc: JoinHandle<Result<(), tonic::transport::Error>>,
    http: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    saver: JoinHandle<()>,
    runs: Arc<Runs>,
    /// What the store stands in front of.
    tier: Option<Written>,
    exporting: Option<Exporting>,
    worker: Option<Worker>,
    ready_file: Option<ReadyFile>,
}

/// The worker in this process.
struct Worker {
    stop: Stop,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Server {
    /// Opens the store and the ports, and serves. When this returns, clients are answered.
    ///
    /// # Errors
    /// See [`ServeError`]; nothing is left running then.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let limits = Limits { blob_bytes_max: config.bytes_max / 2, ..Limits::default() };
        let mut dispatch_limits = dispatch::Limits { kinds: config.kinds.clone(), ..Default::default() };
        dispatch_limits.queue.weights = config.weights.clone();
        dispatch_limits.queue.return_grace = config.wait_for_workers;
        dispatch_limits.queue.hedge_after = config.hedge_after;
        dispatch_limits.queue.recheck_per_million = config.recheck_per_million;
        dispatch_limits.operators = config.operators;
        Self::start_with(config, limits, dispatch_limits).await
    }

    /// As [`Server::start`], with other bounds than the usual ones.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with(
        config: &Config,
        limits: Limits,
        dispatch_limits: dispatch::Limits,
    ) -> Result<Self, ServeError> {
        let ready_file = config.ready_file.clone().map(ReadyFile::new).transpose()?;
        let counters = Arc::<Counters>::default();
        let pins = Pins::new(config.leases);
        let store = Arc::new(Store::open(&store_config(config), pins.clone(), Arc::clone(&counters))?);
        let grpc_listener = bind("gRPC", config.listen).await?;
        let http_listener = bind("HTTP", config.http_listen).await?;
        let (grpc_address, http_address) = (address(&grpc_listener)?, address(&http_listener)?);

        let tier = start_tier(config, &store, &counters)?;
        let (services, exporting) = services(config, &store, pins, Arc::clone(&counters))?;
        let runs = Arc::clone(&services.runs);
        let (journal, recovered) = open_journal(config)?;
        let dispatch = dispatch::resume(services.clone(), dispatch_limits, journal, recovered);
        let bytestream =
            ByteStreamService::new(services.instances.clone(), store.blobs(), limits.clone(), runs.clone());
        let (health, health_service) = tonic_health::server::health_reporter();
        let stop = CancellationToken::new();
        grpc::state_health(&health, ServingStatus::Serving).await;
        let cache = http_cache(config, &store, &services, &limits);
        let parts = Parts {
            services,
            blobs: store.blobs(),
            results: store.results(),
            durability: store.durability(),
            limits,
            dispatch: dispatch.clone(),
            bytestream: bytestream.clone(),
        };
        let grpc = tokio::spawn(grpc::serve(parts, grpc_listener, health_service, stop.clone()));
        let facts = Facts {
            counters,
            store: Arc::clone(&store),
            dispatch: dispatch.clone(),
            cache,
            tier: tier.as_ref().map(|tier| Arc::clone(&tier.0)),
            stop: stop.clone(),
        };
        let http = tokio::spawn(http::serve(http_listener, facts));
        let sweeper = tokio::spawn(sweep(bytestream.clone()));
        let saver = tokio::spawn(save(Arc::clone(&runs)));
        let mut server = Self {
            grpc_address,
            http_address,
            store,
            dispatch,
            bytestream,
            health,
            stop,
            grpc,
            http,
            sweeper,
            saver,
            runs,
            tier,
            exporting,
            worker: None,
            ready_file: None,
        };
        server.worker = config.worker_slots.map(|slots| server.start_worker(config, slots));
        server.announce(config, ready_file).await
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where metrics, health and the HTTP cache are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Says, in the log and in the ready file, that the server serves.
    async fn announce(mut self, config: &Config, file: Option<ReadyFile>) -> Result<Self, ServeError> {
        let http = (config.http_cache == Access::ReadWrite).then_some(self.http_address);
        for address in std::iter::once(self.grpc_address).chain(http).filter(|it| !it.ip().is_loopback()) {
            warn!(%address, "other machines can write to this server, and it asks nobody who they are");
        }
        if let Some(file) = file {
            if let Err(error) = file.write(self.grpc_address, self.http_address) {
                self.shutdown().await;
                return Err(error);
            }
            self.ready_file = Some(file);
        }
        let folder = config.data_dir.display().to_string();
        let durability = config.durability.name();
        info!(grpc = %self.grpc_address, http = %self.http_address, folder, durability, "serving");
        Ok(self)
    }

    fn start_worker(&self, config: &Config, slots: usize) -> Worker {
        let address = format!("grpc://{}", reachable(self.grpc_address));
        let mut worker = WorkerConfig::new(address, config.data_dir.join("worker"));
        if slots > 0 {
            worker.slots = slots;
        }
        // Whatever is in them, actions have no business there.
        let hidden = std::iter::once(&config.data_dir).chain(&config.file);
        worker.hidden = hidden.filter_map(|path| path.canonicalize().ok()).collect();
        worker.traces.clone_from(&config.traces);
        let stop = Stop::default();
        let task = tokio::spawn(castwork_worker::run(worker, stop.clone()));
        Worker { stop, task }
    }

    /// Returns when something that should run for ever has ended, and says what. Cancel-safe.
    pub async fn failed(&mut self) -> ServeError {
        let worker = async {
            match &mut self.worker {
                Some(worker) => (&mut worker.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut self.grpc => match ended {
                Ok(Err(source)) => ServeError::Grpc(source),
                Ok(Ok(())) | Err(_) => ServeError::Ended("gRPC"),
            },
            _ = &mut self.http => ServeError::Ended("HTTP"),
            () = self.dispatch.ended() => ServeError::Ended("the queue"),
            ended = worker => {
                self.worker = None;
                match ended {
                    Ok(Err(source)) => ServeError::Worker(source),
                    Ok(Ok(())) | Err(_) => ServeError::Ended("the worker"),
                }
            }
        }
    }

    /// Takes no more calls, lets those that are under way end within [`DRAIN_MAX`], and writes down what
    /// the next start is faster with.
    pub async fn shutdown(mut self) {
        info!("stopping");
        if let Some(file) = self.ready_file.take() {
            file.remove();
        }
        grpc::state_health(&self.health, ServingStatus::NotServing).await;
        if let Some(worker) = self.worker.take() {
            worker.stop.now.cancel();
            if let Ok(Err(error)) = worker.task.await {
                error!(%error, "the worker did not stop in order");
            }
        }
        self.dispatch.shutdown().await;
        self.stop.cancel();
        drain("gRPC", &mut self.grpc).await;
        drain("HTTP", &mut self.http).await;
        self.sweeper.abort();
        self.saver.abort();
        let runs = Arc::clone(&self.runs);
        if tokio::task::spawn_blocking(move || runs.save()).await.is_err() {
            error!("what became of runs was not written down");
        }
        if tokio::time::timeout(DRAIN_MAX, self.bytestream.finish()).await.is_err() {
            warn!("some uploads did not end in time");
        }
        if let Some((tier, writing)) = self.tier.take() {
            tier.close(DRAIN_MAX).await;
            if writing.await.is_err() {
                error!("writing to the tier did not end in order");
            }
        }
        let store = Arc::clone(&self.store);
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            error!("the store did not close in order");
        }
        if let Some(exporting) = self.exporting.take() {
            exporting.finish().await;
        }
        info!("stopped");
    }
}

/// Waits for a server to end by itself, and ends it if that takes too long.
async fn drain<T>(what: &str, task: &mut JoinHandle<T>) {
    if !task.is_finished() && tokio::time::timeout(DRAIN_MAX, &mut *task).await.is_err() {
        warn!(what, "some calls did not end in time and are cut off");
        task.abort();
    }
}

async fn sweep(bytestream: ByteStreamService) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        bytestream.sweep();
    }
}

/// Writes down what became of runs. That blocks, but hardly: it is not synced.
async fn save(runs: Arc<Runs>) {
    let mut ticks = tokio::time::interval(SAVE_RUNS_EVERY);
    loop {
        ticks.tick().await;
        let runs = Arc::clone(&runs);
        // A panic there is in the log, and the next time may go well.
        let _ = tokio::task::spawn_blocking(move || runs.save()).await;
    }
}

fn services(
    config: &Config,
    store: &Store,
    pins: Pins,
    counters: Arc<Counters>,
) -> Result<(Services, Option<Exporting>), ServeError> {
    let traces = config.traces.clone();
    let (tracer, exporting) = traces.map(|settings| Tracer::start(settings, "castwork-scheduler")).unzip();
    let path = config.data_dir.join(RUNS);
    let causes = Causes { results: Arc::new(store.results_here()), evicted: store.evicted_results() };
    let runs = Runs::open(&path, causes).map_err(|source| ServeError::Journal { path, source })?;
    let services = Services {
        blobs: Arc::new(store.blobs()),
        results: Arc::new(Complete::new(store.results(), store.blobs())),
        instances: Arc::new(Instances::new(config.instances.clone())),
        pins,
        counters,
        runs: Arc::new(runs),
        tracer: tracer.unwrap_or_default(),
    };
    Ok((services, exporting))
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { what, address, source })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(ServeError::Address)
}

/// Reads what the last end left of actions.
fn open_journal(config: &Config) -> Result<(Journal, Recovered), ServeError> {
    let path = config.data_dir.join(JOURNAL);
    Journal::open(&path).map_err(|source| ServeError::Journal { path, source })
}

fn http_cache(config: &Config, store: &Store, services: &Services, limits: &Limits) -> Arc<HttpCache> {
    Arc::new(HttpCache::new(http::Parts {
        store,
        instances: services.instances.clone(),
        limits: limits.clone(),
        access: config.http_cache,
    }))
}

/// Has the store stand in front of a tier, if one is configured.
fn start_tier(
    config: &Config,
    store: &Arc<Store>,
    counters: &Arc<Counters>,
) -> Result<Option<Written>, ServeError> {
    let tier = config.tier.as_ref().map(|url| Tier::start(&url.0, store, Arc::clone(counters)));
    tier.transpose().map_err(ServeError::Tier)
}

fn store_config(config: &Config) -> StoreConfig {
    StoreConfig {
        durability: config.durability,
        verify_bytes_per_s: config.verify_bytes_per_s,
        results_age: config.results_age,
        ..StoreConfig::new(&config.data_dir, config.bytes_max)
    }
}

/// Where this process reaches a server that listens at `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// Why a server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store can't be opened.
    #[error("the store can't be opened")]
    Store(#[from] StoreOpenError),
    /// The journal can't be read or written.
    #[error("open journal `{}`", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port can't be had.
    #[error("listen to {what} at `{address}`")]
    Bind {
        /// What for.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port does not tell where it is.
    #[error("ask for the address of a port")]
    Address(#[source] std::io::Error),
    /// The ready file can't be written.
    #[error("{step} ready file `{}`", path.display())]
    ReadyFile {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What the store is to stand in front of can't be.
    #[error("the tier can't be used")]
    Tier(#[source] StoreError),
    /// gRPC is no longer served.
    #[error("gRPC failed")]
    Grpc(#[source] tonic::transport::Error),
    /// The worker in this process can't run.
    #[error("the worker in this process failed")]
    Worker(#[source] WorkerError),
    /// Something ended that runs for ever.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_reached_at_home() {
        let home = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(home("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(home("[::]:80"), "[::1]:80");
        assert_eq!(home("10.0.0.1:80"), "10.0.0.1:80");
    }
}
