//! [`DiskResults`]: the results of a [`Store`](super::Store).
//!
//! A file is a header of 40 bytes and the encoded `ActionResult`: eight bytes that say what it is and in
//! which version, and the BLAKE3 hash of the result's key and bytes. So a result that was cut short,
//! damaged, or moved to another action's place is no result.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use async_trait::async_trait;
use castwork_cas::{ActionCache, ActionKey, StoreError};
use castwork_proto::reapi::ActionResult;
use prost::Message as _;
use tempfile::{NamedTempFile, TempPath};

use super::layout::FileKey;
use super::ledger::Reservation;
use super::shared::{Shared, blocking, disk};

/// What the file is; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"CWRSLT\0\x01";

const HEADER_BYTES: usize = MAGIC.len() + blake3::OUT_LEN;

/// Keeps results as files, durably. Cheap to clone.
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
        let shared = Arc::clone(&self.shared);
        let file = FileKey::of_result(key);
        blocking(move || read(&shared, &file)).await
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let (file, action) = (FileKey::of_result(key), key.action);
        // While it replaces an older one, the older one's age must not count.
        let _pin = shared.pins.pin([action]);
        let bytes = encode(&file, &result);
        let size_bytes = bytes.len() as u64;
        let mut reservation = Reservation::none(&shared.ledger);
        if !shared.ledger.reserve(size_bytes, &mut reservation).await {
            return Err(shared.no_room(&action));
        }
        let failed = |step| {
            let shared = Arc::clone(&self.shared);
            move |error| shared.write_failed(&action, step, error)
        };
        let writer = Arc::clone(&shared);
        let temporary = blocking(move || write(&writer, &bytes)).await;
        let temporary = temporary.map_err(failed("write the result of"))?;
        let committed = shared.committer.commit(file, temporary).await;
        committed.map_err(failed("keep the result of"))?;
        reservation.stored(file, size_bytes);
        shared.counters.results_stored.add(1);
        Ok(())
    }
}

fn read(shared: &Shared, key: &FileKey) -> Result<Option<ActionResult>, StoreError> {
    let Some(mut open) = shared.open(key)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    open.file.read_to_end(&mut bytes).map_err(|source| disk("read", &shared.layout.path(key), source))?;
    let result = decode(key, &bytes);
    if result.is_some() {
        shared.ledger.used([(*key, bytes.len() as u64)]);
    } else {
        shared.drop_corrupt(key, open.changed);
    }
    Ok(result)
}

fn write(shared: &Shared, bytes: &[u8]) -> io::Result<TempPath> {
    let mut file = NamedTempFile::new_in(shared.layout.tmp())?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    Ok(file.into_temp_path())
}

fn checksum(key: &FileKey, body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(key.to_string().as_bytes()).update(body).finalize()
}

fn encode(key: &FileKey, result: &ActionResult) -> Vec<u8> {
    let body = result.encode_to_vec();
    [&MAGIC[..], checksum(key, &body).as_bytes(), &body].concat()
}

fn decode(key: &FileKey, bytes: &[u8]) -> Option<ActionResult> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let hash = header.strip_prefix(&MAGIC)?;
    let is_good = checksum(key, body).as_bytes() == hash;
    if is_good { ActionResult::decode(body).ok() } else { None }
}
