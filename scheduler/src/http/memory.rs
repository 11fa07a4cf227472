//! [`Memory`]: what requests over HTTP may hold in memory together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;

/// Memory is given out in parts of this many bytes.
const UNIT_BYTES: u64 = 64 << 10;

/// What all requests together may hold, in those parts: 128 MiB.
const UNITS: u32 = 2048;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    units: Arc<Semaphore>,
    /// How long a request waits for its part.
    wait: Duration,
}

impl Memory {
    pub(super) fn new(wait: Duration) -> Self {
        Self { units: Arc::new(Semaphore::new(UNITS as usize)), wait }
    }

    /// Waits until there are `bytes` of it, or all that there is.
    pub(super) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(UNITS).clamp(1, UNITS);
        let turn = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(self.wait, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::Busy),
        }
    }
}
