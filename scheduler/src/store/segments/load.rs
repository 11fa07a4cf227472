//! [`Loader`]: fills the table from the segments after a start, while the server serves.
//!
//! A segment that was closed in order says at its end what it contains. One that was not, because the server
//! was killed, is read record by record, every body is verified, and then it is synced and closed: what a
//! kill left in the system's memory counts as kept only after that.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tracing::{info, warn};

use super::body_is_right;
use super::catalog::{Catalog, Segment};
use super::contents::{self, Contents};
use super::record::Record;
use super::scan::Scan;
use super::table::{Entry, Place, Table};
use crate::store::layout::FileKey;

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
        let mut records = 0;
        let segments = self.catalog.list();
        let count = segments.len();
        for (number, segment) in segments {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // What was appended since the start is in the table already.
            if !segment.is_sealed {
                continue;
            }
            match self.load(number, &segment) {
                Ok(more) => records += more,
                Err(error) => warn!(%error, segment = number, "a segment can't be read"),
            }
        }
        if count > 0 {
            info!(segments = count, records, "the segments are known");
        }
        self.loaded.send_replace(true);
    }

    fn load(&self, number: u32, segment: &Segment) -> io::Result<usize> {
        let Some((file, _)) = self.catalog.file(number)? else { return Ok(0) };
        let mut records = match contents::read(&file, segment.bytes, &segment.salt)? {
            Some(records) => records,
            None => self.recover(number, segment, &file)?,
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
    fn recover(&self, number: u32, segment: &Segment, file: &File) -> io::Result<Vec<(u32, Record)>> {
        let mut scan = Scan::new(file, segment.salt, segment.bytes);
        let (mut records, mut torn) = (Vec::new(), 0_u64);
        while let Some((offset, record)) = scan.next()? {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Vec::new());
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
        if let Err(error) = self.close(number, segment, &records) {
            // Then nobody knows whether a power cut would take them away.
            warn!(%error, segment = number, "a segment could not be closed; its records do not count");
            return Ok(Vec::new());
        }
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
