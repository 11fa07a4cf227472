//! [`TreeBuilder`]: a tree put together in memory, path by path.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use castwork_proto::reapi;
use prost::Message;

use super::{Limits, MerkleError, check_name, check_target, shorten};
use crate::{Digest, DigestFunction};

/// A tree under construction. The order of additions does not matter.
#[derive(Clone, Debug, Default)]
pub struct TreeBuilder {
    root: Branch,
}

/// The entries of a directory by name; ordered by bytes, as REAPI wants them.
type Branch = BTreeMap<String, Node>;

#[derive(Clone, Debug, PartialEq)]
enum Node {
    File { digest: Digest, is_executable: bool },
    Directory(Branch),
    Symlink { target: String },
}

/// A tree as the messages that make it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltTree {
    /// Digest of the root directory.
    pub root: Digest,
    /// Every distinct directory once, the root first and each before those that it names; so
    /// `directories[0].0 == root`.
    pub directories: Vec<(Digest, Bytes)>,
}

impl TreeBuilder {
    /// A tree of one empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file at `path`, and the directories on the way to it.
    ///
    /// # Errors
    /// [`MerkleError::Path`] or [`MerkleError::Name`] unless `path` is relative, `/` between its
    /// legal segments; [`MerkleError::Duplicate`] if something else is at the path or on the way.
    pub fn add_file(&mut self, path: &str, digest: Digest, is_executable: bool) -> Result<(), MerkleError> {
        self.add(path, Node::File { digest, is_executable })
    }

    /// Adds a directory at `path`, and those on the way to it; one that is there stays as it is.
    ///
    /// # Errors
    /// As [`TreeBuilder::add_file`]; the empty path is the root.
    pub fn add_directory(&mut self, path: &str) -> Result<(), MerkleError> {
        if path.is_empty() {
            return Ok(());
        }
        let segments = segments_of(path)?;
        self.branch(path, &segments).map(|_| ())
    }

    /// Adds a symbolic link at `path`, and the directories on the way to it.
    ///
    /// # Errors
    /// As [`TreeBuilder::add_file`], and [`MerkleError::Target`].
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), MerkleError> {
        check_target(path, target)?;
        self.add(path, Node::Symlink { target: target.to_owned() })
    }

    /// Encodes the tree, with `function` for the digests of its directories.
    pub fn build(&self, function: DigestFunction) -> BuiltTree {
        let mut output = Output { function, seen: HashSet::new(), directories: Vec::new() };
        let root = output.add(&self.root);
        // Children were finished before their parents.
        output.directories.reverse();
        BuiltTree { root, directories: output.directories }
    }

    fn add(&mut self, path: &str, node: Node) -> Result<(), MerkleError> {
        let mut segments = segments_of(path)?;
        let name = segments.pop().expect("a split text has a part");
        let branch = self.branch(path, &segments)?;
        match branch.get(name) {
            None => {
                branch.insert(name.to_owned(), node);
                Ok(())
            }
            // The same thing twice is no conflict: two lists of inputs may share a header.
            Some(there) if *there == node => Ok(()),
            Some(_) => Err(MerkleError::Duplicate { name: shorten(path) }),
        }
    }

    fn branch(&mut self, path: &str, segments: &[&str]) -> Result<&mut Branch, MerkleError> {
        let mut branch = &mut self.root;
        for segment in segments {
            let node = branch.entry((*segment).to_owned()).or_insert_with(|| Node::Directory(Branch::new()));
            let Node::Directory(next) = node else {
                return Err(MerkleError::Duplicate { name: shorten(path) });
            };
            branch = next;
        }
        Ok(branch)
    }
}

/// Splits a path, and bounds its depth: recursion over a tree is as deep as its paths.
fn segments_of(path: &str) -> Result<Vec<&str>, MerkleError> {
    let refuse = |reason| Err(MerkleError::Path { path: shorten(path), reason });
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    let segments: Vec<&str> = path.split('/').collect();
    if segments.len() > Limits::default().depth_max {
        return refuse("is too deep");
    }
    for segment in &segments {
        check_name(segment)?;
    }
    Ok(segments)
}

struct Output {
    function: DigestFunction,
    seen: HashSet<Digest>,
    directories: Vec<(Digest, Bytes)>,
}

impl Output {
    fn add(&mut self, branch: &Branch) -> Digest {
        let mut message = reapi::Directory::default();
        for (name, node) in branch {
            let name = name.clone();
            match node {
                Node::File { digest, is_executable } => message.files.push(reapi::FileNode {
                    name,
                    digest: Some(digest.to_proto()),
                    is_executable: *is_executable,
                    node_properties: None,
                }),
                Node::Directory(branch) => {
                    let digest = Some(self.add(branch).to_proto());
                    message.directories.push(reapi::DirectoryNode { name, digest });
                }
                Node::Symlink { target } => message.symlinks.push(reapi::SymlinkNode {
                    name,
                    target: target.clone(),
                    node_properties: None,
                }),
            }
        }
        let data = Bytes::from(message.encode_to_vec());
        let digest = Digest::of(self.function, &data);
        if self.seen.insert(digest) {
            self.directories.push((digest, data));
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::CheckedDirectory;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn blob(text: &str) -> Digest {
        Digest::of(FUNCTION, text.as_bytes())
    }

    #[test]
    fn the_empty_tree_is_the_empty_blob() {
        let built = TreeBuilder::new().build(FUNCTION);
        assert_eq!(built.root, Digest::empty(FUNCTION));
        assert_eq!(built.directories, [(Digest::empty(FUNCTION), Bytes::new())]);
    }

    #[test]
    fn the_order_of_additions_does_not_matter() {
        let mut forwards = TreeBuilder::new();
        forwards.add_file("src/a.c", blob("a"), false).unwrap();
        forwards.add_symlink("latest", "src").unwrap();
        forwards.add_directory("out/obj").unwrap();
        forwards.add_file("src/B.c", blob("b"), true).unwrap();
        let mut backwards = TreeBuilder::new();
        backwards.add_file("src/B.c", blob("b"), true).unwrap();
        backwards.add_directory("out").unwrap();
        backwards.add_directory("out/obj").unwrap();
        backwards.add_symlink("latest", "src").unwrap();
        backwards.add_file("src/a.c", blob("a"), false).unwrap();
        assert_eq!(forwards.build(FUNCTION), backwards.build(FUNCTION));
    }

    #[test]
    fn what_is_built_passes_the_check_and_parents_come_before_children() {
        let mut tree = TreeBuilder::new();
        for path in ["a/b/c.h", "a/b/d.h", "z/b/c.h", "z/b/d.h", "A", "é"] {
            tree.add_file(path, blob("same"), false).unwrap();
        }
        let built = tree.build(FUNCTION);
        assert_eq!(built.directories[0].0, built.root);
        assert_eq!(built.directories.len(), 3, "the two equal folders are one directory each");
        let mut named = HashSet::from([built.root]);
        for (digest, data) in &built.directories {
            assert!(named.contains(digest), "named by one before it");
            let checked = CheckedDirectory::from_bytes(data, FUNCTION, &Limits::default()).unwrap();
            named.extend(checked.directories.iter().map(|entry| entry.digest));
        }
    }

    #[test]
    fn two_things_at_one_path_are_refused_and_one_thing_twice_is_not() {
        let mut tree = TreeBuilder::new();
        tree.add_file("a/b", blob("x"), false).unwrap();
        tree.add_file("a/b", blob("x"), false).unwrap();
        tree.add_directory("a").unwrap();
        let refused = |result: Result<(), MerkleError>| {
            assert!(matches!(result, Err(MerkleError::Duplicate { .. })), "{result:?}");
        };
        refused(tree.add_file("a/b", blob("y"), false));
        refused(tree.add_file("a/b", blob("x"), true));
        refused(tree.add_file("a", blob("x"), false));
        refused(tree.add_file("a/b/c", blob("x"), false));
        refused(tree.add_directory("a/b"));
        refused(tree.add_symlink("a", "t"));
    }

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        let mut tree = TreeBuilder::new();
        for path in ["", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "./a", "a\0"] {
            assert!(tree.add_file(path, blob("x"), false).is_err(), "{path:?}");
            assert!(tree.add_symlink(path, "t").is_err(), "{path:?}");
            assert!(path.is_empty() || tree.add_directory(path).is_err(), "{path:?}");
        }
        assert!(tree.add_directory(&"a/".repeat(1000)[..1999]).is_err());
        assert!(tree.add_symlink("l", "").is_err());
        assert_eq!(tree.build(FUNCTION).root, Digest::empty(FUNCTION), "nothing was added");
    }
}
