//! An answer in one piece, compressed: how folders and object stores keep it.

use bytes::Bytes;
use prost::Message as _;

use super::{Answer, OUTPUT_BYTES_MAX, TierError};

/// The level of compression: results are written once and read often.
const LEVEL: i32 = 3;

/// One piece of bytes out of an answer.
///
/// # Errors
/// If it can't be compressed.
pub(super) fn pack(answer: &Answer) -> Result<Bytes, TierError> {
    let Answer { object, stdout, stderr } = answer.clone();
    let packed = Packed { object, stdout, stderr }.pack();
    packed.ok_or(TierError::Unfit("result that can't be compressed"))
}

/// The answer out of what [`pack`] made; `None` if it is anything else.
pub(super) fn unpack(bytes: &[u8]) -> Option<Answer> {
    Packed::unpack(bytes).map(|Packed { object, stdout, stderr }| Answer { object, stdout, stderr })
}

#[derive(Clone, PartialEq, prost::Message)]
struct Packed {
    #[prost(bytes = "bytes", tag = "1")]
    object: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    stdout: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    stderr: Bytes,
}

impl Packed {
    fn pack(&self) -> Option<Bytes> {
        let plain = self.encode_to_vec();
        let mut bytes = (plain.len() as u64).to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(&plain, LEVEL).ok()?);
        Some(bytes.into())
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let (size, packed) = bytes.split_first_chunk()?;
        let size = u64::from_le_bytes(*size);
        let size = usize::try_from(size).ok().filter(|_| size <= 2 * OUTPUT_BYTES_MAX)?;
        let plain = zstd::bulk::decompress(packed, size).ok().filter(|plain| plain.len() == size)?;
        Self::decode(Bytes::from(plain)).ok()
    }
}
