//! [`FolderTier`]: answers in a folder of plain files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::files::FileBlobs;
use castwork_cas::{ActionKey, Digest, StoreError};

use super::{Answer, Part, TierError, parts, to_result};

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

    /// Returns an answer if all of it is there.
    ///
    /// # Errors
    /// If files can't be read.
    pub fn get(&self, action: &Digest) -> Result<Option<Answer>, TierError> {
        let step = "read a cache folder";
        let Some(result) = self.blobs.results().get_result(&key(action)).map_err(TierError::at(step))? else {
            return Ok(None);
        };
        let mut bytes: Vec<Bytes> = Vec::with_capacity(3);
        for part in parts(&result)? {
            match part {
                Part::Inline(data) => bytes.push(data),
                Part::Blob(digest) => match self.blobs.get_bytes(&digest).map_err(TierError::at(step))? {
                    Some(data) => bytes.push(data),
                    None => return Ok(None),
                },
            }
        }
        let [object, stdout, stderr] = <[Bytes; 3]>::try_from(bytes).expect("a part for each of three");
        Ok(Some(Answer { object, stdout, stderr }))
    }

    /// Keeps an answer: first what it consists of, then the result that names that.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn put(&self, action: &Digest, answer: &Answer) -> Result<(), TierError> {
        let step = "write a cache folder";
        let (result, blobs) = to_result(answer);
        for (digest, data) in &blobs {
            self.blobs.put_bytes(digest, data).map_err(TierError::at(step))?;
        }
        self.blobs.results().put_result(&key(action), &result).map_err(TierError::at(step))
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
        let answer = Answer { object: "object".into(), stdout: Bytes::new(), stderr: "warning".into() };
        assert_eq!(tier.get(&action).unwrap(), None);
        tier.put(&action, &answer).unwrap();
        assert_eq!(tier.get(&action).unwrap(), Some(answer));
        std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
        assert_eq!(tier.get(&action).unwrap(), None);
    }
}
