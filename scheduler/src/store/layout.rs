//! [`Layout`]: where everything lies in the data folder.
//!
//! ```text
//! DIR/lock                                     held while a server uses the folder
//! DIR/format                                   which layout this is
//! DIR/segments/NUMBER-SALT.seg                 small blobs and results, many to a file ([`super::segments`])
//! DIR/segments/NUMBER-SALT.voids               which of its records count no longer
//! DIR/cas/sha256/ab/HASH-SIZE                  the bytes of a blob that is not small, or zstd of them ([`super::packed`])
//! DIR/results/INSTANCE/sha256/ab/HASH-SIZE     a result, in the first layout
//! DIR/tmp/                                     files that are being written or removed
//! DIR/index/                                   what was used when; can be thrown away
//! ```
//!
//! The path of a blob that is not small is a pure function of its name, so finding it needs no index.
//!
//! The first layout had a file for every blob and result. Those are found as well, and moved into segments
//! while the server serves.

use std::fmt;
use std::path::{Path, PathBuf};

use castwork_cas::{ActionKey, Digest, DigestFunction};

use super::segments::SMALL_BYTES_MAX;

/// The folder of an instance's results: a hash of its name, so that any name makes a legal folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InstanceKey([u8; 16]);

impl InstanceKey {
    pub(crate) fn of(instance: &str) -> Self {
        let hash = blake3::hash(instance.as_bytes());
        Self(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// What the store keeps. Written as its path below the data folder, where it is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FileKey {
    /// The bytes of a blob.
    Blob(Digest),
    /// The result of an action.
    Result(InstanceKey, Digest),
}

impl FileKey {
    pub(crate) fn of_result(key: &ActionKey) -> Self {
        Self::Result(InstanceKey::of(&key.instance), key.action)
    }

    /// Whether it belongs into a segment.
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Self::Blob(digest) => digest.size_bytes() <= SMALL_BYTES_MAX,
            Self::Result(..) => true,
        }
    }

    /// Reads what [`fmt::Display`] wrote; nothing else is a file of the store.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let key = match parts.next()? {
            "cas" => Self::Blob(parse_digest(&mut parts)?),
            "results" => {
                let mut instance = [0; 16];
                hex::decode_to_slice(parts.next()?, &mut instance).ok()?;
                Self::Result(InstanceKey(instance), parse_digest(&mut parts)?)
            }
            _ => return None,
        };
        // Reading is more lenient than writing (case of letters, leading zeros): one file, one name.
        (parts.next().is_none() && key.to_string() == text).then_some(key)
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = match self {
            Self::Blob(digest) => {
                f.write_str("cas/")?;
                digest
            }
            Self::Result(instance, digest) => {
                write!(f, "results/{}/", hex::encode(instance.0))?;
                digest
            }
        };
        let hash = digest.hash_hex();
        write!(f, "{}/{}/{hash}-{}", digest.function().name(), &hash[..2], digest.size_bytes())
    }
}

fn parse_digest<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Digest> {
    let function = DigestFunction::from_name(parts.next()?)?;
    let _shard = parts.next()?;
    let (hash, size) = parts.next()?.split_once('-')?;
    Digest::from_hex(function, hash, size.parse().ok()?).ok()
}

/// The data folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the store lies.
    pub(crate) fn path(&self, key: &FileKey) -> PathBuf {
        self.root.join(key.to_string())
    }

    /// The file of the store that lies at `path`, if it is one.
    pub(crate) fn key(&self, path: &Path) -> Option<FileKey> {
        let parts: Option<Vec<&str>> =
            path.strip_prefix(&self.root).ok()?.iter().map(std::ffi::OsStr::to_str).collect();
        FileKey::parse(&parts?.join("/"))
    }

    /// The folders below which the files of the store lie.
    pub(crate) fn trees(&self) -> [PathBuf; 2] {
        [self.root.join("cas"), self.root.join("results")]
    }

    /// Over all blobs that are not small.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("cas")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_which_file_it_is() {
        let layout = Layout::new(Path::new("/data"));
        let digest = Digest::of(DigestFunction::Blake3, b"abc");
        let keys = [FileKey::Blob(digest), FileKey::Result(InstanceKey::of("team/main"), digest)];
        for key in keys {
            assert_eq!(layout.key(&layout.path(&key)), Some(key));
        }
        assert!(layout.path(&keys[0]).starts_with("/data/cas/blake3/64"));
    }

    #[test]
    fn what_is_not_named_like_a_file_of_the_store_is_none() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let good = FileKey::Blob(digest).to_string();
        let parent = good.rsplit_once('/').unwrap().0;
        for bad in [
            "cas/sha256/ba/README".to_owned(),
            good.replace("sha256", "md5"),
            good.replace("/ba/", "/bb/"),
            format!("{good}/x"),
            good.replace("-3", "-03"),
            parent.to_owned(),
            good.replace("cas/", "tmp/"),
        ] {
            assert_eq!(FileKey::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn instances_do_not_share_results() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let key = |name| FileKey::Result(InstanceKey::of(name), digest).to_string();
        assert_ne!(key(""), key("a"));
        assert_ne!(key("a/b"), key("a"));
    }
}
