//! Power cuts: what an honest disk holds at one moment is what the next server finds.
//!
//! The server writes to a file system on a loop device whose backing file lies on XFS. At a random moment a clone of
//! the backing file is made, which takes one atomic step there: exactly what the device held if the power had gone
//! then. The clone is mounted, its journal replays, and another server has to find all that had been acknowledged
//! before the clone. Writes that the device has acknowledged but not made durable are not modelled.

use std::fs;
use std::path::{Path, PathBuf};

use castwork_tests::progress;

use crate::disk::{self, Mount};
use crate::load::{Load, check};
use crate::server::{Server, cycles, random_moment};

const MAX_SIZE: &str = "96MB";
const KEPT_BYTES: u64 = 20_000_000;

/// Room for the device that is written and for its clone, in megabytes.
const OUTER_MB: u64 = 1200;
const DEVICE_MB: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_by_a_power_cut() {
    const NAME: &str = "power cuts";
    let kind = std::env::var("CASTWORK_TESTS_FS").unwrap_or_else(|_| "ext4".to_owned());
    if !disk::can_mount(NAME, &[&kind, "xfs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(outer) = Mount::new(folder.path(), "outer", "xfs", OUTER_MB) else {
        return castwork_tests::skip(NAME, "this system mounts no XFS from a file");
    };
    let (count, mut acknowledged) = (cycles("CASTWORK_TESTS_CUTS", 10), 0);
    for cut in 0..count {
        acknowledged += one_cut(folder.path(), outer.path(), &kind).await;
        if cut % 25 == 24 {
            progress(&format!("{} power cuts on {kind}, {acknowledged} acknowledged, nothing lost", cut + 1));
        }
    }
    progress(&format!("{count} power cuts on {kind}, {acknowledged} acknowledged, nothing lost"));
}

/// Returns what had been acknowledged.
async fn one_cut(folder: &Path, outer: &Path, kind: &str) -> usize {
    let (image, clone) = (outer.join("device.img"), outer.join("clone.img"));
    let device = Mount::on(&image, &folder.join("device"), kind, DEVICE_MB, &[]).unwrap();
    let load = Load::default();
    let acknowledged = {
        let mut server = Server::start(folder, &device.path().join("data"), &["--max-size", MAX_SIZE]);
        let (running, remote) = (load.clone(), server.remote.clone());
        let running = tokio::spawn(async move { running.run(&remote).await });
        while load.acknowledged().count() == 0 {
            assert!(!running.is_finished(), "the load ended by itself");
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(random_moment()).await;
        assert!(!running.is_finished(), "the load ended by itself");
        let acknowledged = load.acknowledged();
        disk::clone(&image, &clone);
        server.program.kill();
        running.await.unwrap();
        acknowledged
    };
    drop(device);
    let found = Mount::existing(&clone, &folder.join("clone"), kind).unwrap();
    {
        let server = Server::start(folder, &found.path().join("data"), &["--max-size", MAX_SIZE]);
        check(&server.remote, &acknowledged, KEPT_BYTES).await;
    }
    drop(found);
    remove(&[image, clone]);
    acknowledged.count()
}

fn remove(files: &[PathBuf]) {
    for file in files {
        fs::remove_file(file).unwrap();
    }
}
