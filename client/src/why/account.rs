//! [`Account`]: the parts of a compile that decide its key, in words.

use castwork_cas::{Digest, DigestFunction};
use prost::Message as _;

use crate::command_line::Dialect;
use crate::environment::{self, VARIABLES};
use crate::prepare::{Prepared, Understood};

/// Most compiles of a source that are remembered.
const ACCOUNTS_MAX: usize = 6;

/// Most bytes of an account's list, unpacked.
const BYTES_MAX: usize = 16 << 20;

/// The compiles of a source, the latest first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Accounts {
    /// The compiles.
    #[prost(message, repeated, tag = "1")]
    pub latest: Vec<Account>,
}

/// One compile. Paths are virtual.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Account {
    /// The source.
    #[prost(string, tag = "1")]
    pub source: String,
    /// Its action, `HASH/SIZE`.
    #[prost(string, tag = "2")]
    pub action: String,
    /// The words of the command.
    #[prost(string, repeated, tag = "3")]
    pub words: Vec<String>,
    /// The files that were read.
    #[prost(message, repeated, tag = "4")]
    pub files: Vec<Part>,
    /// The parts of the compiler.
    #[prost(message, repeated, tag = "5")]
    pub tools: Vec<Part>,
    /// Variables that count, and what else does: each by name.
    #[prost(message, repeated, tag = "6")]
    pub settings: Vec<Part>,
    /// The project's folder, if the result belongs to it.
    #[prost(string, tag = "7")]
    pub place: String,
    /// What of the command binds it to that, if something does.
    #[prost(string, tag = "8")]
    pub bound_by: String,
}

/// Something with a name and a content, or the hash of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Part {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it holds.
    #[prost(string, tag = "2")]
    pub content: String,
}

impl Account {
    /// Writes down a compile.
    pub fn of(prepared: &Prepared) -> Option<Self> {
        let Prepared { call, closure, action } = prepared;
        let Understood { compile, place, messages, is_colored, .. } = call;
        let toolchain = call.toolchain();
        let part = |name: &str, content: String| Part { name: name.to_owned(), content };
        let words = compile.arguments.iter().flat_map(|argument| {
            let mut words = argument.words();
            // A flag and its folder are one thing.
            if let crate::command_line::Argument::SearchDir { .. } = argument {
                words = vec![
                    words.iter().map(|word| place.spelled_in_action(word)).collect::<Vec<_>>().join(" "),
                ];
            }
            words
        });
        let mut settings = vec![
            part("folder", place.virtual_folder()),
            part("messages", format!("{messages:?}, coloured: {is_colored}")),
        ];
        for (name, _) in VARIABLES {
            settings.extend(environment::of_process(name).map(|value| part(name, value)));
        }
        if compile.shares_link_time() {
            settings.push(part("CASTWORK_SHARE_LTO", "yes".to_owned()));
        }
        if compile.dialect == Dialect::Msvc {
            let set = environment::of_msvc(environment::of_process);
            settings.extend(set.into_iter().map(|(name, value)| part(&name, value)));
        }
        Some(Self {
            source: place.locate(&compile.source).ok()?.name,
            action: action.digest.to_string(),
            words: words.collect(),
            files: closure
                .inputs
                .iter()
                .map(|(name, input)| part(name, input.digest.hash_hex()[..16].to_owned()))
                .collect(),
            tools: toolchain
                .tools
                .iter()
                .map(|tool| part(&tool.path.to_string_lossy(), tool.digest.clone()))
                .collect(),
            settings,
            place: if action.is_of_place { place.root.clone().unwrap_or_default() } else { String::new() },
            bound_by: compile.place_matters.as_ref().map(ToString::to_string).unwrap_or_default(),
        })
    }
}

impl Accounts {
    /// The key under which the accounts of a source are kept.
    pub fn key(source: &str) -> Digest {
        Digest::of(DigestFunction::Sha256, format!("castwork accounts 1\0{source}").as_bytes())
    }

    /// Adds a compile as the latest; one of the same action gives way, unless it says that an earlier result was lost.
    pub fn add(&mut self, account: Account) {
        let mut seen_again = false;
        self.latest.retain(|known| {
            let is_same = known.action == account.action;
            // The first of the same kind stays, to tell of what was evicted.
            let stays = !is_same || !seen_again;
            seen_again |= is_same;
            stays
        });
        self.latest.insert(0, account);
        self.latest.truncate(ACCOUNTS_MAX);
    }

    /// The accounts as bytes; `None` if they are too many.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let plain = self.encode_to_vec();
        let mut bytes = u32::try_from(plain.len()).ok()?.to_le_bytes().to_vec();
        bytes.extend(zstd::bulk::compress(&plain, 1).ok()?);
        (plain.len() <= BYTES_MAX).then_some(bytes)
    }

    /// Reads accounts; `None` if the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, packed) = bytes.split_first_chunk()?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok().filter(|size| *size <= BYTES_MAX)?;
        let plain = zstd::bulk::decompress(packed, size).ok().filter(|plain| plain.len() == size)?;
        Self::decode(plain.as_slice()).ok()
    }
}
