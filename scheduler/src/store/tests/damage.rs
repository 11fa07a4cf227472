//! What the disk does not give any more, and what somebody has written into the store's files.

use castwork_cas::files::Stamp;

use super::*;
use crate::store::read::Look;

#[tokio::test]
async fn what_is_written_into_a_file_of_the_store_is_found_though_its_time_is_put_back() {
    let bench = Bench::large();
    let data = data(1, 300_000);
    let digest = bench.put(&data).await;
    assert_eq!(bench.get(&digest, ByteRange::default()).await.unwrap(), data);
    let path = bench.path(&digest);
    let modified = path.metadata().unwrap().modified().unwrap();
    let before = Stamp::of(&path.metadata().unwrap());
    flip(&path, 1000);
    let file = fs::File::options().write(true).open(&path).unwrap();
    // The system's clock for files ticks some hundred times a second.
    file.set_modified(modified).unwrap();
    while Stamp::of(&file.metadata().unwrap()) == before {
        file.set_modified(modified).unwrap();
    }
    assert_eq!(file.metadata().unwrap().modified().unwrap(), modified);
    assert!(matches!(bench.get(&digest, ByteRange::default()).await, Err(StoreError::Missing(_))));
    assert_eq!(bench.counters.corrupt.value(), 1);
}

#[tokio::test]
async fn what_the_disk_does_not_give_any_more_is_healed_by_an_upload_for_good() {
    let mut bench = Bench::large();
    let data = data(1, 5000);
    let digest = bench.put(&data).await;
    bench.store().shared.segments.seal();
    let (segment, at) = place(&bench, &data);
    let aside = bench.folder.path().join("aside");
    // Nobody has it open yet, and of a folder nobody can read anything.
    fs::rename(&segment, &aside).unwrap();
    fs::create_dir(&segment).unwrap();
    let unreadable = bench.get(&digest, ByteRange::default()).await;
    assert!(matches!(unreadable, Err(StoreError::Disk { .. })), "{unreadable:?}");
    assert_eq!(bench.store().shared.look(&digest), Look::Unreadable);
    for _ in 0..2 {
        bench.put(&data).await;
        assert_eq!(bench.get(&digest, ByteRange::default()).await.unwrap(), data);
    }
    // Whatever comes back of the first, it counts no more.
    fs::remove_dir(&segment).unwrap();
    fs::rename(&aside, &segment).unwrap();
    flip(&segment, at);
    bench.crash();
    assert_eq!(bench.get(&digest, ByteRange::default()).await.unwrap(), data);
    assert_eq!(bench.counters.corrupt.value(), 0);
}

#[tokio::test]
async fn nothing_is_acknowledged_onto_what_cannot_be_read() {
    let bench = Bench::large();
    let data = data(1, 100_000);
    let digest = Digest::of(SHA256, &data);
    let path = bench.path(&digest);
    fs::create_dir_all(path.join("in the way of what is to have the name of this folder, as a file"))
        .unwrap();
    assert_eq!(bench.store().shared.look(&digest), Look::Unreadable);
    let refused = bench.store().blobs().put(&digest, stream_of(data.clone())).await;
    assert!(matches!(refused, Err(StoreError::Disk { .. })), "{refused:?}");
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(bench.store().shared.look(&digest), Look::Absent);
    bench.put(&data).await;
    assert_eq!(bench.store().shared.look(&digest), Look::Verified);
}
