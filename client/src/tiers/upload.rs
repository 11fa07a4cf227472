//! Gives a server what it lacks of an action: what is in memory, and the compiler's files from where they lie.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use castwork_cas::remote::Remote;
use castwork_cas::{BlobStore, Digest, StoreError};
use futures::StreamExt;
use tokio::time::Instant;

use super::progress::Progress;
use super::{ASK_LACKING, TierError, UPLOAD};

/// The longest wait for the answer to a question, connecting included.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that are uploaded at once, between two looks at the progress.
const GROUP_BYTES: u64 = 8 << 20;

/// Files up to this size are read whole.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// What is read at once of larger ones, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// From so many missing bytes of files on, the processes of a build take turns, so that each file is sent once.
const TURN_BYTES_MIN: u64 = 1 << 20;

/// The longest wait for that turn; then it is sent twice.
const TURN_WAIT: Duration = Duration::from_secs(300);

/// How often is looked whether it is our turn.
const TURN_LOOK: Duration = Duration::from_millis(20);

/// A blob that may have to be sent.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In memory.
    Bytes(Bytes),
    /// In a file that held it when it was last looked at.
    File(PathBuf),
}

/// Uploads those blobs that the server lacks; `folder` is where the processes of this user take turns.
///
/// # Errors
/// If the server can't be reached within bounds or doesn't take them, or a file has changed.
pub(super) async fn upload(
    remote: &Remote,
    blobs: Vec<(Digest, Source)>,
    folder: &Path,
) -> Result<(), TierError> {
    let mut seen = HashSet::new();
    let blobs = blobs.into_iter().filter(|(digest, _)| !digest.is_empty_blob() && seen.insert(*digest));
    let mut wanted = lacking(remote, blobs.collect()).await?;
    let is_file = |(_, source): &&(Digest, Source)| matches!(source, Source::File(_));
    let file_bytes: u64 = wanted.iter().filter(is_file).map(|(digest, _)| digest.size_bytes()).sum();
    let mut _turn = None;
    if file_bytes >= TURN_BYTES_MIN {
        _turn = turn(folder, remote.address()).await;
        wanted = lacking(remote, wanted).await?;
    }
    send(remote, wanted).await.map_err(TierError::at(UPLOAD))
}

async fn lacking(
    remote: &Remote,
    mut blobs: Vec<(Digest, Source)>,
) -> Result<Vec<(Digest, Source)>, TierError> {
    let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    let step = ASK_LACKING;
    let asked = tokio::time::timeout(ASK_TIMEOUT, remote.find_missing(&digests)).await;
    let missing = asked.map_err(|_| TierError::TooLate { step })?.map_err(TierError::at(step))?;
    let missing: HashSet<Digest> = missing.into_iter().collect();
    blobs.retain(|(digest, _)| missing.contains(digest));
    Ok(blobs)
}

/// Waits until no other process of this user uploads files to the server; `None` if that takes too long.
async fn turn(folder: &Path, server: &str) -> Option<File> {
    let name: String =
        server.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let folder = folder.join("uploads");
    std::fs::create_dir_all(&folder).ok()?;
    let lock = File::create(folder.join(name)).ok()?;
    let deadline = Instant::now() + TURN_WAIT;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(TURN_LOOK).await;
    }
    Some(lock)
}

async fn send(remote: &Remote, wanted: Vec<(Digest, Source)>) -> Result<(), StoreError> {
    let mut progress = Progress::new(wanted.iter().map(|(digest, _)| digest.size_bytes()).sum());
    let mut group = Vec::new();
    let mut group_bytes = 0;
    for (digest, source) in wanted {
        let data = match source {
            Source::Bytes(data) => data,
            Source::File(path) if digest.size_bytes() <= WHOLE_BYTES_MAX => {
                std::fs::read(&path).map_err(unreadable(&path))?.into()
            }
            Source::File(path) => {
                send_file(remote, &digest, &path, &mut progress).await?;
                continue;
            }
        };
        group.push((digest, data));
        group_bytes += digest.size_bytes();
        if group_bytes >= GROUP_BYTES {
            remote.put_many(std::mem::take(&mut group)).await?;
            progress.advance(std::mem::take(&mut group_bytes));
        }
    }
    remote.put_many(group).await
}

/// Sends a large file piece by piece. The remote compares what it is with what it should be.
async fn send_file(
    remote: &Remote,
    digest: &Digest,
    path: &Path,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let pieces = futures::stream::iter(Pieces { file, path: path.to_owned() }).boxed();
    remote.put(digest, pieces).await?;
    progress.advance(digest.size_bytes());
    Ok(())
}

/// The content of a file, piece by piece.
struct Pieces {
    file: File,
    path: PathBuf,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = vec![0; PIECE_BYTES];
        match self.file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some(Ok(piece.into()))
            }
            Err(error) => Some(Err(unreadable(&self.path)(error))),
        }
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let step = format!("read `{}`", path.display());
    move |source| StoreError::Disk { step, source }
}
