//! Has a server run an action, over lost connections too.

use std::cell::RefCell;
use std::time::Duration;

use castwork_cas::Digest;
use castwork_cas::remote::Remote;
use castwork_proto::longrunning::operations_client::OperationsClient;
use castwork_proto::longrunning::{CancelOperationRequest, Operation, operation};
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::{reapi, rpc};
use prost::Message;
use tonic::{Code, Status, Streaming};

use super::{TierError, code_name};
use crate::action::OBJECT;

/// How often the server is asked again after a connection was lost.
const TRIES: usize = 4;

/// The wait before asking again, doubled each time.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The longest wait for an action, queueing included.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The longest wait for the first word of the server's.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest message taken, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server lacks inputs that it had.
    MissingInputs,
    /// It ended otherwise.
    Ended(Box<Status>),
}

impl Failure {
    /// As an error of the tier.
    pub(super) fn into_error(self) -> TierError {
        let status = match self {
            Self::MissingInputs => Status::failed_precondition("inputs were lost twice"),
            Self::Ended(status) => *status,
        };
        // A server that has no worker for us, or doesn't want us, will be of the same mind in a second.
        let is_lasting = matches!(
            status.code(),
            Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated
        );
        TierError::Execution {
            code: code_name(status.code()),
            message: status.message().to_owned(),
            is_lasting,
        }
    }
}

/// The longest wait for a server to hear that nobody waits any more.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of the operation that an execution is at the server; empty before it has one.
pub(super) type Name = RefCell<String>;

/// Runs an action whose inputs the server has, and notes the name of its operation.
///
/// # Errors
/// [`Failure`].
pub(super) async fn execute(
    remote: &Remote,
    action: &Digest,
    name: &Name,
) -> Result<reapi::ActionResult, Failure> {
    let bounded = tokio::time::timeout(EXECUTION_TIMEOUT, execute_patiently(remote, action, name)).await;
    bounded.unwrap_or_else(|_| Err(ended(Status::deadline_exceeded("the server took too long"))))
}

/// Tells the server that its work is not wanted any more; others who want the same get it. It may have no ear for that.
pub(super) async fn cancel(remote: &Remote, name: &Name) {
    let name = name.take();
    if name.is_empty() {
        return;
    }
    let mut client = OperationsClient::new(remote.channel());
    let request = remote.with_metadata(CancelOperationRequest { name });
    let told = tokio::time::timeout(CANCEL_TIMEOUT, client.cancel_operation(request)).await;
    tracing::debug!(?told, "the server's work is not wanted any more");
}

async fn execute_patiently(
    remote: &Remote,
    action: &Digest,
    name: &Name,
) -> Result<reapi::ActionResult, Failure> {
    let mut pause = BACK_OFF;
    let mut last = Status::unavailable("not asked");
    for _ in 0..TRIES {
        match attempt(remote, action, name).await {
            Err(Failure::Ended(status)) if is_passing(&status, name) => last = *status,
            ended => return ended,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(ended(last))
}

/// Whether asking again may help. An operation that the server doesn't know any more is begun anew.
fn is_passing(status: &Status, name: &Name) -> bool {
    let is_forgotten = status.code() == Code::NotFound && !name.borrow().is_empty();
    if is_forgotten {
        name.take();
    }
    let is_lost = std::error::Error::source(status).is_some();
    is_forgotten || is_lost || matches!(status.code(), Code::Unavailable | Code::Aborted)
}

fn ended(status: Status) -> Failure {
    Failure::Ended(Box::new(status))
}

/// Begins, or goes on waiting for the operation `name`.
async fn attempt(remote: &Remote, action: &Digest, name: &Name) -> Result<reapi::ActionResult, Failure> {
    let known = name.borrow().clone();
    let begun = tokio::time::timeout(BEGIN_TIMEOUT, open(remote, action, known)).await;
    let late = || ended(Status::unavailable("the server does not answer"));
    let mut operations = begun.map_err(|_| late())?.map_err(ended)?;
    let mut is_first = true;
    loop {
        let next = operations.message();
        let operation = if is_first {
            tokio::time::timeout(BEGIN_TIMEOUT, next).await.map_err(|_| late())?
        } else {
            next.await
        };
        is_first = false;
        let Some(operation) = operation.map_err(ended)? else {
            return Err(ended(Status::unavailable("the server hung up before the end")));
        };
        if !operation.name.is_empty() {
            name.replace(operation.name.clone());
        }
        if operation.done {
            return finished(operation);
        }
    }
}

async fn open(remote: &Remote, action: &Digest, name: String) -> Result<Streaming<Operation>, Status> {
    let mut client = ExecutionClient::new(remote.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let answer = if name.is_empty() {
        let request = reapi::ExecuteRequest {
            instance_name: remote.instance().to_owned(),
            action_digest: Some(action.to_proto()),
            digest_function: action.function().to_proto() as i32,
            inline_stdout: true,
            inline_stderr: true,
            inline_output_files: vec![OBJECT.to_owned()],
            ..reapi::ExecuteRequest::default()
        };
        client.execute(remote.with_metadata(request)).await
    } else {
        let request = reapi::WaitExecutionRequest { name };
        client.wait_execution(remote.with_metadata(request)).await
    };
    answer.map(tonic::Response::into_inner)
}

/// Reads how an operation ended.
fn finished(operation: Operation) -> Result<reapi::ActionResult, Failure> {
    let broken = |what: &str| ended(Status::data_loss(what));
    let response = match operation.result {
        Some(operation::Result::Response(response)) => response,
        Some(operation::Result::Error(status)) => return Err(refused(&status)),
        None => return Err(broken("an operation without its end")),
    };
    let response = response
        .to_msg::<reapi::ExecuteResponse>()
        .map_err(|_| broken("an operation with another end than a response"))?;
    if let Some(status) = response.status.filter(|status| status.code != 0) {
        return Err(refused(&status));
    }
    response.result.ok_or_else(|| broken("a response without a result"))
}

fn refused(status: &rpc::Status) -> Failure {
    let is_missing = |violation: &rpc::precondition_failure::Violation| violation.r#type == "MISSING";
    let failures = status.details.iter().filter_map(|detail| {
        let is_it = detail.type_url.ends_with("google.rpc.PreconditionFailure");
        is_it.then(|| rpc::PreconditionFailure::decode(detail.value.as_slice()).ok()).flatten()
    });
    let mut violations = failures.flat_map(|failure| failure.violations).peekable();
    if status.code == Code::FailedPrecondition as i32
        && violations.peek().is_some()
        && violations.all(|v| is_missing(&v))
    {
        return Failure::MissingInputs;
    }
    ended(Status::new(Code::from_i32(status.code), status.message.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_inputs_are_told_from_other_refusals() {
        let detail = |kind: &str| {
            let violation =
                rpc::precondition_failure::Violation { r#type: kind.to_owned(), ..Default::default() };
            prost_types::Any::from_msg(&rpc::PreconditionFailure { violations: vec![violation] }).unwrap()
        };
        let status =
            |details| rpc::Status { code: Code::FailedPrecondition as i32, message: "m".to_owned(), details };
        assert!(matches!(refused(&status(vec![detail("MISSING")])), Failure::MissingInputs));
        assert!(matches!(refused(&status(vec![detail("PLATFORM")])), Failure::Ended(_)));
        let error = refused(&status(Vec::new())).into_error();
        assert_eq!(error.reason().as_str(), "remote execution: FAILED_PRECONDITION");
    }

    #[test]
    fn an_operation_that_was_forgotten_is_begun_anew() {
        let name = Name::new("operations/1".to_owned());
        assert!(is_passing(&Status::not_found("gone"), &name));
        assert!(name.borrow().is_empty());
        assert!(!is_passing(&Status::not_found("no such action"), &name));
        assert!(is_passing(&Status::unavailable("restarting"), &name));
        assert!(!is_passing(&Status::invalid_argument("no"), &name));
    }
}
