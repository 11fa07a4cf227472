//! The answering of a call of a tool: from a cache if it is recognised, and else by the tool.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::asked::Asked;
use super::keeping;
use super::names;
use super::outputs::Wanted;
use super::seen::{Seen, is_true_name};
use super::survey::parent_of;
use crate::answering::{Answered, Source};
use crate::config::Config;
use crate::counters::Configuration;
use crate::direct::{Hashes, Manifest};
use crate::local::Platform;
use crate::paths::normal;
use crate::reason::Reason;
use crate::tiers::{Answer, Stack};

/// Answers a call that is understood.
///
/// # Errors
/// The reason to pass it through.
pub fn answer(
    config: &Config,
    asked: &Asked,
    mut hashes: Hashes,
    configuration: &Configuration,
) -> Result<Answered, Reason> {
    let mut stack = Stack::new(config, configuration);
    if let Some(source) = recognise(config, asked, &mut stack, &mut hashes) {
        return Ok(stack.answered(source, 0, false));
    }
    keeping::run(config, asked, stack)
}

/// Answers from a cache, if what was seen with such calls fits.
fn recognise(config: &Config, asked: &Asked, stack: &mut Stack<'_>, hashes: &mut Hashes) -> Option<Source> {
    let mut fits = |manifest: &Manifest| {
        manifest.seen.iter().find_map(|seen| match seen.check(&asked.place, hashes) {
            // What it says may be heard by a terminal in another form.
            Ok(now) if !now.has_messages || (asked.is_told && asked.is_one == now.is_one) => {
                let action = now.result_key(&asked.key).digest;
                // Whoever names another, names what is not the answer to this.
                (action.to_string() == seen.action).then(|| (action, now == *seen, now))
            }
            Ok(_) => None,
            Err(misfit) => {
                tracing::debug!(?misfit, "a run that was seen doesn't fit");
                None
            }
        })
    };
    let known = stack.local_manifest(&asked.key).and_then(|manifest| fits(&manifest));
    if let Some((action, is_as_it_was, seen)) = &known
        && let Some(answer) = stack.local_answer(action)
        && deliver(asked, seen, &answer, stack)
    {
        if !is_as_it_was {
            stack.amend_manifests(&asked.key, false, |manifest| manifest.add_seen(seen.clone()));
        }
        return Some(Source::LocalHit);
    }
    if config.remotes.is_empty() {
        return None;
    }
    let is_new = known.is_none();
    let (action, is_as_it_was, seen) = known.or_else(|| {
        let mut found = None;
        stack.remote_manifest(&asked.key, |manifest| {
            found = fits(manifest);
            found.is_some()
        });
        found
    })?;
    let local = stack.local_answer(&action).filter(|_| is_new);
    let answer = local.or_else(|| stack.remote_answer(&action))?;
    if !deliver(asked, &seen, &answer, stack) {
        return None;
    }
    stack.keep_locally(&action, &answer);
    if is_new || !is_as_it_was {
        stack.amend_manifests(&asked.key, false, |manifest| manifest.add_seen(seen.clone()));
    }
    Some(Source::RemoteHit)
}

/// Leaves an answer where the tool would have left it: all of it, or, if that can't be, nothing.
fn deliver(asked: &Asked, seen: &Seen, answer: &Answer, stack: &mut Stack<'_>) -> bool {
    let Some(files) = files_of_here(asked, seen, answer) else {
        stack.reasons.push("result that is not whole".into());
        return false;
    };
    if !files.iter().all(|file| may_be_written(&file.path)) {
        stack.reasons.push("output in place of which none can be put".into());
        return false;
    }
    if let Err(error) = write_all(asked, seen, &files) {
        tracing::debug!(%error, "outputs can't be written");
        stack.reasons.push("outputs can't be written".into());
        return false;
    }
    // Whoever closed our outputs doesn't want to hear.
    let _ = io::stdout().write_all(&answer.stdout).and_then(|()| io::stdout().flush());
    let _ = io::stderr().write_all(&answer.stderr);
    true
}

/// A file to be written.
struct Written {
    path: PathBuf,
    data: Vec<u8>,
    is_executable: bool,
}

/// The files of an answer as they are here. `None` if one is missing, or there are others.
fn files_of_here(asked: &Asked, seen: &Seen, answer: &Answer) -> Option<Vec<Written>> {
    let told: BTreeSet<&str> = seen.outputs.iter().map(|made| made.name.as_str()).collect();
    let there: BTreeSet<&str> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
    let is_whole = told == there && seen.outputs.len() == told.len() && answer.outputs.len() == there.len();
    if !is_whole
        || told.is_empty()
        || seen.has_messages == (answer.stdout.is_empty() && answer.stderr.is_empty())
    {
        return None;
    }
    let mut files = Vec::new();
    let wanted = Wanted::of(asked);
    for made in &seen.outputs {
        let output = answer.output(&made.name)?;
        let path = asked.place.real_of(&made.name).filter(|path| normal(path) == *path)?;
        // Whoever keeps answers doesn't say where files of mine are written.
        if !wanted.may_be(asked, &path) || !is_under_true_name(&path) || seen.has_found(&path, &asked.place) {
            return None;
        }
        let data =
            if made.is_moved { names::put_in(&output.data, &asked.place)? } else { output.data.to_vec() };
        files.push(Written { path: path.into(), data, is_executable: output.is_executable });
    }
    Some(files)
}

/// Whether no link leads elsewhere on the way to a file, as far as there is one.
fn is_under_true_name(path: &str) -> bool {
    let mut folders = Path::new(path).ancestors().skip(1);
    let there = folders.find(|folder| folder.symlink_metadata().is_ok());
    there.and_then(Path::to_str).is_some_and(is_true_name)
}

/// Whether there is nothing at a path, or a file that another may take the place of as if it were written anew.
fn may_be_written(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(metadata) => {
            metadata.is_file() && !Platform::is_shared(&metadata) && !metadata.permissions().readonly()
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Writes all files beside their places, and then moves each into its own; or leaves nothing.
fn write_all(asked: &Asked, seen: &Seen, files: &[Written]) -> io::Result<()> {
    let mut folders = Vec::new();
    let staged = make_folders(asked, seen, files, &mut folders).and_then(|()| stage(files));
    match staged {
        Ok(ready) => {
            for (file, path) in ready {
                file.persist(path)?;
            }
            Ok(())
        }
        Err(error) => {
            for folder in folders.iter().rev() {
                let _ = std::fs::remove_dir(folder);
            }
            Err(error)
        }
    }
}

/// Makes the folders that the tool would make; those that were not there are added to `made`.
fn make_folders(asked: &Asked, seen: &Seen, files: &[Written], made: &mut Vec<String>) -> io::Result<()> {
    for folder in &seen.made_folders {
        let real = asked.place.real_of(folder).filter(|real| is_under_true_name(real));
        let real = real.ok_or(io::ErrorKind::InvalidInput)?;
        let begin = Path::new(&real);
        if !files.iter().any(|file| file.path.starts_with(begin)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match std::fs::create_dir(&real) {
            Ok(()) => made.push(real),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all files beside their places. Those that are there have to be like new ones: the tool may leave them their
/// permissions.
fn stage(files: &[Written]) -> io::Result<Vec<(NamedTempFile, &Path)>> {
    let mut ready = Vec::with_capacity(files.len());
    for Written { path, data, is_executable } in files {
        let folder = path.to_str().map(parent_of).ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = Platform::new_output(Path::new(folder), *is_executable)?;
        if let Ok(there) = path.symlink_metadata()
            && !Platform::have_same_rights(&there, &file.as_file().metadata()?)
        {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        file.write_all(data)?;
        ready.push((file, path.as_path()));
    }
    Ok(ready)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_on_the_way_is_none_that_an_answer_takes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        Platform::make_link(&root.join("real"), &root.join("link")).unwrap();
        let is_true = |name: &str| is_under_true_name(root.join(name).to_str().unwrap());
        assert!(is_true("real/a") && is_true("real/new/deep/a"));
        assert!(!is_true("link/a") && !is_true("link/new/deep/a"));
    }
}
