//! [`Digest`]: the checked name of a blob.

use std::fmt;
use std::str::FromStr;

use castwork_proto::reapi;
use sha2::Digest as _;

/// The most bytes a hash of any supported function has.
const HASH_BYTES_MAX: usize = 64;

/// A hash function that names blobs.
///
/// REAPI knows more; a new one is a variant here, its name and length in the tables, and an arm in
/// [`Hasher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestFunction {
    /// SHA-256, the default of nearly every client.
    Sha256,
    /// BLAKE3 with its default output of 32 bytes. Has to be named in every request (REAPI v2.8).
    Blake3,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-1, with a look for the known ways to forge it: forged bytes get another hash than SHA-1 says.
    Sha1,
    /// MD5, which anyone can forge. See [`DigestFunction::is_forgeable`].
    Md5,
}

impl DigestFunction {
    /// Every supported function, the default first.
    pub const ALL: [Self; 6] =
        [Self::Sha256, Self::Blake3, Self::Sha384, Self::Sha512, Self::Sha1, Self::Md5];

    /// Lower-case name, as in resource names and on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
        }
    }

    /// Length of a hash, in bytes.
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }

    /// Whether resource names carry the function's name (REAPI: only where the length of the
    /// hash does not tell).
    pub const fn is_named_in_resources(self) -> bool {
        matches!(self, Self::Blake3)
    }

    /// Whether two blobs with the same digest can be made within reach of anybody, so that a blob under
    /// it proves nothing about who wrote what.
    pub const fn is_forgeable(self) -> bool {
        matches!(self, Self::Md5)
    }

    /// The function that a hash of `digits` hexadecimal digits means where none is said: the default if
    /// its hashes are that long, else the one that REAPI has for the length, else the default.
    pub fn of_length(digits: usize, default: Self) -> Self {
        let unnamed = Self::ALL.into_iter().filter(|function| !function.is_named_in_resources());
        std::iter::once(default)
            .chain(unnamed)
            .find(|function| function.hash_bytes() * 2 == digits)
            .unwrap_or(default)
    }

    /// The value for messages.
    pub const fn to_proto(self) -> reapi::digest_function::Value {
        match self {
            Self::Sha256 => reapi::digest_function::Value::Sha256,
            Self::Blake3 => reapi::digest_function::Value::Blake3,
            Self::Sha384 => reapi::digest_function::Value::Sha384,
            Self::Sha512 => reapi::digest_function::Value::Sha512,
            Self::Sha1 => reapi::digest_function::Value::Sha1,
            Self::Md5 => reapi::digest_function::Value::Md5,
        }
    }

    /// Reads the `digest_function` field of a request; `default` is what an unset field means.
    ///
    /// # Errors
    /// [`DigestError::Function`] if the value is unknown or names a function that is not supported.
    pub fn from_proto(value: i32, default: Self) -> Result<Self, DigestError> {
        if value == reapi::digest_function::Value::Unknown as i32 {
            return Ok(default);
        }
        Self::ALL
            .into_iter()
            .find(|function| function.to_proto() as i32 == value)
            .ok_or_else(|| DigestError::Function(function_label(value)))
    }

    /// Returns the function with that lower-case name, if it is supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

fn function_label(value: i32) -> String {
    reapi::digest_function::Value::try_from(value)
        .map_or_else(|_| value.to_string(), |value| value.as_str_name().to_owned())
}

/// The name of a blob: function, hash and size, all three part of its identity.
///
/// Always well-formed; two digests are equal exactly if they name the same blob. Shown as
/// `HASH/SIZE`, which is also what [`FromStr`] reads (as SHA-256, the default function).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    function: DigestFunction,
    size_bytes: u64,
    /// Zero beyond the function's length, so that the derived comparisons are right.
    hash: [u8; HASH_BYTES_MAX],
}

impl Digest {
    /// Hashes `data`.
    pub fn of(function: DigestFunction, data: &[u8]) -> Self {
        let mut hasher = Hasher::new(function);
        hasher.update(data);
        hasher.finish()
    }

    /// The digest of no bytes. REAPI has every store behave as if it held this blob.
    pub fn empty(function: DigestFunction) -> Self {
        Self::of(function, &[])
    }

    /// Checks a digest that came in a message.
    ///
    /// # Errors
    /// Says what is wrong: length, letters that are not lower-case hexadecimal, negative size.
    pub fn from_proto(digest: &reapi::Digest, function: DigestFunction) -> Result<Self, DigestError> {
        let size_bytes =
            u64::try_from(digest.size_bytes).map_err(|_| DigestError::Size(digest.size_bytes.to_string()))?;
        Self::from_hex(function, &digest.hash, size_bytes)
    }

    /// Checks a hash in hexadecimal.
    ///
    /// # Errors
    /// As [`Digest::from_proto`].
    pub fn from_hex(function: DigestFunction, text: &str, size_bytes: u64) -> Result<Self, DigestError> {
        let length = function.hash_bytes() * 2;
        if text.len() != length {
            return Err(DigestError::Length { function: function.name(), expected: length, got: text.len() });
        }
        if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Letters);
        }
        // REAPI sizes are an int64.
        if i64::try_from(size_bytes).is_err() {
            return Err(DigestError::Size(size_bytes.to_string()));
        }
        let mut hash = [0; HASH_BYTES_MAX];
        hex::decode_to_slice(text, &mut hash[..function.hash_bytes()]).map_err(|_| DigestError::Letters)?;
        Ok(Self { function, size_bytes, hash })
    }

    /// The digest for a message.
    pub fn to_proto(&self) -> reapi::Digest {
        reapi::Digest {
            hash: self.hash_hex(),
            size_bytes: i64::try_from(self.size_bytes).expect("a digest's size was checked to fit"),
        }
    }

    /// The function that made the hash.
    pub const fn function(&self) -> DigestFunction {
        self.function
    }

    /// Size of the blob, in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether this names the blob of no bytes.
    pub fn is_empty_blob(&self) -> bool {
        self.size_bytes == 0 && *self == Self::empty(self.function)
    }

    /// The hash alone.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.function.hash_bytes()]
    }

    /// The hash in lower-case hexadecimal.
    pub fn hash_hex(&self) -> String {
        hex::encode(self.hash())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash_hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.function.name())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (hash, size) = text.split_once('/').ok_or(DigestError::Shape)?;
        let size_bytes = size.parse().map_err(|_| DigestError::Size(size.to_owned()))?;
        Self::from_hex(DigestFunction::Sha256, hash, size_bytes)
    }
}

/// Hashes a blob as its bytes arrive.
pub struct Hasher {
    state: State,
    size_bytes: u64,
}

enum State {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Sha1(Box<sha1_checked::Sha1>),
    Md5(md5::Md5),
}

impl Hasher {
    /// A hasher that has seen no bytes.
    pub fn new(function: DigestFunction) -> Self {
        let state = match function {
            DigestFunction::Sha256 => State::Sha256(sha2::Sha256::new()),
            DigestFunction::Blake3 => State::Blake3(Box::default()),
            DigestFunction::Sha384 => State::Sha384(sha2::Sha384::new()),
            DigestFunction::Sha512 => State::Sha512(sha2::Sha512::new()),
            DigestFunction::Sha1 => State::Sha1(Box::default()),
            DigestFunction::Md5 => State::Md5(md5::Md5::new()),
        };
        Self { state, size_bytes: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.size_bytes += data.len() as u64;
        match &mut self.state {
            State::Sha256(state) => state.update(data),
            State::Blake3(state) => {
                state.update(data);
            }
            State::Sha384(state) => state.update(data),
            State::Sha512(state) => state.update(data),
            State::Sha1(state) => sha1_checked::Digest::update(&mut **state, data),
            State::Md5(state) => state.update(data),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        let size_bytes = self.size_bytes;
        let digest = |function, bytes: &[u8]| {
            let mut hash = [0; HASH_BYTES_MAX];
            hash[..bytes.len()].copy_from_slice(bytes);
            Digest { function, size_bytes, hash }
        };
        match self.state {
            State::Sha256(state) => digest(DigestFunction::Sha256, &state.finalize()),
            State::Blake3(state) => digest(DigestFunction::Blake3, state.finalize().as_bytes()),
            State::Sha384(state) => digest(DigestFunction::Sha384, &state.finalize()),
            State::Sha512(state) => digest(DigestFunction::Sha512, &state.finalize()),
            State::Sha1(state) => digest(DigestFunction::Sha1, state.try_finalize().hash()),
            State::Md5(state) => digest(DigestFunction::Md5, &state.finalize()),
        }
    }
}

/// Why text or a message is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The function is not one of [`DigestFunction::ALL`].
    #[error(
        "digest function `{0}` is not supported; there are {known}",
        known = DigestFunction::ALL.map(DigestFunction::name).join(", ")
    )]
    Function(String),
    /// The hash is not as long as the function's.
    #[error("a {function} hash has {expected} hexadecimal digits, not {got}")]
    Length {
        /// Name of the function.
        function: &'static str,
        /// Digits that there should be.
        expected: usize,
        /// Digits that there are.
        got: usize,
    },
    /// Something else than `0`-`9` and `a`-`f`.
    #[error("a hash is written in lower-case hexadecimal digits")]
    Letters,
    /// Negative, or more than fits an `int64`.
    #[error("`{0}` is no blob size")]
    Size(String),
    /// Not `HASH/SIZE`.
    #[error("a digest is written HASH/SIZE")]
    Shape,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_agree_with_their_published_vectors() {
        for (function, expected) in [
            (DigestFunction::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (DigestFunction::Blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
            (
                DigestFunction::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                DigestFunction::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (DigestFunction::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (DigestFunction::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        ] {
            assert_eq!(Digest::of(function, b"abc").hash_hex(), expected, "{function:?}");
        }
        assert_eq!(DigestFunction::ALL.len(), 6, "every function has a vector here");
    }

    /// Two files that SHA-1 itself can't tell apart: the chosen-prefix collision of Leurent and Peyrin, 2020.
    #[test]
    fn bytes_that_were_made_to_collide_under_sha1_are_not_what_they_are_called() {
        let shared = Digest::from_hex(DigestFunction::Sha1, "8ac60ba76f1999a1ab70223f225aefdc78d4ddc0", 640);
        let shared = shared.unwrap();
        let forged =
            [&include_bytes!("testdata/sha1-collision-1")[..], include_bytes!("testdata/sha1-collision-2")];
        assert_ne!(forged[0], forged[1]);
        for data in forged {
            assert_eq!(data.len(), 640);
            assert_ne!(Digest::of(DigestFunction::Sha1, data), shared);
        }
    }

    #[test]
    fn a_hash_of_any_length_is_of_the_default_or_of_the_one_function_of_that_length() {
        let of = DigestFunction::of_length;
        assert_eq!(of(64, DigestFunction::Sha256), DigestFunction::Sha256);
        assert_eq!(of(64, DigestFunction::Blake3), DigestFunction::Blake3);
        assert_eq!(of(64, DigestFunction::Sha1), DigestFunction::Sha256);
        assert_eq!(of(40, DigestFunction::Sha256), DigestFunction::Sha1);
        assert_eq!(of(32, DigestFunction::Blake3), DigestFunction::Md5);
        assert_eq!(of(96, DigestFunction::Sha256), DigestFunction::Sha384);
        assert_eq!(of(128, DigestFunction::Sha256), DigestFunction::Sha512);
        assert_eq!(of(7, DigestFunction::Blake3), DigestFunction::Blake3);
    }

    #[test]
    fn a_digest_survives_the_way_through_a_message_and_through_text() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        assert_eq!(Digest::from_proto(&digest.to_proto(), DigestFunction::Sha256), Ok(digest));
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn the_same_bytes_under_another_function_are_another_blob() {
        assert_ne!(Digest::of(DigestFunction::Sha256, b"abc"), Digest::of(DigestFunction::Blake3, b"abc"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let good = Digest::of(DigestFunction::Sha256, b"abc").hash_hex();
        let check = |hash: &str, size_bytes| {
            let message = reapi::Digest { hash: hash.to_owned(), size_bytes };
            Digest::from_proto(&message, DigestFunction::Sha256).unwrap_err()
        };
        assert!(matches!(check(&good[1..], 3), DigestError::Length { got: 63, .. }));
        assert!(matches!(check("", 3), DigestError::Length { got: 0, .. }));
        assert_eq!(check(&good.to_uppercase(), 3), DigestError::Letters);
        assert_eq!(check(&format!("../{}", &good[3..]), 3), DigestError::Letters);
        assert_eq!(check(&good, -1), DigestError::Size("-1".to_owned()));
        assert_eq!("abc".parse::<Digest>(), Err(DigestError::Shape));
    }

    #[test]
    fn only_no_bytes_make_the_empty_blob() {
        assert!(Digest::of(DigestFunction::Blake3, b"").is_empty_blob());
        let liar = Digest::from_hex(DigestFunction::Sha256, &"0".repeat(64), 0);
        assert!(!liar.expect("well-formed").is_empty_blob());
    }

    #[test]
    fn an_unset_function_means_the_default_and_an_unknown_one_is_refused() {
        assert_eq!(DigestFunction::from_proto(0, DigestFunction::Blake3), Ok(DigestFunction::Blake3));
        assert_eq!(
            DigestFunction::from_proto(99, DigestFunction::Sha256),
            Err(DigestError::Function("99".to_owned()))
        );
        assert_eq!(
            DigestFunction::from_proto(4, DigestFunction::Sha256),
            Err(DigestError::Function("VSO".to_owned()))
        );
    }
}
