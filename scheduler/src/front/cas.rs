//! REAPI's `ContentAddressableStorage`: many blobs a call, and trees.

use std::pin::Pin;
use std::sync::Arc;

use castwork_cas::{BlobStore, Digest};
use castwork_proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use castwork_proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse,
    GetTreeRequest, GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse,
    SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse,
};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::batch;
use super::errors::to_status;
use super::instance::{Instances, required_digest};
use super::tree::{self, Pages};
use crate::store::DiskBlobs;

/// See the module.
#[derive(Clone)]
pub struct CasService {
    instances: Arc<Instances>,
    blobs: DiskBlobs,
    blob_bytes_max: u64,
}

impl CasService {
    /// Serves `blobs`, and takes none above `blob_bytes_max`.
    pub fn new(instances: Arc<Instances>, blobs: DiskBlobs, blob_bytes_max: u64) -> Self {
        Self { instances, blobs, blob_bytes_max }
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for CasService {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        let instance = self.instances.check(&request.instance_name)?;
        let function = instance.function(request.digest_function, request.blob_digests.first())?;
        let wanted = request
            .blob_digests
            .iter()
            .map(|digest| required_digest(Some(digest), function, "blob_digests"))
            .collect::<Result<Vec<Digest>, Status>>()?;
        let missing = self.blobs.find_missing(&wanted).await.map_err(to_status)?;
        let missing_blob_digests = missing.iter().map(Digest::to_proto).collect();
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        let instance = self.instances.check(&request.instance_name)?;
        let first = request.requests.first().and_then(|request| request.digest.as_ref());
        let function = instance.function(request.digest_function, first)?;
        instance.may_write(function)?;
        let responses = batch::update(&self.blobs, request.requests, function, self.blob_bytes_max).await?;
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        let instance = self.instances.check(&request.instance_name)?;
        let function = instance.function(request.digest_function, request.digests.first())?;
        let wanted = request
            .digests
            .iter()
            .map(|digest| required_digest(Some(digest), function, "digests"))
            .collect::<Result<Vec<Digest>, Status>>()?;
        let responses = batch::read(&self.blobs, &wanted, &request.acceptable_compressors).await?;
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Pin<Box<dyn Stream<Item = Result<GetTreeResponse, Status>> + Send>>;

    async fn get_tree(
        &self,
        request: Request<GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let request = request.into_inner();
        let instance = self.instances.check(&request.instance_name)?;
        let function = instance.function(request.digest_function, request.root_digest.as_ref())?;
        let root = required_digest(request.root_digest.as_ref(), function, "root_digest")?;
        let pages = Pages::read(root, request.page_size, &request.page_token)?;
        let stream = tree::stream(self.blobs.clone(), root, pages).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(not_chunked())
    }

    type GetChunkMappingStream = Pin<Box<dyn Stream<Item = Result<GetChunkMappingResponse, Status>> + Send>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(not_chunked())
    }

    async fn splice_blob(
        &self,
        _: Request<SpliceBlobRequest>,
    ) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(not_chunked())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(not_chunked())
    }
}

fn not_chunked() -> Status {
    Status::unimplemented("this server does not keep blobs in chunks, and does not advertise that it does")
}
