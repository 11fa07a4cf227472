//! Connections of the HTTP port: how many, and how long one may do nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::guests::{Full, Guest, Guests, Place};
use crate::caller::Caller;

/// How long a connection may take for the headers of its next request. Clients keep connections for the
/// next request, so this is also how long one may be idle.
const HEADERS_WAIT: Duration = Duration::from_secs(120);

/// How long a client may take nothing of its answer.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer that wait in memory for a slow client, and bytes of headers, at most.
const BUFFER_BYTES: usize = 64 << 10;

/// How long to wait after the system could give no connection, as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop`, then lets the requests that are under way end.
pub(super) async fn serve(listener: TcpListener, guests: Guests, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WAIT).max_buf_size(BUFFER_BYTES);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &guests) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no HTTP connection could be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let principal = stream.peer_addr().map_or_else(|_| "".into(), |peer| peer.ip().to_string().into());
        let (router, guest) = (router.clone(), Arc::clone(&place.guest));
        let service = TowerToHyperService::new(tower::service_fn(move |request| {
            let (answer, busy) = (router.clone().oneshot(request), guest.busy());
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        }));
        let stream = Patient::new(stream, Arc::clone(&place.guest));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        let caller = Caller { principal, ..Caller::default() };
        tokio::spawn(async move {
            match place.guest.leave.run_until_cancelled(caller.scope(connection)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => debug!(%error, "an HTTP connection broke off"),
                None => debug!("an HTTP connection that stood still made room for another"),
            }
        });
    }
    graceful.shutdown().await;
}

/// Takes the next connection that there is a place for; who comes when none stands still waits. Cancel-safe, but for
/// one that waits.
async fn accept(listener: &TcpListener, guests: &Guests) -> io::Result<(TcpStream, Place)> {
    loop {
        let (stream, peer) = listener.accept().await?;
        let place = loop {
            match guests.enter(peer.ip()) {
                Err(Full::All) => tokio::time::sleep(PLACE_PAUSE).await,
                entered => break entered,
            }
        };
        // Others are served meanwhile.
        let Ok(place) = place else { continue };
        // Without this a small answer waits for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        return Ok((stream, place));
    }
}

/// How often to look for a place while there is none.
const PLACE_PAUSE: Duration = Duration::from_millis(100);

/// A connection that breaks off when the other side takes nothing for [`STALL_MAX`].
struct Patient {
    stream: TcpStream,
    guest: Arc<Guest>,
    /// Runs while the other side takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, guest: Arc<Guest>) -> Self {
        Self { stream, guest, stalled: None }
    }

    /// What became of a write; the patience ends with one that did not go on for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.guest.moved();
            self.stalled = None;
            return written;
        }
        let deadline = || Box::pin(tokio::time::sleep_until(Instant::now() + STALL_MAX));
        let stalled = self.stalled.get_or_insert_with(deadline);
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.guest.moved();
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_stands_still_makes_room_for_one_that_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "well"));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Guests::new(2, 3), router, stop.clone()));
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        third.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("well"), "{answer}");
        let [mut here, mut there] = [[0; 9]; 2];
        let closed = tokio::select! {
            read = first.read(&mut here) => read,
            read = second.read(&mut there) => read,
        };
        assert_eq!(closed.unwrap(), 0, "one of them has gone");
        stop.cancel();
        drop((first, second));
        serving.await.unwrap();
    }
}
