//! REAPI's `ActionCache`: results of actions, looked up and stated.

use std::collections::HashSet;
use std::time::SystemTime;

use bytes::Bytes;
use castwork_cas::store::collect;
use castwork_cas::{ActionKey, ByteRange, Digest, DigestFunction, StoreError};
use castwork_proto::reapi::action_cache_server::ActionCache;
use castwork_proto::reapi::{self, Action, ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use castwork_trace::{Context, Kind, Span};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::errors::{bad, missing_blobs, to_status};
use super::instance::{Instance, required_digest};
use super::limits::{ANSWER_BYTES_MAX, INLINE_BYTES_MAX};
use super::metadata::trace_context;
use crate::Services;
use crate::runs::Asker;

/// Bytes of an `Action` message, at most.
const ACTION_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Clone)]
pub struct ActionCacheService {
    services: Services,
}

impl ActionCacheService {
    /// Serves the results of `services`.
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    fn key(
        &self,
        instance: &str,
        function: i32,
        digest: Option<&reapi::Digest>,
    ) -> Result<ActionKey, Status> {
        let instance: &Instance = self.services.instances.check(instance)?;
        let action = required_digest(digest, instance.function(function, digest)?, "action_digest")?;
        Ok(ActionKey { instance: instance.name.clone(), action })
    }

    /// Tells of a look-up, if who asks is traced; a look-up by itself is no trace.
    fn trace(&self, caller: Option<Context>, key: &ActionKey, from: SystemTime, is_hit: bool) {
        let tracer = &self.services.tracer;
        if let Some(begun) = caller.and_then(|caller| tracer.begin(Some(&caller))) {
            let span = Span::until_now("action cache", Kind::Server, begun, from);
            tracer.record(span.with("castwork.action", key.action.to_string()).with("castwork.hit", is_hit));
        }
    }

    /// The action and its command have to be there, so that a result can be told from garbage.
    async fn check_action(&self, action: &Digest) -> Result<(), Status> {
        let missing = |digest: &Digest| missing_blobs("the action or its command is missing", &[*digest]);
        let data = match self.small_blob(action, ACTION_BYTES_MAX).await {
            Err(StoreError::Missing(digest)) => return Err(missing(&digest)),
            data => data.map_err(to_status)?,
        };
        let Ok(Action { command_digest: Some(command), .. }) = Action::decode(data) else {
            return Err(bad("`action_digest` is not that of an Action"));
        };
        let command = required_digest(Some(&command), action.function(), "command_digest")?;
        match self.services.blobs.find_missing(&[command]).await.map_err(to_status)?.first() {
            Some(digest) => Err(missing(digest)),
            None => Ok(()),
        }
    }

    async fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Bytes, StoreError> {
        // Before it is fetched, maybe from afar.
        if digest.size_bytes() > bytes_max {
            return Err(StoreError::TooLarge { bytes_max });
        }
        let stream = self.services.blobs.get(digest, ByteRange::ALL).await?;
        collect(stream, bytes_max).await
    }

    /// Puts outputs that the client wants at hand into the result, as far as they fit.
    async fn inline(
        &self,
        request: &GetActionResultRequest,
        function: DigestFunction,
        result: &mut ActionResult,
    ) {
        let room = ANSWER_BYTES_MAX.saturating_sub(result.encoded_len()) as u64;
        let mut room = room.min(INLINE_BYTES_MAX);
        if request.inline_stdout {
            self.inline_one(result.stdout_digest.as_ref(), function, &mut result.stdout_raw, &mut room).await;
        }
        if request.inline_stderr {
            self.inline_one(result.stderr_digest.as_ref(), function, &mut result.stderr_raw, &mut room).await;
        }
        let wanted: HashSet<&str> = request.inline_output_files.iter().map(String::as_str).collect();
        for file in result.output_files.iter_mut().filter(|file| wanted.contains(file.path.as_str())) {
            self.inline_one(file.digest.as_ref(), function, &mut file.contents, &mut room).await;
        }
    }

    async fn inline_one(
        &self,
        digest: Option<&reapi::Digest>,
        function: DigestFunction,
        data: &mut Bytes,
        room: &mut u64,
    ) {
        let digest = digest.and_then(|digest| Digest::from_proto(digest, function).ok());
        let Some(digest) = digest.filter(|digest| data.is_empty() && digest.size_bytes() <= *room) else {
            return;
        };
        // It is a hint: a client that does not find it inline reads it by its digest.
        if let Ok(bytes) = self.small_blob(&digest, digest.size_bytes()).await {
            *room -= bytes.len() as u64;
            *data = bytes;
        }
    }
}

#[tonic::async_trait]
impl ActionCache for ActionCacheService {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let asker = Asker::from_headers(request.metadata());
        let caller = trace_context(request.metadata());
        let from = SystemTime::now();
        let request = request.into_inner();
        let key =
            self.key(&request.instance_name, request.digest_function, request.action_digest.as_ref())?;
        let found = self.services.results.get(&key).await.map_err(to_status)?;
        self.trace(caller, &key, from, found.is_some());
        let Some(mut result) = found else {
            self.services.counters.result_misses.add(1);
            self.services.runs.miss(asker.as_ref(), &key, self.services.runs.cause_of(&key).await);
            return Err(Status::not_found(format!("no result of action `{}`", key.action)));
        };
        self.services.counters.result_hits.add(1);
        self.services.runs.hit(asker.as_ref(), &key, &result);
        strip_if_large(&mut result);
        self.inline(&request, key.action.function(), &mut result).await;
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let asker = Asker::from_headers(request.metadata());
        let request = request.into_inner();
        let key =
            self.key(&request.instance_name, request.digest_function, request.action_digest.as_ref())?;
        self.services.instances.check(&request.instance_name)?.may_write(key.action.function())?;
        let mut result = request.action_result.ok_or_else(|| bad("`action_result` is not set"))?;
        castwork_cas::outputs::check(&result).map_err(|error| bad(error.to_string()))?;
        self.check_action(&key.action).await?;
        // Some clients take a result without it for broken.
        result.execution_metadata.get_or_insert_default();
        match self.services.results.put(&key, result.clone()).await {
            Ok(()) => {
                self.services.runs.stored(asker.as_ref(), &key, &result);
                Ok(Response::new(result))
            }
            Err(StoreError::Missing(digest)) => {
                Err(missing_blobs("an output of the action is missing", &[digest]))
            }
            Err(error) => Err(to_status(error)),
        }
    }
}

/// Takes out what was stated inline, where there is a digest for it, if the answer is too large with it.
fn strip_if_large(result: &mut ActionResult) {
    if result.encoded_len() <= ANSWER_BYTES_MAX {
        return;
    }
    if result.stdout_digest.is_some() {
        result.stdout_raw.clear();
    }
    if result.stderr_digest.is_some() {
        result.stderr_raw.clear();
    }
    for file in &mut result.output_files {
        file.contents.clear();
    }
}
