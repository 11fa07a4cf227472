//! [`Complete`]: results whose blobs are all there.

use std::collections::BTreeSet;

use async_trait::async_trait;
use castwork_proto::reapi::{self, ActionResult};
use tracing::{debug, warn};

use crate::merkle::{Limits, MerkleError, TreeReader, WalkError, walk_complete};
use crate::store::{ByteRange, collect};
use crate::{ActionCache, ActionKey, BlobStore, Digest, DigestFunction, StoreError};

/// How much is read of the trees of one result, `bytes_max` of all of them together. A result with more
/// counts as incomplete.
pub const TREES: Limits = Limits {
    depth_max: 256,
    directories_max: 200_000,
    paths_max: 1_000_000,
    directory_bytes_max: 16 << 20,
    bytes_max: 64 << 20,
};

/// An action cache that answers only with results whose blobs `blobs` all has, and takes only such.
///
/// That is every output file, stdout, stderr, each tree of an output directory and every file in it. One
/// `find_missing` asks for all of them, so they also count as used just now: a client that was given a result
/// can rely on its blobs for as long as the store keeps what was used a moment ago (REAPI,
/// `ActionCache.GetActionResult`).
pub struct Complete<A, S> {
    results: A,
    blobs: S,
}

impl<A: ActionCache, S: BlobStore> Complete<A, S> {
    /// Holds `results` against `blobs`.
    pub const fn new(results: A, blobs: S) -> Self {
        Self { results, blobs }
    }
}

/// Returns what `blobs` lacks of a result; nothing if the result is complete.
///
/// # Errors
/// [`StoreError::Digest`] if the result names something that is no digest of `function`; what the store says.
pub async fn missing_of<S: BlobStore + ?Sized>(
    blobs: &S,
    result: &ActionResult,
    function: DigestFunction,
) -> Result<Vec<Digest>, StoreError> {
    let mut wanted = named_directly(result, function)?;
    let mut limits = TREES;
    for directory in &result.output_directories {
        let named = in_directory(blobs, directory, function, &mut limits).await;
        match named {
            Ok(named) => wanted.extend(named),
            Err(WalkError::Missing(missing)) => return Ok(missing),
            Err(WalkError::Store(StoreError::Missing(digest))) => return Ok(vec![digest]),
            Err(WalkError::Store(error)) => return Err(error),
            Err(WalkError::Refused(error)) => {
                // Nobody could use it, so it is as good as lost.
                warn!(path = directory.path, %error, "an output directory's tree is refused");
                let named = directory.tree_digest.as_ref().or(directory.root_directory_digest.as_ref());
                return Ok(checked(named, function)?.into_iter().collect());
            }
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    blobs.find_missing(&wanted).await
}

fn named_directly(result: &ActionResult, function: DigestFunction) -> Result<BTreeSet<Digest>, StoreError> {
    let files = result.output_files.iter().map(|file| &file.digest);
    let streams = [&result.stdout_digest, &result.stderr_digest];
    let named = files.chain(streams).flatten();
    Ok(named.map(|digest| Digest::from_proto(digest, function)).collect::<Result<_, _>>()?)
}

fn checked(digest: Option<&reapi::Digest>, function: DigestFunction) -> Result<Option<Digest>, StoreError> {
    Ok(digest.map(|digest| Digest::from_proto(digest, function)).transpose()?)
}

/// Everything that an output directory stands for: its tree, and the files in it. What is read is taken off
/// the bytes of `limits`.
async fn in_directory<S: BlobStore + ?Sized>(
    blobs: &S,
    directory: &reapi::OutputDirectory,
    function: DigestFunction,
    limits: &mut Limits,
) -> Result<BTreeSet<Digest>, WalkError> {
    let mut named = BTreeSet::new();
    if let Some(tree) = checked(directory.tree_digest.as_ref(), function)? {
        if tree.size_bytes() > limits.bytes_max {
            return Err(MerkleError::TooMuch { what: "bytes in trees", max: TREES.bytes_max }.into());
        }
        let data = collect(blobs.get(&tree, ByteRange::ALL).await?, tree.size_bytes()).await?;
        let reader = TreeReader::from_bytes(&data, function, limits)?;
        named.extend(reader.to_flat(limits)?.file_digests());
        limits.bytes_max -= tree.size_bytes();
        named.insert(tree);
    }
    if let Some(root) = checked(directory.root_directory_digest.as_ref(), function)? {
        // Asks for the files itself; the directories it read count as used.
        let tree = walk_complete(blobs, &root, limits).await?;
        limits.bytes_max -= tree.directories().map(|(directory, _)| directory.size_bytes()).sum::<u64>();
    }
    Ok(named)
}

#[async_trait]
impl<A: ActionCache, S: BlobStore> ActionCache for Complete<A, S> {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let Some(result) = self.results.get(key).await? else {
            return Ok(None);
        };
        match missing_of(&self.blobs, &result, key.action.function()).await {
            Ok(missing) if missing.is_empty() => Ok(Some(result)),
            Ok(missing) => {
                debug!(action = %key.action, missing = missing.len(), "a result lacks blobs, so it is none");
                Ok(None)
            }
            Err(StoreError::Digest(error)) => {
                warn!(action = %key.action, %error, "a result names what is no digest, so it is none");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// [`StoreError::Missing`] if a blob of the result is not there, besides what the inner cache says.
    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        let missing = missing_of(&self.blobs, &result, key.action.function()).await?;
        match missing.first() {
            Some(digest) => Err(StoreError::Missing(*digest)),
            None => self.results.put(key, result).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::files::{FileActions, FileBlobs};
    use crate::merkle::{TreeBuilder, tree_bytes};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    struct Fixture {
        _folder: tempfile::TempDir,
        blobs: FileBlobs,
        cache: Complete<FileActions, FileBlobs>,
        key: ActionKey,
        result: ActionResult,
        /// Every blob that the result stands for, by what it is.
        parts: Vec<(&'static str, Bytes)>,
    }

    fn digest(data: &[u8]) -> Digest {
        Digest::of(FUNCTION, data)
    }

    /// A result with everything a result can have, and a store without any of it.
    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let blobs = FileBlobs::open(folder.path(), u64::MAX).unwrap();
        let mut tree = TreeBuilder::new();
        tree.add_file("deep/in/tree", digest(b"in tree"), false).unwrap();
        let tree = tree.build(FUNCTION);
        let message = tree_bytes(&tree);
        let named = |data: &[u8]| Some(digest(data).to_proto());
        let file = reapi::OutputFile { path: "f".to_owned(), digest: named(b"file"), ..Default::default() };
        let directory = reapi::OutputDirectory {
            path: "d".to_owned(),
            tree_digest: named(&message),
            root_directory_digest: Some(tree.root.to_proto()),
            ..Default::default()
        };
        let result = ActionResult {
            output_files: vec![file],
            output_directories: vec![directory],
            stdout_digest: named(b"stdout"),
            stderr_digest: named(b""),
            ..ActionResult::default()
        };
        let mut parts = vec![
            ("output file", Bytes::from_static(b"file")),
            ("stdout", Bytes::from_static(b"stdout")),
            ("file in the tree", Bytes::from_static(b"in tree")),
            ("tree", message),
        ];
        parts.extend(tree.directories.into_iter().map(|(_, data)| ("directory", data)));
        let key = ActionKey { instance: Arc::from(""), action: digest(b"action") };
        Fixture {
            _folder: folder,
            cache: Complete::new(blobs.results(), blobs.clone()),
            blobs,
            key,
            result,
            parts,
        }
    }

    #[tokio::test]
    async fn a_result_counts_only_while_every_blob_it_stands_for_is_there() {
        let it = fixture();
        it.blobs.results().put(&it.key, it.result.clone()).await.unwrap();
        for (_, data) in &it.parts {
            it.blobs.put_bytes(&digest(data), data).unwrap();
        }
        assert_eq!(it.cache.get(&it.key).await.unwrap(), Some(it.result.clone()));
        for (what, data) in &it.parts {
            std::fs::remove_file(it.blobs.path_of(&digest(data)).unwrap().path()).unwrap();
            assert_eq!(it.cache.get(&it.key).await.unwrap(), None, "without {what}");
            it.blobs.put_bytes(&digest(data), data).unwrap();
        }
        assert_eq!(it.cache.get(&it.key).await.unwrap(), Some(it.result), "a hit again after the upload");
    }

    #[tokio::test]
    async fn a_result_is_not_taken_before_its_blobs() {
        let it = fixture();
        for (what, data) in &it.parts {
            let put = it.cache.put(&it.key, it.result.clone()).await;
            assert!(matches!(put, Err(StoreError::Missing(_))), "without {what}");
            it.blobs.put_bytes(&digest(data), data).unwrap();
        }
        it.cache.put(&it.key, it.result.clone()).await.unwrap();
    }

    #[tokio::test]
    async fn a_result_that_names_no_digest_or_no_tree_is_none() {
        let it = fixture();
        let garbage = Bytes::from_static(b"no tree at all");
        it.blobs.put_bytes(&digest(&garbage), &garbage).unwrap();
        let mut no_tree = ActionResult::default();
        no_tree.output_directories.push(reapi::OutputDirectory {
            tree_digest: Some(digest(&garbage).to_proto()),
            ..Default::default()
        });
        let no_digest = ActionResult {
            stdout_digest: Some(reapi::Digest { hash: "xyz".to_owned(), size_bytes: 1 }),
            ..ActionResult::default()
        };
        for wrong in [no_tree, no_digest] {
            it.blobs.results().put(&it.key, wrong.clone()).await.unwrap();
            assert_eq!(it.cache.get(&it.key).await.unwrap(), None, "{:?}", wrong.encode_to_vec());
        }
    }
    #[tokio::test]
    async fn a_result_with_more_trees_than_are_read_is_none() {
        let it = fixture();
        for (_, data) in &it.parts {
            it.blobs.put_bytes(&digest(data), data).unwrap();
        }
        // A tree of one root and a field that is unknown, to make it large.
        let tree = |bytes: usize| {
            let mut message = vec![0x0a, 0];
            prost::encoding::bytes::encode(15, &vec![0_u8; bytes], &mut message);
            it.blobs.put_bytes(&digest(&message), &message).unwrap();
            let tree_digest = Some(digest(&message).to_proto());
            reapi::OutputDirectory { tree_digest, ..Default::default() }
        };
        let half = usize::try_from(TREES.bytes_max / 2).unwrap();
        let mut result = it.result.clone();
        for (more, known) in [(tree(half), true), (tree(half - 100_000), true), (tree(half), false)] {
            result.output_directories.push(more);
            it.blobs.results().put(&it.key, result.clone()).await.unwrap();
            assert_eq!(it.cache.get(&it.key).await.unwrap().is_some(), known);
        }
    }
}
