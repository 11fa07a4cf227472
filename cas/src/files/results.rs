//! [`FileActions`]: results as plain files.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use castwork_proto::reapi::ActionResult;
use prost::Message as _;
use tracing::warn;

use super::blobs::blocking;
use super::folder::{Folder, disk};
use crate::{ActionCache, ActionKey, StoreError};

/// Bytes before the message: its BLAKE3.
const CHECKSUM_BYTES: usize = 32;

/// Results in the folder of a [`FileBlobs`](super::FileBlobs).
///
/// A result says nothing about whether the blobs it names are there: wrap it in
/// [`Complete`](crate::Complete), or look before use.
#[derive(Clone)]
pub struct FileActions {
    folder: Arc<Folder>,
}

impl FileActions {
    pub(super) const fn new(folder: Arc<Folder>) -> Self {
        Self { folder }
    }

    /// Returns a result, if one is known and its file is whole. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the file can't be read.
    pub fn get_result(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let place = self.place(key);
        let mut file = match File::open(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("open", &place, error)),
        };
        let mut data = Vec::new();
        file.read_to_end(&mut data).map_err(|error| disk("read", &place, error))?;
        let result = decode_result(key, &data);
        if result.is_some() {
            self.folder.touch(&file);
        } else {
            warn!(action = %key.action, "the file of a result is torn");
            self.folder.remove(&place);
        }
        Ok(result)
    }

    /// Keeps a result in place of an earlier one. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if it can't be written.
    pub fn put_result(&self, key: &ActionKey, result: &ActionResult) -> Result<(), StoreError> {
        let data = encode_result(key, result);
        let mut file = self.folder.temporary()?;
        file.write_all(&data).map_err(|error| disk("write", file.path(), error))?;
        self.folder.keep(file, &self.place(key), data.len() as u64)
    }

    fn place(&self, key: &ActionKey) -> PathBuf {
        // An instance's name may hold anything; its hash is a good name for a folder.
        let instance = blake3::hash(key.instance.as_bytes()).to_hex();
        self.folder.place(&format!("results/{}", &instance[..16]), &key.action)
    }
}

/// The bytes that a result is kept as: a checksum of them and of the key, and the message. So a result that was moved
/// to another action's place is no result.
pub(crate) fn encode_result(key: &ActionKey, result: &ActionResult) -> Vec<u8> {
    let message = result.encode_to_vec();
    [&checksum(key, &message).as_bytes()[..], &message].concat()
}

/// Reads what [`encode_result`] wrote for this key; `None` if it is anything else.
pub(crate) fn decode_result(key: &ActionKey, data: &[u8]) -> Option<ActionResult> {
    let (expected, message) = data.split_at_checked(CHECKSUM_BYTES)?;
    if checksum(key, message).as_bytes() != expected {
        return None;
    }
    ActionResult::decode(message).ok()
}

fn checksum(key: &ActionKey, message: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    // Lengths stand in front, so that no two keys are written the same.
    hasher.update(&(key.instance.len() as u64).to_le_bytes()).update(key.instance.as_bytes());
    hasher.update(key.action.function().name().as_bytes()).update(b" ").update(key.action.hash());
    hasher.update(&key.action.size_bytes().to_le_bytes()).update(message);
    hasher.finalize()
}

#[async_trait]
impl ActionCache for FileActions {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let (results, key) = (self.clone(), key.clone());
        blocking(move || results.get_result(&key)).await
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let (results, key) = (self.clone(), key.clone());
        blocking(move || results.put_result(&key, &result)).await
    }
}
