//! `Write`: from messages to a blob that is kept.

use bytes::Bytes;
use castwork_cas::codec::decompress;
use castwork_cas::resource::{Compressor, WriteName};
use castwork_cas::{BlobStream, StoreError};
use castwork_proto::bytestream::WriteRequest;
use futures::TryStreamExt as _;
use tonic::{Status, Streaming};

use super::Inner;
use super::incoming::{End, Ending, Incoming};
use super::tee::Tee;
use super::turns::Turn;
use super::uploads::{Begun, Ticket};
use crate::front::errors::{bad, to_status};
use crate::store::Upload;

/// A size as messages have it.
pub(super) fn as_size(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("a blob's size was checked to fit")
}

/// Takes one stream of an upload and returns its name and committed size: of a plain upload the blob's bytes, of a
/// compressed one the bytes as they were sent, or -1 if it was there before.
pub(super) async fn write(
    inner: &Inner,
    messages: Streaming<WriteRequest>,
    turn: Turn,
) -> Result<(WriteName, i64), Status> {
    let incoming = Incoming::begin(messages, inner.limits.upload_idle, turn).await?;
    let name = inner.write_name(incoming.name())?;
    let bytes_max = inner.limits.blob_bytes_max;
    if name.digest.size_bytes() > bytes_max {
        return Err(to_status(StoreError::TooLarge { bytes_max }));
    }
    if inner.blobs.has_verified(&name.digest).await {
        // The client need not send the rest: the answer ends its stream.
        let committed = match name.compressor {
            Compressor::Identity => as_size(name.digest.size_bytes()),
            Compressor::Zstd => -1,
        };
        return Ok((name, committed));
    }
    let (ticket, upload) = begin(inner, &name, incoming.offset())?;
    let committed = Writing { inner, name: name.clone(), ticket, upload }.run(incoming).await?;
    Ok((name, committed))
}

/// Finds the upload, and checks that the client begins where it has come to.
fn begin(inner: &Inner, name: &WriteName, offset: i64) -> Result<(Ticket, Upload), Status> {
    let wrong = |expected: u64| {
        bad(format!("the upload begins at offset {offset}, but {expected} bytes of it are here"))
    };
    let from = u64::try_from(offset).map_err(|_| bad("`write_offset` is negative"))?;
    match inner.uploads.begin(name.to_string(), from) {
        Begun::New(ticket) if from == 0 => Ok((ticket, inner.blobs.upload(&name.digest))),
        Begun::New(ticket) => {
            inner.uploads.end(&ticket);
            Err(wrong(0))
        }
        Begun::Resumed(ticket, upload) => {
            let expected = upload.received_bytes();
            if from == expected {
                return Ok((ticket, *upload));
            }
            inner.uploads.keep(&ticket, *upload);
            Err(wrong(expected))
        }
        Begun::Busy { committed_bytes } => Err(Status::aborted(format!(
            "another stream is at byte {committed_bytes} of this upload; try again when it has ended"
        ))),
    }
}

/// An upload, and the stream that writes to it now.
struct Writing<'a> {
    inner: &'a Inner,
    name: WriteName,
    ticket: Ticket,
    upload: Upload,
}

impl Writing<'_> {
    async fn run(mut self, incoming: Incoming) -> Result<i64, Status> {
        let ending = Ending::default();
        let taken = self.take_bytes(incoming, ending.clone()).await;
        match (ending.take(), taken) {
            (Some((End::Closed, _)), _) => Ok(as_size(self.keep().await)),
            (Some((End::Broken(status), _)), _) => {
                self.keep().await;
                Err(status)
            }
            (Some((End::Refused(status), _)), _) => self.give_up(status),
            (_, Err(error)) => self.give_up(to_status(error)),
            (ended, Ok(())) => {
                let sent = ended.map_or(0, |(_, offset)| offset);
                self.finish(sent).await
            }
        }
    }

    /// Reads messages to their end, or to the first bytes that the blob can't have.
    async fn take_bytes(&mut self, incoming: Incoming, ending: Ending) -> Result<(), StoreError> {
        let sent = incoming.into_bytes(ending);
        match self.name.compressor {
            Compressor::Identity => self.take_plain(sent).await,
            Compressor::Zstd => self.take_packed(sent).await,
        }
    }

    async fn take_plain(&mut self, mut plain: BlobStream) -> Result<(), StoreError> {
        while let Some(piece) = plain.try_next().await? {
            self.upload.append(piece).await?;
            self.ticket.set_committed(self.upload.received_bytes());
        }
        Ok(())
    }

    async fn take_packed(&mut self, sent: BlobStream) -> Result<(), StoreError> {
        let left = self.name.digest.size_bytes() - self.upload.received_bytes();
        let tee = Tee::default();
        let mut plain = decompress(tee.over(sent), left);
        self.upload.keep_packed();
        while let Some(piece) = plain.try_next().await? {
            self.upload.append_packed(piece, tee.take()).await?;
            self.ticket.set_committed(self.upload.received_bytes());
        }
        // What stands behind the last bytes, such as a checksum.
        self.upload.append_packed(Bytes::new(), tee.take()).await
    }

    async fn finish(self, sent: i64) -> Result<i64, Status> {
        let size = as_size(self.name.digest.size_bytes());
        let finished = self.upload.finish().await;
        self.inner.uploads.end(&self.ticket);
        finished.map_err(to_status)?;
        Ok(match self.name.compressor {
            Compressor::Identity => size,
            Compressor::Zstd => sent,
        })
    }

    /// Puts away what has arrived, and returns how much that is.
    async fn keep(mut self) -> u64 {
        let bytes = self.upload.received_bytes();
        // What waits must not fill the memory.
        match self.upload.put_away().await {
            Ok(()) => self.inner.uploads.keep(&self.ticket, self.upload),
            Err(_) => self.inner.uploads.end(&self.ticket),
        }
        bytes
    }

    fn give_up(self, status: Status) -> Result<i64, Status> {
        self.inner.uploads.end(&self.ticket);
        Err(status)
    }
}
