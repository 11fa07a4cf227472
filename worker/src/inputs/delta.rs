//! What makes one input root out of another that is laid out already.
//!
//! Trees name their parts by digest, so what two have in common is passed over without a look into it.

use castwork_cas::Digest;
use castwork_cas::merkle::{CheckedDirectory, EntryKind, FlatTree};

use super::Plan;
use crate::failure::Failure;

/// Returns what has to lie over `base` so that both together look like `tree`; `None` if that is more than
/// `entries_max`.
///
/// # Errors
/// As [`Plan::of`]; what is common was checked when the base was planned.
pub(super) fn delta(base: &FlatTree, tree: &FlatTree, entries_max: usize) -> Result<Option<Plan>, Failure> {
    let mut walk = Walk { base, tree, entries_max, plan: Plan::default() };
    let is_within = walk.directory("", &base.root, &tree.root)?;
    Ok(is_within.then_some(walk.plan))
}

struct Walk<'a> {
    base: &'a FlatTree,
    tree: &'a FlatTree,
    entries_max: usize,
    plan: Plan,
}

impl Walk<'_> {
    /// Compares the directory that both have at `path` (a slash at its end unless it is the root). `false` if there
    /// is too much to do.
    fn directory(&mut self, path: &str, before: &Digest, after: &Digest) -> Result<bool, Failure> {
        if before == after {
            return Ok(true);
        }
        let (base, tree) = (self.base, self.tree);
        let (before, after) = (held(base, before), held(tree, after));
        for file in &after.files {
            if before
                .files
                .binary_search_by(|own| own.name.cmp(&file.name))
                .is_ok_and(|at| before.files[at] == *file)
            {
                continue;
            }
            self.plan.add(format!("{path}{}", file.name), EntryKind::File(file))?;
        }
        for link in &after.symlinks {
            if before.symlinks.contains(link) {
                continue;
            }
            self.plan.add(format!("{path}{}", link.name), EntryKind::Symlink(link))?;
        }
        for name in names(before).filter(|name| !has(after, name)) {
            self.plan.gone.push(format!("{path}{name}"));
        }
        if self.plan.len() > self.entries_max {
            return Ok(false);
        }
        for folder in &after.directories {
            let inner = format!("{path}{}", folder.name);
            let at = before.directories.binary_search_by(|own| own.name.cmp(&folder.name));
            let own = at.ok().map(|at| &before.directories[at].digest);
            if own == Some(&folder.digest) {
                continue;
            }
            self.plan.folders.push(inner.clone());
            let inner = format!("{inner}/");
            let is_within = match own {
                Some(own) => self.directory(&inner, own, &folder.digest)?,
                None => self.all_of(&inner, &folder.digest)?,
            };
            if !is_within {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds everything in a directory that the base has nothing of.
    fn all_of(&mut self, path: &str, digest: &Digest) -> Result<bool, Failure> {
        let directory = held(self.tree, digest);
        for file in &directory.files {
            self.plan.add(format!("{path}{}", file.name), EntryKind::File(file))?;
        }
        for link in &directory.symlinks {
            self.plan.add(format!("{path}{}", link.name), EntryKind::Symlink(link))?;
        }
        for folder in &directory.directories {
            if self.plan.len() > self.entries_max {
                return Ok(false);
            }
            let inner = format!("{path}{}", folder.name);
            self.plan.folders.push(inner.clone());
            if !self.all_of(&format!("{inner}/"), &folder.digest)? {
                return Ok(false);
            }
        }
        Ok(self.plan.len() <= self.entries_max)
    }
}

fn held<'a>(tree: &'a FlatTree, digest: &Digest) -> &'a CheckedDirectory {
    tree.directory(digest).expect("a tree holds every directory that one of them names")
}

fn names(directory: &CheckedDirectory) -> impl Iterator<Item = &str> {
    let files = directory.files.iter().map(|entry| entry.name.as_str());
    let links = directory.symlinks.iter().map(|entry| entry.name.as_str());
    files.chain(links).chain(directory.directories.iter().map(|entry| entry.name.as_str()))
}

/// Entries of each kind are in the order of their names.
fn has(directory: &CheckedDirectory, name: &str) -> bool {
    directory.files.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok()
        || directory.directories.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok()
        || directory.symlinks.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok()
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;
    use castwork_cas::merkle::{Limits, TreeBuilder, TreeReader, tree_bytes};

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    /// `path=content`, `path->target`, `path/`.
    fn tree(entries: &[&str]) -> FlatTree {
        let mut tree = TreeBuilder::new();
        for entry in entries {
            if let Some((path, content)) = entry.split_once('=') {
                tree.add_file(path, Digest::of(FUNCTION, content.as_bytes()), content.starts_with('!'))
                    .unwrap();
            } else if let Some((path, target)) = entry.split_once("->") {
                tree.add_symlink(path, target).unwrap();
            } else {
                tree.add_directory(entry.trim_end_matches('/')).unwrap();
            }
        }
        let reader = TreeReader::from_bytes(&tree_bytes(&tree.build(FUNCTION)), FUNCTION, &Limits::default());
        reader.unwrap().to_flat(&Limits::default()).unwrap()
    }

    fn between(base: &[&str], wanted: &[&str]) -> Plan {
        delta(&tree(base), &tree(wanted), 100).unwrap().unwrap()
    }

    fn paths(plan: &Plan) -> Vec<&str> {
        plan.files.iter().map(|(path, ..)| path.as_str()).collect()
    }

    #[test]
    fn what_is_the_same_is_not_named() {
        let all = ["usr/lib/a=1", "usr/lib/b=2", "p/x=3", "l->usr", "empty/"];
        assert_eq!(between(&all, &all), Plan::default());
        let other = ["usr/lib/a=1", "usr/lib/b=2", "p/x=4", "l->usr", "empty/"];
        let plan = between(&all, &other);
        assert_eq!((paths(&plan), &plan.folders[..]), (vec!["p/x"], &["p".to_owned()][..]));
        assert!(plan.gone.is_empty() && plan.links.is_empty());
    }

    #[test]
    fn what_the_base_has_too_much_of_is_hidden() {
        let plan = between(&["a/x=1", "a/y=2", "a/l->x", "b/z=3", "c/"], &["a/x=1"]);
        assert_eq!(plan.gone, ["b", "c", "a/y", "a/l"]);
        assert_eq!((plan.folders, plan.files.len()), (vec!["a".to_owned()], 0));
    }

    #[test]
    fn a_thing_may_become_one_of_another_kind() {
        let plan = between(&["a=1", "b/x=1", "c->a", "d=1"], &["a/x=1", "b=1", "c=1", "d->b"]);
        assert_eq!(paths(&plan), ["b", "c", "a/x"]);
        assert_eq!(
            (plan.folders, plan.links),
            (vec!["a".to_owned()], vec![("d".to_owned(), "b".to_owned())])
        );
        assert!(plan.gone.is_empty(), "what lies above hides what lies below");
    }

    #[test]
    fn a_mode_or_a_target_is_a_difference() {
        let digest = Digest::of(FUNCTION, b"1");
        let file = |is_executable| {
            let mut tree = TreeBuilder::new();
            tree.add_file("a", digest, is_executable).unwrap();
            let bytes = tree_bytes(&tree.build(FUNCTION));
            TreeReader::from_bytes(&bytes, FUNCTION, &Limits::default())
                .unwrap()
                .to_flat(&Limits::default())
                .unwrap()
        };
        let plan = delta(&file(false), &file(true), 9).unwrap().unwrap();
        assert_eq!(plan.files, [("a".to_owned(), digest, true)]);
        assert_eq!(between(&["l->a"], &["l->b"]).links, [("l".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn too_much_is_nothing_and_a_link_out_is_refused() {
        let many: Vec<String> = (0..50).map(|at| format!("d{at}/f=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(delta(&tree(&[]), &tree(&many), 99).unwrap(), None);
        assert!(delta(&tree(&[]), &tree(&many), 100).unwrap().is_some());
        assert_eq!(delta(&tree(&many), &tree(&[]), 49).unwrap(), None);
        assert!(matches!(delta(&tree(&[]), &tree(&["l->/etc"]), 9), Err(Failure::Invalid(_))));
    }
}
