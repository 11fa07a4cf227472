//! [`FlatTree`]: a whole tree that is known to be within its bounds.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::explore::check_bound;
use super::{CheckedDirectory, FileEntry, Limits, MerkleError, SymlinkEntry};
use crate::Digest;

/// A tree of which every directory is at hand and legal.
///
/// Keeps each distinct directory once, so that memory is bounded by [`Limits::bytes_max`] however
/// many paths lead there; the paths, at most [`Limits::paths_max`] and [`Limits::depth_max`] deep,
/// are made while [`FlatTree::entries`] is read.
#[derive(Clone, Debug)]
pub struct FlatTree {
    /// Digest of the root directory.
    pub root: Digest,
    /// Invariant: holds the root, and every directory that one of them names.
    directories: HashMap<Digest, (Bytes, CheckedDirectory)>,
    paths: u64,
}

/// Something in a tree, at one of its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative to the root, `/` between segments.
    pub path: String,
    /// What is there.
    pub kind: EntryKind<'a>,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A directory, by its digest.
    Directory(&'a Digest),
    /// A file.
    File(&'a FileEntry),
    /// A symbolic link.
    Symlink(&'a SymlinkEntry),
}

impl FlatTree {
    /// Checks the bounds that only show in the whole.
    pub(super) fn new(
        root: Digest,
        directories: HashMap<Digest, (Bytes, CheckedDirectory)>,
        limits: &Limits,
    ) -> Result<Self, MerkleError> {
        let paths = measure(&root, &directories, limits)?;
        Ok(Self { root, directories, paths })
    }

    /// How many entries there are, each counted at every path it appears at.
    pub fn paths(&self) -> u64 {
        self.paths
    }

    /// The directory of that digest, if it is part of the tree.
    pub fn directory(&self, digest: &Digest) -> Option<&CheckedDirectory> {
        self.directories.get(digest).map(|(_, directory)| directory)
    }

    /// Every distinct directory, as the bytes it came in, in no particular order.
    pub fn directories(&self) -> impl Iterator<Item = (&Digest, &Bytes)> {
        self.directories.iter().map(|(digest, (data, _))| (digest, data))
    }

    /// Digests of all files, each once, in order.
    pub fn file_digests(&self) -> BTreeSet<Digest> {
        let files = self.directories.values().flat_map(|(_, directory)| &directory.files);
        files.map(|file| file.digest).collect()
    }

    /// Every entry at every path; a directory before what is in it, and without the root itself.
    pub fn entries(&self) -> Entries<'_> {
        Entries { tree: self, open: vec![Open::new(self.checked(&self.root), 0)], path: String::new() }
    }

    /// Whether the tree is a whole file system to run something in, rather than a folder of sources: it brings
    /// a shell along, as `bin/sh` or `usr/bin/sh`.
    ///
    /// Such clients as `BuildStream`, whose actions expect the input root to be their `/`, have no other way to
    /// say so.
    pub fn is_file_system(&self) -> bool {
        let root = self.checked(&self.root);
        let usr = self.child(root, "usr");
        [Some(root), usr].into_iter().flatten().filter_map(|folder| self.child(folder, "bin")).any(|bin| {
            bin.files.iter().any(|file| file.name == "sh")
                || bin.symlinks.iter().any(|link| link.name == "sh")
        })
    }

    fn child(&self, parent: &CheckedDirectory, name: &str) -> Option<&CheckedDirectory> {
        parent.directories.iter().find(|entry| entry.name == name).map(|entry| self.checked(&entry.digest))
    }

    fn checked(&self, digest: &Digest) -> &CheckedDirectory {
        self.directory(digest).expect("a tree holds every directory that one of them names")
    }
}

/// Reads [`FlatTree::entries`]. Holds a place in each directory on the way, and one path.
pub struct Entries<'a> {
    tree: &'a FlatTree,
    open: Vec<Open<'a>>,
    /// The path of the innermost open directory, with a slash at its end unless it is the root.
    path: String,
}

struct Open<'a> {
    directory: &'a CheckedDirectory,
    /// How many entries have been read: files first, then links, then directories.
    read: usize,
    /// Bytes of the path of the parent.
    parent_bytes: usize,
}

impl<'a> Open<'a> {
    fn new(directory: &'a CheckedDirectory, parent_bytes: usize) -> Self {
        Self { directory, read: 0, parent_bytes }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let open = self.open.last_mut()?;
            let (files, links) = (&open.directory.files, &open.directory.symlinks);
            let at = open.read;
            open.read += 1;
            if let Some(file) = files.get(at) {
                return Some(Entry { path: self.path.clone() + &file.name, kind: EntryKind::File(file) });
            }
            let at = at - files.len();
            if let Some(link) = links.get(at) {
                return Some(Entry { path: self.path.clone() + &link.name, kind: EntryKind::Symlink(link) });
            }
            let at = at - links.len();
            if let Some(entry) = open.directory.directories.get(at) {
                let path = self.path.clone() + &entry.name;
                self.open.push(Open::new(self.tree.checked(&entry.digest), self.path.len()));
                self.path.push_str(&entry.name);
                self.path.push('/');
                return Some(Entry { path, kind: EntryKind::Directory(&entry.digest) });
            }
            self.path.truncate(open.parent_bytes);
            self.open.pop();
        }
    }
}

/// What hangs below a directory, itself not counted in `paths`.
#[derive(Clone, Copy, Default)]
struct Below {
    paths: u64,
    levels: u64,
}

/// Counts the paths of a tree without visiting each: a directory is measured once.
///
/// Digests were compared with the bytes they name, so no directory is below itself and the search
/// ends.
fn measure(
    root: &Digest,
    directories: &HashMap<Digest, (Bytes, CheckedDirectory)>,
    limits: &Limits,
) -> Result<u64, MerkleError> {
    let mut measured: HashMap<Digest, Below> = HashMap::new();
    let mut open = vec![*root];
    while let Some(digest) = open.last().copied() {
        let (_, directory) = &directories[&digest];
        let before = open.len();
        open.extend(
            directory.directories.iter().map(|entry| entry.digest).filter(|d| !measured.contains_key(d)),
        );
        if open.len() > before {
            continue;
        }
        open.pop();
        let mut below = Below { paths: directory.len() as u64, levels: 1 };
        for entry in &directory.directories {
            let child = measured[&entry.digest];
            below.paths = below.paths.saturating_add(child.paths);
            below.levels = below.levels.max(child.levels + 1);
        }
        check_bound("levels", below.levels, limits.depth_max as u64)?;
        check_bound("paths", below.paths, limits.paths_max)?;
        measured.insert(digest, below);
    }
    Ok(measured[root].paths)
}

#[cfg(test)]
mod tests {
    use crate::DigestFunction;
    use crate::merkle::{TreeBuilder, TreeReader, tree_bytes};

    use super::*;

    fn tree(files: &[&str], links: &[&str]) -> FlatTree {
        let mut builder = TreeBuilder::new();
        let digest = Digest::of(DigestFunction::Sha256, b"x");
        for path in files {
            builder.add_file(path, digest, true).unwrap();
        }
        for path in links {
            builder.add_symlink(path, "busybox").unwrap();
        }
        let bytes = tree_bytes(&builder.build(DigestFunction::Sha256));
        let reader = TreeReader::from_bytes(&bytes, DigestFunction::Sha256, &Limits::default()).unwrap();
        reader.to_flat(&Limits::default()).unwrap()
    }

    #[test]
    fn a_tree_with_a_shell_of_its_own_is_a_file_system() {
        assert!(tree(&["bin/sh", "src/a.c"], &[]).is_file_system());
        assert!(tree(&["bin/busybox"], &["bin/sh"]).is_file_system());
        assert!(tree(&["usr/bin/sh"], &["bin"]).is_file_system());
        for sources in [&["sh", "usr/include/a.h"][..], &["src/bin/sh"], &["bin/tool"], &["bin"], &[]] {
            assert!(!tree(sources, &[]).is_file_system(), "{sources:?}");
        }
    }
}
