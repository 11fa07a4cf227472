//! `Read`: from a blob to the messages that carry it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::codec::compress;
use castwork_cas::resource::{Compressor, ReadName};
use castwork_cas::{BlobStream, ByteRange};
use castwork_proto::bytestream::ReadResponse;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::Status;

use super::turns::Turn;
use crate::front::errors::{bad, to_status};
use crate::front::outgoing::{Outgoing, late};

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
///
/// A client that takes none for `idle_max`, or that stands still while others wait, loses its turn: the stream
/// ends in an error, and what it held of the blob goes.
pub(super) fn responses(
    plain: BlobStream,
    compressor: Compressor,
    turn: Turn,
    outgoing: Outgoing,
    idle_max: Duration,
) -> Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>> {
    let bytes = match compressor {
        Compressor::Identity => plain,
        Compressor::Zstd => compress(plain),
    };
    // One message waits for the client; nothing is read from disk meanwhile but the next.
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(Mutex::new(receiver));
    let lost = Arc::downgrade(&receiver);
    tokio::spawn(async move {
        if hand_over(bytes, sender, turn, idle_max).await {
            return;
        }
        outgoing.take_back();
        if let Some(receiver) = lost.upgrade() {
            while lock(&receiver).try_recv().is_ok() {}
        }
    });
    let state = Some(receiver);
    Box::pin(futures::stream::unfold(state, |state| async move {
        let receiver = state?;
        match poll_fn(|cx| lock(&receiver).poll_recv(cx)).await {
            Some(Step::Data(data)) => Some((Ok(ReadResponse { data }), Some(receiver))),
            Some(Step::Failed(status)) => Some((Err(status), None)),
            Some(Step::End) => None,
            None => Some((Err(late()), None)),
        }
    }))
}

/// What comes next of a blob that is read.
enum Step {
    Data(Bytes),
    Failed(Status),
    /// Without it, the blob did not come to its end.
    End,
}

fn lock(receiver: &Mutex<mpsc::Receiver<Step>>) -> MutexGuard<'_, mpsc::Receiver<Step>> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether all was handed over, before the stream lost its turn or its client.
async fn hand_over(
    mut bytes: BlobStream,
    sender: mpsc::Sender<Step>,
    turn: Turn,
    idle_max: Duration,
) -> bool {
    loop {
        // No room is left for whom nobody listens to, and none is waited for.
        let Some(Ok(room)) = turn.patiently(idle_max, sender.reserve()).await else { return false };
        let step = loop {
            match bytes.next().await {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => break Step::Data(data),
                Some(Err(error)) => break Step::Failed(to_status(error)),
                None => break Step::End,
            }
        };
        let is_last = !matches!(step, Step::Data(_));
        room.send(step);
        if is_last {
            // Until the client has it, it takes memory.
            let is_taken = turn.patiently(idle_max, sender.reserve()).await.is_some();
            return is_taken && turn.patiently(idle_max, sender.closed()).await.is_some();
        }
    }
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
