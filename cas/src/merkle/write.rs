//! [`write_tree`]: a tree written as a folder, and nowhere else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{EntryKind, FlatTree, FolderError};
use crate::files::platform;
use crate::{Digest, StoreError};

/// Writes a tree below `folder`, which must exist. `place` makes the file of a digest at a path.
///
/// Never writes through a symbolic link, neither one that was there nor one of the tree: links are
/// made after everything else, and a link in the place of a directory is refused. Files and links
/// that are in the way are replaced, directories are not; what the tree does not name stays.
/// `place` makes a file of its own, not a further link to one: its mode is set afterwards. The folder
/// must not be changed by others meanwhile.
///
/// # Errors
/// [`FolderError::Entry`] if a name has another meaning to this system, or a path is taken by
/// something that is not replaced.
pub fn write_tree(
    tree: &FlatTree,
    folder: &Path,
    mut place: impl FnMut(&Digest, &Path) -> Result<(), StoreError>,
) -> Result<(), FolderError> {
    let mut links = Vec::new();
    for entry in tree.entries() {
        let path = join(folder, &entry.path)?;
        match entry.kind {
            EntryKind::Directory(_) => make_directory(&path)?,
            EntryKind::Symlink(link) => links.push((path, &*link.target)),
            EntryKind::File(file) => {
                clear(&path)?;
                place(&file.digest, &path).map_err(|source| FolderError::Contents {
                    path: path.display().to_string(),
                    source: Box::new(source),
                })?;
                platform::set_executable(&path, file.is_executable)
                    .map_err(FolderError::disk("set mode of", &path))?;
            }
        }
    }
    for (path, target) in links {
        clear(&path)?;
        platform::make_symlink(target, &path).map_err(FolderError::disk("make link", &path))?;
    }
    Ok(())
}

/// Appends a path of the tree, whose segments are legal, unless this system reads them otherwise.
fn join(folder: &Path, path: &str) -> Result<PathBuf, FolderError> {
    let mut joined = folder.to_owned();
    for segment in path.split('/') {
        if !platform::is_plain_name(segment) {
            return Err(FolderError::entry(Path::new(path), "has another meaning on this system"));
        }
        joined.push(segment);
    }
    Ok(joined)
}

fn make_directory(path: &Path) -> Result<(), FolderError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::symlink_metadata(path).map_err(FolderError::disk("look at", path))?;
            if there.is_dir() { Ok(()) } else { Err(FolderError::entry(path, "is not a folder")) }
        }
        Err(error) => Err(FolderError::disk("make folder", path)(error)),
    }
}

/// Makes way for a file or a link.
fn clear(path: &Path) -> Result<(), FolderError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FolderError::disk("look at", path)(error)),
        Ok(there) if there.is_dir() => Err(FolderError::entry(path, "is a folder in the way of a file")),
        Ok(_) => fs::remove_file(path).map_err(FolderError::disk("replace", path)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::DigestFunction;
    use crate::merkle::{Limits, TreeBuilder, TreeReader, folder_tree, tree_bytes};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    type Contents = BTreeMap<Digest, Bytes>;

    fn flat(tree: &TreeBuilder) -> FlatTree {
        let bytes = tree_bytes(&tree.build(FUNCTION));
        let reader = TreeReader::from_bytes(&bytes, FUNCTION, &Limits::default()).unwrap();
        reader.to_flat(&Limits::default()).unwrap()
    }

    fn write(tree: &FlatTree, folder: &Path, contents: &Contents) -> Result<(), FolderError> {
        write_tree(tree, folder, |digest, path| {
            fs::write(path, &contents[digest]).unwrap();
            Ok(())
        })
    }

    /// A tree of files, links and empty directories, of `seed`'s choice.
    fn random_tree(seed: u64) -> (TreeBuilder, Contents) {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut tree = TreeBuilder::new();
        let mut contents = Contents::new();
        for number in 0..random.random_range(0..40) {
            let depth = random.random_range(0..4);
            let mut segments: Vec<String> =
                (0..depth).map(|_| format!("d{}", random.random_range(0..3))).collect();
            segments.push(format!("é {number}"));
            let path = segments.join("/");
            match random.random_range(0..4) {
                0 => tree.add_directory(&path).unwrap(),
                1 => tree.add_symlink(&path, "../nowhere/at all").unwrap(),
                _ => {
                    let data: Vec<u8> = (0..random.random_range(0..300)).map(|_| random.random()).collect();
                    let digest = Digest::of(FUNCTION, &data);
                    tree.add_file(&path, digest, random.random()).unwrap();
                    contents.insert(digest, data.into());
                }
            }
        }
        (tree, contents)
    }

    #[test]
    fn a_tree_written_as_a_folder_and_read_again_is_the_same_tree() {
        for seed in 0..20 {
            let (tree, contents) = random_tree(seed);
            let folder = tempfile::tempdir().unwrap();
            write(&flat(&tree), folder.path(), &contents).unwrap();
            let read = folder_tree(folder.path(), FUNCTION, &Limits::default()).unwrap();
            assert_eq!(read.tree, tree.build(FUNCTION), "seed {seed}");
            assert!(read.files.keys().eq(contents.keys()), "seed {seed}");
            for (digest, path) in read.files {
                assert_eq!(fs::read(path).unwrap(), contents[&digest]);
            }
        }
    }

    #[test]
    fn writing_over_an_earlier_writing_changes_nothing() {
        let (tree, contents) = random_tree(4);
        let folder = tempfile::tempdir().unwrap();
        write(&flat(&tree), folder.path(), &contents).unwrap();
        write(&flat(&tree), folder.path(), &contents).unwrap();
        let read = folder_tree(folder.path(), FUNCTION, &Limits::default()).unwrap();
        assert_eq!(read.tree, tree.build(FUNCTION));
    }

    #[test]
    fn a_link_that_leads_out_is_never_written_through() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        platform::make_symlink(outside.path().to_str().unwrap(), &folder.path().join("d")).unwrap();
        let digest = Digest::of(FUNCTION, b"x");
        let contents = Contents::from([(digest, Bytes::from_static(b"x"))]);
        let mut tree = TreeBuilder::new();
        tree.add_file("d/f", digest, false).unwrap();
        let error = write(&flat(&tree), folder.path(), &contents).unwrap_err();
        assert!(matches!(error, FolderError::Entry { .. }), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_its_target_left_alone() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "before").unwrap();
        let folder = tempfile::tempdir().unwrap();
        platform::make_symlink(victim.to_str().unwrap(), &folder.path().join("f")).unwrap();
        let digest = Digest::of(FUNCTION, b"after");
        let mut tree = TreeBuilder::new();
        tree.add_file("f", digest, false).unwrap();
        let contents = Contents::from([(digest, Bytes::from_static(b"after"))]);
        write(&flat(&tree), folder.path(), &contents).unwrap();
        assert_eq!(fs::read(victim).unwrap(), b"before");
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"after");
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("f")).unwrap();
        let mut tree = TreeBuilder::new();
        tree.add_symlink("f", "t").unwrap();
        let error = write(&flat(&tree), folder.path(), &Contents::new()).unwrap_err();
        assert!(matches!(error, FolderError::Entry { .. }));
        assert!(folder.path().join("f").is_dir());
    }

    #[test]
    fn a_folder_larger_than_the_bounds_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
        let refused = |limits| folder_tree(folder.path(), FUNCTION, &limits).is_err();
        assert!(refused(Limits { depth_max: 3, ..Limits::default() }));
        assert!(!refused(Limits { depth_max: 4, ..Limits::default() }));
        assert!(refused(Limits { paths_max: 2, ..Limits::default() }));
    }
}
