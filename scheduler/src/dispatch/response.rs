//! `ExecuteResponse`s that are no result of a run: refusals, and what is wrong with a request.

use std::sync::Arc;

use castwork_cas::{Digest, StoreError};
use castwork_proto::reapi::{ActionResult, ExecuteResponse};
use castwork_proto::rpc::{self, PreconditionFailure, precondition_failure::Violation};
use prost_types::Any;
use tonic::Code;

use crate::front::errors::to_rpc_status;
use crate::queue::{Ending, Refusal, Report, Response};

/// Missing blobs that one answer names, at most. The client learns of further ones when it asks
/// again.
const VIOLATIONS_MAX: usize = 10_000;

/// Siso recognises an action's timeout by this text alone.
const TIMEOUT_TEXT: &str = "execution timeout exceeded";

/// A status without details.
pub(super) fn status(code: Code, message: impl Into<String>) -> rpc::Status {
    rpc::Status { code: code as i32, message: message.into(), details: Vec::new() }
}

/// An answer without a result.
pub(super) fn failed(status: rpc::Status) -> Response {
    Arc::new(ExecuteResponse { status: Some(status), ..Default::default() })
}

/// An answer from the action cache.
pub(super) fn cached(result: ActionResult) -> Response {
    let status = Some(status(Code::Ok, ""));
    Arc::new(ExecuteResponse { result: Some(result), cached_result: true, status, ..Default::default() })
}

/// The answer if the store failed.
pub(super) fn store_failed(error: StoreError) -> rpc::Status {
    to_rpc_status(error)
}

/// `FAILED_PRECONDITION` with all that is missing in one detail, which is what has clients upload
/// it and ask again.
pub(super) fn missing(digests: &[Digest]) -> rpc::Status {
    let violation = |digest: &Digest| Violation {
        r#type: "MISSING".to_owned(),
        subject: subject(digest),
        description: String::new(),
    };
    let violations = digests.iter().take(VIOLATIONS_MAX).map(violation).collect();
    let detail =
        Any::from_msg(&PreconditionFailure { violations }).expect("a message encodes into a growing buffer");
    rpc::Status {
        code: Code::FailedPrecondition as i32,
        message: format!("{} blobs of the action are missing", digests.len()),
        details: vec![detail],
    }
}

/// A missing blob as REAPI names it: never with an instance.
fn subject(digest: &Digest) -> String {
    let function = digest.function();
    if function.is_named_in_resources() {
        format!("blobs/{}/{digest}", function.name())
    } else {
        format!("blobs/{digest}")
    }
}

/// What clients get to see of an operation's end.
pub(crate) fn response_of(ending: &Ending) -> Response {
    match ending {
        Ending::Answered(response) => Arc::clone(response),
        Ending::Refused(refusal) => failed(status(code_of(refusal), refusal.to_string())),
    }
}

/// The code of a decision of the queue.
pub(crate) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Full { .. } => Code::ResourceExhausted,
        Refusal::NoWorker | Refusal::NoMatch(_) => Code::FailedPrecondition,
        Refusal::GivenUp { .. } | Refusal::Silent => Code::Unavailable,
        Refusal::Cancelled | Refusal::Stopped(_) | Refusal::Abandoned => Code::Cancelled,
        Refusal::Replaced => Code::Aborted,
    }
}

/// A code as gRPC names it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Unknown => "UNKNOWN",
    }
}

/// Reads how a lease ended from what the worker sent.
pub(crate) fn report_of(outcome: castwork_proto::worker::Outcome) -> Report {
    let out_of_memory = outcome.out_of_memory;
    let mut status = outcome.status.unwrap_or_default();
    match Code::from(status.code) {
        Code::Ok if outcome.result.is_none() => Report::Retry("the worker sent no result".to_owned()),
        // Of these the action is innocent; another worker may do better.
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Aborted | Code::Cancelled => {
            Report::Retry(format!("the worker failed: {}", status.message))
        }
        code => {
            if code == Code::DeadlineExceeded && !status.message.contains(TIMEOUT_TEXT) {
                status.message = format!("{TIMEOUT_TEXT}: {}", status.message);
            }
            // With OK, what the worker has to say (`the command was killed by signal 9`) is for people.
            let message = if code == Code::Ok { std::mem::take(&mut status.message) } else { String::new() };
            let result = outcome.result;
            let status = Some(status);
            let response = Arc::new(ExecuteResponse { result, status, message, ..Default::default() });
            if out_of_memory { Report::OutOfMemory(response) } else { Report::Final(response) }
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;
    use castwork_proto::worker::Outcome;

    use super::*;

    fn outcome(code: Code, result: Option<ActionResult>) -> Outcome {
        Outcome { status: Some(status(code, "it was so")), result, ..Outcome::default() }
    }

    #[test]
    fn all_missing_blobs_are_in_one_detail_that_clients_can_read() {
        let sha = Digest::of(DigestFunction::Sha256, b"a");
        let blake = Digest::of(DigestFunction::Blake3, b"b");
        let status = missing(&[sha, blake]);
        assert_eq!(status.code, Code::FailedPrecondition as i32);
        let [detail] = &status.details[..] else { panic!("exactly one detail") };
        assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
        let failure: PreconditionFailure = detail.to_msg().unwrap();
        let subjects: Vec<_> =
            failure.violations.iter().map(|violation| violation.subject.as_str()).collect();
        assert_eq!(subjects, [format!("blobs/{sha}"), format!("blobs/blake3/{blake}")]);
        assert!(failure.violations.iter().all(|violation| violation.r#type == "MISSING"));
    }

    #[test]
    fn a_timeout_can_be_told_from_other_deadlines() {
        let Report::Final(response) = report_of(outcome(Code::DeadlineExceeded, None)) else {
            panic!("a timeout is the action's own")
        };
        assert_eq!(response.status.as_ref().unwrap().message, "execution timeout exceeded: it was so");
    }

    #[test]
    fn what_a_worker_says_of_a_command_that_ran_reaches_people() {
        let ended = report_of(outcome(Code::Ok, Some(ActionResult::default())));
        let Report::Final(response) = ended else { panic!("the command ran") };
        assert_eq!(response.message, "it was so");
        assert_eq!(response.status.as_ref().unwrap().message, "");
    }

    #[test]
    fn faults_of_a_worker_are_tried_elsewhere_and_others_are_not() {
        for code in [Code::Unavailable, Code::Internal, Code::Unknown] {
            assert!(matches!(report_of(outcome(code, None)), Report::Retry(_)), "{code:?}");
        }
        assert!(matches!(report_of(outcome(Code::Ok, None)), Report::Retry(_)), "it forgot the result");
        for code in [Code::FailedPrecondition, Code::InvalidArgument, Code::ResourceExhausted] {
            assert!(matches!(report_of(outcome(code, None)), Report::Final(_)), "{code:?}");
        }
        assert!(matches!(report_of(outcome(Code::Ok, Some(ActionResult::default()))), Report::Final(_)));
    }
}
