//! `GetTree`: every directory below a root, each once, page by page.
//!
//! The order is breadth first, so it is the same whenever it is asked for, and a page token is a position
//! in it. What is missing below the root is left out, as REAPI has it.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use castwork_cas::store::collect;
use castwork_cas::{BlobStore as _, ByteRange, Digest, StoreError};
use castwork_proto::reapi::{Directory, GetTreeResponse};
use castwork_proto::weigh;
use futures::Stream;
use futures::future::join_all;
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tracing::debug;

use super::errors::{bad, to_status};
use crate::store::DiskBlobs;

/// Directories a page, at most, whatever the client asks for.
const PAGE_DIRECTORIES_MAX: usize = 1000;

/// Bytes of directories after which a page ends: with one more directory it still fits into 4 MiB.
const PAGE_BYTES: usize = 512 << 10;

/// Distinct directories of a tree, at most: what is remembered to visit each once.
const DIRECTORIES_MAX: usize = 200_000;

/// Bytes of one directory, at most; a larger one fits into no answer.
const DIRECTORY_BYTES_MAX: u64 = 3 << 20;

/// Directories that are read at the same time, and how many bytes of them, if it is more than one. It is what a tree
/// holds in memory between its pages.
const AT_ONCE: usize = 8;
const AT_ONCE_BYTES: u64 = 3 << 20;

/// Which part of a tree is asked for, and in pages of what size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Directories that the client has already.
    start: usize,
    directories_max: usize,
}

impl Pages {
    /// Checks the fields of a request.
    pub(crate) fn read(root: Digest, page_size: i32, page_token: &str) -> Result<Self, Status> {
        let size = usize::try_from(page_size).map_err(|_| bad("`page_size` is negative"))?;
        let directories_max = if size == 0 { PAGE_DIRECTORIES_MAX } else { size.min(PAGE_DIRECTORIES_MAX) };
        if page_token.is_empty() {
            return Ok(Self { start: 0, directories_max });
        }
        let start = page_token.split_once('-').and_then(|(start, _)| start.parse().ok());
        let start = start.filter(|start| (1..=DIRECTORIES_MAX).contains(start));
        let start = start.filter(|start| token(*start, &root) == page_token);
        let start = start.ok_or_else(|| bad("`page_token` was not given out for this tree"))?;
        Ok(Self { start, directories_max })
    }
}

fn token(start: usize, root: &Digest) -> String {
    format!("{start}-{root}")
}

/// Reads the tree below `root` and returns its pages; it keeps its turn until then.
///
/// # Errors
/// `NOT_FOUND` if the root is missing, `INVALID_ARGUMENT` if it is no directory or the token is beyond its
/// end.
pub(crate) async fn stream(
    blobs: DiskBlobs,
    root: Digest,
    pages: Pages,
    turn: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<GetTreeResponse, Status>> + Send + 'static, Status> {
    let mut walk = Walk::begin(blobs, root).await?;
    for _ in 0..pages.start {
        let next = walk.next().await?;
        next.ok_or_else(|| bad("`page_token` is beyond the end of this tree"))?;
    }
    let state = Some((walk, pages.start, turn));
    Ok(futures::stream::try_unfold(state, move |state| async move {
        let Some((mut walk, start, turn)) = state else { return Ok(None) };
        let directories = page(&mut walk, pages.directories_max).await?;
        let end = start + directories.len();
        let is_last = walk.is_done();
        let next_page_token = if is_last { String::new() } else { token(end, &root) };
        let answer = GetTreeResponse { directories, next_page_token };
        Ok(Some((answer, (!is_last).then_some((walk, end, turn)))))
    }))
}

async fn page(walk: &mut Walk, directories_max: usize) -> Result<Vec<Directory>, Status> {
    let mut directories = Vec::new();
    let mut bytes = 0;
    while directories.len() < directories_max && bytes < PAGE_BYTES {
        let Some(directory) = walk.next().await? else { break };
        bytes += directory.encoded_len();
        directories.push(directory);
    }
    Ok(directories)
}

/// A visit of each distinct directory below a root.
struct Walk {
    blobs: DiskBlobs,
    root: Digest,
    seen: HashSet<Digest>,
    waiting: VecDeque<Digest>,
    /// Read, known to be directories, and not handed out yet.
    ready: VecDeque<Bytes>,
}

impl Walk {
    async fn begin(blobs: DiskBlobs, root: Digest) -> Result<Self, Status> {
        let mut walk =
            Self { blobs, root, seen: HashSet::new(), waiting: VecDeque::new(), ready: VecDeque::new() };
        let directory = walk.read(&root).await.map_err(to_status)?;
        walk.seen.insert(root);
        let (data, directory) = directory.ok_or_else(|| bad("`root_digest` is not that of a Directory"))?;
        walk.take(data, &directory)?;
        walk.fill().await?;
        Ok(walk)
    }

    async fn next(&mut self) -> Result<Option<Directory>, Status> {
        let next = self.ready.pop_front();
        self.fill().await?;
        Ok(next.and_then(|data| Directory::decode(data).ok()))
    }

    fn is_done(&self) -> bool {
        self.ready.is_empty()
    }

    /// Reads on until there is a directory to hand out, or none is left.
    async fn fill(&mut self) -> Result<(), Status> {
        while self.ready.is_empty() && !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = self.waiting.iter().take(AT_ONCE).take_while(|digest| {
                bytes += digest.size_bytes().min(DIRECTORY_BYTES_MAX);
                bytes <= AT_ONCE_BYTES
            });
            let some = fits.count().max(1);
            let some: Vec<Digest> = self.waiting.drain(..some).collect();
            let read = join_all(some.iter().map(|digest| self.read(digest))).await;
            for (digest, directory) in some.iter().zip(read) {
                match directory {
                    Ok(Some((data, directory))) => self.take(data, &directory)?,
                    Ok(None) => debug!(root = %self.root, %digest, "part of a tree is no Directory"),
                    Err(StoreError::Missing(_)) => {}
                    Err(error) => return Err(to_status(error)),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, data: Bytes, directory: &Directory) -> Result<(), Status> {
        let function = self.root.function();
        for child in &directory.directories {
            // What is no digest names nothing, so it is as good as missing.
            let child = child.digest.as_ref().map(|digest| Digest::from_proto(digest, function));
            if let Some(Ok(child)) = child
                && self.seen.insert(child)
            {
                self.waiting.push_back(child);
            }
        }
        if self.seen.len() > DIRECTORIES_MAX {
            return Err(bad(format!("the tree has more than {DIRECTORIES_MAX} directories")));
        }
        self.ready.push_back(data);
        Ok(())
    }

    /// Reads a directory; `None` if the blob is none.
    async fn read(&self, digest: &Digest) -> Result<Option<(Bytes, Directory)>, StoreError> {
        // Before it is fetched, maybe from afar.
        if digest.size_bytes() > DIRECTORY_BYTES_MAX {
            return Ok(None);
        }
        let stream = self.blobs.get(digest, ByteRange::ALL).await?;
        let data = collect(stream, DIRECTORY_BYTES_MAX).await?;
        Ok(weigh::decode(data.clone()).ok().map(|directory| (data, directory)))
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    #[test]
    fn a_page_token_is_good_for_the_tree_that_it_was_given_out_for() {
        let root = Digest::of(DigestFunction::Sha256, b"root");
        let other = Digest::of(DigestFunction::Sha256, b"other");
        let pages = Pages::read(root, 7, &token(3, &root)).unwrap();
        assert_eq!(pages, Pages { start: 3, directories_max: 7 });
        let tokens = [token(3, &other), token(0, &root), token(DIRECTORIES_MAX + 1, &root)];
        for bad in tokens.into_iter().chain(["3".to_owned(), format!("03-{root}"), "x".repeat(99)]) {
            assert!(Pages::read(root, 7, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_size_is_a_bound_and_not_a_promise() {
        let root = Digest::of(DigestFunction::Sha256, b"root");
        let size = |page_size| Pages::read(root, page_size, "").map(|pages| pages.directories_max);
        assert_eq!(size(0).unwrap(), PAGE_DIRECTORIES_MAX);
        assert_eq!(size(5).unwrap(), 5);
        assert_eq!(size(i32::MAX).unwrap(), PAGE_DIRECTORIES_MAX);
        assert!(size(-1).is_err());
    }
}
