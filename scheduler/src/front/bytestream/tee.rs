//! [`Tee`]: the compressed bytes of an upload as they were sent, beside what comes out of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use castwork_cas::BlobStream;
use futures::{StreamExt as _, TryStreamExt as _};

/// What is remembered at most until it is taken: a few messages. More comes only of frames that hold nothing.
const BYTES_MAX: usize = 16 << 20;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Tee {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    pieces: Vec<Bytes>,
    bytes: usize,
    has_overflowed: bool,
}

impl Tee {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same stream, whose pieces are remembered as they are pulled.
    pub(super) fn over(&self, sent: BlobStream) -> BlobStream {
        let tee = self.clone();
        sent.inspect_ok(move |piece| tee.remember(piece)).boxed()
    }

    fn remember(&self, piece: &Bytes) {
        let mut state = self.lock();
        state.bytes += piece.len();
        state.has_overflowed |= state.bytes > BYTES_MAX;
        if state.has_overflowed {
            state.pieces.clear();
        } else {
            state.pieces.push(piece.clone());
        }
    }

    /// What was pulled since the last call; `None` if that, or what came before it, was too much.
    pub(super) fn take(&self) -> Option<Vec<Bytes>> {
        let mut state = self.lock();
        state.bytes = 0;
        (!state.has_overflowed).then(|| std::mem::take(&mut state.pieces))
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::store::{collect, stream_of};

    use super::*;

    #[tokio::test]
    async fn what_was_pulled_is_there_once() {
        let tee = Tee::default();
        collect(tee.over(stream_of("abc".into())), 9).await.unwrap();
        assert_eq!(tee.take().unwrap(), ["abc"]);
        assert!(tee.take().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_too_much_stays_so() {
        let tee = Tee::default();
        let much = Bytes::from(vec![0; BYTES_MAX + 1]);
        collect(tee.over(stream_of(much)), u64::MAX).await.unwrap();
        assert!(tee.take().is_none());
        collect(tee.over(stream_of("abc".into())), 9).await.unwrap();
        assert!(tee.take().is_none());
    }
}
