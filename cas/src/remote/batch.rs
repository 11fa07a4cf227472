//! Many small blobs in few calls.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use castwork_proto::reapi;
use castwork_proto::rpc;
use futures::{StreamExt as _, TryStreamExt as _};
use reapi::batch_read_blobs_response::Response as ReadResponse;
use reapi::batch_update_blobs_request::Request as UpdateRequest;
use reapi::batch_update_blobs_response::Response as UpdateResponse;
use tonic::{Code, Status};

use super::{Capabilities, Remote};
use crate::codec::{compress_bytes, decompress};
use crate::resource::Compressor;
use crate::store::{ByteRange, collect, stream_of};
use crate::{Digest, StoreError};

/// What a blob in a message costs beside its bytes: digest, status and tags. Counted in, because some
/// servers hold their limit against the message.
const OVERHEAD_BYTES: u64 = 160;

/// Most digests in one question after missing ones; about 1 MiB.
const QUESTIONS_MAX: usize = 10_000;

/// How many calls are under way at once, of one caller.
const CALLS_AT_ONCE: usize = 4;

/// Blobs below this size are not worth compressing, in bytes.
pub(super) const ZSTD_BYTES_MIN: u64 = 4096;

const KEEP: &str = "keep blobs";
const READ: &str = "read blobs";

impl Remote {
    /// Keeps many blobs: small ones in batches no larger than the server wants, each larger one as a
    /// stream. Blobs that the server has are sent again; ask after missing ones first.
    ///
    /// # Errors
    /// The first that came; other blobs may be kept or not then.
    pub async fn put_many(&self, blobs: Vec<(Digest, Bytes)>) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        let blobs: Vec<_> =
            blobs.into_iter().filter(|(digest, _)| !digest.is_empty_blob() && seen.insert(*digest)).collect();
        if blobs.is_empty() {
            return Ok(());
        }
        let capabilities = self.capabilities().await?;
        let (batches, large) = split(blobs, capabilities.batch_bytes_max, |(digest, _)| digest);
        let small = batches.into_iter().map(|batch| self.put_batch(batch, capabilities));
        futures::stream::iter(small).buffer_unordered(CALLS_AT_ONCE).try_collect::<()>().await?;
        let large =
            large.into_iter().map(|(digest, data)| async move { self.write_bytes(&digest, data).await });
        futures::stream::iter(large).buffer_unordered(CALLS_AT_ONCE).try_collect().await
    }

    /// Returns many blobs, each of `digests` once and whole, in any order: small ones by batches, each
    /// larger one by a stream. All of them are in memory at once; the caller bounds that.
    ///
    /// A failure concerns the blob it stands beside; [`StoreError::Missing`] among them.
    pub async fn get_many(&self, digests: &[Digest]) -> Vec<(Digest, Result<Bytes, StoreError>)> {
        let distinct: HashSet<Digest> = digests.iter().copied().collect();
        let (empty, wanted): (Vec<_>, Vec<_>) = distinct.into_iter().partition(Digest::is_empty_blob);
        let mut answers: Vec<_> = empty.into_iter().map(|digest| (digest, Ok(Bytes::new()))).collect();
        if wanted.is_empty() {
            return answers;
        }
        let capabilities = match self.capabilities().await {
            Ok(capabilities) => capabilities,
            Err(error) => {
                answers.extend(wanted.into_iter().map(|digest| (digest, Err(self.again(&error)))));
                return answers;
            }
        };
        let (batches, mut single) = split(wanted, capabilities.batch_bytes_max, |digest| digest);
        let batches = batches.into_iter().map(|batch| self.get_batch(batch, capabilities));
        let mut batches = futures::stream::iter(batches).buffer_unordered(CALLS_AT_ONCE);
        while let Some((batch, left_out)) = batches.next().await {
            answers.extend(batch);
            single.extend(left_out);
        }
        let single = single.into_iter().map(|digest| async move { (digest, self.read_whole(&digest).await) });
        let single = futures::stream::iter(single).buffer_unordered(CALLS_AT_ONCE);
        answers.extend(single.collect::<Vec<_>>().await);
        answers
    }

    /// Asks after missing blobs; each once, and none that was not asked for.
    pub(super) async fn ask_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut seen = HashSet::new();
        let asked: Vec<Digest> = digests
            .iter()
            .filter(|digest| !digest.is_empty_blob() && seen.insert(**digest))
            .copied()
            .collect();
        let questions: Vec<Vec<Digest>> = asked.chunks(QUESTIONS_MAX).map(<[Digest]>::to_vec).collect();
        let questions = questions.into_iter().map(|question| self.ask_batch(question));
        futures::stream::iter(questions).buffered(CALLS_AT_ONCE).try_concat().await
    }

    async fn ask_batch(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        let message = reapi::FindMissingBlobsRequest {
            instance_name: self.instance.to_string(),
            blob_digests: digests.iter().map(Digest::to_proto).collect(),
            digest_function: self.function.to_proto() as i32,
        };
        let call = |request| {
            let mut client = self.blobs();
            async move { client.find_missing_blobs(request).await }
        };
        let answer = self
            .call(&message, call)
            .await
            .map_err(|status| self.failed("ask after missing blobs", status))?;
        let mut asked: HashSet<Digest> = digests.into_iter().collect();
        let mut missing = Vec::new();
        for digest in answer.missing_blob_digests {
            let digest = Digest::from_proto(&digest, self.function)?;
            if asked.remove(&digest) {
                missing.push(digest);
            }
        }
        Ok(missing)
    }

    async fn put_batch(
        &self,
        batch: Vec<(Digest, Bytes)>,
        capabilities: &Capabilities,
    ) -> Result<(), StoreError> {
        let mut open: HashSet<Digest> = batch.iter().map(|(digest, _)| *digest).collect();
        let requests = batch.into_iter().map(|(digest, data)| {
            let (data, compressor) = packed(&digest, data, capabilities)?;
            let compressor = compressor.to_proto() as i32;
            Ok(UpdateRequest { digest: Some(digest.to_proto()), data, compressor })
        });
        let message = reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance.to_string(),
            requests: requests.collect::<Result<_, StoreError>>()?,
            digest_function: self.function.to_proto() as i32,
        };
        let call = |request| {
            let mut client = self.blobs();
            async move { client.batch_update_blobs(request).await }
        };
        let answer = self.call(&message, call).await.map_err(|status| self.failed(KEEP, status))?;
        for UpdateResponse { digest, status } in answer.responses {
            let digest = Digest::from_proto(&digest.unwrap_or_default(), self.function)?;
            match refusal(status) {
                None => open.remove(&digest),
                Some(status) if status.code() == Code::AlreadyExists => open.remove(&digest),
                Some(status) => return Err(self.not_kept(&digest, status)),
            };
        }
        match open.into_iter().next() {
            None => Ok(()),
            Some(digest) => Err(self.broken(KEEP, format!("the answer leaves out `{digest}`"))),
        }
    }

    /// Returns what one call gave, and the blobs that have to be read each by itself.
    async fn get_batch(
        &self,
        batch: Vec<Digest>,
        capabilities: &Capabilities,
    ) -> (Vec<(Digest, Result<Bytes, StoreError>)>, Vec<Digest>) {
        // Plain bytes are always acceptable.
        let zstd = capabilities.streams_zstd.then_some(Compressor::Zstd.to_proto() as i32);
        let message = reapi::BatchReadBlobsRequest {
            instance_name: self.instance.to_string(),
            digests: batch.iter().map(Digest::to_proto).collect(),
            acceptable_compressors: zstd.into_iter().collect(),
            digest_function: self.function.to_proto() as i32,
        };
        let call = |request| {
            let mut client = self.blobs();
            async move { client.batch_read_blobs(request).await }
        };
        let responses = match self.call(&message, call).await {
            Ok(answer) => answer.responses,
            Err(status) => {
                let failed = |digest| (digest, Err(self.failed(READ, status.clone())));
                return (batch.into_iter().map(failed).collect(), Vec::new());
            }
        };
        let mut responses: HashMap<Digest, ReadResponse> = responses
            .into_iter()
            .filter_map(|response| {
                let digest = Digest::from_proto(response.digest.as_ref()?, self.function).ok()?;
                Some((digest, response))
            })
            .collect();
        let (mut answers, mut left_out) = (Vec::new(), Vec::new());
        for digest in batch {
            match responses.remove(&digest) {
                Some(response) if !is_left_out(&response) => {
                    answers.push((digest, self.unpack(&digest, response).await));
                }
                _ => left_out.push(digest),
            }
        }
        (answers, left_out)
    }

    async fn unpack(&self, digest: &Digest, response: ReadResponse) -> Result<Bytes, StoreError> {
        match refusal(response.status) {
            None => {}
            Some(status) if status.code() == Code::NotFound => return Err(StoreError::Missing(*digest)),
            Some(status) => return Err(self.failed(READ, Box::new(status))),
        }
        let data = match Compressor::from_proto(response.compressor) {
            Ok(Compressor::Identity) => response.data,
            Ok(Compressor::Zstd) => {
                let plain = decompress(stream_of(response.data), digest.size_bytes());
                collect(plain, digest.size_bytes()).await?
            }
            Err(error) => return Err(self.broken(READ, error.to_string())),
        };
        let got = Digest::of(digest.function(), &data);
        if got == *digest { Ok(data) } else { Err(StoreError::mismatch(digest, got)) }
    }

    async fn read_whole(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        collect(self.read_stream(digest, ByteRange::ALL).await?, digest.size_bytes()).await
    }

    /// The error of a blob that the server would not keep.
    pub(super) fn not_kept(&self, digest: &Digest, status: Status) -> StoreError {
        if status.code() == Code::ResourceExhausted {
            let source = Some(std::io::Error::other(status));
            return StoreError::Full { digest: *digest, source };
        }
        self.failed(KEEP, Box::new(status))
    }

    /// The same error for another blob that the same failure concerns.
    fn again(&self, error: &StoreError) -> StoreError {
        match error {
            StoreError::Remote { step, address, source } => {
                StoreError::Remote { step, address: address.clone(), source: source.clone() }
            }
            other => self.broken(READ, other.to_string()),
        }
    }
}

/// Packs items into batches of at most `bytes_max` bytes, in order; what alone is more is returned beside.
fn split<T>(items: Vec<T>, bytes_max: u64, digest: impl Fn(&T) -> &Digest) -> (Vec<Vec<T>>, Vec<T>) {
    let (mut batches, mut large) = (Vec::new(), Vec::new());
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for item in items {
        let cost = digest(&item).size_bytes().saturating_add(OVERHEAD_BYTES);
        if cost > bytes_max {
            large.push(item);
            continue;
        }
        if bytes + cost > bytes_max {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += cost;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    (batches, large)
}

/// The bytes as they are sent: compressed if the server takes that and it saves something.
fn packed(
    digest: &Digest,
    data: Bytes,
    capabilities: &Capabilities,
) -> Result<(Bytes, Compressor), StoreError> {
    if capabilities.batches_zstd && digest.size_bytes() >= ZSTD_BYTES_MIN {
        let smaller = compress_bytes(&data)?;
        if smaller.len() < data.len() {
            return Ok((smaller, Compressor::Zstd));
        }
    }
    Ok((data, Compressor::Identity))
}

/// The status of one blob, unless it is OK. Some servers leave an OK status out.
fn refusal(status: Option<rpc::Status>) -> Option<Status> {
    let status = status?;
    let code = Code::from(status.code);
    (code != Code::Ok).then(|| Status::new(code, status.message))
}

/// Whether the server had no room for the blob in its answer, and wants it to be asked for alone.
fn is_left_out(response: &ReadResponse) -> bool {
    response.status.as_ref().is_some_and(|status| Code::from(status.code) == Code::ResourceExhausted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;

    #[test]
    fn batches_keep_the_bound_and_lose_nothing() {
        use rand::{Rng as _, SeedableRng as _};
        let mut random = rand::rngs::StdRng::seed_from_u64(5);
        for _ in 0..200 {
            let bytes_max = random.random_range(OVERHEAD_BYTES..5000);
            let sizes = (0..random.random_range(0..60)).map(|_| random.random_range(1..6000));
            let hash = "ab".repeat(32);
            let digests: Vec<Digest> =
                sizes.map(|size| Digest::from_hex(DigestFunction::Sha256, &hash, size).unwrap()).collect();
            let (batches, large) = split(digests.clone(), bytes_max, |digest| digest);
            let cost = |digest: &Digest| digest.size_bytes() + OVERHEAD_BYTES;
            for batch in &batches {
                assert!(!batch.is_empty() && batch.iter().map(cost).sum::<u64>() <= bytes_max);
            }
            assert!(large.iter().all(|digest| cost(digest) > bytes_max));
            let mut all: Vec<Digest> = batches.into_iter().flatten().chain(large).collect();
            all.sort();
            let mut expected = digests;
            expected.sort();
            assert_eq!(all, expected);
        }
    }
}
