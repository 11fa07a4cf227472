//! [`ExecutionService`]: REAPI's `Execution`, as streams of operations.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use castwork_proto::longrunning::Operation;
use castwork_proto::reapi::execution_server::Execution;
use castwork_proto::reapi::{ExecuteRequest, WaitExecutionRequest};
use castwork_trace::Begun;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::errors::bad;
use super::instance::{clip, required_digest};
use super::metadata::{request_metadata, run_name, trace_context};
use super::report::{Inlining, Reporter};
use crate::caller::Caller;
use crate::dispatch::{Dispatch, PRIORITIES, Watch, parse_operation_name};
use crate::queue::{self, OperationId, Origin};
use castwork_cas::ActionKey;

/// Names of output files to be inlined that a request may list.
const INLINE_FILES_MAX: usize = 10_000;

/// REAPI's `Execution`.
pub struct ExecutionService {
    dispatch: Dispatch,
}

impl ExecutionService {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch }
    }

    fn stream(&self, watch: Watch, inlining: Inlining, from_start: bool) -> OperationStream {
        let reporter = Reporter::new(watch, inlining, self.dispatch.clone(), from_start);
        let next = |mut reporter: Reporter| async move {
            let operation = reporter.next().await?;
            Some((operation, reporter))
        };
        futures::stream::unfold(reporter, next).boxed()
    }
}

type OperationStream = BoxStream<'static, Result<Operation, Status>>;

#[tonic::async_trait]
impl Execution for ExecutionService {
    type ExecuteStream = OperationStream;

    /// Returns as soon as the operation has a name. Whatever is wrong beyond the request itself is
    /// told in the operation.
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<OperationStream>, Status> {
        let services = self.dispatch.services();
        let metadata = request_metadata(request.metadata());
        let caller = trace_context(request.metadata());
        // Who calls may be traced though we are not: then the worker is told, past us.
        let trace = services.tracer.begin(caller.as_ref()).or(caller.map(Begun::elsewhere));
        let request = request.into_inner();
        let instance = services.instances.check(&request.instance_name)?;
        let function = instance.function(request.digest_function, request.action_digest.as_ref())?;
        instance.may_write(function)?;
        let action = required_digest(request.action_digest.as_ref(), function, "action_digest")?;
        if request.inline_output_files.len() > INLINE_FILES_MAX {
            return Err(bad(format!("more than {INLINE_FILES_MAX} output files to be inlined")));
        }
        let run = metadata.as_ref().map_or("", |metadata| run_name(&metadata.tool_invocation_id));
        let priority = request.execution_policy.map_or(0, |policy| policy.priority);
        let opened = self.dispatch.open(queue::Request {
            operation: OperationId(Uuid::new_v4().as_u128()),
            key: ActionKey { instance: Arc::clone(&instance.name), action },
            priority: priority.clamp(*PRIORITIES.start(), *PRIORITIES.end()),
            run: run.into(),
            principal: Caller::current().principal,
            lookup: !request.skip_cache_lookup,
            origin: Arc::new(Origin { queued_unix_nanos: now_unix_nanos(), metadata, trace }),
        });
        let watch = opened.await?;
        let inlining = Inlining {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files.into_iter().collect(),
        };
        Ok(Response::new(self.stream(watch, inlining, true)))
    }

    type WaitExecutionStream = OperationStream;

    async fn wait_execution(
        &self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<OperationStream>, Status> {
        self.dispatch.services().counters.requests.add(1);
        let name = request.into_inner().name;
        let (instance, operation) = parse_operation_name(&name).ok_or_else(|| unknown(&name))?;
        let found = self.dispatch.join(operation).await?;
        let watch = found.filter(|watch| &*watch.key.instance == instance).ok_or_else(|| unknown(&name))?;
        Ok(Response::new(self.stream(watch, Inlining::default(), false)))
    }
}

/// The answer if there is no such operation (any more). Clients execute again then.
pub(super) fn unknown(name: &str) -> Status {
    Status::not_found(format!("there is no operation `{}`", clip(name)))
}

fn now_unix_nanos() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
