//! Compaction: what still counts of a segment is copied to the newest one, and the segment goes.

use std::collections::HashSet;
use std::io;
use std::sync::PoisonError;

use tracing::debug;

use super::append::{Item, Origin};
use super::catalog::Segment;
use super::record::Record;
use super::scan::Scan;
use super::table::Place;
use super::{Segments, body_is_right};

/// Bytes that are copied with one sync.
const COPY_BYTES: usize = 4 << 20;

/// Of a segment that is compacted at least this share is dead, because copying costs more than it brings
/// otherwise.
const DEAD_PERCENT_MIN: u64 = 20;

/// Less than this is lost again to whole blocks.
const DEAD_BYTES_MIN: u64 = 8192;

impl Segments {
    /// The segment whose removal brings most for what has to be copied, if that is worth it; with `any`,
    /// also if it hardly is.
    pub(crate) fn victim(&self, any: bool) -> Option<u32> {
        let dead_percent = |segment: &Segment| segment.dead_bytes() * 100 / segment.bytes.max(1);
        let brings_something = |segment: &Segment| {
            let percent_min = if any { 1 } else { DEAD_PERCENT_MIN };
            let is_much = segment.dead_bytes() >= DEAD_BYTES_MIN && dead_percent(segment) >= percent_min;
            segment.is_sealed && (segment.live_bytes == 0 || is_much)
        };
        let segments = self.catalog.list().into_iter();
        let worth_it = segments.filter(|(_, segment)| brings_something(segment));
        worth_it.max_by_key(|(_, segment)| dead_percent(segment)).map(|(number, _)| number)
    }

    /// Whether there is no segment but the newest.
    pub(crate) fn are_all_unsealed(&self) -> bool {
        self.catalog.list().iter().all(|(_, segment)| !segment.is_sealed)
    }

    /// Has the newest segment take no more, so that it can be a victim too. Blocks.
    pub(crate) fn seal(&self) {
        self.appender.seal();
    }

    /// Copies what counts of a segment to the newest one, and removes it. Blocks.
    ///
    /// # Errors
    /// If the disk can't be read or written; then the segment stays.
    pub(crate) fn compact(&self, number: u32) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, salt)) = self.catalog.file(number)? else { return Ok(()) };
        let Some(segment) = self.catalog.get(number) else { return Ok(()) };
        if segment.live_bytes > 0 {
            let scan = Scan::new(&file, salt, segment.bytes);
            self.copy(number, scan)?;
        }
        let left = self.catalog.get(number).map_or(0, |segment| segment.live_bytes);
        debug!(segment = number, bytes = segment.bytes, copied = segment.live_bytes, left, "compacted");
        if left > 0 {
            self.drop_unfound(number, &HashSet::new());
        }
        self.catalog.remove(number)
    }

    fn copy(&self, number: u32, mut scan: Scan<'_>) -> io::Result<()> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some((offset, record)) = scan.next()? {
            let place = Place { segment: number, offset };
            let Some(entry) = self.table.get(&record.key).filter(|entry| entry.place == place) else {
                continue;
            };
            let body = scan.body(offset, &record)?;
            if !body_is_right(&record.key, &body) {
                self.drop_corrupt(&record.key, &entry);
                continue;
            }
            bytes += body.len();
            let Record { key, sequence, stored_ms, .. } = record;
            items.push(Item { key, body, origin: Origin::Copy { place, sequence, stored_ms } });
            if bytes >= COPY_BYTES {
                self.appender.append_blocking(std::mem::take(&mut items))?;
                bytes = 0;
            }
        }
        if !items.is_empty() {
            self.appender.append_blocking(items)?;
        }
        Ok(())
    }
}
