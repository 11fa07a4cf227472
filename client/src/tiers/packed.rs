//! An answer in one piece, compressed: how folders and object stores keep it.

use bytes::Bytes;
use prost::Message as _;

use super::{Answer, OUTPUT_BYTES_MAX, Output, TierError};
use crate::action::OBJECT;

/// The level of compression: results are written once and read often.
const LEVEL: i32 = 3;

/// One piece of bytes out of an answer.
///
/// # Errors
/// If it can't be compressed.
pub(super) fn pack(answer: &Answer) -> Result<Bytes, TierError> {
    let more = answer.outputs.iter().filter(|output| output.name != OBJECT);
    let packed = Packed {
        object: answer.object().cloned(),
        stdout: answer.stdout.clone(),
        stderr: answer.stderr.clone(),
        more: more.map(PackedFile::of).collect(),
    };
    packed.pack().ok_or(TierError::Unfit("result that can't be compressed"))
}

/// The answer out of what [`pack`] made; `None` if it is anything else.
pub(super) fn unpack(bytes: &[u8]) -> Option<Answer> {
    let Packed { object, stdout, stderr, more } = Packed::unpack(bytes)?;
    let mut answer = match object {
        Some(object) => Answer::of_object(object, Bytes::new(), Bytes::new()),
        // An object without bytes, as it was written before there were other files.
        None if more.is_empty() => Answer::of_object(Bytes::new(), Bytes::new(), Bytes::new()),
        None => Answer { outputs: Vec::new(), stdout: Bytes::new(), stderr: Bytes::new() },
    };
    answer.outputs.extend(more.into_iter().map(|PackedFile { name, data, is_executable }| Output {
        name,
        data,
        is_executable,
    }));
    Some(Answer { stdout, stderr, ..answer })
}

#[derive(Clone, PartialEq, prost::Message)]
struct Packed {
    #[prost(bytes = "bytes", optional, tag = "1")]
    object: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "2")]
    stdout: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    stderr: Bytes,
    /// The other files.
    #[prost(message, repeated, tag = "4")]
    more: Vec<PackedFile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PackedFile {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    #[prost(bool, tag = "3")]
    is_executable: bool,
}

impl PackedFile {
    fn of(output: &Output) -> Self {
        let Output { name, data, is_executable } = output.clone();
        Self { name, data, is_executable }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_an_object_and_instead_of_one_are_kept() {
        let object = Answer::of_object("o".into(), "out".into(), "err".into());
        let more = ["a/libx.rlib", "a/x"].map(|name| Output {
            name: name.to_owned(),
            data: name.to_owned().into(),
            is_executable: name == "a/x",
        });
        let without = Answer { outputs: more.to_vec(), ..object.clone() };
        let both = Answer { outputs: [object.outputs.clone(), more.to_vec()].concat(), ..object.clone() };
        for answer in [object, without, both] {
            assert_eq!(unpack(&pack(&answer).unwrap()), Some(answer));
        }
    }
}
