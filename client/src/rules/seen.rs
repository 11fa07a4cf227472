//! [`Seen`]: what a run was seen to depend on, and what it left, as it is kept and sent.

use std::path::Path;

use prost::Message as _;

use super::essence::{self, Look};
use super::names;
use super::survey::joined;
use crate::direct::Hashes;
use crate::direct::check::Misfit;
use crate::direct::hashes::hash_of;
use crate::direct::key::ManifestKey;
use crate::direct::manifest::place_hash;
use crate::local::{Platform, witness};
use crate::paths::{Place, normal};

/// What the system says that it is.
pub const SYSTEM: &str = "system";

/// Who runs the tool.
pub const USER: &str = "user";

/// What standard input is.
pub const INPUT: &str = "input";

/// Which of standard input, output and error are terminals.
pub const TERMINALS: &str = "terminals";

/// What a run depended on, and what it left. Paths are virtual.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Seen {
    /// The digest of the result that it came to, `HASH/SIZE`.
    #[prost(string, tag = "1")]
    pub action: String,
    /// Everything on the ways that were looked at, by folder.
    #[prost(message, repeated, tag = "2")]
    pub folders: Vec<Folder>,
    /// What was asked of the system, with what it said.
    #[prost(message, repeated, tag = "3")]
    pub facts: Vec<Fact>,
    /// Set if this is right in one place only: the hash of that.
    #[prost(bytes = "vec", tag = "4")]
    pub place: Vec<u8>,
    /// The files that were made.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<Made>,
    /// The folders that were made.
    #[prost(string, repeated, tag = "6")]
    pub made_folders: Vec<String>,
    /// What was looked at before it was made: with whether there was something, as `there` or nothing.
    #[prost(message, repeated, tag = "8")]
    pub before: Vec<Fact>,
    /// Whether the tool said something.
    #[prost(bool, tag = "7")]
    pub has_messages: bool,
    /// Whether it said that where standard output and error are one: then all of it is kept as the first.
    #[prost(bool, tag = "9")]
    pub is_one: bool,
}

/// A folder that is there itself, and no link, with what was looked at in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Folder {
    /// Its path.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Names under which there is nothing.
    #[prost(string, repeated, tag = "2")]
    pub absent: Vec<String>,
    /// Files.
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<File>,
    /// Links.
    #[prost(message, repeated, tag = "4")]
    pub links: Vec<Fact>,
    /// The hash of all names in it, if they were listed.
    #[prost(bytes = "vec", tag = "5")]
    pub listing: Vec<u8>,
    /// What is neither file, folder nor link.
    #[prost(string, repeated, tag = "6")]
    pub others: Vec<String>,
    /// Whether the order counts in which its names are listed.
    #[prost(bool, tag = "7")]
    pub is_ordered: bool,
    /// Its permissions, if they count; else 0.
    #[prost(uint32, tag = "8")]
    pub permissions: u32,
}

/// A file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct File {
    /// Its name in its folder.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The hash of what it holds; empty if that names folders of the place.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// The hash of what counts of it, if that is not all.
    #[prost(bytes = "vec", tag = "3")]
    pub essence: Vec<u8>,
    /// How that is found out.
    #[prost(enumeration = "Look", tag = "4")]
    pub look: i32,
    /// Whether it may be run.
    #[prost(bool, tag = "5")]
    pub is_executable: bool,
    /// Its permissions, if all of them count; else 0.
    #[prost(uint32, tag = "6")]
    pub permissions: u32,
}

/// Something with a name, and what is said of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fact {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is said.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A file that was made.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Made {
    /// Its path.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether names of folders have been taken out.
    #[prost(bool, tag = "2")]
    pub is_moved: bool,
}

impl Seen {
    /// Checks that a call here and now would see the same. Returns this as it is to be said from now on: a file may
    /// hold something else of which the same counts.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, place: &Place, hashes: &mut Hashes) -> Result<Self, Misfit> {
        if self.place.is_empty() {
            let is_usual = |folder: &str| names::is_plain(folder) && is_true_name(folder);
            if !place.mounts().iter().all(|mount| is_usual(&mount.real)) {
                return Err(Misfit::Place);
            }
        } else if self.place != place_hash(place) {
            return Err(Misfit::Place);
        }
        for fact in &self.facts {
            if fact_of(&fact.name) != fact.value {
                return Err(Misfit::Changed(fact.name.clone()));
            }
        }
        for before in &self.before {
            let path = place.real_of(&before.name).ok_or(Misfit::Foreign)?;
            if there_or_not(Path::new(&path).symlink_metadata().is_ok()) != before.value {
                return Err(Misfit::Changed(before.name.clone()));
            }
        }
        let mut now = self.clone();
        for folder in &mut now.folders {
            let real = place.real_of(&folder.name).ok_or(Misfit::Foreign)?;
            folder.check(&real, place, hashes)?;
        }
        Ok(now)
    }

    /// Whether something was found at a path that the run didn't make.
    pub fn has_found(&self, path: &str, place: &Place) -> bool {
        let Some((_, name)) = path.rsplit_once('/') else { return true };
        let is_of = |folder: &&Folder| {
            folder.files.iter().any(|file| file.name == name)
                || folder.links.iter().any(|link| link.name == name)
                || folder.others.iter().any(|other| other == name)
        };
        let is_in = |folder: &Folder| {
            place.real_of(&folder.name).is_none_or(|real| joined(&normal(&real), name) == path)
        };
        self.folders.iter().filter(is_of).any(is_in)
    }

    /// The key of the result of a call that saw this.
    pub fn result_key(&self, asked: &ManifestKey) -> ManifestKey {
        let mut counts = Self { action: String::new(), ..self.clone() };
        for file in counts.folders.iter_mut().flat_map(|folder| &mut folder.files) {
            if !file.essence.is_empty() {
                file.hash.clear();
            }
        }
        let seen = hex::encode(hash_of(&counts.encode_to_vec()));
        ManifestKey::of_kind("castwork rule result 1", &format!("{}\n{seen}", asked.digest))
    }

    /// Whether another says the same of what is depended on, whatever came of it.
    pub fn sees_the_same(&self, other: &Self) -> bool {
        (&self.folders, &self.facts, &self.place, &self.before)
            == (&other.folders, &other.facts, &other.place, &other.before)
    }
}

impl Folder {
    fn check(&mut self, real: &str, place: &Place, hashes: &mut Hashes) -> Result<(), Misfit> {
        let at = |name: &str| format!("{}/{name}", real.trim_end_matches('/'));
        let changed = |name: &str| Misfit::Changed(format!("{}/{name}", self.name));
        let fits =
            |metadata: std::fs::Metadata| metadata.is_dir() && have_permissions(&metadata, self.permissions);
        if !Path::new(real).symlink_metadata().is_ok_and(fits) {
            return Err(Misfit::Folder(self.name.clone()));
        }
        if !self.listing.is_empty() && listing_of(real, self.is_ordered) != self.listing {
            return Err(Misfit::Folder(self.name.clone()));
        }
        for name in &self.absent {
            let found = Path::new(&at(name)).symlink_metadata();
            if !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                return Err(Misfit::Appeared(format!("{}/{name}", self.name)));
            }
        }
        for link in &self.links {
            if !Path::new(&at(&link.name)).read_link().is_ok_and(|to| to == Path::new(&link.value)) {
                return Err(changed(&link.name));
            }
        }
        for name in &self.others {
            let found = Path::new(&at(name)).symlink_metadata();
            let is_other =
                |found: std::fs::Metadata| !found.is_file() && !found.is_dir() && !found.is_symlink();
            if !found.is_ok_and(is_other) {
                return Err(changed(name));
            }
        }
        let misfit = self.files.iter_mut().find_map(|file| {
            let fits = file.check(&at(&file.name), place, hashes);
            (!fits).then(|| file.name.clone())
        });
        misfit.map_or(Ok(()), |name| Err(Misfit::Changed(format!("{}/{name}", self.name))))
    }
}

impl File {
    fn check(&mut self, path: &str, place: &Place, hashes: &mut Hashes) -> bool {
        let Ok(metadata) = Path::new(path).symlink_metadata() else { return false };
        if !metadata.is_file()
            || Platform::is_executable(&metadata) != self.is_executable
            || !have_permissions(&metadata, self.permissions)
        {
            return false;
        }
        let Some(hash) = hashes.of(path) else { return false };
        if hash[..] == self.hash {
            return true;
        }
        if self.essence.is_empty() {
            return false;
        }
        let Ok(bytes) = std::fs::read(path) else { return false };
        if hash_of(&bytes) != hash
            || essence::of(&bytes, self.look(), place).is_none_or(|it| it[..] != self.essence)
        {
            return false;
        }
        if !self.hash.is_empty() {
            // It may hold something else, but not the name of a folder that the other did not.
            if names::shows(&bytes, place) {
                return false;
            }
            self.hash = hash.to_vec();
        }
        true
    }
}

/// How it is said that there was something.
pub const fn there_or_not(is_there: bool) -> &'static str {
    if is_there { "there" } else { "" }
}

/// Whether permissions are as they were, if they count.
fn have_permissions(metadata: &std::fs::Metadata, permissions: u32) -> bool {
    permissions == 0 || Platform::permissions(metadata) == permissions
}

/// The hash of the names in a folder, with what each is; in the system's order if that counts.
pub fn listing_of(folder: &str, is_ordered: bool) -> Vec<u8> {
    let Ok(entries) = Path::new(folder).read_dir() else { return Vec::new() };
    let kind = |entry: &std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_file() => b'f',
        Ok(kind) if kind.is_dir() => b'd',
        Ok(kind) if kind.is_symlink() => b'l',
        _ => b'?',
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| (entry.file_name(), kind(&entry))).collect();
    if !is_ordered {
        names.sort_unstable();
    }
    let mut text = Vec::new();
    for (name, kind) in names {
        text.extend_from_slice(name.as_encoded_bytes());
        text.extend_from_slice(&[0, kind]);
    }
    hash_of(&text).to_vec()
}

/// What is said of something that was asked of the system.
pub fn fact_of(name: &str) -> String {
    match name {
        SYSTEM => witness::system(),
        USER => witness::user(),
        INPUT => witness::input(),
        TERMINALS => witness::terminals(),
        _ => String::new(),
    }
}

/// Whether a folder's name has no links in it.
pub fn is_true_name(folder: &str) -> bool {
    Path::new(folder).canonicalize().is_ok_and(|real| real == Path::new(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_known_by_whatever_name_its_folder_has() {
        let place = Place::new("/home/a/x".to_owned(), None).unwrap();
        let named = |name: &str| Fact { name: name.to_owned(), value: String::new() };
        let file = File { name: "f".to_owned(), ..File::default() };
        let folder = |path: &str| Folder {
            name: place.alias(path),
            files: vec![file.clone()],
            links: vec![named("l")],
            others: vec!["o".to_owned()],
            ..Folder::default()
        };
        let seen = Seen { folders: vec![folder("/home/a/x"), folder("/opt/y/../z")], ..Seen::default() };
        for path in ["/home/a/x/f", "/home/a/x/l", "/home/a/x/o", "/opt/z/f"] {
            assert!(seen.has_found(path, &place), "{path}");
        }
        for path in ["/home/a/x/g", "/home/a/f", "/opt/y/f"] {
            assert!(!seen.has_found(path, &place), "{path}");
        }
    }
}
