//! What segments promise, on a real disk.

use std::fs;
use std::path::{Path, PathBuf};

use castwork_cas::{ActionKey, DigestFunction};
use castwork_proto::reapi::ActionResult;
use tempfile::TempDir;

use super::*;
use crate::store::provenance::Provenance;
use crate::store::results;

/// Segments in a folder of their own, which may be closed and opened again.
struct Bench {
    folder: TempDir,
    segments: Option<Segments>,
    counters: Arc<Counters>,
    bytes_max: u64,
}

impl Bench {
    /// With segments of 16 KiB.
    async fn small() -> Self {
        Self::new(SEGMENT_BYTES_MIN * SEGMENT_PART).await
    }

    async fn new(bytes_max: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Self { folder, segments: None, counters: Arc::default(), bytes_max };
        bench.open().await;
        bench
    }

    /// Opens them as a server would find them that follows a killed one.
    async fn open(&mut self) {
        self.segments = None;
        let counters = Arc::clone(&self.counters);
        let segments = Segments::open(self.folder.path(), self.bytes_max, true, Arc::default(), counters);
        let segments = self.segments.insert(segments.unwrap());
        assert!(segments.loaded().await);
    }

    async fn close(&mut self) {
        let segments = self.segments.take().unwrap();
        tokio::task::spawn_blocking(move || segments.close()).await.unwrap();
    }

    async fn reopen(&mut self) {
        self.close().await;
        self.open().await;
    }

    fn segments(&self) -> &Segments {
        self.segments.as_ref().unwrap()
    }

    async fn put(&self, seed: usize, length: usize) -> FileKey {
        let (key, body) = blob(seed, length);
        let kept = self.segments().append(vec![Item { key, body, origin: Origin::New }]).await.unwrap();
        assert_eq!(kept, [Kept::This]);
        key
    }

    async fn put_result(&self, exit_code: i32) -> FileKey {
        let key = result_key();
        let result = ActionResult { exit_code, ..ActionResult::default() };
        let body =
            results::encode(&key, &results::Entry { provenance: Provenance::default(), result }).into();
        self.segments().append(vec![Item { key, body, origin: Origin::New }]).await.unwrap();
        key
    }

    fn exit_code(&self) -> Option<i32> {
        let body = self.segments().read(&result_key()).unwrap()?;
        Some(results::decode(&result_key(), &body).unwrap().result.exit_code)
    }

    fn has(&self, key: &FileKey) -> bool {
        self.segments().read(key).unwrap().is_some()
    }

    /// The files of the segments, in order.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        files
    }

    fn compact(&self, number: u32) {
        tokio::task::block_in_place(|| self.segments().compact(number).unwrap());
    }
}

fn blob(seed: usize, length: usize) -> (FileKey, Bytes) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (FileKey::Blob(Digest::of(DigestFunction::Sha256, &bytes)), bytes.into())
}

fn result_key() -> FileKey {
    let action = Digest::of(DigestFunction::Sha256, b"action");
    FileKey::of_result(&ActionKey { instance: "team".into(), action })
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn records_come_back_after_an_orderly_end_and_after_none() {
    let mut bench = Bench::small().await;
    let mut keys = Vec::new();
    for seed in 0..100 {
        keys.push(bench.put(seed, 1 + seed * 37).await);
    }
    assert!(bench.files().len() > 5);
    for round in 0..4 {
        for (seed, key) in keys.iter().enumerate() {
            let body = bench.segments().read(key).unwrap().unwrap();
            assert_eq!(body, blob(seed, 1 + seed * 37).1);
        }
        let on_disk = |path: &PathBuf| fs::metadata(path).unwrap().len().max(1).next_multiple_of(4096);
        let bytes: u64 = bench.files().iter().map(on_disk).sum();
        assert_eq!(bench.segments().bytes(), bytes);
        if round % 2 == 0 { bench.reopen().await } else { bench.open().await }
    }
    assert_eq!(bench.counters.corrupt.value(), 0);
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_written_again_not_even_in_one_batch() {
    let bench = Bench::small().await;
    let (key, body) = blob(1, 500);
    let item = || Item { key, body: body.clone(), origin: Origin::New };
    let kept = bench.segments().append(vec![item(), item()]).await.unwrap();
    assert_eq!(kept, [Kept::This, Kept::Earlier]);
    assert_eq!(bench.segments().append(vec![item()]).await.unwrap(), [Kept::Earlier]);
    assert!(fs::metadata(&bench.files()[0]).unwrap().len() < 1000);
}

#[tokio::test]
async fn what_is_torn_at_the_end_costs_only_itself() {
    let mut bench = Bench::new(1 << 30).await;
    let keys = [bench.put(1, 3000).await, bench.put(2, 3000).await, bench.put(3, 3000).await];
    let file = bench.files().remove(0);
    for (cut, left) in [(10, 2), (4000, 1)] {
        bench.segments = None;
        let length = fs::metadata(&file).unwrap().len();
        fs::File::options().write(true).open(&file).unwrap().set_len(length - cut).unwrap();
        bench.open().await;
        let there: Vec<bool> = keys.iter().map(|key| bench.has(key)).collect();
        assert_eq!(there.iter().filter(|there| **there).count(), left, "{there:?}");
    }
    // What follows is kept all the same.
    let key = bench.put(4, 3000).await;
    bench.open().await;
    assert!(bench.has(&key) && bench.has(&keys[0]));
}

#[tokio::test]
async fn any_damaged_byte_of_a_segment_costs_at_most_one_record_and_never_shows() {
    for is_closed in [false, true] {
        let mut bench = Bench::new(1 << 30).await;
        let mut keys = Vec::new();
        for seed in 0..6 {
            keys.push(bench.put(seed, 40 + seed * 9).await);
        }
        if is_closed {
            bench.reopen().await;
        }
        bench.segments = None;
        let file = bench.files().remove(0);
        let good = fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(7) {
            damage(&file, at);
            bench.open().await;
            let mut there = 0;
            for (seed, key) in keys.iter().enumerate() {
                if let Some(body) = bench.segments().read(key).unwrap() {
                    assert_eq!(body, blob(seed, 40 + seed * 9).1);
                    there += 1;
                }
            }
            assert!(there >= keys.len() - 1, "byte {at}: {there} left");
            bench.segments = None;
            for entry in fs::read_dir(bench.folder.path()).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            fs::write(&file, &good).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_record_is_dropped_for_good_and_counted() {
    let mut bench = Bench::small().await;
    let (one, other) = (bench.put(1, 2000).await, bench.put(2, 2000).await);
    let file = bench.files().remove(0);
    damage(&file, 1000);
    assert!(!bench.has(&one) && !bench.segments().contains(&one) && bench.has(&other));
    assert_eq!(bench.counters.corrupt.value(), 1);
    damage(&file, 1000);
    for _ in 0..2 {
        bench.reopen().await;
        assert!(!bench.segments().contains(&one) && bench.has(&other));
    }
    assert_eq!(bench.counters.corrupt.value(), 1);
    assert_eq!(bench.put(1, 2000).await, one);
    assert!(bench.has(&one));
}

#[tokio::test]
async fn of_two_results_the_later_counts_whatever_happens() {
    let mut bench = Bench::small().await;
    for number in 1..=40_u8 {
        bench.put_result(number.into()).await;
        bench.put(number.into(), 1500).await;
    }
    for _ in 0..3 {
        assert_eq!(bench.exit_code(), Some(40));
        bench.open().await;
    }
    bench.reopen().await;
    assert_eq!(bench.exit_code(), Some(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_evicted_does_not_uncover_an_older_one() {
    let mut bench = Bench::small().await;
    bench.put_result(1).await;
    bench.put(1, 20_000).await;
    bench.put_result(2).await;
    bench.put(2, 20_000).await;
    let (used_ms, place) = bench
        .segments()
        .oldest(10)
        .into_iter()
        .find(|(_, place)| bench.segments().name(*place).unwrap() == Some(result_key()))
        .unwrap();
    assert!(bench.segments().evict(&result_key(), place, used_ms).is_some());
    bench.compact(place.segment);
    for _ in 0..2 {
        bench.open().await;
        assert_eq!(bench.exit_code(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_what_counts_and_frees_the_rest() {
    let mut bench = Bench::small().await;
    let mut keys = Vec::new();
    for seed in 0..60 {
        keys.push(bench.put(seed, 1000).await);
    }
    let result = bench.put_result(7).await;
    tokio::task::block_in_place(|| bench.segments().seal());
    let before = bench.segments().bytes();
    for (number, (used_ms, place)) in bench.segments().oldest(100).into_iter().enumerate() {
        let key = bench.segments().name(place).unwrap().unwrap();
        if number % 2 == 0 && key != result {
            assert!(bench.segments().evict(&key, place, used_ms).is_some());
            keys.retain(|kept| *kept != key);
        }
    }
    while let Some(victim) = bench.segments().victim(false) {
        bench.compact(victim);
    }
    assert!(bench.segments().bytes() < before * 3 / 4, "{} of {before}", bench.segments().bytes());
    for _ in 0..3 {
        assert!(keys.iter().all(|key| bench.has(key)));
        assert_eq!(bench.exit_code(), Some(7));
        // What was evicted and is not free yet may come back.
        assert!(bench.segments().records() > keys.len());
        bench.open().await;
    }
    assert_eq!(bench.counters.corrupt.value(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_drops_what_is_damaged() {
    let bench = Bench::small().await;
    let keys = [
        bench.put(1, 5000).await,
        bench.put(2, 5000).await,
        bench.put(3, 5000).await,
        bench.put(4, 5000).await,
    ];
    let file = bench.files().remove(0);
    // The body of one, and the header of another.
    damage(&file, 2000);
    damage(&file, 2 * 5080 + 10);
    bench.compact(1);
    assert_eq!(keys.map(|key| bench.segments().contains(&key)), [false, true, false, true]);
    assert_eq!(bench.counters.corrupt.value(), 2);
}

/// Has the disk not give a file any more: nobody can read the bytes of a folder. Returns how to put it back.
fn make_unreadable(path: &Path) -> impl FnOnce() + use<> {
    let (path, aside) = (path.to_owned(), path.with_extension("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    move || {
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_read_at_the_start_stays_and_is_found_when_it_can() {
    let mut bench = Bench::small().await;
    let mut keys = vec![bench.put_result(7).await];
    for seed in 0..12 {
        keys.push(bench.put(seed, 4000).await);
    }
    bench.close().await;
    let put_back = make_unreadable(&bench.files()[0]);
    bench.open().await;
    assert_eq!((bench.segments().unreadable(), bench.exit_code()), (1, None));
    let found = keys.iter().filter(|key| bench.has(key)).count();
    assert!(found < keys.len() && found > 4, "{found} are found");
    // However much room is needed, nobody takes what is in it for dead.
    while let Some(victim) = bench.segments().victim(true) {
        assert_ne!(victim, 1);
        bench.compact(victim);
    }
    assert!(bench.segments().verify(1, |_| true).is_err());
    let revoked = tokio::task::block_in_place(|| bench.segments().revoke(|_, _, _| true));
    assert!(revoked.is_err(), "what it has may come back");
    put_back();
    for _ in 0..1000 {
        if bench.segments().unreadable() == 0 {
            break;
        }
        bench.segments().wake_loader();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.exit_code(), Some(7));
    assert!(keys.iter().all(|key| bench.has(key)));
    assert_eq!(bench.counters.corrupt.value(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_read_does_not_hold_up_the_others() {
    let mut bench = Bench::small().await;
    let mut keys = Vec::new();
    for seed in 0..12 {
        keys.push(bench.put(seed, 4100).await);
    }
    // Of the first four one counts, of the next four two.
    for (number, (used_ms, place)) in bench.segments().oldest(12).into_iter().enumerate() {
        let key = keys
            .iter()
            .find(|key| bench.segments().table.get(key).is_some_and(|entry| entry.place == place))
            .unwrap();
        if matches!(number, 0..=2 | 4..=5) {
            assert!(bench.segments().evict(key, place, used_ms).is_some());
        }
    }
    keys.retain(|key| bench.segments().contains(key));
    assert_eq!(bench.segments().victim(true), Some(1));
    let put_back = make_unreadable(&bench.files()[0]);
    bench.compact(1);
    assert_eq!(bench.segments().victim(true), Some(2));
    bench.compact(2);
    assert_eq!(bench.segments().victim(true), None);
    put_back();
    bench.reopen().await;
    assert!(keys.iter().all(|key| bench.has(key)));
    assert_eq!(bench.counters.corrupt.value(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_segment_that_was_cut_short_under_the_server_the_rest_is_kept_elsewhere() {
    let bench = Bench::small().await;
    let mut keys = Vec::new();
    for seed in 0..4 {
        keys.push(bench.put(seed, 5000).await);
    }
    let file = fs::File::options().write(true).open(&bench.files()[0]).unwrap();
    file.set_len(16_000).unwrap();
    bench.compact(1);
    let found: Vec<bool> = keys.iter().map(|key| bench.has(key)).collect();
    assert_eq!(found, [true, true, true, false]);
    assert_eq!(bench.counters.corrupt.value(), 1);
}

#[tokio::test]
async fn a_segment_that_somebody_removed_is_missing_and_nothing_else() {
    let bench = Bench::small().await;
    let (gone, left) = (bench.put(1, 17_000).await, bench.put(2, 100).await);
    fs::remove_file(&bench.files()[0]).unwrap();
    assert!(!bench.has(&gone) && !bench.segments().contains(&gone) && bench.has(&left));
}

#[tokio::test]
async fn the_last_uses_are_restored() {
    let bench = Bench::small().await;
    let (first, second) = (bench.put(1, 100).await, bench.put(2, 100).await);
    let mut uses = Vec::new();
    bench.segments().each_use(|place, used_ms| uses.push((place, used_ms)));
    uses.sort_unstable();
    uses[0].1 += 1_000_000;
    bench.segments().restore_uses(&uses);
    let oldest = bench.segments().oldest(1)[0].1;
    assert_eq!(bench.segments().name(oldest).unwrap(), Some(second));
    assert!(bench.segments().touch(&first));
}
