//! [`Scan`]: a look at every file of the store, folder by folder, to rebuild the index, and to find what an
//! older layout kept as files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use castwork_cas::files::sync_folder;
use tracing::{debug, warn};

use super::layout::{FileKey, Layout};
use super::ledger::{Use, bytes_on_disk, millis};

/// What there is in a folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Blobs that are kept as files.
    pub(crate) files: Vec<(FileKey, Use)>,
    /// Files of what belongs into segments.
    pub(crate) small: Vec<(FileKey, Use)>,
}

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
    pub(crate) fn next_folder(&mut self) -> Option<Found> {
        let folder = self.folders.pop()?;
        let found = self.read(&folder).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%error, folder = %folder.display(), "a folder of the store is not readable");
            }
            Found::default()
        });
        self.files += found.files.len() as u64;
        Some(found)
    }

    fn read(&mut self, folder: &Path) -> io::Result<Found> {
        let mut found = Found::default();
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
            let files = if key.is_small() { &mut found.small } else { &mut found.files };
            files.push((key, Use { bytes: bytes_on_disk(metadata.len()), used_ms }));
        }
        // A server that was killed may have left names that are visible and not yet kept.
        sync_folder(folder)?;
        Ok(found)
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
        let large = Digest::from_hex(DigestFunction::Sha256, &"0".repeat(64), 1 << 20).unwrap();
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let keys = [
            FileKey::Blob(large),
            FileKey::Blob(digest),
            FileKey::of_result(&ActionKey { instance: "a".into(), action: digest }),
        ];
        for key in &keys {
            let path = layout.path(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"abc").unwrap();
            fs::write(path.with_file_name("README"), b"abc").unwrap();
        }
        let mut scan = Scan::new(&layout);
        let (mut files, mut small) = (Vec::new(), Vec::new());
        while let Some(found) = scan.next_folder() {
            files.extend(found.files);
            small.extend(found.small);
        }
        small.sort_by_key(|(key, _)| *key);
        assert!(files.iter().chain(&small).all(|(_, entry)| entry.bytes == 4096 && entry.used_ms > 0));
        let names = |found: Vec<(FileKey, Use)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!((names(files), names(small)), (keys[..1].to_vec(), keys[1..].to_vec()));
        assert_eq!(scan.files, 1);
    }
}
