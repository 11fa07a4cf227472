//! The contents at the end of a segment that is full: what lies where, so that nobody need read all of it.
//!
//! For each record its offset (4 bytes) and its header from byte 4 on. Then a trailer of 32 bytes: `CWcont01`,
//! where the contents begin, how many records there are, and a checksum over all of that. A segment without
//! contents, or with damaged ones, is read record by record ([`super::scan`]).

use std::fs::File;
use std::io;

use castwork_cas::files::read_exact_at;

use super::record::{MAGIC, Record, Salt};

const CONTENTS_MAGIC: [u8; 8] = *b"CWcont01";

/// Magic, offset, count, checksum.
const TRAILER_BYTES: usize = 32;

/// More than any segment has.
const CONTENTS_BYTES_MAX: u64 = 256 << 20;

/// Gathers the contents of a segment that is being written.
#[derive(Default)]
pub(super) struct Contents {
    bytes: Vec<u8>,
    pub(super) records: u64,
}

impl Contents {
    pub(super) fn push(&mut self, offset: u32, header: &[u8]) {
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend(&header[MAGIC.len()..]);
        self.records += 1;
    }

    /// What is to be written at the end of the segment, which is at `begin`.
    pub(super) fn finish(self, begin: u64, salt: &Salt) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.extend(CONTENTS_MAGIC);
        bytes.extend(begin.to_le_bytes());
        bytes.extend(self.records.to_le_bytes());
        let checksum = salt.checksum(&bytes);
        bytes.extend(checksum);
        bytes
    }
}

/// Reads the contents of a segment of `length` bytes; `None` if it has none that are whole.
pub(super) fn read(file: &File, length: u64, salt: &Salt) -> io::Result<Option<Vec<(u32, Record)>>> {
    let Some(trailer_begin) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    read_exact_at(file, &mut trailer, trailer_begin)?;
    let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
    let (begin, count) = (number(8), number(16));
    let is_trailer = trailer.starts_with(&CONTENTS_MAGIC) && begin <= trailer_begin;
    if !is_trailer || trailer_begin - begin > CONTENTS_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length - begin).expect("at most some megabytes")];
    read_exact_at(file, &mut bytes, begin)?;
    let (checked, checksum) = bytes.split_at(bytes.len() - 8);
    if salt.checksum(checked) != checksum {
        return Ok(None);
    }
    Ok(parse(&checked[..checked.len() - (TRAILER_BYTES - 8)], count))
}

fn parse(mut bytes: &[u8], count: u64) -> Option<Vec<(u32, Record)>> {
    let mut records = Vec::with_capacity(usize::try_from(count).ok()?.min(bytes.len()));
    while !bytes.is_empty() {
        let (offset, header) = bytes.split_first_chunk()?;
        let record = Record::parse(header)?;
        records.push((u32::from_le_bytes(*offset), record));
        bytes = header.get(record.header_bytes() - MAGIC.len()..)?;
    }
    (records.len() as u64 == count).then_some(records)
}
