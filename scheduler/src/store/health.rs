//! [`Health`]: whether the disk takes writes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info};

use super::layout::Layout;

/// Bytes that are written to see whether the disk takes some: enough for file systems that keep a few bytes
/// elsewhere.
const PROBE_BYTES: usize = 16 << 10;

/// What became of the last writes. It is said once when the disk begins to refuse them, and once when it takes them
/// again.
#[derive(Debug, Default)]
pub(crate) struct Health {
    refuses: AtomicBool,
}

impl Health {
    /// A write failed.
    pub(crate) fn failed(&self, error: &io::Error) {
        if !self.refuses.swap(true, Ordering::Relaxed) {
            error!(%error, "the disk takes no writes: uploads are refused, and reads go on");
        }
    }

    /// Whether the last that is known of the disk is that it takes no writes.
    pub(crate) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// If the disk took no writes, sees whether it does by now. Blocks.
    pub(crate) fn probe(&self, layout: &Layout) {
        if self.refuses() && write_some(layout).is_ok() {
            self.refuses.store(false, Ordering::Relaxed);
            info!("the disk takes writes again");
        }
    }
}

fn write_some(layout: &Layout) -> io::Result<()> {
    let path = layout.tmp().join("probe");
    let mut file = File::create(&path)?;
    let written = file.write_all(&[0; PROBE_BYTES]).and_then(|()| file.sync_all());
    fs::remove_file(&path).and(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_well_again_when_it_takes_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let health = Health::default();
        assert!(!health.refuses());
        health.failed(&io::Error::from(io::ErrorKind::StorageFull));
        // There is no folder to write to.
        health.probe(&layout);
        assert!(health.refuses());
        fs::create_dir(layout.tmp()).unwrap();
        health.probe(&layout);
        assert!(!health.refuses());
        assert_eq!(fs::read_dir(layout.tmp()).unwrap().count(), 0);
    }
}
