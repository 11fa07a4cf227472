//! [`Appender`]: writes records at the end of the newest segment, many with one write and one sync.
//!
//! One thread takes all batches that are ready. While it syncs them the next ones gather, so uploads that
//! come together share a sync, and one that comes alone waits for nobody.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tracing::{error, warn};

use super::catalog::Catalog;
use super::contents::Contents;
use super::record::{ALIGNMENT, Record, Salt};
use super::table::{Entry, Place, Table};
use crate::store::commit::Kept;
use crate::store::layout::FileKey;
use crate::store::ledger::now_ms;

/// The most bytes that share a sync; a batch that is larger by itself has its own.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Batches that wait for the thread; whoever comes then waits to wait.
const WAITING_BATCHES_MAX: usize = 256;

/// Records in a segment: what it contains is kept in memory until it is full.
const RECORDS_MAX: u64 = 65_536;

/// Where a body comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client. A blob that is there already is not written again; a result takes an earlier one's place.
    New,
    /// A client, too; a blob that is there already can't be read, and this one takes its place.
    Repair,
    /// A file of an older layout: it yields to what is there.
    Older { stored_ms: u64 },
    /// Another segment, which is to go.
    Copy { place: Place, sequence: u64, stored_ms: u64 },
}

/// A body to keep. It was verified before.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) key: FileKey,
    pub(crate) body: Bytes,
    pub(crate) origin: Origin,
}

/// For each item, whether it was written.
type Answer = io::Result<Vec<Kept>>;

struct Batch {
    items: Vec<Item>,
    done: Box<dyn FnOnce(Answer) + Send>,
}

enum Order {
    Append(Batch),
    /// Has the newest segment be full.
    Seal(mpsc::Sender<()>),
}

/// See the module. Stops when it is dropped, after what was handed to it.
pub(super) struct Appender {
    queue: Option<mpsc::Sender<Order>>,
    /// A permit for each batch of a client that may wait in the queue.
    room: Semaphore,
    thread: Option<JoinHandle<()>>,
}

impl Appender {
    pub(super) fn start(
        table: Arc<Table>,
        catalog: Arc<Catalog>,
        segment_bytes_max: u64,
        durable: bool,
    ) -> io::Result<Self> {
        let (queue, orders) = mpsc::channel();
        let work = Work { table, catalog, segment_bytes_max, durable, active: None };
        let thread =
            std::thread::Builder::new().name("appender".to_owned()).spawn(move || work.run(&orders))?;
        Ok(Self { queue: Some(queue), room: Semaphore::new(WAITING_BATCHES_MAX), thread: Some(thread) })
    }

    fn send(&self, order: Order) -> io::Result<()> {
        let queue = self.queue.as_ref().expect("the queue is there until drop");
        queue.send(order).map_err(|_| stopped())
    }

    /// Appends records and returns when they are kept; for each, whether it was written.
    ///
    /// After an error none of them counts.
    pub(super) async fn append(&self, items: Vec<Item>) -> Answer {
        let _permit = self.room.acquire().await.map_err(|_| stopped())?;
        let (done, answer) = oneshot::channel();
        // Whoever asked may have gone; the records stay.
        let done = Box::new(move |answer| drop(done.send(answer)));
        self.send(Order::Append(Batch { items, done }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// As [`Appender::append`]. Blocks.
    pub(super) fn append_blocking(&self, items: Vec<Item>) -> Answer {
        let (done, answer) = mpsc::channel();
        let done = Box::new(move |answer| drop(done.send(answer)));
        self.send(Order::Append(Batch { items, done }))?;
        answer.recv().map_err(|_| stopped())?
    }

    /// Has the newest segment take no more, so that it can be compacted, or is found whole by the next
    /// start. Blocks.
    pub(super) fn seal(&self) {
        let (done, answer) = mpsc::channel();
        if self.send(Order::Seal(done)).is_ok() {
            // If it stopped there is nothing to seal.
            let _ = answer.recv();
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the appender has stopped")
}

impl Drop for Appender {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread, and its clients got errors.
            let _ = thread.join();
        }
    }
}

/// The segment that is appended to.
struct Active {
    number: u32,
    salt: Salt,
    file: File,
    bytes: u64,
    contents: Contents,
}

/// Records of a group, encoded, with the places that they will have.
#[derive(Default)]
struct Group {
    buffer: Vec<u8>,
    records: Vec<Placed>,
}

struct Placed {
    key: FileKey,
    entry: Entry,
    origin: Origin,
    header: std::ops::Range<usize>,
}

struct Work {
    table: Arc<Table>,
    catalog: Arc<Catalog>,
    segment_bytes_max: u64,
    durable: bool,
    active: Option<Active>,
}

impl Work {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        let mut next = None;
        while let Some(order) = next.take().or_else(|| orders.recv().ok()) {
            match order {
                Order::Append(batch) => {
                    let mut bytes = bytes_of(&batch);
                    let mut group = vec![batch];
                    while bytes < GROUP_BYTES_MAX {
                        match orders.try_recv() {
                            Ok(Order::Append(batch)) => {
                                bytes += bytes_of(&batch);
                                group.push(batch);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(group);
                }
                Order::Seal(done) => {
                    self.seal();
                    let _ = done.send(());
                }
            }
        }
    }

    fn append(&mut self, batches: Vec<Batch>) {
        let written = self.write(&batches);
        if let Err(error) = &written {
            error!(%error, "records could not be kept");
        }
        match written {
            Ok(answers) => batches.into_iter().zip(answers).for_each(|(batch, kept)| (batch.done)(Ok(kept))),
            Err(error) => batches
                .into_iter()
                .for_each(|batch| (batch.done)(Err(io::Error::new(error.kind(), error.to_string())))),
        }
    }

    fn write(&mut self, batches: &[Batch]) -> io::Result<Vec<Vec<Kept>>> {
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let active = self.active.insert(active);
        let mut group = Group::default();
        let mut blobs = HashSet::new();
        let mut keep = |item: &Item| {
            if blobs.contains(&item.key) || is_there(&self.table, item) {
                return Kept::Earlier;
            }
            if matches!(item.key, FileKey::Blob(_)) {
                blobs.insert(item.key);
            }
            group.push(item, active);
            Kept::This
        };
        let kept: Vec<Vec<Kept>> =
            batches.iter().map(|batch| batch.items.iter().map(&mut keep).collect()).collect();
        if group.records.is_empty() {
            return Ok(kept);
        }
        let written = active.file.write_all(&group.buffer).and_then(|()| sync(&active.file, self.durable));
        if let Err(error) = written {
            self.abandon();
            return Err(error);
        }
        active.bytes += group.buffer.len() as u64;
        for placed in &group.records {
            active.contents.push(placed.entry.place.offset, &group.buffer[placed.header.clone()]);
        }
        self.catalog.set_bytes(active.number, active.bytes);
        let is_full = active.bytes >= self.segment_bytes_max || active.contents.records >= RECORDS_MAX;
        self.publish(&group.records);
        if is_full {
            self.seal();
        }
        Ok(kept)
    }

    fn begin(&self) -> io::Result<Active> {
        let (number, salt, file) = self.catalog.create(self.durable)?;
        Ok(Active { number, salt, file, bytes: 0, contents: Contents::default() })
    }

    /// Has the table point to records that are kept now.
    fn publish(&self, records: &[Placed]) {
        let (mut lost, mut repaired) = (Vec::new(), false);
        for Placed { key, entry, origin, .. } in records {
            let gone = match origin {
                Origin::New | Origin::Repair => self.table.insert(key, *entry),
                Origin::Older { .. } => self.table.insert_if(key, *entry, |_| false),
                Origin::Copy { place, .. } => {
                    let from = Entry { place: *place, ..*entry };
                    Some(if self.table.relocate(key, *place, entry.place) { from } else { *entry })
                }
            };
            lost.extend(gone);
            match (origin, key, gone) {
                (Origin::New, FileKey::Result(..), Some(gone)) => self.catalog.void(gone.place),
                // Or the next start has the choice of two, and takes the one that it finds first.
                (Origin::Repair, _, Some(gone)) => {
                    self.catalog.void(gone.place);
                    repaired = true;
                }
                _ => {}
            }
        }
        if repaired && let Err(error) = self.catalog.sync_voids() {
            warn!(%error, "what was repaired may be unreadable again after a loss of power");
        }
        self.catalog.count(records.iter().map(|placed| placed.entry), lost);
    }

    /// After a failed write or sync nobody knows what is in the file from there on, and another sync would
    /// not tell: what was kept before stays, and the next records go into another segment.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Err(error) = active.file.set_len(active.bytes) {
            warn!(%error, segment = active.number, "the end of a segment could not be cut off");
            let length = active.file.metadata().map_or(active.bytes, |metadata| metadata.len());
            self.catalog.set_bytes(active.number, length);
        }
        self.catalog.seal(active.number);
        // Or each upload to a full disk would leave an empty segment.
        if active.bytes == 0
            && let Err(error) = self.catalog.remove(active.number)
        {
            warn!(%error, segment = active.number, "an empty segment could not be removed");
        }
    }

    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        self.catalog.seal(active.number);
        let (mut file, begin) = (active.file, active.bytes);
        let contents = active.contents.finish(begin, &active.salt);
        let written = file.write_all(&contents).and_then(|()| sync(&file, self.durable));
        match written {
            Ok(()) => self.catalog.set_bytes(active.number, begin + contents.len() as u64),
            // It is read record by record then.
            Err(error) => {
                warn!(%error, segment = active.number, "a segment is left without contents");
                let _ = file.set_len(begin);
            }
        }
    }
}

impl Group {
    fn push(&mut self, item: &Item, active: &Active) {
        let offset = active.bytes + self.buffer.len() as u64;
        let offset = u32::try_from(offset).expect("a segment is full long before");
        let place = Place { segment: active.number, offset };
        let now_ms = now_ms();
        let (sequence, stored_ms) = match item.origin {
            Origin::New | Origin::Repair => (None, now_ms),
            Origin::Older { stored_ms } => (None, stored_ms),
            Origin::Copy { sequence, stored_ms, .. } => (Some(sequence), stored_ms),
        };
        let body_bytes = u32::try_from(item.body.len()).expect("only small bodies are appended");
        let record = Record {
            key: item.key,
            sequence: sequence.unwrap_or(u64::from(place.segment) << 32 | u64::from(offset)),
            stored_ms,
            body_bytes,
        };
        let begin = self.buffer.len();
        record.encode(&active.salt, &mut self.buffer);
        let header = begin..self.buffer.len();
        self.buffer.extend_from_slice(&item.body);
        self.buffer.resize(self.buffer.len().next_multiple_of(ALIGNMENT), 0);
        let entry = Entry { used_ms: stored_ms, place, bytes: record.bytes() };
        self.records.push(Placed { key: item.key, entry, origin: item.origin, header });
    }
}

/// Whether an item need not be written.
fn is_there(table: &Table, item: &Item) -> bool {
    match (item.origin, &item.key) {
        (Origin::New, FileKey::Result(..)) | (Origin::Repair, _) => false,
        (Origin::New, FileKey::Blob(_)) | (Origin::Older { .. }, _) => table.get(&item.key).is_some(),
        (Origin::Copy { place, .. }, _) => table.get(&item.key).is_none_or(|entry| entry.place != place),
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.items.iter().map(|item| item.body.len()).sum()
}

fn sync(file: &File, durable: bool) -> io::Result<()> {
    if durable { file.sync_data() } else { Ok(()) }
}
