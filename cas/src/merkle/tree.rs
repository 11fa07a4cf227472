//! [`TreeReader`]: the `Tree` message, in which an output directory travels as one blob.

use std::collections::HashMap;

use bytes::{Buf, Bytes};
use castwork_proto::reapi;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint};

use super::explore::Explorer;
use super::{BuiltTree, FlatTree, Limits, MerkleError, WalkError};
use crate::{Digest, DigestFunction};

const ROOT: u32 = 1;
const CHILDREN: u32 = 2;

/// Encodes a tree as a `Tree` message: root first, each child once and after its parents, which is
/// what `OutputDirectory.is_topologically_sorted` promises.
pub fn tree_bytes(tree: &BuiltTree) -> Bytes {
    let mut encoded = Vec::new();
    for (at, (_, data)) in tree.directories.iter().enumerate() {
        encode_key(if at == 0 { ROOT } else { CHILDREN }, WireType::LengthDelimited, &mut encoded);
        encode_varint(data.len() as u64, &mut encoded);
        encoded.extend_from_slice(data);
    }
    encoded.into()
}

/// The `Tree` message of a tree, decoded.
pub fn tree_message(tree: &BuiltTree) -> reapi::Tree {
    reapi::Tree::decode(tree_bytes(tree)).expect("what was just encoded decodes")
}

/// The directories of a `Tree` message, found by digest.
///
/// The digests are those of the bytes in the message, so a directory with fields of a later version
/// keeps its name.
#[derive(Clone, Debug)]
pub struct TreeReader {
    /// Digest of the root directory.
    pub root: Digest,
    directories: HashMap<Digest, Bytes>,
}

impl TreeReader {
    /// Takes a `Tree` message apart. `function` is that of all its digests.
    ///
    /// # Errors
    /// [`MerkleError::Decode`], [`MerkleError::Roots`] unless there is one root, and
    /// [`MerkleError::TooMuch`] beyond [`Limits::bytes_max`] or [`Limits::directories_max`].
    pub fn from_bytes(data: &Bytes, function: DigestFunction, limits: &Limits) -> Result<Self, MerkleError> {
        if data.len() as u64 > limits.bytes_max {
            return Err(MerkleError::TooMuch { what: "bytes of directories", max: limits.bytes_max });
        }
        let mut roots = Vec::new();
        let mut directories = HashMap::new();
        let mut rest = data.clone();
        while rest.has_remaining() {
            let Some((tag, data)) = next_field(&mut rest)? else { continue };
            let digest = Digest::of(function, &data);
            directories.insert(digest, data);
            if directories.len() > limits.directories_max {
                let max = limits.directories_max as u64;
                return Err(MerkleError::TooMuch { what: "distinct directories", max });
            }
            if tag == ROOT {
                roots.push(digest);
            }
        }
        match roots[..] {
            [root] => Ok(Self { root, directories }),
            _ => Err(MerkleError::Roots(roots.len())),
        }
    }

    /// Checks every directory, and the whole.
    ///
    /// # Errors
    /// [`WalkError::Missing`] with the directories that are named and not in the message;
    /// [`WalkError::Refused`].
    pub fn to_flat(&self, limits: &Limits) -> Result<FlatTree, WalkError> {
        let mut explorer = Explorer::new(&self.root, limits)?;
        loop {
            let wanted = explorer.wanted()?;
            if wanted.is_empty() {
                break;
            }
            for digest in wanted {
                let data = self.directories.get(&digest).cloned();
                // The empty directory need not be carried.
                explorer.take(&digest, data.or_else(|| digest.is_empty_blob().then(Bytes::new)))?;
            }
        }
        match explorer.missing() {
            [] => Ok(explorer.finish()?),
            missing => Err(WalkError::Missing(missing.to_vec())),
        }
    }
}

/// Takes the next field; `None` if it is not a directory.
fn next_field(rest: &mut Bytes) -> Result<Option<(u32, Bytes)>, MerkleError> {
    let refuse = |source| MerkleError::Decode { message: "Tree", source };
    let (tag, wire_type) = decode_key(rest).map_err(refuse)?;
    if wire_type != WireType::LengthDelimited || (tag != ROOT && tag != CHILDREN) {
        prost::encoding::skip_field(wire_type, tag, rest, DecodeContext::default()).map_err(refuse)?;
        return Ok(None);
    }
    let length = decode_varint(rest).map_err(refuse)?;
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(Some((tag, rest.split_to(length)))),
        // Says it as the decoder does of a message that is cut short.
        _ => Err(refuse(reapi::Tree::decode(&[0x0a_u8, 0x01][..]).expect_err("one byte is missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::TreeBuilder;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn sample() -> BuiltTree {
        let mut tree = TreeBuilder::new();
        for path in ["a/x/1", "b/x/1", "c"] {
            tree.add_file(path, Digest::of(FUNCTION, b"1"), false).unwrap();
        }
        tree.add_directory("empty").unwrap();
        tree.build(FUNCTION)
    }

    fn read(data: impl Into<Bytes>) -> Result<TreeReader, MerkleError> {
        TreeReader::from_bytes(&data.into(), FUNCTION, &Limits::default())
    }

    #[test]
    fn a_tree_message_holds_the_root_and_each_child_once_after_its_parents() {
        let built = sample();
        let message = tree_message(&built);
        assert_eq!(Digest::of(FUNCTION, &message.root.as_ref().unwrap().encode_to_vec()), built.root);
        // `a` and `b` are equal, `x` is in both, and `empty`.
        assert_eq!(message.children.len(), 3);
        assert_eq!(tree_bytes(&built), message.encode_to_vec(), "and is canonical");
    }

    #[test]
    fn a_tree_survives_the_way_through_its_message() {
        let built = sample();
        let flat = read(tree_bytes(&built)).unwrap().to_flat(&Limits::default()).unwrap();
        assert_eq!(flat.root, built.root);
        let paths: Vec<String> = flat.entries().map(|entry| entry.path).collect();
        assert_eq!(paths, ["c", "a", "a/x", "a/x/1", "b", "b/x", "b/x/1", "empty"]);
    }

    #[test]
    fn a_child_that_is_not_in_the_message_is_reported() {
        let mut built = sample();
        let (gone, _) = built.directories.remove(2);
        let Err(WalkError::Missing(missing)) = read(tree_bytes(&built)).unwrap().to_flat(&Limits::default())
        else {
            panic!("a child is missing");
        };
        assert_eq!(missing, [gone]);
    }

    #[test]
    fn fields_of_a_later_version_do_not_change_the_names_of_directories() {
        // Field 15 of a child, and of the tree: unknown to us, part of the child's bytes.
        let child = Bytes::from_static(&[0x78, 0x07]);
        let digest = Digest::of(FUNCTION, &child).to_proto();
        let node = reapi::DirectoryNode { name: "later".to_owned(), digest: Some(digest) };
        let root = reapi::Directory { directories: vec![node], ..Default::default() }.encode_to_vec();
        let mut data = vec![0x78, 0x01];
        for (tag, bytes) in [(ROOT, &root[..]), (CHILDREN, &child[..])] {
            encode_key(tag, WireType::LengthDelimited, &mut data);
            encode_varint(bytes.len() as u64, &mut data);
            data.extend_from_slice(bytes);
        }
        let flat = read(data).unwrap().to_flat(&Limits::default()).unwrap();
        assert_eq!(flat.paths(), 1);
    }

    #[test]
    fn no_root_two_roots_and_cut_messages_are_refused() {
        assert_eq!(read(Vec::new()).unwrap_err(), MerkleError::Roots(0));
        assert_eq!(read(vec![0x0a, 0, 0x0a, 0]).unwrap_err(), MerkleError::Roots(2));
        let whole = tree_bytes(&sample());
        for cut in 1..whole.len() {
            // Cutting between two fields leaves a message; the missing child shows in the whole.
            match read(whole.slice(..cut)) {
                Err(error) => assert!(matches!(error, MerkleError::Decode { .. }), "{cut}: {error}"),
                Ok(reader) => assert!(reader.to_flat(&Limits::default()).is_err(), "{cut}"),
            }
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        assert!(matches!(
            read(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            Err(MerkleError::Decode { .. })
        ));
    }

    #[test]
    fn a_message_of_too_many_directories_or_bytes_is_refused() {
        let data = tree_bytes(&sample());
        let refused = |limits: Limits| TreeReader::from_bytes(&data, FUNCTION, &limits).is_err();
        assert!(refused(Limits { directories_max: 3, ..Limits::default() }));
        assert!(refused(Limits { bytes_max: data.len() as u64 - 1, ..Limits::default() }));
        assert!(!refused(Limits { directories_max: 4, ..Limits::default() }));
    }
}
