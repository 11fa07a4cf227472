//! [`Load`]: uploads of blobs and results from many sides, and an account of what was acknowledged.
//!
//! What blob and what result there is follows from a number, so the account is a list of numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use castwork_cas::remote::Remote;
use castwork_cas::{ActionCache, ActionKey, BlobStore as _, Digest, DigestFunction, StoreError};
use castwork_proto::reapi::{Action, ActionResult, Command, OutputFile};
use prost::Message as _;

/// Clients that upload at the same time.
const CLIENTS: u64 = 4;

/// Blobs in a batch.
const BATCH: u64 = 12;

/// Results of each client, which are written again and again.
const RESULTS: u64 = 20;

/// Of blobs that may have been evicted, about so many are looked at.
const OLD_LOOKS: usize = 200;

/// A blob that follows from its number: most are small, some are files of their own.
fn blob(number: u64) -> (Digest, Bytes) {
    let hash = blake3_of(number);
    let random = u64::from_le_bytes(hash[..8].try_into().unwrap());
    let length = if number.is_multiple_of(25) { 70_000 + random % 200_000 } else { 1 + random % 9_000 };
    let length = usize::try_from(length).unwrap();
    let mut data = Vec::with_capacity(length + 64);
    while data.len() < length {
        data.extend_from_slice(&hash);
        data.extend_from_slice(&data.len().to_le_bytes());
    }
    data.truncate(length);
    (Digest::of(DigestFunction::Sha256, &data), data.into())
}

fn blake3_of(number: u64) -> Vec<u8> {
    Digest::of(DigestFunction::Blake3, &number.to_le_bytes()).hash().to_vec()
}

fn command_blob() -> (Digest, Bytes) {
    let data =
        Bytes::from(Command { arguments: vec!["true".to_owned()], ..Command::default() }.encode_to_vec());
    (Digest::of(DigestFunction::Sha256, &data), data)
}

/// An action that nobody runs, but it has to be there.
fn action_blob(result: u64) -> (Digest, Bytes) {
    let some = command_blob().0.to_proto();
    let salt = Bytes::copy_from_slice(&result.to_le_bytes());
    let action = Action {
        command_digest: Some(some.clone()),
        input_root_digest: Some(some),
        salt,
        ..Action::default()
    };
    let data = Bytes::from(action.encode_to_vec());
    (Digest::of(DigestFunction::Sha256, &data), data)
}

fn action(result: u64) -> ActionKey {
    ActionKey { instance: "".into(), action: action_blob(result).0 }
}

/// A result that names a blob by its number.
fn result_of(version: u64, number: u64) -> ActionResult {
    let file = OutputFile {
        path: number.to_string(),
        digest: Some(blob(number).0.to_proto()),
        ..OutputFile::default()
    };
    ActionResult {
        exit_code: i32::try_from(version).unwrap(),
        output_files: vec![file],
        ..ActionResult::default()
    }
}

/// What was acknowledged, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acknowledged {
    blobs: Vec<u64>,
    /// Bytes of blobs so far.
    bytes: u64,
    /// Of each result: the version, and how many bytes of blobs had been acknowledged then.
    results: HashMap<u64, (u64, u64)>,
}

impl Acknowledged {
    pub(crate) fn count(&self) -> usize {
        self.blobs.len() + self.results.len()
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    next: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Load {
    /// What was acknowledged up to now.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Uploads from all sides until the server is gone.
    pub(crate) async fn run(&self, remote: &Remote) {
        let clients = (0..CLIENTS).map(|client| self.client(remote, client));
        futures::future::join_all(clients).await;
    }

    /// Writes blobs down, and returns how many bytes there are now.
    fn acknowledge(&self, numbers: &[u64], bytes: u64) -> u64 {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.blobs.extend(numbers);
        acknowledged.bytes += bytes;
        acknowledged.bytes
    }

    async fn client(&self, remote: &Remote, client: u64) {
        for turn in 0.. {
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            let numbers: Vec<u64> = (first..first + BATCH).collect();
            let result = client * RESULTS + turn % RESULTS;
            let mut blobs: Vec<(Digest, Bytes)> = numbers.iter().map(|number| blob(*number)).collect();
            blobs.extend([action_blob(result), command_blob()]);
            let bytes: u64 = blobs.iter().map(|(digest, _)| digest.size_bytes()).sum();
            if remote.put_many(blobs).await.is_err() {
                return;
            }
            let bytes = self.acknowledge(&numbers, bytes);
            // Higher than in all cycles before.
            let version = first;
            if ActionCache::put(remote, &action(result), result_of(version, first)).await.is_err() {
                return;
            }
            self.acknowledged.lock().unwrap().results.insert(result, (version, bytes));
        }
    }
}

/// Checks that all that was acknowledged within the last `kept_bytes` is there, and that nothing wrong is answered.
///
/// # Panics
/// If not.
pub(crate) async fn check(remote: &Remote, acknowledged: &Acknowledged, kept_bytes: u64) {
    let (mut bytes, mut recent) = (0, Vec::new());
    for number in acknowledged.blobs.iter().rev() {
        let (digest, data) = blob(*number);
        bytes += digest.size_bytes();
        if bytes > kept_bytes {
            break;
        }
        recent.push((digest, data));
    }
    let digests: Vec<Digest> = recent.iter().map(|(digest, _)| *digest).collect();
    let missing = remote.find_missing(&digests).await.unwrap();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged blobs are missing: {missing:?}",
        missing.len(),
        digests.len()
    );
    for some in recent.chunks(200) {
        let wanted: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
        let got: HashMap<Digest, _> = remote.get_many(&wanted).await.into_iter().collect();
        for (digest, data) in some {
            assert_eq!(got[digest].as_ref().unwrap(), data, "{digest} is not what was acknowledged");
        }
    }
    let old = &acknowledged.blobs[..acknowledged.blobs.len() - recent.len()];
    for number in old.iter().step_by(old.len() / OLD_LOOKS + 1) {
        let (digest, data) = blob(*number);
        match remote.get_many(&[digest]).await.remove(0).1 {
            Ok(got) => assert_eq!(got, data, "{digest} has wrong bytes"),
            Err(StoreError::Missing(_)) => {}
            Err(error) => panic!("{digest}: {error}"),
        }
    }
    for (result, (version, at_bytes)) in &acknowledged.results {
        match ActionCache::get(remote, &action(*result)).await.unwrap() {
            Some(got) => {
                let now = u64::try_from(got.exit_code).unwrap();
                assert!(now >= *version, "result {result}: version {now} in place of {version}");
                assert_eq!(got.output_files, result_of(now, now).output_files);
            }
            None => assert!(
                acknowledged.bytes - at_bytes > kept_bytes,
                "result {result} of version {version} is lost"
            ),
        }
    }
}
