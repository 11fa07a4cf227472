//! [`CheckedDirectory`]: one `Directory` message that is known to be legal.

use castwork_proto::reapi;
use castwork_proto::weigh::{weigh, weight_max};
use prost::Message;

use super::{Limits, MerkleError, check_name, check_target, shorten};
use crate::{Digest, DigestFunction};

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// One legal path segment.
    pub name: String,
    /// The file's bytes.
    pub digest: Digest,
    /// Whether it may be started.
    pub is_executable: bool,
}

/// A directory in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// One legal path segment.
    pub name: String,
    /// The `Directory` message of it.
    pub digest: Digest,
}

/// A symbolic link in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkEntry {
    /// One legal path segment.
    pub name: String,
    /// Where it points to: any text without NUL. It may be absolute or lead out of the tree.
    pub target: String,
}

impl SymlinkEntry {
    /// Whether the target is absolute, which `SymlinkAbsolutePathStrategy` may disallow.
    pub fn is_absolute(&self) -> bool {
        self.target.starts_with('/')
    }
}

/// A directory whose names are legal, sorted by bytes in each list and unique across the lists,
/// and whose digests are well-formed.
///
/// Node properties are not read: a directory is passed on as the bytes it came in, never encoded
/// again, so they and fields of later versions survive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedDirectory {
    /// Files, in order of name.
    pub files: Vec<FileEntry>,
    /// Directories, in order of name.
    pub directories: Vec<DirectoryEntry>,
    /// Symbolic links, in order of name.
    pub symlinks: Vec<SymlinkEntry>,
}

impl CheckedDirectory {
    /// Reads and checks a `Directory` message. `function` is that of all its digests.
    ///
    /// # Errors
    /// Says which entry is wrong, and how; or that the message is larger than
    /// [`Limits::directory_bytes_max`].
    pub fn from_bytes(data: &[u8], function: DigestFunction, limits: &Limits) -> Result<Self, MerkleError> {
        if data.len() as u64 > limits.directory_bytes_max {
            return Err(MerkleError::TooMuch {
                what: "bytes in a directory",
                max: limits.directory_bytes_max,
            });
        }
        weigh::<reapi::Directory>(data, weight_max(data.len()))
            .map_err(|source| MerkleError::Refused { message: "Directory", source })?;
        let message = reapi::Directory::decode(data)
            .map_err(|source| MerkleError::Decode { message: "Directory", source })?;
        Self::from_proto(message, function)
    }

    /// Checks a `Directory` message.
    ///
    /// # Errors
    /// Says which entry is wrong, and how.
    pub fn from_proto(message: reapi::Directory, function: DigestFunction) -> Result<Self, MerkleError> {
        let checked = Self {
            files: message.files.into_iter().map(|node| file(node, function)).collect::<Result<_, _>>()?,
            directories: message
                .directories
                .into_iter()
                .map(|node| directory(node, function))
                .collect::<Result<_, _>>()?,
            symlinks: message.symlinks.into_iter().map(symlink).collect::<Result<_, _>>()?,
        };
        checked.check_order()?;
        Ok(checked)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.symlinks.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check_order(&self) -> Result<(), MerkleError> {
        let files: Vec<&str> = self.files.iter().map(|entry| &*entry.name).collect();
        let directories: Vec<&str> = self.directories.iter().map(|entry| &*entry.name).collect();
        let symlinks: Vec<&str> = self.symlinks.iter().map(|entry| &*entry.name).collect();
        ascends("file", &files)?;
        ascends("directory", &directories)?;
        ascends("symbolic link", &symlinks)?;
        // Each list is sorted, so a name in two lists can be found by searching.
        let is_twice = |name: &&&str| {
            let is_in = |list: &[&str]| list.binary_search(name).is_ok();
            is_in(&symlinks) || (is_in(&files) && is_in(&directories))
        };
        match files.iter().chain(&directories).find(is_twice) {
            Some(name) => Err(MerkleError::Duplicate { name: shorten(name) }),
            None => Ok(()),
        }
    }
}

fn ascends(kind: &'static str, names: &[&str]) -> Result<(), MerkleError> {
    for pair in names.windows(2) {
        if pair[0] == pair[1] {
            return Err(MerkleError::Duplicate { name: shorten(pair[1]) });
        }
        if pair[0] > pair[1] {
            return Err(MerkleError::Unsorted { kind, name: shorten(pair[1]) });
        }
    }
    Ok(())
}

fn file(node: reapi::FileNode, function: DigestFunction) -> Result<FileEntry, MerkleError> {
    check_name(&node.name)?;
    let digest = digest(&node.name, node.digest.as_ref(), function)?;
    Ok(FileEntry { name: node.name, digest, is_executable: node.is_executable })
}

fn directory(node: reapi::DirectoryNode, function: DigestFunction) -> Result<DirectoryEntry, MerkleError> {
    check_name(&node.name)?;
    let digest = digest(&node.name, node.digest.as_ref(), function)?;
    Ok(DirectoryEntry { name: node.name, digest })
}

fn symlink(node: reapi::SymlinkNode) -> Result<SymlinkEntry, MerkleError> {
    check_name(&node.name)?;
    check_target(&node.name, &node.target)?;
    Ok(SymlinkEntry { name: node.name, target: node.target })
}

fn digest(
    name: &str,
    digest: Option<&reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, MerkleError> {
    let digest = digest.ok_or_else(|| MerkleError::NoDigest { name: shorten(name) })?;
    Digest::from_proto(digest, function).map_err(|source| MerkleError::Digest { name: shorten(name), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestError;

    fn abc() -> reapi::Digest {
        Digest::of(DigestFunction::Sha256, b"abc").to_proto()
    }

    fn files(names: &[&str]) -> Vec<reapi::FileNode> {
        let node = |name: &&str| reapi::FileNode {
            name: (*name).to_owned(),
            digest: Some(abc()),
            ..Default::default()
        };
        names.iter().map(node).collect()
    }

    fn directories(names: &[&str]) -> Vec<reapi::DirectoryNode> {
        let node = |name: &&str| reapi::DirectoryNode { name: (*name).to_owned(), digest: Some(abc()) };
        names.iter().map(node).collect()
    }

    fn symlinks(names: &[&str], target: &str) -> Vec<reapi::SymlinkNode> {
        let node = |name: &&str| reapi::SymlinkNode {
            name: (*name).to_owned(),
            target: target.to_owned(),
            ..Default::default()
        };
        names.iter().map(node).collect()
    }

    fn check(message: &reapi::Directory) -> Result<CheckedDirectory, MerkleError> {
        CheckedDirectory::from_bytes(&message.encode_to_vec(), DigestFunction::Sha256, &Limits::default())
    }

    #[test]
    fn a_legal_directory_is_read_whole() {
        let message = reapi::Directory {
            files: files(&["B", "a", "é"]),
            directories: directories(&["A", "b"]),
            symlinks: symlinks(&["C"], "../elsewhere"),
            node_properties: Some(reapi::NodeProperties { unix_mode: Some(0o755), ..Default::default() }),
        };
        let checked = check(&message).unwrap();
        assert_eq!(checked.len(), 6);
        assert_eq!(checked.files[2].name, "é");
        assert_eq!(checked.directories[1].digest, Digest::of(DigestFunction::Sha256, b"abc"));
        assert_eq!(checked.symlinks[0].target, "../elsewhere");
        assert!(!checked.symlinks[0].is_absolute());
        assert!(check(&reapi::Directory::default()).unwrap().is_empty());
    }

    #[test]
    fn names_that_are_not_one_segment_are_refused_in_every_list() {
        let long = "x".repeat(NAME_TOO_LONG);
        for name in ["", ".", "..", "a/b", "/", "a\0b", &long] {
            for message in [
                reapi::Directory { files: files(&[name]), ..Default::default() },
                reapi::Directory { directories: directories(&[name]), ..Default::default() },
                reapi::Directory { symlinks: symlinks(&[name], "t"), ..Default::default() },
            ] {
                assert!(matches!(check(&message), Err(MerkleError::Name { .. })), "{name:?}");
            }
        }
        assert!(check(&reapi::Directory { files: files(&[&long[1..]]), ..Default::default() }).is_ok());
    }

    const NAME_TOO_LONG: usize = super::super::NAME_BYTES_MAX + 1;

    #[test]
    fn entries_out_of_the_order_of_their_bytes_are_refused() {
        let message = reapi::Directory { files: files(&["a", "B"]), ..Default::default() };
        assert!(matches!(check(&message), Err(MerkleError::Unsorted { kind: "file", .. })));
        let message = reapi::Directory { directories: directories(&["é", "z"]), ..Default::default() };
        assert!(matches!(check(&message), Err(MerkleError::Unsorted { kind: "directory", .. })));
        let message = reapi::Directory { symlinks: symlinks(&["b", "a"], "t"), ..Default::default() };
        assert!(matches!(check(&message), Err(MerkleError::Unsorted { kind: "symbolic link", .. })));
    }

    #[test]
    fn a_name_appears_once_whatever_it_names() {
        let duplicate = |message: reapi::Directory| {
            assert_eq!(check(&message), Err(MerkleError::Duplicate { name: "a".to_owned() }));
        };
        duplicate(reapi::Directory { files: files(&["a", "a"]), ..Default::default() });
        duplicate(reapi::Directory {
            files: files(&["a"]),
            directories: directories(&["a"]),
            ..Default::default()
        });
        duplicate(reapi::Directory {
            files: files(&["a"]),
            symlinks: symlinks(&["a"], "t"),
            ..Default::default()
        });
        duplicate(reapi::Directory {
            directories: directories(&["a"]),
            symlinks: symlinks(&["a"], "t"),
            ..Default::default()
        });
    }

    #[test]
    fn a_link_needs_a_target_that_can_exist() {
        for target in ["", "a\0b", &"x".repeat(super::super::TARGET_BYTES_MAX + 1)] {
            let message = reapi::Directory { symlinks: symlinks(&["l"], target), ..Default::default() };
            assert!(matches!(check(&message), Err(MerkleError::Target { .. })), "{target:?}");
        }
    }

    #[test]
    fn digests_must_be_there_and_well_formed() {
        let mut message = reapi::Directory { files: files(&["a"]), ..Default::default() };
        message.files[0].digest = None;
        assert_eq!(check(&message), Err(MerkleError::NoDigest { name: "a".to_owned() }));
        message.files[0].digest = Some(reapi::Digest { hash: "../../x".to_owned(), size_bytes: 1 });
        let error = check(&message).unwrap_err();
        assert!(matches!(error, MerkleError::Digest { source: DigestError::Length { .. }, .. }));
        let mut message = reapi::Directory { directories: directories(&["a"]), ..Default::default() };
        message.directories[0].digest.as_mut().unwrap().size_bytes = -1;
        assert!(matches!(check(&message), Err(MerkleError::Digest { .. })));
    }

    #[test]
    fn bytes_that_are_no_directory_are_refused_and_never_panic() {
        use rand::{Rng, SeedableRng};
        let whole = reapi::Directory { files: files(&["a", "b"]), ..Default::default() }.encode_to_vec();
        let limits = Limits::default();
        assert!(matches!(
            CheckedDirectory::from_bytes(&whole[1..], DigestFunction::Sha256, &limits),
            Err(MerkleError::Refused { source: castwork_proto::weigh::Refused::Malformed, .. })
        ));
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
            // Whatever comes of it, what is let through is legal.
            if let Ok(checked) = CheckedDirectory::from_bytes(&bytes, DigestFunction::Sha256, &limits) {
                assert!(checked.files.iter().all(|entry| check_name(&entry.name).is_ok()));
            }
        }
    }

    #[test]
    fn a_message_beyond_the_bound_is_refused_unread() {
        let limits = Limits { directory_bytes_max: 10, ..Limits::default() };
        let error = CheckedDirectory::from_bytes(&[0; 11], DigestFunction::Sha256, &limits).unwrap_err();
        assert_eq!(error, MerkleError::TooMuch { what: "bytes in a directory", max: 10 });
    }
}
