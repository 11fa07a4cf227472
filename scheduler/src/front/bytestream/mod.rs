//! `google.bytestream.ByteStream`: blobs of any size, plain or as zstd frames.

mod incoming;
mod read;
mod tee;
mod turns;
mod uploads;
mod write;

use std::pin::Pin;
use std::sync::Arc;

use castwork_cas::resource::{Compressor, ReadName, ResourceName, WriteName};
use castwork_cas::{BlobStore as _, BlobStream, ByteRange, DigestFunction, StoreError};
use castwork_proto::bytestream::byte_stream_server::ByteStream;
use castwork_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use futures::Stream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use self::turns::Turns;
use self::uploads::Uploads;
use super::errors::{bad, to_status, with_cause};
use super::instance::{Instances, clip};
use super::limits::Limits;
use super::outgoing::Outgoing;
use crate::caller::Caller;
use crate::runs::{Asker, Runs};
use crate::store::DiskBlobs;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct ByteStreamService {
    inner: Arc<Inner>,
}

struct Inner {
    instances: Arc<Instances>,
    blobs: DiskBlobs,
    limits: Limits,
    runs: Arc<Runs>,
    uploads: Uploads,
    writers: Turns,
    readers: Turns,
    /// Uploads go on when their call is dropped, to keep what has arrived.
    tasks: TaskTracker,
}

impl ByteStreamService {
    /// Serves `blobs`.
    pub fn new(instances: Arc<Instances>, blobs: DiskBlobs, limits: Limits, runs: Arc<Runs>) -> Self {
        let inner = Inner {
            instances,
            blobs,
            runs,
            uploads: Uploads::new(limits.uploads_kept_max, limits.upload_kept),
            writers: Turns::new(limits.uploads_max),
            readers: Turns::new(limits.downloads_max),
            limits,
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Drops uploads that nobody went on with in time. To be called now and then.
    pub fn sweep(&self) {
        self.inner.uploads.sweep();
    }

    /// Waits for the uploads whose calls have ended to be put away.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Reads a resource name; what it means without a digest function depends on its instance.
    fn name(&self, name: &str) -> Result<ResourceName, Status> {
        let parse = |default| {
            ResourceName::parse(name, default)
                .map_err(|error| bad(format!("resource name `{}`: {}", clip(name), with_cause(&error))))
        };
        let first = parse(DigestFunction::Sha256)?;
        let (ResourceName::Read(ReadName { instance, .. }) | ResourceName::Write(WriteName { instance, .. })) =
            &first;
        let default = self.instances.check(instance)?.function;
        if default == DigestFunction::Sha256 { Ok(first) } else { parse(default) }
    }

    /// A blob's bytes, and how they are yet to be compressed: not at all, if they are kept so.
    async fn open(&self, name: &ReadName, range: ByteRange) -> Result<(BlobStream, Compressor), StoreError> {
        let is_packed = name.compressor == Compressor::Zstd && range == ByteRange::ALL;
        if is_packed && let Some(packed) = self.blobs.get_packed(&name.digest).await? {
            return Ok((packed, Compressor::Identity));
        }
        Ok((self.blobs.get(&name.digest, range).await?, name.compressor))
    }

    fn read_name(&self, name: &str) -> Result<ReadName, Status> {
        match self.name(name)? {
            ResourceName::Read(name) => Ok(name),
            ResourceName::Write(_) => Err(bad(format!("`{}` names an upload", clip(name)))),
        }
    }

    fn write_name(&self, name: &str) -> Result<WriteName, Status> {
        match self.name(name)? {
            ResourceName::Write(name) => {
                self.instances.check(&name.instance)?.may_write(name.digest.function())?;
                Ok(name)
            }
            ResourceName::Read(_) => Err(bad(format!("`{}` names no upload", clip(name)))),
        }
    }
}

#[tonic::async_trait]
impl ByteStream for ByteStreamService {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let inner = &self.inner;
        let asker = Asker::from_headers(request.metadata());
        let request = request.into_inner();
        let name = inner.read_name(&request.resource_name)?;
        let range = read::range(&name, request.read_offset, request.read_limit)?;
        let turn = inner.readers.take(inner.limits.turn_wait).await?;
        let (stream, compressor) = inner.open(&name, range).await.map_err(to_status)?;
        let bytes = name.digest.size_bytes() - range.offset;
        inner.runs.moved(asker.as_ref(), &name.instance, 0, range.limit.map_or(bytes, |it| it.min(bytes)));
        let outgoing = Outgoing::of_call();
        let messages =
            read::responses(stream, compressor, turn, outgoing.clone(), inner.limits.download_idle);
        let mut response = Response::new(messages);
        response.extensions_mut().insert(outgoing);
        Ok(response)
    }

    /// The upload is a task of its own: what has arrived is put away even if the call is dropped.
    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let turn = self.inner.writers.take(self.inner.limits.turn_wait).await?;
        let asker = Asker::from_headers(request.metadata());
        let (inner, messages) = (Arc::clone(&self.inner), request.into_inner());
        let caller = Caller::current();
        let write = async move {
            let (name, committed) = write::write(&inner, messages, turn).await?;
            let bytes = u64::try_from(committed).unwrap_or(0);
            inner.runs.moved(asker.as_ref(), &name.instance, bytes, 0);
            Ok::<_, Status>(committed)
        };
        let task = self.inner.tasks.spawn(caller.scope(write));
        let committed_size = task.await.map_err(|error| {
            tracing::error!(%error, "an upload ended in a panic");
            Status::internal("the upload failed in the server")
        })??;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let name = self.inner.write_name(&request.get_ref().resource_name)?;
        if self.inner.blobs.has_verified(&name.digest).await {
            let committed_size = write::as_size(name.digest.size_bytes());
            return Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: true }));
        }
        let bytes = self.inner.uploads.committed(&name.to_string());
        let bytes = bytes.ok_or_else(|| Status::not_found("nobody has written to this upload"))?;
        let committed_size = write::as_size(bytes);
        Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: false }))
    }
}
