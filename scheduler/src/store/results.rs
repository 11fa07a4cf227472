//! [`DiskResults`]: the results of a [`Store`](super::Store).
//!
//! A result's body is a header of 40 bytes, its [`Provenance`], and the encoded `ActionResult`: eight bytes that say
//! what it is and in which version, and the BLAKE3 hash of the result's key and of all that follows. So a result that
//! was cut short, damaged, or moved to another action's place is no result. The first version had no provenance.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use castwork_cas::{ActionCache, ActionKey, StoreError};
use castwork_proto::reapi::ActionResult;
use prost::Message as _;
use tokio::sync::RwLockReadGuard;
use tokio::time::timeout;
use tracing::debug;

use super::layout::FileKey;
use super::ledger::{Reservation, now_ms};
use super::provenance::Provenance;
use super::segments::{Item, Origin};
use super::shared::Shared;
use crate::caller::Caller;
use crate::tier::Tier;

/// What the body is, and the version of its format.
const MAGIC: [u8; 8] = *b"CWRSLT\0\x02";

/// The first version: nobody knows where such a result came from.
const OLDER_MAGIC: [u8; 8] = *b"CWRSLT\0\x01";

/// The longest wait for results to be taken back before the tier is asked for one.
const REVOKING_WAIT: Duration = Duration::from_secs(2);

const HEADER_BYTES: usize = MAGIC.len() + blake3::OUT_LEN;

/// What a result's body holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Nothing in it if the result is of the first version.
    pub(super) provenance: Provenance,
    pub(super) result: ActionResult,
}

/// Keeps results, durably. Cheap to clone.
///
/// It does not look at what a result names; whoever stores one has seen to it that the blobs are there.
#[derive(Clone)]
pub struct DiskResults {
    pub(super) shared: Arc<Shared>,
    /// Has what is not here.
    pub(super) tier: Option<Arc<Tier>>,
}

impl DiskResults {
    pub(super) fn new(shared: Arc<Shared>, tier: Option<Arc<Tier>>) -> Self {
        Self { shared, tier }
    }
}

impl DiskResults {
    /// The result that is here, unless it is too old.
    async fn find(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let file = FileKey::of_result(key);
        let Some(body) = self.shared.find_small(file).await? else { return Ok(None) };
        let Some(Entry { provenance, result }) = decode(&file, &body) else { return Ok(None) };
        if self.shared.results_age.is_over(provenance.made()) {
            return Ok(None);
        }
        self.shared.segments.touch(&file);
        self.shared.pins.hold([key.action]);
        Ok(Some(result))
    }

    /// The result that the tier has, kept here from now on, unless it is too old.
    async fn fetch(&self, tier: &Tier, key: &ActionKey) -> Option<ActionResult> {
        // What is taken back must not come back by a look that began before; one that would wait for long is none.
        let _still = timeout(REVOKING_WAIT, self.still()).await.ok()?;
        let result = tier.result(key).await?;
        let provenance = Provenance::of_tier(key, tier.address(), &result);
        if self.shared.results_age.is_over(provenance.made()) {
            return None;
        }
        let entry = Entry { provenance, result: result.clone() };
        if let Err(error) = self.keep(key, entry, Origin::Older { stored_ms: now_ms() }).await {
            debug!(action = %key.action, %error, "a result from the tier is not kept here");
        }
        // One that was stored here meanwhile is newer.
        Some(self.find(key).await.ok().flatten().unwrap_or(result))
    }

    /// While this is held, nothing is taken back.
    pub(crate) async fn still(&self) -> RwLockReadGuard<'_, ()> {
        self.shared.revoking.read().await
    }

    async fn keep(&self, key: &ActionKey, entry: Entry, origin: Origin) -> Result<(), StoreError> {
        let shared = &self.shared;
        let (key, action) = (FileKey::of_result(key), key.action);
        // While it replaces an older one, the older one's age must not count.
        let _pin = shared.pins.pin([action]);
        let body = encode(&key, &entry);
        let mut reservation = Reservation::none(&shared.ledger);
        if !shared.ledger.reserve(body.len() as u64, &mut reservation).await {
            return Err(shared.no_room(&action));
        }
        let item = Item { key, body: body.into(), origin };
        let kept = shared.segments.append(vec![item]).await;
        kept.map_err(|error| shared.write_failed(&action, "keep the result of", error))?;
        shared.counters.results_stored.add(1);
        shared.pins.hold([action]);
        Ok(())
    }
}

#[async_trait]
impl ActionCache for DiskResults {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        match (self.find(key).await?, &self.tier) {
            (None, Some(tier)) => Ok(self.fetch(tier, key).await),
            (found, _) => Ok(found),
        }
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let provenance = Provenance::now(key, &Caller::current());
        self.keep(key, Entry { provenance, result }, Origin::New).await?;
        if let Some(offers) = self.shared.offers.get() {
            offers.result(key);
        }
        Ok(())
    }
}

fn checksum(key: &FileKey, body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(key.to_string().as_bytes()).update(body).finalize()
}

pub(super) fn encode(key: &FileKey, entry: &Entry) -> Vec<u8> {
    let mut body = entry.provenance.encode_length_delimited_to_vec();
    entry.result.encode(&mut body).expect("a message encodes into a growing buffer");
    [&MAGIC[..], checksum(key, &body).as_bytes(), &body].concat()
}

pub(super) fn decode(key: &FileKey, bytes: &[u8]) -> Option<Entry> {
    let (header, mut body) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, hash) = header.split_at(MAGIC.len());
    if checksum(key, body).as_bytes() != hash {
        return None;
    }
    let provenance = match <[u8; 8]>::try_from(magic) {
        Ok(MAGIC) => Provenance::decode_length_delimited(&mut body).ok()?,
        Ok(OLDER_MAGIC) => Provenance::default(),
        _ => return None,
    };
    Some(Entry { provenance, result: ActionResult::decode(body).ok()? })
}

/// As the first version wrote it.
#[cfg(test)]
pub(super) fn encode_older(key: &FileKey, result: &ActionResult) -> Vec<u8> {
    let body = result.encode_to_vec();
    [&OLDER_MAGIC[..], checksum(key, &body).as_bytes(), &body].concat()
}

/// Whether the bytes are a result that was written under this key.
pub(super) fn is_whole(key: &FileKey, bytes: &[u8]) -> bool {
    decode(key, bytes).is_some()
}
