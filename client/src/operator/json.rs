//! What operators ask, for programs. Names that are here stay; times are in seconds.

use castwork_proto::admin::{
    Action, DrainPattern, DrainResponse, EndedAction, FindActionsResponse, Finding, Queue, Run, Running,
    Status, Worker,
};
use castwork_proto::reapi::platform::Property;
use castwork_proto::reapi::{Digest, execution_stage::Value as Stage};
use serde_json::{Map, Value, json};

use super::page::{seconds, state_of};

pub(super) fn status(status: &Status) -> Value {
    json!({
        "version": status.version,
        "uptime_s": seconds(status.uptime.as_ref()),
        "operations": status.operations,
        "queued": status.queued,
        "running": status.running,
        "queues": status.queues.iter().map(queue).collect::<Vec<_>>(),
        "runs": runs(&status.runs),
        "workers": workers(&status.workers),
        "drains": status.drains.iter().map(drain).collect::<Vec<_>>(),
        "retries": status.retries,
    })
}

fn queue(queue: &Queue) -> Value {
    json!({
        "properties": properties(&queue.properties),
        "amounts": queue.amounts,
        "waiting": queue.waiting,
        "waiting_for_s": seconds(queue.waiting_for.as_ref()),
        "reason": queue.reason,
        "slots_wanted": queue.slots_wanted,
        "slots_able": queue.slots_able,
    })
}

pub(super) fn runs(runs: &[Run]) -> Value {
    let run = |run: &Run| {
        json!({
            "instance": run.instance_name,
            "principal": run.principal,
            "run": run.run,
            "waiting": run.waiting,
            "running": run.running,
            "granted": run.granted,
            "age_s": seconds(run.age.as_ref()),
            "share_percent": f64::from(run.share_basis_points) / 100.0,
        })
    };
    runs.iter().map(run).collect()
}

pub(super) fn workers(workers: &[Worker]) -> Value {
    workers.iter().map(worker).collect()
}

fn worker(worker: &Worker) -> Value {
    json!({
        "id": worker.worker_id,
        "name": worker.name,
        "version": worker.version,
        "state": state_of(worker),
        "remark": worker.remark,
        "slots": worker.slots,
        "slots_used": worker.slots_used,
        "memory_bytes": worker.memory_bytes,
        "memory_bytes_used": worker.memory_bytes_used,
        "cache_bytes": worker.cache_bytes,
        "cache_bytes_max": worker.cache_bytes_max,
        "cache_horizon_s": worker.cache_horizon.as_ref().map(|horizon| seconds(Some(horizon))),
        "properties": properties(&worker.properties),
        "amounts": worker.amounts,
        "age_s": seconds(worker.age.as_ref()),
        "running": worker.running.iter().map(running).collect::<Vec<_>>(),
    })
}

fn running(running: &Running) -> Value {
    json!({
        "lease": running.lease_id,
        "instance": running.instance_name,
        "action": digest(running.action_digest.as_ref()),
        "run": running.run,
        "running_for_s": seconds(running.running_for.as_ref()),
    })
}

/// Those that wait or run, then those that had another result when they were run again, and then those that ended, the
/// newest first.
pub(super) fn actions(found: &FindActionsResponse) -> Value {
    let action = |action: &Action| {
        json!({
            "instance": action.instance_name,
            "action": digest(action.action_digest.as_ref()),
            "principal": action.principal,
            "run": action.run,
            "stage": Stage::try_from(action.stage).unwrap_or_default().as_str_name(),
            "operations": action.operations,
            "priority": action.priority,
            "failed_attempts": action.failed_attempts,
            "since_s": seconds(action.since.as_ref()),
            "expected_s": seconds(action.expected.as_ref()),
            "reason": action.reason,
        })
    };
    let finding = |finding: &Finding| {
        json!({
            "instance": finding.instance_name,
            "action": digest(finding.action_digest.as_ref()),
            "finding": finding.verdict,
            "differences": finding.differences,
            "age_s": seconds(finding.age.as_ref()),
        })
    };
    found
        .actions
        .iter()
        .map(action)
        .chain(found.findings.iter().map(finding))
        .chain(found.ended.iter().map(ended))
        .collect()
}

fn ended(ended: &EndedAction) -> Value {
    json!({
        "instance": ended.instance_name,
        "action": digest(ended.action_digest.as_ref()),
        "run": ended.run,
        "stage": Stage::Completed.as_str_name(),
        "at_unix_s": ended.at.as_ref().map(|at| at.seconds),
        "outcome": ended.outcome,
        "miss_cause": (!ended.miss_cause.is_empty()).then_some(&ended.miss_cause),
        "worker": ended.worker,
        "took_s": seconds(ended.took.as_ref()),
    })
}

pub(super) fn drained(drained: &DrainResponse) -> Value {
    json!({
        "workers": workers(&drained.workers),
        "drains": drained.drains.iter().map(drain).collect::<Vec<_>>(),
    })
}

fn drain(drain: &DrainPattern) -> Value {
    json!({ "pattern": drain.pattern, "reason": drain.reason, "age_s": seconds(drain.age.as_ref()) })
}

/// Each name with all its values.
fn properties(properties: &[Property]) -> Value {
    let mut all = Map::new();
    for property in properties {
        let values = all.entry(property.name.clone()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(property.value));
        }
    }
    Value::Object(all)
}

fn digest(digest: Option<&Digest>) -> String {
    digest.map(|digest| format!("{}/{}", digest.hash, digest.size_bytes)).unwrap_or_default()
}
