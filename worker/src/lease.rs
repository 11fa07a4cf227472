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
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::execute::{Executed, Workshop};
use crate::failure::Failure;
use crate::sandbox::Usage;
use crate::spans;

/// How often it is looked where a lease has got to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
        if stage != told {
            told = stage;
            // A full channel means a scheduler that is away; it will ask when it is back.
            let _ = events.try_send(Event::Progress(lease_id.to_owned(), stage));
        }
    }
}

fn outcome(lease_id: String, executed: Result<Executed, Failure>) -> Outcome {
    match executed {
        Ok(Executed { status, result, usage, out_of_memory }) => Outcome {
            lease_id,
            status: Some(status),
            result: Some(result),
            memory_bytes_max: usage.memory_bytes_max,
            out_of_memory,
        },
        Err(failure) => Outcome { lease_id, status: Some(failure.to_status()), ..Outcome::default() },
    }
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
