//! Takes a worker's word only as far as it can be checked, and writes the action cache.

use std::sync::Arc;
use std::time::Duration;

use castwork_cas::complete::missing_of;
use castwork_cas::{ActionKey, BlobStore, Digest, DigestFunction, StoreError};
use castwork_proto::reapi::{Action, ActionResult, OutputDirectory};
use prost::Message as _;
use prost_types::Timestamp;
use tracing::warn;

use super::check::prepare;
use super::command::check_path;
use super::{Limits, prepared::Prepared};
use crate::Services;
use crate::caller::Caller;
use crate::front::errors::with_cause;
use crate::queue::{Origin, Response, Unpublished};

const NANOS: i64 = 1_000_000_000;

/// How long to wait at first before a store that fails is asked again; each further time twice as long.
const STORE_WAIT_FIRST: Duration = Duration::from_secs(1);
/// After so long a wait it is not asked again: a minute has passed.
const STORE_WAIT_LAST: Duration = Duration::from_secs(32);

/// What is to be published.
pub(super) struct Publication {
    pub(super) key: ActionKey,
    pub(super) response: Response,
    pub(super) origin: Arc<Origin>,
    pub(super) worker_name: Arc<str>,
    pub(super) cacheable: Option<bool>,
}

/// Sees that every blob which the result names is there, keeps the result if it may be kept, and
/// returns what clients shall see.
///
/// # Errors
/// Why the worker's word can't be taken, or that the store fails on and on.
pub(super) async fn publish(
    services: &Services,
    limits: &Limits,
    publication: Publication,
) -> Result<Response, Unpublished> {
    let Publication { key, response, origin, worker_name, cacheable } = publication;
    let mut response = Arc::unwrap_or_clone(response);
    let Some(result) = &mut response.result else { return Ok(Arc::new(response)) };
    verify(&*services.blobs, result, key.action.function()).await?;
    complete_metadata(result, &origin, &worker_name);
    let succeeded = response.status.as_ref().is_none_or(|status| status.code == 0) && result.exit_code == 0;
    let run = origin.metadata.as_ref().map_or("", |metadata| metadata.tool_invocation_id.as_str());
    let maker = Caller { run: run.into(), worker: Some(worker_name), ..Caller::default() };
    if succeeded
        && may_be_kept(services, limits, &key, cacheable).await
        && let Err(error) = maker.scope(services.results.put(&key, result.clone())).await
    {
        // The client has its result all the same; the next one will have to wait for its own.
        warn!(action = %key.action, error = with_cause(&error), "the result was not kept");
    }
    Ok(Arc::new(response))
}

/// Whether the action lets its result be kept. An action that came with a worker may not have
/// been read before.
async fn may_be_kept(services: &Services, limits: &Limits, key: &ActionKey, known: Option<bool>) -> bool {
    if let Some(known) = known {
        return known;
    }
    let Ok(Prepared { action, .. }) = prepare(services, limits, key).await else { return false };
    Action::decode(action).is_ok_and(|action| !action.do_not_cache)
}

async fn verify(
    blobs: &dyn BlobStore,
    result: &ActionResult,
    function: DigestFunction,
) -> Result<(), Unpublished> {
    let refused = |reason| Err(Unpublished::Refused(reason));
    for path in paths(result).filter(|path| !path.is_empty() && *path != ".") {
        check_path("output", path).map_err(|error| Unpublished::Refused(error.to_string()))?;
    }
    if let Some(file) = result.output_files.iter().find(|file| file.digest.is_none()) {
        return refused(format!("the worker reported output file `{}` without a digest", file.path));
    }
    let empty = |directory: &&OutputDirectory| {
        directory.tree_digest.is_none() && directory.root_directory_digest.is_none()
    };
    if let Some(directory) = result.output_directories.iter().find(empty) {
        return refused(format!(
            "the worker reported output directory `{}` without a digest",
            directory.path
        ));
    }
    match missing_patiently(blobs, result, function).await?.first() {
        Some(digest) => refused(format!("the worker reported blob `{digest}`, which is not there")),
        None => Ok(()),
    }
}

/// What is missing of a result. What a worker has done is not thrown away for a disk or tier that fails for a moment.
async fn missing_patiently(
    blobs: &dyn BlobStore,
    result: &ActionResult,
    function: DigestFunction,
) -> Result<Vec<Digest>, Unpublished> {
    let mut wait = STORE_WAIT_FIRST;
    loop {
        let error = match missing_of(blobs, result, function).await {
            Ok(missing) => return Ok(missing),
            Err(error @ StoreError::Digest(_)) => return Err(Unpublished::Refused(with_cause(&error))),
            Err(error) => with_cause(&error),
        };
        if wait > STORE_WAIT_LAST {
            return Err(Unpublished::Failed(error));
        }
        warn!(error, wait_s = wait.as_secs(), "the outputs of an action can't be looked for; trying again");
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

// Workers fill the deprecated fields, too, for clients that read nothing else.
#[allow(deprecated)]
fn paths(result: &ActionResult) -> impl Iterator<Item = &String> {
    let links = [&result.output_symlinks, &result.output_file_symlinks, &result.output_directory_symlinks];
    let files = result.output_files.iter().map(|file| &file.path);
    let directories = result.output_directories.iter().map(|directory| &directory.path);
    files.chain(directories).chain(links.into_iter().flatten().map(|link| &link.path))
}

/// Fills in what only the scheduler knows.
fn complete_metadata(result: &mut ActionResult, origin: &Origin, worker_name: &str) {
    let metadata = result.execution_metadata.get_or_insert_default();
    if metadata.worker.is_empty() {
        worker_name.clone_into(&mut metadata.worker);
    }
    let nanos = origin.queued_unix_nanos;
    if nanos > 0 {
        let small = i32::try_from(nanos.rem_euclid(NANOS)).expect("a remainder below 1e9 fits");
        metadata.queued_timestamp = Some(Timestamp { seconds: nanos.div_euclid(NANOS), nanos: small });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use castwork_cas::{BlobStream, ByteRange};
    use castwork_proto::reapi::OutputFile;

    use super::*;

    /// A store that fails for so many times, and then lacks whatever it is asked for.
    struct Failing(AtomicU32);

    #[async_trait]
    impl BlobStore for Failing {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            let times = &self.0;
            let fails = times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            match fails {
                Ok(_) => Err(StoreError::TooLarge { bytes_max: 0 }),
                Err(_) => Ok(digests.to_vec()),
            }
        }

        async fn get(&self, digest: &Digest, _: ByteRange) -> Result<BlobStream, StoreError> {
            Err(StoreError::Missing(*digest))
        }

        async fn put(&self, _: &Digest, _: BlobStream) -> Result<(), StoreError> {
            Ok(())
        }
    }

    async fn verified(failures: u32) -> Unpublished {
        let digest = Digest::of(DigestFunction::Sha256, b"output");
        let file =
            OutputFile { path: "a.o".to_owned(), digest: Some(digest.to_proto()), ..Default::default() };
        let result = ActionResult { output_files: vec![file], ..Default::default() };
        let store = Failing(AtomicU32::new(failures));
        verify(&store, &result, DigestFunction::Sha256).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_is_asked_again_and_is_no_fault_of_the_worker() {
        assert!(matches!(verified(6).await, Unpublished::Refused(reason) if reason.contains("is not there")));
        assert!(matches!(verified(7).await, Unpublished::Failed(_)));
    }
}
