//! A blob from another server, as a stream.

use bytes::Bytes;
use castwork_proto::bytestream::{ReadRequest, ReadResponse};
use futures::StreamExt as _;
use tonic::{Code, Status, Streaming};

use super::Remote;
use super::batch::ZSTD_BYTES_MIN;
use crate::codec::decompress;
use crate::resource::{Compressor, ReadName};
use crate::store::{ByteRange, stream_of};
use crate::verified::verify;
use crate::{BlobStream, Digest, StoreError};

const STEP: &str = "read a blob";

/// Whole blobs up to this size are read by one call and compared before the first byte is handed on.
const WHOLE_BYTES_MAX: u64 = 256 << 10;

impl Remote {
    pub(super) async fn read(&self, digest: &Digest, range: ByteRange) -> Result<BlobStream, StoreError> {
        if range.offset > digest.size_bytes() {
            return Err(StoreError::Range { digest: *digest, offset: range.offset });
        }
        let capabilities = self.capabilities().await?;
        let is_small = digest.size_bytes() <= WHOLE_BYTES_MAX.min(capabilities.batch_bytes_max / 2);
        if is_small && range == ByteRange::ALL {
            let mut answers = self.get_many(std::slice::from_ref(digest)).await;
            let (_, answer) = answers.pop().expect("each digest has its answer");
            return answer.map(stream_of);
        }
        if range.limit == Some(0) {
            // On the wire, a limit of zero is none.
            let missing = self.ask_missing(std::slice::from_ref(digest)).await?;
            return match missing[..] {
                [] => Ok(stream_of(Bytes::new())),
                _ => Err(StoreError::Missing(*digest)),
            };
        }
        self.read_stream(digest, range).await
    }

    /// Reads by `ByteStream`; the first answer has come when this returns.
    pub(super) async fn read_stream(
        &self,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<BlobStream, StoreError> {
        let left = digest.size_bytes().saturating_sub(range.offset);
        let expected = range.limit.map_or(left, |limit| limit.min(left));
        // REAPI has no limit on compressed reads.
        let packs = expected == left && expected >= ZSTD_BYTES_MIN && self.capabilities().await?.streams_zstd;
        let compressor = if packs { Compressor::Zstd } else { Compressor::Identity };
        let name = ReadName { instance: self.instance.clone(), digest: *digest, compressor };
        let message = ReadRequest {
            resource_name: name.to_string(),
            read_offset: signed(range.offset),
            read_limit: if expected == left { 0 } else { signed(expected) },
        };
        let call = |request| {
            let mut client = self.streams();
            async move { Opened::new(client.read(request).await?.into_inner()).await }
        };
        let pieces = match self.open(&message, call).await {
            Ok(pieces) => pieces,
            Err(status) if status.code() == Code::NotFound => return Err(StoreError::Missing(*digest)),
            Err(status) => return Err(self.failed(STEP, status)),
        };
        let data = self.clone().bytes_of(pieces, *digest);
        let data = if packs { decompress(data, expected) } else { data };
        // The whole is compared; of a part the length is all that can be.
        if expected == digest.size_bytes() {
            Ok(verify(*digest, data))
        } else {
            Ok(self.clone().exactly(expected, data))
        }
    }

    /// The bytes of the answers, each of which comes in time.
    fn bytes_of(self, pieces: Opened, digest: Digest) -> BlobStream {
        futures::stream::try_unfold((self, pieces), move |(remote, mut pieces)| async move {
            loop {
                let next = match pieces.first.take() {
                    Some(first) => Ok(Some(first)),
                    None => remote.within(pieces.rest.message()).await,
                };
                match next {
                    Ok(None) => return Ok(None),
                    Ok(Some(answer)) if answer.data.is_empty() => {}
                    Ok(Some(answer)) => return Ok(Some((answer.data, (remote, pieces)))),
                    // It was there when the stream began.
                    Err(status) if status.code() == Code::NotFound => {
                        return Err(StoreError::Missing(digest));
                    }
                    Err(status) => return Err(remote.failed(STEP, status)),
                }
            }
        })
        .boxed()
    }

    /// Passes on a stream that must have `expected` bytes.
    fn exactly(self, expected: u64, data: BlobStream) -> BlobStream {
        futures::stream::try_unfold((self, data, expected), move |(remote, mut data, left)| async move {
            match data.next().await.transpose()? {
                None if left == 0 => Ok(None),
                None => {
                    Err(remote.broken(STEP, format!("the stream ended {left} of {expected} bytes too early")))
                }
                Some(piece) => match left.checked_sub(piece.len() as u64) {
                    Some(left) => Ok(Some((piece, (remote, data, left)))),
                    None => Err(remote.broken(STEP, format!("more than the {expected} bytes asked for"))),
                },
            }
        })
        .boxed()
    }
}

/// A stream of answers of which the first has come, so that an error at the start shows at the start.
struct Opened {
    first: Option<ReadResponse>,
    rest: Streaming<ReadResponse>,
}

impl Opened {
    async fn new(mut rest: Streaming<ReadResponse>) -> Result<Self, Status> {
        let first = rest.message().await?;
        Ok(Self { first, rest })
    }
}

/// A size for a message.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
