//! How much of the worker's disk an action has taken, for where no quota bounds it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::mounts::WORK;
use super::processes::{Nameless, nameless_below};
use crate::sandbox::Bounds;

/// What the disk had free before an action began.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    layer: PathBuf,
    /// The process that all of the action's processes come from.
    keeper: u32,
    free_bytes: u64,
    free_files: u64,
}

impl Disk {
    /// Looks at the disk that holds the folder that the action's writes go to.
    pub(super) fn at(layer: PathBuf, keeper: u32) -> Self {
        let (free_bytes, free_files) = free(&layer).unwrap_or((0, 0));
        Self { layer, keeper, free_bytes, free_files }
    }

    /// Whether the action has taken more than it may. Costs one system call as long as all the disk
    /// has not lost that much.
    pub(super) fn is_exceeded(&self, bounds: &Bounds) -> bool {
        let Some((bytes, files)) = free(&self.layer) else { return false };
        let lost_bytes = self.free_bytes.saturating_sub(bytes);
        let lost_files = self.free_files.saturating_sub(files);
        if lost_bytes <= bounds.disk_bytes && lost_files <= bounds.files {
            return false;
        }
        // Others write to the disk as well: count.
        let mut used = Used { bytes_left: bounds.disk_bytes, files_left: bounds.files };
        if used.count(&self.layer).is_none() {
            return true;
        }
        let Nameless { bytes, files } = nameless_below(self.keeper);
        bytes > used.bytes_left || files > used.files_left
    }
}

fn free(folder: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(folder).ok()?;
    Some((stat.blocks_free() * stat.fragment_size(), stat.files_free()))
}

struct Used {
    bytes_left: u64,
    files_left: u64,
}

impl Used {
    /// `None` when there is more than may be, or something that can't be looked into: then it is its
    /// own doing that the disk has lost so much.
    fn count(&mut self, top: &Path) -> Option<()> {
        let mut folders = vec![top.to_owned()];
        // The kernel's own, which nobody may look into and no command can reach.
        let not_its_doing = top.join(WORK);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).ok()? {
                let entry = entry.ok()?;
                // Gone meanwhile: then it takes no room.
                let Ok(metadata) = entry.metadata() else { continue };
                self.files_left = self.files_left.checked_sub(1)?;
                self.bytes_left = self.bytes_left.checked_sub(metadata.blocks() * 512)?;
                if metadata.is_dir() && entry.path() != not_its_doing {
                    folders.push(entry.path());
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_names_count_each() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/f"), vec![1; 100_000]).unwrap();
        let fits = |bytes_left, files_left| Used { bytes_left, files_left }.count(folder.path()).is_some();
        assert!(fits(1 << 20, 2));
        assert!(!fits(1 << 20, 1));
        assert!(!fits(50_000, 2));
    }

    #[test]
    fn what_the_kernel_needs_for_the_overlay_is_not_the_commands_doing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(WORK).join("work")).unwrap();
        assert!(Used { bytes_left: 1 << 20, files_left: 1 }.count(folder.path()).is_some());
    }
}
