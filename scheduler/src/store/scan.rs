//! [`Scan`]: a look at every file of the store, folder by folder, to rebuild the index.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use castwork_cas::files::sync_folder;
use tracing::{debug, warn};

use super::layout::{FileKey, Layout};
use super::ledger::{Use, bytes_on_disk, millis};

/// What is left to look at. The server serves meanwhile.
pub(crate) struct Scan {
    layout: Layout,
    folders: Vec<PathBuf>,
    pub(crate) files: u64,
}

impl Scan {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), folders: layout.trees().into(), files: 0 }
    }

    /// Looks at one more folder and returns the files of the store in it; `None` when all were seen.
    pub(crate) fn next_folder(&mut self) -> Option<Vec<(FileKey, Use)>> {
        let folder = self.folders.pop()?;
        let files = self.read(&folder).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%error, folder = %folder.display(), "a folder of the store is not readable");
            }
            Vec::new()
        });
        self.files += files.len() as u64;
        Some(files)
    }

    fn read(&mut self, folder: &Path) -> io::Result<Vec<(FileKey, Use)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.folders.push(path);
                continue;
            }
            let Some(key) = self.layout.key(&path) else {
                debug!(path = %path.display(), "not a file of the store");
                continue;
            };
            // It may be evicted, or replaced, while this looks.
            let Ok(metadata) = entry.metadata() else { continue };
            let used_ms = metadata.modified().map_or(0, millis);
            files.push((key, Use { bytes: bytes_on_disk(metadata.len()), used_ms }));
        }
        // A server that was killed may have left names that are visible and not yet kept.
        sync_folder(folder)?;
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{ActionKey, Digest, DigestFunction};

    use super::*;

    #[test]
    fn every_file_of_the_store_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let keys =
            [FileKey::Blob(digest), FileKey::of_result(&ActionKey { instance: "a".into(), action: digest })];
        for key in &keys {
            let path = layout.path(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"abc").unwrap();
            fs::write(path.with_file_name("README"), b"abc").unwrap();
        }
        let mut scan = Scan::new(&layout);
        let mut found = Vec::new();
        while let Some(files) = scan.next_folder() {
            found.extend(files);
        }
        found.sort_by_key(|(key, _)| *key);
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
        assert!(found.iter().all(|(_, entry)| entry.bytes == 4096 && entry.used_ms > 0));
        assert_eq!(scan.files, 2);
    }
}
