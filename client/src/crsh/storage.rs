//! [`Entries`]: ccache's entries at a REAPI server.
//!
//! An entry is the result of an action that nobody runs, whose command names the key; its value is the one output. So
//! it goes to any server that speaks REAPI, is kept, verified and evicted like all else there, and is found only while
//! its value is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::store::collect;
use castwork_cas::{
    ActionCache, ActionKey, BlobStore, ByteRange, Digest, DigestFunction, Remote, StoreError,
};
use castwork_proto::reapi::{Action, ActionResult, Command, ExecutedActionMetadata, OutputFile};
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Code;

use super::protocol::{Answer, Request, VALUE_BYTES_MAX};

/// Names the kind of entry; what is stored changes with it.
const FORMAT: &str = "ccache-storage-castwork-1";

const VALUE: &str = "value";

/// The exit code of an entry that was removed. A result can be replaced, but not taken back.
const REMOVED: i32 = 1;

/// After a call that did not reach the server, how long nobody else waits for it.
const LEFT_ALONE: Duration = Duration::from_secs(5);

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Entries {
    remote: Remote,
    left_alone_until: Arc<Mutex<Option<Instant>>>,
}

/// An entry's place: the action, and the messages that it is made of.
struct Place {
    key: ActionKey,
    messages: [(Digest, Bytes); 2],
}

impl Place {
    fn of(key: &[u8]) -> Self {
        let blob = |data: Vec<u8>| (Digest::of(FUNCTION, &data), Bytes::from(data));
        let arguments = vec![FORMAT.to_owned(), hex::encode(key)];
        let command = blob(Command { arguments, ..Command::default() }.encode_to_vec());
        let action = Action {
            command_digest: Some(command.0.to_proto()),
            input_root_digest: Some(Digest::empty(FUNCTION).to_proto()),
            ..Action::default()
        };
        let action = blob(action.encode_to_vec());
        Self { key: ActionKey { instance: "".into(), action: action.0 }, messages: [action, command] }
    }
}

impl Entries {
    /// Keeps entries at a server.
    pub fn new(remote: Remote) -> Self {
        Self { remote, left_alone_until: Arc::default() }
    }

    /// Does what is wanted; never waits for a server that was not reached a moment ago.
    pub async fn answer(&self, request: Request) -> Answer {
        let is_left_alone = self.left_alone_until.lock().await.is_some_and(|until| Instant::now() < until);
        // An answer to `Info` can't say that it failed; it needs no server.
        if is_left_alone && !matches!(request, Request::Info) {
            return Answer::Failed(format!("{} was not reached a moment ago", self.remote.address()));
        }
        let answer = match request {
            Request::Get(key) => self.get(&Place::of(&key)).await,
            Request::Put { key, overwrite, value } => self.put(Place::of(&key), overwrite, value).await,
            Request::Remove(key) => self.remove(&Place::of(&key)).await,
            Request::Stop => Ok(Answer::Done),
            Request::Info => Ok(self.info()),
        };
        match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.note(&error).await;
                Answer::Failed(said(&error))
            }
        }
    }

    fn info(&self) -> Answer {
        let name = concat!("ccache-storage-castwork ", env!("CARGO_PKG_VERSION")).to_owned();
        Answer::Info(name, vec![format!("entries are kept at {}", self.remote.address())])
    }

    async fn note(&self, error: &StoreError) {
        if let StoreError::Remote { source, .. } = error
            && matches!(source.code(), Code::Unavailable | Code::DeadlineExceeded)
        {
            *self.left_alone_until.lock().await = Some(Instant::now() + LEFT_ALONE);
        }
    }

    async fn find(&self, place: &Place) -> Result<Option<OutputFile>, StoreError> {
        let result = self.remote.result_with(&place.key, &[VALUE]).await?;
        let result = result.filter(|result| result.exit_code != REMOVED);
        Ok(result.and_then(|result| result.output_files.into_iter().find(|file| file.path == VALUE)))
    }

    async fn get(&self, place: &Place) -> Result<Answer, StoreError> {
        let Some(file) = self.find(place).await? else { return Ok(Answer::Noop) };
        let digest = Digest::from_proto(&file.digest.unwrap_or_default(), FUNCTION)?;
        // No value of ours: nobody could have put it.
        if digest.size_bytes() > VALUE_BYTES_MAX {
            return Ok(Answer::Noop);
        }
        // What was sent along is believed only if it is what the digest says.
        if file.contents.len() as u64 == digest.size_bytes() && Digest::of(FUNCTION, &file.contents) == digest
        {
            return Ok(Answer::Value(file.contents));
        }
        match BlobStore::get(&self.remote, &digest, ByteRange::ALL).await {
            Ok(data) => Ok(Answer::Value(collect(data, digest.size_bytes()).await?)),
            Err(StoreError::Missing(_)) => Ok(Answer::Noop),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, place: Place, overwrite: bool, value: Bytes) -> Result<Answer, StoreError> {
        if !overwrite && self.find(&place).await?.is_some() {
            return Ok(Answer::Noop);
        }
        let digest = Digest::of(FUNCTION, &value);
        let [action, command] = place.messages;
        self.remote.put_many(vec![action, command, (digest, value)]).await?;
        let file =
            OutputFile { path: VALUE.to_owned(), digest: Some(digest.to_proto()), ..OutputFile::default() };
        let result = ActionResult { output_files: vec![file], ..new_result() };
        ActionCache::put(&self.remote, &place.key, result).await?;
        Ok(Answer::Done)
    }

    async fn remove(&self, place: &Place) -> Result<Answer, StoreError> {
        if self.find(place).await?.is_none() {
            return Ok(Answer::Noop);
        }
        self.remote.put_many(place.messages.to_vec()).await?;
        let removed = ActionResult { exit_code: REMOVED, ..new_result() };
        ActionCache::put(&self.remote, &place.key, removed).await?;
        Ok(Answer::Done)
    }
}

/// Some clients take a result without metadata for a broken one.
fn new_result() -> ActionResult {
    let metadata =
        ExecutedActionMetadata { worker: "ccache".to_owned(), ..ExecutedActionMetadata::default() };
    ActionResult { execution_metadata: Some(metadata), ..ActionResult::default() }
}

fn said(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
