//! Whether folders were moved, and links turned, while a compile ran.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::clock::Start;
use crate::local::{Platform, Stamp};
use crate::paths::Place;
use crate::reason::Reason;

pub(super) const CHANGED: Reason = Reason::new("file changed while compiling");

/// Most entries of a folder that are looked through for folders.
const ENTRIES_MAX: usize = 1000;

/// Most links on one way; systems follow no more than 40.
const LINKS_MAX: usize = 40;

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Which folder is there now.
pub(super) fn identity_of(folder: impl AsRef<Path>) -> Option<Identity> {
    let stamp = Platform::stamp(&folder.as_ref().metadata().ok().filter(std::fs::Metadata::is_dir)?);
    Some((stamp.device, stamp.inode))
}

/// Which folders these are, those above them, and those right in them.
pub(super) fn identities(named: impl Iterator<Item = PathBuf>) -> HashMap<PathBuf, Identity> {
    let named: BTreeSet<PathBuf> = named.collect();
    let mut known = HashMap::new();
    for folder in &named {
        for above in folder.ancestors() {
            if known.contains_key(above) {
                break;
            }
            known.extend(identity_of(above).map(|identity| (above.to_owned(), identity)));
        }
    }
    for folder in &named {
        let Ok(entries) = folder.read_dir() else { continue };
        let folders = entries
            .take(ENTRIES_MAX)
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for path in folders.map(|entry| entry.path()) {
            known.extend(identity_of(&path).map(|identity| (path, identity)));
        }
    }
    known
}

/// The folders that are known not to have been moved since the beginning.
pub(super) struct Still<'a> {
    start: &'a Start,
    /// Which some folders were then.
    known: &'a HashMap<PathBuf, Identity>,
    seen: HashSet<OsString>,
}

impl<'a> Still<'a> {
    /// Begins with nothing.
    pub(super) fn new(start: &'a Start, known: &'a HashMap<PathBuf, Identity>) -> Self {
        Self { start, known, seen: HashSet::new() }
    }

    /// Checks that no folder on the way to a file was put there, and no link changed, since the beginning.
    ///
    /// # Errors
    /// If one may have been.
    pub(super) fn check(&mut self, path: &Path) -> Result<(), Reason> {
        let mut way: Option<&Path> = Some(path);
        while let Some(at) = way {
            if self.seen.contains(at.as_os_str()) {
                return Ok(());
            }
            self.seen.insert(at.as_os_str().to_owned());
            let metadata = at.symlink_metadata().map_err(|_| CHANGED)?;
            let stamp = Platform::stamp(&metadata);
            let is_still = self.is_settled(&stamp) || metadata.is_dir() && self.is_only_filled(at, &stamp);
            if !is_still {
                return Err(CHANGED);
            }
            way = at.parent();
        }
        Ok(())
    }

    fn is_settled(&self, stamp: &Stamp) -> bool {
        stamp.is_settled_before(self.start.instant_ns)
    }

    /// Whether a folder changed because files were made in it, and for no other reason: that changes both its times, moving
    /// it only one. Making a file in one that was moved hides that, but not that the folder above it has changed too.
    fn is_only_filled(&self, folder: &Path, stamp: &Stamp) -> bool {
        let is_same = match self.known.get(folder) {
            Some(then) => *then == (stamp.device, stamp.inode),
            None => folder.parent().is_none_or(|above| {
                above.symlink_metadata().is_ok_and(|metadata| self.is_settled(&Platform::stamp(&metadata)))
            }),
        };
        is_same && stamp.modified_ns == stamp.changed_ns
    }
}

/// The links on the ways to some paths, with what each says. gcc calls a header of the system by its real path where that
/// is shorter, so that of the way to it nothing else shows.
///
/// # Errors
/// If one was changed since the beginning, or says what is no text.
pub(super) fn links_on_ways<'b>(
    paths: impl Iterator<Item = &'b str>,
    place: &Place,
    start: &Start,
) -> Result<Vec<(String, String)>, Reason> {
    let mut links: Vec<(String, String)> = Vec::new();
    let mut plain: HashSet<PathBuf> = HashSet::new();
    for path in paths {
        let mut left: Vec<String> = place.absolute(path).split('/').rev().map(str::to_owned).collect();
        let mut at = PathBuf::from("/");
        let mut followed = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                part => at.push(part),
            }
            if plain.contains(&at) {
                continue;
            }
            // What isn't there is no link; that it stays away is watched otherwise.
            let Ok(metadata) = at.symlink_metadata() else { break };
            if !metadata.is_symlink() {
                plain.insert(at.clone());
                continue;
            }
            followed += 1;
            if followed > LINKS_MAX || !Platform::stamp(&metadata).is_settled_before(start.instant_ns) {
                return Err(CHANGED);
            }
            let unusual = Reason::new("file with an unusual name");
            let to =
                at.read_link().ok().and_then(|to| to.to_str().map(str::to_owned)).ok_or(unusual.clone())?;
            let link = (at.to_str().ok_or(unusual)?.to_owned(), to.clone());
            if !links.contains(&link) {
                links.push(link);
            }
            at.pop();
            if to.starts_with('/') {
                at = PathBuf::from("/");
            }
            left.extend(to.split('/').rev().map(str::to_owned));
        }
    }
    links.sort();
    Ok(links)
}
