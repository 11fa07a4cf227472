//! A server, and clients.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::bytestream::{ReadRequest, WriteRequest};
use castwork_proto::reapi;
use castwork_proto::reapi::action_cache_client::ActionCacheClient;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_scheduler::config::{Args, Config};
use castwork_scheduler::dispatch;
use castwork_scheduler::front::limits::Limits;
use castwork_scheduler::serve::Server;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// The function as messages have it; 0 leaves it to the server.
pub(crate) const UNSET: i32 = 0;

/// An instance whose unset digest function is BLAKE3, and one with the usual.
pub(crate) const INSTANCES: &str = "[[instance]]\nname = \"blake\"\ndigest-function = \"blake3\"\n\
    [[instance]]\nname = \"team/main\"\n";

/// A server in this process, over a store in a temporary folder.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
    pub(crate) folder: Arc<TempDir>,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| (), |_| ()).await
    }

    pub(crate) async fn start_with(
        change_args: impl FnOnce(&mut Args),
        change_limits: impl FnOnce(&mut Limits),
    ) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), change_args, change_limits).await
    }

    /// With the instances that `text` configures instead of the usual ones.
    pub(crate) async fn start_in_instance(text: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let file = folder.path().join("own.toml");
        std::fs::write(&file, text).unwrap();
        Self::start_in(folder, |args| args.config = Some(file), |_| ()).await
    }

    async fn start_in(
        folder: Arc<TempDir>,
        change_args: impl FnOnce(&mut Args),
        change_limits: impl FnOnce(&mut Limits),
    ) -> Self {
        let file = folder.path().join("castwork.toml");
        std::fs::write(&file, INSTANCES).unwrap();
        let mut args = args(&folder.path().join("data"));
        args.config = Some(file);
        change_args(&mut args);
        let config = Config::load(args).unwrap();
        let mut limits = Limits { blob_bytes_max: config.bytes_max / 2, ..Limits::default() };
        change_limits(&mut limits);
        let server = Server::start_with(&config, limits, dispatch::Limits::default()).await.unwrap();
        let channel = connect(&server.grpc_address().to_string()).await;
        Self { server, channel, folder }
    }

    /// Another life of the server over the same store.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    pub(crate) async fn restart_with(self, change_args: impl FnOnce(&mut Args)) -> Self {
        drop(self.channel);
        self.server.shutdown().await;
        Self::start_in(self.folder, change_args, |_| ()).await
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    pub(crate) fn bytestream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    pub(crate) fn results(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    /// Uploads a blob in a batch.
    pub(crate) async fn put(&self, data: impl Into<Bytes>) -> Digest {
        self.put_as(SHA256, data).await
    }

    pub(crate) async fn put_as(&self, function: DigestFunction, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::of(function, &data);
        let statuses = self.update(function.to_proto() as i32, vec![item(&digest, data)]).await.unwrap();
        assert_eq!(statuses, [0]);
        digest
    }

    /// The codes of `BatchUpdateBlobs`.
    pub(crate) async fn update(
        &self,
        digest_function: i32,
        requests: Vec<reapi::batch_update_blobs_request::Request>,
    ) -> Result<Vec<i32>, Status> {
        let request = reapi::BatchUpdateBlobsRequest { requests, digest_function, ..Default::default() };
        let responses = self.cas().batch_update_blobs(request).await?.into_inner().responses;
        Ok(responses.into_iter().map(|response| response.status.expect("it is always set").code).collect())
    }

    /// What `FindMissingBlobs` says.
    pub(crate) async fn missing(
        &self,
        digest_function: i32,
        blob_digests: Vec<reapi::Digest>,
    ) -> Result<Vec<reapi::Digest>, Status> {
        let request = reapi::FindMissingBlobsRequest { blob_digests, digest_function, ..Default::default() };
        Ok(self.cas().find_missing_blobs(request).await?.into_inner().missing_blob_digests)
    }

    pub(crate) async fn has(&self, digest: &Digest) -> bool {
        let function = digest.function().to_proto() as i32;
        self.missing(function, vec![digest.to_proto()]).await.unwrap().is_empty()
    }

    /// Everything that `Read` sends.
    pub(crate) async fn read(&self, resource_name: &str, offset: i64, limit: i64) -> Result<Bytes, Status> {
        let request =
            ReadRequest { resource_name: resource_name.to_owned(), read_offset: offset, read_limit: limit };
        let mut stream = self.bytestream().read(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(response) = stream.message().await? {
            assert!(!response.data.is_empty(), "some clients take an empty message for the end");
            all.extend_from_slice(&response.data);
        }
        Ok(all.into())
    }

    /// What `Write` commits.
    pub(crate) async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let response = self.bytestream().write(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().committed_size)
    }
}

/// The flags of a server with its data in `folder`.
pub(crate) fn args(folder: &Path) -> Args {
    Args {
        listen: Some("127.0.0.1:0".to_owned()),
        http_listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(folder.display().to_string()),
        max_size: Some("1GB".to_owned()),
        ..Args::default()
    }
}

pub(crate) async fn connect(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A blob to upload in a batch.
pub(crate) fn item(digest: &Digest, data: Bytes) -> reapi::batch_update_blobs_request::Request {
    reapi::batch_update_blobs_request::Request { digest: Some(digest.to_proto()), data, compressor: 0 }
}

pub(crate) fn write_name(id: &str, digest: &Digest) -> String {
    format!("uploads/{id}/blobs/{digest}")
}

/// The messages of an upload in pieces of `piece` bytes, the last one with `finish_write`.
pub(crate) fn pieces(name: &str, data: &Bytes, piece: usize) -> Vec<WriteRequest> {
    let count = data.len().div_ceil(piece).max(1);
    let message = |index: usize| {
        let start = index * piece;
        WriteRequest {
            resource_name: if index == 0 { name.to_owned() } else { String::new() },
            write_offset: start as i64,
            finish_write: index + 1 == count,
            data: data.slice(start..data.len().min(start + piece)),
        }
    };
    (0..count).map(message).collect()
}

/// Says that a test is left out, and why; where all have to run, that is a failure.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    assert!(std::env::var_os("CASTWORK_TESTS_MUST_RUN").is_none(), "`{test}` has to run here, but {reason}");
    let Some(list) = std::env::var_os("CASTWORK_TESTS_SKIPPED") else {
        return;
    };
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    list.write_all(format!("{test}: {reason}\n").as_bytes()).unwrap();
}

/// Bytes that no compression and no other seed has.
pub(crate) fn noise(seed: u32, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}
