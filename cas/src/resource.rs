//! [`ResourceName`]: what `ByteStream` calls a blob, read at the door and written for others.
//!
//! ```text
//! write   [instance/]uploads/{id}/blobs/[{fn}/]{hash}/{size}[/metadata…]
//! write   [instance/]uploads/{id}/compressed-blobs/{compressor}/[{fn}/]{hash}/{size}[/metadata…]
//! read    [instance/]blobs/[{fn}/]{hash}/{size}
//! read    [instance/]compressed-blobs/{compressor}/[{fn}/]{hash}/{size}
//! ```
//!
//! An instance name may have several segments, but none of [`KEYWORDS`], so the first keyword ends
//! it. Hash and size are always those of the plain blob.

use std::fmt;
use std::sync::Arc;

use castwork_proto::reapi;

use crate::{Digest, DigestError, DigestFunction};

/// Segments that REAPI keeps for itself; no segment of an instance name may be one.
pub const KEYWORDS: [&str; 7] =
    ["blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"];

/// The longest resource or instance name that is read, in bytes.
pub const NAME_BYTES_MAX: usize = 4096;

/// How the bytes of a blob are written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// As they are.
    #[default]
    Identity,
    /// As zstd frames.
    Zstd,
}

impl Compressor {
    /// The value for messages.
    pub const fn to_proto(self) -> reapi::compressor::Value {
        match self {
            Self::Identity => reapi::compressor::Value::Identity,
            Self::Zstd => reapi::compressor::Value::Zstd,
        }
    }

    /// Reads the `compressor` field of a message.
    ///
    /// # Errors
    /// [`ResourceError::Compressor`] if it is none that this build knows.
    pub fn from_proto(value: i32) -> Result<Self, ResourceError> {
        [Self::Identity, Self::Zstd].into_iter().find(|known| known.to_proto() as i32 == value).ok_or_else(
            || {
                let name = reapi::compressor::Value::try_from(value)
                    .map_or_else(|_| value.to_string(), |value| value.as_str_name().to_lowercase());
                ResourceError::Compressor(name)
            },
        )
    }
}

/// A name of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceName {
    /// Of a blob to read.
    Read(ReadName),
    /// Of a blob to write.
    Write(WriteName),
}

/// Names a blob to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadName {
    /// REAPI instance name; may be empty.
    pub instance: Arc<str>,
    /// The blob.
    pub digest: Digest,
    /// How its bytes are to be sent.
    pub compressor: Compressor,
}

/// Names one upload of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteName {
    /// REAPI instance name; may be empty.
    pub instance: Arc<str>,
    /// What the client calls this upload; a UUID by the book, any non-empty segment in practice.
    pub upload_id: String,
    /// The blob.
    pub digest: Digest,
    /// How its bytes are sent.
    pub compressor: Compressor,
}

impl ResourceName {
    /// Reads a name of either kind; `default` is the function that a name without one means, unless its
    /// hash has the length of another.
    ///
    /// # Errors
    /// Says which part of the name is wrong.
    pub fn parse(name: &str, default: DigestFunction) -> Result<Self, ResourceError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(ResourceError::TooLong { bytes: name.len() });
        }
        let mut segments = Segments { name, rest: Some(name) };
        let (instance, keyword) = segments.instance()?;
        if keyword != "uploads" {
            let (digest, compressor) = segments.blob(keyword, default)?;
            if let Some(rest) = segments.rest {
                return Err(ResourceError::Trailing(rest.to_owned()));
            }
            return Ok(Self::Read(ReadName { instance: instance.into(), digest, compressor }));
        }
        let upload_id = segments.next("an upload's id")?.to_owned();
        if upload_id.is_empty() {
            return Err(ResourceError::UploadId);
        }
        let keyword = segments.next("`blobs` or `compressed-blobs`")?;
        // Whatever follows the size is the client's own note, by the book to be ignored.
        let (digest, compressor) = segments.blob(keyword, default)?;
        Ok(Self::Write(WriteName { instance: instance.into(), upload_id, digest, compressor }))
    }
}

impl ReadName {
    /// Reads the name of a blob to read; `default` is the function that a name without one means.
    ///
    /// # Errors
    /// As [`ResourceName::parse`], and [`ResourceError::Kind`] for the name of an upload.
    pub fn parse(name: &str, default: DigestFunction) -> Result<Self, ResourceError> {
        match ResourceName::parse(name, default)? {
            ResourceName::Read(name) => Ok(name),
            ResourceName::Write(_) => Err(ResourceError::Kind { expected: "a blob to read" }),
        }
    }
}

impl WriteName {
    /// Reads the name of an upload; `default` is the function that a name without one means.
    ///
    /// # Errors
    /// As [`ResourceName::parse`], and [`ResourceError::Kind`] for the name of a blob to read.
    pub fn parse(name: &str, default: DigestFunction) -> Result<Self, ResourceError> {
        match ResourceName::parse(name, default)? {
            ResourceName::Write(name) => Ok(name),
            ResourceName::Read(_) => Err(ResourceError::Kind { expected: "an upload" }),
        }
    }

    /// The name under which the blob can be read.
    pub fn to_read(&self) -> ReadName {
        ReadName { instance: self.instance.clone(), digest: self.digest, compressor: self.compressor }
    }
}

/// How a `PreconditionFailure` names a blob that is missing: the read form without an instance.
pub fn violation_subject(digest: &Digest) -> String {
    ReadName { instance: "".into(), digest: *digest, compressor: Compressor::Identity }.to_string()
}

/// Checks a REAPI instance name. The empty name is one.
///
/// # Errors
/// [`ResourceError::Instance`] if a segment is empty, `.`, `..`, a keyword or holds a control
/// character, [`ResourceError::TooLong`] beyond [`NAME_BYTES_MAX`].
pub fn check_instance_name(name: &str) -> Result<(), ResourceError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(ResourceError::TooLong { bytes: name.len() });
    }
    if name.is_empty() {
        return Ok(());
    }
    for segment in name.split('/') {
        let reason = match segment {
            "" => "an empty segment",
            "." | ".." => "a dot segment",
            _ if KEYWORDS.contains(&segment) => "a word that REAPI keeps for itself",
            _ if segment.chars().any(char::is_control) => "a control character",
            _ => continue,
        };
        return Err(ResourceError::Instance { name: name.to_owned(), reason });
    }
    Ok(())
}

/// The segments of a name that have not been read yet.
struct Segments<'a> {
    name: &'a str,
    rest: Option<&'a str>,
}

impl<'a> Segments<'a> {
    fn next(&mut self, expected: &'static str) -> Result<&'a str, ResourceError> {
        let rest = self.rest.ok_or(ResourceError::Ends { expected })?;
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        Ok(segment)
    }

    /// Takes everything up to the first keyword, and the keyword.
    fn instance(&mut self) -> Result<(&'a str, &'a str), ResourceError> {
        let mut end = 0;
        loop {
            let segment = self.next("`blobs`, `compressed-blobs` or `uploads`")?;
            if KEYWORDS.contains(&segment) {
                // Without the slash before the keyword, which is there unless the instance is empty.
                let instance = &self.name[..end];
                let name = instance.strip_suffix('/').unwrap_or(instance);
                if end > 0 && name.is_empty() {
                    return Err(ResourceError::Instance {
                        name: instance.to_owned(),
                        reason: "an empty segment",
                    });
                }
                check_instance_name(name)?;
                return Ok((name, segment));
            }
            end += segment.len() + 1;
        }
    }

    /// Takes `[{fn}/]{hash}/{size}`, after `blobs` or `compressed-blobs`.
    fn blob(
        &mut self,
        keyword: &str,
        default: DigestFunction,
    ) -> Result<(Digest, Compressor), ResourceError> {
        let compressor = match keyword {
            "blobs" => Compressor::Identity,
            "compressed-blobs" => match self.next("a compressor")? {
                "zstd" => Compressor::Zstd,
                other => return Err(ResourceError::Compressor(other.to_owned())),
            },
            other => return Err(ResourceError::Keyword(other.to_owned())),
        };
        let first = self.next("a hash")?;
        let (function, hash) = match named_function(first)? {
            Some(function) => (function, self.next("a hash")?),
            None => (DigestFunction::of_length(first.len(), default), first),
        };
        let size_bytes = parse_size(self.next("a size")?)?;
        Ok((Digest::from_hex(function, hash, size_bytes)?, compressor))
    }
}

/// Reads the segment of the digest function, if `segment` is one.
fn named_function(segment: &str) -> Result<Option<DigestFunction>, ResourceError> {
    match DigestFunction::from_name(segment) {
        Some(function) if function.is_named_in_resources() => Ok(Some(function)),
        Some(_) => Err(ResourceError::FunctionNamed(segment.to_owned())),
        None if reapi::digest_function::Value::from_str_name(&segment.to_uppercase()).is_some() => {
            Err(ResourceError::Digest(DigestError::Function(segment.to_owned())))
        }
        None => Ok(None),
    }
}

/// Reads a size: decimal digits alone, so that each size has one spelling.
fn parse_size(text: &str) -> Result<u64, ResourceError> {
    let is_plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    let size = if is_plain { text.parse().ok() } else { None };
    size.ok_or_else(|| ResourceError::Digest(DigestError::Size(text.to_owned())))
}

fn write_blob(f: &mut fmt::Formatter<'_>, digest: &Digest, compressor: Compressor) -> fmt::Result {
    f.write_str(match compressor {
        Compressor::Identity => "blobs/",
        Compressor::Zstd => "compressed-blobs/zstd/",
    })?;
    if digest.function().is_named_in_resources() {
        write!(f, "{}/", digest.function().name())?;
    }
    write!(f, "{digest}")
}

fn write_instance(f: &mut fmt::Formatter<'_>, instance: &str) -> fmt::Result {
    if instance.is_empty() { Ok(()) } else { write!(f, "{instance}/") }
}

impl fmt::Display for ReadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, &self.instance)?;
        write_blob(f, &self.digest, self.compressor)
    }
}

impl fmt::Display for WriteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, &self.instance)?;
        write!(f, "uploads/{}/", self.upload_id)?;
        write_blob(f, &self.digest, self.compressor)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(name) => name.fmt(f),
            Self::Write(name) => name.fmt(f),
        }
    }
}

/// Why text is no resource name. All of them are the caller's fault (`INVALID_ARGUMENT`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a resource or instance name of {bytes} bytes; at most {NAME_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not an instance name.
    #[error("instance name `{name}` has {reason}")]
    Instance {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Names something else than was asked for.
    #[error("the resource name is not that of {expected}")]
    Kind {
        /// What it should name.
        expected: &'static str,
    },
    /// Something that `ByteStream` does not carry.
    #[error("`{0}` where `blobs` or `compressed-blobs` belongs in a resource name")]
    Keyword(String),
    /// Cut short.
    #[error("the resource name ends where {expected} belongs")]
    Ends {
        /// What comes next in a whole name.
        expected: &'static str,
    },
    /// An upload without an id.
    #[error("the id of an upload is empty")]
    UploadId,
    /// A compressor that is not offered; plain bytes have no compressor's name.
    #[error("compressor `{0}` is not supported; `zstd` is")]
    Compressor(String),
    /// A function that REAPI wants left out.
    #[error("digest function `{0}` must not be named in a resource name")]
    FunctionNamed(String),
    /// Hash or size are not well-formed.
    #[error("the blob's digest in the resource name")]
    Digest(#[from] DigestError),
    /// Something after the size.
    #[error("`{0}` after the size in a resource name")]
    Trailing(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(name: &str) -> Result<ReadName, ResourceError> {
        ReadName::parse(name, DigestFunction::Sha256)
    }

    fn write(name: &str) -> Result<WriteName, ResourceError> {
        WriteName::parse(name, DigestFunction::Sha256)
    }

    #[test]
    fn every_form_survives_being_read_and_written() {
        let hash = HASH;
        for name in [
            format!("blobs/{hash}/3"),
            format!("main/blobs/{hash}/3"),
            format!("a/b c/é/blobs/{hash}/0"),
            format!("blobs/blake3/{hash}/3"),
            format!("main/compressed-blobs/zstd/{hash}/9223372036854775807"),
            format!("compressed-blobs/zstd/blake3/{hash}/3"),
            format!("uploads/6ba7b810-9dad-11d1-80b4-00c04fd430c8/blobs/{hash}/3"),
            format!("a/b/uploads/not-a-uuid/compressed-blobs/zstd/blake3/{hash}/3"),
        ] {
            let parsed = ResourceName::parse(&name, DigestFunction::Sha256).expect(&name);
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn an_instance_may_have_several_segments_and_ends_at_the_first_keyword() {
        let name = read(&format!("a/b/blobs/{HASH}/3")).unwrap();
        assert_eq!(&*name.instance, "a/b");
        let name = write(&format!("a/uploads/blobs/blobs/{HASH}/3")).unwrap();
        assert_eq!((&*name.instance, &*name.upload_id), ("a", "blobs"));
    }

    #[test]
    fn a_note_after_the_size_is_ignored_on_writes_and_refused_on_reads() {
        let name = write(&format!("uploads/id/blobs/{HASH}/3/src/a.cc")).unwrap();
        assert_eq!(name.digest.size_bytes(), 3);
        assert_eq!(read(&format!("blobs/{HASH}/3/a.cc")), Err(ResourceError::Trailing("a.cc".to_owned())));
    }

    #[test]
    fn a_name_without_a_function_means_the_default_of_the_instance() {
        let plain = format!("blobs/{HASH}/3");
        let function = |default| ReadName::parse(&plain, default).unwrap().digest.function();
        assert_eq!(function(DigestFunction::Sha256), DigestFunction::Sha256);
        assert_eq!(function(DigestFunction::Blake3), DigestFunction::Blake3);
        let named = read(&format!("blobs/blake3/{HASH}/3")).unwrap();
        assert_eq!(named.digest.function(), DigestFunction::Blake3);
    }

    #[test]
    fn a_function_that_must_not_be_named_and_an_unsupported_one_are_refused() {
        assert_eq!(
            read(&format!("blobs/sha256/{HASH}/3")),
            Err(ResourceError::FunctionNamed("sha256".to_owned()))
        );
        assert_eq!(
            read(&format!("blobs/sha256tree/{HASH}/3")),
            Err(ResourceError::Digest(DigestError::Function("sha256tree".to_owned())))
        );
    }

    #[test]
    fn only_zstd_is_a_compressor_and_the_error_names_the_other() {
        for other in ["identity", "brotli", "deflate", "ZSTD", ""] {
            assert_eq!(
                read(&format!("compressed-blobs/{other}/{HASH}/3")),
                Err(ResourceError::Compressor(other.to_owned()))
            );
        }
    }

    #[test]
    fn a_size_has_one_spelling() {
        for size in
            ["", "03", "00", "+3", "-1", "3 ", "0x3", "3.0", "9223372036854775808", "99999999999999999999"]
        {
            let error = read(&format!("blobs/{HASH}/{size}")).unwrap_err();
            assert_eq!(error, ResourceError::Digest(DigestError::Size(size.to_owned())), "{size}");
        }
    }

    #[test]
    fn names_that_are_cut_short_or_of_another_kind_are_refused() {
        let ends = |expected| Err(ResourceError::Ends { expected });
        assert_eq!(read(""), ends("`blobs`, `compressed-blobs` or `uploads`"));
        assert_eq!(read("main"), ends("`blobs`, `compressed-blobs` or `uploads`"));
        assert_eq!(read("blobs"), ends("a hash"));
        assert_eq!(read(&format!("blobs/{HASH}")), ends("a size"));
        assert_eq!(write("uploads"), Err(ResourceError::Ends { expected: "an upload's id" }));
        assert_eq!(write(&format!("uploads//blobs/{HASH}/3")), Err(ResourceError::UploadId));
        assert_eq!(read("operations/1"), Err(ResourceError::Keyword("operations".to_owned())));
        assert_eq!(write("uploads/id/actions/x"), Err(ResourceError::Keyword("actions".to_owned())));
        assert!(matches!(write(&format!("blobs/{HASH}/3")), Err(ResourceError::Kind { .. })));
        assert!(matches!(read(&format!("uploads/id/blobs/{HASH}/3")), Err(ResourceError::Kind { .. })));
    }

    #[test]
    fn instance_names_that_could_be_taken_for_something_else_are_refused() {
        for name in ["/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/blobs", "uploads", "a\n", "a\0b"] {
            assert!(matches!(check_instance_name(name), Err(ResourceError::Instance { .. })), "{name:?}");
        }
        for name in ["/", "//", "a//", "../", "a/./"] {
            let error = read(&format!("{name}blobs/{HASH}/3")).unwrap_err();
            assert!(matches!(error, ResourceError::Instance { .. }), "{name:?}: {error}");
        }
        for name in ["", "main", "a/b/c", "remote-execution", "blobs2"] {
            assert_eq!(check_instance_name(name), Ok(()));
        }
    }

    #[test]
    fn a_name_beyond_the_bound_is_refused_unread() {
        let name = format!("{}/blobs/{HASH}/3", "x".repeat(NAME_BYTES_MAX));
        assert_eq!(read(&name), Err(ResourceError::TooLong { bytes: name.len() }));
        assert!(check_instance_name(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_missing_blob_is_named_as_clients_compare_it() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"abc");
        assert_eq!(violation_subject(&sha256), format!("blobs/{HASH}/3"));
        let blake3 = Digest::of(DigestFunction::Blake3, b"abc");
        assert_eq!(violation_subject(&blake3), format!("blobs/blake3/{}/3", blake3.hash_hex()));
    }

    #[test]
    fn names_with_random_changes_never_panic_and_what_is_read_is_written_back() {
        use rand::seq::IndexedRandom as _;
        use rand::{Rng as _, SeedableRng as _};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let parts = [
            "blobs",
            "uploads",
            "compressed-blobs",
            "zstd",
            "blake3",
            "sha256",
            "a",
            "",
            "..",
            HASH,
            "3",
            "é",
        ];
        let bases = [
            format!("a/b/blobs/{HASH}/3"),
            format!("compressed-blobs/zstd/blake3/{HASH}/3"),
            format!("a/uploads/id/compressed-blobs/zstd/{HASH}/3/note"),
        ];
        let (mut read, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let mut segments: Vec<&str> = bases.choose(&mut random).unwrap().split('/').collect();
            for _ in 0..random.random_range(1..3) {
                let at = random.random_range(0..segments.len());
                match random.random_range(0..3) {
                    0 => segments[at] = parts.choose(&mut random).unwrap(),
                    1 => segments.insert(at, parts.choose(&mut random).unwrap()),
                    _ if segments.len() > 1 => drop(segments.remove(at)),
                    _ => {}
                }
            }
            let name = segments.join("/");
            match ResourceName::parse(&name, DigestFunction::Sha256) {
                Ok(parsed) => {
                    assert!(name.starts_with(&parsed.to_string()), "{name}");
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}
