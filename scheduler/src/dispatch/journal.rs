//! [`Journal`]: which operations there are, on disk, so that who waits for one finds it after a restart.
//!
//! A file of lines, each a record in JSON, that is only appended to. A thread of its own writes them, all that
//! have gathered at a time, and only then is a client told the name of its operation: the name outlives the
//! process from then on. It is not synced: what a power cut takes is answered with `NOT_FOUND`, upon which
//! clients execute again, and nothing but the wait is lost. When most of the file is about what has ended, it
//! is written anew.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use castwork_cas::{ActionKey, Digest, DigestFunction};
use castwork_proto::reapi::RequestMetadata;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::queue::{OperationId, Origin, Request, id_from_hex, name_matches};

/// Below this many bytes the file is not written anew.
const COMPACT_MIN: u64 = 1 << 20;

/// Batches that are written at once, at most.
const BATCH_MAX: usize = 4_096;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Opened(Opened),
    /// The operation.
    Started(String),
    /// The operation.
    Ended(String),
    /// Pattern and reason.
    Drained(String, String),
    /// Pattern.
    Undrained(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    operation: String,
    instance: String,
    function: String,
    hash: String,
    size_bytes: u64,
    priority: i32,
    run: String,
    principal: String,
    lookup: bool,
    queued_unix_nanos: i64,
    /// What the client stated about its build, encoded, in hexadecimal.
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

/// What was in the file when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The operations that had not ended, in the order in which they came, and whether they were at a worker.
    pub(super) operations: Vec<(Request, bool)>,
    /// Patterns of workers that were drained, and why.
    pub(super) drains: Vec<(Arc<str>, Arc<str>)>,
}

type Then = Box<dyn FnOnce() + Send>;

/// Records, and what to do when they are written.
type Batch = (Vec<Record>, Option<Then>);

/// Writes the file, from a thread of its own.
pub struct Journal {
    records: Option<mpsc::Sender<Batch>>,
    /// What nobody waits for goes with the next that somebody does, or with [`Journal::flush`].
    waiting: Mutex<Vec<Record>>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Reads the file at `path`, if there is one, and goes on with it.
    ///
    /// # Errors
    /// If the file can't be read or written. Lines that mean nothing are left out: the last one may be half.
    pub fn open(path: &Path) -> io::Result<(Self, Recovered)> {
        let text = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut live = Live::default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => live.take(&record, line),
                Err(error) => warn!(%error, path = %path.display(), "a line of the journal means nothing"),
            }
        }
        let recovered = live.recovered();
        let mut file = Lines::new(path, live)?;
        let (records, received) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || while file.write_some(&received) {})?;
        let journal = Self { records: Some(records), waiting: Mutex::default(), writer: Some(writer) };
        Ok((journal, recovered))
    }

    /// Notes an operation, and whether it is with a worker already, and does `then` when that is written.
    pub(super) fn opened(&self, request: &Request, is_running: bool, then: impl FnOnce() + Send + 'static) {
        let action = request.key.action;
        let metadata = request.origin.metadata.as_ref().map(|it| hex::encode(it.encode_to_vec()));
        let opened = Opened {
            operation: name(request.operation),
            instance: request.key.instance.to_string(),
            function: action.function().name().to_owned(),
            hash: action.hash_hex(),
            size_bytes: action.size_bytes(),
            priority: request.priority,
            run: request.run.to_string(),
            principal: request.principal.to_string(),
            lookup: request.lookup,
            queued_unix_nanos: request.origin.queued_unix_nanos,
            metadata,
            trace: request.origin.trace.map(|begun| begun.to_string()),
        };
        self.note(Record::Opened(opened));
        if is_running {
            self.started(request.operation);
        }
        self.write(Some(Box::new(then)));
    }

    /// Notes that an operation is with a worker. Is written a moment later: an action that has just begun may as
    /// well begin again.
    pub(super) fn started(&self, operation: OperationId) {
        self.note(Record::Started(name(operation)));
    }

    /// Notes that an operation has ended. Is written a moment later: its result is in the action cache, and asking
    /// for that once more costs little.
    pub(super) fn ended(&self, operation: OperationId) {
        self.note(Record::Ended(name(operation)));
    }

    /// Notes that workers are drained.
    pub(super) fn drained(&self, pattern: &str, reason: &str) {
        self.note(Record::Drained(pattern.to_owned(), reason.to_owned()));
        self.flush();
    }

    /// Notes that a drain is taken back.
    pub(super) fn undrained(&self, pattern: &str) {
        self.note(Record::Undrained(pattern.to_owned()));
        self.flush();
    }

    /// Has everything be written that was noted.
    pub(super) fn flush(&self) {
        self.write(None);
    }

    fn note(&self, record: Record) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    fn write(&self, then: Option<Then>) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() && then.is_none() {
            return;
        }
        let records = self.records.as_ref().expect("it is taken out when this is dropped");
        if let Err(mpsc::SendError((_, Some(then)))) = records.send((waiting, then)) {
            // The thread has ended by a bug; clients are served all the same.
            then();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
        drop(self.records.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            warn!("the thread that writes the journal has panicked");
        }
    }
}

fn name(operation: OperationId) -> String {
    format!("{:032x}", operation.0)
}

/// What the file says that still counts.
#[derive(Default)]
struct Live {
    operations: BTreeMap<String, LiveOperation>,
    /// Lines by pattern.
    drains: BTreeMap<String, Vec<u8>>,
    came: u64,
    /// Of all these lines.
    bytes: u64,
}

/// An operation that has not ended.
struct LiveOperation {
    /// The smaller came first.
    number: u64,
    opened: Vec<u8>,
    started: Option<Vec<u8>>,
}

impl Live {
    fn take(&mut self, record: &Record, line: &[u8]) {
        let kept = match record {
            Record::Opened(opened) => {
                self.came += 1;
                let fresh = LiveOperation { number: self.came, opened: line.to_vec(), started: None };
                self.operations.insert(opened.operation.clone(), fresh);
                true
            }
            Record::Started(operation) => {
                let live = self.operations.get_mut(operation).filter(|live| live.started.is_none());
                live.map(|live| live.started = Some(line.to_vec())).is_some()
            }
            Record::Ended(operation) => {
                let gone = self.operations.remove(operation);
                let gone = gone.iter().flat_map(|live| [Some(&live.opened), live.started.as_ref()]);
                self.bytes -= gone.flatten().map(|line| line.len() as u64 + 1).sum::<u64>();
                false
            }
            Record::Drained(pattern, _) => {
                self.undrain(|other| other == pattern);
                self.drains.insert(pattern.clone(), line.to_vec());
                true
            }
            Record::Undrained(pattern) => {
                self.undrain(|other| other == pattern || name_matches(pattern, other));
                false
            }
        };
        self.bytes += if kept { line.len() as u64 + 1 } else { 0 };
    }

    fn undrain(&mut self, is_meant: impl Fn(&str) -> bool) {
        let bytes = &mut self.bytes;
        self.drains.retain(|pattern, line| {
            let stays = !is_meant(pattern);
            *bytes -= if stays { 0 } else { line.len() as u64 + 1 };
            stays
        });
    }

    fn in_order(&self) -> Vec<&LiveOperation> {
        let mut operations: Vec<_> = self.operations.values().collect();
        operations.sort_unstable_by_key(|live| live.number);
        operations
    }

    fn recovered(&self) -> Recovered {
        let mut recovered = Recovered::default();
        for live in self.in_order() {
            if let Ok(Record::Opened(opened)) = serde_json::from_slice(&live.opened)
                && let Some(request) = request_of(opened)
            {
                recovered.operations.push((request, live.started.is_some()));
            }
        }
        for line in self.drains.values() {
            if let Ok(Record::Drained(pattern, reason)) = serde_json::from_slice(line) {
                recovered.drains.push((pattern.into(), reason.into()));
            }
        }
        recovered
    }

    /// Puts a new file with these lines in the place of the old, and returns it.
    fn write_to(&self, path: &Path) -> io::Result<File> {
        let fresh = path.with_extension("new");
        let operations =
            self.in_order().into_iter().flat_map(|live| [Some(&live.opened), live.started.as_ref()]);
        let mut bytes = Vec::new();
        for line in operations.flatten().chain(self.drains.values()) {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        std::fs::write(&fresh, bytes)?;
        std::fs::rename(&fresh, path)?;
        OpenOptions::new().append(true).open(path)
    }
}

/// `None` for what this version can't read.
fn request_of(opened: Opened) -> Option<Request> {
    let function = DigestFunction::from_name(&opened.function)?;
    let action = Digest::from_hex(function, &opened.hash, opened.size_bytes).ok()?;
    let metadata = opened.metadata.and_then(|text| hex::decode(text).ok());
    let metadata = metadata.and_then(|bytes| RequestMetadata::decode(bytes.as_slice()).ok());
    let trace = opened.trace.and_then(|text| text.parse().ok());
    Some(Request {
        operation: OperationId(id_from_hex(&opened.operation)?),
        key: ActionKey { instance: opened.instance.into(), action },
        priority: opened.priority,
        run: opened.run.into(),
        principal: opened.principal.into(),
        lookup: opened.lookup,
        origin: Arc::new(Origin { queued_unix_nanos: opened.queued_unix_nanos, metadata, trace }),
    })
}

/// The file, on its thread.
struct Lines {
    path: PathBuf,
    file: File,
    /// Length of the file.
    bytes: u64,
    /// It is not written anew before it is that long, as that has failed.
    not_before: u64,
    /// Whether it may end in half a line, as writing has failed.
    is_torn: bool,
    live: Live,
}

impl Lines {
    fn new(path: &Path, live: Live) -> io::Result<Self> {
        let (file, bytes) = (live.write_to(path)?, live.bytes);
        Ok(Self { path: path.to_owned(), file, bytes, not_before: 0, is_torn: false, live })
    }

    /// Waits for records and writes all there are; says whether there may be more.
    fn write_some(&mut self, received: &mpsc::Receiver<Batch>) -> bool {
        let Ok(first) = received.recv() else { return false };
        let batch: Vec<_> = std::iter::once(first).chain(received.try_iter().take(BATCH_MAX)).collect();
        let mut bytes = Vec::new();
        for record in batch.iter().flat_map(|(records, _)| records) {
            let line = serde_json::to_vec(record).expect("a record of texts and numbers is JSON");
            self.live.take(record, &line);
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
        }
        if let Err(error) = self.append(&bytes) {
            warn!(%error, path = %self.path.display(), "the journal can't be written: operations would not outlive a restart");
        }
        batch.into_iter().filter_map(|(_, then)| then).for_each(|then| then());
        true
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let after = self.bytes + bytes.len() as u64;
        if after > COMPACT_MIN.max(self.live.bytes * 4) && after > self.not_before {
            // With what was to be appended, as that is part of what counts.
            match self.live.write_to(&self.path) {
                Ok(file) => {
                    (self.file, self.bytes, self.is_torn) = (file, self.live.bytes, false);
                    return Ok(());
                }
                Err(error) => {
                    warn!(%error, path = %self.path.display(), "the journal can't be written anew, and grows");
                    self.not_before = after + COMPACT_MIN;
                }
            }
        }
        if self.is_torn {
            // What was cut short must not take the next line along.
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(bytes)?;
        (self.is_torn, self.bytes) = (false, after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u128) -> Request {
        let metadata = RequestMetadata { tool_invocation_id: "run".to_owned(), ..Default::default() };
        Request {
            operation: OperationId(number),
            key: ActionKey {
                instance: "main".into(),
                action: Digest::of(DigestFunction::Blake3, &number.to_le_bytes()),
            },
            priority: -3,
            run: "run".into(),
            principal: "ci".into(),
            lookup: false,
            origin: Arc::new(Origin {
                queued_unix_nanos: 7,
                metadata: Some(metadata),
                trace: Some(castwork_trace::Begun::root()),
            }),
        }
    }

    fn reopen(path: &Path) -> Recovered {
        Journal::open(path).unwrap().1
    }

    #[test]
    fn what_had_not_ended_is_there_after_a_restart_in_order_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, nothing) = Journal::open(&path).unwrap();
        assert!(nothing.operations.is_empty() && nothing.drains.is_empty());
        let requests = [3, 1, 2].map(request);
        for request in &requests {
            journal.opened(request, false, || ());
        }
        journal.started(OperationId(2));
        journal.ended(OperationId(1));
        journal.drained("mac-*", "a new disk");
        journal.drained("old", "");
        journal.undrained("old");
        drop(journal);
        let recovered = reopen(&path);
        let names = recovered.operations.iter().map(|(request, ran)| (request.operation.0, *ran));
        assert_eq!(names.collect::<Vec<_>>(), [(3, false), (2, true)]);
        let (was, (is, _)) = (&requests[0], &recovered.operations[0]);
        assert_eq!((&is.key, is.priority, &is.run, &is.principal), (&was.key, -3, &was.run, &was.principal));
        assert_eq!((is.lookup, &is.origin), (false, &was.origin));
        assert_eq!(recovered.drains, [("mac-*".into(), "a new disk".into())]);
    }

    #[test]
    fn a_client_is_told_after_its_operation_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let (tell, told) = mpsc::channel();
        let read = path.clone();
        journal
            .opened(&request(5), false, move || tell.send(std::fs::read_to_string(read).unwrap()).unwrap());
        assert!(told.recv().unwrap().contains("00000000000000000000000000000005"));
    }

    #[test]
    fn a_line_that_was_cut_short_costs_nothing_but_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        journal.opened(&request(1), false, || ());
        journal.opened(&request(2), false, || ());
        drop(journal);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        assert_eq!(reopen(&path).operations.len(), 1);
    }

    #[test]
    fn what_has_ended_does_not_stay_in_the_file_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        journal.opened(&request(0), false, || ());
        for number in 1..20_000 {
            journal.opened(&request(number), false, || ());
            journal.started(OperationId(number));
            journal.ended(OperationId(number));
        }
        drop(journal);
        assert!(std::fs::metadata(&path).unwrap().len() < 3 * COMPACT_MIN);
        assert_eq!(reopen(&path).operations.len(), 1);
        assert!(std::fs::metadata(&path).unwrap().len() < 1_000, "and a start leaves only what counts");
    }

    fn line(number: usize) -> Vec<u8> {
        let record = Record::Drained(format!("w{number}"), "a new disk".to_owned());
        [serde_json::to_vec(&record).unwrap(), b"\n".to_vec()].concat()
    }

    #[test]
    fn after_a_line_that_was_cut_short_the_next_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut file = Lines::new(&path, Live::default()).unwrap();
        file.append(&line(1)).unwrap();
        // As a full disk leaves it.
        file.file.write_all(&line(2)[..9]).unwrap();
        file.is_torn = true;
        file.append(&line(3)).unwrap();
        let drains: Vec<_> = reopen(&path).drains.into_iter().map(|(pattern, _)| pattern).collect();
        assert_eq!(drains, ["w1", "w3"].map(Arc::<str>::from));
    }

    #[test]
    fn a_file_that_cannot_be_written_anew_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut file = Lines::new(&path, Live::default()).unwrap();
        std::fs::create_dir(path.with_extension("new")).unwrap();
        file.bytes = COMPACT_MIN;
        file.append(&line(1)).unwrap();
        file.append(&line(2)).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written, [line(1), line(2)].concat());
    }
}
