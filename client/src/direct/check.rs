//! Checks whether all that an entry of a manifest depends on is as it was.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use super::hashes::{Hashes, hash_of};
use super::manifest::{Absent, Contents, Entry, Listing, MARK_BYTES, Manifest, place_hash};
use super::memo::{Hash, Key};
use crate::dependencies::is_file_for_compilers;
use crate::local::{Platform, Stamp};
use crate::paths::Place;

/// Why an entry doesn't fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It is right in another folder only.
    Place,
    /// Another date gets into the object.
    Date,
    /// A file holds something else, or is gone: its virtual name.
    Changed(String),
    /// A file has appeared where there was none.
    Appeared(String),
    /// A folder of the search has come, gone, or become another.
    Folder(String),
    /// It names what can't be here.
    Foreign,
}

/// A manifest, looked through.
#[derive(Debug, Default)]
pub struct Checked<'a> {
    /// The entry that fits.
    pub fitting: Option<&'a Entry>,
    /// Why the latest of those before it doesn't.
    pub misfit: Option<Misfit>,
}

impl Manifest {
    /// Finds the entry that fits.
    pub fn check(&self, place: &Place, date: Option<&str>, hashes: &mut Hashes) -> Checked<'_> {
        let mut checked = Checked::default();
        for entry in &self.entries {
            match entry.check(place, date, hashes) {
                Ok(()) => {
                    checked.fitting = Some(entry);
                    return checked;
                }
                Err(misfit) => {
                    checked.misfit.get_or_insert(misfit);
                }
            }
        }
        checked
    }
}

impl Entry {
    /// Checks that a compile here and now would read the same, and find it in the same way.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, place: &Place, date: Option<&str>, hashes: &mut Hashes) -> Result<(), Misfit> {
        if !self.place.is_empty() && self.place != place_hash(place) {
            return Err(Misfit::Place);
        }
        if self.date.is_some() && self.date.as_deref() != date {
            return Err(Misfit::Date);
        }
        self.check_files(place, hashes)?;
        for name in &self.plain {
            let path = place.real_of(name).ok_or(Misfit::Foreign)?;
            if !Path::new(&path).symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(Misfit::Folder(name.clone()));
            }
        }
        for link in &self.links {
            let path = place.real_of(&link.at).ok_or(Misfit::Foreign)?;
            if !Path::new(&path).read_link().is_ok_and(|to| to == Path::new(&link.to)) {
                return Err(Misfit::Folder(link.at.clone()));
            }
        }
        let mut looks = Looks::default();
        self.check_folders(place, &mut looks)?;
        for absent in &self.absent {
            check_absent(absent, place, hashes, &mut looks)?;
        }
        for listing in &self.listings {
            check_listing(listing, place, hashes)?;
        }
        Ok(())
    }

    fn check_files(&self, place: &Place, hashes: &mut Hashes) -> Result<(), Misfit> {
        let mut contents = Contents::default();
        for (name, mark) in self.files.iter().zip(self.marks.chunks_exact(MARK_BYTES)) {
            let path = place.real_of(name).ok_or(Misfit::Foreign)?;
            let hash = hashes.of(&path).filter(|hash| hash[..MARK_BYTES] == *mark);
            contents.add(&hash.ok_or_else(|| Misfit::Changed(name.clone()))?);
        }
        if self.contents == contents.finish() { Ok(()) } else { Err(Misfit::Changed(String::new())) }
    }

    fn check_folders(&self, place: &Place, looks: &mut Looks) -> Result<(), Misfit> {
        let real: Option<Vec<String>> = self.folders.iter().map(|name| place.real_of(name)).collect();
        let now = identities(real.ok_or(Misfit::Foreign)?.iter().map(String::as_str), looks);
        match now.iter().zip(&self.identities).position(|(now, then)| now != then) {
            Some(at) => Err(Misfit::Folder(self.folders[at].clone())),
            None => Ok(()),
        }
    }
}

/// For each folder 0 if it is not there, else the number, from 1 on, of the first that is the same folder.
pub(super) fn identities<'a>(folders: impl Iterator<Item = &'a str>, looks: &mut Looks) -> Vec<u32> {
    let mut known: Vec<Option<(u64, u64)>> = Vec::new();
    let mut identities = Vec::new();
    for folder in folders {
        let identity = match looks.look(folder) {
            Look::Folder(stamp) => Some((stamp.device, stamp.inode)),
            Look::Nothing | Look::Other => None,
        };
        known.push(identity);
        let first = known.iter().position(|earlier| *earlier == identity).map_or(0, |first| first + 1);
        identities.push(if identity.is_some() { u32::try_from(first).unwrap_or(0) } else { 0 });
    }
    identities
}

/// The hash of the names in a folder; empty if it is none.
pub(super) fn names_in(folder: &str) -> Vec<u8> {
    let Ok(entries) = Path::new(folder).read_dir() else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    let mut text = Vec::new();
    for name in names {
        text.extend_from_slice(name.as_encoded_bytes());
        text.push(0);
    }
    hash_of(&text).to_vec()
}

/// What is at a path.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// A folder, or a link to one.
    Folder(Stamp),
    Nothing,
    /// A file, or a link that leads elsewhere.
    Other,
}

impl Look {
    fn at(path: &str) -> Self {
        match Path::new(path).symlink_metadata() {
            Err(_) => Self::Nothing,
            Ok(metadata) if metadata.is_dir() => Self::Folder(Platform::stamp(&metadata)),
            Ok(metadata) if !metadata.is_symlink() => Self::Other,
            Ok(_) => folder_stamp(path).map_or(Self::Other, Self::Folder),
        }
    }
}

/// What was seen in the course of one check: names by the dozen lead through the same folders.
#[derive(Default)]
pub(super) struct Looks(HashMap<String, Look>);

impl Looks {
    fn look(&mut self, path: &str) -> Look {
        if let Some(known) = self.0.get(path) {
            return *known;
        }
        let look = Look::at(path);
        self.0.insert(path.to_owned(), look);
        look
    }
}

fn folder_stamp(path: &str) -> Option<Stamp> {
    let metadata = Path::new(path).metadata().ok().filter(std::fs::Metadata::is_dir)?;
    Some(Platform::stamp(&metadata))
}

fn check_listing(listing: &Listing, place: &Place, hashes: &Hashes) -> Result<(), Misfit> {
    let path = place.real_of(&listing.folder).ok_or(Misfit::Foreign)?;
    let stamp = folder_stamp(&path);
    let key = stamp.map(|stamp| (Key::new("listing", &path, &stamp), stamp));
    if let Some((key, _)) = &key
        && hashes.memo().get(key).is_some_and(|known| known[..] == listing.names)
    {
        return Ok(());
    }
    let names = names_in(&path);
    if names != listing.names {
        return Err(Misfit::Folder(listing.folder.clone()));
    }
    if let (Some((key, stamp)), Ok(names)) = (&key, Hash::try_from(names))
        && folder_stamp(&path) == Some(*stamp)
    {
        hashes.memo().put(key, stamp, &names);
    }
    Ok(())
}

/// Checks that there are no files of these names in a folder.
///
/// Nothing appears in a folder without its stamp telling so: one look at the folder, or at the nearest that is there on
/// the way to it, stands for all its names.
fn check_absent(absent: &Absent, place: &Place, hashes: &Hashes, looks: &mut Looks) -> Result<(), Misfit> {
    let folder = place.real_of(&absent.folder).ok_or(Misfit::Foreign)?;
    let watched = Watched::find(&folder, |path| looks.look(path));
    let key = watched.as_ref().map(|watched| watched.key(&folder, &absent.names));
    if let Some(key) = &key
        && hashes.memo().get(key) == Some(NOTHING_THERE)
    {
        return Ok(());
    }
    let mut is_seen_in_folder = watched.is_some();
    for name in &absent.names {
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        if Path::new(&path).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            continue;
        }
        if is_file_for_compilers(Path::new(&path)) != Some(false) {
            return Err(Misfit::Appeared(place.alias(&path)));
        }
        // A link that leads nowhere, or a folder, may become a file without a change of the folder it is in.
        is_seen_in_folder &= Path::new(&path).symlink_metadata().is_err();
    }
    if let (true, Some(key), Some(watched)) = (is_seen_in_folder, &key, watched)
        && Watched::find(&folder, Look::at).as_ref() == Some(&watched)
    {
        hashes.memo().put(key, &watched.stamp, &NOTHING_THERE);
    }
    Ok(())
}

/// What is remembered of a folder in which nothing has appeared.
const NOTHING_THERE: Hash = [0xab; 32];

/// The folder whose stamp tells whether something has appeared.
#[derive(PartialEq, Eq)]
struct Watched {
    path: String,
    stamp: Stamp,
}

impl Watched {
    /// The folder itself if it is there, else the nearest above; `None` if there is something on the way that is no
    /// folder, which may change in other ways.
    fn find(folder: &str, mut look: impl FnMut(&str) -> Look) -> Option<Self> {
        let mut path = folder;
        loop {
            match look(path) {
                Look::Folder(stamp) => return Some(Self { path: path.to_owned(), stamp }),
                Look::Other => return None,
                Look::Nothing => {}
            }
            let slash = path.trim_end_matches('/').rfind('/')?;
            path = if slash == 0 { "/" } else { &path[..slash] };
        }
    }

    fn key(&self, folder: &str, names: &[String]) -> Key {
        let wanted = hash_of(format!("{folder}\0{}", names.join("\0")).as_bytes());
        Key::new("nothing of", &format!("{}\0{}", hex::encode(wanted), self.path), &self.stamp)
    }
}

#[cfg(all(test, unix))]
mod tests;
