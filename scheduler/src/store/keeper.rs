//! [`Keeper`]: the thread that keeps the index and the bound.
//!
//! It opens the index, or rebuilds it by a look at the files, while the server serves; every few seconds
//! it takes the uses from the ledger into the index; and it evicts, and compacts segments, before the store is
//! full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::evict::Evictor;
use super::format;
use super::health::Health;
use super::index::place::{self, Marker};
use super::index::{Index, IndexError};
use super::layout::{FileKey, Layout};
use super::ledger::{Fullness, Ledger, Round, Use};
use super::migrate::migrate;
use super::room::{Besides, Bound, Free};
use super::scan::Scan;
use super::segments::{Place, Segments};
use crate::counters::Counters;
use crate::front::errors::with_cause;

/// How often uses go into the index.
const ROUND_EVERY: Duration = Duration::from_secs(2);

/// Records are evicted in steps of this part of the store, until a segment is worth compacting.
const EVICT_PART: u64 = 50;

/// How long a stop waits for a look at the files that is under way.
const FINISH_SCAN_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    pub(crate) layout: Layout,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) evictor: Evictor,
    pub(crate) bound: Bound,
    pub(crate) besides: Besides,
    pub(crate) health: Arc<Health>,
    pub(crate) marker: Option<Marker>,
    pub(crate) open_time_max: Duration,
    /// Whether the bound is kept.
    pub(crate) is_kept_small: bool,
    /// Whether there may be files of what belongs into segments; cleared when there are none any more.
    pub(crate) is_older: Arc<AtomicBool>,
}

/// The index, and what is left to do after a start.
struct Open {
    index: Index,
    /// The look at the files that fills the index.
    scan: Option<Scan>,
    /// Whether a file of an older layout could not be moved.
    has_failed: bool,
    /// When records were last used, as the server before this one knew it.
    record_uses: Vec<(Place, u64)>,
}

impl Keeper {
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("keeper".to_owned()).spawn(move || self.run())
    }

    fn run(mut self) {
        let mut open = self.open();
        let mut stop_by = None;
        loop {
            let wait = if open.scan.is_some() { Duration::ZERO } else { ROUND_EVERY };
            let round = self.ledger.begin_round(wait);
            let stopping = round.stopping;
            self.health.probe(&self.layout);
            self.evictor.pins.expire();
            if let Err(error) = self.round(&mut open, round) {
                warn!(error = with_cause(&error), "the index is thrown away and rebuilt");
                open = self.rebuild();
            }
            self.ledger.end_round();
            if stopping {
                let stop_by = *stop_by.get_or_insert_with(|| Instant::now() + FINISH_SCAN_MAX);
                if open.scan.is_none() || Instant::now() > stop_by {
                    break;
                }
            }
        }
        self.close(open);
    }

    fn open(&mut self) -> Open {
        // Files of an older layout have to be looked for.
        let marker = self.marker.take().filter(|_| !self.is_older.load(Ordering::Relaxed));
        let Some(index) = place::reopen(&self.layout.index(), marker, self.open_time_max) else {
            return self.rebuild();
        };
        info!(files = index.total().files, bytes = index.total().bytes, "the index is open");
        match index.record_uses() {
            Ok(record_uses) => Open { index, scan: None, has_failed: false, record_uses },
            Err(error) => {
                warn!(error = with_cause(&error), "the index is thrown away and rebuilt");
                drop(index);
                self.rebuild()
            }
        }
    }

    fn rebuild(&self) -> Open {
        let root = self.layout.index();
        let index = place::begin(&root, self.open_time_max);
        place::sweep(&root, index.folder());
        let scan = Some(Scan::new(&self.layout));
        Open { index, scan, has_failed: false, record_uses: Vec::new() }
    }

    fn round(&mut self, open: &mut Open, round: Round) -> Result<(), IndexError> {
        let uses: Vec<(FileKey, Use)> = round.used.into_iter().collect();
        open.index.remove(&round.gone)?;
        open.index.put(&uses)?;
        self.scan(open)?;
        if !self.segments.is_loaded() {
            // What is not known yet may be what was used last.
            self.measure(&open.index);
            return Ok(());
        }
        if !open.record_uses.is_empty() {
            self.segments.restore_uses(&std::mem::take(&mut open.record_uses));
        }
        self.keep_bound(&mut open.index)
    }

    /// Looks at one more folder, if some are left.
    fn scan(&self, open: &mut Open) -> Result<(), IndexError> {
        let Some(scan) = &mut open.scan else { return Ok(()) };
        if let Some(found) = scan.next_folder() {
            open.index.put(&found.files)?;
            match migrate(&self.layout, &self.segments, &self.counters, &found.small) {
                Ok(0) => {}
                Ok(files) => info!(files, "files of an older layout were moved into segments"),
                Err(error) => {
                    open.has_failed = true;
                    warn!(%error, "files of an older layout stay where they are");
                }
            }
            return Ok(());
        }
        info!(files = scan.files, "the index is rebuilt");
        open.scan = None;
        if self.is_older.load(Ordering::Relaxed) && !open.has_failed {
            match format::write(&self.layout) {
                Ok(()) => self.is_older.store(false, Ordering::Relaxed),
                Err(error) => warn!(%error, "the layout could not be written down"),
            }
        }
        Ok(())
    }

    fn keep_bound(&mut self, index: &mut Index) -> Result<(), IndexError> {
        let (fullness, free) = self.measure(index);
        let excess_bytes = self.bound.excess_bytes(fullness);
        let excess_files = self.bound.excess_files(index.total().files, free.files);
        if excess_bytes + excess_files > 0 && self.is_kept_small {
            self.reclaim(index, excess_bytes)?;
            self.evictor.evict_files(index, excess_files)?;
            self.measure(index);
        }
        Ok(())
    }

    /// Tells the ledger how full the store is, and may be.
    fn measure(&mut self, index: &Index) -> (Fullness, Free) {
        let free = Free::of(&self.layout);
        let besides_bytes = self.besides.bytes(self.segments.records());
        let fullness = self
            .ledger
            .measure(index.total().bytes + besides_bytes, |bytes| self.bound.bytes(bytes, free.bytes));
        self.ledger.set_files_left(self.bound.files_left(free.files));
        (fullness, free)
    }

    /// Frees `excess_bytes`, or as much as there is that nobody needs.
    ///
    /// What is evicted from a segment is free only when the segment is compacted. So it goes on evicting what
    /// is oldest until a segment is worth it.
    fn reclaim(&self, index: &mut Index, excess_bytes: u64) -> Result<(), IndexError> {
        let bytes = |index: &Index| index.total().bytes + self.segments.bytes();
        let goal = bytes(index).saturating_sub(excess_bytes);
        let mut nothing_left = false;
        loop {
            let over = bytes(index).saturating_sub(goal);
            if over == 0 {
                return Ok(());
            }
            if let Some(victim) = self.segments.victim(nothing_left) {
                if let Err(error) = self.segments.compact(victim) {
                    warn!(%error, segment = victim, "a segment could not be compacted");
                    return Ok(());
                }
                continue;
            }
            if nothing_left {
                return Ok(());
            }
            let step = (goal / EVICT_PART).max(1).min(over);
            let evicted = self.evictor.evict(index, step)?;
            nothing_left = evicted.count == 0;
            if self.segments.are_all_unsealed() || nothing_left {
                self.segments.seal();
            }
        }
    }

    fn close(&self, mut open: Open) {
        if open.scan.is_some() {
            return; // Half an index is none.
        }
        let mut put = Ok(());
        if self.segments.is_loaded() {
            let mut uses = Vec::with_capacity(self.segments.records());
            self.segments.each_use(|place, used_ms| uses.push((place, used_ms)));
            uses.sort_unstable();
            put = open.index.put_record_uses(&uses);
        }
        if let Err(error) = put.and_then(|()| place::close(&self.layout.index(), open.index)) {
            warn!(error = with_cause(&error), "the index is not kept; the next start rebuilds it");
        }
    }
}
