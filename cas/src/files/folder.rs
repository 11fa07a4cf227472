//! [`Folder`]: temporary files, the account of bytes, and the cleaning that keeps the bound.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tempfile::{Builder, NamedTempFile};
use tracing::{debug, warn};

use super::platform;
use crate::{Digest, StoreError};

/// A use is written down only if the last one is older: hits then cost no write, and LRU is as fine as this.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

/// A temporary file this old belongs to a process that died.
const TEMP_AGE_MAX: Duration = Duration::from_secs(3600);

/// Cleaning goes on until this much of the bound is left, so that it does not start again at once.
const FULL_AFTER_CLEANING_PERCENT: u64 = 90;

/// The folder behind a file store.
pub(super) struct Folder {
    root: PathBuf,
    bytes_max: u64,
    /// Whether nothing in it is changed by us, not even what is wrong, or when it was used.
    is_read_only: bool,
    /// How many guards of this process hold each file.
    pins: Mutex<HashMap<PathBuf, usize>>,
    /// How long ago the last file was used that this process has removed for want of room, when it did.
    horizon: Mutex<Option<Duration>>,
}

impl Folder {
    pub(super) fn open(root: &Path, bytes_max: u64) -> Result<Arc<Self>, StoreError> {
        let temporary = root.join("tmp");
        fs::create_dir_all(&temporary).map_err(|error| disk("create", &temporary, error))?;
        Ok(Self::at(root, bytes_max, false))
    }

    pub(super) fn open_read_only(root: &Path) -> Result<Arc<Self>, StoreError> {
        fs::read_dir(root).map_err(|error| disk("open", root, error))?;
        Ok(Self::at(root, u64::MAX, true))
    }

    fn at(root: &Path, bytes_max: u64, is_read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            bytes_max,
            is_read_only,
            pins: Mutex::default(),
            horizon: Mutex::default(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where `digest` has its file below `kind`.
    pub(super) fn place(&self, kind: &str, digest: &Digest) -> PathBuf {
        let hash = digest.hash_hex();
        let mut place = self.root.join(kind);
        place.push(digest.function().name());
        place.push(&hash[..2]);
        place.push(format!("{hash}-{}", digest.size_bytes()));
        place
    }

    /// A file to write into; [`Folder::keep`] gives it its name, dropping it removes it.
    pub(super) fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let folder = self.root.join("tmp");
        if self.is_read_only {
            return Err(disk("write to", &folder, io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        let make = || Builder::new().prefix("w").tempfile_in(&folder);
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder).and_then(|()| make())
            }
            made => made,
        }
        .map_err(|error| disk("create a temporary file in", &folder, error))
    }

    /// Gives a finished file its name and counts its bytes; cleans if that was too much.
    pub(super) fn keep(&self, file: NamedTempFile, place: &Path, bytes: u64) -> Result<(), StoreError> {
        platform::protect(file.as_file()).map_err(|error| disk("protect", file.path(), error))?;
        let earlier = fs::metadata(place).map_or(0, |metadata| metadata.len());
        self.rename(file, place)?;
        if earlier != bytes {
            self.count(bytes, earlier);
        }
        Ok(())
    }

    fn rename(&self, file: NamedTempFile, place: &Path) -> Result<(), StoreError> {
        let Err(error) = file.persist(place) else {
            return Ok(());
        };
        if error.error.kind() != io::ErrorKind::NotFound {
            return Err(disk("rename to", place, error.error));
        }
        let shard = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(shard).map_err(|error| disk("create", shard, error))?;
        error.file.persist(place).map(drop).map_err(|error| disk("rename to", place, error.error))
    }

    /// Writes down that a file was used just now. That this may fail (another process removed it, or the
    /// folder is read-only) does not matter to whoever has it open. Whether anything was written.
    pub(super) fn touch(&self, file: &File) -> bool {
        if self.is_read_only {
            return false;
        }
        let now = SystemTime::now();
        let stale = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > TOUCH_AFTER));
        stale && file.set_modified(now).is_ok()
    }

    /// Removes a file that is wrong, if anything may be removed.
    pub(super) fn remove(&self, place: &Path) {
        if self.is_read_only {
            return;
        }
        let bytes = fs::metadata(place).map_or(0, |metadata| metadata.len());
        if fs::remove_file(place).is_ok() {
            self.count(0, bytes);
        }
    }

    pub(super) fn pin(&self, place: &Path) {
        *self.pins().entry(place.to_owned()).or_default() += 1;
    }

    pub(super) fn unpin(&self, place: &Path) {
        let mut pins = self.pins();
        if let Some(count) = pins.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                pins.remove(place);
            }
        }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in the folder as far as they are counted.
    pub(super) fn usage(&self) -> u64 {
        self.locked(read_number).ok().flatten().unwrap_or(0)
    }

    /// Bytes that the folder may hold.
    pub(super) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// What was used within that time is still there, as of the last cleaning; `None` if there was none.
    pub(super) fn horizon(&self) -> Option<Duration> {
        *self.horizon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the account. A process that dies before it gets here leaves it wrong by one file; cleaning,
    /// which counts what is there, puts that right.
    fn count(&self, more: u64, less: u64) {
        let counted = self.locked(|file| {
            let Some(before) = read_number(file)? else {
                return Ok(None);
            };
            let usage = (before + more).saturating_sub(less);
            write_number(file, usage)?;
            Ok(Some(usage))
        });
        match counted {
            Ok(Some(usage)) if usage <= self.bytes_max => {}
            // Over the bound, or the account was lost: cleaning counts anew.
            Ok(_) => self.clean(),
            Err(error) => warn!(%error, folder = %self.root.display(), "the account of bytes can't be kept"),
        }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join("usage"))?;
        file.lock()?;
        act(&mut file)
    }

    /// Removes what was not used for longest until the bound is kept. One process at a time does it; the
    /// others go on.
    pub(super) fn clean(&self) {
        let Ok(lock) = File::create(self.root.join("tmp/cleaning")) else {
            return;
        };
        if lock.try_lock().is_err() {
            return;
        }
        // From here on others count, also if the account was lost: from so much that, should this end here, the next one
        // cleans.
        let counted = self.locked(|file| match read_number(file)? {
            Some(counted) => Ok(counted),
            None => write_number(file, LOST).map(|()| LOST),
        });
        let mut files = Vec::new();
        for kind in ["blobs", "results"] {
            list(&self.root.join(kind), &mut files);
        }
        let mut usage: u64 = files.iter().map(|file| file.bytes).sum();
        if usage > self.bytes_max {
            let target = self.bytes_max / 100 * FULL_AFTER_CLEANING_PERCENT;
            files.sort_unstable_by_key(|file| file.used);
            let before = usage;
            for file in files {
                if usage <= target {
                    break;
                }
                if !self.pins().contains_key(&file.path) && fs::remove_file(&file.path).is_ok() {
                    usage -= file.bytes;
                    let unused = file.used.elapsed().unwrap_or_default();
                    *self.horizon.lock().unwrap_or_else(PoisonError::into_inner) = Some(unused);
                }
            }
            debug!(before, usage, folder = %self.root.display(), "cleaned");
        }
        self.remove_stale_temporaries();
        // What others have added meanwhile may have come too late to be listed. What did not is counted twice, which harms less.
        let written = self.locked(|file| {
            let now = read_number(file)?.unwrap_or_default();
            let added = counted.map_or(0, |then| now.saturating_sub(then));
            write_number(file, usage.saturating_add(added))
        });
        if let Err(error) = written {
            warn!(%error, folder = %self.root.display(), "the account of bytes can't be kept");
        }
    }

    fn remove_stale_temporaries(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else {
            return;
        };
        for entry in entries.flatten() {
            let stale = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TEMP_AGE_MAX));
            if stale && entry.file_name() != "cleaning" {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What an account begins with that was lost, until it is known again.
const LOST: u64 = u64::MAX / 2;

struct Listed {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Adds all files below a folder; what vanishes meanwhile is left out.
fn list(folder: &Path, files: &mut Vec<Listed>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            list(&entry.path(), files);
        } else {
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            files.push(Listed { path: entry.path(), bytes: metadata.len(), used });
        }
    }
}

/// The account; `None` if there is none yet, or it is torn.
fn read_number(file: &mut File) -> io::Result<Option<u64>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(32).read_to_string(&mut text)?;
    Ok(text.trim_end().parse().ok())
}

fn write_number(file: &mut File, number: u64) -> io::Result<()> {
    file.rewind()?;
    // Of one length, so that the file need not be cut.
    file.write_all(format!("{number:020}\n").as_bytes())
}

/// An error of the disk, with what was tried on which file.
pub(super) fn disk(step: &str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Disk { step: format!("{step} `{}`", path.display()), source }
}
