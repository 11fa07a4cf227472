//! The files that a run made: which of them may be there, and what is kept of each.

use std::fs::Metadata;
use std::path::Path;

use super::asked::Asked;
use super::castxml;
use super::globs;
use super::names;
use super::rule::Rule;
use super::seen::Made;
use super::survey::parent_of;
use crate::clock::Start;
use crate::local::{Deeds, Platform};
use crate::paths::normal;
use crate::reason::Reason;
use crate::tiers::Output;

/// Most files that are kept of a run: an answer with more is none.
const OUTPUTS_MAX: usize = 256;

/// Folders in which no output is.
const HISTORIES: [&str; 4] = [".git", ".hg", ".jj", ".svn"];

/// Checks that nothing but its outputs is left of a run.
///
/// # Errors
/// The reason to keep nothing.
pub fn check(asked: &Asked, deeds: &Deeds) -> Result<(), Reason> {
    if let Some(reason) = &deeds.refused {
        return Err(reason.clone());
    }
    if deeds.made.is_empty() {
        return Err("tool that leaves no file".into());
    }
    if deeds.made.len() > OUTPUTS_MAX {
        return Err("tool that makes too many files".into());
    }
    if deeds.removed.iter().any(|path| !deeds.made.contains(path)) {
        return Err("tool that removes files".into());
    }
    if deeds.read.iter().any(|path| deeds.ever_made.contains(path)) {
        return Err("tool that writes what it reads".into());
    }
    let is_filled = |folder: &&String| deeds.made.iter().any(|path| path.starts_with(&format!("{folder}/")));
    if !deeds.made_folders.iter().all(|folder| is_filled(&folder)) {
        return Err("tool that leaves an empty folder".into());
    }
    check_names(asked, deeds)
}

/// Checks that folders that were made have the permissions that any would get.
fn check_folders(deeds: &Deeds, usual: &Metadata) -> Result<(), Reason> {
    let is_usual = |folder: &String| {
        let metadata = Path::new(folder).symlink_metadata();
        metadata.is_ok_and(|it| Platform::is_usual_folder(&it, usual))
    };
    if deeds.made_folders.iter().all(is_usual) {
        Ok(())
    } else {
        Err("folder with unusual permissions".into())
    }
}

/// Checks that what was made is what the rule says, or lies where the call says.
fn check_names(asked: &Asked, deeds: &Deeds) -> Result<(), Reason> {
    if deeds.made.iter().any(|path| is_history(path)) {
        return Err("output among those of version control".into());
    }
    let wanted = Wanted::of(asked);
    if !deeds.made.iter().all(|path| wanted.may_be(asked, path)) {
        let is_by_rule = !wanted.outputs.is_empty();
        let reason = if is_by_rule {
            "output that the rule doesn't name"
        } else {
            "tool that leaves files which the call doesn't name"
        };
        return Err(reason.into());
    }
    let is_made = |pattern: &String| deeds.made.iter().any(|path| globs::fits(pattern, path));
    let mut all = wanted.outputs.iter().chain(&wanted.depfiles);
    if all.all(is_made) { Ok(()) } else { Err("output that the tool didn't make".into()) }
}

/// What a call may make.
#[derive(Debug)]
pub struct Wanted {
    /// Patterns of the rule's outputs; if there are none, what lies where the call says.
    outputs: Vec<String>,
    /// Those of files in which the tool says what it read.
    depfiles: Vec<String>,
}

impl Wanted {
    /// What the rule and the words of a call say.
    pub fn of(asked: &Asked) -> Self {
        let Asked { rule, words, place, .. } = asked;
        let absolute = |pattern: &String| normal(&place.absolute(pattern));
        let patterns = |patterns: &[String]| Rule::patterns(patterns, words).iter().map(absolute).collect();
        Self { outputs: patterns(&rule.outputs), depfiles: patterns(rule.depfile.as_slice()) }
    }

    /// Whether a file may be among them.
    pub fn may_be(&self, asked: &Asked, path: &str) -> bool {
        let is_named = self.outputs.iter().chain(&self.depfiles).any(|pattern| globs::fits(pattern, path));
        let place = &asked.place;
        let is_near = || place.is_named(path) || is_in(path, &place.folder) || is_said(asked, path);
        !is_history(path) && (is_named || (self.outputs.is_empty() && is_near()))
    }
}

/// Whether a file is one of version control's, which may run it.
fn is_history(path: &str) -> bool {
    path.split('/').any(|part| HISTORIES.contains(&part))
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a word of the call names a file, or a folder that it is in.
fn is_said(asked: &Asked, path: &str) -> bool {
    let ends = |word: &str| {
        let behind = word.split_once('=').map(|(_, value)| value.to_owned());
        let joined = word.strip_prefix('-').and_then(|rest| rest.get(1..)).map(str::to_owned);
        [Some(word.to_owned()), behind, joined]
    };
    let named = asked.words.iter().flat_map(|word| ends(word)).flatten().filter(|word| word.len() > 1);
    named.map(|word| normal(&asked.place.absolute(&word))).any(|named| {
        let real = Path::new(&named).canonicalize().ok().and_then(|real| real.to_str().map(str::to_owned));
        let real = real.unwrap_or(named);
        real.len() > 1 && (path == real || is_in(path, &real))
    })
}

/// What is kept of what a run made.
#[derive(Debug)]
pub struct Kept {
    /// The files.
    pub outputs: Vec<Output>,
    /// What is said of each.
    pub made: Vec<Made>,
    /// Whether a folder of the place is named in them in a way in which it can't be replaced.
    pub show_place: bool,
}

/// Reads what a run made.
///
/// # Errors
/// The reason to keep nothing.
pub fn read(asked: &Asked, deeds: &Deeds, start: &Start) -> Result<Kept, Reason> {
    let mut kept = Kept { outputs: Vec::new(), made: Vec::new(), show_place: false };
    let unread = |_| Reason::new("output that can't be read");
    let folder = start.path().parent().unwrap_or(Path::new("/"));
    let new = |is_executable| {
        Platform::new_output(folder, is_executable).and_then(|file| file.as_file().metadata()).map_err(unread)
    };
    let (usual, usual_program) = (new(false)?, new(true)?);
    check_folders(deeds, &usual_program)?;
    for path in &deeds.made {
        let file = Path::new(path);
        let metadata = file.symlink_metadata().map_err(unread)?;
        if !metadata.is_file() || Platform::is_shared(&metadata) {
            return Err("output that is no file of its own".into());
        }
        let is_executable = Platform::is_executable(&metadata);
        let usual = if is_executable { &usual_program } else { &usual };
        // A file that was there and was filled may be run because it could before.
        let is_left = is_executable && deeds.filled.contains(path);
        if usual.permissions() != metadata.permissions() || is_left {
            return Err("output with unusual permissions".into());
        }
        let data = std::fs::read(file).map_err(unread)?;
        let after = file.symlink_metadata().map_err(unread)?;
        let is_as_left = |metadata| deeds.is_as_left(path, &Platform::stamp(metadata));
        if !is_as_left(&metadata) || !is_as_left(&after) {
            return Err("output that another wrote as well".into());
        }
        let name = asked.place.alias(path);
        if asked.place.real_of(&name).as_ref() != Some(path) {
            return Err("output without a name in every place".into());
        }
        let shows = names::shows(&data, &asked.place);
        let moved =
            if shows && asked.rule.is_castxml { castxml::taken_out(&data, &asked.place) } else { None };
        kept.show_place |= shows && moved.is_none();
        kept.made.push(Made { name: name.clone(), is_moved: moved.is_some() });
        kept.outputs.push(Output { name, data: moved.unwrap_or(data).into(), is_executable });
    }
    Ok(kept)
}

/// Puts the names of folders back as they are here, where the result is not for other places.
///
/// # Errors
/// The reason to keep nothing.
pub fn put_back(kept: &mut Kept, asked: &Asked) -> Result<(), Reason> {
    for (output, made) in kept.outputs.iter_mut().zip(&mut kept.made) {
        if made.is_moved {
            let data = names::put_in(&output.data, &asked.place);
            output.data = data.ok_or(Reason::new("output that can't be read"))?.into();
            made.is_moved = false;
        }
    }
    Ok(())
}

/// The folders that were made, each with what it is in first.
pub fn folders(deeds: &Deeds) -> Vec<String> {
    let mut folders: Vec<String> = deeds.made_folders.iter().cloned().collect();
    folders.sort_by_key(|folder| (parent_of(folder).len(), folder.clone()));
    folders
}
