//! [`Remotes`]: the scheduler's CAS, one handle for each instance and digest function.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use castwork_cas::remote::{Remote, RemoteConfig};
use castwork_cas::{DigestFunction, StoreError};
use castwork_proto::reapi::{RequestMetadata, ToolDetails};
use castwork_proto::worker::Lease;

/// Longest wait for an answer, and for the next bytes of a transfer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Most handles kept; beyond that, all are forgotten and made anew when asked for.
const KEPT_MAX: usize = 64;

type Key = (Arc<str>, DigestFunction);

/// Handles to one server; all content of an action comes from and goes to its lease's instance.
#[derive(Debug)]
pub(crate) struct Remotes {
    address: String,
    kept: Mutex<HashMap<Key, Kept>>,
}

/// Says nothing about itself.
#[derive(Clone)]
struct Kept(Remote);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remotes {
    /// Handles to the server at `grpc://HOST:PORT`; connects to nothing yet.
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), kept: Mutex::default() }
    }

    /// The handle for a lease; its calls say which build they belong to.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if address or instance name can't be one.
    pub(crate) fn for_lease(&self, lease: &Lease, function: DigestFunction) -> Result<Remote, StoreError> {
        let remote = self.get(&lease.instance_name, function)?;
        Ok(match &lease.request_metadata {
            Some(metadata) => {
                // It is we who ask, for a client's sake.
                let tool_details = Some(ToolDetails {
                    tool_name: "castwork-worker".to_owned(),
                    tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                });
                remote.with_request_metadata(&RequestMetadata { tool_details, ..metadata.clone() })
            }
            None => remote,
        })
    }

    /// The handle for an instance. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Remotes::for_lease`].
    pub(crate) fn get(&self, instance: &str, function: DigestFunction) -> Result<Remote, StoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::from(instance), function);
        if let Some(Kept(remote)) = kept.get(&key) {
            return Ok(remote.clone());
        }
        let remote = Remote::connect_lazy(&RemoteConfig {
            address: self.address.clone(),
            instance: instance.to_owned(),
            function,
            token: None,
            request_metadata: None,
            timeout: TIMEOUT,
        })?;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Kept(remote.clone()));
        Ok(remote)
    }
}
