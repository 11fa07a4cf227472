//! `BatchUpdateBlobs` and `BatchReadBlobs`: an answer for each blob.

use std::io;

use bytes::Bytes;
use castwork_cas::codec::{compress_bytes, decompress};
use castwork_cas::resource::Compressor;
use castwork_cas::store::{collect, stream_of};
use castwork_cas::{BlobStore as _, ByteRange, Digest, DigestFunction, StoreError};
use castwork_proto::reapi::{
    batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response, compressor,
};
use castwork_proto::rpc;
use futures::{StreamExt as _, stream};
use tonic::{Code, Status};

use super::errors::{bad, to_rpc_status};
use super::instance::required_digest;
use super::limits::{ANSWER_BYTES_MAX, BATCH_BYTES_MAX};
use crate::store::DiskBlobs;

/// Blobs of one request that are worked on at the same time.
const AT_ONCE: usize = 256;

/// Blobs of one request that are stored together have at most about so many bytes, unpacked.
const GROUP_BYTES: usize = 8 << 20;

/// A compressed blob that is larger is stored as it is unpacked, by itself.
const UNPACKED_BYTES_MAX: u64 = 256 << 10;

/// What an item of an answer takes up besides its data, at most: digest, status and framing.
const ITEM_BYTES: usize = 128;

/// Blobs below this size are sent as they are.
const COMPRESS_BYTES_MIN: usize = 1024;

type Update = batch_update_blobs_request::Request;
type Updated = batch_update_blobs_response::Response;
type Read = batch_read_blobs_response::Response;

/// Stores blobs, each by itself.
///
/// # Errors
/// `INVALID_ARGUMENT` for all, and nothing stored, if they are more than was advertised or a digest is
/// none.
pub(crate) async fn update(
    blobs: &DiskBlobs,
    requests: Vec<Update>,
    function: DigestFunction,
    blob_bytes_max: u64,
) -> Result<Vec<Updated>, Status> {
    let bytes: usize = requests.iter().map(|request| request.data.len()).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(bad(format!("{bytes} bytes of blobs in a batch; at most {BATCH_BYTES_MAX} are taken")));
    }
    let requests = requests
        .into_iter()
        .map(|request| {
            let digest = required_digest(request.digest.as_ref(), function, "requests.digest")?;
            Ok((digest, request))
        })
        .collect::<Result<Vec<_>, Status>>()?;
    let mut answers = Vec::with_capacity(requests.len());
    let mut group = Group::default();
    for (digest, request) in requests {
        group.take(blobs, digest, request, blob_bytes_max).await;
        if group.bytes >= GROUP_BYTES {
            answers.extend(std::mem::take(&mut group).store(blobs).await);
        }
    }
    answers.extend(group.store(blobs).await);
    Ok(answers)
}

/// Blobs that are stored together, in the order of the request.
#[derive(Default)]
struct Group {
    /// Each with what is known of it already.
    digests: Vec<(Digest, Option<rpc::Status>)>,
    /// Those of which nothing is known yet.
    blobs: Vec<(Digest, Bytes)>,
    bytes: usize,
}

impl Group {
    async fn take(&mut self, blobs: &DiskBlobs, digest: Digest, request: Update, blob_bytes_max: u64) {
        let known = match Compressor::from_proto(request.compressor) {
            _ if digest.size_bytes() > blob_bytes_max => {
                Some(to_rpc_status(StoreError::TooLarge { bytes_max: blob_bytes_max }))
            }
            Err(error) => Some(item_status(Code::InvalidArgument, &error.to_string())),
            Ok(Compressor::Identity) => {
                self.push(digest, request.data);
                None
            }
            Ok(Compressor::Zstd) => {
                let data = decompress(stream_of(request.data), digest.size_bytes());
                if digest.size_bytes() > UNPACKED_BYTES_MAX {
                    Some(blobs.put(&digest, data).await.err().map_or_else(ok, to_rpc_status))
                } else {
                    match collect(data, digest.size_bytes()).await {
                        Ok(data) => {
                            self.push(digest, data);
                            None
                        }
                        Err(error) => Some(to_rpc_status(error)),
                    }
                }
            }
        };
        self.digests.push((digest, known));
    }

    fn push(&mut self, digest: Digest, data: Bytes) {
        self.bytes += data.len();
        self.blobs.push((digest, data));
    }

    async fn store(self, blobs: &DiskBlobs) -> Vec<Updated> {
        let mut stored = blobs.put_all(self.blobs).await.into_iter();
        let answer = |(digest, known): (Digest, Option<rpc::Status>)| {
            let status = known.unwrap_or_else(|| {
                let stored = stored.next().expect("an answer for each blob");
                stored.err().map_or_else(ok, to_rpc_status)
            });
            Updated { digest: Some(digest.to_proto()), status: Some(status) }
        };
        self.digests.into_iter().map(answer).collect()
    }
}

/// Reads blobs, each by itself; what does not fit into the answer is left out with a status that says so.
///
/// # Errors
/// `INVALID_ARGUMENT` if not even the statuses fit.
pub(crate) async fn read(
    blobs: &DiskBlobs,
    digests: &[Digest],
    acceptable: &[i32],
) -> Result<Vec<Read>, Status> {
    let overhead = digests.len().saturating_mul(ITEM_BYTES);
    let Some(room) = ANSWER_BYTES_MAX.checked_sub(overhead) else {
        let count = digests.len();
        return Err(bad(format!("{count} blobs in a batch; their answer would be too large")));
    };
    let is_zstd = acceptable.contains(&(compressor::Value::Zstd as i32));
    let mut room = room.min(BATCH_BYTES_MAX) as u64;
    let plan: Vec<(Digest, bool)> = digests
        .iter()
        .map(|digest| {
            let left = room.checked_sub(digest.size_bytes());
            room = left.unwrap_or(room);
            (*digest, left.is_some())
        })
        .collect();
    let answers = stream::iter(plan)
        .map(|(digest, fits)| async move {
            let data = if fits { read_one(blobs, &digest, is_zstd).await } else { Err(does_not_fit()) };
            answer(&digest, data)
        })
        .buffered(AT_ONCE);
    Ok(answers.collect().await)
}

fn answer(digest: &Digest, data: Result<(Bytes, Compressor), rpc::Status>) -> Read {
    let digest = Some(digest.to_proto());
    match data {
        Ok((data, compressor)) => {
            Read { digest, data, compressor: compressor.to_proto() as i32, status: Some(ok()) }
        }
        Err(status) => Read { digest, status: Some(status), ..Read::default() },
    }
}

async fn read_one(
    blobs: &DiskBlobs,
    digest: &Digest,
    is_zstd: bool,
) -> Result<(Bytes, Compressor), rpc::Status> {
    let read = async {
        let stream = blobs.get(digest, ByteRange::ALL).await?;
        collect(stream, digest.size_bytes()).await
    };
    let data = match read.await {
        Ok(data) => data,
        Err(StoreError::Missing(_)) => return Err(item_status(Code::NotFound, "not found")),
        Err(error) => return Err(to_rpc_status(error)),
    };
    if !is_zstd || data.len() < COMPRESS_BYTES_MIN {
        return Ok((data, Compressor::Identity));
    }
    let plain = data.clone();
    let packed = tokio::task::spawn_blocking(move || compress_bytes(&plain))
        .await
        .map_err(io::Error::other)
        .map_err(StoreError::Encoding)
        .flatten()
        .map_err(to_rpc_status)?;
    let is_smaller = packed.len() < data.len();
    Ok(if is_smaller { (packed, Compressor::Zstd) } else { (data, Compressor::Identity) })
}

fn does_not_fit() -> rpc::Status {
    item_status(Code::ResourceExhausted, "does not fit, ask again")
}

/// A short status, so that many of them fit.
fn item_status(code: Code, message: &str) -> rpc::Status {
    rpc::Status { code: code as i32, message: message.to_owned(), details: Vec::new() }
}

/// Set even when all is well, because some clients take no status for a failure.
fn ok() -> rpc::Status {
    rpc::Status::default()
}
