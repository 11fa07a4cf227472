//! [`Uploads`]: which uploads are under way, and what is left of those whose stream broke off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Upload;

/// Uploads by their resource name, for as long as this process lives.
pub(super) struct Uploads {
    entries: Mutex<HashMap<String, Entry>>,
    begun: AtomicU64,
    kept_max: usize,
    kept: Duration,
}

struct Entry {
    /// Which stream it belongs to; a later one under the same name takes its place.
    stream: u64,
    committed_bytes: Arc<AtomicU64>,
    /// What the stream left behind when it ended; nothing while it lives.
    left: Option<(Upload, Instant)>,
}

/// How a stream that begins finds its upload.
pub(super) enum Begun {
    /// Nobody has written to it.
    New(Ticket),
    /// A stream before this one has.
    Resumed(Ticket, Box<Upload>),
    /// Another stream writes to it at this moment.
    Busy {
        /// Bytes that the other stream has brought.
        committed_bytes: u64,
    },
}

/// The right of one stream to its upload's entry.
pub(super) struct Ticket {
    stream: u64,
    name: String,
    committed_bytes: Arc<AtomicU64>,
}

impl Ticket {
    /// States how many bytes have arrived, for whoever asks.
    pub(super) fn set_committed(&self, bytes: u64) {
        self.committed_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Uploads {
    pub(super) fn new(kept_max: usize, kept: Duration) -> Self {
        Self { entries: Mutex::default(), begun: AtomicU64::new(0), kept_max, kept }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins, or goes on with, an upload. At offset 0 it always begins anew.
    pub(super) fn begin(&self, name: String, offset: u64) -> Begun {
        let mut entries = self.lock();
        let earlier = if offset == 0 { None } else { entries.remove(&name) };
        let (left, committed_bytes) = match earlier {
            None => (None, Arc::default()),
            Some(Entry { left: Some((upload, _)), committed_bytes, .. }) => (Some(upload), committed_bytes),
            Some(entry) => {
                let committed_bytes = entry.committed_bytes.load(Ordering::Relaxed);
                entries.insert(name, entry);
                return Begun::Busy { committed_bytes };
            }
        };
        let stream = self.begun.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { stream, committed_bytes: Arc::clone(&committed_bytes), left: None };
        // What was there, if the client begins anew, is dropped after the lock.
        let dropped = entries.insert(name.clone(), entry);
        drop(entries);
        drop(dropped);
        let ticket = Ticket { stream, name, committed_bytes };
        match left {
            Some(upload) => Begun::Resumed(ticket, Box::new(upload)),
            None => Begun::New(ticket),
        }
    }

    /// Keeps what has arrived, for a later stream to go on with.
    pub(super) fn keep(&self, ticket: &Ticket, upload: Upload) {
        ticket.set_committed(upload.received_bytes());
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&ticket.name).filter(|entry| entry.stream == ticket.stream) else {
            return;
        };
        entry.left = Some((upload, Instant::now()));
        let excess = take_excess(&mut entries, self.kept_max);
        drop(entries);
        drop(excess);
    }

    /// Forgets an upload that is complete, or came to nothing.
    pub(super) fn end(&self, ticket: &Ticket) {
        let mut entries = self.lock();
        if entries.get(&ticket.name).is_some_and(|entry| entry.stream == ticket.stream) {
            entries.remove(&ticket.name);
        }
    }

    /// How many bytes of an upload have arrived; `None` if nobody has written to it.
    pub(super) fn committed(&self, name: &str) -> Option<u64> {
        self.lock().get(name).map(|entry| entry.committed_bytes.load(Ordering::Relaxed))
    }

    /// Drops what nobody went on with in time.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let is_old = |entry: &mut Entry| {
            entry.left.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= self.kept)
        };
        let old: Vec<_> = self.lock().extract_if(|_, entry| is_old(entry)).collect();
        drop(old);
    }
}

/// Takes out the oldest of those that are kept, until there are no more than may be.
fn take_excess(entries: &mut HashMap<String, Entry>, kept_max: usize) -> Vec<Entry> {
    let mut kept: Vec<(Instant, String)> = entries
        .iter()
        .filter_map(|(name, entry)| entry.left.as_ref().map(|(_, since)| (*since, name.clone())))
        .collect();
    kept.sort_unstable();
    let excess = kept.len().saturating_sub(kept_max);
    kept.into_iter().take(excess).filter_map(|(_, name)| entries.remove(&name)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use castwork_cas::{Digest, DigestFunction};

    use super::*;
    use crate::store::pins::Pins;
    use crate::store::{Store, StoreConfig};

    struct Bench {
        store: Store,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = StoreConfig::new(folder.path(), 1 << 30);
            Self { store: Store::open(&config, Pins::default(), Arc::default()).unwrap(), _folder: folder }
        }

        async fn upload(&self, bytes: &'static [u8]) -> Upload {
            let mut upload = self.store.blobs().upload(&Digest::of(DigestFunction::Sha256, b"0123456789"));
            upload.append(Bytes::from_static(bytes)).await.unwrap();
            upload
        }
    }

    fn ticket(begun: Begun) -> Ticket {
        let Begun::New(ticket) = begun else { panic!("it is new") };
        ticket
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stream_leaves_behind_is_found_by_the_next_until_it_is_too_old() {
        let bench = Bench::new();
        let uploads = Uploads::new(9, Duration::from_secs(60));
        assert_eq!(uploads.committed("a"), None);
        let first = ticket(uploads.begin("a".to_owned(), 0));
        uploads.keep(&first, bench.upload(b"0123").await);
        assert_eq!(uploads.committed("a"), Some(4));
        let Begun::Resumed(second, upload) = uploads.begin("a".to_owned(), 4) else {
            panic!("it was kept");
        };
        assert_eq!(upload.received_bytes(), 4);
        uploads.keep(&second, *upload);
        tokio::time::advance(Duration::from_secs(61)).await;
        uploads.sweep();
        assert_eq!(uploads.committed("a"), None);
    }

    #[tokio::test]
    async fn two_streams_do_not_write_to_one_upload() {
        let bench = Bench::new();
        let uploads = Uploads::new(9, Duration::from_secs(60));
        let first = ticket(uploads.begin("a".to_owned(), 0));
        first.set_committed(4);
        assert!(matches!(uploads.begin("a".to_owned(), 4), Begun::Busy { committed_bytes: 4 }));
        let second = ticket(uploads.begin("a".to_owned(), 0));
        uploads.keep(&first, bench.upload(b"0123").await);
        assert_eq!(uploads.committed("a"), Some(0));
        uploads.end(&second);
        assert_eq!(uploads.committed("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_uploads_are_kept_than_may_be() {
        let bench = Bench::new();
        let uploads = Uploads::new(2, Duration::from_secs(60));
        for name in ["a", "b", "c"] {
            let ticket = ticket(uploads.begin(name.to_owned(), 0));
            uploads.keep(&ticket, bench.upload(b"01").await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(["a", "b", "c"].map(|name| uploads.committed(name)), [None, Some(2), Some(2)]);
    }
}
