//! Messages of the content store: digests and functions in them become checked types, or an error.
#![no_main]

use castwork_cas::resource::Compressor;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::{
    Action, ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, Command, FindMissingBlobsRequest,
    GetTreeRequest, RegisterChunkMappingRequest,
};
use castwork_scheduler::doors;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let mut digests = Vec::new();
    let mut function = 0;
    if let Ok(request) = BatchUpdateBlobsRequest::decode(data) {
        function = request.digest_function;
        for item in request.requests {
            let _ = Compressor::from_proto(item.compressor);
            digests.extend(item.digest);
        }
    }
    if let Ok(request) = FindMissingBlobsRequest::decode(data) {
        digests.extend(request.blob_digests);
    }
    if let Ok(request) = BatchReadBlobsRequest::decode(data) {
        digests.extend(request.digests);
    }
    if let Ok(request) = GetTreeRequest::decode(data) {
        doors::tree_pages(request.root_digest.as_ref(), request.page_size, &request.page_token);
    }
    if let Ok(request) = RegisterChunkMappingRequest::decode(data) {
        digests.extend(request.chunk_digests);
    }
    if let Ok(result) = ActionResult::decode(data) {
        doors::outputs(&result);
    }
    let (_, _) = (Action::decode(data), Command::decode(data));
    for digest in digests {
        let Ok(function) = DigestFunction::from_proto(function, DigestFunction::Sha256) else { return };
        if let Ok(checked) = Digest::from_proto(&digest, function) {
            assert_eq!(checked.to_proto(), digest);
        }
    }
});
