//! [`Record`]: what stands before each body in a segment, so that a segment explains itself.
//!
//! ```text
//! 0   4  "CWs1"
//! 4   1  1 blob, 2 result
//! 5   1  digest function, in REAPI's numbers
//! 6   1  bytes of the hash
//! 7   1  0
//! 8   4  bytes of the body
//! 12  8  sequence: which of two results of one action is the later
//! 20  8  when it was stored, milliseconds since the epoch of Unix
//! 28  8  size that the digest states
//! 36     the instance (16 bytes, results only), the hash, and 8 bytes of checksum over all from 4 on
//! ```
//!
//! Then comes the body, and zeros up to a multiple of eight. Numbers are little-endian. The checksum is
//! keyed with the segment's salt, which clients never see: bytes that they store can't pass for a record.

use castwork_cas::{Digest, DigestFunction};

use crate::store::layout::{FileKey, InstanceKey};

/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// The longest header: that of a result whose hash has 64 bytes.
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + INSTANCE_BYTES + 64 + CHECKSUM_BYTES;

pub(super) const MAGIC: [u8; 4] = *b"CWs1";

const FIXED_BYTES: usize = 36;
const INSTANCE_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
const BLOB: u8 = 1;
const RESULT: u8 = 2;

/// What a segment's checksums are keyed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt {
    number: u64,
    key: [u8; 32],
}

impl Salt {
    pub(super) fn new(number: u64) -> Self {
        Self { number, key: *blake3::hash(&number.to_le_bytes()).as_bytes() }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn checksum(&self, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = blake3::keyed_hash(&self.key, bytes);
        hash.as_bytes()[..CHECKSUM_BYTES].try_into().expect("a hash has 32 bytes")
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: FileKey,
    pub(crate) sequence: u64,
    pub(crate) stored_ms: u64,
    pub(crate) body_bytes: u32,
}

impl Record {
    pub(super) fn header_bytes(&self) -> usize {
        let (instance_bytes, digest) = match &self.key {
            FileKey::Blob(digest) => (0, digest),
            FileKey::Result(_, digest) => (INSTANCE_BYTES, digest),
        };
        FIXED_BYTES + instance_bytes + digest.hash().len() + CHECKSUM_BYTES
    }

    /// Header, body and padding.
    pub(super) fn bytes(&self) -> u32 {
        let bytes = self.header_bytes() + self.body_bytes as usize;
        u32::try_from(bytes.next_multiple_of(ALIGNMENT)).expect("a record is small")
    }

    /// Appends the header.
    pub(super) fn encode(&self, salt: &Salt, to: &mut Vec<u8>) {
        let begin = to.len();
        let (kind, instance, digest) = match &self.key {
            FileKey::Blob(digest) => (BLOB, None, digest),
            FileKey::Result(instance, digest) => (RESULT, Some(instance), digest),
        };
        to.extend(MAGIC);
        let function = u8::try_from(digest.function().to_proto() as i32).expect("REAPI's numbers are small");
        let hash_bytes = u8::try_from(digest.hash().len()).expect("a hash has at most 64 bytes");
        to.extend([kind, function, hash_bytes, 0]);
        to.extend(self.body_bytes.to_le_bytes());
        to.extend(self.sequence.to_le_bytes());
        to.extend(self.stored_ms.to_le_bytes());
        to.extend(digest.size_bytes().to_le_bytes());
        if let Some(instance) = instance {
            to.extend(instance.bytes());
        }
        to.extend(digest.hash());
        let checksum = salt.checksum(&to[begin + MAGIC.len()..]);
        to.extend(checksum);
    }

    /// Reads the header that `bytes` begin with; `None` if that is none, or one of another segment.
    pub(super) fn decode(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let record = Self::parse(bytes.strip_prefix(&MAGIC)?)?;
        let end = record.header_bytes() - CHECKSUM_BYTES;
        let checksum = bytes.get(end..end + CHECKSUM_BYTES)?;
        (salt.checksum(&bytes[4..end]) == checksum).then_some(record)
    }

    /// Reads a header without its first four bytes and without a look at its checksum.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, function, hash_bytes) = (*bytes.first()?, *bytes.get(1)?, usize::from(*bytes.get(2)?));
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let body_bytes = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
        let (sequence, stored_ms, size_bytes) = (number(8)?, number(16)?, number(24)?);
        let names = bytes.get(FIXED_BYTES - MAGIC.len()..)?;
        let function = DigestFunction::ALL
            .into_iter()
            .find(|known| known.to_proto() as i32 == i32::from(function))
            .filter(|known| known.hash_bytes() == hash_bytes)?;
        let digest = |hash: &[u8]| {
            let mut hex = [0; 128];
            let hex = &mut hex[..hash_bytes * 2];
            hex::encode_to_slice(hash.get(..hash_bytes)?, hex).ok()?;
            Digest::from_hex(function, str::from_utf8(hex).ok()?, size_bytes).ok()
        };
        let key = match kind {
            BLOB => FileKey::Blob(digest(names)?),
            RESULT => {
                let (instance, hash) = names.split_first_chunk::<INSTANCE_BYTES>()?;
                FileKey::Result(InstanceKey::from_bytes(*instance), digest(hash)?)
            }
            _ => return None,
        };
        Some(Self { key, sequence, stored_ms, body_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> [Record; 2] {
        let digest = Digest::of(DigestFunction::Blake3, b"abc");
        [FileKey::Blob(digest), FileKey::Result(InstanceKey::of("team"), digest)].map(|key| Record {
            key,
            sequence: 7 << 32,
            stored_ms: 1_790_000_000_000,
            body_bytes: 3,
        })
    }

    #[test]
    fn a_header_says_what_was_written() {
        let salt = Salt::new(5);
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(&salt, &mut bytes);
            assert_eq!(bytes.len(), record.header_bytes());
            assert_eq!(Record::decode(&bytes, &salt), Some(record));
        }
    }

    #[test]
    fn a_header_with_any_bit_flipped_or_cut_short_or_of_another_segment_is_none() {
        let salt = Salt::new(5);
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(&salt, &mut bytes);
            assert_eq!(Record::decode(&bytes, &Salt::new(6)), None);
            for length in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..length], &salt), None);
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&damaged, &salt), None, "bit {bit}");
            }
        }
    }
}
