//! A scheduler that a test drives by hand: what it grants and hears is up to the test, and its CAS
//! is a memory store. The real one can't be made to lose connections at will.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use castwork_cas::store::{collect, stream_of};
use castwork_cas::{
    BlobStore, ByteRange, Digest, DigestFunction, MemoryBlobs, ReadName, StoreError, WriteName,
};
use castwork_proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use castwork_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use castwork_proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use castwork_proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use castwork_proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response};
use castwork_proto::worker::scheduler_message::Message as Says;
use castwork_proto::worker::worker_message::Message as Heard;
use castwork_proto::worker::workers_server::{Workers, WorkersServer};
use castwork_proto::worker::{
    Condition, Hello, Outcome, OutcomeKept, Progress, SchedulerMessage, Welcome, WorkerMessage,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The function of everything here.
pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A scheduler on a port of its own.
pub(crate) struct Scheduler {
    pub(crate) address: String,
    pub(crate) blobs: Arc<MemoryBlobs>,
    /// How often each blob was read.
    pub(crate) reads: Arc<Mutex<HashMap<Digest, usize>>>,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

/// One stream of a worker, after the welcome.
pub(crate) struct Session {
    pub(crate) hello: Hello,
    says: mpsc::Sender<Result<SchedulerMessage, Status>>,
    heard: mpsc::Receiver<Heard>,
}

impl Scheduler {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (attached, sessions) = mpsc::channel(8);
        let blobs = Arc::new(MemoryBlobs::new(1 << 30));
        let reads = Arc::default();
        let service = Service { blobs: blobs.clone(), reads: Arc::clone(&reads), attached };
        let incoming = futures::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = Server::builder()
            .add_service(WorkersServer::new(service.clone()))
            .add_service(CapabilitiesServer::new(service.clone()))
            .add_service(
                ContentAddressableStorageServer::new(service.clone()).max_decoding_message_size(16 << 20),
            )
            .add_service(ByteStreamServer::new(service))
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async { server.await.unwrap() });
        Self { address: format!("grpc://{address}"), blobs, reads, sessions, server }
    }

    /// The next stream that a worker opens.
    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(PATIENCE, self.sessions.recv()).await.expect("a worker attaches").unwrap()
    }

    /// Hangs up on a worker, and waits for it to come back.
    pub(crate) async fn session_after(&mut self, lost: Session) -> Session {
        drop(lost);
        self.session().await
    }

    /// Keeps a blob.
    pub(crate) fn put(&self, data: &[u8]) -> Digest {
        let digest = Digest::of(FUNCTION, data);
        self.blobs.put_bytes(&digest, data.to_vec().into()).unwrap();
        digest
    }

    /// A blob that has to be there.
    pub(crate) fn get(&self, digest: Option<&reapi::Digest>) -> Vec<u8> {
        let digest = Digest::from_proto(digest.expect("a digest is set"), FUNCTION).unwrap();
        self.blobs.get_bytes(&digest).unwrap_or_else(|| panic!("`{digest}` was not uploaded")).to_vec()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Session {
    pub(crate) async fn say(&self, message: Says) {
        self.says.send(Ok(SchedulerMessage { message: Some(message) })).await.unwrap();
    }

    /// How the worker says it is, next.
    pub(crate) async fn condition(&mut self) -> Condition {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            match heard.expect("the worker says something") {
                Some(Heard::Condition(condition)) => return condition,
                Some(_) => {}
                None => panic!("the worker has hung up"),
            }
        }
    }

    /// What the worker says next, besides heartbeats and how it is; `None` when it has hung up.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        loop {
            match tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("the worker says something")
            {
                Some(Heard::Heartbeat(_) | Heard::Condition(_)) => {}
                heard => return heard,
            }
        }
    }

    /// Waits for an outcome, without confirming it; the stages before it are returned too.
    pub(crate) async fn outcome(&mut self) -> (Outcome, Vec<i32>) {
        let mut stages = Vec::new();
        loop {
            match self.hear().await {
                Some(Heard::Outcome(outcome)) => return (outcome, stages),
                Some(Heard::Progress(Progress { stage, .. })) => stages.push(stage),
                other => panic!("no outcome but {other:?}"),
            }
        }
    }

    pub(crate) async fn keep(&self, lease_id: &str) {
        self.say(Says::OutcomeKept(OutcomeKept { lease_id: lease_id.to_owned() })).await;
    }
}

#[derive(Clone)]
struct Service {
    blobs: Arc<MemoryBlobs>,
    reads: Arc<Mutex<HashMap<Digest, usize>>>,
    attached: mpsc::Sender<Session>,
}

impl Service {
    fn note_read(&self, digest: Digest) {
        *self.reads.lock().unwrap().entry(digest).or_default() += 1;
    }
}

fn digest(message: Option<&reapi::Digest>) -> Digest {
    Digest::from_proto(message.unwrap(), FUNCTION).unwrap()
}

fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Missing(digest) => Status::not_found(digest.to_string()),
        error => Status::internal(error.to_string()),
    }
}

#[async_trait]
impl Workers for Service {
    type AttachStream = BoxStream<'static, Result<SchedulerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut messages = request.into_inner();
        let Some(Heard::Hello(hello)) = messages.message().await?.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (says, out) = mpsc::channel(64);
        let (into, heard) = mpsc::channel(64);
        let interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let welcome = Says::Welcome(Welcome { heartbeat_interval: interval, version: String::new() });
        says.send(Ok(SchedulerMessage { message: Some(welcome) })).await.unwrap();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if into.send(message.message.unwrap()).await.is_err() {
                    return;
                }
            }
        });
        self.attached.send(Session { hello, says, heard }).await.unwrap();
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(out).boxed()))
    }
}

#[async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        _: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let cache = reapi::CacheCapabilities {
            digest_functions: vec![FUNCTION.to_proto() as i32],
            ..Default::default()
        };
        Ok(Response::new(reapi::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() }))
    }
}

#[async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let asked: Vec<_> =
            request.get_ref().blob_digests.iter().map(|message| digest(Some(message))).collect();
        let missing = self.blobs.find_missing(&asked).await.unwrap();
        let missing_blob_digests = missing.iter().map(Digest::to_proto).collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for request in request.into_inner().requests {
            self.blobs
                .put_bytes(&digest(request.digest.as_ref()), request.data)
                .map_err(|error| status(&error))?;
            responses.push(batch_update_blobs_response::Response {
                digest: request.digest,
                status: Some(castwork_proto::rpc::Status::default()),
            });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for message in request.into_inner().digests {
            let digest = digest(Some(&message));
            self.note_read(digest);
            let data = self.blobs.get_bytes(&digest);
            let code = if data.is_some() { 0 } else { tonic::Code::NotFound as i32 };
            responses.push(batch_read_blobs_response::Response {
                digest: Some(message),
                data: data.unwrap_or_default(),
                status: Some(castwork_proto::rpc::Status { code, ..Default::default() }),
                ..Default::default()
            });
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        _: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }

    type GetChunkMappingStream = BoxStream<'static, Result<reapi::GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }
}

#[async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let name = ReadName::parse(&request.get_ref().resource_name, FUNCTION).unwrap();
        self.note_read(name.digest);
        let data = self.blobs.get(&name.digest, ByteRange::ALL).await.map_err(|error| status(&error))?;
        let data = collect(data, u64::MAX).await.unwrap();
        let pieces = data.chunks(1 << 20).map(|piece| Ok(ReadResponse { data: piece.to_vec().into() }));
        Ok(Response::new(futures::stream::iter(pieces.collect::<Vec<_>>()).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let (mut name, mut data) = (String::new(), Vec::new());
        while let Some(message) = messages.message().await? {
            if name.is_empty() {
                name = message.resource_name;
            }
            data.extend_from_slice(&message.data);
        }
        let name = WriteName::parse(&name, FUNCTION).unwrap();
        let committed_size = i64::try_from(data.len()).unwrap();
        self.blobs.put(&name.digest, stream_of(data.into())).await.map_err(|error| status(&error))?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("workers don't ask for it"))
    }
}
