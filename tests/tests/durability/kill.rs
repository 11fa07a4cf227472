//! `kill -9` at random moments.

use std::path::Path;
use std::time::Duration;

use castwork_tests::progress;

use crate::load::{Load, check};
use crate::server::{Server, cycles, random_moment};

/// Small, so that there are evictions all the time.
const MAX_SIZE: &str = "48MB";

/// What was acknowledged last, and is far from being evicted.
const KEPT_BYTES: u64 = 12_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_by_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let load = Load::default();
    let (mut slowest, count) = (Duration::ZERO, cycles("CASTWORK_TESTS_CYCLES", 6));
    let mut server = Server::start(folder.path(), &data, &["--max-size", MAX_SIZE]);
    for cycle in 0..count {
        let before = load.acknowledged().count();
        let remote = server.remote.clone();
        let running = load.clone();
        let running = tokio::spawn(async move { running.run(&remote).await });
        while load.acknowledged().count() == before {
            assert!(!running.is_finished(), "the load ended by itself");
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(random_moment()).await;
        assert!(!running.is_finished(), "the load ended by itself");
        server.program.kill();
        running.await.unwrap();
        server = Server::start(folder.path(), &data, &["--max-size", MAX_SIZE]);
        slowest = slowest.max(server.ready_after);
        check(&server.remote, &load.acknowledged(), KEPT_BYTES).await;
        let bytes = bytes_below(&data);
        assert!(bytes <= 48_000_000 / 100 * 101, "{bytes} bytes are kept in cycle {cycle}");
        if cycle % 25 == 24 {
            progress(&format!(
                "{} kills, {} acknowledged, nothing lost",
                cycle + 1,
                load.acknowledged().count()
            ));
        }
    }
    let acknowledged = load.acknowledged().count();
    progress(&format!("{count} kills, {acknowledged} acknowledged, nothing lost; slowest start {slowest:?}"));
}

/// What all files take up.
fn bytes_below(data: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // It may be evicted meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    bytes
}
