//! [`Committer`]: gives finished files their names, so that a power cut leaves them there.
//!
//! One thread takes all files that are ready, renames them, and syncs each folder that got a new name
//! once. So uploads that come together share syncs, and one that comes alone waits for nobody.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use castwork_cas::files::sync_folder;
use tempfile::TempPath;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::layout::{FileKey, Layout};

/// The most files that share a sync.
const BATCH_FILES_MAX: usize = 256;

/// Folders that are synced at the same time.
const SYNCS_AT_ONCE: usize = 16;

/// The most files that wait for the thread; whoever comes then waits to wait.
const WAITING_FILES_MAX: usize = 1024;

/// Files that have their name and may lose it in a power cut, because their folder is not synced yet.
///
/// They may be read, but nobody may be told that they are kept.
#[derive(Default)]
pub(crate) struct Unsynced {
    keys: Mutex<HashSet<FileKey>>,
}

impl Unsynced {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashSet<FileKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an equal blob that is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It was acknowledged to somebody, for whom it must not seem to vanish while a second is synced.
    Stays,
    /// It can't be read: the new one takes its place.
    Goes,
}

/// A file whose bytes are on stable storage, and the name it is to have.
struct Finished {
    key: FileKey,
    temporary: TempPath,
    before: Before,
    done: Done,
}

/// Who is told what became of a file.
struct Done {
    answer: oneshot::Sender<io::Result<Kept>>,
    /// Called when it is kept, in the committer's thread: also if whoever asked has gone.
    account: Box<dyn FnOnce(Kept) + Send>,
}

impl Done {
    fn tell(self, kept: io::Result<Kept>) {
        if let Ok(kept) = &kept {
            (self.account)(*kept);
        }
        // Whoever asked may have gone; the file stays.
        let _ = self.answer.send(kept);
    }
}

/// Which file is now kept under the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The one that was handed in.
    This,
    /// An equal one that was there before: of a blob there is only one.
    Earlier,
}

/// See the module. Stops when it is dropped, after what was handed to it.
pub(crate) struct Committer {
    queue: Option<mpsc::Sender<Finished>>,
    thread: Option<JoinHandle<()>>,
    unsynced: Arc<Unsynced>,
}

impl Committer {
    /// Without `durable`, names are not synced, and a power cut may take them away.
    pub(crate) fn start(layout: Layout, durable: bool) -> io::Result<Self> {
        let (queue, files) = mpsc::channel(WAITING_FILES_MAX);
        let unsynced = Arc::new(Unsynced::default());
        let work = Work { layout, durable, unsynced: Arc::clone(&unsynced) };
        let thread =
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || work.run(files))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), unsynced })
    }

    pub(crate) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// Gives a file its name and returns when it will keep it. `account` is told before that, in any case: it goes
    /// on if the caller is dropped, unless it is still waiting for its turn, and the file is removed.
    ///
    /// The bytes have to be synced already. After an error the file is gone. `account` must not own what owns the
    /// committer, whose thread may be the last to let go of it.
    pub(crate) async fn commit(
        &self,
        key: FileKey,
        temporary: TempPath,
        before: Before,
        account: impl FnOnce(Kept) + Send + 'static,
    ) -> io::Result<Kept> {
        let (done, answer) = oneshot::channel();
        let done = Done { answer: done, account: Box::new(account) };
        let queue = self.queue.as_ref().expect("the queue is there until drop");
        let stopped = || io::Error::other("the committer has stopped");
        queue.send(Finished { key, temporary, before, done }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread, and its clients got errors.
            let _ = thread.join();
        }
    }
}

struct Work {
    layout: Layout,
    durable: bool,
    unsynced: Arc<Unsynced>,
}

impl Work {
    fn run(self, mut files: mpsc::Receiver<Finished>) {
        let mut batch = Vec::new();
        while let Some(first) = files.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_FILES_MAX {
                let Ok(next) = files.try_recv() else { break };
                batch.push(next);
            }
            self.commit(std::mem::take(&mut batch));
        }
    }

    fn commit(&self, mut batch: Vec<Finished>) {
        // Nobody else gives names, so what is there now was synced by an earlier batch.
        let stays = |file: &mut Finished| file.before == Before::Stays && self.is_kept_blob(&file.key);
        for file in batch.extract_if(.., stays) {
            // Gone before the answer, so that whoever has it finds no second copy.
            drop(file.temporary);
            file.done.tell(Ok(Kept::Earlier));
        }
        let keys: Vec<FileKey> = batch.iter().map(|file| file.key).collect();
        self.unsynced.lock().extend(&keys);
        let mut folders = BTreeSet::new();
        let placed: Vec<_> = batch.into_iter().filter_map(|file| self.place(file, &mut folders)).collect();
        let folders: Vec<PathBuf> = folders.into_iter().filter(|_| self.durable).collect();
        let failed = sync_folders(&folders);
        let answers: Vec<_> = placed
            .into_iter()
            .map(|(path, done)| {
                let failure = failed.iter().find(|(folder, _)| path.starts_with(folder));
                (done, failure.map_or(Ok(Kept::This), |(_, error)| Err(distrust(&path, error))))
            })
            .collect();
        let mut unsynced = self.unsynced.lock();
        for key in &keys {
            unsynced.remove(key);
        }
        drop(unsynced);
        for (done, answer) in answers {
            done.tell(answer);
        }
    }

    fn is_kept_blob(&self, key: &FileKey) -> bool {
        matches!(key, FileKey::Blob(_)) && self.layout.path(key).is_file()
    }

    /// Renames a file, after making its folder if that is not there yet, and notes which folders have
    /// new names.
    fn place(&self, file: Finished, folders: &mut BTreeSet<PathBuf>) -> Option<(PathBuf, Done)> {
        let path = self.layout.path(&file.key);
        let folder = folder_of(&path);
        let renamed = match file.temporary.persist(&path) {
            Err(failure) if failure.error.kind() == io::ErrorKind::NotFound => {
                let above = folder.ancestors().skip(1);
                let above = above.take_while(|above| above.starts_with(self.layout.root()));
                folders.extend(above.map(Path::to_owned));
                fs::create_dir_all(folder)
                    .and_then(|()| failure.path.persist(&path).map_err(|failure| failure.error))
            }
            other => other.map_err(|failure| failure.error),
        };
        folders.insert(folder.to_owned());
        match renamed {
            Ok(()) => Some((path, file.done)),
            Err(error) => {
                file.done.tell(Err(error));
                None
            }
        }
    }
}

/// Syncs folders, many at once: one after the other took fifty times as long on ext4. Returns those that
/// could not be synced.
fn sync_folders(folders: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    let sync = |folders: &[PathBuf]| -> Vec<(PathBuf, io::Error)> {
        let failure = |folder: &PathBuf| sync_folder(folder).err().map(|error| (folder.clone(), error));
        folders.iter().filter_map(failure).collect()
    };
    let mut shares = folders.chunks(folders.len().div_ceil(SYNCS_AT_ONCE).max(1));
    let own = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let mut failures = Vec::new();
        let mut threads = Vec::new();
        for share in shares {
            match std::thread::Builder::new().spawn_scoped(scope, move || sync(share)) {
                Ok(thread) => threads.push(thread),
                // Without another thread it takes longer.
                Err(_) => failures.extend(sync(share)),
            }
        }
        failures.extend(sync(own));
        for thread in threads {
            failures.extend(thread.join().expect("syncing does not panic"));
        }
        failures
    })
}

/// Has all names of blobs that are there now survive a loss of power.
///
/// After a kill there may be some that were given and not synced. They are found like any other, so whoever asks is
/// told that they are kept.
///
/// # Errors
/// If the folders can't be listed or synced.
pub(crate) fn settle(layout: &Layout) -> io::Result<()> {
    let folders = folders_of_blobs(&layout.blobs())?;
    match sync_folders(&folders).pop() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The folders that lie over blobs: `cas`, one a digest function, one a first byte.
fn folders_of_blobs(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let mut next = vec![root.to_owned()];
    while let Some(folder) = next.pop() {
        let is_over_files = folder.strip_prefix(root).is_ok_and(|below| below.components().count() == 2);
        if !is_over_files {
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    for entry in entries {
                        let entry = entry?;
                        if entry.file_type()?.is_dir() {
                            next.push(entry.path());
                        }
                    }
                }
                // Nothing large was ever kept.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folders),
                Err(error) => return Err(error),
            }
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// After a failed sync nobody knows what is on the disk, and a second sync would not tell: the file goes.
fn distrust(path: &Path, error: &io::Error) -> io::Error {
    error!(%error, path = %path.display(), "a folder could not be synced; its new file is removed");
    let _ = fs::remove_file(path);
    io::Error::new(error.kind(), error.to_string())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().expect("every file of the store lies in a folder")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use castwork_cas::{Digest, DigestFunction};
    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn files_that_come_together_all_get_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let committer = Committer::start(layout.clone(), true).unwrap();
        let commits = (0..600_u32).map(|number| {
            let data = number.to_le_bytes();
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            file.write_all(&data).unwrap();
            let key = FileKey::Blob(Digest::of(DigestFunction::Sha256, &data));
            let (committer, layout) = (&committer, &layout);
            async move {
                committer.commit(key, file.into_temp_path(), Before::Stays, |_| ()).await.unwrap();
                assert_eq!(fs::read(layout.path(&key)).unwrap(), data);
            }
        });
        join_all(commits).await;
        assert!(committer.unsynced().lock().is_empty());
    }

    #[test]
    fn every_folder_over_blobs_is_settled_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(folders_of_blobs(&layout.blobs()).unwrap(), Vec::<PathBuf>::new());
        settle(&layout).unwrap();
        let mut expected = vec![layout.blobs()];
        for (function, data) in
            [(DigestFunction::Sha256, b"a"), (DigestFunction::Sha256, b"b"), (DigestFunction::Blake3, b"a")]
        {
            let path = layout.path(&FileKey::Blob(Digest::of(function, data)));
            fs::create_dir_all(folder_of(&path)).unwrap();
            fs::write(&path, data).unwrap();
            expected.extend(path.ancestors().skip(1).take(2).map(Path::to_owned));
        }
        expected.sort();
        expected.dedup();
        let mut found = folders_of_blobs(&layout.blobs()).unwrap();
        found.sort();
        assert_eq!(found, expected);
        settle(&layout).unwrap();
    }

    #[tokio::test]
    async fn a_blob_that_is_kept_never_seems_to_vanish_while_it_is_uploaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let committer = Committer::start(layout.clone(), true).unwrap();
        let key = FileKey::Blob(Digest::of(DigestFunction::Sha256, b"abc"));
        let commit = || {
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            file.write_all(b"abc").unwrap();
            committer.commit(key, file.into_temp_path(), Before::Stays, |_| ())
        };
        assert_eq!(commit().await.unwrap(), Kept::This);
        let first = fs::metadata(layout.path(&key)).unwrap().modified().unwrap();
        let again = join_all((0..50).map(|_| commit()));
        let watch = async {
            for _ in 0..1000 {
                assert!(!committer.unsynced().lock().contains(&key));
                tokio::task::yield_now().await;
            }
        };
        let (again, ()) = tokio::join!(again, watch);
        assert!(again.into_iter().all(|kept| kept.unwrap() == Kept::Earlier));
        assert_eq!(fs::metadata(layout.path(&key)).unwrap().modified().unwrap(), first);
    }

    #[tokio::test]
    async fn a_file_that_cannot_get_its_name_is_an_error_and_no_other_file_suffers() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let committer = Committer::start(layout.clone(), true).unwrap();
        let digest = |data| Digest::of(DigestFunction::Sha256, data);
        let (bad, good) = (FileKey::Blob(digest(b"bad")), FileKey::Blob(digest(b"good")));
        fs::create_dir_all(layout.path(&bad).join("in the way")).unwrap();
        let file = || tempfile::NamedTempFile::new_in(folder.path()).unwrap().into_temp_path();
        let commit = |key| committer.commit(key, file(), Before::Stays, |_| ());
        let (first, second) = tokio::join!(commit(bad), commit(good));
        assert!(first.is_err());
        second.unwrap();
        assert!(layout.path(&good).exists());
    }

    #[tokio::test]
    async fn a_file_that_gets_its_name_is_accounted_for_though_whoever_sent_it_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let committer = Committer::start(layout.clone(), true).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let key = FileKey::Blob(Digest::of(DigestFunction::Sha256, b"abc"));
        let file = tempfile::NamedTempFile::new_in(folder.path()).unwrap().into_temp_path();
        let commit = committer.commit(key, file, Before::Stays, move |kept| tell.send(kept).unwrap());
        // It is handed over when it is first polled, and nobody polls it again.
        let _ = commit.now_or_never();
        drop(committer);
        assert_eq!(told.recv().unwrap(), Kept::This);
        assert!(layout.path(&key).exists());
    }

    #[tokio::test]
    async fn a_blob_that_cannot_be_read_yields_to_one_that_can() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let committer = Committer::start(layout.clone(), true).unwrap();
        let key = FileKey::Blob(Digest::of(DigestFunction::Sha256, b"abc"));
        for (before, bytes, now) in
            [(Before::Stays, b"bad", b"bad"), (Before::Stays, b"abc", b"bad"), (Before::Goes, b"abc", b"abc")]
        {
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            file.write_all(bytes).unwrap();
            committer.commit(key, file.into_temp_path(), before, |_| ()).await.unwrap();
            assert_eq!(fs::read(layout.path(&key)).unwrap(), now);
        }
    }
}
