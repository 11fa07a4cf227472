//! [`Store`]: blobs and results on disk, so that what was acknowledged stays.
//!
//! Small blobs and results are records in segments, a batch with one write and one sync ([`segments`]); other
//! blobs are a file each, found by its name alone. Both are acknowledged when a power cut can't take them away
//! any more. A server serves at once after a start, whatever the size. When something was last used is kept
//! in an index that can be thrown away ([`index`]). Bytes are verified when they arrive, and again when they
//! are read: small blobs always, files once an hour, and when anything about them has changed. The size is
//! bounded; the least recently used goes first.

mod blobs;
mod commit;
mod evict;
mod evicted;
mod format;
mod health;
mod index;
mod keeper;
mod layout;
pub mod leases;
mod ledger;
mod lock;
mod many;
mod migrate;
mod packed;
pub mod pins;
pub mod provenance;
mod read;
mod results;
pub mod revoke;
mod room;
mod scan;
mod segments;
mod shared;
#[cfg(test)]
mod tests;
mod upload;
mod verified;
mod verify;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

pub use self::blobs::DiskBlobs;
pub(crate) use self::evicted::EvictedResults;
pub use self::results::DiskResults;
pub use self::upload::Upload;
pub use self::verify::Verification;

use tokio::sync::RwLock;

use self::commit::Committer;
use self::evict::Evictor;
use self::format::Format;
use self::health::Health;
use self::index::place::{Marker, OPEN_TIME_MAX};
use self::keeper::Keeper;
use self::layout::Layout;
use self::ledger::Ledger;
use self::lock::FolderLock;
use self::pins::Pins;
use self::provenance::AgeLimit;
use self::room::{Besides, Bound, Free};
use self::segments::Segments;
use self::shared::Shared;
use self::verify::Verifier;
use crate::counters::{Counters, Gauge};
use crate::tier::{Offers, Tier};

/// In the data folder: which results were let go.
const EVICTED_RESULTS: &str = "results.evicted";

/// Where the store is, and how large it may become.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data folder; made if it is not there. The store owns all of it.
    pub folder: PathBuf,
    /// What all files together may take up, in bytes of whole blocks.
    pub bytes_max: u64,
    /// What an acknowledgement is worth.
    pub durability: Durability,
    /// Bytes a second that are read in the background to verify what is kept; 0 for none.
    pub verify_bytes_per_s: u64,
    /// Which results are too old to be answered.
    pub results_age: AgeLimit,
    /// Whether the bound is kept. If not, nothing is evicted.
    pub is_kept_small: bool,
    /// Whether the index, folders and single files count within the bound.
    pub counts_index: bool,
}

impl StoreConfig {
    /// A durable store that verifies nothing in the background.
    pub fn new(folder: impl Into<PathBuf>, bytes_max: u64) -> Self {
        Self {
            folder: folder.into(),
            bytes_max,
            durability: Durability::Durable,
            verify_bytes_per_s: 0,
            results_age: AgeLimit::default(),
            is_kept_small: true,
            counts_index: true,
        }
    }
}

/// What an acknowledgement is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What was acknowledged survives a loss of power.
    #[default]
    Durable,
    /// What was acknowledged survives the end of the server, however it ends, and not a loss of power.
    Relaxed,
}

impl Durability {
    /// As it stands in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Relaxed => "relaxed",
        }
    }
}

/// The store of one data folder. Only one at a time has it open.
pub struct Store {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    verifier: Mutex<Option<Verifier>>,
    evicted_results: Arc<EvictedResults>,
    bytes_max: u64,
    tier: OnceLock<Arc<Tier>>,
}

impl Store {
    /// Opens the store. This takes no longer for a large one: nothing is scanned before it returns.
    ///
    /// # Errors
    /// [`StoreOpenError::InUse`] if another server has it open.
    pub fn open(config: &StoreConfig, pins: Pins, counters: Arc<Counters>) -> Result<Self, StoreOpenError> {
        let (layout, lock, is_older) = prepare(&config.folder)?;
        let is_older = Arc::new(AtomicBool::new(is_older));
        let durable = config.durability == Durability::Durable;
        let segment_bytes = Arc::<AtomicU64>::default();
        let segments = Segments::open(
            &layout.segments(),
            config.bytes_max,
            durable,
            Arc::clone(&segment_bytes),
            Arc::clone(&counters),
        );
        let segments = Arc::new(segments.map_err(|source| disk("open", &layout.segments(), source))?);
        let marker = last_end(&layout, durable)?;
        let (bound, besides, ledger) = accounts(config, &layout, &segments, marker.as_ref(), segment_bytes);
        let threads = |source| StoreOpenError::Disk { step: "start a thread".to_owned(), source };
        let committer = Committer::start(layout.clone(), durable).map_err(threads)?;
        let evicted_results = Arc::new(EvictedResults::open(&config.folder.join(EVICTED_RESULTS)));
        let evictor = Evictor {
            layout: layout.clone(),
            ledger: Arc::clone(&ledger),
            segments: Arc::clone(&segments),
            pins: pins.clone(),
            counters: Arc::clone(&counters),
            evicted_results: Arc::clone(&evicted_results),
            removed: AtomicU64::new(0),
        };
        let health = Arc::<Health>::default();
        let keeper = Keeper {
            layout: layout.clone(),
            ledger: Arc::clone(&ledger),
            segments: Arc::clone(&segments),
            counters: Arc::clone(&counters),
            evictor,
            bound,
            besides,
            health: Arc::clone(&health),
            marker,
            open_time_max: OPEN_TIME_MAX,
            is_kept_small: config.is_kept_small,
            is_older: Arc::clone(&is_older),
        };
        let keeper = keeper.start().map_err(threads)?;
        let shared = Arc::new(Shared {
            layout,
            ledger,
            committer,
            segments,
            is_older,
            durable,
            results_age: config.results_age,
            pins,
            revoking: RwLock::default(),
            verified: Arc::default(),
            counters,
            health,
            offers: OnceLock::new(),
            _lock: lock,
        });
        let verifier = verifier(config, &shared).map_err(threads)?;
        Ok(Self {
            shared,
            keeper: Mutex::new(Some(keeper)),
            verifier: Mutex::new(verifier),
            evicted_results,
            bytes_max: config.bytes_max,
            tier: OnceLock::new(),
        })
    }

    /// Has what is asked of it from now on be looked for in a tier too, and tells that what it takes. Once.
    pub(crate) fn stand_in_front_of(&self, tier: Arc<Tier>, offers: Offers) {
        let is_first = self.tier.set(tier).is_ok() && self.shared.offers.set(offers).is_ok();
        assert!(is_first, "a store has one tier");
    }

    /// The blobs.
    pub fn blobs(&self) -> DiskBlobs {
        DiskBlobs::new(Arc::clone(&self.shared), self.tier.get().cloned())
    }

    /// What holds off eviction.
    pub(crate) fn pins(&self) -> Pins {
        self.shared.pins.clone()
    }

    /// The results.
    pub fn results(&self) -> DiskResults {
        DiskResults::new(Arc::clone(&self.shared), self.tier.get().cloned())
    }

    /// The results that are here, whatever the tier has.
    pub(crate) fn results_here(&self) -> DiskResults {
        DiskResults::new(Arc::clone(&self.shared), None)
    }

    /// Which results were let go.
    pub(crate) fn evicted_results(&self) -> Arc<EvictedResults> {
        Arc::clone(&self.evicted_results)
    }

    /// How full it is, for `/metrics`.
    pub fn gauges(&self) -> Vec<Gauge> {
        let (fullness, held) = (self.shared.ledger.fullness(), self.shared.pins.held());
        let segments = &self.shared.segments;
        let gauge = |name, help, value| Gauge { name, help, value };
        let is = u64::from;
        vec![
            gauge(
                "castwork_store_bytes",
                "Bytes that the data folder takes up on disk, with what the index will for its next close.",
                fullness.bytes,
            ),
            gauge("castwork_store_bound_bytes", "Bytes that it may take up now.", fullness.bound_bytes),
            gauge(
                "castwork_store_segment_bytes",
                "Bytes of the segments, which hold small blobs and results.",
                segments.bytes(),
            ),
            gauge("castwork_store_records", "Small blobs and results.", segments.records() as u64),
            gauge(
                "castwork_store_loaded",
                "1 when all segments are known after a start.",
                is(segments.is_loaded()),
            ),
            gauge(
                "castwork_store_unreadable_segments",
                "Segments that the disk did not give since the start: what is in them is not found.",
                segments.unreadable() as u64,
            ),
            gauge(
                "castwork_store_durable",
                "1 if what is acknowledged survives a loss of power.",
                is(self.shared.durable),
            ),
            gauge(
                "castwork_store_takes_writes",
                "0 while the disk takes no writes: uploads are refused, and reads go on.",
                is(!self.shared.health.refuses()),
            ),
            gauge("castwork_lease_runs", "Runs that hold what they touched.", held.runs),
            gauge("castwork_lease_blobs", "Blobs and results that runs hold.", held.blobs),
            gauge("castwork_lease_bytes", "Their bytes.", held.bytes),
            gauge(
                "castwork_lease_refused",
                "Blobs touched since the start that were not held, as the budget was used up.",
                held.refused,
            ),
        ]
    }

    /// Reads everything that is kept, and drops what is not what its name says.
    pub async fn verify(&self) -> Verification {
        while !self.shared.segments.loaded().await {
            tracing::info!("the segments are still being read");
        }
        let shared = Arc::clone(&self.shared);
        shared::blocking(move || verify::verify_all(&shared)).await
    }

    /// What an acknowledgement is worth.
    pub fn durability(&self) -> Durability {
        if self.shared.durable { Durability::Durable } else { Durability::Relaxed }
    }

    /// The largest blob that it takes, in bytes: one that leaves room for as much again.
    pub fn blob_bytes_max(&self) -> u64 {
        self.bytes_max / 2
    }

    /// Writes down what the next start is faster with. Blocks.
    ///
    /// What is stored later is kept as well, but no longer in the index and not within the bound.
    pub fn close(&self) {
        drop(self.verifier.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.ledger.stop();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && keeper.join().is_err()
        {
            tracing::error!("the keeper of the store panicked");
        }
        self.shared.segments.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads bytes as a segment would be read, and as a result; for `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn read_anything(data: &[u8]) {
    segments::read_anything(data);
    let key = layout::FileKey::Blob(castwork_cas::Digest::of(castwork_cas::DigestFunction::Sha256, b""));
    let _ = results::decode(&key, data);
}

/// Takes a data folder, and says whether it has an older layout.
fn prepare(folder: &Path) -> Result<(Layout, FolderLock, bool), StoreOpenError> {
    let layout = Layout::new(folder);
    for folder in [layout.root().to_owned(), layout.tmp(), layout.index(), layout.segments()] {
        fs::create_dir_all(&folder).map_err(|source| disk("create", &folder, source))?;
    }
    let lock = FolderLock::take(&layout.lock())?;
    empty(&layout.tmp())?;
    let is_older = match format::read(&layout).map_err(|source| disk("read", &layout.format(), source))? {
        Format::Current => false,
        Format::Older => true,
        Format::Later(version) => return Err(StoreOpenError::Later { path: layout.format(), version }),
    };
    Ok((layout, lock, is_older))
}

/// How large the store may become, and how large it is as far as that is known.
fn accounts(
    config: &StoreConfig,
    layout: &Layout,
    segments: &Segments,
    marker: Option<&Marker>,
    segment_bytes: Arc<AtomicU64>,
) -> (Bound, Besides, Arc<Ledger>) {
    let free = Free::of(layout);
    // While a segment is compacted it is there twice.
    let bound = Bound::new(config.bytes_max.saturating_sub(segments.copy_bytes_max()), free);
    let mut besides = Besides::new(config.counts_index.then(|| layout.clone()));
    let kept_bytes = marker.map_or(0, |marker| marker.bytes) + besides.bytes(0);
    let bound_bytes = bound.bytes(kept_bytes + segments.bytes(), free.bytes);
    let ledger = Ledger::new(kept_bytes, bound_bytes, segment_bytes);
    ledger.set_files_left(bound.files_left(free.files));
    (bound, besides, ledger)
}

/// Starts to verify in the background, if that is wanted.
fn verifier(config: &StoreConfig, shared: &Arc<Shared>) -> io::Result<Option<Verifier>> {
    let bytes_per_s = config.verify_bytes_per_s;
    (bytes_per_s > 0).then(|| Verifier::start(Arc::clone(shared), bytes_per_s)).transpose()
}

/// How the last server ended: in order if there is a marker. If not, what it left is settled.
fn last_end(layout: &Layout, durable: bool) -> Result<Option<Marker>, StoreOpenError> {
    let marker = Marker::take(&layout.index());
    if marker.is_none() && durable {
        commit::settle(layout).map_err(|source| disk("sync the folders of", &layout.blobs(), source))?;
    }
    Ok(marker)
}

/// Removes what an earlier server was writing or removing when it ended.
fn empty(folder: &Path) -> Result<(), StoreOpenError> {
    let entries = fs::read_dir(folder).map_err(|source| disk("read", folder, source))?;
    for entry in entries {
        let path = entry.map_err(|source| disk("read", folder, source))?.path();
        fs::remove_file(&path).map_err(|source| disk("remove", &path, source))?;
    }
    Ok(())
}

fn disk(step: &str, path: &Path, source: io::Error) -> StoreOpenError {
    StoreOpenError::Disk { step: format!("{step} `{}`", path.display()), source }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Another server has it open.
    #[error(
        "the data folder is in use by another server (process {owner}, lock `{}`); hint: stop it, or use \
         another --data-dir",
        path.display()
    )]
    InUse {
        /// The lock.
        path: PathBuf,
        /// Process id of the other server, if it could be read.
        owner: String,
    },
    /// A later version has written it.
    #[error("the data folder has layout {version} (`{}`), which is later than this version", path.display())]
    Later {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        version: u64,
    },
    /// The lock can't be taken.
    #[error("lock `{}`", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk.
    #[error("{step}")]
    Disk {
        /// What was tried.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
