//! Compaction: what still counts of a segment is copied to the newest one, and the segment goes.

use std::io;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing::{debug, error};

use super::append::{Item, Origin};
use super::catalog::Segment;
use super::counted::{Counted, Seen};
use super::record::Record;
use super::{Segments, body_is_right};

/// Bytes that are copied with one sync.
const COPY_BYTES: usize = 4 << 20;

/// Of a segment that is compacted at least this share is dead, because copying costs more than it brings
/// otherwise.
const DEAD_PERCENT_MIN: u64 = 20;

/// Less than this is lost again to whole blocks.
const DEAD_BYTES_MIN: u64 = 8192;

/// For so long a segment is left alone that could not be read.
const REST: Duration = Duration::from_secs(60 * 60);

impl Segments {
    /// The segment whose removal brings most for what has to be copied, if that is worth it; with `any`,
    /// also if it hardly is.
    pub(crate) fn victim(&self, any: bool) -> Option<u32> {
        let dead_percent = |segment: &Segment| segment.dead_bytes() * 100 / segment.bytes.max(1);
        let brings_something = |segment: &Segment| {
            let percent_min = if any { 1 } else { DEAD_PERCENT_MIN };
            let is_much = segment.dead_bytes() >= DEAD_BYTES_MIN && dead_percent(segment) >= percent_min;
            segment.live_bytes == 0 || is_much
        };
        let now = Instant::now();
        // Of one that is not known yet, nobody can say what counts.
        let may_go = |segment: &Segment| {
            segment.is_sealed && segment.is_known && segment.rests_until.is_none_or(|until| until <= now)
        };
        let segments = self.catalog.list().into_iter().filter(|(_, segment)| may_go(segment));
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

    /// Copies what counts of a segment to the newest one, and removes it; unless the disk does not give all of it:
    /// then what it does not give stays where it is, and the segment is no victim for an hour. Blocks.
    ///
    /// # Errors
    /// If the disk can't be written; then the segment stays.
    pub(crate) fn compact(&self, number: u32) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = self.catalog.get(number) else { return Ok(()) };
        let seen = if segment.live_bytes > 0 { self.copy(number)? } else { Seen::default() };
        let left = self.catalog.get(number).map_or(0, |segment| segment.live_bytes);
        debug!(segment = number, bytes = segment.bytes, copied = segment.live_bytes, left, "compacted");
        if left > 0 {
            self.drop_unfound(number, &seen.unreadable);
        }
        if seen.unreadable.is_empty() {
            return self.catalog.remove(number);
        }
        let records = seen.unreadable.len();
        error!(segment = number, records, "a segment stays, because records in it that count can't be read");
        self.catalog.rest(number, Instant::now() + REST);
        Ok(())
    }

    fn copy(&self, number: u32) -> io::Result<Seen> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        let seen = self.each_counted(number, |Counted { record, entry, body }| {
            if !body_is_right(&record.key, &body) {
                self.drop_corrupt(&record.key, &entry);
                return Ok(ControlFlow::Continue(()));
            }
            bytes += body.len();
            let Record { key, sequence, stored_ms, .. } = record;
            items.push(Item { key, body, origin: Origin::Copy { place: entry.place, sequence, stored_ms } });
            if bytes >= COPY_BYTES {
                self.appender.append_blocking(std::mem::take(&mut items))?;
                bytes = 0;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if !items.is_empty() {
            self.appender.append_blocking(items)?;
        }
        Ok(seen)
    }
}
