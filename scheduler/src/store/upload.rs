//! [`Upload`]: a blob on its way into the store.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::codec::unpacker;
use castwork_cas::files::Stamp;
use castwork_cas::{Digest, Hasher, StoreError};
use tempfile::{NamedTempFile, TempPath};
use tokio::task::{JoinHandle, spawn_blocking};

use super::commit::{Before, Kept};
use super::layout::FileKey;
use super::ledger::Reservation;
use super::many;
use super::packed::{self, Packed};
use super::pins::PinGuard;
use super::read::Look;
use super::shared::{Shared, blocking, ended};

/// Bytes are written in pieces of at least this, so that small messages do not cost a call each.
const WRITE_BYTES_MIN: u64 = 256 * 1024;

/// Hashes a blob as it arrives and writes it to a temporary file; [`Upload::finish`] keeps it. A small blob
/// stays in memory until then. While some bytes are hashed and written, the next may come.
///
/// Dropping it removes the file. Not cancel-safe: after a call that was dropped, all others fail.
pub struct Upload {
    shared: Arc<Shared>,
    digest: Digest,
    received_bytes: u64,
    /// What has come since a thread has begun to work.
    incoming: Vec<Bytes>,
    incoming_bytes: u64,
    /// Not there while a thread works on them, nor after that failed.
    parts: Option<Parts>,
    working: Option<JoinHandle<(Parts, io::Result<()>)>>,
    reservation: Reservation,
    /// From the moment that it is stored until its use is written down nobody may evict it.
    pin: PinGuard,
}

struct Parts {
    pending: Vec<Bytes>,
    pending_bytes: u64,
    hasher: Hasher,
    /// What is written in place of the bytes, if they came compressed and that pays.
    packed: Option<Packed>,
    /// Made when there is something to write.
    file: Option<NamedTempFile>,
}

impl Upload {
    pub(crate) fn begin(shared: Arc<Shared>, digest: Digest) -> Self {
        let parts = Parts {
            pending: Vec::new(),
            pending_bytes: 0,
            hasher: Hasher::new(digest.function()),
            packed: None,
            file: None,
        };
        let pin = shared.pins.pin([digest]);
        let reservation = Reservation::none(&shared.ledger);
        Self {
            shared,
            digest,
            received_bytes: 0,
            incoming: Vec::new(),
            incoming_bytes: 0,
            parts: Some(parts),
            working: None,
            reservation,
            pin,
        }
    }

    /// What the blob is to be.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Has the blob be kept as it comes, compressed, if that pays; then its bytes come by [`Upload::append_packed`]. To be
    /// called before any of them, or it does nothing; nor does it for small blobs.
    pub fn keep_packed(&mut self) {
        let is_first = self.received_bytes == 0 && !FileKey::Blob(self.digest).is_small();
        if let Some(parts) = self.parts.as_mut().filter(|_| is_first) {
            parts.packed = Some(Packed::default());
        }
    }

    /// Takes the next bytes, and the zstd that they came out of; without that, all is kept plain.
    ///
    /// # Errors
    /// As [`Upload::append`].
    pub async fn append_packed(&mut self, data: Bytes, packed: Option<Vec<Bytes>>) -> Result<(), StoreError> {
        match packed {
            None => self.unpack().await?,
            Some(pieces) => {
                if let Some(packed) = self.parts.as_mut().and_then(|parts| parts.packed.as_mut()) {
                    packed.append(pieces);
                }
            }
        }
        self.append(data).await
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] as soon as there are more than the digest says, [`StoreError::Full`] if
    /// there is no room for them.
    pub async fn append(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.received_bytes += data.len() as u64;
        self.incoming_bytes += data.len() as u64;
        self.incoming.push(data);
        if self.received_bytes > self.digest.size_bytes() {
            let parts = self.take().await?;
            return Err(StoreError::mismatch(&self.digest, parts.into_digest()));
        }
        if self.incoming_bytes < WRITE_BYTES_MIN || FileKey::Blob(self.digest).is_small() {
            return Ok(());
        }
        let mut parts = self.take().await?;
        self.reserve(parts.pending_bytes).await?;
        if parts.packed.is_some() {
            return self.work(parts, Parts::write).await;
        }
        let shared = Arc::clone(&self.shared);
        self.working = Some(spawn_blocking(move || {
            let done = parts.write(&shared);
            (parts, done)
        }));
        Ok(())
    }

    /// Writes out what is still in memory.
    ///
    /// # Errors
    /// As [`Upload::append`].
    pub async fn flush(&mut self) -> Result<(), StoreError> {
        // A small one is written when all of it is there, with others.
        if FileKey::Blob(self.digest).is_small() {
            return Ok(());
        }
        let parts = self.take().await?;
        self.reserve(parts.pending_bytes).await?;
        self.work(parts, Parts::write).await
    }

    /// Writes out what is still in memory, so that somebody may go on with it later: plain.
    ///
    /// # Errors
    /// As [`Upload::append`].
    pub async fn put_away(&mut self) -> Result<(), StoreError> {
        self.unpack().await?;
        self.flush().await
    }

    async fn unpack(&mut self) -> Result<(), StoreError> {
        let received_bytes = self.received_bytes;
        let parts = self.take().await?;
        if parts.packed.is_none() {
            self.parts = Some(parts);
            return Ok(());
        }
        self.work(parts, move |parts, shared| parts.unpack(shared, received_bytes)).await
    }

    /// Does something that blocks with the parts, which are lost if it fails.
    async fn work(
        &mut self,
        mut parts: Parts,
        work: impl FnOnce(&mut Parts, &Shared) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let (parts, done) = blocking(move || {
            let done = work(&mut parts, &shared);
            (parts, done)
        })
        .await;
        done.map_err(|error| self.shared.write_failed(&self.digest, "write", error))?;
        self.parts = Some(parts);
        Ok(())
    }

    /// Verifies the blob and keeps it. When this returns, a power cut will not take it away.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if the bytes are not the digest's.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let parts = self.take().await?;
        if FileKey::Blob(self.digest).is_small() {
            many::put_one(&self.shared, self.digest, parts.into_bytes()).await?;
            self.shared.pins.hold([self.digest]);
            return Ok(());
        }
        self.reserve(parts.pending_bytes).await?;
        let (shared, digest) = (Arc::clone(&self.shared), self.digest);
        match blocking(move || parts.finish(&shared, &digest)).await? {
            Finished::IsThere => {
                self.shared.ledger.used([(FileKey::Blob(digest), digest.size_bytes())]);
                self.shared.pins.hold([digest]);
            }
            Finished::File(written) => self.commit(written).await?,
        }
        Ok(())
    }

    async fn commit(self, written: Written) -> Result<(), StoreError> {
        let Self { shared, digest, reservation, pin, .. } = self;
        let Written { temporary, bytes, before } = written;
        let (key, ledger) = (FileKey::Blob(digest), Arc::clone(&shared.ledger));
        let (path, verified) = (shared.layout.path(&key), Arc::clone(&shared.verified));
        let (counters, offers) = (Arc::clone(&shared.counters), shared.offers.get().cloned());
        let account = move |kept| {
            if kept == Kept::Earlier {
                // Whoever stored it has counted its bytes, which may be fewer.
                return ledger.used([(key, digest.size_bytes())]);
            }
            if before == Before::Goes {
                ledger.gone(key);
            }
            reservation.stored(key, bytes);
            // With its name: that it has one now is a change.
            if let Ok(metadata) = path.metadata() {
                verified.insert(&digest, Stamp::of(&metadata));
            }
            drop(pin);
            counters.blobs_stored.add(1);
            counters.blob_bytes_stored.add(digest.size_bytes());
            if let Some(offers) = offers {
                offers.blob(&digest);
            }
        };
        let committed = shared.committer.commit(key, temporary, before, account).await;
        committed.map_err(|error| shared.write_failed(&digest, "keep", error))?;
        shared.pins.hold([digest]);
        Ok(())
    }

    /// The parts, with all that has come, when nobody works on them any more.
    async fn take(&mut self) -> Result<Parts, StoreError> {
        if let Some(working) = self.working.take() {
            let (parts, done) = ended(working).await;
            done.map_err(|error| self.shared.write_failed(&self.digest, "write", error))?;
            self.parts = Some(parts);
        }
        let mut parts = self.parts.take().ok_or_else(|| StoreError::Disk {
            step: format!("go on with the upload of `{}`", self.digest),
            source: io::Error::other("it was broken off"),
        })?;
        parts.pending.append(&mut self.incoming);
        parts.pending_bytes += std::mem::take(&mut self.incoming_bytes);
        Ok(parts)
    }

    async fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        let ledger = &self.shared.ledger;
        if ledger.reserve_in_file(bytes, &mut self.reservation).await {
            return Ok(());
        }
        let lacks_files = ledger.lacks_files();
        Err(if lacks_files { self.shared.no_files(&self.digest) } else { self.shared.no_room(&self.digest) })
    }
}

enum Finished {
    File(Written),
    IsThere,
}

/// A file that is on stable storage, and has no name yet.
struct Written {
    temporary: TempPath,
    bytes: u64,
    before: Before,
}

impl Parts {
    /// Hashes and writes what is pending. Blocks.
    fn write(&mut self, shared: &Shared) -> io::Result<()> {
        self.hash();
        self.write_pending(shared)
    }

    fn hash(&mut self) {
        for piece in &self.pending {
            self.hasher.update(piece);
        }
    }

    fn write_pending(&mut self, shared: &Shared) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // As long as nothing is written, what is pending is all there is.
        let is_first = self.file.is_none();
        self.packed.take_if(|packed| is_first && !packed.may_pay(self.pending_bytes));
        let plain = std::mem::take(&mut self.pending);
        let pieces = self.packed.as_mut().map_or(plain, Packed::take);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(NamedTempFile::new_in(shared.layout.tmp())?),
        };
        for piece in pieces {
            file.write_all(&piece)?;
        }
        self.pending_bytes = 0;
        Ok(())
    }

    /// Goes on plain. `received_bytes` have come so far, of which what is pending is not written. Blocks.
    fn unpack(&mut self, shared: &Shared, received_bytes: u64) -> io::Result<()> {
        self.packed = None;
        let Some(packed) = self.file.take() else { return Ok(()) };
        let mut plain = NamedTempFile::new_in(shared.layout.tmp())?;
        let written_bytes = received_bytes - self.pending_bytes;
        let copied = io::copy(&mut unpacker(packed.reopen()?)?.take(written_bytes), &mut plain)?;
        if copied != written_bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the compressed bytes are not all there",
            ));
        }
        self.file = Some(plain);
        Ok(())
    }

    /// Ends what is kept packed, or goes on plain if the rest of it did not pay. Blocks.
    fn end_packed(&mut self, shared: &Shared, digest: &Digest) -> io::Result<()> {
        let Some(packed) = &mut self.packed else { return Ok(()) };
        if !packed::pays(digest.size_bytes(), packed.bytes) {
            return self.unpack(shared, digest.size_bytes());
        }
        let rest = packed.take();
        let trailer = packed::trailer(packed.bytes);
        let file = self.file.as_mut().expect("a blob of some bytes has been written to a file");
        rest.iter().try_for_each(|piece| file.write_all(piece))?;
        file.write_all(&trailer)
    }

    /// All bytes of a small blob, of which none was written.
    fn into_bytes(mut self) -> Bytes {
        if self.pending.len() == 1 {
            return self.pending.swap_remove(0);
        }
        self.pending.concat().into()
    }

    /// The digest of all bytes, written or not.
    fn into_digest(mut self) -> Digest {
        self.hash();
        self.hasher.finish()
    }

    /// Verifies the bytes and has the disk keep them. Blocks.
    fn finish(mut self, shared: &Shared, digest: &Digest) -> Result<Finished, StoreError> {
        self.hash();
        let got = std::mem::replace(&mut self.hasher, Hasher::new(digest.function())).finish();
        if got != *digest {
            return Err(StoreError::mismatch(digest, got));
        }
        let before = match shared.look(digest) {
            // Another upload may have been faster.
            Look::Verified => return Ok(Finished::IsThere),
            Look::Absent => Before::Stays,
            Look::Unreadable => Before::Goes,
        };
        self.write_pending(shared)
            .and_then(|()| self.end_packed(shared, digest))
            .map_err(|error| shared.write_failed(digest, "write", error))?;
        let file = self.file.expect("a blob of some bytes has been written to a file");
        let bytes = sync(file.as_file(), shared.durable)
            .map_err(|error| shared.write_failed(digest, "sync", error))?;
        Ok(Finished::File(Written { temporary: file.into_temp_path(), bytes, before }))
    }
}

/// Returns its length. If this fails, nobody knows what is on the disk, and asking again would not tell: the file goes.
fn sync(file: &File, durable: bool) -> io::Result<u64> {
    if durable {
        file.sync_data()?;
    }
    Ok(file.metadata()?.len())
}
