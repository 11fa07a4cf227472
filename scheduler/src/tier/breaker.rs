//! [`Breaker`]: whether something that may fail is asked at all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// As many failures in a row open it.
const FAILURES: u32 = 3;

/// How long it then stays open; after that, the next call is a trial.
const OPEN_FOR: Duration = Duration::from_secs(15);

/// Opens after some failures in a row, and closes with the first success.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether nothing is to be asked now.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn succeeded(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// Says whether this failure opened it.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        let opens =
            state.failures >= FAILURES && state.open_until.is_none_or(|until| Instant::now() >= until);
        if opens {
            state.open_until = Some(Instant::now() + OPEN_FOR);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_left_alone_for_a_while_and_then_tried_by_one_call() {
        let breaker = Breaker::default();
        assert!(!breaker.failed() && !breaker.failed() && !breaker.is_open());
        assert!(breaker.failed() && breaker.is_open());
        // Those that were under way fail too; that opens nothing again.
        assert!(!breaker.failed());
        tokio::time::advance(OPEN_FOR).await;
        assert!(!breaker.is_open());
        assert!(breaker.failed() && breaker.is_open());
        tokio::time::advance(OPEN_FOR).await;
        breaker.succeeded();
        assert!(!breaker.failed() && !breaker.is_open());
    }
}
