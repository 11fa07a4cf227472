//! [`folder_tree`]: the Merkle tree of a folder on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{BuiltTree, Limits, MerkleError, TreeBuilder, shorten};
use crate::files::platform;
use crate::{Digest, DigestFunction, Hasher};

/// A folder as a tree, and where the bytes of its files lie.
#[derive(Clone, Debug)]
pub struct FolderTree {
    /// The directories.
    pub tree: BuiltTree,
    /// For each distinct file, one path where it lies.
    pub files: BTreeMap<Digest, PathBuf>,
}

/// Why a folder is no tree, or a tree could not be written as one.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Something in it that a tree cannot hold.
    #[error("`{path}` {reason}")]
    Entry {
        /// Where.
        path: String,
        /// Why a tree cannot hold it.
        reason: &'static str,
    },
    /// Illegal or too large.
    #[error("the folder is no legal tree")]
    Merkle(#[from] MerkleError),
    /// The contents of a file could not be had.
    #[error("contents of `{path}`")]
    Contents {
        /// Where it was to be.
        path: String,
        /// Why.
        #[source]
        source: Box<crate::StoreError>,
    },
    /// The disk failed.
    #[error("{step} `{path}`")]
    Disk {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl FolderError {
    pub(super) fn disk(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Disk { step, path, source }
    }

    pub(super) fn entry(path: &Path, reason: &'static str) -> Self {
        Self::Entry { path: shorten(&path.to_string_lossy()), reason }
    }
}

/// Reads a folder: every file is hashed, symbolic links are kept as they are and never followed.
///
/// The folder must not change meanwhile; a file that does may be in the tree with either content,
/// but never with a digest that neither had.
///
/// # Errors
/// [`FolderError::Entry`] for names and link targets that are not UTF-8, and for sockets, pipes
/// and devices.
pub fn folder_tree(
    folder: &Path,
    function: DigestFunction,
    limits: &Limits,
) -> Result<FolderTree, FolderError> {
    let mut reader = Reader { function, limits, tree: TreeBuilder::new(), files: BTreeMap::new(), paths: 0 };
    // Each open folder with its path in the tree: a list and not recursion, so depth costs no stack.
    let mut open = vec![(folder.to_owned(), String::new(), 1)];
    while let Some((folder, inner, depth)) = open.pop() {
        if depth > limits.depth_max {
            let max = limits.depth_max as u64;
            return Err(MerkleError::TooMuch { what: "levels", max }.into());
        }
        let entries = fs::read_dir(&folder).map_err(FolderError::disk("read folder", &folder))?;
        for entry in entries {
            let entry = entry.map_err(FolderError::disk("read folder", &folder))?;
            if let Some(inner) = reader.add(&entry, &inner)? {
                open.push((entry.path(), inner, depth + 1));
            }
        }
    }
    Ok(FolderTree { tree: reader.tree.build(function), files: reader.files })
}

struct Reader<'a> {
    function: DigestFunction,
    limits: &'a Limits,
    tree: TreeBuilder,
    files: BTreeMap<Digest, PathBuf>,
    paths: u64,
}

impl Reader<'_> {
    /// Adds an entry of the folder that is `inner` in the tree; a folder's path in the tree is
    /// returned, to be read in its turn.
    fn add(&mut self, entry: &fs::DirEntry, inner: &str) -> Result<Option<String>, FolderError> {
        self.paths += 1;
        super::explore::check_bound("paths", self.paths, self.limits.paths_max)?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| FolderError::entry(&path, "has a name that is not UTF-8"))?;
        let inner = if inner.is_empty() { name.to_owned() } else { format!("{inner}/{name}") };
        let kind = entry.file_type().map_err(FolderError::disk("look at", &path))?;
        if kind.is_dir() {
            self.tree.add_directory(&inner)?;
            return Ok(Some(inner));
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(FolderError::disk("read link", &path))?;
            let target =
                target.to_str().ok_or_else(|| FolderError::entry(&path, "has a target that is not UTF-8"))?;
            self.tree.add_symlink(&inner, target)?;
        } else if kind.is_file() {
            let (file, is_executable) =
                platform::open_regular(&path).map_err(FolderError::disk("open", &path))?;
            let digest = digest_of(file, self.function).map_err(FolderError::disk("read", &path))?;
            self.tree.add_file(&inner, digest, is_executable)?;
            self.files.entry(digest).or_insert(path);
        } else {
            return Err(FolderError::entry(&path, "is no file, folder or symbolic link"));
        }
        Ok(None)
    }
}

/// Hashes a file from where it stands to its end.
pub(crate) fn digest_of(mut file: File, function: DigestFunction) -> io::Result<Digest> {
    let mut hasher = Hasher::new(function);
    let mut piece = vec![0; 128 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
