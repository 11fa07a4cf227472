//! REAPI's `ContentAddressableStorage`: many blobs a call, and trees.

use std::pin::Pin;
use std::sync::Arc;

use castwork_cas::{BlobStore, Digest};
use castwork_proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use castwork_proto::reapi::{
    self, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse,
    GetTreeRequest, GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse,
    SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse, chunking_function,
    digest_function,
};
use futures::Stream;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::batch;
use super::chunks::Chunks;
use super::errors::{bad, to_status};
use super::instance::{Instances, required_digest};
use super::limits::{ANSWER_BYTES_MAX, Limits};
use super::tree::{self, Pages};
use crate::runs::{Asker, Runs};
use crate::store::DiskBlobs;

/// How blobs are cut, whatever the client would like.
const FAST_CDC: i32 = chunking_function::Value::FastCdc2020 as i32;

/// Chunks in one message of `GetChunkMapping`.
const CHUNKS_A_PAGE: usize = 1000;

/// Trees that are read at a time; who comes then waits a while. Each holds some megabytes.
const TREES_MAX: usize = 32;

/// See the module.
#[derive(Clone)]
pub struct CasService {
    instances: Arc<Instances>,
    blobs: DiskBlobs,
    chunks: Chunks,
    limits: Limits,
    runs: Arc<Runs>,
    trees: Arc<Semaphore>,
}

impl CasService {
    /// Serves `blobs`, whole or in `chunks`.
    pub fn new(
        instances: Arc<Instances>,
        blobs: DiskBlobs,
        chunks: Chunks,
        limits: Limits,
        runs: Arc<Runs>,
    ) -> Self {
        let trees = Arc::new(Semaphore::new(TREES_MAX));
        Self { instances, blobs, chunks, limits, runs, trees }
    }

    /// The next message of a stream that goes on.
    async fn next<T>(&self, messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
        let silent = |_| Status::deadline_exceeded("the stream was silent for too long");
        tokio::time::timeout(self.limits.upload_idle, messages.message()).await.map_err(silent)?
    }

    /// Checks the fields that all calls about chunks have, and which blob they are about.
    fn blob_in_chunks(
        &self,
        instance: &str,
        function: i32,
        blob: Option<&reapi::Digest>,
        cutting: i32,
    ) -> Result<Digest, Status> {
        let instance = self.instances.check(instance)?;
        let function = instance.function(function, blob)?;
        // What is asked for is a wish, but it has to be one that the standard knows.
        chunking_function::Value::try_from(cutting).map_err(|_| bad("`chunking_function` is none"))?;
        // Chunks are stored on the way, whichever way it goes.
        instance.may_write(function)?;
        required_digest(blob, function, "blob_digest")
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
        let asker = Asker::from_headers(request.metadata());
        let request = request.into_inner();
        let bytes = request.requests.iter().map(|request| request.data.len() as u64).sum();
        let instance = self.instances.check(&request.instance_name)?;
        let first = request.requests.first().and_then(|request| request.digest.as_ref());
        let function = instance.function(request.digest_function, first)?;
        instance.may_write(function)?;
        let responses =
            batch::update(&self.blobs, request.requests, function, self.limits.blob_bytes_max).await?;
        self.runs.moved(asker.as_ref(), &request.instance_name, bytes, 0);
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let asker = Asker::from_headers(request.metadata());
        let request = request.into_inner();
        let instance = self.instances.check(&request.instance_name)?;
        let function = instance.function(request.digest_function, request.digests.first())?;
        let wanted = request
            .digests
            .iter()
            .map(|digest| required_digest(Some(digest), function, "digests"))
            .collect::<Result<Vec<Digest>, Status>>()?;
        let responses = batch::read(&self.blobs, &wanted, &request.acceptable_compressors).await?;
        let bytes = responses.iter().map(|response| response.data.len() as u64).sum();
        self.runs.moved(asker.as_ref(), &request.instance_name, 0, bytes);
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
        let turn = tokio::time::timeout(self.limits.turn_wait, Arc::clone(&self.trees).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Status::unavailable(
                "the server reads as many trees as it does at a time; try again",
            ));
        };
        let stream = tree::stream(self.blobs.clone(), root, pages, turn).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn split_blob(
        &self,
        request: Request<SplitBlobRequest>,
    ) -> Result<Response<SplitBlobResponse>, Status> {
        let it = request.into_inner();
        let blob = self.blob_in_chunks(
            &it.instance_name,
            it.digest_function,
            it.blob_digest.as_ref(),
            it.chunking_function,
        )?;
        let chunk_digests = self.chunks.split(&blob).await?.iter().map(Digest::to_proto).collect();
        let response = SplitBlobResponse { chunk_digests, chunking_function: FAST_CDC };
        if response.encoded_len() > ANSWER_BYTES_MAX {
            return Err(Status::resource_exhausted("too many chunks for one answer: use GetChunkMapping"));
        }
        Ok(Response::new(response))
    }

    type GetChunkMappingStream = Pin<Box<dyn Stream<Item = Result<GetChunkMappingResponse, Status>> + Send>>;

    async fn get_chunk_mapping(
        &self,
        request: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        let it = request.into_inner();
        self.instances.check(&it.instance_name)?;
        stated(it.digest_function)?;
        let blob = self.blob_in_chunks(
            &it.instance_name,
            it.digest_function,
            it.blob_digest.as_ref(),
            it.chunking_function,
        )?;
        let chunks = self.chunks.split(&blob).await?;
        let first = GetChunkMappingResponse { chunking_function: FAST_CDC, ..Default::default() };
        let pages: Vec<GetChunkMappingResponse> = chunks
            .chunks(CHUNKS_A_PAGE)
            .map(|page| GetChunkMappingResponse {
                chunk_digests: page.iter().map(Digest::to_proto).collect(),
                ..Default::default()
            })
            .collect();
        let all = std::iter::once(first).chain(pages).map(Ok);
        Ok(Response::new(Box::pin(futures::stream::iter(all))))
    }

    async fn splice_blob(
        &self,
        request: Request<SpliceBlobRequest>,
    ) -> Result<Response<SpliceBlobResponse>, Status> {
        let it = request.into_inner();
        let blob = self.blob_in_chunks(
            &it.instance_name,
            it.digest_function,
            it.blob_digest.as_ref(),
            it.chunking_function,
        )?;
        if let Some(mut splice) = self.chunks.splice(&blob).await? {
            splice.append(&it.chunk_digests).await?;
            splice.finish().await?;
        }
        Ok(Response::new(SpliceBlobResponse { blob_digest: Some(blob.to_proto()) }))
    }

    async fn register_chunk_mapping(
        &self,
        request: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        let mut messages = request.into_inner();
        let first = self.next(&mut messages).await?.ok_or_else(|| bad("the stream has no messages"))?;
        self.instances.check(&first.instance_name)?;
        stated(first.digest_function)?;
        let blob = self.blob_in_chunks(
            &first.instance_name,
            first.digest_function,
            first.blob_digest.as_ref(),
            first.chunking_function,
        )?;
        // What is there need not be read on about.
        if let Some(mut splice) = self.chunks.splice(&blob).await? {
            let mut message = Some(first);
            while let Some(it) = message {
                splice.append(&it.chunk_digests).await?;
                message = self.next(&mut messages).await?;
            }
            splice.finish().await?;
        }
        Ok(Response::new(RegisterChunkMappingResponse { blob_digest: Some(blob.to_proto()) }))
    }
}

/// What the calls since v2.13 want said.
fn stated(function: i32) -> Result<(), Status> {
    if function == digest_function::Value::Unknown as i32 {
        return Err(bad("`digest_function` is not set"));
    }
    Ok(())
}
