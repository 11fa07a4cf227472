//! What a message takes in memory beside its own bytes, told before it is decoded.
//!
//! An entry of a list may be two bytes on the wire and hundreds in memory: sixteen megabytes of them are more than a
//! gigabyte. So whoever decodes what somebody else has written looks first, by a scan of its tags that allocates
//! nothing. Texts and blobs are not counted: they are as long in memory as on the wire.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Messages in messages, at most, as decoders have it.
const DEPTH_MAX: u32 = 100;

/// A list grows by doubling, so it takes up to twice what is in it.
const GROWTH: usize = 2;

/// Bytes in memory of a text, a blob or a list, and of a number.
const TEXT_BYTES: usize = 24;
const BLOB_BYTES: usize = 32;
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
    let schema = schema();
    // What is not ours is not decoded from what others have written.
    let Some(shape) = schema.names.get(M::PACKAGE).and_then(|package| package.get(M::NAME)) else {
        return Ok(0);
    };
    let mut scale = Scale { schema, weight: 0, max };
    scale.add(*shape, bytes, 0)?;
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

/// All messages that there are.
struct Schema {
    /// By package and name.
    names: HashMap<String, HashMap<String, usize>>,
    shapes: Vec<Shape>,
}

/// What of a message matters here.
#[derive(Default)]
struct Shape {
    /// In memory, without what its fields point to.
    bytes: usize,
    /// The fields that may weigh something, or may hold one that does; by number.
    fields: Vec<(u32, Field)>,
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

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let files =
            FileDescriptorSet::decode(crate::DESCRIPTORS).expect("the descriptors were made by the build");
        read(&files)
    })
}

fn read(files: &FileDescriptorSet) -> Schema {
    let mut found = Vec::new();
    let mut names = HashMap::<String, HashMap<String, usize>>::new();
    for file in &files.file {
        let first = found.len();
        for message in &file.message_type {
            gather(file.package(), "", message, &mut found);
        }
        let package = names.entry(file.package().to_owned()).or_default();
        package.extend(found[first..].iter().enumerate().map(|(at, (name, ..))| (name.clone(), first + at)));
    }
    let numbers: HashMap<String, usize> =
        found.iter().enumerate().map(|(at, (_, full, _))| (full.clone(), at)).collect();
    let messages: Vec<&DescriptorProto> = found.iter().map(|(.., message)| *message).collect();
    let mut bytes = vec![None; messages.len()];
    let shapes = (0..messages.len())
        .map(|at| Shape {
            bytes: size(at, &messages, &numbers, &mut bytes),
            fields: messages[at].field.iter().filter_map(|field| field_of(field, &numbers)).collect(),
        })
        .collect();
    let mut schema = Schema { names, shapes };
    leave_out_what_weighs_nothing(&mut schema.shapes);
    schema
}

/// Gathers messages with those that are declared in them: name in the package, name as fields say it.
fn gather<'a>(
    package: &str,
    outer: &str,
    message: &'a DescriptorProto,
    found: &mut Vec<(String, String, &'a DescriptorProto)>,
) {
    let name =
        if outer.is_empty() { message.name().to_owned() } else { format!("{outer}.{}", message.name()) };
    found.push((name.clone(), format!(".{package}.{name}"), message));
    for nested in &message.nested_type {
        gather(package, &name, nested, found);
    }
}

fn field_of(field: &FieldDescriptorProto, numbers: &HashMap<String, usize>) -> Option<(u32, Field)> {
    let is_list = field.label() == Label::Repeated;
    let what = match (field.r#type(), is_list) {
        (Type::Message, false) => Field::One(numbers[field.type_name()]),
        (Type::Message, true) => Field::Many(numbers[field.type_name()]),
        (Type::String, true) => Field::Texts(TEXT_BYTES),
        (Type::Bytes, true) => Field::Texts(BLOB_BYTES),
        (_, true) => Field::Numbers,
        (_, false) => return None,
    };
    Some((u32::try_from(field.number()).expect("numbers of fields are positive"), what))
}

/// Bytes of a message in memory, rather too many: of fields of which only one is set, all count.
fn size(
    at: usize,
    messages: &[&DescriptorProto],
    numbers: &HashMap<String, usize>,
    known: &mut Vec<Option<usize>>,
) -> usize {
    if let Some(bytes) = known[at] {
        return bytes;
    }
    // Of one that holds itself: there is a pointer in between.
    known[at] = Some(NUMBER_BYTES);
    let mut bytes = 0;
    for field in &messages[at].field {
        bytes += match (field.r#type(), field.label() == Label::Repeated) {
            (_, true) | (Type::String, _) => TEXT_BYTES,
            (Type::Bytes, _) => BLOB_BYTES,
            (Type::Message, _) => NUMBER_BYTES + size(numbers[field.type_name()], messages, numbers, known),
            _ => NUMBER_BYTES,
        };
    }
    known[at] = Some(bytes);
    bytes
}

/// Messages in which nothing weighs anything, such as digests, need no look inside.
fn leave_out_what_weighs_nothing(shapes: &mut [Shape]) {
    loop {
        let is_plain: Vec<bool> = shapes.iter().map(|shape| shape.fields.is_empty()).collect();
        let mut changed = false;
        for shape in &mut *shapes {
            let before = shape.fields.len();
            shape.fields.retain(|(_, field)| !matches!(field, Field::One(of) if is_plain[*of]));
            changed |= shape.fields.len() < before;
        }
        if !changed {
            return;
        }
    }
}

/// A message that is being weighed.
struct Scale {
    schema: &'static Schema,
    weight: usize,
    max: usize,
}

impl Scale {
    fn put(&mut self, bytes: usize) -> Result<(), Refused> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > self.max { Err(Refused::TooHeavy { max: self.max }) } else { Ok(()) }
    }

    fn add(&mut self, shape: usize, mut bytes: &[u8], depth: u32) -> Result<(), Refused> {
        let schema = self.schema;
        let shape = &schema.shapes[shape];
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
                (Field::One(of), Some(value)) => self.add(*of, value, depth + 1)?,
                (Field::Many(of), Some(value)) => {
                    self.put(GROWTH * schema.shapes[*of].bytes)?;
                    self.add(*of, value, depth + 1)?;
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
        let files = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let mut count = 0;
        for method in services.flat_map(|service| &service.method) {
            for name in [method.input_type(), method.output_type()] {
                let (package, name) = name[1..].rsplit_once('.').unwrap();
                assert!(schema().names[package].contains_key(name), "{package}.{name}");
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
