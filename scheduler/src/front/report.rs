//! [`Reporter`]: an operation as a client sees it, message by message.

use std::collections::BTreeSet;

use bytes::Bytes;
use castwork_cas::complete::missing_of;
use castwork_cas::store::collect;
use castwork_cas::{BlobStore, ByteRange, Digest, DigestFunction};
use castwork_proto::longrunning::{Operation, operation};
use castwork_proto::reapi::{
    self, ActionResult, ExecuteOperationMetadata, ExecuteResponse, execution_stage::Value as ProtoStage,
};
use prost_types::Any;
use tonic::Status;

use crate::caller::Caller;
use crate::dispatch::{Dispatch, Watch, response_of, stopping};
use crate::queue::{Ending, Stage};

/// What a client wants to have in the answer itself.
#[derive(Default)]
pub(super) struct Inlining {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// Paths of output files.
    pub(super) files: BTreeSet<String>,
}

/// Tells one client about one operation, until its end.
pub(super) struct Reporter {
    watch: Watch,
    inlining: Inlining,
    dispatch: Dispatch,
    caller: Caller,
    /// How many of the operation's stages were told.
    told: usize,
    is_over: bool,
}

/// What there is to tell.
enum News {
    Stage(Stage),
    Ending(Ending),
}

impl Reporter {
    /// `from_start` tells the stages that were before, too.
    pub(super) fn new(watch: Watch, inlining: Inlining, dispatch: Dispatch, from_start: bool) -> Self {
        let told = match &*watch.state.borrow() {
            _ if from_start => 0,
            state if state.ending.is_some() => state.stages.len(),
            state => state.stages.len().saturating_sub(1),
        };
        Self { watch, inlining, dispatch, caller: Caller::current(), told, is_over: false }
    }

    /// The next message; the last of them is the operation's end, or an error.
    pub(super) async fn next(&mut self) -> Option<Result<Operation, Status>> {
        if self.is_over {
            return None;
        }
        loop {
            match self.news() {
                Some(News::Stage(stage)) => return Some(Ok(ongoing(&self.watch, stage))),
                Some(News::Ending(ending)) => {
                    self.is_over = true;
                    return Some(Ok(self.ended(&ending).await));
                }
                None => {}
            }
            tokio::select! {
                // An end that has come is told by `ended`, with all that belongs to it.
                biased;
                changed = self.watch.state.changed() => if changed.is_err() {
                    self.is_over = true;
                    return Some(Err(stopping()));
                },
                // Some clients, and what is between them and us, take silence for death.
                () = tokio::time::sleep(self.dispatch.limits().reminder_interval) => {
                    return Some(Ok(current(&self.watch)));
                }
            }
        }
    }

    fn news(&mut self) -> Option<News> {
        let state = self.watch.state.borrow_and_update();
        if let Some(stage) = state.stages.get(self.told) {
            self.told += 1;
            return Some(News::Stage(*stage));
        }
        state.ending.clone().map(News::Ending)
    }

    async fn ended(&self, ending: &Ending) -> Operation {
        let mut response = (*response_of(ending)).clone();
        if let Some(result) = &mut response.result {
            let bytes_max = self.dispatch.limits().inline_bytes_max;
            let function = self.watch.key.action.function();
            self.hold(result).await;
            inline(&*self.dispatch.services().blobs, result, function, &self.inlining, bytes_max).await;
        }
        done(&self.watch, &response)
    }

    /// Has the client's run, if it has a name, hold the outputs: it may leave them here until its end. Whoever
    /// waits for one action may be of many runs.
    async fn hold(&self, result: &ActionResult) {
        if !self.caller.run.is_empty() {
            let (blobs, function) = (&*self.dispatch.services().blobs, self.watch.key.action.function());
            // What is not there any more, the client finds missing when it wants it.
            let _ = self.caller.clone().scope(missing_of(blobs, result, function)).await;
        }
    }
}

/// An operation as it stands, without waiting for it.
pub(super) fn current(watch: &Watch) -> Operation {
    let state = watch.state.borrow();
    match &state.ending {
        Some(ending) => done(watch, &response_of(ending)),
        None => ongoing(watch, state.stages.last().copied().unwrap_or(Stage::Checking)),
    }
}

fn ongoing(watch: &Watch, stage: Stage) -> Operation {
    let stage = match stage {
        Stage::Checking => ProtoStage::CacheCheck,
        Stage::Queued => ProtoStage::Queued,
        Stage::Executing => ProtoStage::Executing,
    };
    Operation { name: watch.name.clone(), metadata: Some(metadata(watch, stage)), done: false, result: None }
}

fn done(watch: &Watch, response: &ExecuteResponse) -> Operation {
    let response = Any::from_msg(response).expect("a message encodes into a growing buffer");
    Operation {
        name: watch.name.clone(),
        metadata: Some(metadata(watch, ProtoStage::Completed)),
        done: true,
        result: Some(operation::Result::Response(response)),
    }
}

fn metadata(watch: &Watch, stage: ProtoStage) -> Any {
    let metadata = ExecuteOperationMetadata {
        stage: stage as i32,
        action_digest: Some(watch.key.action.to_proto()),
        digest_function: watch.key.action.function().to_proto() as i32,
        ..Default::default()
    };
    Any::from_msg(&metadata).expect("a message encodes into a growing buffer")
}

/// Puts into a result what the client wants in it, as far as it is there and fits, and takes out
/// what it did not ask for and can fetch.
async fn inline(
    blobs: &dyn BlobStore,
    result: &mut ActionResult,
    function: DigestFunction,
    wanted: &Inlining,
    bytes_max: usize,
) {
    let mut room = bytes_max;
    let fields = [
        (wanted.stdout, &result.stdout_digest, &mut result.stdout_raw),
        (wanted.stderr, &result.stderr_digest, &mut result.stderr_raw),
    ];
    for (wanted, digest, raw) in fields {
        inline_one(blobs, digest.as_ref(), function, wanted, raw, &mut room).await;
    }
    for file in &mut result.output_files {
        let wanted = wanted.files.contains(&file.path);
        inline_one(blobs, file.digest.as_ref(), function, wanted, &mut file.contents, &mut room).await;
    }
}

async fn inline_one(
    blobs: &dyn BlobStore,
    digest: Option<&reapi::Digest>,
    function: DigestFunction,
    wanted: bool,
    raw: &mut Bytes,
    room: &mut usize,
) {
    let Some(digest) = digest.and_then(|digest| Digest::from_proto(digest, function).ok()) else { return };
    let fits = usize::try_from(digest.size_bytes()).is_ok_and(|size| size <= *room);
    if !wanted || !fits {
        raw.clear();
        return;
    }
    if raw.is_empty() {
        let read = async { collect(blobs.get(&digest, ByteRange::ALL).await?, digest.size_bytes()).await };
        // What can't be read now, the client finds by its digest, or finds missing.
        *raw = read.await.unwrap_or_default();
    }
    *room = room.saturating_sub(raw.len());
}
