//! REAPI's `Capabilities`: what this server can do.

use std::ops::RangeInclusive;
use std::sync::Arc;

use castwork_cas::DigestFunction;
use castwork_proto::reapi::capabilities_server::Capabilities;
use castwork_proto::reapi::priority_capabilities::PriorityRange;
use castwork_proto::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, ExecutionCapabilities, FastCdc2020Params,
    GetCapabilitiesRequest, PriorityCapabilities, ServerCapabilities, compressor,
    symlink_absolute_path_strategy,
};
use castwork_proto::semver::SemVer;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::chunks::CHUNK_BYTES;
use super::instance::Instances;
use super::limits::{BATCH_BYTES_MAX, Limits};
use crate::dispatch::Dispatch;
use crate::store::Durability;

/// Clients as old as Bazel 4 speak 2.0, and refuse a server that begins later.
const LOW_VERSION: (i32, i32) = (2, 0);

/// The newest, for its calls about chunks.
const HIGH_VERSION: (i32, i32) = (2, 13);

/// See the module.
#[derive(Clone)]
pub struct CapabilitiesService {
    instances: Arc<Instances>,
    /// But for the digest functions, which depend on the instance.
    answer: ServerCapabilities,
    durability: Durability,
    dispatch: Dispatch,
}

/// The header of the answer that says what an acknowledgement is worth: REAPI has no field for it.
const DURABILITY_HEADER: &str = "castwork-durability";

/// The header that says that there are no workers, and none are expected. Execution is said to be enabled all the same:
/// Bazel would not begin a build that its workers may come to.
const WORKERS_HEADER: &str = "castwork-workers";

impl CapabilitiesService {
    /// For a server that runs actions with these priorities.
    pub fn new(
        instances: Arc<Instances>,
        limits: &Limits,
        priorities: &RangeInclusive<i32>,
        durability: Durability,
        dispatch: Dispatch,
    ) -> Self {
        let answer = ServerCapabilities {
            cache_capabilities: Some(cache(limits)),
            execution_capabilities: Some(execution(priorities)),
            deprecated_api_version: None,
            low_api_version: Some(version(LOW_VERSION)),
            high_api_version: Some(version(HIGH_VERSION)),
        };
        Self { instances, answer, durability, dispatch }
    }
}

#[tonic::async_trait]
impl Capabilities for CapabilitiesService {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let instance = self.instances.check(&request.get_ref().instance_name)?;
        let functions: Vec<i32> = instance.functions().map(|function| function.to_proto() as i32).collect();
        let mut answer = self.answer.clone();
        if let Some(cache) = &mut answer.cache_capabilities {
            cache.digest_functions.clone_from(&functions);
        }
        if let Some(execution) = &mut answer.execution_capabilities {
            execution.digest_functions = functions;
        }
        let mut response = Response::new(answer);
        let durability = MetadataValue::from_static(self.durability.name());
        response.metadata_mut().insert(DURABILITY_HEADER, durability);
        if !self.dispatch.expects_workers() {
            response.metadata_mut().insert(WORKERS_HEADER, MetadataValue::from_static("none"));
        }
        Ok(response)
    }
}

fn cache(limits: &Limits) -> CacheCapabilities {
    CacheCapabilities {
        action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: true }),
        // Anyone may state a priority, and none keeps anything longer.
        cache_priority_capabilities: Some(priority_range(&(i32::MIN..=i32::MAX))),
        max_batch_total_size_bytes: i64::try_from(BATCH_BYTES_MAX).expect("a few megabytes"),
        symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Disallowed as i32,
        supported_compressors: vec![compressor::Value::Zstd as i32],
        supported_batch_update_compressors: vec![compressor::Value::Zstd as i32],
        max_cas_blob_size_bytes: i64::try_from(limits.blob_bytes_max).unwrap_or(i64::MAX),
        split_blob_support: true,
        splice_blob_support: true,
        fast_cdc_2020_params: Some(FastCdc2020Params { avg_chunk_size_bytes: CHUNK_BYTES as u64, seed: 0 }),
        ..CacheCapabilities::default()
    }
}

fn execution(priorities: &RangeInclusive<i32>) -> ExecutionCapabilities {
    ExecutionCapabilities {
        // Old clients look at this one alone.
        digest_function: DigestFunction::Sha256.to_proto() as i32,
        exec_enabled: true,
        execution_priority_capabilities: Some(priority_range(priorities)),
        supported_node_properties: Vec::new(),
        digest_functions: Vec::new(),
    }
}

fn priority_range(range: &RangeInclusive<i32>) -> PriorityCapabilities {
    let range = PriorityRange { min_priority: *range.start(), max_priority: *range.end() };
    PriorityCapabilities { priorities: vec![range] }
}

fn version((major, minor): (i32, i32)) -> SemVer {
    SemVer { major, minor, ..SemVer::default() }
}
