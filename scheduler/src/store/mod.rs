//! [`Store`]: blobs and results on disk, so that what was acknowledged stays.
//!
//! Small blobs and results are records in segments, a batch with one write and one sync ([`segments`]); other
//! blobs are a file each, found by its name alone. Both are acknowledged when a power cut can't take them away
//! any more. A server serves at once after a start, whatever the size. When something was last used is kept
//! in an index that can be thrown away ([`index`]). Bytes are verified when they arrive, and again when they
//! are read: small blobs always, files the first time after a start. The size is bounded; the least recently
//! used goes first.

mod blobs;
mod commit;
mod evict;
mod evicted;
mod format;
mod index;
mod keeper;
mod layout;
mod ledger;
mod lock;
mod many;
mod migrate;
pub mod pins;
mod read;
mod results;
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
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use self::blobs::DiskBlobs;
pub(crate) use self::evicted::EvictedResults;
pub use self::results::DiskResults;
pub use self::upload::Upload;
pub use self::verify::Verification;

use self::commit::Committer;
use self::evict::Evictor;
use self::format::Format;
use self::index::place::{Marker, OPEN_TIME_MAX};
use self::keeper::{Bound, Keeper, free_bytes_of};
use self::layout::Layout;
use self::ledger::Ledger;
use self::lock::FolderLock;
use self::pins::Pins;
use self::segments::Segments;
use self::shared::Shared;
use self::verified::Verified;
use self::verify::Verifier;
use crate::counters::{Counters, Gauge};

/// The most bytes that are left free on the disk for others, if the bound is large.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

/// The reserve is this part of the bound, or of what is free, if that is less.
const RESERVE_PART: u64 = 20;

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
    /// Whether the bound is kept. If not, nothing is evicted.
    pub is_kept_small: bool,
}

impl StoreConfig {
    /// A durable store that verifies nothing in the background.
    pub fn new(folder: impl Into<PathBuf>, bytes_max: u64) -> Self {
        Self {
            folder: folder.into(),
            bytes_max,
            durability: Durability::Durable,
            verify_bytes_per_s: 0,
            is_kept_small: true,
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
        let free_bytes = free_bytes_of(&layout);
        let whole_bytes = config.bytes_max.min(free_bytes.unwrap_or(u64::MAX));
        let reserve_bytes = (whole_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
        let bound = Bound { bytes_max: config.bytes_max, reserve_bytes };
        let kept_bytes = marker.as_ref().map_or(0, |marker| marker.bytes);
        let bound_bytes = bound.bytes(kept_bytes + segments.bytes(), free_bytes);
        let ledger = Ledger::new(kept_bytes, bound_bytes, segment_bytes);
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
        let keeper = Keeper {
            layout: layout.clone(),
            ledger: Arc::clone(&ledger),
            segments: Arc::clone(&segments),
            counters: Arc::clone(&counters),
            evictor,
            bound,
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
            pins,
            verified: Verified::default(),
            counters,
            _lock: lock,
        });
        let verifier = match config.verify_bytes_per_s {
            0 => None,
            bytes_per_s => Some(Verifier::start(Arc::clone(&shared), bytes_per_s).map_err(threads)?),
        };
        Ok(Self {
            shared,
            keeper: Mutex::new(Some(keeper)),
            verifier: Mutex::new(verifier),
            evicted_results,
            bytes_max: config.bytes_max,
        })
    }

    /// The blobs.
    pub fn blobs(&self) -> DiskBlobs {
        DiskBlobs::new(Arc::clone(&self.shared))
    }

    /// The results.
    pub fn results(&self) -> DiskResults {
        DiskResults::new(Arc::clone(&self.shared))
    }

    /// Which results were let go.
    pub(crate) fn evicted_results(&self) -> Arc<EvictedResults> {
        Arc::clone(&self.evicted_results)
    }

    /// How full it is, for `/metrics`.
    pub fn gauges(&self) -> Vec<Gauge> {
        let fullness = self.shared.ledger.fullness();
        vec![
            Gauge {
                name: "castwork_store_bytes",
                help: "Bytes that blobs and results take up on disk.",
                value: fullness.bytes,
            },
            Gauge {
                name: "castwork_store_bound_bytes",
                help: "Bytes that they may take up now.",
                value: fullness.bound_bytes,
            },
            Gauge {
                name: "castwork_store_segment_bytes",
                help: "Bytes of the segments, which hold small blobs and results.",
                value: self.shared.segments.bytes(),
            },
            Gauge {
                name: "castwork_store_records",
                help: "Small blobs and results.",
                value: self.shared.segments.records() as u64,
            },
            Gauge {
                name: "castwork_store_loaded",
                help: "1 when all segments are known after a start.",
                value: u64::from(self.shared.segments.is_loaded()),
            },
            Gauge {
                name: "castwork_store_durable",
                help: "1 if what is acknowledged survives a loss of power.",
                value: u64::from(self.shared.durable),
            },
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
