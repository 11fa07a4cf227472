//! What every object store must do.

use bytes::Bytes;
use castwork_cas::store::{ByteRange, collect, stream_of};
use castwork_cas::{ActionKey, BlobStore as _, Digest, DigestFunction, Objects, StoreError};
use castwork_proto::reapi::ActionResult;

/// Larger than what is sent by one request, so that it goes in parts where there are any.
const LARGE_BYTES: usize = 20 << 20;

/// Bytes that don't compress.
pub(crate) fn blob(seed: u64, size: usize) -> (Digest, Bytes) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(size.div_ceil(8))
    .flatten()
    .take(size)
    .collect();
    (Digest::of(DigestFunction::Sha256, &data), data.into())
}

/// Tries all of it on an empty store. `spoil` changes what an object holds behind the store's back.
pub(crate) async fn kept(objects: &Objects, spoil: impl Fn(&str, &[u8])) {
    blobs_come_back(objects).await;
    wrong_bytes_are_not_kept(objects).await;
    wrong_objects_are_refused_and_removed(objects, spoil).await;
    results_come_back(objects).await;
}

async fn blobs_come_back(objects: &Objects) {
    for (seed, size) in [(1, 1), (2, 1000), (3, 300_000), (4, LARGE_BYTES)] {
        let (digest, data) = blob(seed, size);
        assert_eq!(objects.find_missing(&[digest, digest]).await.unwrap(), [digest]);
        assert!(
            matches!(objects.get(&digest, ByteRange::ALL).await, Err(StoreError::Missing(missing)) if missing == digest)
        );
        // Twice: what is there may be put again.
        for _ in 0..2 {
            objects.put(&digest, stream_of(data.clone())).await.unwrap();
        }
        assert_eq!(objects.find_missing(&[digest]).await.unwrap(), []);
        let end = size as u64;
        for (offset, limit) in
            [(0, None), (0, Some(end / 2)), (end / 3, None), (end / 3, Some(end / 3)), (end, None)]
        {
            let got =
                collect(objects.get(&digest, ByteRange { offset, limit }).await.unwrap(), end).await.unwrap();
            let from = usize::try_from(offset).unwrap();
            let to = limit.map_or(size, |limit| from + usize::try_from(limit).unwrap());
            assert!(got == data[from..to], "{size} bytes from {offset}, at most {limit:?}");
        }
        let beyond = ByteRange { offset: end + 1, limit: None };
        assert!(matches!(objects.get(&digest, beyond).await, Err(StoreError::Range { .. })));
    }
    let empty = Digest::empty(DigestFunction::Sha256);
    assert_eq!(objects.find_missing(&[empty]).await.unwrap(), []);
    assert_eq!(collect(objects.get(&empty, ByteRange::ALL).await.unwrap(), 0).await.unwrap(), "");
}

async fn wrong_bytes_are_not_kept(objects: &Objects) {
    for size in [1000, LARGE_BYTES] {
        let (digest, _) = blob(5, size);
        let (_, other) = blob(6, size);
        let error = objects.put(&digest, stream_of(other)).await.unwrap_err();
        assert!(matches!(error, StoreError::Mismatch { .. }), "{error:?}");
        assert_eq!(objects.find_missing(&[digest]).await.unwrap(), [digest]);
    }
}

async fn wrong_objects_are_refused_and_removed(objects: &Objects, spoil: impl Fn(&str, &[u8])) {
    let (_, other) = blob(7, 2000);
    let other = zstd::encode_all(&other[..], 1).unwrap();
    for (seed, size, spoiled) in
        [(8, 1000, &b"no zstd at all"[..]), (9, 2000, &other), (10, 1500, &other), (11, 900_000, &other)]
    {
        let (digest, data) = blob(seed, size);
        objects.put(&digest, stream_of(data.clone())).await.unwrap();
        let hash = digest.hash_hex();
        spoil(&format!("cas/sha256/{}/{hash}-{size}.zst", &hash[..2]), spoiled);
        let got = match objects.get(&digest, ByteRange::ALL).await {
            Ok(stream) => collect(stream, u64::MAX).await,
            Err(error) => Err(error),
        };
        assert!(got.is_err(), "{size} bytes were spoiled");
        assert_eq!(objects.find_missing(&[digest]).await.unwrap(), [digest], "it can be put again");
        objects.put(&digest, stream_of(data.clone())).await.unwrap();
        assert!(
            collect(objects.get(&digest, ByteRange::ALL).await.unwrap(), u64::MAX).await.unwrap() == data
        );
    }
}

async fn results_come_back(objects: &Objects) {
    let key = |instance: &str| ActionKey {
        instance: instance.into(),
        action: Digest::of(DigestFunction::Sha256, b"an action"),
    };
    assert_eq!(objects_get(objects, &key("")).await, None);
    for exit_code in [1, 2] {
        let result = ActionResult { exit_code, stdout_raw: Bytes::from_static(b"out"), ..Default::default() };
        castwork_cas::ActionCache::put(objects, &key(""), result.clone()).await.unwrap();
        assert_eq!(objects_get(objects, &key("")).await, Some(result));
    }
    assert_eq!(objects_get(objects, &key("another/../one")).await, None);
}

async fn objects_get(objects: &Objects, key: &ActionKey) -> Option<ActionResult> {
    castwork_cas::ActionCache::get(objects, key).await.unwrap()
}
