//! Uploading: what the CAS lacks goes there; when this returns, it has acknowledged everything.

use std::collections::BTreeSet;

use bytes::Bytes;
use castwork_cas::remote::Remote;
use castwork_cas::{BlobStore, ByteRange, Digest, StoreError};
use futures::{TryStreamExt, stream};

use crate::blocking::blocking;
use crate::failure::Failure;
use crate::groups::{in_groups, is_small};
use crate::local::Local;

/// Transfers at once of one action.
const TRANSFERS_MAX: usize = 4;

/// Uploads blobs of the local CAS, those that the server lacks; returns how many these are, and their bytes.
pub(crate) async fn upload(
    remote: &Remote,
    local: &Local,
    blobs: &BTreeSet<Digest>,
) -> Result<(u64, u64), Failure> {
    let all: Vec<Digest> = blobs.iter().copied().filter(|digest| !digest.is_empty_blob()).collect();
    if all.is_empty() {
        return Ok((0, 0));
    }
    // Not through `Failure::store`: a blob that is missing here is no input of the client's.
    let upload = async {
        let missing = remote.find_missing(&all).await?;
        let sent = (missing.len() as u64, missing.iter().map(Digest::size_bytes).sum());
        let (small, large): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_small);
        let groups = in_groups(small, |digest| *digest);
        let transfers = groups.into_iter().chain(large.into_iter().map(|digest| vec![digest]));
        stream::iter(transfers.map(Ok))
            .try_for_each_concurrent(TRANSFERS_MAX, |group| transfer(remote, local, group))
            .await?;
        Ok(sent)
    };
    upload.await.map_err(|source| Failure::Store { step: "upload outputs", source })
}

async fn transfer(remote: &Remote, local: &Local, group: Vec<Digest>) -> Result<(), StoreError> {
    if let [digest] = group[..]
        && !is_small(&digest)
    {
        return remote.put(&digest, local.blobs().get(&digest, ByteRange::ALL).await?).await;
    }
    let local = local.clone();
    let read = move || -> Result<Vec<(Digest, Bytes)>, StoreError> {
        let read = |digest: Digest| match local.blobs().get_bytes(&digest)? {
            Some(bytes) => Ok((digest, bytes)),
            None => Err(StoreError::Missing(digest)),
        };
        group.into_iter().map(read).collect()
    };
    remote.put_many(blocking(read).await?).await
}
