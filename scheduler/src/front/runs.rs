//! [`RunsService`]: what became of runs, told and asked.

use std::sync::Arc;

use castwork_proto::runs::runs_server::Runs as RunsRpc;
use castwork_proto::runs::{GetReportRequest, Report, TellRunRequest, TellRunResponse};
use tonic::{Request, Response, Status};

use super::errors::bad;
use super::instance::{Instances, clip};
use super::metadata::request_metadata;
use crate::Services;
use crate::runs::Runs;

/// Parts that a client may tell at a time.
const PARTS_MAX: usize = 100;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;

/// What became of runs.
pub struct RunsService {
    runs: Arc<Runs>,
    instances: Arc<Instances>,
}

impl RunsService {
    /// Tells of the runs of `services`.
    pub fn new(services: &Services) -> Self {
        Self { runs: Arc::clone(&services.runs), instances: Arc::clone(&services.instances) }
    }

    fn check(&self, instance: &str, names: [&str; 2]) -> Result<(), Status> {
        self.instances.check(instance)?;
        if names.iter().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(bad(format!("a name that is empty, or longer than {NAME_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl RunsRpc for RunsService {
    async fn tell_run(&self, request: Request<TellRunRequest>) -> Result<Response<TellRunResponse>, Status> {
        let details = request_metadata(request.metadata()).and_then(|metadata| metadata.tool_details);
        let details = details.unwrap_or_default();
        let tool = format!("{} {}", details.tool_name, details.tool_version);
        let TellRunRequest { instance_name, run, teller, parts } = request.into_inner();
        self.check(&instance_name, [&run, &teller])?;
        if parts.len() > PARTS_MAX {
            return Err(bad(format!("more than {PARTS_MAX} parts")));
        }
        if !self.runs.told(&instance_name, &run, tool.trim(), &teller, parts) {
            return Err(Status::resource_exhausted("too many clients tell of this run"));
        }
        Ok(Response::new(TellRunResponse {}))
    }

    async fn get_report(&self, request: Request<GetReportRequest>) -> Result<Response<Report>, Status> {
        let GetReportRequest { instance_name, run, project, platform } = request.into_inner();
        self.check(&instance_name, [&run, &run])?;
        let report = self.runs.report(&instance_name, &run, &project, &platform);
        let unknown = || Status::not_found(format!("nothing is known of a run `{}`", clip(&run)));
        report.map(Response::new).ok_or_else(unknown)
    }
}
