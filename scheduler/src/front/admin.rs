//! [`AdminService`]: what operators see and do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use castwork_proto::admin::admin_server::Admin;
use castwork_proto::admin::{
    self, CancelActionsRequest, CancelActionsResponse, DrainPattern, DrainRequest, DrainResponse,
    FindActionsRequest, FindActionsResponse, GetStatusRequest, RevokeResultsRequest, RevokeResultsResponse,
    UndrainRequest, worker::State,
};
use castwork_proto::reapi::execution_stage::Value as ProtoStage;
use castwork_proto::reapi::platform::Property;
use tonic::{Request, Response, Status};

use super::errors::{bad, with_cause};
use super::instance::clip;
use super::operator::{check_operator, is_operator};
use crate::dispatch::{Dispatch, Overview, Selector, operation_name, parse_operation_name};
use crate::queue::{
    Amounts, ClassView, DrainView, Finding, Moment, Properties, RunView, Stage, TaskView, View, WorkerView,
    name_matches,
};
use crate::runs::{Ended, timestamp};
use crate::store::DiskResults;
use crate::store::revoke::{ResultSelector, RevokeError, RevokedResult};

/// Actions that one answer lists, at most.
const ACTIONS_MAX: usize = 1_000;

/// Times that an action ended which one answer lists, at most.
const ENDED_MAX: usize = 20;

/// Bytes of a reason or a pattern, at most.
const TEXT_BYTES_MAX: usize = 1_024;

/// What operators see and do.
pub struct AdminService {
    dispatch: Dispatch,
    /// None where results are not kept in a store of ours.
    results: Option<DiskResults>,
}

impl AdminService {
    pub(crate) fn new(dispatch: Dispatch, results: Option<DiskResults>) -> Self {
        Self { dispatch, results }
    }

    fn check_operator<T>(&self, request: &Request<T>) -> Result<(), Status> {
        check_operator(request, self.dispatch.limits().operators)
    }

    /// What a drain has come to, for the workers that it means.
    async fn drained(&self, pattern: &str) -> Result<Response<DrainResponse>, Status> {
        let Overview { view, .. } = self.dispatch.overview().await?;
        let meant = |worker: &&WorkerView| {
            name_matches(pattern, &worker.state.name) || worker.state.id.to_string() == pattern
        };
        let workers = view.workers.iter().filter(meant).map(|worker| worker_of(worker, view.now));
        Ok(Response::new(DrainResponse { workers: workers.collect(), drains: drains_of(&view) }))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<admin::Status>, Status> {
        self.dispatch.services().counters.requests.add(1);
        let Overview { counts, view, tally } = self.dispatch.overview().await?;
        let all: usize = view.runs.iter().map(|run| run.running).sum();
        Ok(Response::new(admin::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: duration(view.now),
            operations: counts.operations as u64,
            queued: counts.queued as u64,
            running: counts.running as u64,
            queues: view.classes.iter().map(|class| queue_of(class, view.now)).collect(),
            runs: view.runs.iter().map(|run| run_of(run, all, view.now)).collect(),
            workers: view.workers.iter().map(|worker| worker_of(worker, view.now)).collect(),
            drains: drains_of(&view),
            retries: tally.retries.iter().map(|(cause, count)| (cause.to_string(), *count)).collect(),
        }))
    }

    async fn find_actions(
        &self,
        request: Request<FindActionsRequest>,
    ) -> Result<Response<FindActionsResponse>, Status> {
        // Whoever knows an operation's name may cancel it.
        let may_cancel = is_operator(&request, self.dispatch.limits().operators);
        let selector = selector(request.into_inner().selector)?;
        let ended = match &selector {
            Selector { hash_start: Some(start), run: None, operation: None } => {
                self.dispatch.services().runs.ended(start, ENDED_MAX)
            }
            _ => Vec::new(),
        };
        let now = self.dispatch.overview().await?.view.now;
        let (mut found, findings) = self.dispatch.find(selector, ACTIONS_MAX + 1).await?;
        let is_cut = found.len() > ACTIONS_MAX;
        found.truncate(ACTIONS_MAX);
        if !may_cancel {
            for task in &mut found {
                task.operations.clear();
            }
        }
        let actions = found.iter().map(|task| action_of(task, now)).collect();
        let ended = ended.iter().map(ended_of).collect();
        let findings = findings.iter().map(|finding| finding_of(finding, now)).collect();
        Ok(Response::new(FindActionsResponse { actions, is_cut, ended, findings }))
    }

    async fn cancel_actions(
        &self,
        request: Request<CancelActionsRequest>,
    ) -> Result<Response<CancelActionsResponse>, Status> {
        self.check_operator(&request)?;
        let request = request.into_inner();
        let reason = text("reason", request.reason)?;
        let operations = self.dispatch.stop(selector(request.selector)?, reason).await?;
        Ok(Response::new(CancelActionsResponse { operations: operations as u64 }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        self.check_operator(&request)?;
        let request = request.into_inner();
        let (pattern, reason) = (pattern(request.pattern)?, text("reason", request.reason)?);
        self.dispatch.drain(Arc::clone(&pattern), reason).await?;
        self.drained(&pattern).await
    }

    async fn undrain(&self, request: Request<UndrainRequest>) -> Result<Response<DrainResponse>, Status> {
        self.check_operator(&request)?;
        let pattern = pattern(request.into_inner().pattern)?;
        self.dispatch.undrain(Arc::clone(&pattern)).await?;
        self.drained(&pattern).await
    }

    async fn revoke_results(
        &self,
        request: Request<RevokeResultsRequest>,
    ) -> Result<Response<RevokeResultsResponse>, Status> {
        self.check_operator(&request)?;
        let RevokeResultsRequest { selector, dry_run } = request.into_inner();
        let selector = result_selector(selector.unwrap_or_default())?;
        let results = self.results.as_ref();
        let results = results.ok_or_else(|| Status::unimplemented("results are kept elsewhere"))?;
        let revocation = results.revoke(selector, dry_run).await.map_err(|error| match error {
            RevokeError::Everything => {
                bad("say which results are meant: by `worker`, `principal`, `since` or `action_hash`")
            }
            RevokeError::NotKnown => Status::unavailable(error.to_string()),
            RevokeError::Disk(_) => Status::internal(with_cause(&error)),
            RevokeError::Tier { .. } => Status::failed_precondition(with_cause(&error)),
        })?;
        let listed = revocation.listed.iter().map(result_of).collect();
        Ok(Response::new(RevokeResultsResponse { results: revocation.count, listed }))
    }
}

/// Reads which results are meant.
pub(crate) fn result_selector(selector: admin::ResultSelector) -> Result<ResultSelector, Status> {
    let admin::ResultSelector { worker, principal, since, action_hash } = selector;
    let set = |text: String| (!text.is_empty()).then_some(text);
    let since = since.map(std::time::SystemTime::try_from).transpose();
    Ok(ResultSelector {
        worker: set(worker),
        principal: set(principal),
        since: since.map_err(|_| bad("`since` is no time"))?,
        action_hash: set(action_hash),
    })
}

/// A result as operators see it.
pub(crate) fn result_of(result: &RevokedResult) -> admin::KeptResult {
    let RevokedResult { action, provenance, made } = result;
    admin::KeptResult {
        instance_name: provenance.instance.clone(),
        action_digest: Some(action.to_proto()),
        digest_function: action.function().to_proto() as i32,
        worker: provenance.worker.clone(),
        principal: provenance.principal.clone(),
        run: provenance.run.clone(),
        made: Some((*made).into()),
    }
}

fn text(field: &str, text: String) -> Result<Arc<str>, Status> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(format!("`{field}` is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text.into())
}

fn pattern(pattern: String) -> Result<Arc<str>, Status> {
    if pattern.is_empty() {
        return Err(bad("`pattern` is not set; `*` means every worker"));
    }
    text("pattern", pattern)
}

fn selector(selector: Option<admin::Selector>) -> Result<Selector, Status> {
    let admin::Selector { action_hash, run, operation } = selector.unwrap_or_default();
    let set = |text: String| (!text.is_empty()).then_some(text);
    let operation = match set(operation) {
        None => None,
        Some(name) => {
            let parsed = parse_operation_name(&name);
            let parsed = parsed.ok_or_else(|| bad(format!("`{}` names no operation", clip(&name))))?;
            Some(parsed.1)
        }
    };
    let selector = Selector { hash_start: set(action_hash), run: set(run), operation };
    if selector == Selector::default() {
        return Err(bad("say which actions are meant: by `action_hash`, `run` or `operation`"));
    }
    Ok(selector)
}

fn queue_of(class: &ClassView, now: Moment) -> admin::Queue {
    let demand = &class.needs.demand;
    let mut amounts = amounts_of(&demand.others);
    amounts.insert("cores".to_owned(), demand.slots.into());
    if demand.memory_bytes > 0 {
        amounts.insert("memory".to_owned(), demand.memory_bytes);
    }
    admin::Queue {
        properties: properties_of(&class.needs.properties),
        amounts,
        waiting: class.waiting as u64,
        waiting_for: duration(now.saturating_sub(class.since)),
        reason: class.reason.clone(),
        slots_wanted: class.slots_wanted,
        slots_able: class.slots_able,
    }
}

fn run_of(run: &RunView, all_running: usize, now: Moment) -> admin::Run {
    let [instance, principal, name] = run.owner.each_ref().map(ToString::to_string);
    let share = (run.running * 10_000).checked_div(all_running).unwrap_or(0);
    admin::Run {
        instance_name: instance,
        principal,
        run: name,
        waiting: run.waiting as u64,
        running: run.running as u64,
        granted: run.granted,
        age: duration(now.saturating_sub(run.since)),
        share_basis_points: u32::try_from(share).unwrap_or(u32::MAX),
    }
}

fn worker_of(worker: &WorkerView, now: Moment) -> admin::Worker {
    let state = &worker.state;
    let (slots_used, memory_bytes_used) = worker.used;
    let running = worker.leases.iter().map(|lease| admin::Running {
        lease_id: lease.lease.to_string(),
        instance_name: lease.key.instance.to_string(),
        action_digest: Some(lease.key.action.to_proto()),
        run: lease.run.to_string(),
        running_for: duration(now.saturating_sub(lease.since)),
    });
    let shown = match (state.connected, state.draining, state.quarantined) {
        (false, ..) => State::Away,
        (_, true, _) => State::Draining,
        (_, _, true) => State::Quarantined,
        _ => State::Ok,
    };
    admin::Worker {
        worker_id: state.id.to_string(),
        name: state.name.clone(),
        version: worker.offer.version.to_string(),
        state: shown as i32,
        remark: worker.remark.clone().unwrap_or_default(),
        slots: state.slots,
        slots_used,
        memory_bytes: worker.offer.memory_bytes.unwrap_or(0),
        memory_bytes_used,
        properties: properties_of(&worker.offer.properties),
        amounts: amounts_of(&worker.offer.others),
        age: duration(now.saturating_sub(worker.since)),
        running: running.collect(),
        cache_bytes: worker.condition.cache_bytes.0,
        cache_bytes_max: worker.condition.cache_bytes.1,
        cache_horizon: worker.condition.cache_horizon.and_then(duration),
    }
}

fn drains_of(view: &View) -> Vec<DrainPattern> {
    let drain = |drain: &DrainView| DrainPattern {
        pattern: drain.pattern.to_string(),
        reason: drain.reason.to_string(),
        age: duration(view.now.saturating_sub(drain.since)),
    };
    view.drains.iter().map(drain).collect()
}

fn action_of(task: &TaskView, now: Moment) -> admin::Action {
    let [instance, principal, run] = task.owner.each_ref().map(ToString::to_string);
    let stage = match task.stage {
        Stage::Checking => ProtoStage::CacheCheck,
        Stage::Queued => ProtoStage::Queued,
        Stage::Executing => ProtoStage::Executing,
    };
    let names = task.operations.iter().map(|operation| operation_name(&task.key.instance, *operation));
    admin::Action {
        operations: names.collect(),
        instance_name: instance,
        action_digest: Some(task.key.action.to_proto()),
        principal,
        run,
        stage: stage as i32,
        priority: task.priority,
        failed_attempts: u32::try_from(task.attempts).unwrap_or(u32::MAX),
        since: task.since.and_then(|since| duration(now.saturating_sub(since))),
        expected: duration(task.expected),
        reason: task.reason.clone(),
    }
}

fn ended_of(ended: &Ended) -> admin::EndedAction {
    admin::EndedAction {
        instance_name: ended.key.instance.to_string(),
        action_digest: Some(ended.key.action.to_proto()),
        run: ended.run.to_string(),
        at: Some(timestamp(ended.at_ms)),
        outcome: ended.outcome.to_owned(),
        miss_cause: ended.cause.map(|cause| cause.name().to_owned()).unwrap_or_default(),
        worker: ended.worker.to_string(),
        took: duration(Duration::from_millis(ended.took_ms)),
    }
}

fn finding_of(finding: &Finding, now: Moment) -> admin::Finding {
    admin::Finding {
        instance_name: finding.key.instance.to_string(),
        action_digest: Some(finding.key.action.to_proto()),
        age: duration(now.saturating_sub(finding.at)),
        verdict: finding.verdict.to_string(),
        differences: finding.differences.clone(),
    }
}

fn properties_of(properties: &Properties) -> Vec<Property> {
    let property = |(name, value): &(String, String)| Property { name: name.clone(), value: value.clone() };
    properties.pairs().iter().map(property).collect()
}

fn amounts_of(amounts: &Amounts) -> BTreeMap<String, u64> {
    amounts.pairs().iter().cloned().collect()
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}
