//! [`Segments`]: small blobs and results, many to a file.
//!
//! Each is a record at the end of the newest segment, so a batch of a thousand is one write and one sync.
//! Where each record lies is known in memory; after a start that knowledge comes from the segments
//! themselves, while the server serves, and until it is complete nobody is told that something is missing.
//! Segments are never changed but at their end. What no longer counts goes when its segment does,
//! after what still counts has been copied to the newest one.

mod append;
mod catalog;
mod compact;
mod contents;
mod counted;
mod load;
mod record;
mod revoke;
mod scan;
mod table;
#[cfg(test)]
mod tests;
mod verify;
mod voids;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_cas::files::read_exact_at;
use tokio::sync::watch;
use tracing::error;

pub(crate) use self::append::{Item, Origin};
pub(crate) use self::table::Place;

use self::append::Appender;
use self::catalog::Catalog;
use self::load::Loader;
use self::record::{HEADER_BYTES_MAX, Record, Salt};
use self::table::{Entry, Table};
use super::commit::Kept;
use super::layout::FileKey;
use super::ledger::now_ms;
use super::results;
use crate::counters::Counters;

/// Blobs up to this size, and results, go into segments.
///
/// A file costs an inode, two syncs and up to a block that is not full. Beyond this size that is little beside its
/// bytes, and copying it when its segment is compacted would be much.
pub(crate) const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// A segment is full when it has this many bytes, or this part of what the store may hold.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;
const SEGMENT_PART: u64 = 64;
const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// How long somebody waits to be told that something is missing, while not all segments are known.
const LOADED_WAIT_MAX: Duration = Duration::from_secs(20);

/// How often a record is looked up again because it was moved meanwhile.
const READ_TRIES: usize = 10;

/// See the module.
pub(crate) struct Segments {
    table: Arc<Table>,
    catalog: Arc<Catalog>,
    appender: Appender,
    /// Held by whoever moves records from segment to segment, or relies on that nobody does.
    moving: Mutex<()>,
    loaded: watch::Receiver<bool>,
    stop: Arc<AtomicBool>,
    loader: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
    segment_bytes_max: u64,
}

impl Segments {
    /// Opens the segments in `folder`, which has to be there. `bytes` is kept to what they take up.
    pub(crate) fn open(
        folder: &Path,
        store_bytes_max: u64,
        durable: bool,
        bytes: Arc<AtomicU64>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let table = Arc::<Table>::default();
        let catalog = Arc::new(Catalog::open(folder, bytes)?);
        let segment_bytes_max = (store_bytes_max / SEGMENT_PART).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let appender = Appender::start(Arc::clone(&table), Arc::clone(&catalog), segment_bytes_max, durable)?;
        let (tell, loaded) = watch::channel(false);
        let stop = Arc::<AtomicBool>::default();
        let loader = Loader {
            table: Arc::clone(&table),
            catalog: Arc::clone(&catalog),
            durable,
            stop: Arc::clone(&stop),
            loaded: tell,
        };
        let loader = std::thread::Builder::new().name("loader".to_owned()).spawn(move || loader.run())?;
        let (moving, loader) = (Mutex::default(), Mutex::new(Some(loader)));
        Ok(Self { table, catalog, appender, moving, loaded, stop, loader, counters, segment_bytes_max })
    }

    /// What compaction takes up before it gives something back: a segment is copied before it goes.
    pub(crate) fn copy_bytes_max(&self) -> u64 {
        self.segment_bytes_max
    }

    /// What all segments take up on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.catalog.bytes()
    }

    /// How many records count.
    pub(crate) fn records(&self) -> usize {
        self.table.len()
    }

    /// Whether all segments are known; until then what is not found may be there all the same.
    pub(crate) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// How many segments the disk did not give so far, after all were tried: what is in them is not found.
    pub(crate) fn unreadable(&self) -> usize {
        if self.is_loaded() { self.catalog.unknown() } else { 0 }
    }

    /// Waits until all segments are known. Returns whether they are.
    pub(crate) async fn loaded(&self) -> bool {
        let mut loaded = self.loaded.clone();
        let all = tokio::time::timeout(LOADED_WAIT_MAX, loaded.wait_for(|is_loaded| *is_loaded)).await;
        matches!(all, Ok(Ok(_)))
    }

    /// Whether a record is there; if so it counts as used just now.
    pub(crate) fn touch(&self, key: &FileKey) -> bool {
        self.table.touch(key, now_ms()).is_some()
    }

    /// When a record was used last, in milliseconds since the epoch of Unix, and how many bytes it has on disk.
    pub(crate) fn last_use(&self, key: &FileKey) -> Option<(u64, u64)> {
        self.table.get(key).map(|entry| (entry.used_ms, entry.bytes.into()))
    }

    pub(crate) fn contains(&self, key: &FileKey) -> bool {
        self.table.get(key).is_some()
    }

    /// Reads and verifies a record; a damaged one is dropped, and as good as absent. Blocks.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub(crate) fn read(&self, key: &FileKey) -> io::Result<Option<Bytes>> {
        for _ in 0..READ_TRIES {
            let Some(entry) = self.table.get(key) else { return Ok(None) };
            let Some((file, salt)) = self.catalog.file(entry.place.segment)? else {
                // Either it was moved, or somebody has removed the file.
                self.drop_corrupt(key, &entry);
                continue;
            };
            let body = match read_record(&file, &salt, key, &entry) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                other => other?,
            };
            if body.is_some() {
                return Ok(body);
            }
            self.drop_corrupt(key, &entry);
        }
        Ok(None)
    }

    /// Keeps records; for each says whether it was there before. When this returns, they are kept.
    ///
    /// # Errors
    /// If the disk takes them not; then none of them counts.
    pub(crate) async fn append(&self, items: Vec<Item>) -> io::Result<Vec<Kept>> {
        self.appender.append(items).await
    }

    /// As [`Segments::append`]. Blocks.
    pub(crate) fn append_blocking(&self, items: Vec<Item>) -> io::Result<Vec<Kept>> {
        self.appender.append_blocking(items)
    }

    /// Forgets a record whose bytes are not what its name says. Blocks.
    fn drop_corrupt(&self, key: &FileKey, entry: &Entry) {
        if self.forget(key, entry.place).is_none() {
            return; // It is another by now.
        }
        self.catalog.void(entry.place);
        self.counters.corrupt.add(1);
        error!(%key, place = ?entry.place, "a record was dropped because its bytes are not what its name says");
    }

    fn forget(&self, key: &FileKey, place: Place) -> Option<Entry> {
        let gone = self.table.remove_if(key, |entry| entry.place == place)?;
        self.catalog.count([], [gone]);
        Some(gone)
    }

    /// The places of the `count` records that were not used for longest, with their last use, those first.
    pub(crate) fn oldest(&self, count: usize) -> Vec<(u64, Place)> {
        self.table.oldest(count)
    }

    /// The name of the record at a place; `None` if there is none any more. Blocks.
    pub(crate) fn name(&self, place: Place) -> io::Result<Option<FileKey>> {
        let Some((file, salt)) = self.catalog.file(place.segment)? else { return Ok(None) };
        let length = self.catalog.get(place.segment).map_or(0, |segment| segment.bytes);
        let record = read_header(&file, &salt, length, place.offset)?;
        Ok(record.map(|record| record.key))
    }

    /// Forgets the record at `place` if it was not used after `used_ms`; how many bytes no longer count.
    /// They are free when its segment is compacted.
    pub(crate) fn evict(&self, key: &FileKey, place: Place, used_ms: u64) -> Option<u64> {
        let is_unused = |entry: &Entry| entry.place == place && entry.used_ms <= used_ms;
        let gone = self.table.remove_if(key, is_unused)?;
        self.catalog.count([], [gone]);
        if matches!(key, FileKey::Result(..)) {
            // An earlier result of the same action must not come back in its place.
            self.catalog.void(place);
        }
        Some(u64::from(gone.bytes))
    }

    /// Shows the last use of every record.
    pub(crate) fn each_use(&self, mut show: impl FnMut(Place, u64)) {
        self.table.each(|entry| show(entry.place, entry.used_ms));
    }

    /// States when records were last used, as an earlier server knew it; sorted.
    pub(crate) fn restore_uses(&self, uses: &[(Place, u64)]) {
        self.table.each_mut(|entry| {
            if let Ok(index) = uses.binary_search_by_key(&entry.place, |(place, _)| *place) {
                entry.used_ms = entry.used_ms.max(uses[index].1);
            }
        });
    }

    /// Closes the newest segment, so that the next start need not read it. Blocks.
    pub(crate) fn close(&self) {
        self.stop_loader();
        let loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(loader) = loader
            && loader.join().is_err()
        {
            error!("the loader of the segments panicked");
        }
        self.appender.seal();
    }

    fn stop_loader(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake_loader();
    }

    fn wake_loader(&self) {
        if let Some(loader) = &*self.loader.lock().unwrap_or_else(PoisonError::into_inner) {
            loader.thread().unpark();
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.stop_loader();
    }
}

/// Whether bytes are what a record's name says.
pub(crate) fn body_is_right(key: &FileKey, body: &[u8]) -> bool {
    match key {
        FileKey::Blob(digest) => {
            digest.size_bytes() == body.len() as u64 && Digest::of(digest.function(), body) == *digest
        }
        FileKey::Result(..) => results::is_whole(key, body),
    }
}

fn read_header(file: &File, salt: &Salt, length: u64, offset: u32) -> io::Result<Option<Record>> {
    let left = length.saturating_sub(u64::from(offset));
    let bytes = usize::try_from(left).map_or(HEADER_BYTES_MAX, |left| left.min(HEADER_BYTES_MAX));
    let mut header = [0; HEADER_BYTES_MAX];
    read_exact_at(file, &mut header[..bytes], offset.into())?;
    Ok(Record::decode(&header[..bytes], salt))
}

/// The body of a record, if header and body are what they should be.
fn read_record(file: &File, salt: &Salt, key: &FileKey, entry: &Entry) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; entry.bytes as usize];
    read_exact_at(file, &mut bytes, entry.place.offset.into())?;
    let Some(record) = Record::decode(&bytes, salt).filter(|record| record.key == *key) else {
        return Ok(None);
    };
    let begin = record.header_bytes();
    let Some(end) = begin.checked_add(record.body_bytes as usize).filter(|end| *end <= bytes.len()) else {
        return Ok(None);
    };
    let body = Bytes::from(bytes).slice(begin..end);
    Ok(body_is_right(key, &body).then_some(body))
}

/// Reads bytes as records, wherever one may begin, and holds those that are against what is written of them; for
/// `fuzz/`.
#[cfg(fuzzing)]
pub(crate) fn read_anything(data: &[u8]) {
    let salt = record::Salt::new(7);
    for start in (0..data.len()).step_by(record::ALIGNMENT) {
        let _ = record::Record::decode(&data[start..], &salt);
        if let Some(found) = record::Record::parse(&data[start..]) {
            let mut written = Vec::new();
            found.encode(&salt, &mut written);
            assert_eq!(record::Record::decode(&written, &salt), Some(found));
        }
    }
}
