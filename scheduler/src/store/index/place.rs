//! Which folder holds the index, and whether it can be relied on.
//!
//! `DIR/index/v2-7` is an index of format 2; `DIR/index/clean.json` says that it was closed in order, and with
//! how much in it. The marker is removed before the index is opened, so it never stands beside one that
//! was written to since. On any doubt a new folder with the next number is begun, and the rest removed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use castwork_cas::files::sync_folder;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::memory::MemoryIndex;
use super::sled::SledIndex;
use super::{Index, IndexError, Total};
use crate::front::errors::with_cause;

/// In the name of every index's folder; another format gets another.
const FORMAT: &str = "v2";

/// How long an index may take to open, before a new one is begun instead.
pub(crate) const OPEN_TIME_MAX: Duration = Duration::from_secs(5);

/// What is known of an index that was closed in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    folder: String,
    files: u64,
    pub(crate) bytes: u64,
}

impl Marker {
    /// Reads the marker in `root` and removes it.
    pub(crate) fn take(root: &Path) -> Option<Self> {
        let path = root.join("clean.json");
        let text = fs::read(&path).ok()?;
        if let Err(error) = fs::remove_file(&path).and_then(|()| sync_folder(root)) {
            warn!(%error, "the index's marker could not be removed; the index is rebuilt");
            return None;
        }
        let marker: Self = serde_json::from_slice(&text).ok()?;
        number(&marker.folder).is_some().then_some(marker)
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(root)?;
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(root.join("clean.json")).map_err(|error| error.error)?;
        sync_folder(root)
    }
}

/// The number in the name of an index's folder, if it is one of this format.
fn number(folder: &str) -> Option<u64> {
    folder.strip_prefix(FORMAT)?.strip_prefix('-')?.parse().ok()
}

/// Opens the index that `marker` speaks of; `None` if there is none that can be relied on.
pub(crate) fn reopen(root: &Path, marker: Option<Marker>, time_max: Duration) -> Option<Index> {
    let marker = marker?;
    match open_in_time(root.join(&marker.folder), time_max).and_then(|index| check(index, &marker)) {
        Ok(index) => Some(Index::Sled(Box::new(index))),
        Err(error) => {
            warn!(error = with_cause(&error), "the index is thrown away and rebuilt");
            None
        }
    }
}

fn check(index: SledIndex, marker: &Marker) -> Result<SledIndex, IndexError> {
    let expected = Total { files: marker.files, bytes: marker.bytes };
    // A log that was cut off opens without a complaint, and with less in it.
    if index.total() == expected {
        Ok(index)
    } else {
        Err(IndexError::Incomplete { expected: expected.files, got: index.total().files })
    }
}

/// Begins an empty index in a new folder, or in memory if the disk takes none.
pub(crate) fn begin(root: &Path, time_max: Duration) -> Index {
    let last = folders(root).iter().filter_map(|name| number(name)).max().unwrap_or(0);
    let folder = root.join(format!("{FORMAT}-{}", last + 1));
    match open_in_time(folder, time_max) {
        Ok(index) => Index::Sled(Box::new(index)),
        Err(error) => {
            warn!(error = with_cause(&error), "the index is kept in memory");
            Index::Memory(MemoryIndex::default())
        }
    }
}

/// Removes every index but `used`.
pub(crate) fn sweep(root: &Path, used: Option<&Path>) {
    for name in folders(root) {
        let folder = root.join(&name);
        if used != Some(&folder) {
            info!(folder = name, "an index that is no longer used is removed");
            // A thread that is still opening it may be in the way; then the next start removes it.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Closes the index and marks it as good.
pub(crate) fn close(root: &Path, index: Index) -> Result<(), IndexError> {
    let Total { files, bytes } = index.total();
    let Some(path) = index.close()? else {
        return Ok(());
    };
    let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Marker { folder, files, bytes }
        .write(root)
        .map_err(|source| IndexError::Disk { step: format!("mark `{}`", path.display()), source })
}

/// The folders of indexes of any format.
fn folders(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Opens an index on a thread of its own, because on bytes that it does not expect the engine panics, or
/// is busy for minutes. A thread that is too slow is left to itself.
fn open_in_time(folder: PathBuf, time_max: Duration) -> Result<SledIndex, IndexError> {
    let (send, receive) = mpsc::sync_channel(1);
    let open = move || {
        let _ = send.send(SledIndex::open(&folder));
    };
    std::thread::Builder::new()
        .name("index-open".to_owned())
        .spawn(open)
        .map_err(|source| IndexError::Disk { step: "start a thread".to_owned(), source })?;
    match receive.recv_timeout(time_max) {
        Ok(index) => index,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(IndexError::Slow),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(IndexError::Panic),
    }
}

/// Cuts every file of an index to half its length, for tests.
#[cfg(test)]
pub(crate) fn cut_files_in_half(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cut_files_in_half(&path);
        } else {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;
    use crate::store::layout::FileKey;
    use crate::store::ledger::Use;

    const LONG: Duration = Duration::from_secs(60);

    /// Writes an index of `files` files and closes it in order.
    fn written(root: &Path, files: u32) {
        let mut index = begin(root, LONG);
        let uses: Vec<_> = (0..files)
            .map(|file| {
                let digest = Digest::of(DigestFunction::Sha256, &file.to_le_bytes());
                (FileKey::Blob(digest), Use { bytes: 4096, used_ms: u64::from(file) })
            })
            .collect();
        index.put(&uses).unwrap();
        close(root, index).unwrap();
    }

    fn reopened(root: &Path) -> Option<Index> {
        reopen(root, Marker::take(root), LONG)
    }

    #[test]
    fn an_index_that_was_closed_in_order_opens_again_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 100);
        let index = reopened(folder.path()).unwrap();
        assert_eq!(index.total(), Total { files: 100, bytes: 409_600 });
        drop(index);
        assert!(reopened(folder.path()).is_none());
    }

    #[test]
    fn an_index_that_was_cut_short_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 5000);
        cut_files_in_half(&folder.path().join("v2-1"));
        assert!(reopened(folder.path()).is_none());
    }

    #[test]
    fn an_index_with_flipped_bits_is_not_believed_or_is_right() {
        for seed in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), 2000);
            let db = folder.path().join("v2-1/db");
            let mut bytes = fs::read(&db).unwrap();
            let at = bytes.len() * (seed * 2 + 1) / 10;
            bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
            fs::write(&db, bytes).unwrap();
            if let Some(index) = reopened(folder.path()) {
                assert_eq!(index.total(), Total { files: 2000, bytes: 2000 * 4096 });
            }
        }
    }

    #[test]
    fn a_new_index_has_a_new_folder_and_the_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1);
        let old = folder.path().join("v0-9");
        fs::create_dir(&old).unwrap();
        let Index::Sled(_) = begin(folder.path(), LONG) else {
            panic!("the disk takes an index");
        };
        let new = folder.path().join("v2-2");
        sweep(folder.path(), Some(&new));
        assert_eq!(folders(folder.path()), ["v2-2"]);
    }

    #[test]
    fn a_marker_that_names_another_folder_or_none_is_no_marker() {
        let folder = tempfile::tempdir().unwrap();
        for text in
            ["", "{}", r#"{"folder":"../x","files":1,"bytes":1}"#, r#"{"folder":"v0-1","files":1,"bytes":1}"#]
        {
            fs::write(folder.path().join("clean.json"), text).unwrap();
            assert_eq!(Marker::take(folder.path()), None, "{text}");
        }
    }
}
