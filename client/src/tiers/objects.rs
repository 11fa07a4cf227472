//! [`ObjectsTier`]: answers in an object store, without any server of ours.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::{ActionCache, ActionKey, Digest, Objects, StoreError};
use castwork_proto::reapi;
use tokio::runtime::Runtime;

use super::breaker::Breaker;
use super::packs::Packs;
use super::{Answer, FolderTier, TierError, packed};
use crate::config::Config;
use crate::direct::Manifest;

/// Names the kind of what is kept, apart from what servers keep in the same store; changes with it.
const KIND: &str = "client-1";

/// The longest wait for an answer, connecting included, and in a transfer for the next bytes.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest wait for a whole transfer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is around the bytes of an object, at most.
const FRAME_BYTES: u64 = 1024;

/// Answers in an object store: one object each, so that a hit is one round trip; in packs where uploads are counted.
/// Nothing is started, and nobody
/// connected to, before it is asked.
pub struct ObjectsTier {
    url: String,
    is_read_only: bool,
    breaker: Breaker,
    /// If an object is too dear for one answer.
    packs: Option<Packs>,
    connection: OnceCell<Connection>,
}

struct Connection {
    runtime: Runtime,
    asking: Objects,
    giving: Objects,
}

impl ObjectsTier {
    /// The tier of the store that a URL names; if it is read-only, nothing in it is ever changed.
    ///
    /// # Errors
    /// If the local cache is needed, and can't be opened.
    pub fn new(url: &str, is_read_only: bool, config: &Config) -> Result<Self, StoreError> {
        let packs = if Packs::are_needed(url) {
            let local = FolderTier::open(&config.dir.join("cache"), config.max_size_bytes)?;
            Some(Packs::new(url, &config.dir, local))
        } else {
            None
        };
        let breaker = Breaker::new(&config.dir, url);
        Ok(Self { url: url.to_owned(), is_read_only, breaker, packs, connection: OnceCell::new() })
    }

    /// Whether the store may be asked: it was not found to be down a moment ago.
    pub fn may_be_asked(&self) -> bool {
        self.breaker.allows()
    }

    /// Returns an answer if it is there.
    ///
    /// # Errors
    /// If the store can't be reached within bounds, or refuses.
    pub fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        Ok(self.bytes(action)?.and_then(|bytes| packed::unpack(&bytes)))
    }

    /// Keeps an answer, as one object; `false` if it is too large for one.
    ///
    /// # Errors
    /// If the store doesn't take it.
    pub fn put(&self, action: &Digest, answer: &Answer) -> Result<bool, TierError> {
        self.put_bytes(action, packed::pack(answer)?)
    }

    /// Returns the manifest that is kept under a key.
    ///
    /// # Errors
    /// As [`ObjectsTier::get`].
    pub fn manifest(&self, key: &Digest) -> Result<Option<Manifest>, TierError> {
        Ok(self.bytes(key)?.and_then(|bytes| Manifest::from_bytes(&bytes)))
    }

    /// Keeps a manifest; `false` if it is too large.
    ///
    /// # Errors
    /// As [`ObjectsTier::put`].
    pub fn put_manifest(&self, key: &Digest, manifest: &Manifest) -> Result<bool, TierError> {
        manifest.to_bytes().map_or(Ok(false), |bytes| self.put_bytes(key, bytes.into()))
    }

    /// Asks the store for what it can't have, to see whether it answers.
    ///
    /// # Errors
    /// As [`ObjectsTier::get`].
    pub fn reach(&self) -> Result<(), TierError> {
        self.bytes(&Digest::of(castwork_cas::DigestFunction::Sha256, b"is anybody there?")).map(drop)
    }

    /// Sends what waits to be sent with more; how many answers and manifests that were.
    ///
    /// # Errors
    /// As [`ObjectsTier::put`].
    pub fn flush(&self) -> Result<usize, TierError> {
        let Some(packs) = self.packs.as_ref().filter(|packs| packs.has_some()) else { return Ok(0) };
        let Connection { runtime, giving, .. } = self.connection()?;
        let sent =
            runtime.block_on(packs.flush(giving)).map_err(TierError::at("give the object store a pack"));
        self.note(&sent);
        sent
    }

    fn bytes(&self, name: &Digest) -> Result<Option<Bytes>, TierError> {
        let step = "ask the object store";
        let Connection { runtime, asking, .. } = self.connection()?;
        let ask = async {
            match &self.packs {
                Some(packs) => packs.find(asking, name).await,
                None => Ok(ActionCache::get(asking, &place(name)).await?.map(|result| result.stdout_raw)),
            }
        };
        let asked = runtime.block_on(async { tokio::time::timeout(TRANSFER_TIMEOUT, ask).await });
        let found = asked
            .map_err(|_| TierError::TooLate { step })
            .and_then(|found| found.map_err(TierError::at(step)));
        self.note(&found);
        found
    }

    /// An object is a result whose standard output is what we keep, so that it is checked when it is read.
    fn put_bytes(&self, name: &Digest, bytes: Bytes) -> Result<bool, TierError> {
        if bytes.len() as u64 + FRAME_BYTES > Objects::RESULT_BYTES_MAX {
            return Ok(false);
        }
        let step = "give the object store a result";
        let Connection { runtime, giving, .. } = self.connection()?;
        let given = runtime.block_on(async {
            if let Some(packs) = &self.packs {
                return packs.put(giving, name, &bytes).await;
            }
            let result = reapi::ActionResult { stdout_raw: bytes, ..reapi::ActionResult::default() };
            ActionCache::put(giving, &place(name), result).await
        });
        let given = given.map_err(TierError::at(step));
        self.note(&given);
        given.map(|()| true)
    }

    fn connection(&self) -> Result<&Connection, TierError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| TierError::Unfit("no runtime for a connection"))?;
        let asking = {
            let _inside = runtime.enter();
            Objects::open(&self.url, ASK_TIMEOUT).map_err(TierError::at("connect"))
        };
        self.note(&asking);
        let asking = if self.is_read_only { asking?.read_only() } else { asking? };
        let giving = asking.within(TRANSFER_TIMEOUT);
        Ok(self.connection.get_or_init(|| Connection { runtime, asking, giving }))
    }

    /// Remembers whether the store is there.
    fn note<T>(&self, outcome: &Result<T, TierError>) {
        match outcome {
            Ok(_) => self.breaker.worked(),
            Err(TierError::TooLate { .. } | TierError::Store { source: StoreError::Remote { .. }, .. }) => {
                self.breaker.failed();
            }
            Err(_) => {}
        }
    }
}

fn place(name: &Digest) -> ActionKey {
    ActionKey { instance: Arc::from(KIND), action: *name }
}
