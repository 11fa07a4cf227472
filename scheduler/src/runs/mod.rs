//! [`Runs`]: what became of each run, for `castwork report`.
//!
//! A run is what a client calls one: a build, or a job of CI, by REAPI's `tool_invocation_id`. The services
//! say here what they answer to whom. None of it is needed to serve, so nothing waits for it: it is counted in
//! memory, written to a file now and then, and bounded in every direction.

mod asker;
mod book;
mod cause;
mod file;
mod recent;
mod record;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use castwork_cas::{ActionKey, Digest};
use castwork_proto::reapi::{ActionResult, ExecutedActionMetadata};
use castwork_proto::runs::{Report, ToldPart};
use tracing::warn;

pub(crate) use asker::{Asker, Configuration};
use book::{Answer, Book, Execution, Limits, RunKey};
pub use cause::Cause;
pub(crate) use cause::Causes;
use file::RunsFile;
pub(crate) use recent::Ended;
use recent::Recent;
use record::Told;
pub(crate) use record::timestamp;

/// How an execution ended, as it is told here.
pub(crate) enum Ending<'a> {
    /// With a result of the cache.
    Cached(&'a ActionResult),
    /// With a result that a worker made, maybe for another's request.
    Ran { result: &'a ActionResult, is_shared: bool },
    /// Without a result.
    Refused(&'static str),
}

/// What became of each run. Shared by all services.
#[derive(Default)]
pub struct Runs {
    book: Mutex<Book>,
    recent: Mutex<Recent>,
    file: Mutex<Option<RunsFile>>,
    causes: Option<Causes>,
}

impl Runs {
    /// Goes on with the account at `path`.
    pub(crate) fn open(path: &Path, causes: Causes) -> std::io::Result<Self> {
        let mut book = Book::new(Limits::default());
        let file = RunsFile::open(path, |line| book.restore(line))?;
        Ok(Self {
            book: Mutex::new(book),
            file: Mutex::new(Some(file)),
            causes: Some(causes),
            ..Self::default()
        })
    }

    /// Why an action, which was just looked up in vain, has no result.
    pub(crate) async fn cause_of(&self, key: &ActionKey) -> Cause {
        match &self.causes {
            Some(causes) => causes.of(key).await,
            None => Cause::NeverSeen,
        }
    }

    /// Notes why an action that is going to be run has no result in the cache.
    pub(crate) fn missed(&self, key: &ActionKey, cause: Cause) {
        locked(&self.recent).missed(key.action, cause);
    }

    /// Notes that an action was found.
    pub(crate) fn hit(&self, asker: Option<&Asker>, key: &ActionKey, result: &ActionResult) {
        let Some(asker) = asker.filter(|asker| asker.is_for_action) else { return };
        let saved_ms = took_ms(result);
        let answer = Answer::Hit { saved_ms };
        locked(&self.book).looked_up(now_ms(), &key.instance, asker, start_of(&key.action), answer);
        self.remember(key, &asker.run, "hit", None, Some(result));
    }

    /// Notes that an action was looked up in vain.
    pub(crate) fn miss(&self, asker: Option<&Asker>, key: &ActionKey, cause: Cause) {
        self.missed(key, cause);
        let Some(asker) = asker.filter(|asker| asker.is_for_action) else { return };
        let answer = Answer::Miss(cause);
        locked(&self.book).looked_up(now_ms(), &key.instance, asker, start_of(&key.action), answer);
        self.remember(key, &asker.run, "miss", Some(cause), None);
    }

    /// Notes that the client gave a result of its own making.
    pub(crate) fn stored(&self, asker: Option<&Asker>, key: &ActionKey, result: &ActionResult) {
        let Some(asker) = asker.filter(|asker| asker.is_for_action) else { return };
        locked(&self.book).stored(now_ms(), &key.instance, asker);
        self.remember(key, &asker.run, "stored", None, Some(result));
    }

    /// Notes how an execution ended; `lookup` is whether the client wanted the cache asked.
    pub(crate) fn executed(&self, asker: Option<&Asker>, key: &ActionKey, lookup: bool, ending: &Ending<'_>) {
        let known = locked(&self.recent).cause(&key.action);
        let cause = if lookup { known } else { Some(Cause::SkipCacheLookup) };
        let run = asker.map_or("", |asker| asker.run.as_str());
        let end = match *ending {
            Ending::Cached(result) => {
                self.remember(key, run, "hit", None, Some(result));
                Execution::Cached { saved_ms: took_ms(result) }
            }
            Ending::Ran { result, is_shared } => {
                let has_failed = result.exit_code != 0;
                let outcome = if has_failed {
                    "failed"
                } else if is_shared {
                    "shared"
                } else {
                    "ran"
                };
                let cause = cause.unwrap_or(Cause::NeverSeen);
                self.remember(key, run, outcome, Some(cause), Some(result));
                Execution::Ran { cause, is_shared, has_failed, took_ms: took_ms(result) }
            }
            Ending::Refused(code) => {
                self.remember(key, run, code, cause, None);
                Execution::Refused { cause, code }
            }
        };
        if let Some(asker) = asker {
            locked(&self.book).executed(now_ms(), &key.instance, asker, start_of(&key.action), end);
        }
    }

    /// Notes bytes of blobs that a client has uploaded, or asked for.
    pub(crate) fn moved(&self, asker: Option<&Asker>, instance: &str, uploaded: u64, downloaded: u64) {
        if let Some(asker) = asker {
            locked(&self.book).moved(now_ms(), instance, asker, uploaded, downloaded);
        }
    }

    /// Takes what a client says of a run. `false` if there is no room for one more teller.
    pub(crate) fn told(
        &self,
        instance: &str,
        run: &str,
        tool: &str,
        teller: &str,
        parts: Vec<ToldPart>,
    ) -> bool {
        let mut book = locked(&self.book);
        let mut has_room = true;
        for ToldPart { configuration, told } in parts {
            let castwork_proto::runs::Configuration { project, toolchain, platform } =
                configuration.unwrap_or_default();
            let asker = Asker {
                run: asker::clip(run.to_owned()),
                tool: asker::clip(tool.to_owned()),
                configuration: Configuration { project, toolchain, platform }.clipped(),
                is_for_action: true,
            };
            let told = Told::from_proto(told.unwrap_or_default());
            has_room &= book.told(now_ms(), instance, &asker, teller, told);
        }
        has_room
    }

    /// What is known of a run.
    pub(crate) fn report(&self, instance: &str, run: &str, project: &str, platform: &str) -> Option<Report> {
        let key = RunKey { instance: instance.to_owned(), run: run.to_owned() };
        locked(&self.book).report(&key, project, platform)
    }

    /// What became of actions whose hash begins so, the newest first.
    pub(crate) fn ended(&self, hash_start: &str, max: usize) -> Vec<Ended> {
        locked(&self.recent).find(hash_start, max)
    }

    /// Writes down what has changed. Blocks.
    pub(crate) fn save(&self) {
        // The file first, so that lines get there in the order in which they came about.
        let mut file = locked(&self.file);
        let changes = locked(&self.book).take_changes();
        if let Some(file) = file.as_mut()
            && !changes.is_empty()
            && let Err(error) = file.write(&changes, || locked(&self.book).all())
        {
            warn!(%error, "what became of runs could not be written down");
        }
    }

    fn remember(
        &self,
        key: &ActionKey,
        run: &str,
        outcome: &'static str,
        cause: Option<Cause>,
        result: Option<&ActionResult>,
    ) {
        let metadata = result.and_then(|result| result.execution_metadata.as_ref());
        let ended = Ended {
            key: key.clone(),
            run: run.into(),
            at_ms: now_ms(),
            outcome,
            cause,
            worker: metadata.map_or("", |metadata| metadata.worker.as_str()).into(),
            took_ms: result.map_or(0, took_ms),
        };
        locked(&self.recent).add(ended);
    }
}

fn locked<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// By what an action is told from the others of its run.
fn start_of(action: &Digest) -> u64 {
    u64::from_str_radix(&action.hash_hex()[..16], 16).expect("a hash has at least sixteen digits")
}

/// How long the command took; 0 if nobody knows.
fn took_ms(result: &ActionResult) -> u64 {
    let Some(ExecutedActionMetadata {
        execution_start_timestamp: Some(start),
        execution_completed_timestamp: Some(end),
        ..
    }) = &result.execution_metadata
    else {
        return 0;
    };
    let nanos =
        |time: &prost_types::Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    u64::try_from((nanos(end) - nanos(start)) / 1_000_000).unwrap_or(0)
}
