//! [`RequestMetadata`] from the headers of a call: which tool, which build, which action.

use castwork_proto::reapi::RequestMetadata;
use prost::Message as _;
use tonic::metadata::MetadataMap;

/// REAPI's header; its value is a serialized [`RequestMetadata`].
pub const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Returns what the client says about its call, or nothing if it says nothing legible.
///
/// Nothing that a client puts here makes a call fail: it is for people and for fairness.
pub fn request_metadata(headers: &MetadataMap) -> Option<RequestMetadata> {
    let bytes = headers.get_bin(HEADER)?.to_bytes().ok()?;
    RequestMetadata::decode(bytes).ok()
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn metadata_is_read_and_garbage_is_as_good_as_none() {
        let sent = RequestMetadata { tool_invocation_id: "run-1".to_owned(), ..Default::default() };
        let mut headers = MetadataMap::new();
        assert_eq!(request_metadata(&headers), None);
        headers.insert_bin(HEADER, MetadataValue::from_bytes(&sent.encode_to_vec()));
        assert_eq!(request_metadata(&headers), Some(sent));
        headers.insert_bin(HEADER, MetadataValue::from_bytes(b"\xff\xff\xff"));
        assert_eq!(request_metadata(&headers), None);
    }
}
