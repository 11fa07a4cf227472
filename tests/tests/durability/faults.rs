//! A disk that fills up, that can make no more files, or that takes no writes at all, and bits that flip: nothing
//! wrong is served, the server stays up, says what happened in its log and its metrics, and recovers by itself.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use castwork_cas::store::stream_of;
use castwork_cas::{BlobStore as _, Digest, DigestFunction, StoreError};

use crate::disk::{self, Mount};
use crate::server::Server;

/// Far above what anything takes that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A record of a segment, and a file of its own.
const SMALL: usize = 20_000;
const LARGE: usize = 200_000;

/// Bytes that no compression and no other seed has.
fn blob(seed: u64, length: usize) -> (Digest, Bytes) {
    let mut data = Vec::with_capacity(length + 32);
    let mut block = seed;
    while data.len() < length {
        data.extend(Digest::of(DigestFunction::Blake3, &block.to_le_bytes()).hash());
        block = block.wrapping_add(1 << 20);
    }
    data.truncate(length);
    (Digest::of(DigestFunction::Sha256, &data), data.into())
}

async fn put(server: &Server, seed: u64, length: usize) -> Result<Digest, StoreError> {
    let (digest, data) = blob(seed, length);
    server.remote.put(&digest, stream_of(data)).await.map(|()| digest)
}

/// Tries until the server takes it again.
async fn put_at_last(server: &Server, seed: u64, length: usize) -> Digest {
    let begin = Instant::now();
    loop {
        match put(server, seed, length).await {
            Ok(digest) => return digest,
            Err(error) => assert!(begin.elapsed() < WAIT_MAX, "it does not recover: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is answered is right. Returns how many of them are there.
async fn check(server: &Server, blobs: impl IntoIterator<Item = (u64, usize)>) -> usize {
    let mut found = 0;
    for (seed, length) in blobs {
        let (digest, data) = blob(seed, length);
        match server.remote.get_many(&[digest]).await.remove(0).1 {
            Ok(got) => {
                assert_eq!(got, data, "{digest} has wrong bytes");
                found += 1;
            }
            Err(StoreError::Missing(_)) => {}
            Err(error) => panic!("{digest}: {error}"),
        }
    }
    found
}

/// Both kinds of blobs are refused, and not because something broke.
async fn refuses(server: &Server, seed: u64) {
    for length in [SMALL, LARGE] {
        let refused = put(server, seed, length).await.unwrap_err();
        let text = format!("{refused:?}");
        let words = ["ResourceExhausted", "resource has been exhausted", "Full {"];
        assert!(words.iter().any(|word| text.contains(word)), "{text}");
    }
}

fn log_says(server: &Server, words: &str) {
    let log = server.program.log();
    assert!(log.contains(words), "`{words}` is not in the log:\n{log}");
}

/// A mounted ext4 of so many megabytes; `None` if the test is skipped.
pub(crate) fn small_disk(test: &str, folder: &Path, megabytes: u64, options: &[&str]) -> Option<Mount> {
    if !disk::can_mount(test, &["ext4"]) {
        return None;
    }
    let mount = Mount::on(&folder.join("disk.img"), &folder.join("disk"), "ext4", megabytes, options);
    Some(mount.expect("a file system that was just made can be mounted"))
}

/// Takes all the room that is left, with the file that it returns.
pub(crate) fn fill(disk: &Mount) -> PathBuf {
    let others = disk.path().join("others");
    let mut file = File::create(&others).unwrap();
    let piece = vec![7; 64 << 10];
    // To the last byte: what ext4 keeps for root is taken too.
    while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
    others
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_is_read_and_written_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk("a full disk", folder.path(), 48, &[]) else { return };
    let server = Server::start(folder.path(), &disk.path().join("data"), &["--max-size", "40MB"]);
    let before = [(1, SMALL), (2, LARGE)];
    for (seed, length) in before {
        put(&server, seed, length).await.unwrap();
    }
    let others = fill(&disk);
    // What ext4 had set aside for the file, it may give to others.
    let mut seed = 100;
    while put(&server, seed, SMALL).await.is_ok() {
        seed += 1;
        assert!(seed < 200, "the disk has no end");
    }
    refuses(&server, 3).await;
    assert_eq!(check(&server, before).await, 2);
    assert!(server.metric("castwork_refused_full_total") >= 2);
    fs::remove_file(others).unwrap();
    for (seed, length) in [(4, SMALL), (5, LARGE)] {
        put_at_last(&server, seed, length).await;
    }
    assert_eq!(check(&server, before.into_iter().chain([(4, SMALL), (5, LARGE)])).await, 4);
    assert_eq!(server.metric("castwork_corrupt_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_hardly_any_files_can_be_made_the_oldest_go_and_others_have_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk("few inodes", folder.path(), 256, &["-N", "800"]) else { return };
    let server = Server::start(folder.path(), &disk.path().join("data"), &["--max-size", "200MB"]);
    let free = || castwork_cas::files::free_files(disk.path()).unwrap().unwrap();
    let at_first = free();
    // More than the disk has files.
    for seed in 0..at_first + 200 {
        put_at_last(&server, seed, 66_000).await;
    }
    // Half of a twentieth, and what is made besides blobs.
    assert!(free() >= at_first / 50, "{} of {at_first} files are left", free());
    assert!(server.metric("castwork_evictions_total") > 100);
    log_says(&server, "has few files left to make");
    assert_eq!(check(&server, [(at_first + 199, 66_000)]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_becomes_read_only_is_read_and_written_again_when_it_is_not() {
    const NAME: &str = "a read-only mount";
    let folder = tempfile::tempdir().unwrap();
    if !disk::can_mount(NAME, &[]) {
        return;
    }
    let data = folder.path().join("data");
    // Segments of 160 kB: a handful of blobs is more than the one that is open takes.
    let server = Server::start(folder.path(), &data, &["--max-size", "10MB"]);
    let before: Vec<(u64, usize)> = (0..10).map(|seed| (seed, SMALL)).chain([(10, LARGE)]).collect();
    for (seed, length) in &before {
        put(&server, *seed, *length).await.unwrap();
    }
    let Some(read_only) = Mount::read_only(&data) else {
        return castwork_tests::skip(NAME, "this system binds no mounts");
    };
    let mut seed = 100;
    while put(&server, seed, SMALL).await.is_ok() {
        seed += 1;
        assert!(seed < 200, "the newest segment has no end");
    }
    refuses(&server, 300).await;
    assert_eq!(check(&server, before.iter().copied()).await, before.len());
    assert_eq!(server.metric("castwork_store_takes_writes"), 0);
    log_says(&server, "the disk takes no writes");
    drop(read_only);
    for length in [SMALL, LARGE] {
        put_at_last(&server, 400, length).await;
    }
    let begin = Instant::now();
    while server.metric("castwork_store_takes_writes") == 0 {
        assert!(begin.elapsed() < WAIT_MAX, "it does not say that it recovered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    log_says(&server, "the disk takes writes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_fails_is_read_and_after_its_repair_has_everything() {
    const NAME: &str = "a failed file system";
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk(NAME, folder.path(), 64, &[]) else { return };
    let data = disk.path().join("data");
    let mut server = Server::start(folder.path(), &data, &["--max-size", "50MB"]);
    let before: Vec<(u64, usize)> = (0..10).flat_map(|seed| [(seed, SMALL), (seed, LARGE)]).collect();
    for (seed, length) in &before {
        put(&server, *seed, *length).await.unwrap();
    }
    if !disk.fail() {
        return castwork_tests::skip(NAME, "this system can't be told that a file system failed");
    }
    refuses(&server, 100).await;
    assert_eq!(check(&server, before.iter().copied()).await, before.len());
    assert_eq!(server.metric("castwork_store_takes_writes"), 0);
    log_says(&server, "the disk takes no writes");
    server.program.kill();
    drop(disk);
    let image = folder.path().join("disk.img");
    let repaired = std::process::Command::new("e2fsck").args(["-f", "-y"]).arg(&image).output().unwrap();
    assert!(repaired.status.code().is_some_and(|code| code < 4), "{repaired:?}");
    let disk = Mount::existing(&image, &folder.path().join("disk"), "ext4").unwrap();
    let server = Server::start(folder.path(), &data, &["--max-size", "50MB"]);
    assert_eq!(check(&server, before.iter().copied()).await, before.len());
    put(&server, 200, LARGE).await.unwrap();
    drop(server);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_bits_flip_nothing_wrong_is_served_and_uploads_heal_it() {
    const ROUNDS: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let blobs: Vec<(u64, usize)> = (0..40)
        .map(|seed: u16| {
            (seed.into(), if seed.is_multiple_of(8) { LARGE } else { 500 + 400 * usize::from(seed) })
        })
        .collect();
    let mut server = Server::start(folder.path(), &data, &[]);
    let mut lost = 0;
    for round in 0..ROUNDS {
        for (seed, length) in &blobs {
            put(&server, *seed, *length).await.unwrap();
        }
        assert_eq!(check(&server, blobs.iter().copied()).await, blobs.len());
        if round % 2 == 0 {
            // Under the server's feet, and before the next start finds it.
            flip(&data, round);
            lost += blobs.len() - check(&server, blobs.iter().copied()).await;
            assert!(server.metric("castwork_corrupt_total") > 0);
            log_says(&server, "because its bytes are not what its name says");
            server.program.kill();
        } else {
            server.program.kill();
            flip(&data, round);
        }
        server = Server::start(folder.path(), &data, &[]);
        lost += blobs.len() - check(&server, blobs.iter().copied()).await;
    }
    assert!(lost > 0, "no bit that was flipped was one of a blob");
}

/// Flips bits in every file of the data folder but the lock: one in twenty thousand bytes, at least three a file.
fn flip(data: &Path, seed: u64) {
    let mut folders = vec![data.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let kinds = ["segments", "cas", "index"].map(|kind| data.join(kind));
    files.retain(|file| kinds.iter().any(|kind| file.starts_with(kind)));
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy();
        for number in 0..(bytes.len() / 20_000).max(3) {
            let random = Digest::of(DigestFunction::Blake3, format!("{seed} {number} {name}").as_bytes());
            let random = usize::from_le_bytes(random.hash()[..8].try_into().unwrap());
            if !bytes.is_empty() {
                let at = random % bytes.len();
                bytes[at] ^= 1 << (random % 8);
            }
        }
        // In place: a server that has it open sees it.
        File::options().write(true).open(&file).unwrap().write_all(&bytes).unwrap();
    }
}
