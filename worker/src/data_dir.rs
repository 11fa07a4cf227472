//! [`DataDir`]: the worker's folder, which is its own, and clean when it starts.
//!
//! ```text
//! DIR/lock               held by the worker that uses the folder
//! DIR/worker-id          who the worker is, over restarts
//! DIR/cas                the local CAS
//! DIR/programs           second copies of blobs, executable
//! DIR/stage/actions/N    scratch of a running action
//! DIR/stage/bases/N      an input tree that is laid out, for any number of actions
//! ```
//!
//! The folder itself is closed to everybody else. What is below `stage` can be walked through by who starts there, as
//! the user that actions run as does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sandbox::{ACTIONS, INPUTS, STAGE, remove_tree, set_mode};

/// Folder in the [`STAGE`] of laid out input trees.
const BASES: &str = "bases";

/// How many actions may have a scratch folder, one after the other. A new one lies elsewhere on the disk, where that is
/// better: see what marks their folder.
const USES_MAX: u32 = 16;

/// Way from the scratch folder of an action to the folder of bases.
const BASES_FROM_SCRATCH: &str = "../../bases";

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Somebody else is at it.
    #[error("another worker uses `{}`\nhint: give each worker a `--data-dir` of its own", .0.display())]
    InUse(PathBuf),
    /// The disk refused.
    #[error("can't {step} `{}`", path.display())]
    Disk {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Scratch folders that were emptied, and how many actions have had each.
type Kept = Arc<Mutex<Vec<(PathBuf, u32)>>>;

/// The worker's folder, locked.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    worker_id: String,
    next: AtomicU64,
    /// As many scratch folders as may be there at once, those under removal included.
    scratches: Arc<Semaphore>,
    /// Empty ones that another action may have: to make and to remove a folder costs more than most of what is
    /// around an action. As many as have been there at once, at most.
    kept: Kept,
    /// Locked as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Takes the folder, makes it if need be, and removes what a predecessor left that was killed.
    pub(crate) fn open(path: &Path, slots: usize) -> Result<Self, DataDirError> {
        let at = |step, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Disk { step, path, source }
        };
        fs::create_dir_all(path).map_err(at("make", path))?;
        let path = path.canonicalize().map_err(at("find", path))?;
        set_mode(&path, 0o700).map_err(at("close to others", &path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(at("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DataDirError::InUse(path)),
            Err(fs::TryLockError::Error(error)) => return Err(at("lock", &lock_path)(error)),
        }
        // The first of them is where an older version had it.
        for leftover in ["actions", "stage", "probe"].map(|name| path.join(name)) {
            remove_tree(&leftover).map_err(at("remove the leftovers in", &leftover))?;
        }
        let stage = path.join(STAGE);
        for folder in [stage.clone(), stage.join(ACTIONS), stage.join(BASES)] {
            fs::create_dir(&folder).map_err(at("make", &folder))?;
            set_mode(&folder, 0o711).map_err(at("open to passers-by", &folder))?;
        }
        let id_path = path.join("worker-id");
        let worker_id = read_or_make_id(&id_path).map_err(at("keep", &id_path))?;
        // One being removed for each one in use.
        let scratches = Arc::new(Semaphore::new(slots * 2));
        let (next, kept) = (AtomicU64::new(1), Kept::default());
        Ok(Self { path, worker_id, next, scratches, kept, _lock: lock })
    }

    /// The folder itself: absolute, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// 32 hexadecimal digits that stay the same over restarts.
    pub(crate) fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// Where input trees are laid out that several actions use.
    pub(crate) fn bases(&self) -> PathBuf {
        self.path.join(STAGE).join(BASES)
    }

    /// A folder for an action, with an empty folder for its inputs. Waits while too many old ones are still being
    /// emptied. `is_closed` says that no command can reach these two folders themselves, whatever it does to what is
    /// in them: only then another action may have them later.
    pub(crate) async fn scratch(&self, is_closed: bool) -> io::Result<Scratch> {
        let permit = self.scratches.clone().acquire_owned().await.expect("nobody closes it");
        let kept = is_closed.then(|| self.kept.clone());
        if let Some((path, uses)) = kept.as_ref().and_then(|kept| open(kept).pop()) {
            return Ok(Scratch { path, uses: uses + 1, permit: Some(permit), kept });
        }
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.path.join(STAGE).join(ACTIONS).join(name);
        fs::create_dir(&path)?;
        fs::create_dir(path.join(INPUTS))?;
        Ok(Scratch { path, uses: 1, permit: Some(permit), kept })
    }
}

impl Drop for DataDir {
    /// What can't be removed, the next worker will.
    fn drop(&mut self) {
        for (path, _) in open(&self.kept).drain(..) {
            let _ = remove_tree(&path);
        }
    }
}

fn open(kept: &Kept) -> MutexGuard<'_, Vec<(PathBuf, u32)>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all that is in a scratch folder but the folder for inputs, and all that is in that.
fn clear(path: &Path) -> io::Result<()> {
    let inputs = path.join(INPUTS);
    for folder in [path, &inputs] {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let place = entry.path();
            if place == inputs {
                continue;
            }
            if entry.file_type()?.is_dir() { remove_tree(&place)? } else { fs::remove_file(&place)? }
        }
    }
    Ok(())
}

fn read_or_make_id(path: &Path) -> io::Result<String> {
    let is_id =
        |text: &str| text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match fs::read_to_string(path) {
        Ok(text) if is_id(text.trim_end()) => return Ok(text.trim_end().to_owned()),
        // Torn by a power cut, say: a new worker then.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    fs::write(path, &id)?;
    Ok(id)
}

/// An action's folder. Dropping it removes or empties it, on a thread that may block.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// Of how many actions it has been, this one included.
    uses: u32,
    permit: Option<OwnedSemaphorePermit>,
    /// Where it goes for the next action, if it may have another.
    kept: Option<Kept>,
}

impl Scratch {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The way from it to a base of that name.
    pub(crate) fn way_to_base(name: &Path) -> PathBuf {
        Path::new(BASES_FROM_SCRATCH).join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (path, permit) = (std::mem::take(&mut self.path), self.permit.take());
        let (kept, uses) = (self.kept.take().filter(|_| self.uses < USES_MAX), self.uses);
        let remove = move || {
            if let Some(kept) = kept.filter(|_| clear(&path).is_ok()) {
                open(&kept).push((path, uses));
            } else if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "an action's folder can't be removed");
            }
            drop(permit);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_one_workers_and_what_a_killed_one_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let first = DataDir::open(base.path(), 1).unwrap();
        assert!(matches!(DataDir::open(base.path(), 1), Err(DataDirError::InUse(_))));
        let scratch = first.scratch(false).await.unwrap();
        let left = scratch.path().to_owned();
        // As after `kill -9`: the lock is gone, and nobody has cleaned.
        Box::leak(Box::new(scratch));
        let id = first.worker_id().to_owned();
        drop(first);
        assert!(left.exists());
        let second = DataDir::open(base.path(), 1).unwrap();
        assert!(!left.exists());
        assert_eq!(second.worker_id(), id);
    }

    #[tokio::test]
    async fn a_folder_has_a_successor_after_some_actions() {
        let base = tempfile::tempdir().unwrap();
        let folder = DataDir::open(base.path(), 1).unwrap();
        let mut places = Vec::new();
        for _ in 0..=USES_MAX {
            let scratch = folder.scratch(true).await.unwrap();
            places.push(scratch.path().to_owned());
            drop(scratch);
            // Both permits: the folder is emptied then, or removed.
            drop(folder.scratches.acquire_many(2).await.unwrap());
        }
        let (last, others) = places.split_last().unwrap();
        assert!(others.iter().all(|place| *place == places[0]));
        assert!(*last != places[0] && !places[0].exists());
    }

    #[tokio::test]
    async fn what_an_action_has_left_the_next_does_not_find() {
        let base = tempfile::tempdir().unwrap();
        let folder = DataDir::open(base.path(), 1).unwrap();
        for is_closed in [true, false] {
            let names = |path: &Path| {
                let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
                names.collect::<Vec<_>>()
            };
            let scratch = folder.scratch(is_closed).await.unwrap();
            let first = scratch.path().to_owned();
            fs::create_dir_all(first.join("upper/a/b")).unwrap();
            fs::write(first.join("upper/a/b/c"), "secret").unwrap();
            fs::write(first.join("stdout"), "secret").unwrap();
            fs::create_dir(first.join(INPUTS).join("d")).unwrap();
            fs::write(first.join(INPUTS).join("d/e"), "secret").unwrap();
            drop(scratch);
            // Both permits: the folder is emptied then.
            let all = folder.scratches.acquire_many(2).await.unwrap();
            drop(all);
            let scratch = folder.scratch(is_closed).await.unwrap();
            assert_eq!(scratch.path() == first, is_closed, "what a command can reach is no other's");
            assert_eq!(names(scratch.path()), [INPUTS]);
            assert!(names(&scratch.path().join(INPUTS)).is_empty());
        }
        let actions = folder.path().join("stage/actions");
        let _all = folder.scratches.acquire_many(2).await.unwrap();
        drop(folder.scratches.clone());
        assert!(fs::read_dir(&actions).unwrap().count() <= 1);
    }
}
