//! What clients of REAPI send, with nothing in between that would mend, batch or repeat it.

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::bytestream::{ReadRequest, WriteRequest};
use castwork_proto::reapi;
use castwork_proto::reapi::action_cache_client::ActionCacheClient;
use castwork_proto::reapi::batch_update_blobs_request::Request as Update;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use tonic::Status;
use tonic::transport::Channel;

/// Above what a server of ours sends in a message.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// One connection to a server.
pub struct Caller {
    /// Clones share the connection.
    pub channel: Channel,
}

impl Caller {
    /// Connects to `HOST:PORT`, with any scheme in front of it.
    ///
    /// # Panics
    /// If nobody answers there.
    pub async fn connect(address: &str) -> Self {
        let place = address.split_once("://").map_or(address, |(_, place)| place);
        let channel = match Channel::from_shared(format!("http://{place}")) {
            Ok(endpoint) => endpoint.connect().await,
            Err(error) => panic!("`{address}` is no address: {error}"),
        };
        Self { channel: channel.unwrap_or_else(|error| panic!("no server at `{address}`: {error}")) }
    }

    /// The service `ContentAddressableStorage`.
    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The service `ByteStream`.
    pub fn bytestream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    /// The service `ActionCache`.
    pub fn results(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    /// Uploads a blob in a batch, named by SHA-256.
    ///
    /// # Panics
    /// If it is not taken.
    pub async fn put(&self, data: impl Into<Bytes>) -> Digest {
        self.put_as(DigestFunction::Sha256, data).await
    }

    /// Uploads a blob in a batch.
    ///
    /// # Panics
    /// If it is not taken.
    pub async fn put_as(&self, function: DigestFunction, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::of(function, &data);
        let statuses = self.update(function.to_proto() as i32, vec![item(&digest, data)]).await;
        assert_eq!(statuses.expect("batches are taken"), [0]);
        digest
    }

    /// The codes of `BatchUpdateBlobs`, in its order.
    ///
    /// # Errors
    /// That of the whole call.
    ///
    /// # Panics
    /// If a response has no status.
    pub async fn update(&self, digest_function: i32, requests: Vec<Update>) -> Result<Vec<i32>, Status> {
        let request = reapi::BatchUpdateBlobsRequest { requests, digest_function, ..Default::default() };
        let responses = self.cas().batch_update_blobs(request).await?.into_inner().responses;
        Ok(responses.into_iter().map(|response| response.status.expect("it is always set").code).collect())
    }

    /// What `FindMissingBlobs` says.
    ///
    /// # Errors
    /// That of the call.
    pub async fn missing(
        &self,
        digest_function: i32,
        blob_digests: Vec<reapi::Digest>,
    ) -> Result<Vec<reapi::Digest>, Status> {
        let request = reapi::FindMissingBlobsRequest { blob_digests, digest_function, ..Default::default() };
        Ok(self.cas().find_missing_blobs(request).await?.into_inner().missing_blob_digests)
    }

    /// Whether `FindMissingBlobs` knows the blob.
    ///
    /// # Panics
    /// If it can't be asked.
    pub async fn has(&self, digest: &Digest) -> bool {
        let function = digest.function().to_proto() as i32;
        self.missing(function, vec![digest.to_proto()]).await.expect("digests are looked for").is_empty()
    }

    /// Everything that `Read` sends, put together.
    ///
    /// # Errors
    /// That of the call, or that in the middle of the stream.
    ///
    /// # Panics
    /// If a message is empty.
    pub async fn read(&self, resource_name: &str, offset: i64, limit: i64) -> Result<Bytes, Status> {
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

    /// What `Write` commits, in bytes.
    ///
    /// # Errors
    /// That of the call.
    pub async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let response = self.bytestream().write(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().committed_size)
    }
}

/// A blob to upload in a batch.
pub fn item(digest: &Digest, data: Bytes) -> Update {
    Update { digest: Some(digest.to_proto()), data, compressor: 0 }
}

/// The resource name of a plain upload.
pub fn write_name(id: &str, digest: &Digest) -> String {
    format!("uploads/{id}/blobs/{digest}")
}

/// The messages of an upload in pieces of `piece` bytes, the last one with `finish_write`.
pub fn pieces(name: &str, data: &Bytes, piece: usize) -> Vec<WriteRequest> {
    let count = data.len().div_ceil(piece).max(1);
    let message = |index: usize| {
        let start = index * piece;
        WriteRequest {
            resource_name: if index == 0 { name.to_owned() } else { String::new() },
            write_offset: i64::try_from(start).expect("less than the memory"),
            finish_write: index + 1 == count,
            data: data.slice(start..data.len().min(start + piece)),
        }
    };
    (0..count).map(message).collect()
}
