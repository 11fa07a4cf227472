//! [`Refusal`]: why the queue itself ends something.

use std::sync::Arc;

/// A decision of the queue against an operation or a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit is reached.
    #[error("no more than {max} {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Nobody can run it, as there is nobody.
    #[error("no worker has attached")]
    NoWorker,
    /// Nobody offers what it requires.
    #[error("{0}")]
    NoMatch(String),
    /// Workers failed it too often.
    #[error("given up after {attempts} attempts: {cause}")]
    GivenUp {
        /// How often it was tried.
        attempts: usize,
        /// How the last attempt failed.
        cause: String,
    },
    /// The client said so.
    #[error("cancelled by the client")]
    Cancelled,
    /// An operator said so, and why.
    #[error("stopped by an operator: {0}")]
    Stopped(Arc<str>),
    /// The clients went away and did not come back.
    #[error("cancelled, as nobody waited for it any more")]
    Abandoned,
    /// The worker has a newer connection.
    #[error("replaced by a newer connection of the same worker")]
    Replaced,
    /// The worker said nothing for too long.
    #[error("nothing heard for three heartbeat intervals")]
    Silent,
}
