//! [`Survey`]: what there is on the ways that a run looked at, once it has ended.
//!
//! Every way is walked part by part. Folders, links, files and what is missing are written down by their true names, so
//! that a run finds the same by whatever way if all of them are as they were. Nothing of it may be younger than the
//! run: then it is what the run saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::Path;

use crate::direct::check::names_in;
use crate::local::{Deeds, Platform};
use crate::paths::Place;
use crate::reason::Reason;
use crate::toolchain::interpreter_of;

/// Most links that are followed on a way.
const LINKS_MAX: usize = 40;

/// Most parts of ways that are written down.
const PARTS_MAX: usize = 200_000;

/// Devices that are as good as no file.
const FOLDER_OF_DEVICES: &str = "/dev";

/// What is on the ways.
#[derive(Debug)]
pub struct Survey<'a> {
    place: &'a Place,
    deeds: &'a Deeds,
    /// When the run began.
    start_ns: i128,
    /// Folders by their true names.
    pub folders: BTreeMap<String, Found>,
    /// Ways that have been walked.
    walked: BTreeSet<String>,
    /// Whether a way leads from one folder with a virtual name out of it by `..`, so that it leads elsewhere elsewhere.
    pub crosses: bool,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Names under which there is nothing.
    pub absent: BTreeSet<String>,
    /// Files, and whether they may be run.
    pub files: BTreeMap<String, bool>,
    /// Links, and where to.
    pub links: BTreeMap<String, String>,
    /// What is neither.
    pub others: BTreeSet<String>,
    /// The hash of all names, if they were listed.
    pub listing: Vec<u8>,
}

impl Found {
    /// Whether nothing in the folder was looked at but folders.
    pub fn is_bare(&self) -> bool {
        self.absent.is_empty()
            && self.files.is_empty()
            && self.links.is_empty()
            && self.others.is_empty()
            && self.listing.is_empty()
    }
}

impl<'a> Survey<'a> {
    /// Walks all ways that a run looked at, and `more`.
    ///
    /// # Errors
    /// The reason to keep nothing.
    pub fn of(deeds: &'a Deeds, more: &[String], place: &'a Place, start_ns: i128) -> Result<Self, Reason> {
        let folders = BTreeMap::from([("/".to_owned(), Found::default())]);
        let mut survey =
            Self { place, deeds, start_ns, folders, walked: BTreeSet::new(), crosses: false };
        survey.walk(&place.folder)?;
        for path in deeds.looked.iter().chain(more) {
            survey.walk(path)?;
        }
        for path in &deeds.started {
            survey.walk_loaders(path)?;
        }
        for folder in &deeds.listed {
            survey.list(folder)?;
        }
        // What was read has to have been found: it may have been replaced.
        for path in &deeds.read {
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            let folder = if folder.is_empty() { "/" } else { folder };
            if !survey.folders.get(folder).is_some_and(|found| found.files.contains_key(name)) {
                return Err("file that was read is gone, or has another name".into());
            }
        }
        Ok(survey)
    }

    /// Walks a way from the root, and returns the true name of the file at its end, if there is one.
    fn walk(&mut self, path: &str) -> Result<Option<String>, Reason> {
        if !self.walked.insert(path.to_owned()) {
            return Ok(None);
        }
        if self.walked.len() > PARTS_MAX {
            return Err("run that looks at too many files".into());
        }
        let mut parts: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut current = "/".to_owned();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    let parent = parent_of(&current).to_owned();
                    self.crosses |= self.place.crosses(&current, &parent);
                    current = parent;
                    continue;
                }
                _ => {}
            }
            let whole = joined(&current, &part);
            // What the run has made itself says nothing about before.
            if self.deeds.ever_made.contains(&whole) {
                return Ok(None);
            }
            let found = self.folders.entry(current.clone()).or_default();
            let metadata = match Path::new(&whole).symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    found.absent.insert(part);
                    return Ok(None);
                }
                Err(_) => return Err("path that can't be looked at".into()),
            };
            if metadata.is_dir() {
                self.check_birth(&metadata)?;
                self.folders.entry(whole.clone()).or_default();
                current = whole;
            } else if metadata.is_symlink() {
                links += 1;
                let target = Path::new(&whole).read_link().ok().and_then(|to| to.into_os_string().into_string().ok());
                let target = target.ok_or(Reason::new("link with an unusual name"))?;
                if links > LINKS_MAX {
                    return Ok(None);
                }
                self.check_age(&metadata)?;
                parts.extend(target.split('/').rev().map(str::to_owned));
                if target.starts_with('/') {
                    current = "/".to_owned();
                }
                let found = self.folders.entry(parent_of(&whole).to_owned()).or_default();
                found.links.insert(part, target);
            } else if metadata.is_file() {
                found.files.insert(part, Platform::is_executable(&metadata));
                self.check_age(&metadata)?;
                return Ok(Some(whole));
            } else {
                if current != FOLDER_OF_DEVICES {
                    return Err("file of an unusual kind".into());
                }
                found.others.insert(part);
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Checks that no file has changed while what they hold was read.
    ///
    /// # Errors
    /// The reason to keep nothing.
    pub fn check_again(&self) -> Result<(), Reason> {
        for (folder, found) in &self.folders {
            for name in found.files.keys() {
                let metadata = Path::new(&joined(folder, name)).symlink_metadata();
                let metadata = metadata.ok().filter(Metadata::is_file);
                self.check_age(&metadata.ok_or(Reason::new("file changed while the tool ran"))?)?;
            }
        }
        Ok(())
    }

    fn check_age(&self, metadata: &Metadata) -> Result<(), Reason> {
        if Platform::stamp(metadata).is_settled_before(self.start_ns) {
            return Ok(());
        }
        Err("file changed while the tool ran".into())
    }

    /// A folder's own time says when something in it changed; when it was made is not known everywhere.
    fn check_birth(&self, metadata: &Metadata) -> Result<(), Reason> {
        let born = metadata.created().ok().and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok());
        let is_young = born.is_some_and(|born| {
            i128::try_from(born.as_nanos()).is_ok_and(|born_ns| born_ns >= self.start_ns)
        });
        if is_young { Err("folder made while the tool ran".into()) } else { Ok(()) }
    }

    /// Walks to what the system itself opens to start a program: the loader, or a script's interpreter.
    fn walk_loaders(&mut self, path: &str) -> Result<(), Reason> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let loader = interpreter_of(Path::new(&path)).ok_or(Reason::new("program of an unknown kind"))?;
            let Some(loader) = loader else { return Ok(()) };
            if !loader.starts_with('/') {
                return Err("script whose interpreter is found by a relative path".into());
            }
            self.walked.remove(&loader);
            if self.walk(&loader)?.is_none() {
                return Err("program whose loader is not there".into());
            }
            path = loader;
        }
        Err("program of an unknown kind".into())
    }

    fn list(&mut self, folder: &str) -> Result<(), Reason> {
        if self.deeds.ever_made.contains(folder) {
            return Ok(());
        }
        self.walk(folder)?;
        let settled = || {
            let metadata = Path::new(folder).symlink_metadata().ok().filter(Metadata::is_dir);
            metadata.is_some_and(|metadata| Platform::stamp(&metadata).is_settled_before(self.start_ns))
        };
        if !settled() {
            return Err("folder that was listed changed while the tool ran".into());
        }
        let names = names_in(folder);
        if !settled() {
            return Err("folder that was listed changed while the tool ran".into());
        }
        self.folders.entry(folder.to_owned()).or_default().listing = names;
        Ok(())
    }
}

/// The folder that something is in.
pub fn parent_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// A name in a folder.
pub fn joined(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}
