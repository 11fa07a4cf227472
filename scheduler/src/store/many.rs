//! Storing many blobs at once: small ones with one write and one sync.

use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::{Digest, StoreError};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;

use super::layout::FileKey;
use super::ledger::Reservation;
use super::read::Look;
use super::segments::{Item, Origin};
use super::shared::{Shared, blocking};
use super::upload::Upload;

/// Bytes that one thread hashes; of more, another takes a share.
const HASH_BYTES: usize = 1 << 20;

/// Blobs that are kept as files and are written at the same time.
const FILES_AT_ONCE: usize = 64;

type Stored = Result<(), StoreError>;

/// A small blob: which of all it is, and its bytes.
struct Small {
    index: usize,
    digest: Digest,
    body: Bytes,
    origin: Origin,
}

/// See [`super::DiskBlobs::put_all`].
pub(super) async fn put_all(shared: &Arc<Shared>, blobs: Vec<(Digest, Bytes)>) -> Vec<Stored> {
    let _pin = shared.pins.pin(blobs.iter().map(|(digest, _)| *digest));
    let count = blobs.len();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for (index, (digest, body)) in blobs.into_iter().enumerate() {
        let blob = Small { index, digest, body, origin: Origin::New };
        if FileKey::Blob(digest).is_small() { small.push(blob) } else { large.push(blob) }
    }
    let large = stream::iter(large).map(|blob| async move {
        let mut upload = Upload::begin(Arc::clone(shared), blob.digest);
        let stored = match upload.append(blob.body).await {
            Ok(()) => upload.finish().await,
            Err(error) => Err(error),
        };
        (blob.index, stored)
    });
    let large = large.buffer_unordered(FILES_AT_ONCE).collect::<Vec<_>>();
    let (small, large) = futures::join!(put_small(shared, small), large);
    let mut all: Vec<Stored> = (0..count).map(|_| Ok(())).collect();
    for (index, stored) in small.into_iter().chain(large) {
        all[index] = stored;
    }
    all
}

/// Keeps one small blob.
pub(super) async fn put_one(shared: &Arc<Shared>, digest: Digest, body: Bytes) -> Stored {
    let blob = Small { index: 0, digest, body, origin: Origin::New };
    let failed = put_small(shared, vec![blob]).await;
    failed.into_iter().next().map_or(Ok(()), |(_, stored)| stored)
}

/// Verifies blobs and keeps those that are right; which of them are not kept, and why.
async fn put_small(shared: &Arc<Shared>, blobs: Vec<Small>) -> Vec<(usize, Stored)> {
    let mut shares: Vec<Vec<Small>> = Vec::new();
    let mut bytes = HASH_BYTES;
    for blob in blobs {
        if bytes >= HASH_BYTES {
            shares.push(Vec::new());
            bytes = 0;
        }
        bytes += blob.body.len();
        shares.last_mut().expect("one was just pushed").push(blob);
    }
    let checks = shares.into_iter().map(|share| {
        let shared = Arc::clone(shared);
        blocking(move || check(&shared, share))
    });
    let (mut failed, mut fresh) = (Vec::new(), Vec::new());
    for (wrong, new) in join_all(checks).await {
        failed.extend(wrong);
        fresh.extend(new);
    }
    if !fresh.is_empty() {
        failed.extend(append(shared, fresh).await);
    }
    failed
}

/// Hashes blobs; those that are wrong, and those that are right and not there yet. Blocks.
fn check(shared: &Shared, blobs: Vec<Small>) -> (Vec<(usize, Stored)>, Vec<Small>) {
    let (mut wrong, mut new) = (Vec::new(), Vec::new());
    for mut blob in blobs {
        let got = Digest::of(blob.digest.function(), &blob.body);
        if got != blob.digest {
            wrong.push((blob.index, Err(StoreError::mismatch(&blob.digest, got))));
            continue;
        }
        if blob.digest.is_empty_blob() {
            continue; // It is everywhere.
        }
        match shared.look(&blob.digest) {
            Look::Verified => {
                shared.segments.touch(&FileKey::Blob(blob.digest));
                continue;
            }
            Look::Absent => {}
            Look::Unreadable => blob.origin = Origin::Repair,
        }
        new.push(blob);
    }
    (wrong, new)
}

async fn append(shared: &Shared, blobs: Vec<Small>) -> Vec<(usize, Stored)> {
    let bytes: usize = blobs.iter().map(|blob| blob.body.len()).sum();
    let mut reservation = Reservation::none(&shared.ledger);
    if !shared.ledger.reserve(bytes as u64, &mut reservation).await {
        return blobs.iter().map(|blob| (blob.index, Err(shared.no_room(&blob.digest)))).collect();
    }
    let item =
        |blob: &Small| Item { key: FileKey::Blob(blob.digest), body: blob.body.clone(), origin: blob.origin };
    if let Err(error) = shared.segments.append(blobs.iter().map(item).collect()).await {
        let again = |blob: &Small| {
            let error = std::io::Error::new(error.kind(), error.to_string());
            (blob.index, Err(shared.write_failed(&blob.digest, "keep", error)))
        };
        return blobs.iter().map(again).collect();
    }
    shared.counters.blobs_stored.add(blobs.len() as u64);
    shared.counters.blob_bytes_stored.add(bytes as u64);
    if let Some(offers) = shared.offers.get() {
        for blob in blobs {
            offers.blob(&blob.digest);
        }
    }
    Vec::new()
}
