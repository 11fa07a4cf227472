//! [`Offers`]: what the store tells the tier that it has taken.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use castwork_cas::{ActionKey, Digest};
use tokio::sync::mpsc;

use crate::counters::Counters;

/// Blobs and results that may wait, some 200 bytes each.
const QUEUED_MAX: usize = 100_000;

/// Something that is to be written to the tier. The bytes are read when its turn comes.
#[derive(Clone, Debug)]
pub(super) enum Offer {
    Blob(Digest),
    Result(ActionKey),
}

/// Never waits. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Offers {
    /// None of a tier that is only read.
    queue: Option<mpsc::Sender<Offer>>,
    /// What comes from the tier need not go back.
    fetching: Arc<Mutex<HashSet<Digest>>>,
    counters: Arc<Counters>,
    queued: Arc<AtomicU64>,
}

impl Offers {
    pub(super) fn new(
        is_writable: bool,
        counters: Arc<Counters>,
        queued: Arc<AtomicU64>,
    ) -> (Self, mpsc::Receiver<Offer>) {
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let queue = is_writable.then_some(sender);
        (Self { queue, fetching: Arc::default(), counters, queued }, receiver)
    }

    /// The store has taken a blob.
    pub(crate) fn blob(&self, digest: &Digest) {
        if !self.lock().contains(digest) {
            self.offer(Offer::Blob(*digest));
        }
    }

    /// The store has taken a result.
    pub(crate) fn result(&self, key: &ActionKey) {
        self.offer(Offer::Result(key.clone()));
    }

    fn offer(&self, offer: Offer) {
        let Some(queue) = &self.queue else { return };
        self.queued.fetch_add(1, Ordering::Relaxed);
        if queue.try_send(offer).is_err() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.counters.tier_dropped.add(1);
        }
    }

    /// Until what is returned is dropped, the blob is not offered.
    pub(super) fn fetching(&self, digest: &Digest) -> Fetching<'_> {
        self.lock().insert(*digest);
        Fetching { offers: self, digest: *digest }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Fetching<'a> {
    offers: &'a Offers,
    digest: Digest,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.offers.lock().remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    fn offers(is_writable: bool) -> (Offers, mpsc::Receiver<Offer>, Arc<Counters>) {
        let counters = Arc::<Counters>::default();
        let (offers, queue) = Offers::new(is_writable, Arc::clone(&counters), Arc::default());
        (offers, queue, counters)
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let (offers, queue, counters) = offers(true);
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        for _ in 0..QUEUED_MAX + 3 {
            offers.blob(&digest);
        }
        assert_eq!((queue.len(), counters.tier_dropped.value()), (QUEUED_MAX, 3));
        assert_eq!(offers.queued.load(Ordering::Relaxed), QUEUED_MAX as u64);
    }

    #[test]
    fn what_comes_from_the_tier_does_not_go_back_and_one_that_is_only_read_gets_nothing() {
        let (offers, queue, _) = offers(true);
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let fetching = offers.fetching(&digest);
        offers.blob(&digest);
        assert_eq!(queue.len(), 0);
        drop(fetching);
        offers.blob(&digest);
        assert_eq!(queue.len(), 1);

        let (offers, queue, counters) = self::offers(false);
        offers.blob(&digest);
        assert_eq!((queue.len(), counters.tier_dropped.value()), (0, 0));
    }
}
