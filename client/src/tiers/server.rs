//! [`ServerTier`]: answers from a server that speaks the Remote Execution API.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use castwork_cas::remote::Remote;
use castwork_cas::{ActionCache, ActionKey, Digest, DigestFunction, StoreError};
use castwork_proto::reapi;
use castwork_trace::Kind;
use tokio::runtime::Runtime;

use super::breaker::Breaker;
use super::contact::{Inputs, Server, TRANSFER_TIMEOUT};
use super::upload::{Source, upload};
use super::watch::while_there;
use super::{Answer, GIVE, Output, Part, Parts, TierError, execute, made_here, parts, to_result};
use crate::action::OBJECT;
use crate::direct::Manifest;
use crate::direct::key::ManifestKey;
use crate::files::write_whole;
use crate::local::Forwarding;
use crate::run::KEPT_BYTES_MAX;
use crate::spans;

/// Most bytes of a manifest that is sent.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// The longest wait for the answer to a question, connecting included.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The same, of a server that was found to be down before.
const ASK_AGAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What a call is about, as servers are told.
const COMPILE: &str = "compile";

/// The same, for what is no action but remembers what was seen with one; castwork's servers know the word.
const MANIFEST: &str = "manifest";

/// Who was first.
pub enum First<T> {
    /// The server.
    Server(Answer),
    /// What was done meanwhile.
    Other(T),
}

/// Answers from a server. Nothing is started, and nobody connected to, before it is asked.
pub struct ServerTier {
    server: Server,
    breaker: Breaker,
    execution_breaker: Breaker,
    writing_breaker: Breaker,
    /// Whether it may be asked to run something, and be given something. Each breaker is asked once: when its pause is
    /// over, only the first who asks may try.
    may_execute: OnceCell<bool>,
    may_write: OnceCell<bool>,
    /// The folder that the processes of this user share.
    folder: PathBuf,
    connection: OnceCell<(Runtime, Remote)>,
}

impl ServerTier {
    /// The tier of a server; `folder` is where it is remembered if the server is down.
    pub fn new(server: Server, folder: &Path) -> Self {
        let breaker = Breaker::new(folder, &server.address);
        let own =
            |what: &str| Breaker::new(folder, &format!("{}/{} {what}", server.address, server.instance));
        Self {
            breaker,
            execution_breaker: own("execution"),
            writing_breaker: own("writing"),
            may_execute: OnceCell::new(),
            may_write: OnceCell::new(),
            folder: folder.to_owned(),
            connection: OnceCell::new(),
            server,
        }
    }

    /// Whether the server may be asked: it was not found to be down a moment ago.
    pub fn may_be_asked(&self) -> bool {
        self.breaker.allows()
    }

    /// Whether the server with this address, when it was last asked, ran actions: a build on it may have more jobs than this
    /// machine has cores.
    pub fn is_known_to_execute(server: &Server, folder: &Path) -> bool {
        executes_file(server, folder).exists()
    }

    /// Whether the server may be asked to run something: it did not refuse that, or what it needs for it, a moment ago.
    pub fn may_execute(&self) -> bool {
        *self.may_execute.get_or_init(|| self.execution_breaker.allows()) && self.may_write()
    }

    /// Whether the server may be given something: it did not refuse a moment ago, for want of room or of a right.
    fn may_write(&self) -> bool {
        *self.may_write.get_or_init(|| self.writing_breaker.allows())
    }

    fn check_writing(&self) -> Result<(), TierError> {
        if self.may_write() { Ok(()) } else { Err(TierError::Unfit("server that took nothing a moment ago")) }
    }

    /// Returns an answer if the server has all of it.
    ///
    /// # Errors
    /// If it can't be reached within bounds, or answers what it must not.
    pub fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        let (runtime, remote) = &self.connection_for(action, COMPILE)?;
        self.wait(runtime, async {
            match self.result(remote, action).await? {
                Some(result) => self.download(remote, &result).await,
                None => Ok(None),
            }
        })
    }

    /// Returns the manifest that is kept under a key.
    ///
    /// # Errors
    /// As [`ServerTier::get`].
    pub fn manifest(&self, key: &ManifestKey) -> Result<Option<Manifest>, TierError> {
        let (runtime, remote) = &self.connection_for(&key.digest, MANIFEST)?;
        let found = self.wait(runtime, self.result(remote, &key.digest));
        Ok(found?.and_then(|result| Manifest::from_bytes(&result.stdout_raw)))
    }

    /// Keeps a manifest at the server.
    ///
    /// # Errors
    /// If the server doesn't take it.
    pub fn put_manifest(&self, key: &ManifestKey, manifest: &Manifest) -> Result<(), TierError> {
        let Some(bytes) = manifest.to_bytes().filter(|bytes| bytes.len() <= MANIFEST_BYTES_MAX) else {
            return Ok(());
        };
        self.check_writing()?;
        let (runtime, remote) = &self.connection_for(&key.digest, MANIFEST)?;
        let result = reapi::ActionResult { stdout_raw: bytes.into(), ..made_here() };
        self.wait(runtime, async {
            self.give(remote, key.messages.iter()).await?;
            self.put_result(remote, &key.digest, result).await
        })
        .inspect(|()| self.writing_breaker.worked())
    }

    async fn result(
        &self,
        remote: &Remote,
        action: &Digest,
    ) -> Result<Option<reapi::ActionResult>, TierError> {
        let step = "ask the server's cache";
        let key = self.key(action);
        let asked = tokio::time::timeout(self.ask_timeout(), remote.result_with(&key, &[OBJECT])).await;
        asked.map_err(|_| TierError::TooLate { step })?.map_err(TierError::at(step))
    }

    /// Uploads what is in memory.
    async fn give(
        &self,
        remote: &Remote,
        blobs: impl Iterator<Item = &(Digest, Bytes)>,
    ) -> Result<(), TierError> {
        let sources = blobs.map(|(digest, data)| (*digest, Source::Bytes(data.clone())));
        upload(remote, sources.collect(), &self.folder).await
    }

    async fn put_result(
        &self,
        remote: &Remote,
        action: &Digest,
        result: reapi::ActionResult,
    ) -> Result<(), TierError> {
        let step = GIVE;
        let key = self.key(action);
        let kept = tokio::time::timeout(TRANSFER_TIMEOUT, ActionCache::put(remote, &key, result)).await;
        kept.map_err(|_| TierError::TooLate { step })?.map_err(TierError::at(step))
    }

    /// Whether the server runs actions, for which it has to have workers, and whether it takes results.
    ///
    /// # Errors
    /// As [`ServerTier::get`].
    pub fn capabilities(&self) -> Result<(bool, bool), TierError> {
        let (runtime, remote) = self.connection()?;
        let step = "ask what the server can do";
        let asked = runtime.block_on(async {
            let asked = tokio::time::timeout(self.ask_timeout(), remote.capabilities()).await;
            let known = asked.map_err(|_| TierError::TooLate { step })?.map_err(TierError::at(step))?;
            Ok((known.executes(), known.has_workers, known.takes_results()))
        });
        self.note(&asked);
        // Whether it has workers at the moment is another matter: a build may have more jobs than this machine has cores.
        if let Ok((executes, ..)) = &asked {
            let file = executes_file(&self.server, &self.folder);
            if file.exists() != *executes {
                // Not to know it costs no more than time.
                let _ = if *executes { write_whole(&file, b"") } else { std::fs::remove_file(&file) };
            }
        }
        asked.map(|(executes, has_workers, takes_results)| (executes && has_workers, takes_results))
    }

    /// Has the action run by a worker, after uploading what the server lacks of it.
    ///
    /// # Errors
    /// If it could not be, or did not end with 0: then the compiler is to be run here.
    pub fn execute(&self, action: &Digest, inputs: &Inputs) -> Result<Answer, TierError> {
        let never = std::future::pending::<Option<Infallible>>();
        match self.execute_or(action, inputs, never, || false)? {
            First::Server(answer) => Ok(answer),
            First::Other(never) => match never {},
        }
    }

    /// The same, while something else is done that may be first, or may come to nothing; begun when the server has all that
    /// it needs, because who won meanwhile would cut an upload short that others need as well. If the server fails and
    /// that `is_running`, it is waited for.
    ///
    /// # Errors
    /// As [`ServerTier::execute`], if there is nothing else.
    pub fn execute_or<T>(
        &self,
        action: &Digest,
        inputs: &Inputs,
        other: impl Future<Output = Option<T>>,
        is_running: impl Fn() -> bool,
    ) -> Result<First<T>, TierError> {
        let (runtime, remote) = &self.connection_for(action, COMPILE)?;
        let (begin, begun) = tokio::sync::oneshot::channel();
        let name = execute::Name::default();
        let server = while_there(&self.server, &self.breaker, async {
            upload(remote, inputs.sources(), &self.folder).await?;
            let _ = begin.send(());
            let result = match execute::execute(remote, action, &name).await {
                // Lost between upload and use: once more.
                Err(execute::Failure::MissingInputs) => {
                    upload(remote, inputs.sources(), &self.folder).await?;
                    execute::execute(remote, action, &name).await
                }
                ended => ended,
            };
            let result = result.map_err(execute::Failure::into_error)?;
            let answer = self.download(remote, &result).await?;
            let answer = answer.ok_or(TierError::Unfit("remote result that is gone"))?;
            // Workers cut what is very long.
            if answer.stdout.len().max(answer.stderr.len()) > KEPT_BYTES_MAX {
                return Err(TierError::Unfit("messages that are too long to be kept"));
            }
            Ok(answer)
        });
        runtime.block_on(async {
            let other = async {
                begun.await.ok()?;
                other.await
            };
            tokio::pin!(other);
            tokio::select! {
                biased;
                ran = server => {
                    self.note_execution(&ran);
                    match ran {
                        Err(error) if is_running() => other.await.map(First::Other).ok_or(error),
                        ran => ran.map(First::Server),
                    }
                }
                Some(other) = &mut other => {
                    execute::cancel(remote, &name).await;
                    Ok(First::Other(other))
                }
            }
        })
    }

    fn note_execution(&self, ran: &Result<Answer, TierError>) {
        match ran {
            Err(TierError::Execution { is_lasting: true, .. }) => self.execution_breaker.failed(),
            Ok(_) => self.execution_breaker.worked(),
            _ => self.note(ran),
        }
    }

    /// Keeps an answer of our own making at the server, if it takes results; whether it does.
    ///
    /// # Errors
    /// If it can't be asked, or doesn't take this one.
    pub fn keep(
        &self,
        action: &Digest,
        inputs: &Inputs,
        answer: &Answer,
        took: Duration,
    ) -> Result<bool, TierError> {
        let (_, takes_results) = self.capabilities()?;
        if takes_results {
            self.check_writing()?;
            spans::part("keep it", Kind::Client, || self.put(action, inputs, answer, took))?;
        }
        Ok(takes_results)
    }

    fn put(
        &self,
        action: &Digest,
        inputs: &Inputs,
        answer: &Answer,
        took: Duration,
    ) -> Result<(), TierError> {
        let (runtime, remote) = &self.connection_for(action, COMPILE)?;
        let (mut result, blobs) = to_result(answer);
        // So that it is known what the next one saves who gets it.
        let metadata = result.execution_metadata.get_or_insert_default();
        let now = SystemTime::now();
        metadata.execution_start_timestamp = now.checked_sub(took).map(Into::into);
        metadata.execution_completed_timestamp = Some(now.into());
        self.wait(runtime, async {
            // A result's action and command have to be there; what the action reads need not.
            self.give(remote, inputs.messages.iter().take(2).chain(&blobs)).await?;
            self.put_result(remote, action, result).await
        })
        .inspect(|()| self.writing_breaker.worked())
    }

    /// Waits for what the server does, as long as it is there; and remembers if it is not.
    fn wait<T>(
        &self,
        runtime: &Runtime,
        work: impl Future<Output = Result<T, TierError>>,
    ) -> Result<T, TierError> {
        let ended = runtime.block_on(while_there(&self.server, &self.breaker, work));
        self.note(&ended);
        ended
    }

    /// The longest wait for the answer to a question.
    fn ask_timeout(&self) -> Duration {
        if self.breaker.failures() == 0 { ASK_TIMEOUT } else { ASK_AGAIN_TIMEOUT }
    }

    fn connection(&self) -> Result<&(Runtime, Remote), TierError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Signals are for the thread that passes them on to a compiler.
            .on_thread_start(Forwarding::not_to_this_thread)
            .build()
            .map_err(|_| TierError::Unfit("no runtime for a connection"))?;
        let remote = {
            let _inside = runtime.enter();
            self.server.connect().map_err(TierError::at("connect"))?
        };
        Ok(self.connection.get_or_init(|| (runtime, remote)))
    }

    /// The connection, with requests that say what they are for.
    fn connection_for(&self, action: &Digest, purpose: &str) -> Result<(&Runtime, Remote), TierError> {
        let (runtime, remote) = self.connection()?;
        let metadata = self.server.request_metadata(Some(action), purpose);
        let remote = remote.with_request_metadata(&metadata);
        Ok((
            runtime,
            match spans::traceparent() {
                Some(span) => remote.with_traceparent(&span),
                None => remote,
            },
        ))
    }

    fn key(&self, action: &Digest) -> ActionKey {
        ActionKey { instance: Arc::from(self.server.instance.as_str()), action: *action }
    }

    /// Remembers whether the server is there.
    fn note<T>(&self, outcome: &Result<T, TierError>) {
        match outcome {
            Ok(_) => self.breaker.worked(),
            Err(error) if error.is_refusal() => self.writing_breaker.failed(),
            Err(error) if error.is_down() => self.breaker.failed(),
            Err(_) => {}
        }
    }

    /// Gets what a result names. `None` if some of it is gone.
    async fn download(
        &self,
        remote: &Remote,
        result: &reapi::ActionResult,
    ) -> Result<Option<Answer>, TierError> {
        let Parts { outputs, stdout, stderr } = parts(result)?;
        let all = outputs.iter().map(|(_, part)| part).chain([&stdout, &stderr]);
        let wanted: Vec<Digest> = all
            .filter_map(|part| match part {
                Part::Blob(digest) => Some(*digest),
                Part::Inline(_) => None,
            })
            .collect();
        let mut got = std::collections::HashMap::new();
        if !wanted.is_empty() {
            for (digest, data) in remote.get_many(&wanted).await {
                match data {
                    Ok(data) => got.insert(digest, data),
                    Err(StoreError::Missing(_)) => return Ok(None),
                    Err(error) => return Err(TierError::at("download")(error)),
                };
            }
        }
        let data = |part: Part| match part {
            Part::Inline(data) => Some(data),
            Part::Blob(digest) if digest.is_empty_blob() => Some(Bytes::new()),
            Part::Blob(digest) => got.get(&digest).cloned(),
        };
        let outputs = outputs.into_iter().map(|(output, part)| Some(Output { data: data(part)?, ..output }));
        let outputs: Option<Vec<Output>> = outputs.collect();
        let answer = outputs.zip(data(stdout)).zip(data(stderr));
        Ok(answer.map(|((outputs, stdout), stderr)| Answer { outputs, stdout, stderr }))
    }
}

/// The file that is there while a server is known to run actions.
fn executes_file(server: &Server, folder: &Path) -> PathBuf {
    let name = format!("{}/{}", server.address, server.instance);
    let name = Digest::of(DigestFunction::Sha256, name.as_bytes()).hash_hex();
    folder.join("executes").join(&name[..32])
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::config::{Address, Config};

    #[test]
    fn who_may_try_again_may_do_so_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Server { address: "grpc://h:1".to_owned(), instance: String::new() };
        let config = Config::load(&std::collections::BTreeMap::new(), |_| None).unwrap();
        let tier = || ServerTier::new(Server::new(&address, &config).unwrap(), folder.path());
        for breaker in [tier().execution_breaker, tier().writing_breaker] {
            breaker.failed();
            assert!(!tier().may_execute());
            for entry in folder.path().join("down").read_dir().unwrap().flatten() {
                let past = SystemTime::now() - Duration::from_secs(3600);
                File::options().write(true).open(entry.path()).unwrap().set_modified(past).unwrap();
            }
            let first = tier();
            assert!(
                first.may_execute() && first.may_execute(),
                "it is asked when it begins and when it is sent"
            );
            assert!(!tier().may_execute(), "the others go on waiting");
            breaker.worked();
            assert!(tier().may_execute());
        }
    }
}
