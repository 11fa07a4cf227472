//! [`Remote`]: another server that speaks REAPI, as a place for blobs and results.
//!
//! Nothing that a server answers is believed: bytes are compared with their digest, and what it should
//! have answered and did not is an error. Every wait is bounded, and what fails because the server could
//! not be reached is tried once more.

mod address;
mod batch;
mod call;
mod capabilities;
mod read;
mod results;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use castwork_proto::bytestream::byte_stream_client::ByteStreamClient;
use castwork_proto::reapi;
use castwork_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use prost::Message as _;
use tokio::sync::OnceCell;
use tonic::metadata::{Ascii, Binary, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

pub use capabilities::Capabilities;

use crate::resource::check_instance_name;
use crate::store::ByteRange;
use crate::{BlobStore, BlobStream, Digest, DigestFunction, StoreError};

/// The largest message that is sent or received, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Where REAPI wants [`reapi::RequestMetadata`].
const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Where W3C Trace Context wants the span that a call is a part of.
const TRACEPARENT: &str = "traceparent";

/// How to reach a server, and as whom.
#[derive(Clone)]
pub struct RemoteConfig {
    /// `grpc://HOST:PORT`; IPv6 addresses in brackets.
    pub address: String,
    /// REAPI instance name; may be empty.
    pub instance: String,
    /// The function of all digests that are asked for.
    pub function: DigestFunction,
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// Sent with every call: who asks, and on behalf of which run.
    pub request_metadata: Option<reapi::RequestMetadata>,
    /// The longest wait for the answer to a call, and in a transfer for the next bytes.
    pub timeout: Duration,
}

impl fmt::Debug for RemoteConfig {
    /// Leaves out the token: this ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, instance, function, timeout, .. } = self;
        write!(f, "{address} instance `{instance}` {} within {timeout:?}", function.name())
    }
}

/// A server that speaks REAPI. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Remote {
    address: Arc<str>,
    instance: Arc<str>,
    function: DigestFunction,
    timeout: Duration,
    channel: Channel,
    capabilities: Arc<OnceCell<Capabilities>>,
    authorization: Option<MetadataValue<Ascii>>,
    request_metadata: Option<MetadataValue<Binary>>,
    traceparent: Option<MetadataValue<Ascii>>,
}

impl Remote {
    /// Prepares to talk to a server, and returns before a connection is made: the first call makes it, and
    /// every call after a loss makes it anew. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Remote`] with `INVALID_ARGUMENT` if the address, the instance name or the token can't
    /// be one.
    pub fn connect_lazy(config: &RemoteConfig) -> Result<Self, StoreError> {
        let address: Arc<str> = config.address.as_str().into();
        let refuse = |step, reason: String| StoreError::Remote {
            step,
            address: address.clone(),
            source: Box::new(Status::invalid_argument(reason)),
        };
        let endpoint = address::endpoint(&config.address, config.timeout)
            .map_err(|reason| refuse("read the address", reason))?;
        check_instance_name(&config.instance)
            .map_err(|error| refuse("read the instance name", error.to_string()))?;
        let authorization = config.token.as_ref().map(|token| format!("Bearer {token}").parse());
        // The error must not show the token.
        let authorization = authorization
            .transpose()
            .map_err(|_| refuse("read the token", "it holds a character that is not ASCII".to_owned()))?;
        Ok(Self {
            instance: config.instance.as_str().into(),
            function: config.function,
            timeout: config.timeout,
            channel: endpoint.connect_lazy(),
            capabilities: Arc::default(),
            authorization,
            request_metadata: config.request_metadata.as_ref().map(encode_metadata),
            traceparent: None,
            address,
        })
    }

    /// Says in words what is wrong with an address; other than [`Remote::connect_lazy`], outside of a runtime too.
    ///
    /// # Errors
    /// What to write instead.
    pub fn check_address(address: &str) -> Result<(), String> {
        address::endpoint(address, Duration::from_secs(1)).map(drop)
    }

    /// The same server on the same connection, with other [`reapi::RequestMetadata`]; for one action.
    #[must_use]
    pub fn with_request_metadata(&self, metadata: &reapi::RequestMetadata) -> Self {
        Self { request_metadata: Some(encode_metadata(metadata)), ..self.clone() }
    }

    /// The same server on the same connection, with calls that are a part of a span, as W3C's `traceparent`
    /// names it; of none, if that can't be a header.
    #[must_use]
    pub fn with_traceparent(&self, traceparent: &str) -> Self {
        Self { traceparent: traceparent.parse().ok(), ..self.clone() }
    }

    /// The same server on the same connection, for digests of another function.
    #[must_use]
    pub fn with_function(&self, function: DigestFunction) -> Self {
        Self { function, capabilities: Arc::default(), ..self.clone() }
    }

    /// The connection, for services that are not about content.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The address as it was configured.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// REAPI instance name; may be empty.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The function of all digests.
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// Makes a request of a message: adds who asks ([`reapi::RequestMetadata`]) and the bearer token.
    pub fn with_metadata<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.request_metadata {
            request.metadata_mut().insert_bin(REQUEST_METADATA, value.clone());
        }
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        if let Some(value) = &self.traceparent {
            request.metadata_mut().insert(TRACEPARENT, value.clone());
        }
        request
    }

    fn blobs(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn streams(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn encode_metadata(metadata: &reapi::RequestMetadata) -> MetadataValue<Binary> {
    MetadataValue::from_bytes(&metadata.encode_to_vec())
}

/// Blobs of this server's instance. What is read whole has been compared with its digest; parts, as they
/// can't be, have the length they should.
#[async_trait]
impl BlobStore for Remote {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.ask_missing(digests).await
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        self.read(digest, range).await
    }

    async fn put(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        self.write(digest, data).await
    }
}
