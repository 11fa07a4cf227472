//! [`Room`]: what the requests that are under way may hold in memory together.
//!
//! A request takes room for its messages before they are read ([`super::request_body`]), and for what they take decoded
//! before they are decoded. It gives it back when it has been answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Room is given out in parts of this many bytes.
const UNIT_BYTES: usize = 1 << 10;

/// Calls whose requests are under way, at most; whoever comes then is told to come again.
const CALLS_MAX: usize = 16_384;

tokio::task_local! {
    static TAKEN: Taken;
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    units: Arc<Semaphore>,
    units_max: u32,
    calls: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// How long a request waits for room.
    wait: Duration,
}

/// What one call has taken of the room, until the call and its body are both gone.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    room: Room,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    message: Mutex<Option<OwnedSemaphorePermit>>,
    /// Nothing if there are too many calls.
    call: Option<OwnedSemaphorePermit>,
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    /// For `bytes` of requests; whoever finds none waits for `wait`.
    pub(crate) fn new(bytes: usize, wait: Duration) -> Self {
        let units_max = u32::try_from(bytes / UNIT_BYTES).expect("less than a terabyte");
        Self {
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            waiting: Arc::default(),
            wait,
        }
    }

    /// Begins a call, which has nothing yet.
    pub(super) fn begin(&self) -> Taken {
        let call = Arc::clone(&self.calls).try_acquire_owned().ok();
        Taken { room: self.clone(), held: Arc::new(Held { message: Mutex::default(), call }) }
    }

    /// How many more calls there may be.
    #[cfg(test)]
    pub(super) fn calls_left(&self) -> usize {
        self.calls.available_permits()
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units_max)
    }
}

impl Taken {
    /// Has `call` be done with what it has taken, so that what it decodes is counted too.
    pub(super) fn scope<F: Future>(self, call: F) -> tokio::task::futures::TaskLocalFuture<Self, F> {
        TAKEN.scope(self, call)
    }

    /// Whether there are no more calls than there may be.
    pub(super) fn is_admitted(&self) -> bool {
        self.held.call.is_some()
    }

    /// Whether somebody waits for room.
    pub(super) fn is_waited_for(&self) -> bool {
        self.room.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes room for the next message, in place of that for the one before. Returns whether there was some.
    pub(super) fn try_message(&self, bytes: usize) -> bool {
        let mut message = self.held.message.lock().unwrap_or_else(PoisonError::into_inner);
        *message = None;
        *message = Arc::clone(&self.room.units).try_acquire_many_owned(self.room.units(bytes)).ok();
        message.is_some()
    }

    /// As [`Taken::try_message`], and waits for it.
    pub(super) async fn message(self, bytes: usize) -> Result<(), Status> {
        self.room.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.room.waiting);
        let turn = Arc::clone(&self.room.units).acquire_many_owned(self.room.units(bytes));
        match tokio::time::timeout(self.room.wait, turn).await {
            Ok(Ok(permit)) => {
                *self.held.message.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                Ok(())
            }
            _ => Err(Status::unavailable("the server has as many requests as it takes; try again")),
        }
    }

    /// Gives back what was taken for a message that nobody holds any more.
    pub(super) fn release(&self) {
        *self.held.message.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes more room for the same message. Returns whether there was some.
    fn try_more(&self, bytes: usize) -> bool {
        let more = Arc::clone(&self.room.units).try_acquire_many_owned(self.room.units(bytes));
        let Ok(more) = more else { return false };
        let mut message = self.held.message.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *message {
            Some(message) => message.merge(more),
            None => *message = Some(more),
        }
        true
    }
}

/// What the call of the current task has taken, if there is one.
pub(super) fn current() -> Option<Taken> {
    TAKEN.try_with(Clone::clone).ok()
}

/// Whether the call of the current task may decode a message that takes so much memory besides its bytes; it does,
/// where there is no such call.
pub(crate) fn admit(bytes: usize) -> bool {
    TAKEN.try_with(|taken| taken.try_more(bytes)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_is_given_back_when_the_call_and_its_body_are_gone() {
        let room = Room::new(10 * UNIT_BYTES, Duration::from_secs(15));
        let call = room.begin();
        let body = call.clone();
        assert!(body.try_message(6 * UNIT_BYTES) && body.try_message(7 * UNIT_BYTES));
        let decoded = call.scope(async { [admit(3 * UNIT_BYTES), admit(1)] }).await;
        assert_eq!(decoded, [true, false]);
        let other = room.begin();
        assert!(!other.try_message(1));
        let refused = other.clone().message(1).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        let waits = tokio::spawn(other.clone().message(1));
        while !body.is_waited_for() {
            tokio::task::yield_now().await;
        }
        drop(body);
        waits.await.unwrap().unwrap();
        // Of more than there is, all is enough.
        drop(other);
        assert!(room.begin().try_message(100 * UNIT_BYTES));
        assert!(admit(usize::MAX), "nobody counts what has no call");
    }
}
