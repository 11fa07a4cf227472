//! Waits for a server, as long as it is there.
//!
//! What a server is asked to do may take as long as it takes: a compile that waits in its queue is no failure. A server
//! that stands still says nothing either. So whoever waits asks it, beside that, what costs it nothing to answer.

use std::time::Duration;

use tokio::time::Instant;

use super::TierError;
use super::breaker::Breaker;
use super::contact::Server;

/// How long is waited before the server is asked whether it is there; each further time twice as long.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// How long is waited at most between two questions.
const ASK_AFTER_MAX: Duration = Duration::from_secs(16);

/// How long it may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often is looked whether another process has found the server to be down: then it is asked at once.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for `work`, which the server does.
///
/// # Errors
/// As `work`, and [`TierError::TooLate`] once the server does not even say what it can do.
pub(super) async fn while_there<T>(
    server: &Server,
    breaker: &Breaker,
    work: impl Future<Output = Result<T, TierError>>,
) -> Result<T, TierError> {
    tokio::select! {
        biased;
        ended = work => ended,
        () = silence(server, breaker) => Err(TierError::TooLate { step: "wait for the server" }),
    }
}

/// Ends when the server is silent.
async fn silence(server: &Server, breaker: &Breaker) {
    let mut failures = breaker.failures();
    let mut pause = ASK_AFTER;
    loop {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            tokio::time::sleep(LOOK.min(until - Instant::now())).await;
            let now = breaker.failures();
            let is_risen = now > failures;
            failures = now;
            if is_risen {
                break;
            }
        }
        if is_silent(server).await {
            return;
        }
        pause = (pause * 2).min(ASK_AFTER_MAX);
    }
}

/// Whether a server takes a connection, or seems to, and says nothing. One that refuses it is not there for another reason,
/// of which who waits is told by the connection that he has.
async fn is_silent(server: &Server) -> bool {
    let Ok(remote) = server.connect() else { return false };
    tokio::time::timeout(ANSWER_TIMEOUT, remote.capabilities()).await.is_err()
}
