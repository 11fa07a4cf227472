//! [`Ledger`]: what was used and stored since the keeper last looked, and whether there is room.
//!
//! Requests write here, the keeper reads. Everything is short and in memory, so that no request waits
//! for the index.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::layout::FileKey;

/// The most uses remembered between two looks of the keeper. Beyond it, uses of files that were already
/// there are forgotten: LRU is a little less exact then, and nothing else.
const USES_MAX: usize = 200_000;

/// How long a write waits for the keeper to make room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a file takes up on disk: whole blocks.
pub(crate) fn bytes_on_disk(size_bytes: u64) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    size_bytes.div_ceil(BLOCK_BYTES).max(1).saturating_mul(BLOCK_BYTES)
}

/// Milliseconds since the epoch of Unix.
pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now())
}

/// A moment in milliseconds since the epoch of Unix.
pub(crate) fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A file of the store: what it takes up, and when it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) bytes: u64,
    pub(crate) used_ms: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// What the segments take up; they keep it.
    segment_bytes: Arc<AtomicU64>,
    /// Wakes the keeper.
    wake: Condvar,
    /// Wakes writers that wait for room.
    room: Notify,
}

#[derive(Default)]
struct State {
    used: HashMap<FileKey, Use>,
    gone: Vec<FileKey>,
    /// Bytes in the index.
    kept_bytes: u64,
    /// Bytes stored since the keeper last took the uses.
    fresh_bytes: u64,
    /// Bytes of files that are being written.
    reserved_bytes: u64,
    /// Bytes that writers wait for.
    wanted_bytes: u64,
    bound_bytes: u64,
    /// How many files may still be made until the keeper looks again.
    files_left: u64,
    rounds_begun: u64,
    rounds_ended: u64,
    woken: bool,
    stopping: bool,
}

impl State {
    fn bytes(&self) -> u64 {
        self.kept_bytes + self.fresh_bytes + self.reserved_bytes
    }
}

/// What the keeper takes with it for a round.
pub(crate) struct Round {
    pub(crate) used: HashMap<FileKey, Use>,
    pub(crate) gone: Vec<FileKey>,
    pub(crate) stopping: bool,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fullness {
    /// Bytes that are stored or being written.
    pub(crate) bytes: u64,
    /// Bytes that writers wait for.
    pub(crate) wanted_bytes: u64,
    /// Bytes that there may be.
    pub(crate) bound_bytes: u64,
}

impl Ledger {
    /// For a store whose files take up `kept_bytes`, and may take up `bound_bytes` with the segments. As many files
    /// may be made as one likes, until [`Ledger::set_files_left`] says otherwise.
    pub(crate) fn new(kept_bytes: u64, bound_bytes: u64, segment_bytes: Arc<AtomicU64>) -> Arc<Self> {
        let ledger = Self { segment_bytes, ..Self::default() };
        ledger.set_files_left(u64::MAX);
        let mut state = ledger.lock();
        state.kept_bytes = kept_bytes;
        state.bound_bytes = bound_bytes;
        drop(state);
        Arc::new(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that files which are there were used just now. They take up at most their blobs' bytes: what is known
    /// to take up less, does.
    pub(crate) fn used(&self, files: impl IntoIterator<Item = (FileKey, u64)>) {
        let used_ms = now_ms();
        let mut state = self.lock();
        for (key, size_bytes) in files {
            let bytes = bytes_on_disk(size_bytes);
            if let Some(known) = state.used.get_mut(&key) {
                *known = Use { bytes: bytes.min(known.bytes), used_ms };
            } else if state.used.len() < USES_MAX {
                state.used.insert(key, Use { bytes, used_ms });
            }
        }
    }

    /// Writes down that a file is no more.
    pub(crate) fn gone(&self, key: FileKey) {
        let mut state = self.lock();
        state.used.remove(&key);
        state.gone.push(key);
    }

    /// Whether a file was used since the keeper last took the uses.
    pub(crate) fn was_used(&self, key: &FileKey) -> bool {
        self.lock().used.contains_key(key)
    }

    fn bytes(&self, state: &State) -> u64 {
        state.bytes() + self.segment_bytes.load(Ordering::Relaxed)
    }

    /// How full the store is.
    pub(crate) fn fullness(&self) -> Fullness {
        let state = self.lock();
        Fullness {
            bytes: self.bytes(&state),
            wanted_bytes: state.wanted_bytes,
            bound_bytes: state.bound_bytes,
        }
    }

    /// States how many files may be made from now on. For the keeper.
    pub(crate) fn set_files_left(&self, files_left: u64) {
        self.lock().files_left = files_left;
    }

    /// Whether no file may be made.
    pub(crate) fn lacks_files(&self) -> bool {
        self.lock().files_left == 0
    }

    /// Has the keeper look at once, because the disk turned out to be full.
    pub(crate) fn press(&self) {
        self.lock().woken = true;
        self.wake.notify_one();
    }

    /// Waits until there is room for `bytes` more, for as long as eviction may bring some.
    ///
    /// Returns whether there is; if so, `reservation` holds them. Cancel-safe.
    pub(crate) async fn reserve(&self, bytes: u64, reservation: &mut Reservation) -> bool {
        self.reserve_room(bytes, false, reservation).await
    }

    /// As [`Ledger::reserve`], and that a file may be made, which `reservation` holds from then on. Cancel-safe.
    pub(crate) async fn reserve_in_file(&self, bytes: u64, reservation: &mut Reservation) -> bool {
        let needs_file = !reservation.has_file;
        self.reserve_room(bytes, needs_file, reservation).await
    }

    async fn reserve_room(&self, bytes: u64, needs_file: bool, reservation: &mut Reservation) -> bool {
        if self.admit(bytes, needs_file, reservation) {
            return true;
        }
        let waiting = Waiting::new(self, bytes);
        let deadline = tokio::time::Instant::now() + ROOM_WAIT_MAX;
        loop {
            let mut news = std::pin::pin!(self.room.notified());
            // Listen before looking, or a round that ends in between is missed.
            news.as_mut().enable();
            if self.admit(bytes, needs_file, reservation) {
                return true;
            }
            if self.lock().rounds_ended >= waiting.last_round
                || tokio::time::timeout_at(deadline, news).await.is_err()
            {
                return false;
            }
        }
    }

    fn admit(&self, bytes: u64, needs_file: bool, reservation: &mut Reservation) -> bool {
        let mut state = self.lock();
        if self.bytes(&state).saturating_add(bytes) > state.bound_bytes {
            return false;
        }
        if needs_file {
            let Some(files_left) = state.files_left.checked_sub(1) else { return false };
            state.files_left = files_left;
            reservation.has_file = true;
        }
        state.reserved_bytes += bytes;
        reservation.bytes += bytes;
        true
    }

    /// Waits for the next round, at most `timeout`, and begins it. For the keeper.
    pub(crate) fn begin_round(&self, timeout: Duration) -> Round {
        let state = self.lock();
        let (mut state, _) = self
            .wake
            .wait_timeout_while(state, timeout, |state| !state.woken && !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        state.rounds_begun += 1;
        // They are in the index by the end of the round; until then they count as kept.
        state.kept_bytes += std::mem::take(&mut state.fresh_bytes);
        Round {
            used: std::mem::take(&mut state.used),
            gone: std::mem::take(&mut state.gone),
            stopping: state.stopping,
        }
    }

    /// States how full the store may be, and how full the index knows it to be. For the keeper.
    pub(crate) fn measure(&self, kept_bytes: u64, bound_of: impl FnOnce(u64) -> u64) -> Fullness {
        let mut state = self.lock();
        state.kept_bytes = kept_bytes;
        let segment_bytes = self.segment_bytes.load(Ordering::Relaxed);
        state.bound_bytes = bound_of(state.kept_bytes + state.fresh_bytes + segment_bytes);
        drop(state);
        self.fullness()
    }

    /// Ends a round: whoever waits for room looks again, and gives up if there is none.
    pub(crate) fn end_round(&self) {
        let mut state = self.lock();
        state.rounds_ended = state.rounds_begun;
        drop(state);
        self.room.notify_waiters();
    }

    /// Has the keeper do its last round.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_one();
    }
}

/// Somebody who waits for room.
struct Waiting<'a> {
    ledger: &'a Ledger,
    bytes: u64,
    /// After this round there is no more hope.
    last_round: u64,
}

impl<'a> Waiting<'a> {
    fn new(ledger: &'a Ledger, bytes: u64) -> Self {
        let mut state = ledger.lock();
        state.wanted_bytes += bytes;
        state.woken = true;
        let last_round = state.rounds_begun + 1;
        drop(state);
        ledger.wake.notify_one();
        Self { ledger, bytes, last_round }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ledger.lock().wanted_bytes -= self.bytes;
    }
}

/// Room for a file that is being written; given back on drop.
pub(crate) struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
    /// Whether a file may be made for it. Not given back: the keeper counts anew.
    has_file: bool,
}

impl Reservation {
    /// No room yet; [`Ledger::reserve`] adds some.
    pub(crate) fn none(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), bytes: 0, has_file: false }
    }

    /// The file is in its place: writes down its use, and counts its bytes as stored.
    pub(crate) fn stored(self, key: FileKey, file_bytes: u64) {
        let bytes = bytes_on_disk(file_bytes);
        let mut state = self.ledger.lock();
        state.used.insert(key, Use { bytes, used_ms: now_ms() });
        state.fresh_bytes += bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.lock().reserved_bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;

    fn key(data: &[u8]) -> FileKey {
        FileKey::Blob(Digest::of(DigestFunction::Sha256, data))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_counts_until_it_is_given_up() {
        let ledger = Ledger::new(0, 10_000, Arc::default());
        let mut first = Reservation::none(&ledger);
        assert!(ledger.reserve(8000, &mut first).await);
        let mut second = Reservation::none(&ledger);
        assert!(!ledger.reserve(4096, &mut second).await);
        drop(first);
        assert!(ledger.reserve(4096, &mut second).await);
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_when_the_keeper_made_some() {
        let ledger = Ledger::new(10_000, 10_000, Arc::default());
        let waiting = {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let mut reservation = Reservation::none(&ledger);
                ledger.reserve(4096, &mut reservation).await
            })
        };
        let keeper = Arc::clone(&ledger);
        let round = tokio::task::spawn_blocking(move || {
            keeper.begin_round(Duration::from_secs(60));
            keeper.measure(1000, |_| 10_000);
            keeper.end_round();
        });
        round.await.unwrap();
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn no_more_files_are_made_than_there_may_be_and_each_is_counted_once() {
        let ledger = Ledger::new(0, 10_000, Arc::default());
        ledger.set_files_left(1);
        let (mut first, mut second) = (Reservation::none(&ledger), Reservation::none(&ledger));
        assert!(ledger.reserve_in_file(10, &mut first).await && ledger.reserve_in_file(10, &mut first).await);
        assert!(ledger.lacks_files());
        let keeper = Arc::clone(&ledger);
        let round = tokio::task::spawn_blocking(move || {
            keeper.begin_round(Duration::from_secs(60));
            keeper.end_round();
        });
        assert!(!ledger.reserve_in_file(10, &mut second).await);
        round.await.unwrap();
        // What is no file of its own is taken all the same.
        assert!(ledger.reserve(10, &mut second).await);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_there_is_none() {
        let ledger = Ledger::new(10_000, 10_000, Arc::default());
        let keeper = Arc::clone(&ledger);
        let round = tokio::task::spawn_blocking(move || {
            keeper.begin_round(Duration::from_secs(60));
            keeper.end_round();
        });
        assert!(!ledger.reserve(4096, &mut Reservation::none(&ledger)).await);
        round.await.unwrap();
        assert_eq!(ledger.fullness().wanted_bytes, 0);
    }

    #[test]
    fn a_stored_file_counts_before_and_after_the_keeper_took_it() {
        let ledger = Ledger::new(0, 100_000, Arc::default());
        Reservation::none(&ledger).stored(key(b"abc"), 3);
        assert_eq!(ledger.fullness().bytes, 4096);
        assert!(ledger.was_used(&key(b"abc")));
        let round = ledger.begin_round(Duration::ZERO);
        assert_eq!(round.used[&key(b"abc")].bytes, 4096);
        assert_eq!(ledger.fullness().bytes, 4096);
    }

    #[test]
    fn a_use_does_not_make_a_file_longer() {
        let ledger = Ledger::new(0, 100_000, Arc::default());
        Reservation::none(&ledger).stored(key(b"abc"), 5000);
        ledger.used([(key(b"abc"), 50_000)]);
        assert_eq!(ledger.begin_round(Duration::ZERO).used[&key(b"abc")].bytes, 8192);
    }

    #[test]
    fn a_lost_file_is_no_longer_used() {
        let ledger = Ledger::new(0, 100_000, Arc::default());
        ledger.used([(key(b"abc"), 3)]);
        ledger.gone(key(b"abc"));
        let round = ledger.begin_round(Duration::ZERO);
        assert!(round.used.is_empty());
        assert_eq!(round.gone, [key(b"abc")]);
    }
}
