//! [`Plan`]: what the input root will hold, checked before anything is written.

use std::collections::{BTreeSet, HashSet};

use castwork_cas::Digest;
use castwork_cas::merkle::{EntryKind, FlatTree};

use crate::action::CheckedAction;
use crate::failure::Failure;

/// An input root, or what makes one out of another, as lists; a folder stands before what is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Folders.
    pub folders: Vec<String>,
    /// Files: path, content, whether executable.
    pub files: Vec<(String, Digest, bool)>,
    /// Symlinks: path and target, which stays inside.
    pub links: Vec<(String, String)>,
    /// What lies at these paths below is not to be seen.
    pub gone: Vec<String>,
}

impl Plan {
    /// Reads it off a tree.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if a symlink leads out of the root.
    pub(crate) fn of(tree: &FlatTree) -> Result<Self, Failure> {
        let mut plan = Self::default();
        for entry in tree.entries() {
            plan.add(entry.path, entry.kind)?;
        }
        Ok(plan)
    }

    /// Adds one thing, and nothing of what may be in it.
    ///
    /// # Errors
    /// As [`Plan::of`].
    pub(super) fn add(&mut self, path: String, kind: EntryKind<'_>) -> Result<(), Failure> {
        match kind {
            EntryKind::Directory(_) => self.folders.push(path),
            EntryKind::File(file) => self.files.push((path, file.digest, file.is_executable)),
            EntryKind::Symlink(link) if leads_out(&path, &link.target) => {
                let target = link.target.escape_debug();
                let text = format!("input `{path}` is a symlink out of the input root, to `{target}`");
                return Err(Failure::Invalid(text));
            }
            EntryKind::Symlink(link) => self.links.push((path, link.target.clone())),
        }
        Ok(())
    }

    /// Adds the folders above an action's outputs. `false` if the plan hides what lies below one of them.
    pub(crate) fn add_above_outputs(&mut self, above: &BTreeSet<String>) -> bool {
        let is_hidden = |path: &String| {
            let begins = |gone: &String| {
                path == gone || path.strip_prefix(gone).is_some_and(|rest| rest.starts_with('/'))
            };
            self.gone.iter().any(begins)
        };
        if above.iter().any(is_hidden) {
            return false;
        }
        // Over a base, a folder that both have is not in the plan, and has to be for what is made in it.
        let mut made: HashSet<String> = self.folders.iter().cloned().collect();
        for path in above {
            let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
            for folder in ends.map(|end| &path[..end]) {
                if made.insert(folder.to_owned()) {
                    self.folders.push(folder.to_owned());
                }
            }
        }
        true
    }

    /// How much there is to be made.
    pub(crate) fn len(&self) -> usize {
        self.folders.len() + self.files.len() + self.links.len() + self.gone.len()
    }

    /// Every content that is needed, with its mode, each once.
    pub(crate) fn contents(&self) -> BTreeSet<(Digest, bool)> {
        self.files.iter().map(|(_, digest, is_executable)| (*digest, *is_executable)).collect()
    }
}

/// Checks an input tree against the action: the working directory has to be there. Returns the folders above outputs
/// that the tree lacks.
///
/// # Errors
/// [`Failure::Invalid`] if it is not, or if a file is where a folder above an output has to be.
pub(crate) fn above_outputs(tree: &FlatTree, action: &CheckedAction) -> Result<BTreeSet<String>, Failure> {
    if !matches!(kind_at(tree, &action.working_directory), Some(EntryKind::Directory(_))) {
        let text = format!("working directory `{}` is not in the input root", action.working_directory);
        return Err(Failure::Invalid(text));
    }
    folders_above_outputs(tree, action)
}

/// Whether a symlink at `path` (relative to the root) points somewhere outside of the root, read as
/// text: what other symlinks make of it shows only inside of the sandbox, where it does no harm.
pub(crate) fn leads_out(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return true;
    }
    let mut depth = path.matches('/').count();
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// What the tree has at a plain path.
fn kind_at<'a>(tree: &'a FlatTree, path: &str) -> Option<EntryKind<'a>> {
    let mut kind = EntryKind::Directory(&tree.root);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let EntryKind::Directory(digest) = kind else { return None };
        let directory = tree.directory(digest)?;
        let folder = || directory.directories.iter().find(|entry| entry.name == name);
        let file = || directory.files.iter().find(|entry| entry.name == name);
        let link = || directory.symlinks.iter().find(|entry| entry.name == name);
        kind = folder()
            .map(|entry| EntryKind::Directory(&entry.digest))
            .or_else(|| file().map(EntryKind::File))
            .or_else(|| link().map(EntryKind::Symlink))?;
    }
    Some(kind)
}

/// Folders that outputs will be made in and that the inputs don't have (reapi: the worker makes
/// the folders above outputs, and not the output directories themselves).
fn folders_above_outputs(tree: &FlatTree, action: &CheckedAction) -> Result<BTreeSet<String>, Failure> {
    let mut folders = BTreeSet::new();
    for path in &action.outputs.paths {
        let path = action.place_of(path);
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            match kind_at(tree, above) {
                Some(EntryKind::Directory(_)) => {}
                None => drop(folders.insert(above.to_owned())),
                // It may lead to a folder. Nothing is made behind it from outside.
                Some(EntryKind::Symlink(_)) => break,
                Some(EntryKind::File(_)) => {
                    let text = format!("output `{path}` would lie below the input file `{above}`");
                    return Err(Failure::Invalid(text));
                }
            }
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;
    use castwork_cas::merkle::{Limits, TreeBuilder, TreeReader, tree_bytes};

    use super::*;
    use crate::action::Outputs;
    use crate::sandbox::Root;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn planned(tree: &TreeBuilder, working_directory: &str, outputs: &[&str]) -> Result<Plan, Failure> {
        let bytes = tree_bytes(&tree.build(FUNCTION));
        let reader = TreeReader::from_bytes(&bytes, FUNCTION, &Limits::default()).unwrap();
        let tree = reader.to_flat(&Limits::default()).unwrap();
        let paths = outputs.iter().map(|path| (*path).to_owned()).collect();
        let action = CheckedAction {
            input_root: tree.root,
            arguments: vec!["cc".to_owned()],
            environment: Vec::new(),
            working_directory: working_directory.to_owned(),
            outputs: Outputs { paths, ..Outputs::default() },
            root: Some(Root::Worker),
            network: false,
            host_files: Vec::new(),
        };
        let mut plan = Plan::of(&tree)?;
        assert!(plan.add_above_outputs(&above_outputs(&tree, &action)?));
        Ok(plan)
    }

    #[test]
    fn folders_above_outputs_are_made_and_output_directories_are_not() {
        let mut tree = TreeBuilder::new();
        tree.add_file("w/src/a.c", Digest::of(FUNCTION, b"a"), false).unwrap();
        let plan = planned(&tree, "w", &["out/deep/a.o", "out/b.o", "src/a.d"]).unwrap();
        assert_eq!(plan.folders, ["w", "w/src", "w/out", "w/out/deep"]);
        assert_eq!(plan.files.len(), 1);
    }

    #[test]
    fn nothing_is_made_behind_a_symlink_or_below_a_file() {
        let mut tree = TreeBuilder::new();
        tree.add_symlink("link", "elsewhere").unwrap();
        tree.add_file("file", Digest::of(FUNCTION, b"a"), false).unwrap();
        assert_eq!(planned(&tree, "", &["link/deep/out"]).unwrap().folders, [""; 0]);
        assert!(matches!(planned(&tree, "", &["file/out"]), Err(Failure::Invalid(_))));
    }

    #[test]
    fn a_working_directory_has_to_be_there_as_a_folder() {
        let mut tree = TreeBuilder::new();
        tree.add_file("file", Digest::of(FUNCTION, b"a"), false).unwrap();
        tree.add_symlink("link", "file").unwrap();
        for wrong in ["absent", "file", "link"] {
            assert!(matches!(planned(&tree, wrong, &[]), Err(Failure::Invalid(_))), "{wrong}");
        }
        planned(&tree, "", &[]).unwrap();
    }

    #[test]
    fn symlinks_out_of_the_root_are_refused_however_they_are_written() {
        for (path, target) in [("a", "/etc"), ("a", ".."), ("a/b", "../.."), ("a/b", "x/../../../y")] {
            assert!(leads_out(path, target), "{path} -> {target}");
            let mut tree = TreeBuilder::new();
            tree.add_symlink(path, target).unwrap();
            assert!(matches!(planned(&tree, "", &[]), Err(Failure::Invalid(_))), "{path} -> {target}");
        }
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/./e"), ("a", "x/../y")] {
            assert!(!leads_out(path, target), "{path} -> {target}");
        }
    }
}
