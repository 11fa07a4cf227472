//! Reading a segment record by record: one that a server left without contents, or all of them to verify.
//!
//! What is no record is stepped over to the next one that is, so damage costs what it hit and nothing more.

use std::fs::File;
use std::io;

use bytes::Bytes;
use castwork_cas::files::read_exact_at;

use super::record::{ALIGNMENT, HEADER_BYTES_MAX, MAGIC, Record, Salt};

/// What is read at once in search of a record.
const WINDOW_BYTES: usize = 64 * 1024;

/// A segment that is read from its start to its end.
pub(super) struct Scan<'a> {
    file: &'a File,
    salt: Salt,
    length: u64,
    position: u64,
    /// Bytes that belong to no record.
    pub(super) skipped_bytes: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a File, salt: Salt, length: u64) -> Self {
        Self { file, salt, length, position: 0, skipped_bytes: 0 }
    }

    /// The next record and where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(u32, Record)>> {
        while self.position < self.length {
            let header = self.read(self.position, HEADER_BYTES_MAX)?;
            match Record::decode(&header, &self.salt) {
                Some(record) if self.position + u64::from(record.bytes()) <= self.length => {
                    let Ok(offset) = u32::try_from(self.position) else { return Ok(None) };
                    self.position += u64::from(record.bytes());
                    return Ok(Some((offset, record)));
                }
                _ => self.skip()?,
            }
        }
        Ok(None)
    }

    /// The body of a record.
    pub(super) fn body(&self, offset: u32, record: &Record) -> io::Result<Bytes> {
        let begin = u64::from(offset) + record.header_bytes() as u64;
        let mut body = vec![0; record.body_bytes as usize];
        read_exact_at(self.file, &mut body, begin)?;
        Ok(body.into())
    }

    /// Moves to the next place that looks like a record's start, or to the end.
    fn skip(&mut self) -> io::Result<()> {
        let begin = self.position;
        self.position += ALIGNMENT as u64;
        while self.position < self.length {
            let window = self.read(self.position, WINDOW_BYTES)?;
            let starts = window.chunks_exact(ALIGNMENT);
            let found = starts.map(|start| &start[..MAGIC.len()]).position(|at| at == MAGIC);
            if let Some(index) = found {
                self.position += (index * ALIGNMENT) as u64;
                break;
            }
            self.position += window.len().next_multiple_of(ALIGNMENT) as u64;
        }
        self.skipped_bytes += self.position.min(self.length) - begin;
        Ok(())
    }

    /// Up to `bytes` from `position` on.
    fn read(&self, position: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.length - position).unwrap_or(bytes);
        let mut buffer = vec![0; bytes.min(left)];
        read_exact_at(self.file, &mut buffer, position)?;
        Ok(buffer)
    }
}
