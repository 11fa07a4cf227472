//! [`DiskResults`]: the results of a [`Store`](super::Store).
//!
//! A result's body is a header of 40 bytes and the encoded `ActionResult`: eight bytes that say what it is and
//! in which version, and the BLAKE3 hash of the result's key and bytes. So a result that was cut short,
//! damaged, or moved to another action's place is no result.

use std::sync::Arc;

use async_trait::async_trait;
use castwork_cas::{ActionCache, ActionKey, StoreError};
use castwork_proto::reapi::ActionResult;
use prost::Message as _;

use super::layout::FileKey;
use super::ledger::Reservation;
use super::segments::{Item, Origin};
use super::shared::Shared;

/// What the file is; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"CWRSLT\0\x01";

const HEADER_BYTES: usize = MAGIC.len() + blake3::OUT_LEN;

/// Keeps results, durably. Cheap to clone.
///
/// It does not look at what a result names; whoever stores one has seen to it that the blobs are there.
#[derive(Clone)]
pub struct DiskResults {
    shared: Arc<Shared>,
}

impl DiskResults {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl ActionCache for DiskResults {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let key = FileKey::of_result(key);
        let Some(body) = self.shared.find_small(key).await? else { return Ok(None) };
        self.shared.segments.touch(&key);
        Ok(decode(&key, &body))
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let shared = &self.shared;
        let (key, action) = (FileKey::of_result(key), key.action);
        // While it replaces an older one, the older one's age must not count.
        let _pin = shared.pins.pin([action]);
        let body = encode(&key, &result);
        let mut reservation = Reservation::none(&shared.ledger);
        if !shared.ledger.reserve(body.len() as u64, &mut reservation).await {
            return Err(shared.no_room(&action));
        }
        let item = Item { key, body: body.into(), origin: Origin::New };
        let kept = shared.segments.append(vec![item]).await;
        kept.map_err(|error| shared.write_failed(&action, "keep the result of", error))?;
        shared.counters.results_stored.add(1);
        Ok(())
    }
}

fn checksum(key: &FileKey, body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(key.to_string().as_bytes()).update(body).finalize()
}

pub(super) fn encode(key: &FileKey, result: &ActionResult) -> Vec<u8> {
    let body = result.encode_to_vec();
    [&MAGIC[..], checksum(key, &body).as_bytes(), &body].concat()
}

pub(super) fn decode(key: &FileKey, bytes: &[u8]) -> Option<ActionResult> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let hash = header.strip_prefix(&MAGIC)?;
    let is_good = checksum(key, body).as_bytes() == hash;
    if is_good { ActionResult::decode(body).ok() } else { None }
}

/// Whether the bytes are a result that was written under this key.
pub(super) fn is_whole(key: &FileKey, bytes: &[u8]) -> bool {
    decode(key, bytes).is_some()
}
