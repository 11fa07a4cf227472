//! Merkle trees: folders as REAPI `Directory` messages that name each other by digest.
//!
//! Everything that comes from outside passes [`CheckedDirectory`], so behind it names are legal and
//! unique. What one message cannot show, such as depth and the number of paths, is bounded by
//! [`Limits`] where a whole tree is visited ([`walk()`], [`TreeReader`], [`folder_tree`]).

mod builder;
mod directory;
mod explore;
mod flat;
mod folder;
mod tree;
mod walk;
mod write;

pub use builder::{BuiltTree, TreeBuilder};
pub use directory::{CheckedDirectory, DirectoryEntry, FileEntry, SymlinkEntry};
pub use flat::{Entry, EntryKind, FlatTree};
pub use folder::{FolderError, FolderTree, folder_tree};
pub use tree::{TreeReader, tree_bytes, tree_message};
pub use walk::{WalkError, walk, walk_batched, walk_complete};
pub use write::write_tree;

use crate::{Digest, DigestError};

/// The longest name of a file or directory, in bytes; what common file systems take.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest target of a symbolic link, in bytes.
pub const TARGET_BYTES_MAX: usize = 4096;

/// Bounds on a tree, so that no tree of another's making exhausts memory or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most directories on the way from the root to a file, the root counted.
    pub depth_max: usize,
    /// Most distinct directories.
    pub directories_max: usize,
    /// Most paths: files, directories and symbolic links, each counted at every place it appears.
    pub paths_max: u64,
    /// Most bytes of one `Directory` message.
    pub directory_bytes_max: u64,
    /// Most bytes of all distinct `Directory` messages together.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 256,
            directories_max: 200_000,
            paths_max: 1_000_000,
            directory_bytes_max: 16 << 20,
            bytes_max: 256 << 20,
        }
    }
}

/// Why a directory or a tree is refused. All of them are the fault of who made it
/// (`INVALID_ARGUMENT`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// The bytes are no such message.
    #[error("bytes that are no {message} message")]
    Decode {
        /// Which message they were to be.
        message: &'static str,
        /// Where they stop being one.
        #[source]
        source: prost::DecodeError,
    },
    /// Bytes that are no message, or are one that takes too much memory.
    #[error("bytes that are not read as a {message} message")]
    Refused {
        /// Which message they were to be.
        message: &'static str,
        /// Why not.
        #[source]
        source: castwork_proto::weigh::Refused,
    },
    /// A name that is not one legal path segment.
    #[error("name `{name}` {reason}")]
    Name {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path that is not relative and plain.
    #[error("path `{path}` {reason}")]
    Path {
        /// The path, shortened.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A symbolic link that cannot exist.
    #[error("the target of symbolic link `{name}` {reason}")]
    Target {
        /// Name of the link.
        name: String,
        /// What is wrong with its target.
        reason: &'static str,
    },
    /// Entries of one kind are not in ascending order of their names' bytes.
    #[error("{kind} `{name}` is not in order of name")]
    Unsorted {
        /// `file`, `directory` or `symbolic link`.
        kind: &'static str,
        /// The first entry out of place.
        name: String,
    },
    /// Two entries of one name.
    #[error("name `{name}` appears twice")]
    Duplicate {
        /// The name, or the path.
        name: String,
    },
    /// An entry whose digest is absent.
    #[error("`{name}` has no digest")]
    NoDigest {
        /// The entry.
        name: String,
    },
    /// An entry whose digest is malformed.
    #[error("the digest of `{name}`")]
    Digest {
        /// The entry.
        name: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
    /// A `Tree` message without a root, or with several.
    #[error("a tree has one root, not {0}")]
    Roots(usize),
    /// Something in the directory of that digest.
    #[error("directory `{directory}`")]
    In {
        /// Where.
        directory: Digest,
        /// What.
        #[source]
        source: Box<MerkleError>,
    },
    /// Beyond one of the [`Limits`].
    #[error("a tree of more than {max} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: u64,
    },
}

impl MerkleError {
    fn in_directory(self, directory: &Digest) -> Self {
        Self::In { directory: *directory, source: Box::new(self) }
    }
}

/// Shortens what somebody else wrote, for a message.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.chars().count() <= CHARS_MAX {
        return text.escape_debug().to_string();
    }
    let start: String = text.chars().take(CHARS_MAX).collect();
    format!("{}…", start.escape_debug())
}

/// Checks that `name` is one legal path segment.
///
/// # Errors
/// [`MerkleError::Name`]
pub fn check_name(name: &str) -> Result<(), MerkleError> {
    let reason = match name {
        "" => "is empty",
        "." | ".." => "is not the name of an entry",
        _ if name.contains('/') => "holds a slash",
        _ if name.contains('\0') => "holds a NUL",
        _ if name.len() > NAME_BYTES_MAX => "is longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(MerkleError::Name { name: shorten(name), reason })
}

/// Checks that `target` can be what a symbolic link points to.
///
/// # Errors
/// [`MerkleError::Target`]
pub fn check_target(name: &str, target: &str) -> Result<(), MerkleError> {
    let reason = match target {
        "" => "is empty",
        _ if target.contains('\0') => "holds a NUL",
        _ if target.len() > TARGET_BYTES_MAX => "is longer than 4096 bytes",
        _ => return Ok(()),
    };
    Err(MerkleError::Target { name: shorten(name), reason })
}
