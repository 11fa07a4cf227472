//! From errors to gRPC codes, in one place.

use castwork_cas::resource::violation_subject;
use castwork_cas::{Digest, DigestError, StoreError};
use castwork_proto::rpc;
use prost::Message as _;
use prost_types::{Any, Duration};
use tonic::{Code, Status};

/// How long a client should wait before it tries a full store again, in seconds.
const RETRY_WHEN_FULL_SECONDS: i64 = 10;

/// The answer to a request that is wrong in itself; trying it again is of no use.
pub fn bad(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// The answer to a digest that is none, or to a function that is not supported.
pub fn bad_digest(error: &DigestError) -> Status {
    bad(error.to_string())
}

/// The gRPC answer to what went wrong in a store. Logs what is our own fault, for it ends here.
pub fn to_status(error: StoreError) -> Status {
    match error {
        StoreError::Missing(_) => Status::not_found(error.to_string()),
        StoreError::Range { .. } => Status::out_of_range(error.to_string()),
        StoreError::Mismatch { .. } | StoreError::TooLarge { .. } | StoreError::Digest(_) => {
            bad(with_cause(&error))
        }
        StoreError::Encoding(_) => bad(with_cause(&error)),
        StoreError::Full { .. } => full(&error),
        StoreError::NotKnown(_) => Status::unavailable(error.to_string()),
        StoreError::Disk { .. } => {
            tracing::error!(error = with_cause(&error), "the store failed");
            Status::internal(error.to_string())
        }
        StoreError::Remote { source, .. } => *source,
    }
}

/// As [`to_status`], for a message that carries its answer in itself.
pub fn to_rpc_status(error: StoreError) -> rpc::Status {
    let status = to_status(error);
    rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() }
}

/// `FAILED_PRECONDITION` that names blobs which have to be uploaded first, as REAPI has it.
pub fn missing_blobs(message: &str, digests: &[Digest]) -> Status {
    let violations = digests
        .iter()
        .map(|digest| rpc::precondition_failure::Violation {
            r#type: "MISSING".to_owned(),
            subject: violation_subject(digest),
            description: String::new(),
        })
        .collect();
    let failure = Any::from_msg(&rpc::PreconditionFailure { violations });
    detailed(Code::FailedPrecondition, message.to_owned(), failure)
}

/// `RESOURCE_EXHAUSTED` with the time after which to try again.
fn full(error: &StoreError) -> Status {
    let delay = Duration { seconds: RETRY_WHEN_FULL_SECONDS, nanos: 0 };
    let retry = Any::from_msg(&rpc::RetryInfo { retry_delay: Some(delay) });
    detailed(Code::ResourceExhausted, with_cause(error), retry)
}

fn detailed(code: Code, message: String, detail: Result<Any, prost::EncodeError>) -> Status {
    let detail = detail.expect("a message encodes into a growing buffer");
    let status = rpc::Status { code: code as i32, message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// The error and its causes, each after a colon.
pub fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn every_store_error_has_the_code_that_clients_act_on() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let other = Digest::of(DigestFunction::Sha256, b"abd");
        let code = |error| to_status(error).code();
        assert_eq!(code(StoreError::Missing(digest)), Code::NotFound);
        assert_eq!(code(StoreError::Range { digest, offset: 9 }), Code::OutOfRange);
        assert_eq!(code(StoreError::Mismatch { expected: digest, got: other.into() }), Code::InvalidArgument);
        assert_eq!(code(StoreError::TooLarge { bytes_max: 3 }), Code::InvalidArgument);
        assert_eq!(code(StoreError::Encoding(io::ErrorKind::InvalidData.into())), Code::InvalidArgument);
        assert_eq!(code(StoreError::NotKnown(digest)), Code::Unavailable);
        let broken = StoreError::Disk { step: "open `x`".to_owned(), source: io::ErrorKind::Other.into() };
        assert_eq!(code(broken), Code::Internal);
    }

    #[test]
    fn a_missing_blob_is_named_as_clients_expect_it() {
        let digest = Digest::of(DigestFunction::Blake3, b"abc");
        let status = missing_blobs("an input is missing", &[digest]);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
        let failure: rpc::PreconditionFailure = details.details[0].to_msg().unwrap();
        assert_eq!(failure.violations[0].r#type, "MISSING");
        assert_eq!(failure.violations[0].subject, format!("blobs/blake3/{digest}"));
    }

    #[test]
    fn a_full_store_says_when_to_try_again() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let status = to_status(StoreError::Full { digest, source: None });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = rpc::Status::decode(status.details()).unwrap();
        let retry: rpc::RetryInfo = details.details[0].to_msg().unwrap();
        assert_eq!(retry.retry_delay.unwrap().seconds, RETRY_WHEN_FULL_SECONDS);
    }
}
