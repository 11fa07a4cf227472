//! A server over memory that can be told to misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use castwork_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use castwork_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use castwork_proto::reapi::action_cache_server::{ActionCache, ActionCacheServer};
use castwork_proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use castwork_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use castwork_proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response};
use castwork_proto::rpc;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::codec::{compress, decompress};
use crate::resource::{Compressor, ReadName, WriteName};
use crate::store::{ByteRange, collect, stream_of};
use crate::{BlobStore as _, Digest, DigestFunction, MemoryBlobs, StoreError};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// What a server says and does.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) batch_bytes_max: i64,
    pub(super) zstd: bool,
    /// Says that there are no workers.
    pub(super) no_workers: bool,
    /// Says it knows every blob, and that it knows it already on writes.
    pub(super) early: Option<i64>,
    pub(super) fault: Option<Fault>,
    /// What a batch answers for each blob in place of its data; leaves it out for `Some(Ok)`.
    pub(super) in_batches: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Flips a bit in everything that is read.
    WrongBytes,
    /// Leaves the second half out of streams that are read.
    Short,
    /// Leaves out OK statuses.
    NoStatus,
    /// Never answers a call.
    Silent,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1 << 20,
            zstd: false,
            no_workers: false,
            early: None,
            fault: None,
            in_batches: None,
        }
    }
}

/// A server that runs until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) struct State {
    pub(super) behaviour: Behaviour,
    pub(super) blobs: MemoryBlobs,
    pub(super) results: Mutex<HashMap<Bytes, reapi::ActionResult>>,
    /// How many calls are still to fail.
    pub(super) failing: AtomicUsize,
    /// How often each call was made.
    pub(super) calls: Mutex<HashMap<&'static str, usize>>,
    /// What came with the newest call.
    pub(super) metadata: Mutex<MetadataMap>,
    /// Names and sizes of the messages of uploads.
    pub(super) writes: Mutex<Vec<(String, usize)>>,
}

impl Server {
    pub(super) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour,
            blobs: MemoryBlobs::new(1 << 30),
            results: Mutex::default(),
            failing: AtomicUsize::new(0),
            calls: Mutex::default(),
            metadata: Mutex::default(),
            writes: Mutex::default(),
        });
        let each = || Service(state.clone());
        let router = tonic::transport::Server::builder()
            .add_service(CapabilitiesServer::new(each()))
            .add_service(ContentAddressableStorageServer::new(each()).max_decoding_message_size(16 << 20))
            .add_service(ByteStreamServer::new(each()))
            .add_service(ActionCacheServer::new(each()));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Self { address, state, task }
    }

    pub(super) fn calls(&self, name: &str) -> usize {
        self.state.calls.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

struct Service(Arc<State>);

impl Service {
    /// Counts a call, and fails it if that is wanted.
    async fn begin(&self, name: &'static str, metadata: &MetadataMap) -> Result<(), Status> {
        *self.0.calls.lock().unwrap().entry(name).or_default() += 1;
        *self.0.metadata.lock().unwrap() = metadata.clone();
        if self.has(Fault::Silent) {
            std::future::pending::<()>().await;
        }
        let failing = &self.0.failing;
        match failing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)) {
            Ok(_) => Err(Status::unavailable("not now")),
            Err(_) => Ok(()),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.0.behaviour.fault == Some(fault)
    }

    fn spoiled(&self, data: Bytes) -> Bytes {
        if !self.has(Fault::WrongBytes) || data.is_empty() {
            return data;
        }
        let mut data = data.to_vec();
        data[0] ^= 1;
        data.into()
    }

    fn ok(&self) -> Option<rpc::Status> {
        (!self.has(Fault::NoStatus)).then(rpc::Status::default)
    }
}

fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Missing(_) => Status::not_found("no such blob"),
        StoreError::Range { .. } => Status::out_of_range("past the end"),
        _ => Status::invalid_argument(error.to_string()),
    }
}

fn digest(message: Option<reapi::Digest>) -> Result<Digest, Status> {
    Digest::from_proto(&message.unwrap_or_default(), FUNCTION)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

#[async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        self.begin("capabilities", request.metadata()).await?;
        let zstd = self.0.behaviour.zstd.then_some(Compressor::Zstd.to_proto() as i32);
        let mut answer = Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(reapi::CacheCapabilities {
                digest_functions: vec![FUNCTION.to_proto() as i32],
                max_batch_total_size_bytes: self.0.behaviour.batch_bytes_max,
                supported_compressors: zstd.into_iter().collect(),
                supported_batch_update_compressors: zstd.into_iter().collect(),
                ..Default::default()
            }),
            ..Default::default()
        });
        if self.0.behaviour.no_workers {
            answer.metadata_mut().insert("castwork-workers", "none".parse().unwrap());
        }
        Ok(answer)
    }
}

#[async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        self.begin("find_missing", request.metadata()).await?;
        let asked = request.into_inner().blob_digests.into_iter();
        let asked = asked.map(|message| digest(Some(message))).collect::<Result<Vec<_>, _>>()?;
        let missing = self.0.blobs.find_missing(&asked).await.map_err(|error| status(&error))?;
        // Twice, as a real server does.
        let missing_blob_digests = missing.iter().chain(&missing).map(Digest::to_proto).collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        self.begin("batch_update", request.metadata()).await?;
        let mut responses = Vec::new();
        for request in request.into_inner().requests {
            let named = digest(request.digest.clone())?;
            let data = match Compressor::from_proto(request.compressor).unwrap() {
                Compressor::Identity => stream_of(request.data),
                Compressor::Zstd => decompress(stream_of(request.data), named.size_bytes()),
            };
            let status = match self.0.behaviour.in_batches {
                Some(Code::Ok) => continue,
                Some(code) => Some(rpc::Status { code: code as i32, ..Default::default() }),
                None => {
                    self.0.blobs.put(&named, data).await.map_err(|error| status(&error))?;
                    self.ok()
                }
            };
            responses.push(batch_update_blobs_response::Response { digest: request.digest, status });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        self.begin("batch_read", request.metadata()).await?;
        let request = request.into_inner();
        let packs = request.acceptable_compressors.contains(&(Compressor::Zstd.to_proto() as i32));
        let mut responses = Vec::new();
        for message in request.digests {
            let mut response =
                batch_read_blobs_response::Response { digest: Some(message.clone()), ..Default::default() };
            match (self.0.behaviour.in_batches, self.0.blobs.get_bytes(&digest(Some(message))?)) {
                (Some(Code::Ok), _) => continue,
                (Some(code), _) => {
                    response.status = Some(rpc::Status { code: code as i32, ..Default::default() });
                }
                (None, None) => {
                    response.status = Some(rpc::Status { code: Code::NotFound as i32, ..Default::default() });
                }
                (None, Some(data)) => {
                    let data = self.spoiled(data);
                    response.status = self.ok();
                    response.data = if packs {
                        response.compressor = Compressor::Zstd.to_proto() as i32;
                        collect(compress(stream_of(data)), u64::MAX).await.unwrap()
                    } else {
                        data
                    };
                }
            }
            responses.push(response);
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        _: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type GetChunkMappingStream = BoxStream<'static, Result<reapi::GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

#[async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.begin("read", request.metadata()).await?;
        let request = request.into_inner();
        let name = ReadName::parse(&request.resource_name, FUNCTION)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let range = ByteRange {
            offset: u64::try_from(request.read_offset).unwrap(),
            limit: u64::try_from(request.read_limit).ok().filter(|limit| *limit > 0),
        };
        let data = self.0.blobs.get(&name.digest, range).await.map_err(|error| status(&error))?;
        let data = self.spoiled(collect(data, u64::MAX).await.unwrap());
        let data = if self.has(Fault::Short) { data.slice(..data.len() / 2) } else { data };
        let data = match name.compressor {
            Compressor::Identity => data,
            Compressor::Zstd => collect(compress(stream_of(data)), u64::MAX).await.unwrap(),
        };
        let pieces: Vec<_> = data
            .chunks(100_000)
            .map(|piece| Ok(ReadResponse { data: Bytes::copy_from_slice(piece) }))
            .collect();
        Ok(Response::new(futures::stream::iter(pieces).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        self.begin("write", request.metadata()).await?;
        let mut messages = request.into_inner();
        let first = messages.try_next().await?.ok_or_else(|| Status::invalid_argument("no message"))?;
        let name = WriteName::parse(&first.resource_name, FUNCTION)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.0.writes.lock().unwrap().push((first.resource_name.clone(), first.data.len()));
        if let Some(committed_size) = self.0.behaviour.early {
            return Ok(Response::new(WriteResponse { committed_size }));
        }
        let (mut data, mut finished) = (first.data.to_vec(), first.finish_write);
        while let Some(message) = messages.try_next().await? {
            assert!(!finished, "nothing comes after the end");
            assert_eq!(message.write_offset, i64::try_from(data.len()).unwrap());
            self.0.writes.lock().unwrap().push((message.resource_name, message.data.len()));
            data.extend_from_slice(&message.data);
            finished = message.finish_write;
        }
        let committed_size = i64::try_from(data.len()).unwrap();
        if finished {
            let plain = match name.compressor {
                Compressor::Identity => stream_of(data.into()),
                Compressor::Zstd => decompress(stream_of(data.into()), name.digest.size_bytes()),
            };
            self.0.blobs.put(&name.digest, plain).await.map_err(|error| status(&error))?;
        }
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

#[async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        self.begin("get_result", request.metadata()).await?;
        let request = request.into_inner();
        let results = self.0.results.lock().unwrap();
        let result = results.get(&key(&request.instance_name, request.action_digest));
        result.cloned().map(Response::new).ok_or_else(|| Status::not_found("no such result"))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        self.begin("update_result", request.metadata()).await?;
        let request = request.into_inner();
        let result = request.action_result.unwrap();
        let key = key(&request.instance_name, request.action_digest);
        self.0.results.lock().unwrap().insert(key, result.clone());
        Ok(Response::new(result))
    }
}

fn key(instance: &str, action: Option<reapi::Digest>) -> Bytes {
    format!("{instance}|{}", action.unwrap().hash).into()
}
