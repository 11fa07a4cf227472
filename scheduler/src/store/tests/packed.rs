//! Blobs that clients send compressed.

use super::*;
use castwork_cas::codec::{compress_bytes, decompress};
use futures::TryStreamExt as _;

/// Bytes that become a quarter when they are compressed.
fn text(seed: u8, length: usize) -> Bytes {
    let some = data(seed, length / 4);
    some.iter().flat_map(|byte| [*byte, 0, 0, 0]).collect::<Vec<u8>>().into()
}

/// The same bytes as zstd, and each piece of a stream of them with the zstd that it took.
async fn pieces(plain: &Bytes) -> (Bytes, Vec<(Bytes, Vec<Bytes>)>) {
    let packed = compress_bytes(plain).unwrap();
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let pulled = Arc::clone(&sent);
    let parts: Vec<_> = packed.chunks(50_000).map(|part| Ok(packed.slice_ref(part))).collect();
    let stream = futures::stream::iter(parts)
        .inspect_ok(move |part: &Bytes| pulled.lock().unwrap().push(part.clone()));
    let mut stream = decompress(Box::pin(stream), plain.len() as u64);
    let mut pieces = Vec::new();
    while let Some(piece) = stream.try_next().await.unwrap() {
        pieces.push((piece, std::mem::take(&mut *sent.lock().unwrap())));
    }
    pieces.push((Bytes::new(), std::mem::take(&mut *sent.lock().unwrap())));
    (packed, pieces)
}

/// Uploads as a client that compresses; returns what it sent.
async fn put_packed(bench: &Bench, plain: &Bytes) -> (Digest, Bytes) {
    let digest = Digest::of(SHA256, plain);
    let (packed, pieces) = pieces(plain).await;
    let mut upload = bench.store().blobs().upload(&digest);
    upload.keep_packed();
    for (piece, sent) in pieces {
        upload.append_packed(piece, Some(sent)).await.unwrap();
    }
    upload.finish().await.unwrap();
    (digest, packed)
}

async fn get_packed(bench: &Bench, digest: &Digest) -> Option<Bytes> {
    let stream = bench.store().blobs().get_packed(digest).await.unwrap()?;
    Some(collect(stream, u64::MAX).await.unwrap())
}

fn file_bytes(bench: &Bench, digest: &Digest) -> u64 {
    bench.path(digest).metadata().unwrap().len()
}

#[tokio::test]
async fn what_came_compressed_is_kept_so_and_read_either_way_also_after_a_restart() {
    let mut bench = Bench::large();
    for (seed, length) in [(1, 100_000), (2, 300_000), (3, 3_000_000)] {
        let plain = text(seed, length);
        let (digest, packed) = put_packed(&bench, &plain).await;
        assert!(file_bytes(&bench, &digest) < length as u64 / 2);
        for _ in 0..2 {
            assert_eq!(get_packed(&bench, &digest).await.unwrap(), packed);
            assert_eq!(bench.get(&digest, PART).await.unwrap(), plain.slice(5..15));
            let end = ByteRange { offset: length as u64 - 7, limit: None };
            assert_eq!(bench.get(&digest, end).await.unwrap(), plain.slice(length - 7..));
            bench.reopen();
            assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), plain);
            assert!(bench.has(&digest).await);
            bench.reopen();
        }
    }
    let verified = bench.store().verify().await;
    assert_eq!((verified.count, verified.dropped), (3, 0));
}

#[tokio::test]
async fn what_takes_up_less_counts_less_however_often_it_is_used() {
    let mut bench = Bench::large();
    let (digest, _) = put_packed(&bench, &text(1, 4_000_000)).await;
    let file_bytes = file_bytes(&bench, &digest);
    for _ in 0..3 {
        assert!(bench.has(&digest).await);
        let bytes = bench.store().shared.ledger.fullness().bytes;
        assert!((file_bytes..file_bytes + 100_000).contains(&bytes), "{bytes} for a file of {file_bytes}");
        bench.reopen();
    }
}

#[tokio::test]
async fn what_does_not_become_smaller_is_kept_plain() {
    let bench = Bench::large();
    // It pays at first, and not in the end.
    let late = [&text(2, 600_000)[..], &data(2, 9_000_000)].concat().into();
    for plain in [data(1, 1_000_000), late] {
        let (digest, _) = put_packed(&bench, &plain).await;
        assert_eq!(file_bytes(&bench, &digest), plain.len() as u64);
        assert_eq!(get_packed(&bench, &digest).await, None);
        assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), plain);
    }
    assert_eq!(fs::read_dir(bench.folder.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_upload_that_was_put_away_goes_on_where_it_was() {
    let bench = Bench::large();
    let plain = text(1, 2_000_000);
    let digest = Digest::of(SHA256, &plain);
    let (_, pieces) = pieces(&plain).await;
    let count = pieces.len();
    for stop in [0, 1, count / 2, count - 1] {
        let mut upload = bench.store().blobs().upload(&digest);
        upload.keep_packed();
        for (piece, sent) in &pieces[..stop] {
            upload.append_packed(piece.clone(), Some(sent.clone())).await.unwrap();
        }
        upload.put_away().await.unwrap();
        let from = usize::try_from(upload.received_bytes()).unwrap();
        upload.append(plain.slice(from..)).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(file_bytes(&bench, &digest), plain.len() as u64);
        assert_eq!(bench.get(&digest, ByteRange::ALL).await.unwrap(), plain);
        fs::remove_file(bench.path(&digest)).unwrap();
    }
}

#[tokio::test]
async fn what_is_damaged_or_cut_short_is_never_answered_and_healed_by_the_next_upload() {
    let mut bench = Bench::large();
    for length in [200_000, 2_000_000] {
        let plain = text(1, length);
        for damage in 0..4 {
            let (digest, _) = put_packed(&bench, &plain).await;
            let path = bench.path(&digest);
            let bytes = fs::read(&path).unwrap();
            match damage {
                0 => flip(&path, bytes.len() / 2),
                1 => flip(&path, bytes.len() - 4),
                2 => fs::write(&path, &bytes[..bytes.len() - 1]).unwrap(),
                // Frames of other bytes, with a trailer that is right.
                _ => {
                    let other = put_packed(&bench, &text(2, length)).await.0;
                    fs::copy(bench.path(&other), &path).unwrap();
                }
            }
            bench.reopen();
            if damage % 2 == 0 {
                assert_eq!(get_packed(&bench, &digest).await, None, "{damage}");
            }
            let got = bench.get(&digest, ByteRange::ALL).await;
            assert!(matches!(got, Err(StoreError::Missing(_))), "{damage}: {got:?}");
            assert!(!path.exists() && !bench.has(&digest).await, "{damage}");
        }
    }
}
