//! [`Manifest`]: what was seen with a command and a source, as it is kept and sent.

use std::collections::BTreeMap;

use castwork_cas::{Digest, DigestFunction, Hasher};
use prost::Message as _;

use super::call::Call;
use super::check::{Looks, identities};
use super::depfile::Depfile;
use super::hashes::hash_of;
use super::memo::{HASH_BYTES, Hash};
use crate::dependencies::{Closure, Looked};
use crate::paths::Place;
use crate::rules::seen;

/// Most sets of headers that are kept for a command and a source; the oldest go.
pub const ENTRIES_MAX: usize = 16;

/// Most runs that are kept for a command of a tool; each names all files that the tool itself is of.
pub const SEEN_MAX: usize = 8;

/// Most bytes of a manifest, in memory.
pub const MANIFEST_BYTES_MAX: usize = 32 << 20;

/// Bytes of a file's hash by which it is told which file differs; the decision is by all bytes of all hashes together.
pub const MARK_BYTES: usize = 8;

/// The sets of headers seen with a command and a source, the latest first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    /// The sets.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    /// Whether such a call is to be preprocessed before it is compiled: it can't be recognised, but its action can.
    #[prost(bool, tag = "2")]
    pub is_blind: bool,
    /// Whether files climb out of a folder that has a name of its own beside the project's, or debug information does not
    /// move: such calls are known by the key that they have without such folders.
    #[prost(bool, tag = "3")]
    pub leads_out: bool,
    /// The same of calls of other tools, which are not preprocessed.
    #[prost(message, repeated, tag = "4")]
    pub calls: Vec<Call>,
    /// The same of tools that are known by a rule.
    #[prost(message, repeated, tag = "5")]
    pub seen: Vec<seen::Seen>,
}

/// A set of headers, with all that the search for them depended on. Paths are virtual.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// The digest of the action, `HASH/SIZE`.
    #[prost(string, tag = "1")]
    pub action: String,
    /// The files that are read, in order of their names.
    #[prost(string, repeated, tag = "2")]
    pub files: Vec<String>,
    /// The first bytes of each file's hash, one after another.
    #[prost(bytes = "vec", tag = "3")]
    pub marks: Vec<u8>,
    /// The hash of all the files' hashes, in order.
    #[prost(bytes = "vec", tag = "4")]
    pub contents: Vec<u8>,
    /// Where there must be no files, by folder.
    #[prost(message, repeated, tag = "5")]
    pub absent: Vec<Absent>,
    /// Folders that must not be links.
    #[prost(string, repeated, tag = "6")]
    pub plain: Vec<String>,
    /// Folders in the search.
    #[prost(string, repeated, tag = "7")]
    pub folders: Vec<String>,
    /// For each of them 0 if it is not there, else the number, from 1 on, of the first that is the same folder.
    #[prost(uint32, repeated, tag = "8")]
    pub identities: Vec<u32>,
    /// Folders whose listing counts.
    #[prost(message, repeated, tag = "9")]
    pub listings: Vec<Listing>,
    /// Set if this is right in one place only: the hash of that.
    #[prost(bytes = "vec", tag = "10")]
    pub place: Vec<u8>,
    /// The date that gets into the object, if one does.
    #[prost(string, optional, tag = "11")]
    pub date: Option<String>,
    /// The dependency file, if one is made.
    #[prost(message, optional, tag = "12")]
    pub depfile: Option<Depfile>,
    /// Whether this is said to be right in one place only because nobody has preprocessed it yet: elsewhere that is to
    /// be done, and may come to the same action.
    #[prost(bool, tag = "13")]
    pub is_unproven: bool,
    /// Links on the ways to folders of headers.
    #[prost(message, repeated, tag = "14")]
    pub links: Vec<Link>,
    /// Whether paths in the object's debug information are virtual.
    #[prost(bool, tag = "15")]
    pub moves_debug: bool,
}

/// A symbolic link.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Link {
    /// Where it is.
    #[prost(string, tag = "1")]
    pub at: String,
    /// What it says.
    #[prost(string, tag = "2")]
    pub to: String,
}

/// Names under which there is no file in a folder.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Absent {
    /// The folder; it may not be there itself.
    #[prost(string, tag = "1")]
    pub folder: String,
    /// The names, of one segment each.
    #[prost(string, repeated, tag = "2")]
    pub names: Vec<String>,
}

/// What a folder holds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Listing {
    /// The folder.
    #[prost(string, tag = "1")]
    pub folder: String,
    /// The hash of the names in it; empty if it is not there.
    #[prost(bytes = "vec", tag = "2")]
    pub names: Vec<u8>,
}

/// What an entry is made from.
pub struct Seen<'a> {
    /// The action that it came to.
    pub action: &'a Digest,
    /// What the compile reads.
    pub closure: &'a Closure,
    /// What its search depended on.
    pub looked: &'a Looked,
    /// Where.
    pub place: &'a Place,
    /// Whether the action holds the project's name.
    pub is_bound_to_place: bool,
    /// Whether it is not known that the object holds the project's name, only that it may.
    pub is_unproven: bool,
    /// `SOURCE_DATE_EPOCH`, if the action holds it.
    pub date: Option<String>,
    /// Whether paths in the object's debug information are virtual.
    pub moves_debug: bool,
    /// The dependency file, if one is made.
    pub depfile: Option<Depfile>,
}

impl Entry {
    /// Writes down what was seen. `None` if some of it has no name that others would understand, or is in motion.
    pub fn new(seen: Seen<'_>) -> Option<Self> {
        let Seen { action, closure, looked, place, .. } = seen;
        // That a link leads to a file of this content shows; to which, does not.
        if !closure.links.is_empty() && seen.is_bound_to_place {
            return None;
        }
        let mut files: BTreeMap<&String, &Digest> =
            closure.inputs.iter().map(|(name, input)| (name, &input.digest)).collect();
        files.extend(closure.links.iter().map(|(name, link)| (name, &closure.inputs[&link.to].digest)));
        let mut contents = Contents::default();
        let mut marks = Vec::with_capacity(files.len() * MARK_BYTES);
        for digest in files.values() {
            let hash: Hash = digest.hash().try_into().ok()?;
            contents.add(&hash);
            marks.extend_from_slice(&hash[..MARK_BYTES]);
        }
        let is_only_here =
            seen.is_bound_to_place || seen.depfile.as_ref().is_some_and(|file| file.is_verbatim);
        Some(Self {
            action: action.to_string(),
            files: files.into_keys().cloned().collect(),
            marks,
            contents: contents.finish().to_vec(),
            absent: by_folder(looked, place)?,
            plain: closure.plain.iter().cloned().collect(),
            folders: looked.folders.iter().map(|folder| place.alias(folder)).collect(),
            identities: identities(looked.folders.iter().map(String::as_str), &mut Looks::default()),
            listings: looked
                .listings
                .iter()
                .map(|folder| Listing { folder: place.alias(folder), names: super::check::names_in(folder) })
                .collect(),
            place: if is_only_here { place_hash(place).to_vec() } else { Vec::new() },
            date: seen.date,
            is_unproven: seen.is_unproven,
            moves_debug: seen.moves_debug,
            depfile: seen.depfile,
            links: looked.links.iter().map(|(at, to)| Link { at: place.alias(at), to: to.clone() }).collect(),
        })
    }
}

/// The paths without files, by their folders.
fn by_folder(looked: &Looked, place: &Place) -> Option<Vec<Absent>> {
    let mut folders: Vec<Absent> = Vec::new();
    // In the order of the set, a folder's own files may be parted by those of a folder in it.
    let mut sorted: Vec<(&str, &str)> = Vec::with_capacity(looked.absent.len());
    for path in &looked.absent {
        sorted.push(path.rsplit_once('/')?);
    }
    sorted.sort_unstable();
    for (folder, name) in sorted {
        let folder = place.alias(if folder.is_empty() { "/" } else { folder });
        match folders.last_mut().filter(|last| last.folder == folder) {
            Some(last) => last.names.push(name.to_owned()),
            None => folders.push(Absent { folder, names: vec![name.to_owned()] }),
        }
    }
    Some(folders)
}

/// The hash of where we are.
pub fn place_hash(place: &Place) -> Hash {
    hash_of(place.names().collect::<Vec<_>>().join("\0").as_bytes())
}

/// The hash of hashes.
pub struct Contents(Hasher);

impl Default for Contents {
    fn default() -> Self {
        Self(Hasher::new(DigestFunction::Sha256))
    }
}

impl Contents {
    /// Takes the next file's hash.
    pub fn add(&mut self, hash: &Hash) {
        self.0.update(hash);
    }

    /// The hash of all.
    pub fn finish(self) -> Hash {
        self.0.finish().hash().try_into().expect("a SHA-256 has 32 bytes")
    }
}

impl Manifest {
    /// Whether preprocessing may find a result that compiling at once would miss.
    pub fn asks_for_preprocessing(&self) -> bool {
        self.is_blind || self.entries.iter().any(|entry| entry.is_unproven)
    }

    /// Adds a set of headers as the latest, in place of one that says the same.
    pub fn add(&mut self, entry: Entry) {
        let is_other = |known: &Entry| {
            (&known.files, &known.contents, &known.place, &known.date, &known.links)
                != (&entry.files, &entry.contents, &entry.place, &entry.date, &entry.links)
        };
        self.entries.retain(is_other);
        self.entries.insert(0, entry);
        self.entries.truncate(ENTRIES_MAX);
    }

    /// Adds what was seen with a call of another tool, in place of what says the same.
    pub fn add_call(&mut self, call: Call) {
        self.calls.retain(|known| !known.reads_the_same(&call));
        self.calls.insert(0, call);
        self.calls.truncate(ENTRIES_MAX);
    }

    /// Adds what was seen of a tool, in place of what says the same.
    pub fn add_seen(&mut self, seen: seen::Seen) {
        self.seen.retain(|known| !known.sees_the_same(&seen));
        self.seen.insert(0, seen);
        self.seen.truncate(SEEN_MAX);
    }

    /// The manifest as bytes. `None` if it is too large to be kept.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let plain = self.encode_to_vec();
        if plain.len() > MANIFEST_BYTES_MAX {
            return None;
        }
        let mut bytes = u32::try_from(plain.len()).ok()?.to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(&plain, 3).ok()?);
        Some(bytes)
    }

    /// Reads a manifest. `None` if the bytes are none; it is not to be trusted in anything but that it can be read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, packed) = bytes.split_first_chunk()?;
        let size =
            usize::try_from(u32::from_le_bytes(*size)).ok().filter(|size| *size <= MANIFEST_BYTES_MAX)?;
        let plain =
            zstd::bulk::decompress(packed, size).ok().filter(|plain| plain.len() == size && size > 0)?;
        let manifest = Self::decode(plain.as_slice()).ok()?;
        manifest.entries.iter().all(Entry::is_sound).then_some(manifest)
    }
}

impl Entry {
    /// Whether lengths that belong together are one.
    fn is_sound(&self) -> bool {
        self.marks.len() == self.files.len() * MARK_BYTES
            && self.contents.len() == HASH_BYTES
            && self.identities.len() == self.folders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8) -> Entry {
        Entry {
            files: vec!["p/a.c".to_owned()],
            marks: vec![number; MARK_BYTES],
            contents: vec![number; HASH_BYTES],
            ..Entry::default()
        }
    }

    #[test]
    fn the_latest_sets_are_kept_each_once() {
        let mut manifest = Manifest::default();
        for number in 0..40 {
            manifest.add(entry(number));
            manifest.add(entry(number));
        }
        assert_eq!(manifest.entries.len(), ENTRIES_MAX);
        assert_eq!(manifest.entries[0], entry(39));
        assert_eq!(manifest.entries[1], entry(38));
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(Manifest::from_bytes(&bytes), Some(manifest));
    }

    #[test]
    fn bytes_of_anything_else_are_no_manifest() {
        let manifest = Manifest { entries: vec![entry(1)], ..Manifest::default() };
        let bytes = manifest.to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert_eq!(Manifest::from_bytes(&bytes[..end]), None);
        }
        let mut unsound = manifest;
        unsound.entries[0].files.push("p/b.h".to_owned());
        assert_eq!(Manifest::from_bytes(&unsound.to_bytes().unwrap()), None);
        let mut bomb = bytes;
        bomb[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Manifest::from_bytes(&bomb), None);
    }
}
