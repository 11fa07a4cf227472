//! [`Breaker`]: whether something that may fail is asked at all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// As many failures in a row open it.
const FAILURES: u32 = 3;

/// Opens after some failures in a row, and closes with the first success.
#[derive(Debug)]
pub(super) struct Breaker {
    /// How long it stays open; after that, one call is a trial, and so on until one succeeds.
    open_for: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while it is open: when the next trial may be.
    trial_at: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(open_for: Duration) -> Self {
        Self { open_for, state: Mutex::default() }
    }

    /// Whether to ask. While it is open that is one call in some time, which has to say what became of it.
    pub(super) fn allows(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        match state.trial_at {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                state.trial_at = Some(now + self.open_for);
                true
            }
        }
    }

    /// Whether it failed, and has not succeeded since.
    pub(super) fn is_open(&self) -> bool {
        self.lock().trial_at.is_some()
    }

    pub(super) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    /// Says whether this failure opened it.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        let opens = state.failures >= FAILURES && state.trial_at.is_none();
        if opens {
            state.trial_at = Some(Instant::now() + self.open_for);
        }
        opens
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_left_alone_for_a_while_and_then_tried_by_one_call() {
        let breaker = Breaker::new(OPEN_FOR);
        assert!(!breaker.failed() && !breaker.failed() && breaker.allows());
        assert!(breaker.failed() && breaker.is_open() && !breaker.allows());
        // Those that were under way fail too; that is nothing new.
        assert!(!breaker.failed());
        tokio::time::advance(OPEN_FOR).await;
        assert!(breaker.allows() && !breaker.allows() && breaker.is_open(), "one trial");
        assert!(!breaker.failed() && !breaker.allows());
        tokio::time::advance(OPEN_FOR).await;
        assert!(breaker.allows());
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.allows() && !breaker.failed());
    }
}
