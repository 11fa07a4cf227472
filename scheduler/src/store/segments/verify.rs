//! Verifying a segment: every record that counts is read where it lies.

use std::collections::HashSet;
use std::io;

use tracing::error;

use super::scan::Scan;
use super::table::Place;
use super::{Segments, body_is_right};

impl Segments {
    /// The segments there are.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.catalog.list().into_iter().map(|(number, _)| number).collect()
    }

    /// Reads every record of a segment that counts, and drops those whose bytes are wrong. `read` is told the
    /// bytes of each, and says whether to go on. Blocks.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub(crate) fn verify(&self, number: u32, mut read: impl FnMut(u64) -> bool) -> io::Result<()> {
        let Some((file, salt)) = self.catalog.file(number)? else { return Ok(()) };
        let Some(segment) = self.catalog.get(number) else { return Ok(()) };
        let mut scan = Scan::new(&file, salt, segment.bytes);
        let mut found = HashSet::new();
        while let Some((offset, record)) = scan.next()? {
            let place = Place { segment: number, offset };
            let Some(entry) = self.table.get(&record.key).filter(|entry| entry.place == place) else {
                continue;
            };
            found.insert(offset);
            if !body_is_right(&record.key, &scan.body(offset, &record)?) {
                self.drop_corrupt(&record.key, &entry);
            }
            if !read(entry.bytes.into()) {
                return Ok(());
            }
        }
        // Of a segment that is still written, the table may point to what came after the look at its length.
        if segment.is_sealed {
            self.drop_unfound(number, &found);
        }
        Ok(())
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
