//! A blob to another server, as a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use castwork_proto::bytestream::WriteRequest;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Remote;
use super::batch::ZSTD_BYTES_MIN;
use super::call::is_passing;
use crate::codec::compress;
use crate::resource::{Compressor, WriteName};
use crate::store::{collect, stream_of};
use crate::verified::verify;
use crate::{BlobStream, Digest, StoreError};

const STEP: &str = "keep a blob";

/// The most bytes in one message of a stream.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Blobs up to this size are sent by one call, which can be made twice.
const WHOLE_BYTES_MAX: u64 = 256 << 10;

impl Remote {
    pub(super) async fn write(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        let data = verify(*digest, data);
        if digest.size_bytes() <= WHOLE_BYTES_MAX.min(self.capabilities().await?.batch_bytes_max / 2) {
            let data = collect(data, digest.size_bytes()).await?;
            return self.put_many(vec![(*digest, data)]).await;
        }
        self.write_stream(digest, data).await
    }

    /// Sends bytes that are in memory; twice if the server could not be reached.
    pub(super) async fn write_bytes(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let send = || self.write_stream(digest, verify(*digest, stream_of(data.clone())));
        match send().await {
            Err(StoreError::Remote { source, .. }) if is_passing(&source) => send().await,
            answer => answer,
        }
    }

    /// Sends by `ByteStream`. The server may answer before the end, if it has the blob.
    pub(super) async fn write_stream(&self, digest: &Digest, data: BlobStream) -> Result<(), StoreError> {
        let packs = digest.size_bytes() >= ZSTD_BYTES_MIN && self.capabilities().await?.streams_zstd;
        let compressor = if packs { Compressor::Zstd } else { Compressor::Identity };
        let name = WriteName {
            instance: self.instance.clone(),
            upload_id: uuid::Uuid::new_v4().to_string(),
            digest: *digest,
            compressor,
        };
        let (failed, mut failure) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let data = if packs { compress(data) } else { data };
        let messages = messages(name.to_string(), data, failed, progress.clone());
        let request = self.with_metadata(messages);
        // Also where this future is dropped: the connection would hold a stream that nobody ends.
        let _stop = StopOnDrop(progress.clone());
        let mut client = self.streams();
        let mut answer = std::pin::pin!(client.write(request));
        let answer = loop {
            let deadline = progress.last() + self.timeout;
            tokio::select! {
                answer = &mut answer => break answer,
                // Leaving drops the call, which the server sees as cancelled.
                Ok(error) = &mut failure => return Err(error),
                () = tokio::time::sleep_until(deadline) => {
                    if progress.last() + self.timeout <= Instant::now() {
                        return Err(self.failed(STEP, Box::new(self.too_late())));
                    }
                }
            }
        };
        progress.stopped.notify_one();
        match answer {
            Ok(answer) => {
                self.check_committed(digest, packs, answer.into_inner().committed_size, &progress).await
            }
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(self.not_kept(digest, status)),
        }
    }

    /// Compares what the server says it has with what it should have.
    ///
    /// Of compressed uploads servers say one of three things (REAPI leaves it open), and some say a fourth
    /// when they have the blob already; then they are asked whether they do.
    async fn check_committed(
        &self,
        digest: &Digest,
        packs: bool,
        committed: i64,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let is = |bytes: u64| i64::try_from(bytes).is_ok_and(|bytes| bytes == committed);
        let sent_all = progress.finished.load(Ordering::Acquire);
        let is_whole = is(digest.size_bytes())
            || (packs && (committed == -1 || (sent_all && is(progress.bytes.load(Ordering::Acquire)))));
        if is_whole || self.ask_missing(std::slice::from_ref(digest)).await?.is_empty() {
            return Ok(());
        }
        let reason = format!("the server has {committed} of {} bytes", digest.size_bytes());
        Err(self.failed(STEP, Box::new(Status::data_loss(reason))))
    }
}

/// How far an upload is; written by the stream of messages, read by who waits for the answer.
struct Progress {
    began: Instant,
    /// When the connection last took a message, in milliseconds after `began`.
    last_ms: AtomicU64,
    /// Bytes in the messages that the connection took.
    bytes: AtomicU64,
    /// Whether it took the last one.
    finished: AtomicBool,
    /// Told when there is an answer: what is left need not be sent.
    stopped: Notify,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }
}

impl Progress {
    fn last(&self) -> Instant {
        self.began + std::time::Duration::from_millis(self.last_ms.load(Ordering::Acquire))
    }

    fn count(&self, message: &WriteRequest) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Release);
        self.bytes.fetch_add(message.data.len() as u64, Ordering::AcqRel);
        self.finished.fetch_or(message.finish_write, Ordering::AcqRel);
    }
}

/// Ends the stream of messages of an upload that nobody waits for any more.
struct StopOnDrop(Arc<Progress>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.notify_one();
    }
}

/// The messages of an upload, until told to stop. If the data fails, its error goes to `failed`, and the
/// stream waits for the call to be left: to end it would tell the server that this is all for now.
fn messages(
    name: String,
    data: BlobStream,
    failed: oneshot::Sender<StoreError>,
    progress: Arc<Progress>,
) -> impl Stream<Item = WriteRequest> + Send + 'static {
    let stop = progress.clone();
    let sending = Sending::new(name, data);
    futures::stream::unfold((sending, Some(failed)), move |(mut sending, mut failed)| {
        let progress = progress.clone();
        async move {
            match sending.next().await {
                Ok(Some(message)) => {
                    progress.count(&message);
                    Some((message, (sending, failed)))
                }
                Ok(None) => None,
                Err(error) => {
                    // Nobody listens any more if the call has ended; then nobody polls this either.
                    let _ = failed.take().map(|failed| failed.send(error));
                    std::future::pending().await
                }
            }
        }
    })
    .take_until(async move { stop.stopped.notified().await })
}

struct Sending {
    /// Empty after the first message.
    name: String,
    data: futures::stream::Fuse<BlobStream>,
    /// Data that came in a piece larger than a message.
    rest: Bytes,
    /// Data that came in pieces smaller than a message.
    gathered: BytesMut,
    /// The data of a message, held back until it is known whether it is the last.
    next: Option<Bytes>,
    offset: i64,
    finished: bool,
}

impl Sending {
    fn new(name: String, data: BlobStream) -> Self {
        Self {
            name,
            data: data.fuse(),
            rest: Bytes::new(),
            gathered: BytesMut::new(),
            next: None,
            offset: 0,
            finished: false,
        }
    }

    async fn next(&mut self) -> Result<Option<WriteRequest>, StoreError> {
        if self.finished {
            return Ok(None);
        }
        let piece = match self.next.take() {
            Some(piece) => piece,
            None => self.gather().await?.unwrap_or_default(),
        };
        self.next = self.gather().await?;
        self.finished = self.next.is_none();
        let message = WriteRequest {
            resource_name: std::mem::take(&mut self.name),
            write_offset: self.offset,
            finish_write: self.finished,
            data: piece,
        };
        self.offset += i64::try_from(message.data.len()).expect("a piece is small");
        Ok(Some(message))
    }

    /// The data of the next message: as much as may be, except in the last.
    async fn gather(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.gathered.len() < PIECE_BYTES_MAX {
            if self.rest.is_empty() {
                match self.data.try_next().await? {
                    Some(data) => self.rest = data,
                    None => break,
                }
            }
            if self.gathered.is_empty() && self.rest.len() >= PIECE_BYTES_MAX {
                return Ok(Some(self.rest.split_to(PIECE_BYTES_MAX)));
            }
            let room = PIECE_BYTES_MAX - self.gathered.len();
            let fits = self.rest.split_to(room.min(self.rest.len()));
            self.gathered.extend_from_slice(&fits);
        }
        Ok(Some(self.gathered.split().freeze()).filter(|data| !data.is_empty()))
    }
}
