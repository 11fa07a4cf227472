//! The server that is asked, and what clients do with it.

use std::cell::OnceCell;
use std::env;
use std::fs;

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::bytestream::{ReadRequest, WriteRequest};
use castwork_proto::reapi;
use castwork_proto::reapi::action_cache_client::ActionCacheClient;
use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use castwork_tests::{Farm, Options, skip};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) use crate::raw::call_raw;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// The function as messages have it; 0 leaves it to the server.
pub(crate) const UNSET: i32 = 0;

/// Where the server is that is asked instead of ours.
const ADDRESS: &str = "CASTWORK_CONFORMANCE_ADDRESS";

/// An instance whose unset digest function is BLAKE3, and one with the usual.
const INSTANCES: &str = "[[instance]]\nname = \"blake\"\ndigest-function = \"blake3\"\n\
    [[instance]]\nname = \"team/main\"\n";

/// A server, ours unless another was named.
pub(crate) struct Server {
    pub(crate) channel: Channel,
    own: Option<Own>,
}

struct Own {
    farm: Farm,
    _configuration: TempDir,
}

impl Server {
    /// A server that need not execute anything.
    pub(crate) async fn start() -> Self {
        Self::start_with(0).await
    }

    async fn start_with(workers: usize) -> Self {
        if let Ok(address) = env::var(ADDRESS) {
            return Self { channel: connect(&address).await, own: None };
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("castwork.toml");
        fs::write(&file, INSTANCES).unwrap();
        let scheduler_arguments = vec!["--config".to_owned(), file.display().to_string()];
        let farm = Farm::with(Options { workers, scheduler_arguments, ..Options::default() });
        Self { channel: connect(&farm.address()).await, own: Some(Own { farm, _configuration: folder }) }
    }

    /// A server that executes; `None` if it says that it does not.
    pub(crate) async fn with_a_worker(test: &str) -> Option<Self> {
        let server = Self::start_with(1).await;
        let executes = server.capabilities().await.execution_capabilities.is_some_and(|it| it.exec_enabled);
        if !executes {
            skip(test, "the server executes nothing");
        }
        executes.then_some(server)
    }

    /// A server with the instances `team/main` and `blake`, which only ours can be asked to have.
    pub(crate) async fn with_instances(test: &str) -> Option<Self> {
        if env::var_os(ADDRESS).is_some() {
            skip(test, "the instances of the server are not known");
            return None;
        }
        Some(Self::start().await)
    }

    /// A server that offers what `is_offered` looks for.
    pub(crate) async fn offering(
        test: &str,
        is_offered: impl FnOnce(&reapi::CacheCapabilities) -> bool,
    ) -> Option<Self> {
        let server = Self::start().await;
        let offers = server.capabilities().await.cache_capabilities.is_some_and(|it| is_offered(&it));
        if !offers {
            skip(test, "the server does not offer it");
        }
        offers.then_some(server)
    }

    /// Another life of the server over the same store, after `kill -9`; `None` if it is not ours to end.
    pub(crate) async fn restart(mut self) -> Option<Self> {
        let own = self.own.as_mut()?;
        own.farm.scheduler().kill();
        own.farm.restart_scheduler();
        self.channel = connect(&own.farm.address()).await;
        Some(self)
    }

    pub(crate) async fn capabilities(&self) -> reapi::ServerCapabilities {
        let mut client = CapabilitiesClient::new(self.channel.clone());
        client.get_capabilities(reapi::GetCapabilitiesRequest::default()).await.unwrap().into_inner()
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(32 << 20)
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

    /// The blob, whole.
    pub(crate) async fn blob(&self, digest: &reapi::Digest) -> Bytes {
        self.read(&format!("blobs/{}/{}", digest.hash, digest.size_bytes), 0, 0).await.unwrap()
    }

    /// What `Write` commits.
    pub(crate) async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let response = self.bytestream().write(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().committed_size)
    }
}

async fn connect(address: &str) -> Channel {
    let address = address.split_once("://").map_or(address, |(_, address)| address);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await;
    channel.unwrap_or_else(|error| panic!("no server at `{address}`: {error}"))
}

/// A blob to upload in a batch.
pub(crate) fn item(digest: &Digest, data: Bytes) -> reapi::batch_update_blobs_request::Request {
    reapi::batch_update_blobs_request::Request { digest: Some(digest.to_proto()), data, compressor: 0 }
}

pub(crate) fn write_name(id: &str, digest: &Digest) -> String {
    format!("uploads/{id}/blobs/{digest}")
}

pub(crate) fn write_zstd_name(id: &str, digest: &Digest) -> String {
    format!("uploads/{id}/compressed-blobs/zstd/{digest}")
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

thread_local! {
    /// Each test runs on a thread of its own.
    static SALT: OnceCell<[u8; 16]> = const { OnceCell::new() };
}

/// What no other test, and no other run of this one, has: tests share a server that is not ours.
pub(crate) fn salt() -> String {
    hex::encode(SALT.with(|salt| *salt.get_or_init(|| Uuid::new_v4().into_bytes())))
}

/// Bytes that no compression, no other seed and no other test has.
pub(crate) fn noise(seed: u32, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 64);
    let (salt, mut block) = (salt(), 0_u64);
    while bytes.len() < length {
        let text = format!("{salt} {seed} {block}");
        bytes.extend_from_slice(Digest::of(DigestFunction::Sha512, text.as_bytes()).hash());
        block += 1;
    }
    bytes.truncate(length);
    bytes.into()
}
