//! [`Reads`]: what a tool has read, where it would have found something else, and how that is recognised again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use castwork_cas::{Digest, DigestFunction};

use crate::direct::Hashes;
use crate::direct::manifest::{Absent, Contents, Entry, MARK_BYTES};
use crate::direct::memo::Hash;
use crate::local::Platform;
use crate::paths::Place;
use crate::reason::Reason;

/// Most places that are watched for a file that is not there.
const ABSENT_MAX: usize = 20_000;

/// What makes a text differ from one moment to the next.
const CLOCKS: [&[u8]; 3] = [b"__DATE__", b"__TIME__", b"__TIMESTAMP__"];

/// Files that were read.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// By virtual name: the real one, and the hash of what it holds.
    pub files: BTreeMap<String, (PathBuf, Hash)>,
    /// Folders, by virtual name, that have to be there for the ways to lead through them.
    plain: BTreeSet<String>,
}

impl Reads {
    /// Looks at files; `paths` are as they are spelled.
    ///
    /// # Errors
    /// Why they can't be in a key.
    pub fn of<'a>(
        paths: impl Iterator<Item = &'a String>,
        place: &Place,
        hashes: &mut Hashes,
    ) -> Result<Self, Reason> {
        let mut reads = Self::default();
        for path in paths {
            let located = place.locate(path)?;
            let real = located.real.to_str().ok_or(Reason::new("file with an unusual name"))?;
            let hash = hashes.of(real).ok_or(Reason::new("file that can't be read"))?;
            reads.plain.extend(located.passed);
            reads.files.insert(located.name, (located.real, hash));
        }
        Ok(reads)
    }

    /// Adds what else was read.
    pub fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.plain.extend(other.plain);
    }

    /// Whether every file was last changed before a moment, in nanoseconds since 1970.
    pub fn is_older_than(&self, instant_ns: i128) -> bool {
        self.files.values().all(|(real, _)| {
            real.metadata().is_ok_and(|metadata| Platform::stamp(&metadata).changed_ns < instant_ns)
        })
    }

    /// Whether one of them asks what time it is.
    pub fn asks_for_time(&self) -> bool {
        self.files.values().any(|(real, _)| {
            let text = std::fs::read(real).unwrap_or_default();
            CLOCKS.iter().any(|clock| memchr::memmem::find(&text, clock).is_some())
        })
    }

    /// Writes down how this is recognised again, where files were searched for in `folders`, as spelled, in that order.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn entry(&self, action: &Digest, folders: &[String], place: &Place) -> Result<Entry, Reason> {
        let mut contents = Contents::default();
        let mut marks = Vec::with_capacity(self.files.len() * MARK_BYTES);
        for (_, hash) in self.files.values() {
            contents.add(hash);
            marks.extend_from_slice(&hash[..MARK_BYTES]);
        }
        Ok(Entry {
            action: action.to_string(),
            files: self.files.keys().cloned().collect(),
            marks,
            contents: contents.finish().to_vec(),
            absent: self.absent(folders, place)?,
            plain: self.plain.iter().cloned().collect(),
            ..Entry::default()
        })
    }

    /// Where one of the files would have been found earlier: beside one that includes it, or in a folder that is
    /// searched before its own.
    fn absent(&self, folders: &[String], place: &Place) -> Result<Vec<Absent>, Reason> {
        if folders.is_empty() {
            return Ok(Vec::new());
        }
        let mut searched = Vec::new();
        for folder in folders {
            let located = place.locate(folder)?;
            searched.push(located.real);
        }
        let real: BTreeSet<&Path> = self.files.values().map(|(real, _)| real.as_path()).collect();
        let beside: BTreeSet<&Path> = real.iter().filter_map(|path| path.parent()).collect();
        let mut absent: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        let mut watched = 0;
        for file in &real {
            for own in searched.iter().filter(|folder| file.starts_with(folder)) {
                let Ok(name) = file.strip_prefix(own) else { continue };
                let earlier = searched.iter().take_while(|folder| *folder != own).map(PathBuf::as_path);
                for candidate in earlier.chain(beside.iter().copied()).map(|folder| folder.join(name)) {
                    if real.contains(candidate.as_path()) || candidate.exists() {
                        continue;
                    }
                    let (Some(folder), Some(name)) = (candidate.parent(), candidate.file_name()) else {
                        continue;
                    };
                    let name = name.to_str().ok_or(Reason::new("file with an unusual name"))?;
                    watched +=
                        usize::from(absent.entry(folder.to_owned()).or_default().insert(name.to_owned()));
                    if watched > ABSENT_MAX {
                        return Err("too many places to watch".into());
                    }
                }
            }
        }
        absent
            .into_iter()
            .map(|(folder, names)| {
                let folder = folder.to_str().ok_or(Reason::new("file with an unusual name"))?;
                Ok(Absent { folder: place.alias(folder), names: names.into_iter().collect() })
            })
            .collect()
    }

    /// The files as an action has them.
    pub fn digests(&self) -> impl Iterator<Item = (&String, Digest)> {
        self.files.iter().filter_map(|(name, (real, hash))| {
            let size = real.metadata().ok()?.len();
            Some((name, Digest::from_hex(DigestFunction::Sha256, &hex::encode(hash), size).ok()?))
        })
    }
}
