//! [`walk()`]: visits a tree that lies in a store.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::explore::Explorer;
use super::{FlatTree, Limits, MerkleError};
use crate::store::{ByteRange, collect};
use crate::{BlobStore, Digest, StoreError};

/// How many directories of a level are fetched at once.
const FETCHES_AT_ONCE: usize = 16;

/// Why a tree could not be visited.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Blobs that are not there, all of them, each once: upload them and ask again.
    #[error("{} blobs of the tree are missing, `{}` among them", .0.len(), .0[0])]
    Missing(Vec<Digest>),
    /// The tree is illegal or too large.
    #[error("the tree is refused")]
    Refused(#[from] MerkleError),
    /// The store failed.
    #[error("fetching a tree")]
    Store(#[from] StoreError),
}

/// Visits each distinct directory below `root` once, fetching one blob a call, some at once.
///
/// # Errors
/// [`WalkError::Missing`] with every directory for which `fetch` answered [`StoreError::Missing`];
/// the search goes on beside them, so nobody has to ask once a level. Bytes that are not the
/// digest's are [`StoreError::Mismatch`].
pub async fn walk<F, Answer>(root: &Digest, fetch: F, limits: &Limits) -> Result<FlatTree, WalkError>
where
    F: Fn(Digest) -> Answer,
    Answer: Future<Output = Result<Bytes, StoreError>>,
{
    let fetch = &fetch;
    let fetch_level = |wanted: Vec<Digest>| {
        stream::iter(wanted)
            .map(move |digest| async move { (digest, fetch(digest).await) })
            .buffer_unordered(FETCHES_AT_ONCE)
            .collect()
    };
    walk_batched(root, fetch_level, limits).await
}

/// Visits each distinct directory below `root` once, fetching a level of them a call.
///
/// # Errors
/// As [`walk()`].
pub async fn walk_batched<F, Answer>(
    root: &Digest,
    fetch_level: F,
    limits: &Limits,
) -> Result<FlatTree, WalkError>
where
    F: FnMut(Vec<Digest>) -> Answer,
    Answer: Future<Output = Vec<(Digest, Result<Bytes, StoreError>)>>,
{
    let explorer = explore(root, fetch_level, limits).await?;
    match explorer.missing() {
        [] => Ok(explorer.finish()?),
        missing => Err(WalkError::Missing(missing.to_vec())),
    }
}

/// Visits a tree, and asks after all its files.
///
/// # Errors
/// [`WalkError::Missing`] with every directory and every file that is not in `store`, as far as
/// the directories that are there name them.
pub async fn walk_complete<S: BlobStore + ?Sized>(
    store: &S,
    root: &Digest,
    limits: &Limits,
) -> Result<FlatTree, WalkError> {
    let fetch_level = |wanted: Vec<Digest>| {
        stream::iter(wanted)
            .map(|digest| async move { (digest, fetch_whole(store, &digest).await) })
            .buffer_unordered(FETCHES_AT_ONCE)
            .collect()
    };
    let explorer = explore(root, fetch_level, limits).await?;
    let mut missing = explorer.missing().to_vec();
    let files: Vec<Digest> = explorer.files().into_iter().collect();
    missing.extend(store.find_missing(&files).await?);
    if missing.is_empty() { Ok(explorer.finish()?) } else { Err(WalkError::Missing(missing)) }
}

async fn fetch_whole<S: BlobStore + ?Sized>(store: &S, digest: &Digest) -> Result<Bytes, StoreError> {
    collect(store.get(digest, ByteRange::ALL).await?, digest.size_bytes()).await
}

async fn explore<'a, F, Answer>(
    root: &Digest,
    mut fetch_level: F,
    limits: &'a Limits,
) -> Result<Explorer<'a>, WalkError>
where
    F: FnMut(Vec<Digest>) -> Answer,
    Answer: Future<Output = Vec<(Digest, Result<Bytes, StoreError>)>>,
{
    let mut explorer = Explorer::new(root, limits)?;
    loop {
        let mut wanted = explorer.wanted()?;
        if wanted.is_empty() {
            return Ok(explorer);
        }
        // Every store has the empty directory, also one that was never told.
        if let Some(at) = wanted.iter().position(Digest::is_empty_blob) {
            explorer.take(&wanted.swap_remove(at), Some(Bytes::new()))?;
        }
        let mut open: HashSet<Digest> = wanted.iter().copied().collect();
        let answers = if wanted.is_empty() { Vec::new() } else { fetch_level(wanted).await };
        for (digest, answer) in answers {
            if open.remove(&digest) {
                take(&mut explorer, &digest, answer)?;
            }
        }
        // No answer is no directory; the walk must not take it for an empty one.
        for digest in open {
            explorer.take(&digest, None)?;
        }
    }
}

fn take(
    explorer: &mut Explorer<'_>,
    digest: &Digest,
    answer: Result<Bytes, StoreError>,
) -> Result<(), WalkError> {
    match answer {
        Ok(data) => {
            let got = Digest::of(digest.function(), &data);
            if got != *digest {
                return Err(StoreError::mismatch(digest, got).into());
            }
            explorer.take(digest, Some(data))?;
        }
        Err(StoreError::Missing(_)) => explorer.take(digest, None)?,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use castwork_proto::reapi;
    use prost::Message;

    use super::*;
    use crate::DigestFunction;
    use crate::merkle::{EntryKind, TreeBuilder};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn blob(text: &str) -> Digest {
        Digest::of(FUNCTION, text.as_bytes())
    }

    /// Blobs in memory, and what was asked of them.
    #[derive(Default)]
    struct Blobs {
        blobs: HashMap<Digest, Bytes>,
        asked: Mutex<Vec<Digest>>,
    }

    impl Blobs {
        fn of(tree: &TreeBuilder) -> (Digest, Self) {
            let built = tree.build(FUNCTION);
            let blobs = built.directories.into_iter().collect();
            (built.root, Self { blobs, asked: Mutex::default() })
        }

        fn add(&mut self, message: &reapi::Directory) -> Digest {
            let data = Bytes::from(message.encode_to_vec());
            let digest = Digest::of(FUNCTION, &data);
            self.blobs.insert(digest, data);
            digest
        }

        async fn walk(&self, root: &Digest, limits: &Limits) -> Result<FlatTree, WalkError> {
            walk(root, |digest| async move { self.fetch(digest) }, limits).await
        }

        fn fetch(&self, digest: Digest) -> Result<Bytes, StoreError> {
            self.asked.lock().unwrap().push(digest);
            self.blobs.get(&digest).cloned().ok_or(StoreError::Missing(digest))
        }
    }

    fn parent(children: &[(&str, Digest)]) -> reapi::Directory {
        let node = |(name, digest): &(&str, Digest)| reapi::DirectoryNode {
            name: (*name).to_owned(),
            digest: Some(digest.to_proto()),
        };
        reapi::Directory { directories: children.iter().map(node).collect(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_tree_is_walked_to_every_path_and_fetched_once_a_directory() {
        let mut tree = TreeBuilder::new();
        for path in ["a/x/1", "a/x/2", "b/x/1", "b/x/2", "top"] {
            tree.add_file(path, blob(path.split('/').next_back().unwrap()), path == "top").unwrap();
        }
        tree.add_symlink("a/l", "../top").unwrap();
        tree.add_directory("b/empty").unwrap();
        let (root, blobs) = Blobs::of(&tree);
        let flat = blobs.walk(&root, &Limits::default()).await.unwrap();
        let paths: Vec<String> = flat.entries().map(|entry| entry.path).collect();
        let all = ["top", "a", "a/l", "a/x", "a/x/1", "a/x/2", "b", "b/empty", "b/x", "b/x/1", "b/x/2"];
        assert_eq!(paths, all);
        assert_eq!(flat.paths(), all.len() as u64);
        assert_eq!(flat.file_digests().len(), 3);
        let asked = blobs.asked.lock().unwrap();
        assert_eq!(asked.len(), 4, "root, a, b and x, which is one; the empty one is known");
    }

    #[tokio::test]
    async fn all_missing_directories_are_reported_at_once() {
        let mut blobs = Blobs::default();
        let deep = blobs.add(&parent(&[("gone", blob("1"))]));
        let root = blobs.add(&parent(&[("also", blob("2")), ("deep", deep), ("same", blob("1"))]));
        let Err(WalkError::Missing(mut missing)) = blobs.walk(&root, &Limits::default()).await else {
            panic!("two are missing");
        };
        missing.sort();
        let mut expected = vec![blob("1"), blob("2")];
        expected.sort();
        assert_eq!(missing, expected);
    }

    #[tokio::test]
    async fn a_fetch_that_forgets_a_directory_reports_it_missing() {
        let root = blob("x");
        let answer = walk_batched(&root, |_| async { Vec::new() }, &Limits::default()).await;
        assert!(matches!(answer, Err(WalkError::Missing(missing)) if missing == [root]));
    }

    #[tokio::test]
    async fn a_directory_that_names_itself_cannot_be_made_and_wrong_bytes_are_refused() {
        let own = blob("own");
        let mut blobs = Blobs::default();
        blobs.blobs.insert(own, parent(&[("again", own)]).encode_to_vec().into());
        let answer = blobs.walk(&own, &Limits::default()).await;
        assert!(
            matches!(answer, Err(WalkError::Store(StoreError::Mismatch { expected, .. })) if expected == own)
        );
    }

    #[tokio::test]
    async fn a_chain_of_a_hundred_thousand_directories_is_refused_after_the_bound() {
        let mut blobs = Blobs::default();
        let mut root = Digest::empty(FUNCTION);
        for _ in 0..100_000 {
            root = blobs.add(&parent(&[("d", root)]));
        }
        let limits = Limits::default();
        let Err(WalkError::Refused(error)) = blobs.walk(&root, &limits).await else { panic!("too deep") };
        assert_eq!(error, MerkleError::TooMuch { what: "levels", max: 256 });
        assert_eq!(blobs.asked.lock().unwrap().len(), limits.depth_max, "the rest is never fetched");
    }

    #[tokio::test]
    async fn a_directory_is_as_deep_as_its_longest_path() {
        // `deep` is met on the second level, and is on the tenth as well.
        let mut blobs = Blobs::default();
        let deep = blobs.add(&parent(&[("end", Digest::empty(FUNCTION))]));
        let mut chain = deep;
        for _ in 0..8 {
            chain = blobs.add(&parent(&[("d", chain)]));
        }
        let root = blobs.add(&parent(&[("chain", chain), ("short", deep)]));
        let walk = |depth_max| {
            let blobs = &blobs;
            async move { blobs.walk(&root, &Limits { depth_max, ..Limits::default() }).await }
        };
        assert!(walk(11).await.is_ok());
        assert!(matches!(
            walk(10).await,
            Err(WalkError::Refused(MerkleError::TooMuch { what: "levels", .. }))
        ));
    }

    #[tokio::test]
    async fn a_bomb_of_few_directories_and_a_billion_paths_is_refused() {
        let mut blobs = Blobs::default();
        let mut root = Digest::empty(FUNCTION);
        for _ in 0..30 {
            root = blobs.add(&parent(&[("a", root), ("b", root)]));
        }
        let Err(WalkError::Refused(error)) = blobs.walk(&root, &Limits::default()).await else {
            panic!("too many paths");
        };
        assert_eq!(error, MerkleError::TooMuch { what: "paths", max: 1_000_000 });
        assert_eq!(blobs.asked.lock().unwrap().len(), 30);
    }

    #[tokio::test]
    async fn directories_beyond_a_bound_are_refused_before_they_are_fetched() {
        let mut blobs = Blobs::default();
        let children: Vec<(String, Digest)> =
            (0..20).map(|n| (format!("{n:02}"), blob(&n.to_string()))).collect();
        let children: Vec<(&str, Digest)> = children.iter().map(|(name, d)| (&**name, *d)).collect();
        let root = blobs.add(&parent(&children));
        let what = |limits: Limits| {
            let blobs = &blobs;
            async move {
                match blobs.walk(&root, &limits).await {
                    Err(WalkError::Refused(MerkleError::TooMuch { what, .. })) => what,
                    other => panic!("{other:?}"),
                }
            }
        };
        let limits = Limits::default();
        assert_eq!(what(Limits { directories_max: 20, ..limits }).await, "distinct directories");
        assert_eq!(what(Limits { bytes_max: root.size_bytes(), ..limits }).await, "bytes of directories");
        let directory_bytes_max = root.size_bytes() - 1;
        assert_eq!(what(Limits { directory_bytes_max, ..limits }).await, "bytes in a directory");
        assert!(blobs.asked.lock().unwrap().iter().all(|asked| *asked == root));
    }

    #[tokio::test]
    async fn an_illegal_directory_is_named() {
        let mut blobs = Blobs::default();
        let bad = blobs.add(&parent(&[("..", blob("x"))]));
        let root = blobs.add(&parent(&[("fine", bad)]));
        let Err(WalkError::Refused(MerkleError::In { directory, source })) =
            blobs.walk(&root, &Limits::default()).await
        else {
            panic!("`..` is no name");
        };
        assert_eq!(directory, bad);
        assert!(matches!(*source, MerkleError::Name { .. }));
    }

    #[tokio::test]
    async fn the_same_directory_at_two_places_is_two_entries() {
        let mut tree = TreeBuilder::new();
        tree.add_file("a/f", blob("f"), false).unwrap();
        tree.add_file("b/f", blob("f"), false).unwrap();
        let (root, blobs) = Blobs::of(&tree);
        let flat = blobs.walk(&root, &Limits::default()).await.unwrap();
        let files = flat.entries().filter(|entry| matches!(entry.kind, EntryKind::File(_)));
        assert_eq!(files.map(|entry| entry.path).collect::<Vec<_>>(), ["a/f", "b/f"]);
    }
}
