//! [`Verifier`]: reads everything that is kept, whole, and drops what is not what its name says.
//!
//! In the background at a set rate, over and over; or all at once, for `castwork-scheduler verify`.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castwork_cas::StoreError;
use tracing::{info, warn};

use super::layout::FileKey;
use super::scan::Scan;
use super::shared::Shared;

/// In the background, everything is read about once in this time, if the rate allows.
const PASS_EVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Before the first pass, so that a server that has just started can serve.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// What a pass over everything found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blobs and results that were read.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were dropped because their bytes were wrong.
    pub dropped: u64,
    /// Records, segments, folders and files that can't be read, which says nothing of their bytes.
    pub unreadable: u64,
}

/// Asks a pass to end, and lets it wait.
#[derive(Debug, Default)]
pub(super) struct Stop {
    is_asked: Mutex<bool>,
    asked: Condvar,
}

impl Stop {
    fn ask(&self) {
        *self.is_asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.asked.notify_all();
    }

    /// Waits, at most for `time`. Returns whether to stop.
    fn wait(&self, time: Duration) -> bool {
        let is_asked = self.is_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_asked, _) = self
            .asked
            .wait_timeout_while(is_asked, time, |is_asked| !*is_asked)
            .unwrap_or_else(PoisonError::into_inner);
        *is_asked
    }
}

/// The thread that verifies in the background. Stops when it is dropped.
pub(super) struct Verifier {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Verifier {
    /// Reads at most `bytes_per_s`.
    pub(super) fn start(shared: Arc<Shared>, bytes_per_s: u64) -> io::Result<Self> {
        let stop = Arc::<Stop>::default();
        let asked = Arc::clone(&stop);
        let run = move || {
            let mut wait = FIRST_AFTER;
            while !asked.wait(wait) {
                let begin = Instant::now();
                let found = pass(&shared, Some(bytes_per_s), &asked);
                let Verification { count, bytes, dropped, unreadable } = found;
                info!(count, bytes, dropped, unreadable, "everything was verified");
                wait = PASS_EVERY.saturating_sub(begin.elapsed());
            }
        };
        let thread = std::thread::Builder::new().name("verifier".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread.
            let _ = thread.join();
        }
    }
}

/// Reads everything once, as fast as it goes. Blocks.
pub(super) fn verify_all(shared: &Shared) -> Verification {
    pass(shared, None, &Stop::default())
}

struct Pass<'a> {
    shared: &'a Shared,
    stop: &'a Stop,
    bytes_per_s: Option<u64>,
    begin: Instant,
    dropped_before: u64,
    found: Verification,
}

fn pass(shared: &Shared, bytes_per_s: Option<u64>, stop: &Stop) -> Verification {
    let dropped_before = shared.counters.corrupt.value();
    let found = Verification::default();
    let mut pass = Pass { shared, stop, bytes_per_s, begin: Instant::now(), dropped_before, found };
    if pass.segments() && pass.files() {
        shared.counters.verifications.add(1);
    }
    // Readers may have dropped some of them meanwhile; they were wrong all the same.
    pass.found.dropped = shared.counters.corrupt.value() - pass.dropped_before;
    pass.found
}

impl Pass<'_> {
    /// Returns whether to go on.
    fn segments(&mut self) -> bool {
        let shared = self.shared;
        // From another one each time, because not every pass comes to its end.
        let mut numbers = shared.segments.numbers();
        let first = rand::random_range(0..numbers.len().max(1));
        numbers.rotate_left(first);
        for number in numbers {
            let mut goes_on = true;
            let read = shared.segments.verify(number, |bytes| {
                goes_on = self.read(bytes);
                goes_on
            });
            self.found.unreadable += read.unwrap_or_else(|error| {
                warn!(%error, segment = number, "a segment can't be read");
                1
            });
            if !goes_on {
                return false;
            }
        }
        true
    }

    /// Returns whether to go on.
    fn files(&mut self) -> bool {
        let mut scan = Scan::new(&self.shared.layout);
        while let Some(found) = scan.next_folder() {
            for (key, file) in found.files.iter().chain(&found.small) {
                if let Err(error) = self.file(key) {
                    warn!(error = crate::front::errors::with_cause(&error), %key, "a file can't be read");
                    self.found.unreadable += 1;
                }
                if !self.read(file.bytes) {
                    return false;
                }
            }
        }
        true
    }

    fn file(&self, key: &FileKey) -> Result<(), StoreError> {
        match key {
            FileKey::Blob(digest) if !key.is_small() => self.shared.verify_file(digest),
            _ => self.shared.read_small(key).map(|_| ()),
        }
    }

    /// Counts what was read, and waits as long as the rate asks for. Returns whether to go on.
    fn read(&mut self, bytes: u64) -> bool {
        self.found.count += 1;
        self.found.bytes += bytes;
        self.shared.counters.verified_bytes.add(bytes);
        let Some(bytes_per_s) = self.bytes_per_s else { return true };
        let millis = self.found.bytes.saturating_mul(1000) / bytes_per_s.max(1);
        let ahead = Duration::from_millis(millis).saturating_sub(self.begin.elapsed());
        !self.stop.wait(ahead)
    }
}
