//! [`Incoming`]: the bytes of one `Write` stream, with the rules of their messages kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::BlobStream;
use castwork_proto::bytestream::WriteRequest;
use futures::{FutureExt as _, StreamExt as _};
use tonic::{Status, Streaming};

use super::turns::Turn;
use crate::front::errors::bad;

/// How long to wait, after the last bytes, for the client to close its side. Nearly all do at once; those
/// that wait for the answer first get it after this.
const CLOSE_WAIT: Duration = Duration::from_millis(100);

/// How a stream of messages came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// With all bytes.
    Finished,
    /// The client closed it before the last byte; it may go on later.
    Closed,
    /// It broke off, or was silent for too long; the client may go on later.
    Broken(Status),
    /// The client broke the rules.
    Refused(Status),
}

/// The messages of one stream, in turn.
pub(super) struct Incoming {
    messages: Streaming<WriteRequest>,
    idle_max: Duration,
    turn: Turn,
    name: String,
    /// Where the next message has to begin: counted in bytes as they are sent.
    offset: i64,
    first: Option<WriteRequest>,
    is_finished: bool,
}

/// What is known of a stream when its bytes have been read.
#[derive(Clone, Default)]
pub(super) struct Ending {
    end: Arc<Mutex<Option<(End, i64)>>>,
}

impl Ending {
    fn set(&self, end: End, offset: i64) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some((end, offset));
    }

    /// How it ended, and at which offset; nothing if it was not read to its end.
    pub(super) fn take(&self) -> Option<(End, i64)> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Incoming {
    /// Waits for the first message.
    pub(super) async fn begin(
        mut messages: Streaming<WriteRequest>,
        idle_max: Duration,
        turn: Turn,
    ) -> Result<Self, Status> {
        let first =
            next(&mut messages, idle_max, &turn).await?.ok_or_else(|| bad("the upload has no messages"))?;
        if first.resource_name.is_empty() {
            return Err(bad("the first message of an upload has no `resource_name`"));
        }
        let (name, offset) = (first.resource_name.clone(), first.write_offset);
        Ok(Self { messages, idle_max, turn, name, offset, first: Some(first), is_finished: false })
    }

    /// What the client calls the upload.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the client begins.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }

    /// The bytes as they are sent. The stream never fails; how it ended is in `ending` afterwards.
    pub(super) fn into_bytes(self, ending: Ending) -> BlobStream {
        futures::stream::unfold((self, ending), |(mut incoming, ending)| async move {
            match incoming.next().await {
                Ok(data) => Some((Ok(data), (incoming, ending))),
                Err(end) => {
                    ending.set(end, incoming.offset);
                    None
                }
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Bytes, End> {
        if self.is_finished {
            return Err(self.close().await);
        }
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => next(&mut self.messages, self.idle_max, &self.turn).await.map_err(End::Broken)?,
        };
        let message = message.ok_or(End::Closed)?;
        self.check(&message).map_err(End::Refused)?;
        self.offset = i64::try_from(message.data.len())
            .ok()
            .and_then(|length| self.offset.checked_add(length))
            .ok_or_else(|| End::Refused(bad("the upload's offset overflows")))?;
        self.is_finished = message.finish_write;
        Ok(message.data)
    }

    fn check(&self, message: &WriteRequest) -> Result<(), Status> {
        if !message.resource_name.is_empty() && message.resource_name != self.name {
            return Err(bad("`resource_name` changes within the upload"));
        }
        if message.write_offset != self.offset {
            let (expected, got) = (self.offset, message.write_offset);
            return Err(bad(format!("`write_offset` is {got} where the upload has come to {expected}")));
        }
        Ok(())
    }

    /// Nothing may follow the last bytes.
    async fn close(&mut self) -> End {
        let rest = match self.messages.next().now_or_never() {
            Some(rest) => rest,
            None => tokio::time::timeout(CLOSE_WAIT, self.messages.next()).await.unwrap_or(None),
        };
        match rest {
            Some(Ok(_)) => End::Refused(bad("the upload goes on after `finish_write`")),
            // The blob is whole, whatever became of the stream.
            Some(Err(_)) | None => End::Finished,
        }
    }
}

/// Waits for a message, but not while others wait for the turn of a client that sends none.
async fn next(
    messages: &mut Streaming<WriteRequest>,
    idle_max: Duration,
    turn: &Turn,
) -> Result<Option<WriteRequest>, Status> {
    turn.patiently(idle_max, messages.message())
        .await
        .unwrap_or_else(|| Err(Status::deadline_exceeded("the upload was silent for too long")))
}
