//! `Read`: from a blob to the messages that carry it.

use std::pin::Pin;

use castwork_cas::codec::compress;
use castwork_cas::resource::{Compressor, ReadName};
use castwork_cas::{BlobStream, ByteRange};
use castwork_proto::bytestream::ReadResponse;
use futures::{Stream, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::front::errors::{bad, to_status};

/// Checks which part is asked for. Offsets are those of the plain blob, also in compressed reads.
pub(super) fn range(name: &ReadName, offset: i64, limit: i64) -> Result<ByteRange, Status> {
    let size = name.digest.size_bytes();
    let out_of_range = || Status::out_of_range(format!("offset {offset} in a blob of {size} bytes"));
    let offset = u64::try_from(offset).ok().filter(|offset| *offset <= size).ok_or_else(out_of_range)?;
    let limit = u64::try_from(limit).map_err(|_| bad("`read_limit` is negative"))?;
    if limit > 0 && name.compressor != Compressor::Identity {
        return Err(bad("`read_limit` does not go with compressed blobs"));
    }
    Ok(ByteRange { offset, limit: (limit > 0).then_some(limit) })
}

/// The messages for a stream of plain bytes. None is empty: some clients take that for the end.
pub(super) fn responses(
    plain: BlobStream,
    compressor: Compressor,
    permit: OwnedSemaphorePermit,
) -> Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>> {
    let bytes = match compressor {
        Compressor::Identity => plain,
        Compressor::Zstd => compress(plain),
    };
    let responses = bytes.filter_map(move |piece| {
        // Lives as long as the stream.
        let _permit = &permit;
        let response = match piece {
            Ok(data) if data.is_empty() => None,
            Ok(data) => Some(Ok(ReadResponse { data })),
            Err(error) => Some(Err(to_status(error))),
        };
        std::future::ready(response)
    });
    Box::pin(responses)
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};
    use tonic::Code;

    use super::*;

    #[test]
    fn a_range_is_checked_against_the_blob_and_the_compressor() {
        let digest = Digest::of(DigestFunction::Sha256, b"0123456789");
        let name = |compressor| ReadName { instance: "".into(), digest, compressor };
        let plain = |offset, limit| range(&name(Compressor::Identity), offset, limit);
        let zstd = |offset, limit| range(&name(Compressor::Zstd), offset, limit);
        assert_eq!(plain(0, 0).unwrap(), ByteRange::ALL);
        assert_eq!(plain(10, 3).unwrap(), ByteRange { offset: 10, limit: Some(3) });
        assert_eq!(plain(11, 0).unwrap_err().code(), Code::OutOfRange);
        assert_eq!(plain(-1, 0).unwrap_err().code(), Code::OutOfRange);
        assert_eq!(plain(0, -1).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(zstd(4, 0).unwrap().offset, 4);
        assert_eq!(zstd(0, 4).unwrap_err().code(), Code::InvalidArgument);
    }
}
