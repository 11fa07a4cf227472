//! What was done when for an action, told to who draws traces.

use std::time::SystemTime;

use castwork_proto::reapi::ExecutedActionMetadata;
use castwork_proto::worker::Lease;
use castwork_trace::{Context, Kind, Span, Tracer};

use crate::execute::Executed;
use crate::failure::Failure;
use crate::lease::code_name;

/// The span that a lease is a part of, if anybody traces it.
pub(crate) fn context(lease: &Lease) -> Option<Context> {
    lease.traceparent.parse().ok()
}

/// Tells of a lease that has ended: a span for all of it, and one for each of its parts.
pub(crate) fn record(
    tracer: &Tracer,
    lease: &Lease,
    executed: &Result<Executed, Failure>,
    began: SystemTime,
) {
    let Some(begun) = context(lease).and_then(|parent| tracer.begin(Some(&parent))) else { return };
    let action = lease.action_digest.clone().unwrap_or_default();
    let run = lease.request_metadata.as_ref().map_or("", |metadata| metadata.tool_invocation_id.as_str());
    let mut span = Span::until_now("action", Kind::Server, begun, began)
        .with("castwork.action", format!("{}/{}", action.hash, action.size_bytes))
        .with("castwork.run", run)
        .with("castwork.lease", lease.lease_id.as_str());
    match executed {
        Ok(Executed { status, result, usage, out_of_memory }) => {
            let cpu_ms = u64::try_from((usage.user + usage.system).as_millis()).unwrap_or(u64::MAX);
            span = span
                .with("castwork.exit_code", result.exit_code)
                .with("castwork.cpu_ms", cpu_ms)
                .with("castwork.memory_bytes_max", usage.memory_bytes_max);
            if *out_of_memory {
                span = span.with("castwork.out_of_memory", true);
            }
            if status.code != 0 {
                span.failure = Some(format!("{}: {}", code_name(status.code), status.message));
            }
            if let Some(metadata) = &result.execution_metadata {
                span = span.with("castwork.worker", metadata.worker.as_str());
                for part in parts(&span, metadata) {
                    tracer.record(part);
                }
            }
        }
        Err(failure) => span.failure = Some(failure.chain()),
    }
    tracer.record(span);
}

fn parts(span: &Span, metadata: &ExecutedActionMetadata) -> Vec<Span> {
    let times = [
        ("fetch inputs", &metadata.input_fetch_start_timestamp, &metadata.input_fetch_completed_timestamp),
        ("run", &metadata.execution_start_timestamp, &metadata.execution_completed_timestamp),
        (
            "upload outputs",
            &metadata.output_upload_start_timestamp,
            &metadata.output_upload_completed_timestamp,
        ),
    ];
    let time = |stamp: &Option<prost_types::Timestamp>| SystemTime::try_from((*stamp)?).ok();
    times.iter().filter_map(|(name, from, to)| Some(span.part(name, time(from)?, time(to)?))).collect()
}
