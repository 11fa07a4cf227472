//! A lease, from being granted to its outcome: whatever happens, there is one.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};

use castwork_proto::reapi::ActionResult;
use castwork_proto::rpc;
use castwork_proto::worker::{Lease, Outcome, progress::Stage};
use futures::FutureExt;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::execute::{Executed, Workshop};
use crate::failure::Failure;
use crate::sandbox::Usage;
use crate::session::MESSAGE_BYTES_MAX;
use crate::spans;

/// How often it is looked where a lease has got to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes of an outcome, at most: what the stream takes, and room for what is around it.
const OUTCOME_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (64 << 10);

/// What a running lease says.
#[derive(Debug)]
pub(crate) enum Event {
    /// It has got to a stage.
    Progress(String, Stage),
    /// It is over.
    Ended(Box<Outcome>),
}

/// Runs a lease to its end and says how it ended.
pub(crate) async fn run(
    workshop: Arc<Workshop>,
    lease: Lease,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    let started = Instant::now();
    let began = SystemTime::now();
    let reached = AtomicI32::new(Stage::Unspecified as i32);
    let progress = |stage| reached.store(stage as i32, Ordering::Relaxed);
    let execution = AssertUnwindSafe(workshop.execute(&lease, progress, &cancel)).catch_unwind();
    let executed = tokio::select! {
        executed = execution => executed.unwrap_or(Err(Failure::Panic)),
        never = tell(&lease.lease_id, &reached, &events) => match never {},
    };
    log(&lease, &executed, started.elapsed());
    spans::record(&workshop.tracer, &lease, &executed, began);
    let outcome = outcome(lease.lease_id, executed);
    // Nobody listens any more when the worker ends.
    let _ = events.send(Event::Ended(Box::new(outcome))).await;
}

/// Says where a lease has got to, whenever that is another stage than at the last look. Most leases are over before
/// the first.
async fn tell(lease_id: &str, reached: &AtomicI32, events: &mpsc::Sender<Event>) -> Infallible {
    let mut told = Stage::Unspecified;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let stage = Stage::try_from(reached.load(Ordering::Relaxed)).unwrap_or_default();
        // If there is no room at the moment, it is said at the next look.
        if stage != told && events.try_send(Event::Progress(lease_id.to_owned(), stage)).is_ok() {
            told = stage;
        }
    }
}

fn outcome(lease_id: String, executed: Result<Executed, Failure>) -> Outcome {
    let outcome = match executed {
        Ok(Executed { status, result, usage, out_of_memory }) => Outcome {
            lease_id,
            status: Some(status),
            result: Some(result),
            memory_bytes_max: usage.memory_bytes_max,
            out_of_memory,
        },
        Err(failure) => Outcome { lease_id, status: Some(failure.to_status()), ..Outcome::default() },
    };
    let bytes = outcome.encoded_len();
    if bytes <= OUTCOME_BYTES_MAX {
        return outcome;
    }
    // It would end the stream, and all others with it, again and again.
    let text = format!(
        "what is to be said of the action's outputs takes {bytes} bytes, more than {OUTCOME_BYTES_MAX}"
    );
    let status = Failure::Precondition(text).to_status();
    Outcome { lease_id: outcome.lease_id, status: Some(status), ..Outcome::default() }
}

fn log(lease: &Lease, executed: &Result<Executed, Failure>, took: Duration) {
    let action = lease.action_digest.as_ref().map_or("?", |digest| digest.hash.as_str());
    let run = lease.request_metadata.as_ref().map_or("", |metadata| metadata.tool_invocation_id.as_str());
    let trace = spans::context(lease).map(|context| context.trace_hex());
    let trace = trace.as_deref();
    let took_ms = milliseconds(took);
    match executed {
        Ok(Executed { status, result, usage, .. }) => {
            let Usage { user, system, memory_bytes_max } = *usage;
            info!(
                action,
                run,
                trace,
                lease = lease.lease_id,
                code = code_name(status.code),
                exit_code = result.exit_code,
                took_ms,
                run_ms = run_ms(result),
                cpu_ms = milliseconds(user + system),
                memory_bytes_max,
                "action ended"
            );
        }
        Err(Failure::Cancelled) => {
            info!(action, run, trace, lease = lease.lease_id, took_ms, "action cancelled");
        }
        Err(failure) => {
            let code = code_name(failure.to_status().code);
            warn!(
                action,
                run,
                trace,
                lease = lease.lease_id,
                code,
                took_ms,
                reason = failure.chain(),
                "action failed"
            );
        }
    }
}

pub(crate) fn code_name(code: i32) -> &'static str {
    rpc::Code::try_from(code).map_or("?", |code| code.as_str_name())
}

fn run_ms(result: &ActionResult) -> u64 {
    let metadata = result.execution_metadata.as_ref();
    let took = metadata.and_then(|metadata| metadata.virtual_execution_duration);
    took.and_then(|took| Duration::try_from(took).ok()).map_or(0, milliseconds)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use castwork_proto::reapi::OutputSymlink;

    use super::*;

    fn of_links(count: usize) -> Outcome {
        let link = |number| OutputSymlink {
            path: format!("{number}"),
            target: "./".repeat(2_000),
            ..Default::default()
        };
        let result = ActionResult { output_symlinks: (0..count).map(link).collect(), ..Default::default() };
        let (status, usage) = (rpc::Status::default(), Usage::default());
        outcome("a".to_owned(), Ok(Executed { status, result, usage, out_of_memory: false }))
    }

    #[test]
    fn an_outcome_that_the_stream_does_not_take_is_told_in_short() {
        assert!(of_links(4_000).result.is_some());
        let told = of_links(5_000);
        assert_eq!(told.status.unwrap().code, rpc::Code::FailedPrecondition as i32);
        assert_eq!((told.lease_id.as_str(), told.result), ("a", None));
    }
}
