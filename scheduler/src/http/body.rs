//! [`Upload`]: the body of a request, piece by piece, with patience and a bound.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::answer::Refusal;

/// Bytes of a body without a use that are read all the same, so that the client comes to read its answer.
const UNWANTED_BYTES_MAX: u64 = 4 << 20;

/// How long to wait for the next of those bytes, and for all of them.
const UNWANTED_WAIT: Duration = Duration::from_secs(1);
const UNWANTED_WAIT_IN_ALL: Duration = Duration::from_secs(10);

/// What a client sends.
pub(super) struct Upload {
    stream: BodyDataStream,
    idle_max: Duration,
    bytes_max: u64,
    received_bytes: u64,
}

impl Upload {
    /// A body of at most `bytes_max` bytes, the pieces of which are no further apart than `idle_max`.
    pub(super) fn new(body: Body, bytes_max: u64, idle_max: Duration) -> Self {
        Self { stream: body.into_data_stream(), idle_max, bytes_max, received_bytes: 0 }
    }

    /// The next bytes, as they come; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let next = tokio::time::timeout(self.idle_max, self.stream.next()).await;
        let Some(data) = next.map_err(|_| Refusal::Silent)? else { return Ok(None) };
        let data = data.map_err(Refusal::BrokenOff)?;
        self.received_bytes += data.len() as u64;
        if self.received_bytes > self.bytes_max {
            return Err(Refusal::TooLarge(self.bytes_max));
        }
        Ok(Some(data))
    }

    /// Gathers at least `bytes` bytes, or all that are left.
    pub(super) async fn gather(&mut self, bytes: usize) -> Result<Bytes, Refusal> {
        let mut gathered = BytesMut::new();
        while gathered.len() < bytes {
            let Some(data) = self.next().await? else { break };
            gathered.extend_from_slice(&data);
        }
        Ok(gathered.freeze())
    }

    /// Refuses a body that is known to be too long before it comes.
    pub(super) fn check(&self, bytes: Option<u64>) -> Result<(), Refusal> {
        if bytes.is_some_and(|bytes| bytes > self.bytes_max) {
            Err(Refusal::TooLarge(self.bytes_max))
        } else {
            Ok(())
        }
    }

    /// Reads on without a use for it, for as long as that makes sense.
    pub(super) async fn discard_unwanted(self) {
        let discard = self.discard(UNWANTED_BYTES_MAX, UNWANTED_WAIT);
        let _ = tokio::time::timeout(UNWANTED_WAIT_IN_ALL, discard).await;
    }

    /// Reads on without a use for it, up to `bytes_max` bytes more, so that the client gets to its answer.
    pub(super) async fn discard(mut self, bytes_max: u64, wait: Duration) {
        let mut discarded = 0;
        while discarded < bytes_max {
            let Ok(Some(Ok(data))) = tokio::time::timeout(wait, self.stream.next()).await else {
                break;
            };
            discarded += data.len() as u64;
        }
    }
}

/// The length that a request states.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
