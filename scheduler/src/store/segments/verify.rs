//! Verifying a segment: every record that counts is read where it lies.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

use tracing::error;

use super::counted::Counted;
use super::{Segments, body_is_right};

impl Segments {
    /// The segments there are.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.catalog.list().into_iter().map(|(number, _)| number).collect()
    }

    /// Reads every record of a segment that counts, and drops those whose bytes are wrong. `read` is told the
    /// bytes of each, and says whether to go on. Returns how many records can't be read. Blocks.
    ///
    /// # Errors
    /// If the segment can't be opened, or could not be read since the start.
    pub(crate) fn verify(&self, number: u32, mut read: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let Some(segment) = self.catalog.get(number) else { return Ok(0) };
        if !segment.is_known {
            return Err(io::Error::other("the disk has not given it since the start"));
        }
        let seen = self.each_counted(number, |Counted { record, entry, body }| {
            if !body_is_right(&record.key, &body) {
                self.drop_corrupt(&record.key, &entry);
            }
            Ok(if read(entry.bytes.into()) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        // Of a segment that is still written, the table may point to what came after the look at its length.
        if seen.is_whole && segment.is_sealed {
            self.drop_unfound(number, &(&seen.offsets | &seen.unreadable));
        }
        Ok(seen.unreadable.len() as u64)
    }

    /// Drops the records of a segment whose headers can't be found, so that no read finds them either.
    pub(super) fn drop_unfound(&self, number: u32, found: &HashSet<u32>) {
        let gone = self
            .table
            .remove_all(|entry| entry.place.segment == number && !found.contains(&entry.place.offset));
        if gone.is_empty() {
            return;
        }
        let records = gone.len();
        self.counters.corrupt.add(records as u64);
        error!(segment = number, records, "records were dropped because their headers are damaged");
        self.catalog.count([], gone);
    }
}
