//! [`Catalog`]: which segments there are, how long each is, and how much of it still counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use castwork_cas::files::sync_folder;
use tracing::{debug, warn};

use super::record::Salt;
use super::table::{Entry, Place};
use super::voids;
use crate::store::ledger::bytes_on_disk;

/// Segments that are kept open for reading.
const OPEN_FILES_MAX: usize = 256;

/// What a record takes up in the contents of its segment; more or less, because hashes differ in length.
const CONTENTS_BYTES: i64 = 80;

/// A segment as it is known.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) salt: Salt,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Bytes of the records that the table points to, with their part of the contents.
    pub(super) live_bytes: u64,
    /// Nothing is appended any more.
    pub(super) is_sealed: bool,
    /// The table has what counts of it. Until then it counts whole, whatever `live_bytes` says.
    pub(super) is_known: bool,
    /// Until then it is not compacted, because the disk did not give all of it.
    pub(super) rests_until: Option<Instant>,
    /// Length of the list of its records that were made void.
    void_bytes: u64,
    file: Option<Arc<File>>,
}

impl Segment {
    /// Nothing yet.
    fn new(salt: Salt) -> Self {
        Self {
            salt,
            bytes: 0,
            live_bytes: 0,
            is_sealed: false,
            is_known: false,
            rests_until: None,
            void_bytes: 0,
            file: None,
        }
    }

    /// Bytes that would be free if what counts were elsewhere.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.live_bytes)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Catalog {
    folder: PathBuf,
    state: Mutex<State>,
    /// What all segments take up; others read it.
    bytes: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u32, Segment>,
    open_files: usize,
    next: u32,
    /// Segments in which a record was made void that a power cut may bring back.
    unsynced_voids: BTreeSet<u32>,
}

impl Catalog {
    /// Lists the segments in `folder`, which has to be there.
    pub(super) fn open(folder: &Path, bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let mut state = State::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((number, salt)) = name.to_str().and_then(parse_name) else {
                let path = entry.path();
                let is_voids = path.extension().is_some_and(|extension| extension == "voids");
                if is_voids && !path.with_extension("seg").exists() {
                    // Its segment was removed.
                    let _ = fs::remove_file(path);
                } else if !is_voids {
                    debug!(path = %path.display(), "not a segment");
                }
                continue;
            };
            let length = entry.metadata()?.len();
            let voids = entry.path().with_extension("voids");
            let void_bytes = fs::metadata(voids).map_or(0, |voids| voids.len());
            let segment = Segment { bytes: length, is_sealed: true, void_bytes, ..Segment::new(salt) };
            bytes.fetch_add(bytes_on_disk(length) + void_bytes_on_disk(void_bytes), Ordering::Relaxed);
            state.segments.insert(number, segment);
        }
        state.next = state.segments.last_key_value().map_or(1, |(number, _)| number + 1);
        Ok(Self { folder: folder.to_owned(), state: Mutex::new(state), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all segments take up on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All segments, by number.
    pub(super) fn list(&self) -> Vec<(u32, Segment)> {
        self.lock().segments.iter().map(|(number, segment)| (*number, segment.clone())).collect()
    }

    pub(super) fn get(&self, number: u32) -> Option<Segment> {
        self.lock().segments.get(&number).cloned()
    }

    fn path(&self, number: u32, salt: &Salt) -> PathBuf {
        self.folder.join(format!("{number:010}-{:016x}.seg", salt.number()))
    }

    /// Makes a new segment to append to; with `durable`, one that a power cut leaves there.
    pub(super) fn create(&self, durable: bool) -> io::Result<(u32, Salt, File)> {
        let salt = Salt::new(rand::random());
        let mut state = self.lock();
        let number = state.next;
        let path = self.path(number, &salt);
        let file = File::options().write(true).create_new(true).open(&path)?;
        if durable && let Err(error) = sync_folder(&self.folder) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        state.next += 1;
        state.segments.insert(number, Segment { is_known: true, ..Segment::new(salt) });
        self.bytes.fetch_add(bytes_on_disk(0), Ordering::Relaxed);
        Ok((number, salt, file))
    }

    /// States a segment's length.
    pub(super) fn set_bytes(&self, number: u32, bytes: u64) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            let before = bytes_on_disk(std::mem::replace(&mut segment.bytes, bytes));
            self.bytes.fetch_add(bytes_on_disk(bytes), Ordering::Relaxed);
            self.bytes.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// States that nothing is appended any more.
    pub(super) fn seal(&self, number: u32) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.is_sealed = true;
        }
    }

    /// States that the table has what counts of a segment.
    pub(super) fn set_known(&self, number: u32) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.is_known = true;
        }
    }

    /// How many segments are not known.
    pub(super) fn unknown(&self) -> usize {
        self.lock().segments.values().filter(|segment| !segment.is_known).count()
    }

    /// Has a segment not be compacted until then.
    pub(super) fn rest(&self, number: u32, until: Instant) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.rests_until = Some(until);
        }
    }

    /// Counts records that the table points to from now on, and such that it no longer does.
    pub(super) fn count(
        &self,
        more: impl IntoIterator<Item = Entry>,
        fewer: impl IntoIterator<Item = Entry>,
    ) {
        let mut state = self.lock();
        let mut add = |entry: Entry, sign: i64| {
            if let Some(segment) = state.segments.get_mut(&entry.place.segment) {
                let bytes = (i64::from(entry.bytes) + CONTENTS_BYTES) * sign;
                segment.live_bytes = segment.live_bytes.saturating_add_signed(bytes);
            }
        };
        more.into_iter().for_each(|entry| add(entry, 1));
        fewer.into_iter().for_each(|entry| add(entry, -1));
    }

    /// The file of a segment, open for reading; `None` if the segment is gone.
    pub(super) fn file(&self, number: u32) -> io::Result<Option<(Arc<File>, Salt)>> {
        let mut state = self.lock();
        let Some(segment) = state.segments.get(&number) else { return Ok(None) };
        let salt = segment.salt;
        if let Some(file) = &segment.file {
            return Ok(Some((Arc::clone(file), salt)));
        }
        let file = match File::open(self.path(number, &salt)) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if state.open_files >= OPEN_FILES_MAX {
            state.segments.values_mut().for_each(|segment| segment.file = None);
            state.open_files = 0;
        }
        state.open_files += 1;
        if let Some(segment) = state.segments.get_mut(&number) {
            segment.file = Some(Arc::clone(&file));
        }
        Ok(Some((file, salt)))
    }

    /// Has a segment be opened anew by whoever reads it next.
    pub(super) fn close_file(&self, number: u32) {
        let mut state = self.lock();
        let was_open = state.segments.get_mut(&number).is_some_and(|segment| segment.file.take().is_some());
        state.open_files -= usize::from(was_open);
    }

    /// Opens a segment to append what it contains, after a server left it without that.
    pub(super) fn reopen(&self, number: u32, salt: &Salt) -> io::Result<File> {
        File::options().append(true).open(self.path(number, salt))
    }

    /// Makes a record void, so that it does not come back when the table is filled anew. A power cut may
    /// undo this for as long as no segment was removed after it.
    pub(super) fn void(&self, place: Place) {
        if let Err(error) = self.try_void(place) {
            warn!(%error, ?place, "a record could not be made void");
        }
    }

    /// As [`Catalog::void`], for who has to know whether it was done.
    pub(super) fn try_void(&self, place: Place) -> io::Result<()> {
        let Some(path) = self.voids_path(place.segment) else { return Ok(()) };
        let bytes = voids::add(&path, place.offset)?;
        let mut state = self.lock();
        state.unsynced_voids.insert(place.segment);
        if let Some(segment) = state.segments.get_mut(&place.segment) {
            let before = std::mem::replace(&mut segment.void_bytes, bytes);
            self.bytes.fetch_add(void_bytes_on_disk(bytes), Ordering::Relaxed);
            self.bytes.fetch_sub(void_bytes_on_disk(before), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Which records of a segment were made void.
    pub(super) fn voids(&self, number: u32) -> io::Result<HashSet<u32>> {
        self.voids_path(number).map_or(Ok(HashSet::new()), |path| voids::read(&path))
    }

    /// Its name has the segment's salt too, so it is never taken for that of another segment.
    fn voids_path(&self, number: u32) -> Option<PathBuf> {
        let segment = self.get(number)?;
        Some(self.path(number, &segment.salt).with_extension("voids"))
    }

    /// Removes a segment to which the table no longer points. Reads that are under way go on.
    pub(super) fn remove(&self, number: u32) -> io::Result<()> {
        self.sync_voids()?;
        let Some(segment) = self.get(number) else { return Ok(()) };
        match fs::remove_file(self.path(number, &segment.salt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // If it stays, the next start removes it.
        let _ = fs::remove_file(self.path(number, &segment.salt).with_extension("voids"));
        let mut state = self.lock();
        if let Some(segment) = state.segments.remove(&number) {
            self.bytes.fetch_sub(void_bytes_on_disk(segment.void_bytes), Ordering::Relaxed);
            state.open_files -= usize::from(segment.file.is_some());
            self.bytes.fetch_sub(bytes_on_disk(segment.bytes), Ordering::Relaxed);
        }
        Ok(())
    }

    /// A record that was replaced must not outlive the one that replaced it.
    pub(super) fn sync_voids(&self) -> io::Result<()> {
        let numbers = std::mem::take(&mut self.lock().unsynced_voids);
        if numbers.is_empty() {
            return Ok(());
        }
        let mut paths = numbers.iter().filter_map(|number| self.voids_path(*number));
        let synced = paths.try_for_each(|path| voids::sync(&path));
        let synced = synced.and_then(|()| sync_folder(&self.folder));
        if synced.is_err() {
            self.lock().unsynced_voids.extend(&numbers);
        }
        synced
    }
}

fn void_bytes_on_disk(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes_on_disk(bytes) }
}

fn parse_name(name: &str) -> Option<(u32, Salt)> {
    let (number, salt) = name.strip_suffix(".seg")?.split_once('-')?;
    let is_plain = number.len() == 10 && salt.len() == 16;
    let salt = u64::from_str_radix(salt, 16).ok().filter(|_| is_plain)?;
    Some((number.parse().ok()?, Salt::new(salt)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_catalog_finds_the_segments_of_the_one_before_and_goes_on_counting() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Catalog::open(folder.path(), Arc::default()).unwrap();
        let first = open();
        let (number, salt, mut file) = first.create(true).unwrap();
        file.write_all(&[0; 5000]).unwrap();
        fs::write(folder.path().join("README"), "no segment").unwrap();
        let second = open();
        assert_eq!(second.bytes(), 8192);
        let found = second.get(number).unwrap();
        assert_eq!((found.salt, found.bytes, found.is_sealed), (salt, 5000, true));
        assert_eq!(second.create(false).unwrap().0, number + 1);
        second.remove(number).unwrap();
        assert!(second.file(number).unwrap().is_none());
        let litter = folder.path().join("0000000007-0000000000000001.voids");
        fs::write(&litter, "").unwrap();
        open();
        assert!(!litter.exists());
        assert_eq!(second.list().len(), 1);
    }

    #[test]
    fn only_so_many_files_are_kept_open() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), Arc::default()).unwrap();
        for _ in 0..OPEN_FILES_MAX + 10 {
            let (number, ..) = catalog.create(false).unwrap();
            assert!(catalog.file(number).unwrap().is_some());
        }
        assert_eq!(catalog.lock().open_files, 10);
    }
}
