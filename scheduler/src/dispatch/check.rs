//! Whether an action is fit to be run: answered already, well-formed, all its inputs there.

use bytes::Bytes;
use castwork_cas::merkle::{self, WalkError, walk_complete};
use castwork_cas::store::collect;
use castwork_cas::{ActionKey, BlobStore, ByteRange, Digest, DigestFunction, StoreError};
use castwork_proto::reapi::{self, Action, Command};
use castwork_proto::{rpc, weigh};
use prost::{Message, Name};
use tonic::Code;
use tracing::warn;

use super::folders::largest;
use super::prepared::Prepared;
use super::response::{cached, failed, missing, status, store_failed};
use super::{Limits, command};
use crate::Services;
use crate::front::errors::with_cause;
use crate::queue::{Checked, Needs, Spec};
use crate::runs::Cause;
use crate::store::pins::PinGuard;

/// What a check came to.
pub(super) struct Findings {
    pub(super) verdict: Checked,
    /// The messages for the worker, if the action is fit.
    pub(super) prepared: Option<Prepared>,
    /// Holds the inputs in the store, if the action is fit.
    pub(super) pins: Option<Pinned>,
}

/// Blobs that are held in the store.
pub(super) struct Pinned {
    pub(super) len: usize,
    _guard: PinGuard,
}

/// Sees whether an action is fit to be run; the cheapest question first.
pub(super) async fn check(services: &Services, limits: &Limits, key: &ActionKey, lookup: bool) -> Findings {
    if lookup {
        if let Some(result) = look_up(services, key).await {
            return Findings { verdict: Checked::Answered(cached(result)), prepared: None, pins: None };
        }
        services.runs.missed(key, services.runs.cause_of(key).await);
    }
    match fitness(services, limits, key).await {
        Ok((spec, prepared, pins)) => {
            if !spec.mergeable {
                services.runs.missed(key, Cause::DoNotCache);
            }
            Findings { verdict: Checked::Ready(spec), prepared: Some(prepared), pins: Some(pins) }
        }
        Err(status) => Findings { verdict: Checked::Answered(failed(status)), prepared: None, pins: None },
    }
}

async fn look_up(services: &Services, key: &ActionKey) -> Option<reapi::ActionResult> {
    match services.results.get(key).await {
        Ok(found) => found,
        Err(error) => {
            // Running it again is slower and just as right.
            warn!(action = %key.action, error = with_cause(&error), "the action cache failed");
            None
        }
    }
}

async fn fitness(
    services: &Services,
    limits: &Limits,
    key: &ActionKey,
) -> Result<(Spec, Prepared, Pinned), rpc::Status> {
    let blobs = &*services.blobs;
    let action_bytes = match fetch(blobs, &key.action, limits.action_bytes_max, "Action").await? {
        Ok(bytes) => bytes,
        Err(gone) => return Err(missing(&[gone])),
    };
    let action: Action = decode(&action_bytes, "Action")?;
    let function = key.action.function();
    let command_digest = digest(action.command_digest.as_ref(), function, "command_digest")?;
    let root = digest(action.input_root_digest.as_ref(), function, "input_root_digest")?;
    let timeout = command::timeout(&action, limits).map_err(|error| bad(&error))?;
    let command_bytes = fetch(blobs, &command_digest, limits.command_bytes_max, "Command").await?;
    let needs = match &command_bytes {
        Ok(bytes) => Some(check_command(&action, bytes, limits)?),
        Err(_) => None,
    };
    let inputs = inputs(services, &root, [key.action, command_digest]).await?;
    match (needs, command_bytes, inputs) {
        (Some((mut needs, kind)), Ok(command_bytes), Ok(Inputs { pins, is_file_system, folders })) => {
            if is_file_system {
                needs.properties = needs.properties.with_default("root", "inputs");
            }
            let spec =
                Spec { needs, kind, folders: folders.into(), timeout, mergeable: !action.do_not_cache };
            Ok((spec, Prepared { action: action_bytes, command: command_bytes }, pins))
        }
        (_, command, inputs) => {
            let gone: Vec<_> = command.err().into_iter().chain(inputs.err().into_iter().flatten()).collect();
            Err(missing(&gone))
        }
    }
}

/// What the action needs, and of what kind it is.
fn check_command(
    action: &Action,
    bytes: &Bytes,
    limits: &Limits,
) -> Result<(Needs, Option<u64>), rpc::Status> {
    let command: Command = decode(bytes, "Command")?;
    command::check(&command).map_err(|error| bad(&error))?;
    let needs = command::needs(action, &command, &limits.kinds).map_err(|error| bad(&error))?;
    Ok((needs, command::kind(&command)))
}

/// The inputs of an action, all of them there.
struct Inputs {
    pins: Pinned,
    /// Whether they are a whole file system, for the worker then makes it the action's `/`.
    is_file_system: bool,
    folders: Vec<(u64, u64)>,
}

/// Finds all inputs of an action and holds them in the store; or names all that are missing.
async fn inputs(
    services: &Services,
    root: &Digest,
    messages: [Digest; 2],
) -> Result<Result<Inputs, Vec<Digest>>, rpc::Status> {
    let tree = match walk_complete(&*services.blobs, root, &merkle::Limits::default()).await {
        Ok(tree) => tree,
        Err(WalkError::Missing(gone)) => return Ok(Err(gone)),
        Err(WalkError::Refused(error)) => return Err(bad(&error)),
        Err(WalkError::Store(error)) => return Err(store_failed(error)),
    };
    let directories = tree.directories().map(|(digest, _)| *digest);
    let all: Vec<_> = tree.file_digests().into_iter().chain(directories).chain(messages).collect();
    let is_file_system = tree.is_file_system();
    let folders = largest(&tree);
    drop(tree);
    let pins = Pinned { len: all.len(), _guard: services.pins.pin(all.iter().copied()) };
    // What was found above may have been evicted before it was pinned.
    let gone = services.blobs.find_missing(&all).await.map_err(store_failed)?;
    Ok(if gone.is_empty() { Ok(Inputs { pins, is_file_system, folders }) } else { Err(gone) })
}

/// Fetches the messages that a worker gets with its lease.
pub(super) async fn prepare(
    services: &Services,
    limits: &Limits,
    key: &ActionKey,
) -> Result<Prepared, rpc::Status> {
    let blobs = &*services.blobs;
    let action = fetch(blobs, &key.action, limits.action_bytes_max, "Action").await?;
    let action = action.map_err(|gone| missing(&[gone]))?;
    let message: Action = decode(&action, "Action")?;
    let digest = digest(message.command_digest.as_ref(), key.action.function(), "command_digest")?;
    let command = fetch(blobs, &digest, limits.command_bytes_max, "Command").await?;
    Ok(Prepared { action, command: command.map_err(|gone| missing(&[gone]))? })
}

/// Fetches a message; the inner error is the digest if there is no such blob.
async fn fetch(
    blobs: &dyn BlobStore,
    digest: &Digest,
    bytes_max: u64,
    message: &str,
) -> Result<Result<Bytes, Digest>, rpc::Status> {
    if digest.size_bytes() > bytes_max {
        let text = format!("{message} `{digest}` is larger than {bytes_max} bytes");
        return Err(status(Code::InvalidArgument, text));
    }
    let found = match blobs.get(digest, ByteRange::ALL).await {
        Ok(stream) => collect(stream, digest.size_bytes()).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(StoreError::Missing(_)) => Ok(Err(*digest)),
        Err(error) => Err(store_failed(error)),
    }
}

fn decode<M: Message + Name + Default>(bytes: &Bytes, message: &str) -> Result<M, rpc::Status> {
    weigh::decode(bytes.clone())
        .map_err(|error| status(Code::InvalidArgument, format!("bytes that are no {message}: {error}")))
}

fn digest(
    digest: Option<&reapi::Digest>,
    function: DigestFunction,
    field: &str,
) -> Result<Digest, rpc::Status> {
    let refuse = |reason: String| status(Code::InvalidArgument, format!("the action's `{field}`: {reason}"));
    let digest = digest.ok_or_else(|| refuse("is not set".to_owned()))?;
    Digest::from_proto(digest, function).map_err(|error| refuse(error.to_string()))
}

fn bad(error: &dyn std::error::Error) -> rpc::Status {
    status(Code::InvalidArgument, with_cause(error))
}
