//! Sends every field of every message through the compiled types of `bazel-remote-apis`, and back.

use bazel_remote_apis::build::bazel::remote::execution::v2;
use bazel_remote_apis::build::bazel::semver;
use bazel_remote_apis::google::{bytestream, longrunning, rpc};
use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Packages of ours that the crate has in full.
const PACKAGES: [&str; 4] =
    ["build.bazel.remote.execution.v2", "build.bazel.semver", "google.bytestream", "google.longrunning"];

type RoundTrip = fn(&[u8]) -> Result<Vec<u8>, prost::DecodeError>;

fn through<M: Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    M::decode(bytes).map(|message| message.encode_to_vec())
}

/// Messages by full name, and the type of theirs that each has to be.
const ROUND_TRIPS: &[(&str, RoundTrip)] = &[
    ("build.bazel.remote.execution.v2.Action", through::<v2::Action>),
    ("build.bazel.remote.execution.v2.Command", through::<v2::Command>),
    (
        "build.bazel.remote.execution.v2.Command.EnvironmentVariable",
        through::<v2::command::EnvironmentVariable>,
    ),
    ("build.bazel.remote.execution.v2.Platform", through::<v2::Platform>),
    ("build.bazel.remote.execution.v2.Platform.Property", through::<v2::platform::Property>),
    ("build.bazel.remote.execution.v2.Directory", through::<v2::Directory>),
    ("build.bazel.remote.execution.v2.NodeProperty", through::<v2::NodeProperty>),
    ("build.bazel.remote.execution.v2.NodeProperties", through::<v2::NodeProperties>),
    ("build.bazel.remote.execution.v2.FileNode", through::<v2::FileNode>),
    ("build.bazel.remote.execution.v2.DirectoryNode", through::<v2::DirectoryNode>),
    ("build.bazel.remote.execution.v2.SymlinkNode", through::<v2::SymlinkNode>),
    ("build.bazel.remote.execution.v2.Digest", through::<v2::Digest>),
    ("build.bazel.remote.execution.v2.ExecutedActionMetadata", through::<v2::ExecutedActionMetadata>),
    ("build.bazel.remote.execution.v2.ActionResult", through::<v2::ActionResult>),
    ("build.bazel.remote.execution.v2.OutputFile", through::<v2::OutputFile>),
    ("build.bazel.remote.execution.v2.Tree", through::<v2::Tree>),
    ("build.bazel.remote.execution.v2.OutputDirectory", through::<v2::OutputDirectory>),
    ("build.bazel.remote.execution.v2.OutputSymlink", through::<v2::OutputSymlink>),
    ("build.bazel.remote.execution.v2.ExecutionPolicy", through::<v2::ExecutionPolicy>),
    ("build.bazel.remote.execution.v2.ResultsCachePolicy", through::<v2::ResultsCachePolicy>),
    ("build.bazel.remote.execution.v2.ExecuteRequest", through::<v2::ExecuteRequest>),
    ("build.bazel.remote.execution.v2.LogFile", through::<v2::LogFile>),
    ("build.bazel.remote.execution.v2.ExecuteResponse", through::<v2::ExecuteResponse>),
    ("build.bazel.remote.execution.v2.ExecutionStage", through::<v2::ExecutionStage>),
    ("build.bazel.remote.execution.v2.ExecuteOperationMetadata", through::<v2::ExecuteOperationMetadata>),
    ("build.bazel.remote.execution.v2.WaitExecutionRequest", through::<v2::WaitExecutionRequest>),
    ("build.bazel.remote.execution.v2.GetActionResultRequest", through::<v2::GetActionResultRequest>),
    ("build.bazel.remote.execution.v2.UpdateActionResultRequest", through::<v2::UpdateActionResultRequest>),
    ("build.bazel.remote.execution.v2.FindMissingBlobsRequest", through::<v2::FindMissingBlobsRequest>),
    ("build.bazel.remote.execution.v2.FindMissingBlobsResponse", through::<v2::FindMissingBlobsResponse>),
    ("build.bazel.remote.execution.v2.BatchUpdateBlobsRequest", through::<v2::BatchUpdateBlobsRequest>),
    (
        "build.bazel.remote.execution.v2.BatchUpdateBlobsRequest.Request",
        through::<v2::batch_update_blobs_request::Request>,
    ),
    ("build.bazel.remote.execution.v2.BatchUpdateBlobsResponse", through::<v2::BatchUpdateBlobsResponse>),
    (
        "build.bazel.remote.execution.v2.BatchUpdateBlobsResponse.Response",
        through::<v2::batch_update_blobs_response::Response>,
    ),
    ("build.bazel.remote.execution.v2.BatchReadBlobsRequest", through::<v2::BatchReadBlobsRequest>),
    ("build.bazel.remote.execution.v2.BatchReadBlobsResponse", through::<v2::BatchReadBlobsResponse>),
    (
        "build.bazel.remote.execution.v2.BatchReadBlobsResponse.Response",
        through::<v2::batch_read_blobs_response::Response>,
    ),
    ("build.bazel.remote.execution.v2.GetTreeRequest", through::<v2::GetTreeRequest>),
    ("build.bazel.remote.execution.v2.GetTreeResponse", through::<v2::GetTreeResponse>),
    ("build.bazel.remote.execution.v2.SplitBlobRequest", through::<v2::SplitBlobRequest>),
    ("build.bazel.remote.execution.v2.SplitBlobResponse", through::<v2::SplitBlobResponse>),
    ("build.bazel.remote.execution.v2.SpliceBlobRequest", through::<v2::SpliceBlobRequest>),
    ("build.bazel.remote.execution.v2.SpliceBlobResponse", through::<v2::SpliceBlobResponse>),
    ("build.bazel.remote.execution.v2.GetChunkMappingRequest", through::<v2::GetChunkMappingRequest>),
    ("build.bazel.remote.execution.v2.GetChunkMappingResponse", through::<v2::GetChunkMappingResponse>),
    (
        "build.bazel.remote.execution.v2.RegisterChunkMappingRequest",
        through::<v2::RegisterChunkMappingRequest>,
    ),
    (
        "build.bazel.remote.execution.v2.RegisterChunkMappingResponse",
        through::<v2::RegisterChunkMappingResponse>,
    ),
    ("build.bazel.remote.execution.v2.GetCapabilitiesRequest", through::<v2::GetCapabilitiesRequest>),
    ("build.bazel.remote.execution.v2.ServerCapabilities", through::<v2::ServerCapabilities>),
    ("build.bazel.remote.execution.v2.DigestFunction", through::<v2::DigestFunction>),
    ("build.bazel.remote.execution.v2.ChunkingFunction", through::<v2::ChunkingFunction>),
    (
        "build.bazel.remote.execution.v2.ActionCacheUpdateCapabilities",
        through::<v2::ActionCacheUpdateCapabilities>,
    ),
    ("build.bazel.remote.execution.v2.PriorityCapabilities", through::<v2::PriorityCapabilities>),
    (
        "build.bazel.remote.execution.v2.PriorityCapabilities.PriorityRange",
        through::<v2::priority_capabilities::PriorityRange>,
    ),
    (
        "build.bazel.remote.execution.v2.SymlinkAbsolutePathStrategy",
        through::<v2::SymlinkAbsolutePathStrategy>,
    ),
    ("build.bazel.remote.execution.v2.Compressor", through::<v2::Compressor>),
    ("build.bazel.remote.execution.v2.CacheCapabilities", through::<v2::CacheCapabilities>),
    ("build.bazel.remote.execution.v2.FastCdc2020Params", through::<v2::FastCdc2020Params>),
    ("build.bazel.remote.execution.v2.RepMaxCdcParams", through::<v2::RepMaxCdcParams>),
    ("build.bazel.remote.execution.v2.ExecutionCapabilities", through::<v2::ExecutionCapabilities>),
    ("build.bazel.remote.execution.v2.ToolDetails", through::<v2::ToolDetails>),
    ("build.bazel.remote.execution.v2.RequestMetadata", through::<v2::RequestMetadata>),
    ("build.bazel.semver.SemVer", through::<semver::SemVer>),
    ("google.bytestream.ReadRequest", through::<bytestream::ReadRequest>),
    ("google.bytestream.ReadResponse", through::<bytestream::ReadResponse>),
    ("google.bytestream.WriteRequest", through::<bytestream::WriteRequest>),
    ("google.bytestream.WriteResponse", through::<bytestream::WriteResponse>),
    ("google.bytestream.QueryWriteStatusRequest", through::<bytestream::QueryWriteStatusRequest>),
    ("google.bytestream.QueryWriteStatusResponse", through::<bytestream::QueryWriteStatusResponse>),
    ("google.longrunning.Operation", through::<longrunning::Operation>),
    ("google.longrunning.GetOperationRequest", through::<longrunning::GetOperationRequest>),
    ("google.longrunning.ListOperationsRequest", through::<longrunning::ListOperationsRequest>),
    ("google.longrunning.ListOperationsResponse", through::<longrunning::ListOperationsResponse>),
    ("google.longrunning.CancelOperationRequest", through::<longrunning::CancelOperationRequest>),
    ("google.longrunning.DeleteOperationRequest", through::<longrunning::DeleteOperationRequest>),
    ("google.longrunning.WaitOperationRequest", through::<longrunning::WaitOperationRequest>),
    ("google.longrunning.OperationInfo", through::<longrunning::OperationInfo>),
    ("google.rpc.Status", through::<rpc::Status>),
];

#[test]
fn no_message_is_left_out() {
    let mut expected: Vec<_> = our_pool()
        .all_messages()
        .filter(|message| PACKAGES.contains(&message.package_name()) && !message.is_map_entry())
        .map(|message| message.full_name().to_owned())
        .chain(["google.rpc.Status".to_owned()])
        .collect();
    let mut listed: Vec<_> = ROUND_TRIPS.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}

#[test]
fn every_field_comes_back_as_it_was_sent() {
    let pool = our_pool();
    for (name, round_trip) in ROUND_TRIPS {
        let message = pool.get_message_by_name(name).expect("a message of ours");
        for field in message.fields() {
            let sent = message_with(&message, &field);
            assert!(!sent.is_empty(), "{} has a value", field.full_name());
            let back = round_trip(&sent).unwrap_or_else(|error| panic!("{}: {error}", field.full_name()));
            assert_eq!(back, sent, "{}", field.full_name());
        }
    }
}

#[test]
fn a_field_with_another_number_does_not_come_back() {
    let message = our_pool().get_message_by_name("google.bytestream.ReadRequest").expect("a message of ours");
    let sent = message_with(&message, &message.get_field(1).expect("the name"));
    let renumbered = [&[9 << 3 | 2], &sent[1..]].concat();
    assert_ne!(through::<bytestream::ReadRequest>(&renumbered).ok(), Some(renumbered));
}

fn our_pool() -> DescriptorPool {
    DescriptorPool::decode(castwork_proto::DESCRIPTORS).expect("our descriptors")
}

/// Encodes a message in which one field is set, and below it everything.
fn message_with(message: &MessageDescriptor, field: &FieldDescriptor) -> Vec<u8> {
    let mut filled = DynamicMessage::new(message.clone());
    filled.set_field(field, value_of(field, 3));
    filled.encode_to_vec()
}

/// A value that is no default: numbers and texts that tell the field; messages filled to some depth.
fn value_of(field: &FieldDescriptor, depth: u32) -> Value {
    if field.is_map() {
        return Value::Map([(MapKey::String("key".into()), map_value(field, depth))].into());
    }
    let one = single_value(field, depth);
    if field.cardinality() == Cardinality::Repeated { Value::List(vec![one.clone(), one]) } else { one }
}

fn map_value(field: &FieldDescriptor, depth: u32) -> Value {
    let kind = field.kind();
    let entry = kind.as_message().expect("a map's entry");
    single_value(&entry.map_entry_value_field(), depth)
}

fn single_value(field: &FieldDescriptor, depth: u32) -> Value {
    let number = field.number();
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Int32 => Value::I32(-7),
        Kind::Int64 => Value::I64(-7),
        Kind::Uint32 => Value::U32(1000 + number),
        Kind::Uint64 => Value::U64(1000 + u64::from(number)),
        Kind::String => Value::String(field.full_name().to_owned()),
        Kind::Bytes => Value::Bytes(vec![0xff, 0, 0xfe].into()),
        Kind::Enum(values) => Value::EnumNumber(values.values().last().expect("a value").number()),
        Kind::Message(message) => Value::Message(filled(&message, depth)),
        other => panic!("no field is a {other:?} so far: {}", field.full_name()),
    }
}

fn filled(message: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    if depth > 0 {
        for field in message.fields() {
            filled.set_field(&field, value_of(&field, depth - 1));
        }
    }
    filled
}
