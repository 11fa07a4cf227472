//! [`Remembered`]: what a process was started to find out, kept until one of the files that it came from changes.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::direct::hashes::hash_of;
use crate::files;
use crate::local::{Platform, Stamp};

/// A place for something to be remembered at.
pub(super) struct Remembered<T> {
    path: PathBuf,
    kind: PhantomData<T>,
}

/// What is remembered, and what it came from; what was not there has no stamp.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    said: T,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

impl<T: Serialize + DeserializeOwned> Remembered<T> {
    /// The place, in the folder of the cache, for what is told apart by `what`.
    pub(super) fn of(dir: &Path, kind: &str, what: &impl Debug) -> Self {
        let name = hex::encode(hash_of(format!("{kind} {what:?}").as_bytes()));
        Self { path: dir.join("tools").join(name), kind: PhantomData }
    }

    /// What is remembered, if all that it came from is as it was.
    pub(super) fn recall(&self) -> Option<T> {
        let kept: Kept<T> = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        kept.files.iter().all(|(path, stamp)| stamp_of(path) == *stamp).then_some(kept.said)
    }

    /// Remembers something, unless one of the files is so young that it may still change unseen.
    pub(super) fn keep<'a>(&self, said: &T, files: impl Iterator<Item = &'a Path>) {
        let files: Vec<_> = files.map(|path| (path.to_owned(), stamp_of(path))).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i128::try_from(now.as_nanos()).unwrap_or(0) - 2_000_000_000;
        if files.iter().any(|(_, stamp)| stamp.is_some_and(|stamp| !stamp.is_settled_before(now))) {
            return;
        }
        // A failure costs the next call the same work.
        let _ = serde_json::to_vec(&Kept { said, files }).map(|bytes| files::write_whole(&self.path, &bytes));
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    path.metadata().ok().map(|metadata| Platform::stamp(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_another_file_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        std::fs::write(&file, "one").unwrap();
        let remembered = || Remembered::<u32>::of(folder.path(), "test", &1);
        remembered().keep(&7, [file.as_path()].into_iter());
        assert_eq!(remembered().recall(), None, "the file is too young");
        let absent = folder.path().join("absent");
        remembered().keep(&7, [absent.as_path(), Path::new("/usr")].into_iter());
        assert_eq!(remembered().recall(), Some(7));
        assert_eq!(Remembered::<u32>::of(folder.path(), "test", &2).recall(), None);
        std::fs::write(&absent, "now there").unwrap();
        assert_eq!(remembered().recall(), None);
    }
}
