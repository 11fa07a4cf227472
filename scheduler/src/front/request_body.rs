//! [`RequestBody`]: the body of a call, for the messages of which there is room before they are read, and which comes
//! in time.
//!
//! Transport and tonic gather a message until it is whole. So a client that sends all of it but one byte has the server
//! hold the rest; this is what bounds for how long, and of how many such clients.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::limits::REQUEST_BYTES_MAX;
use super::room::Taken;

/// Before each message stand a byte that says whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

/// What a call takes by itself.
const CALL_BYTES: usize = 16 << 10;

/// A message may take so long, and longer if it has more bytes than come at the slowest rate in that time.
const MESSAGE_WAIT: Duration = Duration::from_secs(60);

/// Bytes a second: a message that comes more slowly yields to others that wait for room.
const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// How long a message is left alone, whoever waits.
const STEP: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct RequestBody {
    body: Body,
    taken: Taken,
    /// Whether the client may take its time between messages, and after the last.
    is_stream: bool,
    /// The start of a header, while it is not all there.
    header: Vec<u8>,
    /// Bytes of the current message that are yet to come.
    left: usize,
    /// What came and is handed on when there is room for it.
    held_back: Option<Bytes>,
    asking: Option<BoxFuture<'static, Result<(), Status>>>,
    patience: Patience,
}

/// How long the other side has taken for what it is to send.
struct Patience {
    begin: Instant,
    received: u64,
    next_look: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new() -> Self {
        Self { begin: Instant::now(), received: 0, next_look: None }
    }

    /// Ready when the client took too long. `others` says whether somebody waits for what it holds.
    fn poll_end(&mut self, cx: &mut Context<'_>, others: impl Fn() -> bool) -> Poll<Status> {
        loop {
            let begin = self.begin;
            let next_look =
                self.next_look.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(begin + STEP)));
            ready!(next_look.as_mut().poll(cx));
            let elapsed = begin.elapsed();
            let expected = elapsed.as_secs().saturating_mul(SLOWEST_BYTES_PER_S);
            if others() && self.received < expected {
                return Poll::Ready(Status::unavailable(
                    "the request came too slowly while others waited; try again",
                ));
            }
            if elapsed >= MESSAGE_WAIT && self.received < expected {
                return Poll::Ready(Status::deadline_exceeded("the request did not come in time"));
            }
            self.next_look = Some(Box::pin(tokio::time::sleep(STEP)));
        }
    }
}

impl RequestBody {
    pub(super) fn new(body: Body, taken: Taken, is_stream: bool) -> Self {
        Self {
            body,
            taken,
            is_stream,
            header: Vec::new(),
            left: 0,
            held_back: None,
            asking: None,
            patience: Patience::new(),
        }
    }

    /// Whether something has begun and is not whole.
    fn is_awaited(&self) -> bool {
        !self.is_stream || self.left > 0 || !self.header.is_empty()
    }

    /// What is to be taken for the messages that begin in `data`; nothing if none does.
    fn follow(&mut self, mut data: &[u8]) -> Option<usize> {
        let mut bytes = None;
        self.patience.received += data.len() as u64;
        while !data.is_empty() {
            if self.left > 0 {
                let step = self.left.min(data.len());
                self.left -= step;
                data = &data[step..];
                continue;
            }
            let step = (HEADER_BYTES - self.header.len()).min(data.len());
            self.header.extend_from_slice(&data[..step]);
            data = &data[step..];
            if let Ok([compressed, length @ ..]) = <[u8; HEADER_BYTES]>::try_from(self.header.as_slice()) {
                self.header.clear();
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                // How long it is when it is decompressed nobody knows before it is; a longer one is refused.
                let held = if compressed == 0 { self.left.min(REQUEST_BYTES_MAX) } else { REQUEST_BYTES_MAX };
                bytes = Some(bytes.unwrap_or(CALL_BYTES) + held);
                if self.is_stream {
                    self.patience = Patience::new();
                }
            }
        }
        bytes
    }
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.taken.is_admitted() {
            let refused = Status::unavailable("the server has as many calls as it takes; try again");
            return Poll::Ready(Some(Err(refused)));
        }
        // Whoever asks for the next message has done with the one before.
        if self.is_stream && self.asking.is_none() && !self.is_awaited() {
            self.taken.release();
        }
        loop {
            if let Some(asking) = &mut self.asking {
                let asked = ready!(asking.as_mut().poll(cx));
                self.asking = None;
                // It was not the client that let itself be waited for.
                self.patience = Patience::new();
                return Poll::Ready(Some(match (asked, self.held_back.take()) {
                    (Ok(()), data) => Ok(Frame::data(data.unwrap_or_default())),
                    (Err(refused), _) => Err(refused),
                }));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                if !self.is_awaited() {
                    return Poll::Pending;
                }
                let this = &mut *self;
                let late = ready!(this.patience.poll_end(cx, || this.taken.is_waited_for()));
                return Poll::Ready(Some(Err(late)));
            };
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            match self.follow(data.chunk()) {
                Some(bytes) if !self.taken.try_message(bytes) => {
                    self.asking = Some(Box::pin(self.taken.clone().message(bytes)));
                    self.held_back = Some(data);
                }
                _ => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held_back.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tonic::Code;

    use super::*;
    use crate::front::room::Room;

    /// A message of so many bytes, of which as many come.
    fn message(bytes: u32, sent: usize) -> Vec<u8> {
        [&[0][..], &bytes.to_be_bytes(), &vec![7; sent]].concat()
    }

    /// What comes piece by piece, and then nothing for ever.
    fn endless(pieces: Vec<Vec<u8>>) -> Body {
        let pieces = futures::stream::iter(pieces).map(|piece| Ok::<_, Status>(Bytes::from(piece)));
        Body::new(axum::body::Body::from_stream(pieces.chain(futures::stream::pending())))
    }

    async fn next(body: &mut RequestBody) -> Result<usize, Status> {
        let frame = std::future::poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut *body), cx)).await;
        frame.expect("it never ends").map(|frame| frame.into_data().unwrap().len())
    }

    fn room(bytes: usize) -> Room {
        Room::new(bytes, Duration::from_secs(15))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_whole_is_given_up() {
        let begin = Instant::now();
        for is_stream in [false, true] {
            let taken = room(1 << 20).begin();
            let mut body = RequestBody::new(endless(vec![message(10, 9)]), taken, is_stream);
            assert_eq!(next(&mut body).await.unwrap(), 14);
            assert_eq!(next(&mut body).await.unwrap_err().code(), Code::DeadlineExceeded);
        }
        // Nor one whose client does not say that it was all.
        let mut body = RequestBody::new(endless(vec![message(9, 9)]), room(1 << 20).begin(), false);
        assert!(next(&mut body).await.is_ok());
        assert_eq!(next(&mut body).await.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(begin.elapsed().as_secs() / 60, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_stands_still_yields_to_one_that_waits_for_room() {
        let room = room(100 << 10);
        let mut still = RequestBody::new(endless(vec![message(80 << 10, 1000)]), room.begin(), false);
        assert!(next(&mut still).await.is_ok());
        let still = tokio::spawn(async move { next(&mut still).await });
        let begin = Instant::now();
        let mut other = RequestBody::new(endless(vec![message(80 << 10, 80 << 10)]), room.begin(), false);
        assert_eq!(next(&mut other).await.unwrap(), 5 + (80 << 10));
        assert!(begin.elapsed() < Duration::from_secs(11));
        assert_eq!(still.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_pause_between_messages_and_holds_nothing_then() {
        let room = room(100 << 10);
        let pieces = [message(80 << 10, 80 << 10), message(3, 3), message(3, 3)].concat();
        let pieces = pieces.chunks(1000).map(<[u8]>::to_vec).collect();
        let mut stream = RequestBody::new(endless(pieces), room.begin(), true);
        let mut received = 0;
        let paused = tokio::time::timeout(Duration::from_secs(3600), async {
            loop {
                received += next(&mut stream).await.unwrap();
            }
        });
        assert!(paused.await.is_err(), "nobody hurries it");
        assert_eq!(received, (80 << 10) + 6 + 3 * HEADER_BYTES);
        assert!(room.begin().try_message(100 << 10));
    }

    #[tokio::test]
    async fn whatever_is_compressed_takes_as_much_as_it_may_become() {
        let room = room(2 * REQUEST_BYTES_MAX);
        let mut compressed = message(9, 9);
        compressed[0] = 1;
        let mut body = RequestBody::new(endless(vec![compressed]), room.begin(), false);
        assert!(next(&mut body).await.is_ok());
        assert!(room.begin().try_message(REQUEST_BYTES_MAX - CALL_BYTES));
        assert!(!room.begin().try_message(REQUEST_BYTES_MAX));
    }
}
