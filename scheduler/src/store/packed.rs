//! Blobs that are kept compressed, as a client sent them.
//!
//! Such a file has the same name as any, and is shorter than its blob: zstd frames, and a trailer that says how long
//! those are. So a file that was cut short is not taken for one. The trailer is a frame that decoders leave out.
//!
//! Nothing is compressed here: what pays is told by what the client sent, and whoever reads compressed gets the same
//! bytes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use bytes::Bytes;
use castwork_cas::codec::unpacker;

use super::shared::OpenFile;

/// A skippable frame of sixteen bytes, of which these are the first half.
const MAGIC: [u8; 16] = *b"\x5c\x2a\x4d\x18\x10\0\0\0CWPACKED";

/// What stands behind the frames.
const TRAILER_BYTES: usize = MAGIC.len() + size_of::<u64>();

/// What is kept compressed is shorter by one part in so many.
const SAVES_PART: u64 = 8;

/// Whether it pays to keep so many bytes as so few.
pub(super) fn pays(plain_bytes: u64, packed_bytes: u64) -> bool {
    packed_bytes.saturating_add(TRAILER_BYTES as u64) <= plain_bytes - plain_bytes / SAVES_PART
}

/// What is written behind the frames.
pub(super) fn trailer(packed_bytes: u64) -> Vec<u8> {
    [&MAGIC[..], &packed_bytes.to_le_bytes()].concat()
}

/// How much of a file of `bytes` is frames; `None` if it does not end in a trailer that says so. Blocks.
pub(super) fn packed_bytes(mut file: &File, bytes: u64) -> io::Result<Option<u64>> {
    let Some(packed_bytes) = bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut end = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(packed_bytes))?;
    file.read_exact(&mut end)?;
    file.rewind()?;
    Ok((end[..] == trailer(packed_bytes)).then_some(packed_bytes))
}

/// Reads a blob's bytes from `offset` on, however it is kept. Blocks.
///
/// # Errors
/// If the disk can't be read; without an error number of the system if it is no zstd, or has no such offset.
pub(super) fn reader(open: OpenFile, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = open.file;
    let Some(packed_bytes) = open.packed_bytes else {
        file.seek(SeekFrom::Start(offset))?;
        return Ok(Box::new(file));
    };
    file.rewind()?;
    let mut plain = unpacker(file.take(packed_bytes))?;
    let skipped = io::copy(&mut plain.by_ref().take(offset), &mut io::sink())?;
    if skipped < offset {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Box::new(plain))
}

/// Whether an error came of the bytes, not of the disk.
pub(super) fn is_of_bytes(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// What of a blob has come compressed and is not written yet.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pieces: Vec<Bytes>,
    /// Of all that came so far.
    pub(super) bytes: u64,
    /// Of the last piece: the blob's bytes that are in it may be yet to come.
    last_bytes: u64,
}

impl Packed {
    pub(super) fn append(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces {
            self.last_bytes = piece.len() as u64;
            self.bytes += self.last_bytes;
            self.pieces.push(piece);
        }
    }

    /// Whether it may pay to keep so, after so many bytes of the blob.
    pub(super) fn may_pay(&self, plain_bytes: u64) -> bool {
        pays(plain_bytes, self.bytes - self.last_bytes)
    }

    /// Those that are to be written now.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_a_whole_file_has_its_trailer() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100]).unwrap();
        assert_eq!(packed_bytes(&file, 100).unwrap(), None);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&trailer(100)).unwrap();
        assert_eq!(packed_bytes(&file, 124).unwrap(), Some(100));
        assert_eq!(packed_bytes(&file, 123).unwrap(), None);
        assert_eq!(packed_bytes(&file, 20).unwrap(), None);
    }

    #[test]
    fn the_trailer_is_nothing_to_a_decoder() {
        let mut packed = castwork_cas::codec::compress_bytes(b"abc").unwrap().to_vec();
        packed.extend(trailer(packed.len() as u64));
        let mut plain = Vec::new();
        unpacker(&packed[..]).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"abc");
    }

    #[test]
    fn whether_it_pays_is_not_told_by_a_piece_of_which_not_all_is_here() {
        let mut packed = Packed::default();
        packed.append(vec![Bytes::from_static(&[0; 1000])]);
        assert!(packed.may_pay(900));
        packed.append(vec![Bytes::from_static(&[0; 10])]);
        assert!(!packed.may_pay(900));
        assert_eq!((packed.bytes, packed.take().len(), packed.take().len()), (1010, 2, 0));
    }

    #[test]
    fn it_pays_when_an_eighth_is_saved() {
        assert!(pays(80_000, 69_976) && !pays(80_000, 69_977));
        assert!(!pays(0, 0));
    }
}
