//! [`Turns`]: how many streams there are at a time, and which of them have to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;

/// How long a stream may stand still while others wait for its turn.
const STILL_MAX: Duration = Duration::from_secs(5);

/// Turns for as many streams as there may be. Cheap to clone.
#[derive(Clone)]
pub(super) struct Turns {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// The turn of one stream, for as long as it lives.
pub(super) struct Turn {
    waiting: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    pub(super) fn new(streams_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(streams_max)), waiting: Arc::default() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there was none for `wait`.
    pub(super) async fn take(&self, wait: Duration) -> Result<Turn, Status> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(wait, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { waiting: Arc::clone(&self.waiting), _permit: permit }),
            _ => Err(Status::unavailable("the server has as many streams as it takes; try again")),
        }
    }
}

impl Turn {
    /// Waits for the other side of the stream, but not for ever: `None` if it did nothing for `still_max`,
    /// or for [`STILL_MAX`] while somebody waits for a turn.
    pub(super) async fn patiently<T>(
        &self,
        still_max: Duration,
        other_side: impl Future<Output = T>,
    ) -> Option<T> {
        let begin = Instant::now();
        let mut other_side = std::pin::pin!(other_side);
        loop {
            let step = STILL_MAX.min(still_max.saturating_sub(begin.elapsed()));
            if let Ok(value) = tokio::time::timeout(step, &mut other_side).await {
                return Some(value);
            }
            if begin.elapsed() >= still_max || self.waiting.load(Ordering::Relaxed) > 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_still_makes_room_for_one_that_waits() {
        let turns = Turns::new(1);
        let first = turns.take(Duration::from_secs(1)).await.unwrap();
        let still =
            tokio::spawn(async move { first.patiently(Duration::from_secs(60), pending::<()>()).await });
        assert!(turns.take(Duration::from_secs(15)).await.is_ok());
        assert_eq!(still.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_stand_still_for_long_while_nobody_waits() {
        let turns = Turns::new(1);
        let first = turns.take(Duration::from_secs(1)).await.unwrap();
        let slow = tokio::time::sleep(Duration::from_secs(50));
        assert!(first.patiently(Duration::from_secs(60), slow).await.is_some());
        assert!(first.patiently(Duration::from_secs(60), pending::<()>()).await.is_none());
        assert!(turns.take(Duration::from_millis(1)).await.is_err());
    }
}
