//! [`FolderTier`]: answers in a folder of plain files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::files::FileBlobs;
use castwork_cas::{ActionKey, Digest, StoreError};
use castwork_proto::reapi;
use prost::Message as _;

use super::{Answer, OUTPUT_BYTES_MAX, TierError};
use crate::direct::Manifest;
use crate::why::Accounts;

/// The level of compression: results are written once and read often.
const LEVEL: i32 = 3;

/// Answers in a folder, shared by any number of processes, bounded in size.
pub struct FolderTier {
    blobs: FileBlobs,
}

impl FolderTier {
    /// Opens a folder, creating it if need be.
    ///
    /// # Errors
    /// If it can't be created or written.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        Ok(Self { blobs: FileBlobs::open(folder, bytes_max)? })
    }

    /// Returns an answer if it is there.
    ///
    /// # Errors
    /// If files can't be read.
    pub fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        let read = self.bytes(action)?.and_then(|bytes| Packed::unpack(&bytes));
        Ok(read.map(|Packed { object, stdout, stderr }| Answer { object, stdout, stderr }))
    }

    /// Keeps an answer, as one file.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn put(&self, action: &Digest, answer: &Answer) -> Result<(), TierError> {
        let Answer { object, stdout, stderr } = answer.clone();
        let packed = Packed { object, stdout, stderr }.pack();
        self.put_bytes(action, packed.ok_or(TierError::Unfit("result that can't be compressed"))?)
    }

    /// Returns the manifest that is kept under a key.
    ///
    /// # Errors
    /// If files can't be read.
    pub fn manifest(&self, key: &Digest) -> Result<Option<Manifest>, TierError> {
        Ok(self.bytes(key)?.and_then(|bytes| Manifest::from_bytes(&bytes)))
    }

    /// Keeps a manifest.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn put_manifest(&self, key: &Digest, manifest: &Manifest) -> Result<(), TierError> {
        match manifest.to_bytes() {
            Some(bytes) => self.put_bytes(key, bytes.into()),
            None => Ok(()),
        }
    }

    /// Returns the accounts that are kept under a key.
    ///
    /// # Errors
    /// If files can't be read.
    pub fn accounts(&self, key: &Digest) -> Result<Option<Accounts>, TierError> {
        Ok(self.bytes(key)?.and_then(|bytes| Accounts::from_bytes(&bytes)))
    }

    /// Keeps accounts.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn put_accounts(&self, key: &Digest, accounts: &Accounts) -> Result<(), TierError> {
        accounts.to_bytes().map_or(Ok(()), |bytes| self.put_bytes(key, bytes.into()))
    }

    fn bytes(&self, name: &Digest) -> Result<Option<Bytes>, TierError> {
        let read =
            self.blobs.results().get_result(&key(name)).map_err(TierError::at("read a cache folder"))?;
        Ok(read.map(|result| result.stdout_raw))
    }

    /// A file of the cache is a result whose standard output is what we keep, so that it is checked when it is read.
    fn put_bytes(&self, name: &Digest, bytes: Bytes) -> Result<(), TierError> {
        let result = reapi::ActionResult { stdout_raw: bytes, ..reapi::ActionResult::default() };
        let kept = self.blobs.results().put_result(&key(name), &result);
        kept.map_err(TierError::at("write a cache folder"))
    }

    /// Bytes in the folder.
    pub fn usage_bytes(&self) -> u64 {
        self.blobs.usage_bytes()
    }
}

/// An answer in one piece.
#[derive(Clone, PartialEq, prost::Message)]
struct Packed {
    #[prost(bytes = "bytes", tag = "1")]
    object: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    stdout: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    stderr: Bytes,
}

impl Packed {
    fn pack(&self) -> Option<Bytes> {
        let plain = self.encode_to_vec();
        let mut bytes = (plain.len() as u64).to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(&plain, LEVEL).ok()?);
        Some(bytes.into())
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let (size, packed) = bytes.split_first_chunk()?;
        let size = u64::from_le_bytes(*size);
        let size = usize::try_from(size).ok().filter(|_| size <= 2 * OUTPUT_BYTES_MAX)?;
        let plain = zstd::bulk::decompress(packed, size).ok().filter(|plain| plain.len() == size)?;
        Self::decode(Bytes::from(plain)).ok()
    }
}

fn key(action: &Digest) -> ActionKey {
    ActionKey { instance: Arc::from(""), action: *action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castwork_cas::DigestFunction;

    #[test]
    fn an_answer_counts_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let tier = FolderTier::open(folder.path(), 1 << 20).unwrap();
        let action = Digest::of(DigestFunction::Sha256, b"action");
        let answer = Answer { object: "object".into(), stdout: Bytes::new(), stderr: "warning".into() };
        assert_eq!(tier.get(&action).unwrap(), None);
        tier.put(&action, &answer).unwrap();
        assert_eq!(tier.get(&action).unwrap(), Some(answer));
        let file = walk(folder.path());
        let whole = std::fs::read(&file).unwrap();
        for end in [0, 10, whole.len() - 1] {
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(tier.get(&action).unwrap(), None, "the first {end} bytes");
        }
    }

    /// The one file of results.
    fn walk(folder: &Path) -> std::path::PathBuf {
        let mut path = folder.join("results");
        while path.is_dir() {
            let mut entries = path.read_dir().unwrap();
            path = entries.next().unwrap().unwrap().path();
            assert!(entries.next().is_none());
        }
        path
    }

    #[test]
    fn objects_are_small_in_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let tier = FolderTier::open(folder.path(), 1 << 30).unwrap();
        let action = Digest::of(DigestFunction::Sha256, b"action");
        let answer = Answer { object: vec![7; 1 << 20].into(), stdout: "out".into(), stderr: Bytes::new() };
        tier.put(&action, &answer).unwrap();
        assert!(tier.usage_bytes() < 10_000);
        assert_eq!(tier.get(&action).unwrap(), Some(answer));
        assert_eq!(tier.manifest(&action).unwrap(), None, "an answer is no manifest");
    }
}
