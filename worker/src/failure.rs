//! [`Failure`]: why an action came to no result, sorted by what its client may do about it.

use castwork_cas::merkle::{MerkleError, WalkError};
use castwork_cas::{Digest, DigestError, StoreError};
use castwork_proto::rpc;

use crate::sandbox::SandboxError;

/// Most missing blobs that are named; a client uploads those and asks again.
const MISSING_MAX: usize = 10_000;

/// Why an action came to no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The action can't be run as it stands, anywhere.
    #[error("{0}")]
    Invalid(String),
    /// The input tree is illegal.
    #[error("the input tree is refused")]
    Tree(#[from] MerkleError),
    /// A digest that is none.
    #[error("the digest of {what}")]
    Digest {
        /// Whose digest.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: DigestError,
    },
    /// Something is not as the action needs it; the same again may do elsewhere or later.
    #[error("{0}")]
    Precondition(String),
    /// Inputs are not in the CAS. Never empty.
    #[error("{} blobs are missing from the CAS, `{}` among them", .0.len(), .0[0])]
    Missing(Vec<Digest>),
    /// The worker or the CAS failed: not the action's fault.
    #[error("can't {step}")]
    Store {
        /// What was tried.
        step: &'static str,
        /// What came of it.
        #[source]
        source: StoreError,
    },
    /// The sandbox failed: not the action's fault.
    #[error("the sandbox failed")]
    Sandbox(#[source] SandboxError),
    /// Something on the worker's disk failed: not the action's fault.
    #[error("can't {step}")]
    Disk {
        /// What was tried.
        step: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nobody wants the action any more.
    #[error("cancelled")]
    Cancelled,
    /// A bug.
    #[error("a part of the worker panicked")]
    Panic,
}

impl Failure {
    /// For `map_err`: names what was tried on the disk.
    pub(crate) fn disk(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Disk { step, source }
    }

    /// For `map_err`: names what was tried with a store. A blob that is not there is the client's
    /// to upload, whatever was tried.
    pub(crate) fn store(step: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| match source {
            StoreError::Missing(digest) => Self::Missing(vec![digest]),
            source => Self::Store { step, source },
        }
    }

    /// For `map_err`: what became of the sandbox.
    pub(crate) fn sandbox(error: SandboxError) -> Self {
        match error {
            SandboxError::Cancelled => Self::Cancelled,
            error => Self::Sandbox(error),
        }
    }

    /// The same for a walk through a tree.
    pub(crate) fn walk(step: &'static str) -> impl FnOnce(WalkError) -> Self {
        move |error| match error {
            WalkError::Missing(digests) => Self::Missing(digests),
            WalkError::Refused(source) => Self::Tree(source),
            WalkError::Store(source) => Self::store(step)(source),
        }
    }

    /// What the scheduler is told.
    pub(crate) fn to_status(&self) -> rpc::Status {
        let code = match self {
            Self::Invalid(_) | Self::Tree(_) | Self::Digest { .. } => rpc::Code::InvalidArgument,
            Self::Precondition(_) | Self::Missing(_) => rpc::Code::FailedPrecondition,
            Self::Store { .. } | Self::Sandbox(_) | Self::Disk { .. } => rpc::Code::Unavailable,
            Self::Cancelled => rpc::Code::Cancelled,
            Self::Panic => rpc::Code::Internal,
        };
        let details = match self {
            Self::Missing(digests) => vec![missing_detail(digests)],
            _ => Vec::new(),
        };
        rpc::Status { code: code as i32, message: self.chain(), details }
    }

    /// The message with all its causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// One violation for each blob, in the form that clients upload by (reapi: `PreconditionFailure`).
fn missing_detail(digests: &[Digest]) -> prost_types::Any {
    let violation = |digest: &Digest| rpc::precondition_failure::Violation {
        r#type: "MISSING".to_owned(),
        subject: subject(digest),
        description: String::new(),
    };
    let violations = digests.iter().take(MISSING_MAX).map(violation).collect();
    prost_types::Any::from_msg(&rpc::PreconditionFailure { violations })
        .expect("a message of strings encodes")
}

fn subject(digest: &Digest) -> String {
    if digest.function().is_named_in_resources() {
        return format!("blobs/{}/{digest}", digest.function().name());
    }
    format!("blobs/{digest}")
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn missing_blobs_are_named_one_by_one_as_clients_expect() {
        let sha = Digest::of(DigestFunction::Sha256, b"a");
        let blake = Digest::of(DigestFunction::Blake3, b"b");
        let status = Failure::Missing(vec![sha, blake]).to_status();
        assert_eq!(status.code, 9);
        let [detail] = &status.details[..] else { panic!("one detail") };
        assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
        let failure: rpc::PreconditionFailure = detail.to_msg().unwrap();
        let subjects: Vec<_> =
            failure.violations.iter().map(|v| (v.r#type.as_str(), v.subject.as_str())).collect();
        let (first, second) = (format!("blobs/{sha}"), format!("blobs/blake3/{blake}"));
        assert_eq!(subjects, [("MISSING", first.as_str()), ("MISSING", second.as_str())]);
    }

    #[test]
    fn a_blob_that_a_store_lacks_is_the_clients_to_upload() {
        let digest = Digest::of(DigestFunction::Sha256, b"a");
        let failure = Failure::store("fetch")(StoreError::Missing(digest));
        assert!(matches!(failure, Failure::Missing(digests) if digests == [digest]));
    }
}
