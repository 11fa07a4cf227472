//! Going through the records of a segment that count, however much of it the disk still gives.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use tracing::warn;

use super::record::{Record, Salt};
use super::scan::Scan;
use super::table::{Entry, Place};
use super::{Segments, read_header};

/// A record that counts, with its body, which may be damaged.
pub(super) struct Counted {
    pub(super) record: Record,
    pub(super) entry: Entry,
    pub(super) body: Bytes,
}

/// What of a segment could be seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where records that count began when they were shown.
    pub(super) offsets: HashSet<u32>,
    /// Where those begin that the disk did not give, which says nothing of their bytes.
    pub(super) unreadable: HashSet<u32>,
    /// Whether nobody broke it off.
    pub(super) is_whole: bool,
}

impl Segments {
    /// Shows every record of a segment to which the table points, until `show` breaks it off. Where the disk does
    /// not give something, only what lies there is left out. Blocks.
    ///
    /// # Errors
    /// Those of `show`, and if the segment can't be opened.
    pub(super) fn each_counted(
        &self,
        number: u32,
        mut show: impl FnMut(Counted) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let Some((file, salt)) = self.catalog.file(number)? else { return Ok(seen) };
        let length = self.catalog.get(number).map_or(0, |segment| segment.bytes);
        let mut scan = Scan::new(&file, salt, length);
        let read = loop {
            let (offset, record) = match scan.next() {
                Ok(None) => break Ok(()),
                Ok(Some(found)) => found,
                Err(error) => break Err(error),
            };
            let Some(entry) = self.entry_at(&record, Place { segment: number, offset }) else { continue };
            let body = match scan.body(offset, &record) {
                Ok(body) => body,
                Err(error) => break Err(error),
            };
            seen.offsets.insert(offset);
            if show(Counted { record, entry, body })?.is_break() {
                return Ok(seen);
            }
        };
        seen.is_whole = match read {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, segment = number, "a segment is read record by record, as a part of it can't be read");
                self.each_known(number, &file, &salt, length, &mut seen, show)?
            }
        };
        Ok(seen)
    }

    /// As [`Segments::each_counted`], of the records that were not seen yet, where the table knows them to lie.
    /// Returns whether nobody broke it off.
    fn each_known(
        &self,
        number: u32,
        file: &File,
        salt: &Salt,
        length: u64,
        seen: &mut Seen,
        mut show: impl FnMut(Counted) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<bool> {
        let mut offsets = Vec::new();
        self.table.each(|entry| {
            if entry.place.segment == number && !seen.offsets.contains(&entry.place.offset) {
                offsets.push(entry.place.offset);
            }
        });
        offsets.sort_unstable();
        for offset in offsets {
            let read = read_header(file, salt, length, offset).and_then(|record| {
                let Some(record) = record else { return Ok(None) };
                let body = Scan::new(file, *salt, length).body(offset, &record)?;
                Ok(Some((record, body)))
            });
            let (record, body) = match read {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // The file was cut short.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(_) => {
                    seen.unreadable.insert(offset);
                    continue;
                }
            };
            seen.offsets.insert(offset);
            let Some(entry) = self.entry_at(&record, Place { segment: number, offset }) else { continue };
            if show(Counted { record, entry, body })?.is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entry of a record, if the table points to `place`.
    fn entry_at(&self, record: &Record, place: Place) -> Option<Entry> {
        self.table.get(&record.key).filter(|entry| entry.place == place)
    }
}
