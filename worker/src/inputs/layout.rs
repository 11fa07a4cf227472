//! Laying out: a plan becomes a folder of links to, or copies of, the files of the local CAS.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use castwork_cas::files::Pinned;
use castwork_cas::{Digest, StoreError};

use super::Plan;
use crate::failure::Failure;
use crate::local::Local;
use crate::sandbox::{Layout, make_symlink, make_whiteout, set_mode};

/// Lays out `plan` in the empty folder `folder`. Blocks.
///
/// Nothing is ever written through a symlink: those are made last.
///
/// # Errors
/// [`Failure::Missing`] with every content that has left the local CAS meanwhile; then nothing has
/// been laid out, and it may be tried again once they are back.
pub(crate) fn lay_out(plan: &Plan, folder: &Path, layout: Layout, local: &Local) -> Result<(), Failure> {
    let pinned = pin(plan, local)?;
    let at = |step: &str, path: &Path| Failure::disk(format!("{step} `{}`", path.display()));
    let own = |path: &Path| local.owner().take(path);
    own(folder).map_err(at("lay out", folder))?;
    for path in &plan.folders {
        let path = place(folder, path)?;
        fs::create_dir(&path).and_then(|()| own(&path)).map_err(at("make the folder", &path))?;
    }
    for (path, digest, is_executable) in &plan.files {
        let path = place(folder, path)?;
        let source = pinned[&(*digest, *is_executable)].path();
        let laid = match layout {
            Layout::Links => link(source, &path, *is_executable, local),
            Layout::Copies => copy(source, &path, *is_executable, local),
        };
        laid.map_err(at("lay out", &path))?;
    }
    for (path, target) in &plan.links {
        let path = place(folder, path)?;
        make_symlink(target, &path).and_then(|()| own(&path)).map_err(at("make the symlink", &path))?;
    }
    for path in &plan.gone {
        let path = place(folder, path)?;
        make_whiteout(&path).map_err(at("hide", &path))?;
    }
    Ok(())
}

/// Keeps every content where it is until all are linked.
fn pin(plan: &Plan, local: &Local) -> Result<HashMap<(Digest, bool), Pinned>, Failure> {
    let mut pinned = HashMap::new();
    let mut missing = Vec::new();
    for (digest, is_executable) in plan.contents() {
        match local.file(&digest, is_executable) {
            Ok(file) => drop(pinned.insert((digest, is_executable), file)),
            Err(StoreError::Missing(digest)) => missing.push(digest),
            Err(error) => return Err(Failure::store("find an input in the local CAS")(error)),
        }
    }
    if missing.is_empty() { Ok(pinned) } else { Err(Failure::Missing(missing)) }
}

/// Joins a path of the tree, whose names are plain, unless this system reads one of them otherwise.
fn place(folder: &Path, path: &str) -> Result<PathBuf, Failure> {
    let names = Path::new(path).components().count();
    let is_plain = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if is_plain && names == path.split('/').count() {
        return Ok(folder.join(path));
    }
    Err(Failure::Precondition(format!("input `{path}` can't be a path on this worker")))
}

fn link(source: &Path, target: &Path, is_executable: bool, local: &Local) -> io::Result<()> {
    match fs::hard_link(source, target) {
        // A file has only so many links; a copy is as good.
        Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
            copy(source, target, is_executable, local)
        }
        done => done,
    }
}

fn copy(source: &Path, target: &Path, is_executable: bool, local: &Local) -> io::Result<()> {
    fs::copy(source, target)?;
    set_mode(target, if is_executable { 0o555 } else { 0o444 })?;
    local.owner().take(target)
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;
    use crate::sandbox::Owner;

    fn local(folder: &Path) -> Local {
        Local::open(folder, 1 << 30, Owner::of_this_process()).unwrap()
    }

    #[test]
    fn a_plan_is_laid_out_as_links_or_as_copies() {
        let base = tempfile::tempdir().unwrap();
        let local = local(base.path());
        let digest = local.keep_bytes(DigestFunction::Sha256, b"content").unwrap();
        let plan = Plan {
            folders: vec!["d".to_owned()],
            files: vec![("d/f".to_owned(), digest, false), ("d/x".to_owned(), digest, true)],
            links: vec![("l".to_owned(), "d/f".to_owned())],
            gone: Vec::new(),
        };
        for (name, layout) in [("links", Layout::Links), ("copies", Layout::Copies)] {
            let folder = base.path().join(name);
            fs::create_dir(&folder).unwrap();
            lay_out(&plan, &folder, layout, &local).unwrap();
            for path in ["d/f", "d/x", "l"] {
                assert_eq!(fs::read(folder.join(path)).unwrap(), b"content", "{name}: {path}");
            }
        }
    }

    #[test]
    fn all_contents_that_have_left_are_named_and_nothing_is_laid_out() {
        let base = tempfile::tempdir().unwrap();
        let local = local(base.path());
        let gone = [b"a", b"b"].map(|data| Digest::of(DigestFunction::Sha256, data));
        let files = gone.iter().map(|digest| (digest.hash_hex(), *digest, false)).collect();
        let plan = Plan { files, ..Plan::default() };
        let folder = base.path().join("inputs");
        fs::create_dir(&folder).unwrap();
        let Err(Failure::Missing(missing)) = lay_out(&plan, &folder, Layout::Links, &local) else {
            panic!("both are missing");
        };
        assert_eq!(missing.len(), 2);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
