//! What a message takes in memory beside its own bytes, told before it is decoded.
//!
//! An entry of a list may be two bytes on the wire and hundreds in memory: sixteen megabytes of them are more than a
//! gigabyte. So whoever decodes what somebody else has written looks first, by a scan of its tags that allocates
//! nothing. Texts and blobs are not counted: they are as long in memory as on the wire.

use bytes::Bytes;
use prost::{Message, Name};

include!("generated/shapes.rs");

/// Messages in messages, at most, as decoders have it.
const DEPTH_MAX: u32 = 100;

/// A list grows by doubling, so it takes up to twice what is in it.
const GROWTH: usize = 2;

/// Bytes in memory of a number.
const NUMBER_BYTES: usize = 8;

/// Why a message is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It takes more memory than it may.
    TooHeavy {
        /// What it may take beside its own bytes.
        max: usize,
    },
    /// It is no message.
    Malformed,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooHeavy { max } => {
                write!(f, "the message has so many parts that it takes more than {max} bytes of memory")
            }
            Self::Malformed => f.write_str("the bytes are no message"),
        }
    }
}

impl std::error::Error for Refused {}

/// What a message of so many bytes may take beside them, whoever sends it: several times what those do that have a use.
pub fn weight_max(bytes: usize) -> usize {
    (64 << 10) + bytes.saturating_mul(16)
}

/// Returns about how many bytes of memory a message takes beside its own, at most `max`.
///
/// # Errors
/// See [`Refused`].
pub fn weigh<M: Name>(bytes: &[u8], max: usize) -> Result<usize, Refused> {
    // What is not ours is not decoded from what others have written.
    let Some(shape) = shape_of(M::PACKAGE, M::NAME) else { return Ok(0) };
    let mut scale = Scale { weight: 0, max };
    scale.add(shape, bytes, 0)?;
    Ok(scale.weight)
}

/// Decodes a message that somebody else has written, unless it takes more than [`weight_max`] beside its own bytes.
///
/// # Errors
/// If it does, or is no message.
pub fn decode<M: Message + Name + Default>(bytes: Bytes) -> Result<M, Refused> {
    weigh::<M>(&bytes, weight_max(bytes.len()))?;
    M::decode(bytes).map_err(|_| Refused::Malformed)
}

/// What of a message matters here. `SHAPES` has all there are, and `NAMES` by package and name whose they are, in order:
/// made with the code, because whoever asks once would wait longer for reading the descriptors than for the answer.
struct Shape {
    /// In memory, without what its fields point to.
    bytes: usize,
    /// The fields that may weigh something, or may hold one that does; by number.
    fields: &'static [(u32, Field)],
}

#[derive(Clone, Copy)]
enum Field {
    /// A message that stands in its parent.
    One(usize),
    /// A list of messages, or a map.
    Many(usize),
    /// A list of what takes so many bytes each.
    Texts(usize),
    /// A list of numbers, which may stand together.
    Numbers,
}

fn shape_of(package: &str, name: &str) -> Option<&'static Shape> {
    SHAPES.get(NAMES.binary_search(&(package, name)).ok()?)
}

/// A message that is being weighed.
struct Scale {
    weight: usize,
    max: usize,
}

impl Scale {
    fn put(&mut self, bytes: usize) -> Result<(), Refused> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > self.max { Err(Refused::TooHeavy { max: self.max }) } else { Ok(()) }
    }

    fn add(&mut self, shape: &Shape, mut bytes: &[u8], depth: u32) -> Result<(), Refused> {
        if shape.fields.is_empty() {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(Refused::Malformed);
        }
        while !bytes.is_empty() {
            let (number, kind) = tag(&mut bytes)?;
            let value = skip(&mut bytes, number, kind, depth)?;
            let Some((_, field)) = shape.fields.iter().find(|(of, _)| *of == number) else { continue };
            match (field, value) {
                (Field::One(of), Some(value)) => self.add(&SHAPES[*of], value, depth + 1)?,
                (Field::Many(of), Some(value)) => {
                    self.put(GROWTH * SHAPES[*of].bytes)?;
                    self.add(&SHAPES[*of], value, depth + 1)?;
                }
                (Field::Texts(each), Some(_)) => self.put(GROWTH * each)?,
                // Each has a byte at least.
                (Field::Numbers, Some(value)) => self.put(GROWTH * NUMBER_BYTES * value.len())?,
                (Field::Numbers, None) => self.put(GROWTH * NUMBER_BYTES)?,
                // It is of another kind, so the decoder refuses it.
                (_, None) => return Err(Refused::Malformed),
            }
        }
        Ok(())
    }
}

fn tag(bytes: &mut &[u8]) -> Result<(u32, u8), Refused> {
    let tag = u32::try_from(varint(bytes)?).map_err(|_| Refused::Malformed)?;
    let (number, kind) = (tag >> 3, (tag & 7) as u8);
    if number == 0 { Err(Refused::Malformed) } else { Ok((number, kind)) }
}

/// Steps over a value, and returns it if its length stands before it.
fn skip<'a>(bytes: &mut &'a [u8], number: u32, kind: u8, depth: u32) -> Result<Option<&'a [u8]>, Refused> {
    match kind {
        0 => varint(bytes).map(|_| None),
        1 => take(bytes, 8).map(|_| None),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| Refused::Malformed)?;
            take(bytes, length).map(Some)
        }
        // A group, which no message of today has, and no decoder keeps.
        3 if depth < DEPTH_MAX => loop {
            let (inner, kind) = tag(bytes)?;
            if kind == 4 {
                return if inner == number { Ok(None) } else { Err(Refused::Malformed) };
            }
            skip(bytes, inner, kind, depth + 1)?;
        },
        5 => take(bytes, 4).map(|_| None),
        _ => Err(Refused::Malformed),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refused> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Refused::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Refused> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(number);
        }
    }
    Err(Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reapi::{
        ActionResult, BatchUpdateBlobsRequest, Digest, Directory, FileNode, FindMissingBlobsRequest,
        OutputFile, batch_update_blobs_request,
    };

    #[test]
    fn the_messages_of_all_services_are_known() {
        let files = prost_types::FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let mut count = 0;
        for method in services.flat_map(|service| &service.method) {
            for name in [method.input_type(), method.output_type()] {
                let (package, name) = name[1..].rsplit_once('.').unwrap();
                assert!(shape_of(package, name).is_some(), "{package}.{name}");
                count += 1;
            }
        }
        assert!(count > 50, "{count}");
    }

    #[test]
    fn a_message_is_taken_for_about_what_it_is_in_memory_and_rather_for_more() {
        let sizes = [
            (weight::<ActionResult>(&[0x12, 0]), size_of::<OutputFile>()),
            (weight::<Directory>(&[0x0a, 0]), size_of::<FileNode>()),
            (weight::<FindMissingBlobsRequest>(&[0x12, 0]), size_of::<Digest>()),
            (weight::<BatchUpdateBlobsRequest>(&[0x12, 0]), size_of::<batch_update_blobs_request::Request>()),
        ];
        for (weight, bytes) in sizes {
            assert!(weight >= 2 * bytes && weight <= 4 * bytes, "{weight} for {bytes}");
        }
    }

    fn weight<M: Name>(bytes: &[u8]) -> usize {
        weigh::<M>(bytes, usize::MAX).unwrap()
    }

    #[test]
    fn what_hides_in_other_messages_counts_too_and_texts_do_not() {
        let digest = Digest { hash: "a".repeat(64), size_bytes: 7 };
        let blob = batch_update_blobs_request::Request {
            digest: Some(digest),
            data: vec![0x12; 100_000].into(),
            ..Default::default()
        };
        let one =
            BatchUpdateBlobsRequest { requests: vec![blob.clone()], ..Default::default() }.encode_to_vec();
        assert_eq!(weight::<BatchUpdateBlobsRequest>(&one), weight::<BatchUpdateBlobsRequest>(&[0x12, 0]));
        // `node_properties` of an output file: a list in a message in a list.
        let plain = weight::<ActionResult>(&[0x12, 0]);
        let nested = [0x12, 4, 0x3a, 2, 0x0a, 0];
        assert!(weight::<ActionResult>(&nested) > plain);
        // Behind a field that nobody knows, and a group.
        let hidden = [0xfa, 0x7f, 1, 0, 0xfb, 0x7f, 8, 1, 0xfc, 0x7f, 0x12, 0];
        assert_eq!(weight::<ActionResult>(&hidden), plain);
    }

    #[test]
    fn a_bomb_is_refused_and_what_is_cut_short_is_no_message() {
        let bomb = [0x12, 0].repeat(8 << 20);
        let max = weight_max(bomb.len());
        assert_eq!(weigh::<ActionResult>(&bomb, max), Err(Refused::TooHeavy { max }));
        // As many digests as fit, of the shortest kind.
        let digest = [&[0x12, 34, 0x0a, 32][..], &[b'a'; 32]].concat();
        let most = digest.repeat(400_000);
        assert!(weigh::<FindMissingBlobsRequest>(&most, weight_max(most.len())).is_ok());
        for wrong in [&[0x12][..], &[0x12, 5, 0], &[0x00, 0], &[0x10, 0], &[0x13, 0x0c], &[0x0f], &[0x80; 11]]
        {
            assert_eq!(
                decode::<ActionResult>(Bytes::copy_from_slice(wrong)),
                Err(Refused::Malformed),
                "{wrong:?}"
            );
        }
    }
}
