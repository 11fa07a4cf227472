//! [`Survey`]: what there is on the ways that a run looked at, once it has ended.
//!
//! Every way is walked part by part. Folders, links, files and what is missing are written down by their true names, so
//! that a run finds the same by whatever way if all of them are as they were. Nothing of it may be younger than the
//! run: then it is what the run saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::Path;

use crate::local::{Deeds, Platform, Saw};
use crate::paths::Place;
use crate::reason::Reason;
use crate::rules::asked::Asked;
use crate::rules::nvcc;
use crate::rules::seen::listing_of;
use crate::toolchain::interpreter_of;

/// Most links that are followed on a way.
const LINKS_MAX: usize = 40;

/// Most parts of ways that are written down.
const PARTS_MAX: usize = 200_000;

/// Devices that are as good as no file.
const FOLDER_OF_DEVICES: &str = "/dev";

/// Links in it are others for each process.
const FOLDER_OF_PROCESSES: &str = "/proc/";

/// What is on the ways.
#[derive(Debug)]
pub struct Survey<'a> {
    place: &'a Place,
    deeds: &'a Deeds,
    /// Whether the order counts in which a folder lists its names.
    is_ordered: bool,
    /// When the run began.
    start_ns: i128,
    /// Folders by their true names.
    pub folders: BTreeMap<String, Found>,
    /// What the run looked at and then made: its true name, and whether there was something before.
    pub made: BTreeMap<String, (String, bool)>,
    /// Ways that have been walked.
    walked: BTreeSet<String>,
    /// Those of them that led to something that the run has made.
    own: BTreeSet<String>,
    /// Whether a way leads out of a folder with a virtual name by `..`.
    pub climbs: bool,
    /// Whether such a way leads back by that folder's real name, which is another elsewhere.
    pub leads_back: bool,
}

/// Where a way has led.
#[derive(Clone, Debug)]
struct At {
    /// The true name.
    real: String,
    /// What it is written down as: the same, unless the way has climbed out of a folder with a virtual name.
    key: String,
}

impl At {
    fn root() -> Self {
        Self { real: "/".to_owned(), key: "/".to_owned() }
    }

    fn within(&self, part: &str) -> Self {
        Self { real: joined(&self.real, part), key: joined(&self.key, part) }
    }

    fn has_climbed(&self) -> bool {
        self.real != self.key
    }
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Names under which there is nothing.
    pub absent: BTreeSet<String>,
    /// Files, with their permissions.
    pub files: BTreeMap<String, u32>,
    /// Links, and where to.
    pub links: BTreeMap<String, String>,
    /// What is neither.
    pub others: BTreeSet<String>,
    /// The hash of all names, if they were listed.
    pub listing: Vec<u8>,
    /// The folder's own permissions, where a way led to it.
    pub permissions: u32,
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
    pub fn of(deeds: &'a Deeds, more: &[String], asked: &'a Asked, start_ns: i128) -> Result<Self, Reason> {
        let place = &asked.place;
        let (folders, made) = (BTreeMap::from([("/".to_owned(), Found::default())]), BTreeMap::new());
        let mut survey = Self {
            place,
            deeds,
            is_ordered: asked.rule.counts_all(),
            start_ns,
            folders,
            made,
            walked: BTreeSet::new(),
            own: BTreeSet::new(),
            climbs: false,
            leads_back: false,
        };
        survey.walk(&place.folder)?;
        for path in deeds.looked.iter().chain(more) {
            survey.walk(path)?;
        }
        for path in &deeds.started {
            survey.walk_loaders(path)?;
        }
        let listed = deeds.listed.union(&deeds.listed_by_itself);
        for folder in listed.filter(|folder| !nvcc::looks_for_its_own(asked, deeds, folder)) {
            survey.list(folder)?;
        }
        // What was read has to have been found: it may have been replaced.
        for path in &deeds.read {
            survey.walk(path)?;
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            let folder = if folder.is_empty() { "/" } else { folder };
            if !survey.folders.get(folder).is_some_and(|found| found.files.contains_key(name)) {
                return Err("file that was read is gone, or has another name".into());
            }
        }
        survey.check_what_was_seen()?;
        Ok(survey)
    }

    /// Checks that what is there now is what the run found: a file may be gone since, or another have taken its place,
    /// that is as old.
    fn check_what_was_seen(&self) -> Result<(), Reason> {
        for (path, saw) in self.deeds.saw.iter().filter(|(path, _)| !self.own.contains(*path)) {
            let path = Path::new(path);
            let found = path.metadata().or_else(|_| path.symlink_metadata());
            let found = found.map(|metadata| Platform::stamp(&metadata));
            let is_same = match saw {
                Saw::Nothing => found.is_err(),
                Saw::Something(then) => found.is_ok_and(|now| (now.device, now.inode) == *then),
                Saw::Changing => false,
            };
            if !is_same {
                tracing::debug!(?path, ?saw, "something else is there now");
                return Err("file changed while the tool ran".into());
            }
        }
        Ok(())
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
        let mut at = At::root();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at = self.up(&at);
                    continue;
                }
                _ => {}
            }
            let next = at.within(&part);
            self.leads_back |= at.has_climbed() && self.is_on_way(&next.real);
            // What the run has made itself says nothing about before, but for whether there was something.
            if self.deeds.ever_made.contains(&next.real) {
                let was_there = self.deeds.before.get(&next.real).copied().unwrap_or_default();
                self.made.insert(next.key, (next.real, was_there));
                self.own.insert(path.to_owned());
                return Ok(None);
            }
            let found = self.folders.entry(at.key.clone()).or_default();
            let metadata = match Path::new(&next.real).symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    found.absent.insert(part);
                    return Ok(None);
                }
                Err(_) => return Err("path that can't be looked at".into()),
            };
            if metadata.is_dir() {
                self.check_birth(&metadata)?;
                self.folders.entry(next.key.clone()).or_default().permissions =
                    Platform::permissions(&metadata);
                at = next;
            } else if metadata.is_symlink() {
                let target = target_of(&next.real)?;
                parts.extend(target.split('/').rev().map(str::to_owned));
                if target.starts_with('/') {
                    at = At::root();
                }
                found.links.insert(part, target);
                self.check_age(&metadata)?;
                links += 1;
                if links > LINKS_MAX {
                    return Ok(None);
                }
            } else if metadata.is_file() {
                found.files.insert(part, Platform::permissions(&metadata));
                self.check_age(&metadata)?;
                return Ok(Some(next.real));
            } else {
                if at.real != FOLDER_OF_DEVICES {
                    return Err("file of an unusual kind".into());
                }
                found.others.insert(part);
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// One folder up. Out of one with a virtual name the way is written down as it is, since elsewhere it leads
    /// elsewhere.
    fn up(&mut self, at: &At) -> At {
        let parent = parent_of(&at.real).to_owned();
        let leaves = self.place.mounts().iter().any(|mount| mount.real == at.real);
        if leaves || at.key.ends_with("/..") {
            self.climbs = true;
            return At { real: parent, key: format!("{}/..", at.key) };
        }
        At { real: parent, key: parent_of(&at.key).to_owned() }
    }

    /// Whether a folder is one with a virtual name, or one that such a folder lies in.
    fn is_on_way(&self, folder: &str) -> bool {
        let begin = format!("{folder}/");
        self.place.mounts().iter().any(|mount| mount.real == folder || mount.real.starts_with(&begin))
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
        let names = listing_of(folder, self.is_ordered);
        if !settled() {
            return Err("folder that was listed changed while the tool ran".into());
        }
        // By whatever ways it was reached.
        for (key, found) in &mut self.folders {
            if key == folder
                || (key.contains("/..")
                    && Path::new(key).canonicalize().is_ok_and(|real| real == Path::new(folder)))
            {
                found.listing.clone_from(&names);
            }
        }
        Ok(())
    }
}

/// Where a link leads.
fn target_of(link: &str) -> Result<String, Reason> {
    if link.starts_with(FOLDER_OF_PROCESSES) {
        return Err("path that leads through a process".into());
    }
    let target = Path::new(link).read_link().ok();
    let target = target.and_then(|to| to.into_os_string().into_string().ok());
    target.ok_or(Reason::new("link with an unusual name"))
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
