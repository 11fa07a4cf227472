//! [`HostFiles`]: whether a file of the worker is the one that the client has.
//!
//! Until compilers travel, this is what keeps a compile from running with another compiler than
//! the client's.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use castwork_cas::{Digest, DigestFunction, Hasher};

use crate::action::HostFile;
use crate::failure::Failure;
use crate::sandbox::{FileIdentity, Sandbox};

/// Most files whose digests are remembered; beyond that, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Digests of the worker's own files, remembered as long as the files don't change.
#[derive(Debug, Default)]
pub(crate) struct HostFiles {
    known: Mutex<HashMap<PathBuf, (FileIdentity, Digest)>>,
}

impl HostFiles {
    /// Checks the conditions of an action. Blocks.
    ///
    /// Asked again after the run, it tells whether a file was replaced meanwhile.
    pub(crate) fn check(&self, wanted: &[HostFile], sandbox: &dyn Sandbox) -> Result<(), Failure> {
        for HostFile { path, digest } in wanted {
            let own = self.digest_of(path, sandbox).map_err(|error| {
                Failure::Precondition(format!("worker has no `{}` to compare: {error}", path.display()))
            })?;
            if own != *digest {
                return Err(Failure::Precondition(format!(
                    "worker's `{}` is not the client's: `{own}` instead of `{digest}`",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    fn digest_of(&self, path: &Path, sandbox: &dyn Sandbox) -> io::Result<Digest> {
        if !sandbox.shows(path) || !sandbox.shows(&path.canonicalize()?) {
            return Err(io::Error::other("actions don't see it"));
        }
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let identity = FileIdentity::of(&metadata);
        if let Some((_, digest)) = self.known().get(path).filter(|(known, _)| *known == identity) {
            return Ok(*digest);
        }
        let mut file = File::open(path)?;
        let digest = hash(&mut file)?;
        // Of what was read, as it is after reading: a change in between makes it another.
        let after = FileIdentity::of(&file.metadata()?);
        if after != identity {
            return Err(io::Error::other("it changes"));
        }
        let mut known = self.known();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(path.to_owned(), (identity, digest));
        Ok(digest)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (FileIdentity, Digest)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(DigestFunction::Sha256);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            got => hasher.update(&piece[..got]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Unconfined;

    #[test]
    fn a_file_that_is_replaced_is_no_longer_the_clients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cc");
        fs::write(&path, "one").unwrap();
        let digest = Digest::of(DigestFunction::Sha256, b"one");
        let wanted = [HostFile { path: path.clone(), digest }];
        let files = HostFiles::default();
        files.check(&wanted, &Unconfined).unwrap();
        files.check(&wanted, &Unconfined).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "two").unwrap();
        let failure = files.check(&wanted, &Unconfined).unwrap_err();
        assert!(matches!(&failure, Failure::Precondition(text) if text.contains("is not the client's")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(files.check(&wanted, &Unconfined), Err(Failure::Precondition(_))));
    }
}
