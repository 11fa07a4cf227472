//! [`Outgoing`]: what of a response is on its way to a client that may never take it.
//!
//! The transport takes a message whole and keeps it until the client has it, or until the connection ends. So it is
//! given little at a time, and the rest is where it can be taken back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::room::{self, Taken};

/// What the transport gets at a time: little at first, and more the more the client has taken.
const SLICE_BYTES_MIN: usize = 32 << 10;
const SLICE_BYTES_MAX: usize = 256 << 10;

/// The part of what the client has taken already.
const SLICE_PART: usize = 8;

/// What a client is told that stood still for too long.
pub(super) fn late() -> Status {
    Status::unavailable("the client took too long; read on from here")
}

/// What of a response has not gone to the transport. Cheap to clone; goes along as an extension of the response.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing(Arc<Mutex<Rest>>);

#[derive(Debug, Default)]
struct Rest {
    bytes: Bytes,
    is_taken_back: bool,
    sent_bytes: usize,
    /// The call, which is one of as many as there may be until the client has its answer.
    _call: Option<Taken>,
}

impl Rest {
    fn slice(&mut self) -> Bytes {
        let most = (self.sent_bytes / SLICE_PART).clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX);
        let slice = self.bytes.split_to(most.min(self.bytes.len()));
        self.sent_bytes = self.sent_bytes.saturating_add(slice.len());
        slice
    }
}

impl Outgoing {
    /// Of the call that the current task answers, whose request is not needed any more.
    pub(super) fn of_call() -> Self {
        let call = room::current();
        if let Some(call) = &call {
            call.release();
        }
        Self(Arc::new(Mutex::new(Rest { _call: call, ..Rest::default() })))
    }

    /// Lets go of it all. If that cuts a message in two the stream is reset, whenever the client wants more.
    pub(super) fn take_back(&self) {
        let mut rest = self.lock();
        rest.is_taken_back = !rest.bytes.is_empty();
        rest.bytes = Bytes::new();
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a response with an [`Outgoing`] go through it.
pub(crate) fn in_slices(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Outgoing>() {
        Some(outgoing) => response.map(|body| Body::new(Slices { body, outgoing })),
        None => response,
    }
}

/// See the module.
struct Slices {
    body: Body,
    outgoing: Outgoing,
}

impl hyper::body::Body for Slices {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            {
                let mut rest = self.outgoing.lock();
                if rest.is_taken_back {
                    return Poll::Ready(Some(Err(late())));
                }
                if !rest.bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(rest.slice()))));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.outgoing.lock().bytes = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.outgoing.lock().bytes.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::front::room::Room;

    async fn next(body: &mut Body) -> Option<Result<usize, Status>> {
        let frame = std::future::poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut *body), cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap().len()))
    }

    fn response(bytes: usize, outgoing: &Outgoing) -> Body {
        let mut response = Response::new(Body::new(axum::body::Body::from(vec![7; bytes])));
        response.extensions_mut().insert(outgoing.clone());
        in_slices(response).into_body()
    }

    #[tokio::test]
    async fn a_message_goes_in_slices_and_whole() {
        const WHOLE_BYTES: usize = SLICE_BYTES_MAX * 20;
        let mut body = response(WHOLE_BYTES, &Outgoing::default());
        let mut slices = Vec::new();
        while let Some(slice) = next(&mut body).await {
            slices.push(slice.unwrap());
        }
        assert_eq!(slices.iter().sum::<usize>(), WHOLE_BYTES);
        assert!(slices[..8].iter().all(|slice| *slice == SLICE_BYTES_MIN), "{slices:?}");
        assert_eq!(slices.iter().max(), Some(&SLICE_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_call_is_one_until_the_client_has_its_answer_and_its_request_takes_no_room_then() {
        let room = Room::new(1 << 10, Duration::from_secs(1));
        let all = room.calls_left();
        let call = room.begin();
        assert!(call.try_message(1 << 10));
        let outgoing = call.scope(async { Outgoing::of_call() }).await;
        let body = response(1, &outgoing);
        drop(outgoing);
        assert_eq!(room.calls_left(), all - 1);
        assert!(room.begin().try_message(1 << 10));
        drop(body);
        assert_eq!(room.calls_left(), all);
    }

    #[tokio::test]
    async fn what_is_taken_back_is_held_no_more_and_the_stream_breaks_off() {
        let outgoing = Outgoing::default();
        let mut body = response(SLICE_BYTES_MIN * 2, &outgoing);
        assert!(next(&mut body).await.unwrap().is_ok());
        outgoing.take_back();
        assert!(outgoing.lock().bytes.is_empty());
        assert_eq!(next(&mut body).await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        // Between messages there is nothing to break off.
        let outgoing = Outgoing::default();
        let mut body = response(SLICE_BYTES_MIN, &outgoing);
        outgoing.take_back();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), SLICE_BYTES_MIN);
    }
}
