//! What the headers of a call say of it: which tool, which build, which action ([`RequestMetadata`]), which span.

use std::sync::Arc;

use castwork_proto::reapi::RequestMetadata;
use castwork_trace::Context;
use prost::Message as _;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

/// REAPI's header; its value is a serialized [`RequestMetadata`].
pub const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Bytes of the name of a run that count; the rest is left out.
const RUN_BYTES_MAX: usize = 256;

/// Returns what the client says about its call, or nothing if it says nothing legible.
///
/// Nothing that a client puts here makes a call fail: it is for people and for fairness.
pub fn request_metadata(headers: &MetadataMap) -> Option<RequestMetadata> {
    let bytes = headers.get_bin(HEADER)?.to_bytes().ok()?;
    RequestMetadata::decode(bytes).ok()
}

/// The name of a run, from a `tool_invocation_id`.
pub(super) fn run_name(id: &str) -> &str {
    let end =
        id.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|end| *end <= RUN_BYTES_MAX);
    &id[..end.last().unwrap_or(0)]
}

/// The run that a call is part of, by its headers; empty if they do not say.
pub(super) fn run_of(headers: &HeaderMap) -> Arc<str> {
    let Some(value) = headers.get(HEADER) else { return "".into() };
    let mut alone = HeaderMap::with_capacity(1);
    alone.insert(HEADER, value.clone());
    let metadata = request_metadata(&MetadataMap::from_headers(alone));
    metadata.map_or_else(|| "".into(), |metadata| run_name(&metadata.tool_invocation_id).into())
}

/// Returns the span of the client that a call is a part of, if it says one.
pub fn trace_context(headers: &MetadataMap) -> Option<Context> {
    headers.get(castwork_trace::HEADER)?.to_str().ok()?.parse().ok()
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
        assert_eq!(&*run_of(&headers.clone().into_headers()), "run-1");
        headers.insert_bin(HEADER, MetadataValue::from_bytes(b"\xff\xff\xff"));
        assert_eq!(request_metadata(&headers), None);
        assert_eq!(&*run_of(&headers.clone().into_headers()), "");
    }
    #[test]
    fn the_span_of_a_call_is_read_and_garbage_is_as_good_as_none() {
        let context = Context::root();
        let mut headers = MetadataMap::new();
        assert_eq!(trace_context(&headers), None);
        headers.insert(castwork_trace::HEADER, context.to_string().parse().unwrap());
        assert_eq!(trace_context(&headers), Some(context));
        headers.insert(castwork_trace::HEADER, "00-not-a-span".parse().unwrap());
        assert_eq!(trace_context(&headers), None);
    }
}
