//! [`FolderTier`]: answers in a folder of plain files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::files::FileBlobs;
use castwork_cas::{ActionKey, Digest, StoreError};
use castwork_proto::reapi;

use super::{Answer, TierError, packed};
use crate::direct::Manifest;
use crate::why::Accounts;

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

    /// Opens a folder that others use too, and keep within its bound; if it is read-only, nothing in it is changed.
    ///
    /// # Errors
    /// If it can't be read, or written.
    pub fn of_others(folder: &Path, is_read_only: bool) -> Result<Self, StoreError> {
        let blobs =
            if is_read_only { FileBlobs::open_read_only(folder) } else { FileBlobs::open(folder, u64::MAX) };
        Ok(Self { blobs: blobs? })
    }

    /// Returns an answer if it is there.
    ///
    /// # Errors
    /// If files can't be read.
    pub fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        Ok(self.bytes(action)?.and_then(|bytes| packed::unpack(&bytes)))
    }

    /// Keeps an answer, as one file.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn put(&self, action: &Digest, answer: &Answer) -> Result<(), TierError> {
        self.put_bytes(action, packed::pack(answer)?)
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

    /// What is kept under a name, as it is kept; `None` too if it can't be read.
    pub(super) fn raw(&self, name: &Digest) -> Option<Bytes> {
        self.bytes(name).ok().flatten()
    }

    /// Keeps what [`FolderTier::raw`] gave, if it can be kept.
    pub(super) fn put_raw(&self, name: &Digest, bytes: Bytes) {
        if let Err(error) = self.put_bytes(name, bytes) {
            tracing::debug!(error = &error as &dyn std::error::Error, "not kept locally");
        }
    }

    /// Bytes in the folder.
    pub fn usage_bytes(&self) -> u64 {
        self.blobs.usage_bytes()
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
        let answer = Answer::of_object("object".into(), Bytes::new(), "warning".into());
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
        let answer = Answer::of_object(vec![7; 1 << 20].into(), "out".into(), Bytes::new());
        tier.put(&action, &answer).unwrap();
        assert!(tier.usage_bytes() < 10_000);
        assert_eq!(tier.get(&action).unwrap(), Some(answer));
        assert_eq!(tier.manifest(&action).unwrap(), None, "an answer is no manifest");
    }
}
