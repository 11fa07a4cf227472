//! Looking through all results, and taking some of them back.

use std::io;
use std::sync::PoisonError;

use bytes::Bytes;

use super::scan::Scan;
use super::table::{Entry, Place};
use super::{Segments, body_is_right, contents};
use crate::store::layout::FileKey;

impl Segments {
    /// Shows every result that counts, with its body and when it was stored; of which `is_meant` says so, no longer
    /// count when this returns, also after a loss of power. Returns how many. Compaction waits meanwhile. Blocks.
    ///
    /// # Errors
    /// If the disk can't be read or written. What was taken back until then may come back after a restart.
    pub(crate) fn revoke(&self, mut is_meant: impl FnMut(&FileKey, &Bytes, u64) -> bool) -> io::Result<u64> {
        // Or a result is copied from a segment that is yet to come to one that is done.
        let _still = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut count, mut failed) = (0, Ok(()));
        for number in self.numbers() {
            match self.revoke_in(number, &mut is_meant) {
                Ok(more) => count += more,
                Err(error) => failed = Err(error),
            }
        }
        self.catalog.sync_voids()?;
        failed?;
        match self.unreadable() {
            0 => Ok(count),
            unread => Err(io::Error::other(format!(
                "{unread} segments can't be read; what is in them may come back"
            ))),
        }
    }

    fn revoke_in(
        &self,
        number: u32,
        is_meant: &mut impl FnMut(&FileKey, &Bytes, u64) -> bool,
    ) -> io::Result<u64> {
        let Some((file, salt)) = self.catalog.file(number)? else { return Ok(0) };
        let Some(segment) = self.catalog.get(number) else { return Ok(0) };
        let mut scan = Scan::new(&file, salt, segment.bytes);
        let records = match contents::read(&file, segment.bytes, &salt)? {
            Some(records) => records,
            None => std::iter::from_fn(|| scan.next().transpose()).collect::<io::Result<_>>()?,
        };
        let mut count = 0;
        for (offset, record) in records {
            let place = Place { segment: number, offset };
            let counts = |entry: &Entry| entry.place == place;
            let is_result = matches!(record.key, FileKey::Result(..));
            if !is_result || !self.table.get(&record.key).as_ref().is_some_and(counts) {
                continue;
            }
            let body = scan.body(offset, &record)?;
            // What is damaged is nothing already.
            if !body_is_right(&record.key, &body) || !is_meant(&record.key, &body, record.stored_ms) {
                continue;
            }
            // First on the disk: if that fails, it must not seem to be done.
            self.catalog.try_void(place)?;
            count += u64::from(self.forget(&record.key, place).is_some());
        }
        Ok(count)
    }
}
