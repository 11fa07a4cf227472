//! [`Objects`]: an object store, or something that can be used like one, as a place for blobs and results.
//!
//! One URL says which: `s3://`, `gs://`, `azblob://`, `webdav+http://`, `redis://`, `gha:`. Every blob is an object
//! of its own, compressed, under a name made of its digest; there is no index and nothing to keep in step, so any
//! number of programs may share a bucket, and whatever is removed from it by age is simply missing.
//!
//! What a bucket holds is believed no more than what a server answers: bytes are compared with their digest, results
//! carry a checksum. Every wait is bounded, and what fails for a moment is tried once more.

mod address;
mod blobs;
mod call;
mod name;
mod results;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opendal::Operator;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::StoreError;

/// An object store. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Objects {
    operator: Operator,
    /// As it may be shown: without credentials.
    address: Arc<str>,
    /// What must not be shown, whatever the other side answers.
    secrets: Arc<[String]>,
    /// The longest wait for an answer, and in a transfer for the next bytes.
    timeout: Duration,
    is_writable: bool,
    /// A permit for each connection that may be in use.
    calls: Arc<Semaphore>,
    /// A permit for each MiB that blobs may take that are sent whole.
    whole: Arc<Semaphore>,
}

/// Connections in use at once, of all clones together: each is a socket.
const CALLS_MAX: usize = 128;

impl Objects {
    /// The schemes of the URLs that [`Objects::open`] reads, for messages.
    pub const SCHEMES: &'static [&'static str] =
        &["s3", "gs", "azblob", "webdav+http", "webdav+https", "redis", "rediss", "gha"];

    /// The most bytes of a result that is read, with all that is around it.
    pub const RESULT_BYTES_MAX: u64 = 16 << 20;

    /// Whether a URL is one of an object store, by its scheme.
    pub fn is_address(url: &str) -> bool {
        url.split_once(':').is_some_and(|(scheme, _)| Self::SCHEMES.contains(&scheme))
    }

    /// Prepares to use the object store that a URL names, and returns before a connection is made. `timeout` bounds
    /// every answer, and in a transfer every wait for the next bytes.
    ///
    /// Credentials come from the environment, under the names that users of the service know; see the operator's
    /// guide for all of them.
    ///
    /// # Errors
    /// [`StoreError::Remote`] with `INVALID_ARGUMENT`: what is wrong with the URL, or which credential is missing.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, StoreError> {
        Self::open_with(url, timeout, &|name| std::env::var(name).ok())
    }

    /// As [`Objects::open`], with an environment that is given.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub fn open_with(
        url: &str,
        timeout: Duration,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let place = address::open(url, environment).map_err(|reason| StoreError::Remote {
            step: "read the address",
            address: address::shown(url).into(),
            source: Box::new(Status::invalid_argument(reason)),
        })?;
        Ok(Self {
            operator: place.operator,
            address: address::shown(url).into(),
            secrets: place.secrets.into(),
            timeout,
            is_writable: true,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            whole: Arc::new(Semaphore::new(blobs::WHOLE_MIB_MAX)),
        })
    }

    /// The same store, in which nothing is ever changed: an object that is wrong stays, too. Who writes nevertheless is
    /// refused.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { is_writable: false, ..self }
    }

    /// The same store with the same connections, and another bound on every wait.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// A URL as it may be shown: without credentials and options.
    pub fn shown(url: &str) -> String {
        address::shown(url)
    }

    /// The URL as it may be shown: without credentials and options.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {:?}", self.address, self.timeout)
    }
}
