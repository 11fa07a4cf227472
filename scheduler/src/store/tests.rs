//! What the store promises, on a real disk.

mod damage;
mod packed;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use castwork_cas::store::{collect, stream_of};
use castwork_cas::{
    ActionCache as _, ActionKey, BlobStore as _, ByteRange, Digest, DigestFunction, StoreError,
};
use castwork_proto::reapi::ActionResult;
use futures::StreamExt as _;
use futures::future::join_all;
use tempfile::TempDir;

use super::layout::{FileKey, Layout};
use super::pins::Pins;
use super::{Store, StoreConfig, StoreOpenError};
use crate::counters::Counters;

const SHA256: DigestFunction = DigestFunction::Sha256;

/// A store in a folder of its own, which may be closed and opened again.
struct Bench {
    folder: TempDir,
    store: Option<Store>,
    pins: Pins,
    counters: Arc<Counters>,
    bytes_max: u64,
}

impl Bench {
    /// With room for `bytes_max` of blobs and results, and for the segment that is copied.
    fn new(bytes_max: u64) -> Self {
        Self::with(bytes_max, Pins::default())
    }

    fn with(bytes_max: u64, pins: Pins) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bytes_max = bytes_max + (16 << 10);
        let mut bench = Self { folder, store: None, pins, counters: Arc::default(), bytes_max };
        bench.reopen();
        bench
    }

    fn large() -> Self {
        Self::new(1 << 30)
    }

    fn open(&self) -> Result<Store, StoreOpenError> {
        let config =
            StoreConfig { counts_index: false, ..StoreConfig::new(self.folder.path(), self.bytes_max) };
        Store::open(&config, self.pins.clone(), Arc::clone(&self.counters))
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.open().unwrap());
    }

    /// As a crash would leave it for the next start: without the index's marker.
    fn crash(&mut self) {
        self.store = None;
        fs::remove_file(self.folder.path().join("index/clean.json")).unwrap();
        self.reopen();
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        Layout::new(self.folder.path()).path(&FileKey::Blob(*digest))
    }

    async fn put(&self, data: &Bytes) -> Digest {
        let digest = Digest::of(SHA256, data);
        self.store().blobs().put(&digest, stream_of(data.clone())).await.unwrap();
        digest
    }

    async fn get(&self, digest: &Digest, range: ByteRange) -> Result<Bytes, StoreError> {
        collect(self.store().blobs().get(digest, range).await?, u64::MAX).await
    }

    async fn has(&self, digest: &Digest) -> bool {
        self.store().blobs().find_missing(&[*digest]).await.unwrap().is_empty()
    }
}

/// Bytes that no compression and no other seed has.
fn data(seed: u8, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Flips a bit of a blob wherever it lies, or of a result that is encoded so.
fn damage(bench: &Bench, data: &[u8], at: usize) {
    let (path, begin) = place(bench, data);
    flip(&path, begin + at);
}

/// The file that holds these bytes, and where they begin in it.
fn place(bench: &Bench, data: &[u8]) -> (PathBuf, usize) {
    let mut folders = vec![bench.folder.path().join("segments"), bench.folder.path().join("cas")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            if let Some(begin) = bytes.windows(data.len()).position(|window| window == data) {
                return (path, begin);
            }
        }
    }
    panic!("the bytes are nowhere");
}

const PART: ByteRange = ByteRange { offset: 5, limit: Some(10) };

#[tokio::test]
async fn a_blob_comes_back_whole_and_in_parts_also_after_a_restart() {
    let mut bench = Bench::large();
    for length in [1, 4096, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let data = data(1, length);
        let digest = bench.put(&data).await;
        for _ in 0..2 {
            let range = |offset, limit| ByteRange { offset, limit };
            let size = length as u64;
            assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), data);
            assert_eq!(bench.get(&digest, range(size, None)).await.unwrap(), "");
            assert_eq!(bench.get(&digest, range(size / 2, None)).await.unwrap(), data.slice(length / 2..));
            assert_eq!(bench.get(&digest, range(0, Some(size + 9))).await.unwrap(), data);
            let middle = bench.get(&digest, range(size / 3, Some(1))).await.unwrap();
            assert_eq!(middle, data.slice(length / 3..=length / 3));
            let past = bench.get(&digest, range(size + 1, None)).await;
            assert!(matches!(past, Err(StoreError::Range { .. })));
            bench.reopen();
        }
    }
}

#[tokio::test]
async fn the_empty_blob_is_there_and_another_of_no_bytes_is_not() {
    let bench = Bench::large();
    let empty = Digest::empty(DigestFunction::Blake3);
    assert!(bench.has(&empty).await);
    assert_eq!(bench.get(&empty, ByteRange::ALL).await.unwrap(), "");
    bench.store().blobs().put(&empty, stream_of(Bytes::new())).await.unwrap();
    let liar = Digest::from_hex(SHA256, &"0".repeat(64), 0).unwrap();
    assert!(!bench.has(&liar).await);
    assert!(matches!(bench.get(&liar, ByteRange::ALL).await, Err(StoreError::Missing(_))));
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_is_kept() {
    let bench = Bench::large();
    let good = data(2, 1_000_000);
    let digest = Digest::of(SHA256, &good);
    let wrong = [data(3, 1_000_000), good.slice(1..), [&good[..], b"!"].concat().into()];
    for bytes in wrong {
        let refused = bench.store().blobs().put(&digest, stream_of(bytes)).await;
        assert!(matches!(refused, Err(StoreError::Mismatch { .. })));
        assert!(!bench.has(&digest).await);
    }
    let tmp = bench.folder.path().join("tmp");
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 0);
}

#[tokio::test]
async fn a_right_hash_with_another_size_is_another_blob() {
    let bench = Bench::large();
    let data = data(4, 1000);
    let digest = bench.put(&data).await;
    let other = Digest::from_hex(SHA256, &digest.hash_hex(), 999).unwrap();
    assert!(!bench.has(&other).await);
    assert!(matches!(bench.get(&other, ByteRange::ALL).await, Err(StoreError::Missing(_))));
    let refused = bench.store().blobs().put(&other, stream_of(data)).await;
    assert!(matches!(refused, Err(StoreError::Mismatch { .. })));
}

#[tokio::test]
async fn many_uploads_of_one_blob_leave_one_copy() {
    let bench = Bench::large();
    let data = data(5, 700_000);
    let digests = join_all((0..32).map(|_| bench.put(&data))).await;
    assert_eq!(bench.get(&digests[0], ByteRange::ALL).await.unwrap(), data);
    assert_eq!(fs::read_dir(bench.path(&digests[0]).parent().unwrap()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(bench.folder.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_flipped_bit_is_found_on_the_first_read_after_a_restart() {
    for (length, range) in
        [(100, ByteRange::ALL), (100, PART), (2_000_000, ByteRange::ALL), (2_000_000, PART)]
    {
        let mut bench = Bench::large();
        let data = data(6, length);
        let digest = bench.put(&data).await;
        bench.reopen();
        // What is damaged while it is being read at the start is not there, and not dropped.
        assert!(bench.store().shared.segments.loaded().await);
        damage(&bench, &data, length - 1);
        assert!(matches!(bench.get(&digest, range).await, Err(StoreError::Missing(_))));
        assert!(!bench.has(&digest).await);
        assert_eq!(bench.counters.corrupt.value(), 1);
    }
}

#[tokio::test]
async fn of_a_damaged_blob_the_last_byte_never_gets_out() {
    let mut bench = Bench::large();
    let digest = bench.put(&data(7, 2_000_000)).await;
    bench.reopen();
    flip(&bench.path(&digest), 3);
    let mut stream = bench.store().blobs().get(&digest, ByteRange::ALL).await.unwrap();
    let mut bytes = 0;
    let end = loop {
        match stream.next().await {
            Some(Ok(piece)) => bytes += piece.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(StoreError::Missing(_)))));
    assert!(bytes < 2_000_000);
}

#[tokio::test]
async fn a_damaged_blob_is_healed_by_an_upload() {
    let mut bench = Bench::large();
    let data = data(8, 10_000);
    let digest = bench.put(&data).await;
    bench.reopen();
    damage(&bench, &data, 9);
    bench.put(&data).await;
    assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), data);
}

#[tokio::test]
async fn a_blob_that_was_cut_short_is_missing() {
    let mut bench = Bench::large();
    let digest = bench.put(&data(9, 100_000)).await;
    bench.reopen();
    fs::File::options().write(true).open(bench.path(&digest)).unwrap().set_len(99_999).unwrap();
    assert!(!bench.has(&digest).await);
    assert!(!bench.path(&digest).exists());
}

#[tokio::test]
async fn what_was_half_written_when_the_server_ended_is_gone_after_the_start() {
    let mut bench = Bench::large();
    let litter = bench.folder.path().join("tmp/left-behind");
    fs::write(&litter, b"half a blob").unwrap();
    bench.reopen();
    assert!(!litter.exists());
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let bench = Bench::large();
    let Err(error) = bench.open() else { panic!("it is in use") };
    assert!(error.to_string().contains("in use by another server"), "{error}");
}

fn key(instance: &str, action: &[u8]) -> ActionKey {
    ActionKey { instance: instance.into(), action: Digest::of(SHA256, action) }
}

fn result(exit_code: i32) -> ActionResult {
    ActionResult { exit_code, ..Default::default() }
}

#[tokio::test]
async fn results_are_kept_replaced_and_apart_by_instance_and_function() {
    let mut bench = Bench::large();
    let one = key("", b"action");
    let blake3 = ActionKey { action: Digest::of(DigestFunction::Blake3, b"action"), ..one.clone() };
    let results = bench.store().results();
    results.put(&one, result(1)).await.unwrap();
    results.put(&key("other", b"action"), result(2)).await.unwrap();
    results.put(&one, result(3)).await.unwrap();
    drop(results);
    bench.reopen();
    let results = bench.store().results();
    assert_eq!(results.get(&one).await.unwrap(), Some(result(3)));
    assert_eq!(results.get(&key("other", b"action")).await.unwrap(), Some(result(2)));
    assert_eq!(results.get(&blake3).await.unwrap(), None);
    assert_eq!(results.get(&key("", b"another")).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_result_is_no_result() {
    let bench = Bench::large();
    let results = bench.store().results();
    results.put(&key("", b"a"), result(1)).await.unwrap();
    results.put(&key("", b"b"), result(2)).await.unwrap();
    damage(&bench, b"CWRSLT\0\x02", 41);
    assert_eq!(results.get(&key("", b"a")).await.unwrap(), None);
    assert_eq!(results.get(&key("", b"b")).await.unwrap(), Some(result(2)));
    assert_eq!(bench.counters.corrupt.value(), 1);
}

/// As the first layout kept it: a file.
fn write_old(bench: &Bench, key: &FileKey, body: &[u8]) -> PathBuf {
    let path = Layout::new(bench.folder.path()).path(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, body).unwrap();
    path
}

#[tokio::test]
async fn a_folder_of_the_first_layout_is_read_at_once_and_moved_into_segments() {
    let mut bench = Bench::large();
    let large = data(1, 300_000);
    let large_digest = bench.put(&large).await;
    bench.store = None;
    fs::remove_file(bench.folder.path().join("format")).unwrap();
    let (small, bad) = (data(2, 5000), data(3, 5000));
    let (small_digest, bad_digest) = (Digest::of(SHA256, &small), Digest::of(SHA256, &bad));
    let result_key = FileKey::of_result(&key("team", b"a"));
    let body = super::results::encode_older(&result_key, &result(7));
    let paths = [
        write_old(&bench, &FileKey::Blob(small_digest), &small),
        write_old(&bench, &result_key, &body),
        write_old(&bench, &FileKey::Blob(bad_digest), &small),
    ];
    for _ in 0..2 {
        bench.reopen();
        assert!(bench.has(&small_digest).await);
        assert_eq!(bench.get(&small_digest, ByteRange::ALL).await.unwrap(), small);
        assert_eq!(bench.store().results().get(&key("team", b"a")).await.unwrap(), Some(result(7)));
        assert!(bench.get(&bad_digest, ByteRange::ALL).await.is_err());
        assert_eq!(bench.get(&large_digest, ByteRange::ALL).await.unwrap(), large);
        while bench.store().shared.is_older.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert!(paths.iter().all(|path| !path.exists()));
    }
    assert_eq!(bench.counters.corrupt.value(), 1);
}

#[tokio::test]
async fn a_result_of_the_first_layout_never_replaces_a_later_one() {
    let mut bench = Bench::large();
    bench.store = None;
    fs::remove_file(bench.folder.path().join("format")).unwrap();
    let result_key = FileKey::of_result(&key("team", b"a"));
    write_old(&bench, &result_key, &super::results::encode_older(&result_key, &result(1)));
    bench.reopen();
    bench.store().results().put(&key("team", b"a"), result(2)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(bench.store().results().get(&key("team", b"a")).await.unwrap(), Some(result(2)));
        bench.reopen();
    }
}

#[tokio::test]
async fn a_folder_of_a_later_layout_is_refused() {
    let mut bench = Bench::large();
    bench.store = None;
    fs::write(bench.folder.path().join("format"), "4 unknown\n").unwrap();
    let Err(error) = bench.open() else { panic!("nobody knows that layout") };
    assert!(error.to_string().contains("layout 4"), "{error}");
}

#[tokio::test]
async fn many_blobs_at_once_are_kept_and_each_has_its_answer() {
    let bench = Bench::large();
    let (small, large, wrong) = (data(1, 100), data(2, 200_000), data(3, 100));
    let digest = |data: &Bytes| Digest::of(SHA256, data);
    let blobs = vec![
        (digest(&small), small.clone()),
        (digest(&wrong), small.clone()),
        (Digest::empty(SHA256), Bytes::new()),
        (digest(&large), large.clone()),
        (digest(&small), small.clone()),
    ];
    let stored = bench.store().blobs().put_all(blobs).await;
    assert_eq!(stored.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true, true]);
    assert!(matches!(stored[1], Err(StoreError::Mismatch { .. })));
    assert_eq!(bench.get(&digest(&large), ByteRange::ALL).await.unwrap(), large);
    assert_eq!(bench.get(&digest(&small), ByteRange::ALL).await.unwrap(), small);
}

const BLOCK: usize = 4096;

#[tokio::test]
async fn the_least_recently_used_goes_when_there_is_no_more_room() {
    let bench = Bench::new(40 * BLOCK as u64);
    let used = bench.put(&data(0, BLOCK)).await;
    let unused = bench.put(&data(1, BLOCK)).await;
    for seed in 2..100 {
        bench.put(&data(seed, BLOCK)).await;
        assert!(bench.has(&used).await);
    }
    assert!(!bench.has(&unused).await);
    assert!(bench.has(&Digest::of(SHA256, &data(99, BLOCK))).await);
    assert!(bench.counters.evictions.value() >= 60);
    let fullness = bench.store().shared.ledger.fullness();
    assert!(fullness.bytes <= fullness.bound_bytes);
}

#[tokio::test]
async fn what_is_pinned_or_being_read_is_not_evicted() {
    let bench = Bench::new(400 * BLOCK as u64);
    let pinned = [bench.put(&data(0, BLOCK)).await, bench.put(&data(100, 20 * BLOCK)).await];
    let read = data(1, 100 * BLOCK);
    let stream = {
        let digest = bench.put(&read).await;
        bench.store().blobs().get(&digest, ByteRange::ALL).await.unwrap()
    };
    let guard = bench.pins.pin(pinned);
    for seed in 2..30 {
        bench.put(&data(seed, 50 * BLOCK)).await;
        bench.put(&data(seed + 100, 10 * BLOCK)).await;
    }
    // To ask for them would be a use.
    let is_there = |digest: &Digest| {
        let key = FileKey::Blob(*digest);
        bench.store().shared.segments.contains(&key) || bench.path(digest).exists()
    };
    assert!(pinned.iter().all(is_there));
    assert!(bench.path(&Digest::of(SHA256, &read)).exists());
    assert_eq!(collect(stream, u64::MAX).await.unwrap(), read);
    drop(guard);
    for seed in 30..60 {
        bench.put(&data(seed, 50 * BLOCK)).await;
        bench.put(&data(seed + 100, 10 * BLOCK)).await;
    }
    assert!(!pinned.iter().any(is_there));
}

#[tokio::test]
async fn a_full_store_refuses_reads_on_and_recovers() {
    let bench = Bench::new(40 * BLOCK as u64);
    let first = data(0, 30 * BLOCK);
    let digest = bench.put(&first).await;
    let guard = bench.pins.pin([digest]);
    let second = data(1, 30 * BLOCK);
    let refused = bench.store().blobs().put(&Digest::of(SHA256, &second), stream_of(second.clone())).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), first);
    assert_eq!(bench.counters.refused_full.value(), 1);
    drop(guard);
    bench.put(&second).await;
}

#[tokio::test]
async fn without_its_index_the_store_has_everything_and_keeps_its_bound() {
    let mut bench = Bench::new(40 * BLOCK as u64);
    let mut digests = Vec::new();
    for seed in 0..30 {
        digests.push(bench.put(&data(seed, BLOCK)).await);
    }
    bench.crash();
    for digest in &digests {
        assert!(bench.get(digest, ByteRange::ALL).await.is_ok());
    }
    for seed in 30..60 {
        bench.put(&data(seed, BLOCK)).await;
    }
    // Closing it has the keeper finish its account.
    bench.reopen();
    let segments = fs::read_dir(bench.folder.path().join("segments")).unwrap();
    let bytes: u64 = segments.map(|segment| segment.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 40 * BLOCK as u64, "{bytes} bytes");
    assert!(bench.has(&Digest::of(SHA256, &data(59, BLOCK))).await);
}

#[tokio::test]
async fn a_damaged_index_costs_nothing_that_was_stored() {
    let mut bench = Bench::large();
    let digest = bench.put(&data(1, BLOCK)).await;
    bench.store = None;
    for entry in fs::read_dir(bench.folder.path().join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            super::index::place::cut_files_in_half(&path);
        }
    }
    bench.reopen();
    assert!(bench.get(&digest, ByteRange::ALL).await.is_ok());
    bench.reopen();
    assert!(bench.has(&digest).await);
}

#[tokio::test]
async fn an_index_of_a_closed_store_knows_its_bytes_at_once() {
    let mut bench = Bench::large();
    bench.put(&data(1, 3 * BLOCK)).await;
    bench.store().results().put(&key("", b"a"), result(1)).await.unwrap();
    bench.reopen();
    bench.put(&data(2, 100_000)).await;
    bench.reopen();
    let bytes = 25 * BLOCK as u64 + bench.store().shared.segments.bytes();
    assert_eq!(bench.store().shared.ledger.fullness().bytes, bytes);
}

#[tokio::test]
async fn verifying_finds_every_damage_and_drops_nothing_else() {
    let mut bench = Bench::large();
    let blobs: Vec<Bytes> = (0..20).map(|seed| data(seed, 1000 + usize::from(seed) * 9000)).collect();
    for blob in &blobs {
        bench.put(blob).await;
    }
    bench.store().results().put(&key("", b"a"), result(1)).await.unwrap();
    let clean = bench.store().verify().await;
    assert_eq!((clean.count, clean.dropped, clean.unreadable), (21, 0, 0));
    bench.reopen();
    // A body in a segment, a header in a segment, a file.
    damage(&bench, &blobs[2], 17);
    let (segment, begin) = place(&bench, &blobs[3]);
    flip(&segment, begin - 20);
    damage(&bench, &blobs[19], 100);
    assert_eq!(bench.store().verify().await.dropped, 3);
    for (number, blob) in blobs.iter().enumerate() {
        assert_eq!(bench.has(&Digest::of(SHA256, blob)).await, ![2, 3, 19].contains(&number), "{number}");
    }
    assert_eq!(bench.store().verify().await.dropped, 0);
    assert_eq!(bench.counters.verifications.value(), 3);
}
