//! What `castwork_proto::weigh` has to know of each message, as code: how many bytes it takes in memory, and which of its
//! fields may weigh something.

use std::collections::HashMap;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Bytes in memory of a text, a blob or a list, and of a number.
const TEXT_BYTES: usize = 24;
const BLOB_BYTES: usize = 32;
const NUMBER_BYTES: usize = 8;

/// A field that may weigh something, or may hold one that does; messages by their number.
#[derive(Clone, Copy)]
enum Field {
    One(usize),
    Many(usize),
    Texts(usize),
    Numbers,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(of) => write!(f, "Field::One({of})"),
            Self::Many(of) => write!(f, "Field::Many({of})"),
            Self::Texts(bytes) => write!(f, "Field::Texts({bytes})"),
            Self::Numbers => f.write_str("Field::Numbers"),
        }
    }
}

/// A message: its bytes in memory without what its fields point to, and its fields by number.
struct Shape {
    bytes: usize,
    fields: Vec<(u32, Field)>,
}

/// The code.
pub(crate) fn code(files: &FileDescriptorSet) -> String {
    let mut found = Vec::new();
    for file in &files.file {
        for message in &file.message_type {
            gather(file.package(), "", message, &mut found);
        }
    }
    found.sort_by(|(package, name, _), (another, other, _)| (package, name).cmp(&(another, other)));
    let numbers: HashMap<String, usize> =
        found.iter().enumerate().map(|(at, (package, name, _))| (format!(".{package}.{name}"), at)).collect();
    let messages: Vec<&DescriptorProto> = found.iter().map(|(.., message)| *message).collect();
    let mut bytes = vec![None; messages.len()];
    let mut shapes: Vec<Shape> = (0..messages.len())
        .map(|at| Shape {
            bytes: size(at, &messages, &numbers, &mut bytes),
            fields: messages[at].field.iter().filter_map(|field| field_of(field, &numbers)).collect(),
        })
        .collect();
    leave_out_what_weighs_nothing(&mut shapes);
    let mut code = String::from("// Made from the descriptors.\n\nstatic NAMES: &[(&str, &str)] = &[\n");
    for (package, name, _) in &found {
        writeln!(code, "    ({package:?}, {name:?}),").expect("texts take what is written");
    }
    code.push_str("];\n\nstatic SHAPES: &[Shape] = &[\n");
    for Shape { bytes, fields } in shapes {
        let fields: Vec<String> =
            fields.iter().map(|(number, field)| format!("({number}, {field})")).collect();
        writeln!(code, "    Shape {{ bytes: {bytes}, fields: &[{}] }},", fields.join(", "))
            .expect("texts take what is written");
    }
    code.push_str("];\n");
    code
}

/// Gathers messages with those that are declared in them: package, name in it.
fn gather<'a>(
    package: &'a str,
    outer: &str,
    message: &'a DescriptorProto,
    found: &mut Vec<(&'a str, String, &'a DescriptorProto)>,
) {
    let name =
        if outer.is_empty() { message.name().to_owned() } else { format!("{outer}.{}", message.name()) };
    found.push((package, name.clone(), message));
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
