//! [`Loader`]: fills the table from the segments after a start, while the server serves.
//!
//! A segment that was closed in order says at its end what it contains. One that was not, because the server
//! was killed, is read record by record, every body is verified, and then it is synced and closed: what a
//! kill left in the system's memory counts as kept only after that.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::body_is_right;
use super::catalog::{Catalog, Segment};
use super::contents::{self, Contents};
use super::record::Record;
use super::scan::Scan;
use super::table::{Entry, Place, Table};
use crate::store::layout::FileKey;

/// How long after each of the first tries a segment that could not be read is tried again, before the others are
/// served without it: a disk may stutter, and files may run out for a moment.
const TRIES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::ZERO];

/// And how often from then on.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Loader {
    pub(super) table: Arc<Table>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) durable: bool,
    /// Set when the store closes before all is loaded.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) loaded: watch::Sender<bool>,
}

impl Loader {
    pub(super) fn run(self) {
        let mut unread = self.catalog.list();
        // What was appended since the start is in the table already.
        unread.retain(|(_, segment)| segment.is_sealed && !segment.is_known);
        let (count, mut records) = (unread.len(), 0);
        for again_after in TRIES {
            records += self.load_all(&mut unread);
            if unread.is_empty() || self.stops_within(again_after) {
                break;
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        if count > 0 {
            info!(segments = count - unread.len(), records, unread = unread.len(), "the segments are known");
        }
        // A disk that does not give a segment may never do so, and the rest is served all the same.
        self.loaded.send_replace(true);
        while !unread.is_empty() && !self.stops_within(TRY_AGAIN_EVERY) {
            self.load_all(&mut unread);
        }
    }

    /// Loads segments; those that can't be read are left in `unread`. Returns how many records they have.
    fn load_all(&self, unread: &mut Vec<(u32, Segment)>) -> usize {
        let mut records = 0;
        unread.retain(|(number, segment)| {
            if self.stop.load(Ordering::Relaxed) {
                return true;
            }
            // What was opened before may be something else than what has the name now.
            self.catalog.close_file(*number);
            match self.load(*number, segment) {
                Ok(more) => {
                    records += more;
                    false
                }
                Err(error) => {
                    error!(%error, segment = number, "a segment can't be read; it stays, and is tried again");
                    true
                }
            }
        });
        records
    }

    /// Waits; whoever stops the loader wakes it. Returns whether somebody has.
    fn stops_within(&self, time: Duration) -> bool {
        std::thread::park_timeout(time);
        self.stop.load(Ordering::Relaxed)
    }

    fn load(&self, number: u32, segment: &Segment) -> io::Result<usize> {
        let Some((file, _)) = self.catalog.file(number)? else {
            // Somebody has removed it.
            self.catalog.set_known(number);
            return Ok(0);
        };
        // When it was listed, there may have been something else in its place.
        let mut segment = segment.clone();
        segment.bytes = file.metadata()?.len();
        self.catalog.set_bytes(number, segment.bytes);
        let mut records = match contents::read(&file, segment.bytes, &segment.salt)? {
            Some(records) => records,
            None => self.recover(number, &segment, &file)?,
        };
        let voids = self.catalog.voids(number)?;
        records.retain(|(offset, _)| !voids.contains(offset));
        let (mut found, mut lost) = (Vec::with_capacity(records.len()), Vec::new());
        for (offset, record) in &records {
            let place = Place { segment: number, offset: *offset };
            let entry = Entry { used_ms: record.stored_ms, place, bytes: record.bytes() };
            lost.extend(self.table.insert_if(&record.key, entry, |before| self.is_later(record, before)));
            found.push(entry);
        }
        self.catalog.count(found, lost);
        self.catalog.set_known(number);
        Ok(records.len())
    }

    /// Whether a record that is being loaded counts instead of the one before it.
    fn is_later(&self, record: &Record, before: &Entry) -> bool {
        // One blob is like the other.
        if matches!(record.key, FileKey::Blob(_)) {
            return false;
        }
        let read = || -> io::Result<Option<Record>> {
            let Some((file, salt)) = self.catalog.file(before.place.segment)? else { return Ok(None) };
            let segment = self.catalog.get(before.place.segment);
            let length = segment.map_or(0, |segment| segment.bytes);
            super::read_header(&file, &salt, length, before.place.offset)
        };
        match read() {
            Ok(Some(other)) => record.sequence > other.sequence,
            Ok(None) | Err(_) => true,
        }
    }

    /// Reads a segment without contents, and closes it.
    ///
    /// # Errors
    /// If the disk can't be read, or does not say that it keeps what is there.
    fn recover(&self, number: u32, segment: &Segment, file: &File) -> io::Result<Vec<(u32, Record)>> {
        let mut scan = Scan::new(file, segment.salt, segment.bytes);
        let (mut records, mut torn) = (Vec::new(), 0_u64);
        while let Some((offset, record)) = scan.next()? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the store is being closed"));
            }
            if body_is_right(&record.key, &scan.body(offset, &record)?) {
                records.push((offset, record));
            } else {
                torn += 1;
            }
        }
        info!(
            segment = number,
            records = records.len(),
            torn,
            skipped_bytes = scan.skipped_bytes,
            "a segment that was not closed is recovered"
        );
        // If that fails nobody knows whether a power cut would take them away, and they do not count yet.
        self.close(number, segment, &records)?;
        Ok(records)
    }

    fn close(&self, number: u32, segment: &Segment, records: &[(u32, Record)]) -> io::Result<()> {
        let mut file = self.catalog.reopen(number, &segment.salt)?;
        if self.durable {
            file.sync_data()?;
        }
        let (mut contents, mut header) = (Contents::default(), Vec::new());
        for (offset, record) in records {
            header.clear();
            record.encode(&segment.salt, &mut header);
            contents.push(*offset, &header);
        }
        let bytes = contents.finish(segment.bytes, &segment.salt);
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        match written {
            Ok(()) => self.catalog.set_bytes(number, segment.bytes + bytes.len() as u64),
            // The disk may be full. The records are kept all the same, and are read again next time.
            Err(error) => {
                warn!(%error, segment = number, "a segment is left without contents");
                let _ = file.set_len(segment.bytes);
            }
        }
        Ok(())
    }
}
