//! Compares the messages of `google.rpc` with the descriptors in `tonic-types`, and its codes with `tonic`.

use std::collections::BTreeSet;

use castwork_proto::rpc::Code;
use prost_reflect::{DescriptorPool, MessageDescriptor};

#[test]
fn statuses_and_error_details_are_the_standards() {
    let theirs = facts(tonic_types::pb::FILE_DESCRIPTOR_SET);
    let ours = facts(castwork_proto::DESCRIPTORS);
    assert!(theirs.len() > 30, "there is something to compare: {theirs:#?}");
    let only_ours: Vec<_> = ours.difference(&theirs).collect();
    let only_theirs: Vec<_> = theirs.difference(&ours).collect();
    assert!(
        only_ours.is_empty() && only_theirs.is_empty(),
        "only ours: {only_ours:#?}, only theirs: {only_theirs:#?}"
    );
}

#[test]
fn codes_are_grpcs() {
    for number in 0..=16 {
        let ours = Code::try_from(number).expect("a code");
        let theirs = format!("{:?}", tonic::Code::from(number));
        assert_eq!(ours.as_str_name().replace('_', ""), theirs.to_uppercase());
    }
    assert!(Code::try_from(17).is_err(), "gRPC has no further codes");
}

/// A line for each message and field of `google.rpc`.
fn facts(descriptors: &[u8]) -> BTreeSet<String> {
    let pool = DescriptorPool::decode(descriptors).expect("descriptors");
    let messages = pool.all_messages().filter(|message| message.package_name() == "google.rpc");
    messages.flat_map(|message| lines(&message)).collect()
}

fn lines(message: &MessageDescriptor) -> Vec<String> {
    let mut lines = vec![format!("message {}", message.full_name())];
    for field in message.fields() {
        let (name, number, kind) = (field.full_name(), field.number(), field.kind());
        let (cardinality, presence) = (field.cardinality(), field.supports_presence());
        let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
        lines.push(format!("{name} = {number} {kind:?} {cardinality:?} {presence} {oneof:?}"));
    }
    lines
}
