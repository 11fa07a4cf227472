//! [`Fetcher`]: brings blobs into the local CAS, each once however many actions want it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use castwork_cas::merkle::{FlatTree, Limits, walk_batched};
use castwork_cas::remote::Remote;
use castwork_cas::{BlobStore, ByteRange, Digest, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, watch};

use crate::blocking::blocking;
use crate::failure::Failure;
use crate::groups::{in_groups, is_small};
use crate::local::Local;

/// Transfers at once, of all actions together. Bounds memory: each holds one group of small blobs
/// or one piece of a large one.
const TRANSFERS_MAX: usize = 16;

/// How often to look again for a blob that another action was to fetch and did not.
const ROUNDS_MAX: usize = 8;

/// Most bytes of directories that are kept in memory; beyond that all are forgotten.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;

/// Fetches for all actions of a worker.
pub(crate) struct Fetcher {
    local: Local,
    transfers: Semaphore,
    flights: Flights,
    directories: Mutex<Directories>,
}

/// Directories that were read: each action reads hundreds, and most are those of the action before.
#[derive(Default)]
struct Directories {
    known: HashMap<Digest, Bytes>,
    bytes: u64,
}

/// A directory, or why it can't be had.
type Answer = (Digest, Result<Bytes, StoreError>);

/// What was fetched for one action.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn add(&self, claims: &[Claim]) {
        self.blobs.fetch_add(claims.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(claims.iter().map(|claim| claim.digest.size_bytes()).sum(), Ordering::Relaxed);
    }

    /// How many blobs, and their bytes.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.blobs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Blobs that are being fetched; who else wants one waits until its entry is gone.
#[derive(Clone, Default)]
struct Flights(Arc<Mutex<HashMap<Digest, watch::Receiver<()>>>>);

/// The duty to fetch one blob. Ends when dropped, done or not.
struct Claim {
    digest: Digest,
    flights: Flights,
    /// Dropped after the entry was removed, which wakes those who wait.
    _done: watch::Sender<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.flights.open().remove(&self.digest);
    }
}

impl Flights {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims what nobody fetches; returns what to wait for besides.
    fn claim(&self, digests: &[Digest]) -> (Vec<Claim>, Vec<watch::Receiver<()>>) {
        let mut open = self.open();
        let (mut claims, mut others) = (Vec::new(), Vec::new());
        for digest in digests {
            if let Some(flight) = open.get(digest) {
                others.push(flight.clone());
                continue;
            }
            let (done, flight) = watch::channel(());
            open.insert(*digest, flight);
            claims.push(Claim { digest: *digest, flights: self.clone(), _done: done });
        }
        (claims, others)
    }
}

impl Fetcher {
    /// Fetches into `local`.
    pub(crate) fn new(local: Local) -> Self {
        let transfers = Semaphore::new(TRANSFERS_MAX);
        Self { local, transfers, flights: Flights::default(), directories: Mutex::default() }
    }

    /// Brings every directory of a tree, and reads them.
    pub(crate) async fn tree(
        &self,
        remote: &Remote,
        root: &Digest,
        tally: &Tally,
    ) -> Result<FlatTree, Failure> {
        let level = |wanted: Vec<Digest>| self.level(remote, wanted, tally);
        walk_batched(root, level, &Limits::default()).await.map_err(Failure::walk("fetch the input tree"))
    }

    /// Brings blobs.
    ///
    /// # Errors
    /// [`Failure::Missing`] with all that the server doesn't have.
    pub(crate) async fn blobs(
        &self,
        remote: &Remote,
        digests: BTreeSet<Digest>,
        tally: &Tally,
    ) -> Result<(), Failure> {
        if digests.is_empty() {
            return Ok(());
        }
        let absent = self.bring(remote, digests.into_iter().collect(), tally).await;
        let absent = absent.map_err(Failure::store("fetch inputs"))?;
        if absent.is_empty() { Ok(()) } else { Err(Failure::Missing(absent)) }
    }

    async fn level(&self, remote: &Remote, wanted: Vec<Digest>, tally: &Tally) -> Vec<Answer> {
        let (mut answers, wanted) = self.known(wanted);
        if wanted.is_empty() {
            return answers;
        }
        if let Err(error) = self.bring(remote, wanted.clone(), tally).await {
            // One answer with the error is enough to end the walk.
            return wanted.first().map(|digest| (*digest, Err(error))).into_iter().collect();
        }
        let local = self.local.clone();
        let read = move || -> Vec<Answer> {
            let read = |digest: &Digest| match local.blobs().get_bytes(digest) {
                Ok(bytes) => bytes.ok_or(StoreError::Missing(*digest)),
                Err(error) => Err(error),
            };
            wanted.iter().map(|digest| (*digest, read(digest))).collect()
        };
        let read = blocking(read).await;
        self.learn(&read);
        answers.extend(read);
        answers
    }

    /// Parts what is in memory from what has to be looked for.
    fn known(&self, wanted: Vec<Digest>) -> (Vec<Answer>, Vec<Digest>) {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for digest in wanted {
            match directories.known.get(&digest) {
                Some(bytes) => known.push((digest, Ok(bytes.clone()))),
                None => unknown.push(digest),
            }
        }
        (known, unknown)
    }

    fn learn(&self, read: &[Answer]) {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, bytes) in read {
            let Ok(bytes) = bytes else { continue };
            if directories.bytes + digest.size_bytes() > DIRECTORY_BYTES_MAX {
                *directories = Directories::default();
            }
            if directories.known.insert(*digest, bytes.clone()).is_none() {
                directories.bytes += digest.size_bytes();
            }
        }
    }

    /// Brings blobs; returns those that the server lacks.
    async fn bring(
        &self,
        remote: &Remote,
        mut wanted: Vec<Digest>,
        tally: &Tally,
    ) -> Result<Vec<Digest>, StoreError> {
        let mut absent = Vec::new();
        for _ in 0..ROUNDS_MAX {
            wanted = self.local.blobs().find_missing(&wanted).await?;
            wanted.retain(|digest| !absent.contains(digest));
            if wanted.is_empty() {
                return Ok(absent);
            }
            let (claims, others) = self.flights.claim(&wanted);
            let claims = self.still_missing(claims).await?;
            tally.add(&claims);
            absent.extend(self.fetch(remote, claims).await?);
            for mut other in others {
                // Fails when the other has ended, which is what is waited for.
                let _ = other.changed().await;
            }
        }
        let source = std::io::Error::other(format!("`{}` was fetched and is gone again", wanted[0]));
        Err(StoreError::Disk { step: "keep inputs in the local CAS".to_owned(), source })
    }

    /// Gives up claims to what has come since it was looked for: another flight may have ended
    /// between that and the claim. Whoever fetches keeps the blob before the claim ends, so what is
    /// missing now stays so until it is fetched under this claim.
    async fn still_missing(&self, mut claims: Vec<Claim>) -> Result<Vec<Claim>, StoreError> {
        let claimed: Vec<Digest> = claims.iter().map(|claim| claim.digest).collect();
        let missing: HashSet<Digest> = self.local.blobs().find_missing(&claimed).await?.into_iter().collect();
        claims.retain(|claim| missing.contains(&claim.digest));
        Ok(claims)
    }

    async fn fetch(&self, remote: &Remote, claims: Vec<Claim>) -> Result<Vec<Digest>, StoreError> {
        let (small, large): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| is_small(&claim.digest));
        let groups = in_groups(small, |claim| claim.digest);
        let transfers = groups.into_iter().chain(large.into_iter().map(|claim| vec![claim]));
        stream::iter(transfers)
            .map(|claims| self.transfer(remote, claims))
            .buffer_unordered(TRANSFERS_MAX)
            .try_concat()
            .await
    }

    /// Brings a group of small blobs, or one large blob.
    async fn transfer(&self, remote: &Remote, claims: Vec<Claim>) -> Result<Vec<Digest>, StoreError> {
        let _permit = self.transfers.acquire().await.expect("nobody closes it");
        match &claims[..] {
            [claim] if !is_small(&claim.digest) => self.stream(remote, &claim.digest).await,
            claims => {
                let digests: Vec<Digest> = claims.iter().map(|claim| claim.digest).collect();
                self.batch(remote, &digests).await
            }
        }
    }

    async fn stream(&self, remote: &Remote, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let brought =
            async { self.local.blobs().put(digest, remote.get(digest, ByteRange::ALL).await?).await };
        match brought.await {
            Ok(()) => Ok(Vec::new()),
            Err(StoreError::Missing(_)) => Ok(vec![*digest]),
            Err(error) => Err(error),
        }
    }

    async fn batch(&self, remote: &Remote, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let (mut absent, mut brought) = (Vec::new(), Vec::new());
        for (digest, answer) in remote.get_many(digests).await {
            match answer {
                Ok(data) => brought.push((digest, data)),
                Err(StoreError::Missing(_)) => absent.push(digest),
                Err(error) => return Err(error),
            }
        }
        let local = self.local.clone();
        let keep =
            move || brought.iter().try_for_each(|(digest, data)| local.blobs().put_bytes(digest, data));
        blocking(keep).await?;
        Ok(absent)
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    #[tokio::test]
    async fn a_blob_is_claimed_once_and_given_up_claims_can_be_taken_over() {
        let flights = Flights::default();
        let digests = [Digest::of(DigestFunction::Sha256, b"a"), Digest::of(DigestFunction::Sha256, b"b")];
        let (first, waits) = flights.claim(&digests[..1]);
        assert_eq!((first.len(), waits.len()), (1, 0));
        let (second, mut waits) = flights.claim(&digests);
        assert_eq!((second.len(), waits.len()), (1, 1));
        drop(first);
        // Returns, and doesn't hang, because the first has ended.
        assert!(waits[0].changed().await.is_err());
        let (third, waits) = flights.claim(&digests);
        assert_eq!((third.len(), waits.len()), (1, 1));
    }
}
