//! [`Values`]: entries whose names mean nothing to us, in a store of blobs and results.
//!
//! An entry is a result, under the hash of its name, in an instance whose name no client of REAPI can say.
//! A small value stands in the result itself, so that it costs one write; a larger one is cut into blobs,
//! and the result lists them in order. The result is written last, so an upload that breaks off changes
//! nothing; and like every result it counts only while all its blobs are there.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use castwork_cas::store::stream_of;
use castwork_cas::{
    ActionCache, ActionKey, BlobStore, BlobStream, ByteRange, Digest, DigestFunction, StoreError,
};
use castwork_proto::reapi::{ActionResult, ExecutedActionMetadata, OutputFile};
use futures::{StreamExt as _, TryStreamExt as _};

use super::answer::Refusal;
use super::body::Upload;
use super::range::Part;
use crate::store::DiskBlobs;
use crate::store::pins::{PinGuard, Pins};

/// Values up to this size stand in their results.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Larger ones are cut into blobs of this size. It is what an upload holds in memory.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// What names the blobs that values are cut into: the fastest to compute.
const FUNCTION: DigestFunction = DigestFunction::Blake3;

/// The exit code of an entry that was removed. A result can be replaced, but not taken back.
const REMOVED: i32 = 1;

/// A value that was found.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// Its size.
    pub(super) bytes: u64,
    /// When it was stored.
    pub(super) stored: SystemTime,
    parts: Parts,
}

#[derive(Clone, Debug)]
enum Parts {
    Inline(Bytes),
    Blobs(Vec<Digest>),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Values {
    /// Where results are kept.
    pub(super) results: Arc<dyn ActionCache>,
    /// The same, but only those whose blobs are all there.
    pub(super) complete: Arc<dyn ActionCache>,
    pub(super) blobs: DiskBlobs,
    /// What an upload has stored and does not name yet.
    pub(super) pins: Pins,
}

/// The name of an entry: a namespace and a name in it. No instance name begins with a slash, so no
/// client of REAPI gets at what is kept here. A result's blobs are named by the function of its key.
pub(super) fn key(namespace: &str, name: &str) -> ActionKey {
    ActionKey { instance: format!("/http/{namespace}").into(), action: Digest::of(FUNCTION, name.as_bytes()) }
}

impl Values {
    /// Finds a value; it counts as used just now.
    pub(super) async fn find(&self, key: &ActionKey) -> Result<Value, Refusal> {
        let found = self.complete.get(key).await?;
        let found = found.filter(|result| result.exit_code != REMOVED);
        found.and_then(Value::of).ok_or(Refusal::Missing)
    }

    /// Keeps what is uploaded in place of an earlier value. Whoever asks gets the old or the new, whole.
    pub(super) async fn keep(&self, key: &ActionKey, upload: &mut Upload) -> Result<(), Refusal> {
        let first = upload.gather(PIECE_BYTES).await?;
        if first.len() < PIECE_BYTES {
            return Ok(self.keep_bytes(key, first).await?);
        }
        let (mut result, mut piece) = (new_result(), first);
        // Until the result is there, and says that they are needed.
        let mut pins = Vec::new();
        while !piece.is_empty() {
            result.output_files.push(self.keep_piece(&result, piece, &mut pins).await?);
            piece = upload.gather(PIECE_BYTES).await?;
        }
        Ok(self.results.put(key, result).await?)
    }

    /// As [`Values::keep`], for a value that is in memory.
    pub(super) async fn keep_bytes(&self, key: &ActionKey, data: Bytes) -> Result<(), StoreError> {
        let (mut result, mut pins) = (new_result(), Vec::new());
        if data.len() <= INLINE_BYTES_MAX {
            result.stdout_raw = data;
        } else {
            for start in (0..data.len()).step_by(PIECE_BYTES) {
                let piece = data.slice(start..data.len().min(start + PIECE_BYTES));
                result.output_files.push(self.keep_piece(&result, piece, &mut pins).await?);
            }
        }
        self.results.put(key, result).await
    }

    /// Keeps the next piece of a value, and has it stay for as long as `pins` does.
    async fn keep_piece(
        &self,
        value: &ActionResult,
        piece: Bytes,
        pins: &mut Vec<PinGuard>,
    ) -> Result<OutputFile, StoreError> {
        let digest = Digest::of(FUNCTION, &piece);
        pins.push(self.pins.pin([digest]));
        self.blobs.put(&digest, stream_of(piece)).await?;
        let path = value.output_files.len().to_string();
        Ok(OutputFile { path, digest: Some(digest.to_proto()), ..OutputFile::default() })
    }

    /// Has nobody find a value any more.
    pub(super) async fn remove(&self, key: &ActionKey) -> Result<(), Refusal> {
        self.find(key).await?;
        let removed = ActionResult { exit_code: REMOVED, ..new_result() };
        Ok(self.results.put(key, removed).await?)
    }

    /// Some bytes of a value, which is not empty there. The stream ends in an error, never short.
    pub(super) async fn read(&self, value: &Value, part: Part) -> Result<BlobStream, StoreError> {
        let digests = match &value.parts {
            Parts::Inline(data) => {
                let position = |position| usize::try_from(position).expect("it is in memory");
                return Ok(stream_of(data.slice(position(part.start)..position(part.end))));
            }
            Parts::Blobs(digests) => digests,
        };
        let mut wanted = ranges(digests, part).into_iter();
        let Some((first, range)) = wanted.next() else { return Ok(futures::stream::empty().boxed()) };
        // Whether it is there at all is known before the answer begins.
        let first = self.blobs.get(&first, range).await?;
        let blobs = self.blobs.clone();
        let others = futures::stream::iter(wanted)
            .then(move |(digest, range)| {
                let blobs = blobs.clone();
                async move { blobs.get(&digest, range).await }
            })
            .try_flatten();
        Ok(first.chain(others).boxed())
    }
}

/// Which part of which blobs make up a part of a value.
fn ranges(digests: &[Digest], part: Part) -> Vec<(Digest, ByteRange)> {
    let mut begin = 0;
    let mut ranges = Vec::new();
    for digest in digests {
        let end = begin + digest.size_bytes();
        let (from, to) = (part.start.max(begin), part.end.min(end));
        if from < to {
            ranges.push((*digest, ByteRange { offset: from - begin, limit: Some(to - from) }));
        }
        begin = end;
    }
    ranges
}

fn new_result() -> ActionResult {
    let metadata = ExecutedActionMetadata {
        worker_completed_timestamp: Some(SystemTime::now().into()),
        ..ExecutedActionMetadata::default()
    };
    ActionResult { execution_metadata: Some(metadata), ..ActionResult::default() }
}

impl Value {
    fn of(result: ActionResult) -> Option<Self> {
        let stored = result.execution_metadata.and_then(|metadata| metadata.worker_completed_timestamp);
        let stored = stored.and_then(|stored| stored.try_into().ok()).unwrap_or(SystemTime::UNIX_EPOCH);
        if result.output_files.is_empty() {
            let bytes = result.stdout_raw.len() as u64;
            return Some(Self { bytes, stored, parts: Parts::Inline(result.stdout_raw) });
        }
        let digests = result.output_files.iter().map(|file| file.digest.as_ref());
        let digests = digests.map(|digest| Digest::from_proto(digest?, FUNCTION).ok());
        let digests = digests.collect::<Option<Vec<Digest>>>()?;
        let bytes = digests.iter().map(Digest::size_bytes).sum();
        Some(Self { bytes, stored, parts: Parts::Blobs(digests) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreConfig};

    #[test]
    fn a_part_of_a_value_is_made_of_parts_of_its_blobs() {
        let digests = [4_usize, 4, 2].map(|length| Digest::of(FUNCTION, &vec![0; length]));
        let spans = |start, end| -> Vec<(u64, u64)> {
            let ranges = ranges(&digests, Part { start, end });
            ranges.iter().map(|(_, range)| (range.offset, range.limit.unwrap())).collect()
        };
        assert_eq!(spans(0, 10), [(0, 4), (0, 4), (0, 2)]);
        assert_eq!(spans(3, 9), [(3, 1), (0, 4), (0, 1)]);
        assert_eq!(spans(4, 8), [(0, 4)]);
        assert_eq!(spans(5, 6), [(1, 1)]);
    }

    #[tokio::test]
    async fn the_pieces_of_a_value_stay_until_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::new(folder.path(), 1 << 30), Pins::default(), Arc::default());
        let store = store.unwrap();
        let results: Arc<dyn ActionCache> = Arc::new(store.results());
        let values = Values {
            results: Arc::clone(&results),
            complete: results,
            blobs: store.blobs(),
            pins: store.pins(),
        };
        let (send, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(pieces));
        let mut upload = Upload::new(body, u64::MAX, std::time::Duration::from_secs(60));
        let keeping = tokio::spawn({
            let values = values.clone();
            async move { values.keep(&key("ccache", "a"), &mut upload).await.is_ok() }
        });
        let first = Bytes::from(vec![7; PIECE_BYTES]);
        let digest = Digest::of(FUNCTION, &first);
        send.send(Ok(first)).await.unwrap();
        while !values.blobs.find_missing(&[digest]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        // Its own pin is gone when the next piece is taken.
        send.send(Ok(Bytes::from_static(b"the"))).await.unwrap();
        send.send(Ok(Bytes::from_static(b"rest"))).await.unwrap();
        assert!(!values.pins.unless_pinned(&digest, || panic!("it is evicted")));
        drop(send);
        assert!(keeping.await.unwrap());
        assert!(values.pins.unless_pinned(&digest, || ()));
        assert_eq!(values.find(&key("ccache", "a")).await.unwrap().bytes, PIECE_BYTES as u64 + 7);
    }

    #[test]
    fn entries_of_two_namespaces_never_meet() {
        assert_ne!(key("ccache", "a"), key("sccache", "a"));
        assert_ne!(key("ccache", "a"), key("ccache", "b"));
    }
}
