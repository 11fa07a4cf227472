//! [`Explorer`]: visits each distinct directory of a tree once, wherever they come from.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{CheckedDirectory, FlatTree, Limits, MerkleError};
use crate::Digest;

/// What is known of a tree while it is visited, level by level.
///
/// Holds no I/O, so that the same bounds bind trees from stores and trees in `Tree` messages: say
/// what is [`wanted`](Self::wanted), [`take`](Self::take) an answer for each, until nothing is.
pub(super) struct Explorer<'a> {
    root: Digest,
    limits: &'a Limits,
    /// Digests that have been asked for, or are about to be.
    seen: HashSet<Digest>,
    wanted: Vec<Digest>,
    found: HashMap<Digest, (Bytes, CheckedDirectory)>,
    missing: Vec<Digest>,
    levels: usize,
    bytes: u64,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(root: &Digest, limits: &'a Limits) -> Result<Self, MerkleError> {
        let mut explorer = Self {
            root: *root,
            limits,
            seen: HashSet::new(),
            wanted: Vec::new(),
            found: HashMap::new(),
            missing: Vec::new(),
            levels: 0,
            bytes: 0,
        };
        explorer.want(*root)?;
        Ok(explorer)
    }

    /// Returns the directories of the next level, each a digest not returned before; none at the end.
    ///
    /// # Errors
    /// If that level is beyond the bound on depth. (A directory may also be deeper than the level
    /// where it is first met; [`FlatTree`] finds that.)
    pub(super) fn wanted(&mut self) -> Result<Vec<Digest>, MerkleError> {
        let wanted = std::mem::take(&mut self.wanted);
        if !wanted.is_empty() {
            self.levels += 1;
            check_bound("levels", self.levels as u64, self.limits.depth_max as u64)?;
        }
        Ok(wanted)
    }

    /// Takes a directory that was wanted; `None` if there is no such blob.
    ///
    /// # Errors
    /// If the directory is not legal, or the tree beyond a bound.
    pub(super) fn take(&mut self, digest: &Digest, data: Option<Bytes>) -> Result<(), MerkleError> {
        let Some(data) = data else {
            self.missing.push(*digest);
            return Ok(());
        };
        let directory = CheckedDirectory::from_bytes(&data, digest.function(), self.limits)
            .map_err(|error| error.in_directory(digest))?;
        for entry in &directory.directories {
            self.want(entry.digest)?;
        }
        self.found.insert(*digest, (data, directory));
        Ok(())
    }

    /// The digests that were wanted and not there.
    pub(super) fn missing(&self) -> &[Digest] {
        &self.missing
    }

    /// The files named by the directories that were there, each once.
    pub(super) fn files(&self) -> HashSet<Digest> {
        let directories = self.found.values().map(|(_, directory)| directory);
        directories.flat_map(|directory| directory.files.iter().map(|file| file.digest)).collect()
    }

    /// The whole tree, once nothing is wanted nor missing.
    pub(super) fn finish(self) -> Result<FlatTree, MerkleError> {
        FlatTree::new(self.root, self.found, self.limits)
    }

    fn want(&mut self, digest: Digest) -> Result<(), MerkleError> {
        if !self.seen.insert(digest) {
            return Ok(());
        }
        check_bound("distinct directories", self.seen.len() as u64, self.limits.directories_max as u64)?;
        check_bound("bytes in a directory", digest.size_bytes(), self.limits.directory_bytes_max)?;
        self.bytes += digest.size_bytes();
        check_bound("bytes of directories", self.bytes, self.limits.bytes_max)?;
        self.wanted.push(digest);
        Ok(())
    }
}

pub(super) fn check_bound(what: &'static str, got: u64, max: u64) -> Result<(), MerkleError> {
    if got > max { Err(MerkleError::TooMuch { what, max }) } else { Ok(()) }
}
