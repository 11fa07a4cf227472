//! [`Connections`]: how many there are at a time, in all and from one address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::debug;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    turns: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    each_max: usize,
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    _turn: OwnedSemaphorePermit,
}

impl Connections {
    /// For `max` connections, of which `each_max` may come from one address.
    pub(crate) fn new(max: usize, each_max: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(max)), by_address: Arc::default(), each_max }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.turns).acquire_owned().await.expect("nobody closes the turns")
    }

    /// A place for somebody from `address`; `None` if there are enough from there.
    pub(crate) fn enter(&self, address: IpAddr, turn: OwnedSemaphorePermit) -> Option<Place> {
        let address = address.to_canonical();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if *count >= self.each_max {
            debug!(%address, count, "a connection is refused: its address has as many as it may");
            return None;
        }
        *count += 1;
        drop(by_address);
        Some(Place { by_address: Arc::clone(&self.by_address), address, _turn: turn })
    }

    /// Bounds what `incoming` accepts: it waits while there are enough in all, and drops what an address has too many
    /// of.
    pub(crate) fn bound(
        self,
        incoming: impl Stream<Item = io::Result<TcpStream>> + Unpin,
    ) -> impl Stream<Item = io::Result<Placed>> {
        futures::stream::unfold((self, incoming), |(connections, mut incoming)| async move {
            loop {
                let turn = connections.turn().await;
                let placed = match incoming.next().await? {
                    Err(error) => Err(error),
                    Ok(stream) => {
                        let address = stream.peer_addr().map(|peer: SocketAddr| peer.ip());
                        // It has gone again.
                        let Ok(address) = address else { continue };
                        let Some(place) = connections.enter(address, turn) else { continue };
                        Ok(Placed { stream, _place: place })
                    }
                };
                return Some((placed, (connections, incoming)));
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// A connection in its place.
#[derive(Debug)]
pub(crate) struct Placed {
    stream: TcpStream,
    _place: Place,
}

impl Connected for Placed {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_no_more_connections_than_it_may_and_others_have_theirs() {
        let connections = Connections::new(4, 2);
        let [here, there] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let enter = async |address| connections.enter(address, connections.turn().await);
        let first = enter(here).await.unwrap();
        let second = enter("::ffff:10.0.0.1".parse().unwrap()).await.unwrap();
        assert!(enter(here).await.is_none());
        let others = [enter(there).await.unwrap(), enter("10.0.0.3".parse().unwrap()).await.unwrap()];
        assert_eq!(connections.turns.available_permits(), 0);
        drop(first);
        assert!(enter(here).await.is_some());
        drop((second, others));
        assert!(connections.by_address.lock().unwrap().is_empty());
    }
}
