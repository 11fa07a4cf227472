//! [`Local`]: the blobs that the worker has, as files that inputs can be linked to.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::files::{FileBlobs, Pinned};
use castwork_cas::{BlobStore, Digest, DigestFunction, Hasher, StoreError};
use futures::{StreamExt, stream};

use crate::sandbox::{Owner, set_mode};

/// Share of the bound that second, executable copies may take, in percent.
const PROGRAMS_PERCENT: u64 = 25;

/// Files up to this size are read once, into memory, to be hashed and kept.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// What is read at once of larger ones, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The local CAS, and a second one whose files are executable.
///
/// Hard links share the mode of a file, so a blob that is an executable in one place and a plain
/// file in another needs two inodes.
#[derive(Clone)]
pub(crate) struct Local {
    blobs: Arc<FileBlobs>,
    programs: Arc<FileBlobs>,
    owner: Owner,
}

impl Local {
    /// Opens both below `data_dir`. `owner` is whom linked files have to belong to.
    pub(crate) fn open(data_dir: &Path, bytes_max: u64, owner: Owner) -> Result<Self, StoreError> {
        let programs_max = bytes_max / 100 * PROGRAMS_PERCENT;
        Ok(Self {
            blobs: Arc::new(FileBlobs::open(&data_dir.join("cas"), bytes_max - programs_max)?),
            programs: Arc::new(FileBlobs::open(&data_dir.join("programs"), programs_max)?),
            owner,
        })
    }

    /// Bytes that are kept, and may be kept.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let both = [&self.blobs, &self.programs];
        (both.iter().map(|blobs| blobs.usage_bytes()).sum(), both.iter().map(|blobs| blobs.bytes_max()).sum())
    }

    /// What was used within that time is still here; `None` as long as nothing had to go.
    pub(crate) fn horizon(&self) -> Option<Duration> {
        self.blobs.horizon().into_iter().chain(self.programs.horizon()).min()
    }

    /// The blobs as a store.
    pub(crate) fn blobs(&self) -> &FileBlobs {
        &self.blobs
    }

    /// Whom laid-out files have to belong to.
    pub(crate) const fn owner(&self) -> Owner {
        self.owner
    }

    /// A file with that content and mode, for links. Blocks.
    pub(crate) fn file(&self, digest: &Digest, is_executable: bool) -> Result<Pinned, StoreError> {
        let plain = self.blobs.path_of(digest)?;
        let pinned = if is_executable { self.program(digest, &plain)? } else { plain };
        let take = || {
            let metadata = std::fs::metadata(pinned.path())?;
            if self.owner.lacks(&metadata) { self.owner.take(pinned.path()) } else { Ok(()) }
        };
        take().map_err(disk("give a file to the actions' user"))?;
        Ok(pinned)
    }

    fn program(&self, digest: &Digest, plain: &Pinned) -> Result<Pinned, StoreError> {
        self.programs.put_file(digest, plain.path())?;
        let pinned = self.programs.path_of(digest)?;
        set_mode(pinned.path(), 0o555).map_err(disk("make a file executable"))?;
        Ok(pinned)
    }

    /// Keeps bytes, and says what they are called. Blocks.
    pub(crate) fn keep_bytes(&self, function: DigestFunction, data: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(function, data);
        self.blobs.put_bytes(&digest, data)?;
        Ok(digest)
    }

    /// Keeps an open file that nobody writes any more, and says what it is called. Blocks, in a runtime.
    pub(crate) fn keep_file(&self, function: DigestFunction, mut file: File) -> Result<Digest, StoreError> {
        let size_bytes = file.metadata().map_err(disk("look at an output"))?.len();
        if size_bytes <= WHOLE_BYTES_MAX {
            let mut data = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
            file.read_to_end(&mut data).map_err(disk("read an output"))?;
            return self.keep_bytes(function, &data);
        }
        let digest = hash(function, &mut file).map_err(disk("read an output"))?;
        file.rewind().map_err(disk("read an output"))?;
        let pieces = stream::iter(Pieces(file)).boxed();
        // This thread may block; the store's own work is on others.
        tokio::runtime::Handle::current().block_on(self.blobs.put(&digest, pieces))?;
        Ok(digest)
    }
}

fn disk(step: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Disk { step: step.to_owned(), source }
}

fn hash(function: DigestFunction, file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(function);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            got => hasher.update(&piece[..got]),
        }
    }
}

/// The content of a file, piece by piece.
struct Pieces(File);

impl Iterator for Pieces {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = vec![0; PIECE_BYTES];
        match self.0.read(&mut piece) {
            Ok(0) => None,
            Ok(got) => {
                piece.truncate(got);
                Some(Ok(piece.into()))
            }
            Err(error) => Some(Err(disk("read an output")(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn small_and_large_files_are_kept_under_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::open(folder.path(), 1 << 30, Owner::of_this_process()).unwrap();
        for length in [0_usize, 5, 3 << 20] {
            let data = vec![7; length];
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&data).unwrap();
            file.rewind().unwrap();
            let keeper = local.clone();
            let kept = tokio::task::spawn_blocking(move || keeper.keep_file(DigestFunction::Blake3, file));
            let digest = kept.await.unwrap().unwrap();
            assert_eq!(digest, Digest::of(DigestFunction::Blake3, &data));
            assert_eq!(local.blobs().get_bytes(&digest).unwrap().unwrap(), data);
        }
    }

    #[test]
    fn one_blob_is_a_plain_file_and_a_program_without_either_changing_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::open(folder.path(), 1 << 30, Owner::of_this_process()).unwrap();
        let digest = local.keep_bytes(DigestFunction::Sha256, b"#!/bin/sh\n").unwrap();
        let plain = local.file(&digest, false).unwrap();
        let program = local.file(&digest, true).unwrap();
        assert_ne!(plain.path(), program.path());
        let before = std::fs::metadata(plain.path()).unwrap().permissions();
        local.file(&digest, true).unwrap();
        assert_eq!(std::fs::metadata(plain.path()).unwrap().permissions(), before);
        assert_ne!(std::fs::metadata(program.path()).unwrap().permissions(), before);
    }
}
