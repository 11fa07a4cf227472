//! Promises of the file store.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use castwork_proto::reapi::ActionResult;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::store::{ByteRange, collect, stream_of};
use crate::{ActionCache as _, ActionKey, BlobStore as _, Digest, DigestFunction, StoreError};

fn store(bytes_max: u64) -> (tempfile::TempDir, FileBlobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::open(folder.path(), bytes_max).unwrap();
    (folder, blobs)
}

fn blob(size: usize, seed: u64) -> (Digest, Vec<u8>) {
    let mut data = vec![0; size];
    StdRng::seed_from_u64(seed).fill(&mut data[..]);
    (Digest::of(DigestFunction::Sha256, &data), data)
}

fn key(seed: u64) -> ActionKey {
    ActionKey { instance: Arc::from("main"), action: blob(9, seed).0 }
}

/// Makes a file look as if it had been used `ago`.
fn age(blobs: &FileBlobs, digest: &Digest, ago: Duration) {
    let file = fs::File::open(blobs.path_of(digest).unwrap().path()).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

/// Writes other bytes into a file that may not be written.
fn overwrite(path: &std::path::Path, data: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, data).unwrap();
}

#[tokio::test]
async fn a_blob_comes_back_whole_and_in_parts() {
    let (_folder, blobs) = store(u64::MAX);
    for size in [0, 1, 5000, 3_000_000] {
        let (digest, data) = blob(size, 1);
        assert_eq!(blobs.find_missing(&[digest, digest]).await.unwrap().len(), usize::from(size > 0));
        blobs.put(&digest, stream_of(data.clone().into())).await.unwrap();
        assert!(blobs.find_missing(&[digest]).await.unwrap().is_empty());
        let whole = blobs.get(&digest, ByteRange::ALL).await.unwrap();
        assert_eq!(collect(whole, u64::MAX).await.unwrap(), data);
        let range = ByteRange { offset: size as u64 / 3, limit: Some(100) };
        let part = collect(blobs.get(&digest, range).await.unwrap(), 100).await.unwrap();
        assert_eq!(part, data[size / 3..(size / 3 + 100).min(size)]);
        let past = ByteRange { offset: size as u64 + 1, limit: None };
        assert!(matches!(blobs.get(&digest, past).await, Err(StoreError::Range { .. })));
    }
}

#[tokio::test]
async fn a_blob_with_wrong_bytes_is_refused_and_leaves_nothing() {
    let (folder, blobs) = store(u64::MAX);
    let (digest, data) = blob(1000, 1);
    for wrong in [&data[1..], &[&data[..], b"x"].concat(), &[7; 1000]] {
        let put = blobs.put(&digest, stream_of(wrong.to_vec().into())).await;
        assert!(matches!(put, Err(StoreError::Mismatch { .. })));
        assert!(matches!(blobs.put_bytes(&digest, wrong), Err(StoreError::Mismatch { .. })));
    }
    assert!(!blobs.contains(&digest));
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_with_other_bytes_than_its_name_says_is_never_served() {
    let (_folder, blobs) = store(u64::MAX);
    for size in [1000, 3_000_000] {
        let (digest, mut data) = blob(size, 1);
        data[size / 2] ^= 1;
        for torn in [&data[..], &data[..size / 2], &[]] {
            data_back(&blobs, &digest, size).await;
            let path = blobs.path_of(&digest).unwrap().path().to_owned();
            overwrite(&path, torn);
            match blobs.get(&digest, ByteRange::ALL).await {
                Ok(stream) => assert!(collect(stream, u64::MAX).await.is_err()),
                Err(error) => assert!(matches!(error, StoreError::Missing(_))),
            }
            assert_eq!(blobs.get_bytes(&digest).unwrap(), None);
            assert!(!blobs.contains(&digest), "the wrong file is gone");
        }
    }
}

async fn data_back(blobs: &FileBlobs, digest: &Digest, size: usize) {
    blobs.put(digest, stream_of(blob(size, 1).1.into())).await.unwrap();
}

#[tokio::test]
async fn a_result_is_replaced_whole_and_a_torn_one_is_none() {
    let (folder, blobs) = store(u64::MAX);
    let results = blobs.results();
    assert_eq!(results.get(&key(1)).await.unwrap(), None);
    for exit_code in [1, 2] {
        let result = ActionResult { exit_code, ..ActionResult::default() };
        results.put(&key(1), result.clone()).await.unwrap();
        assert_eq!(results.get(&key(1)).await.unwrap(), Some(result));
    }
    let other = ActionKey { instance: Arc::from("other"), ..key(1) };
    assert_eq!(results.get(&other).await.unwrap(), None, "instances are apart");
    let mut place = folder.path().join("results");
    while place.is_dir() {
        place = fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    }
    overwrite(&place, &[0; 40]);
    assert_eq!(results.get(&key(1)).await.unwrap(), None);
    assert!(!place.exists());
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_the_bound_is_kept() {
    let (_folder, blobs) = store(10_000);
    let all: Vec<_> = (0..9).map(|seed| blob(1000, seed)).collect();
    for (at, (digest, data)) in all.iter().enumerate() {
        blobs.put_bytes(digest, data).unwrap();
        age(&blobs, digest, Duration::from_secs(3600 - at as u64));
    }
    assert!(blobs.contains(&all[0].0), "that is a use");
    assert_eq!(blobs.horizon(), None, "nothing had to go");
    let (newest, data) = blob(2000, 99);
    blobs.put_bytes(&newest, &data).unwrap();
    let there: Vec<_> = all.iter().map(|(digest, _)| blobs.contains(digest)).collect();
    assert_eq!(there, [true, false, false, true, true, true, true, true, true]);
    assert!(blobs.contains(&newest));
    assert_eq!((blobs.usage_bytes(), blobs.bytes_max()), (9000, 10_000));
    let horizon = blobs.horizon().unwrap().as_secs();
    assert!((3590..4000).contains(&horizon), "the third had not been used for {horizon} s");
}

#[test]
fn a_pinned_blob_is_not_evicted() {
    let (_folder, blobs) = store(3000);
    let (pinned, data) = blob(1000, 1);
    blobs.put_bytes(&pinned, &data).unwrap();
    age(&blobs, &pinned, Duration::from_secs(3600));
    let guard = blobs.path_of(&pinned).unwrap();
    age(&blobs, &pinned, Duration::from_secs(3600));
    for seed in 2..6 {
        let (digest, data) = blob(1000, seed);
        blobs.put_bytes(&digest, &data).unwrap();
    }
    assert!(guard.path().exists());
}

#[test]
fn many_writers_of_one_folder_keep_the_account_right() {
    let (folder, _) = store(u64::MAX);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let blobs = FileBlobs::open(folder.path(), 1_000_000_000).unwrap();
            scope.spawn(move || {
                for seed in 0..50 {
                    // Half of the blobs are everybody's.
                    let (digest, data) = blob(500, if seed % 2 == 0 { seed } else { 1000 * thread + seed });
                    blobs.put_bytes(&digest, &data).unwrap();
                }
            });
        }
    });
    let blobs = FileBlobs::open(folder.path(), 1_000_000_000).unwrap();
    let there = walk(&folder.path().join("blobs"));
    assert_eq!(there, 500 * (25 + 8 * 25));
    // All that put the same blob at the same moment may count it.
    assert!((there..=there + 7 * 500 * 25).contains(&blobs.usage_bytes()));
}

fn walk(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => walk(&entry.path()),
            metadata => metadata.len(),
        })
        .sum()
}

#[test]
fn a_file_is_verified_once_and_again_when_it_has_changed() {
    let (folder, blobs) = store(u64::MAX);
    let (digest, data) = blob(100_000, 7);
    blobs.put_bytes(&digest, &data).unwrap();
    let place = blobs.path_of(&digest).unwrap().path().to_owned();
    let modified = place.metadata().unwrap().modified().unwrap();
    // The same inode, size and time: only who reads it can tell.
    let mut wrong = data.clone();
    wrong[0] ^= 1;
    let in_place = || {
        let mut permissions = place.metadata().unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "a file of the test's own")]
        permissions.set_readonly(false);
        fs::set_permissions(&place, permissions).unwrap();
        fs::write(&place, &wrong).unwrap();
    };
    in_place();
    fs::File::options().write(true).open(&place).unwrap().set_modified(modified).unwrap();
    assert!(blobs.path_of(&digest).is_ok(), "not read again");
    assert_eq!(blobs.get_bytes(&digest).unwrap(), None, "whoever reads it verifies it");
    blobs.put_bytes(&digest, &data).unwrap();
    in_place();
    let later = modified + Duration::from_secs(9);
    fs::File::options().write(true).open(&place).unwrap().set_modified(later).unwrap();
    assert!(matches!(blobs.path_of(&digest), Err(StoreError::Missing(_))), "its time has changed");
    blobs.put_bytes(&digest, &data).unwrap();
    in_place();
    fs::File::options().write(true).open(&place).unwrap().set_modified(modified).unwrap();
    let after_a_restart = FileBlobs::open(folder.path(), u64::MAX).unwrap();
    assert!(matches!(after_a_restart.path_of(&digest), Err(StoreError::Missing(_))));
}
