//! The key of a manifest: all that decides what a compile does, but for what is in its headers.

use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use prost::Message as _;

use super::memo::Hash;
use crate::command_line::{Argument, Compile, Dialect, map_flag, search_flag};
use crate::environment::{self, Reading, VARIABLES};
use crate::paths::Place;
use crate::toolchain::{Messages, Toolchain};

/// Raised when manifests of an older client must not be read by this one, or actions changed their meaning.
const FORMAT: &str = "castwork manifest 2";

/// What a key is made of.
pub struct Making<'a> {
    /// The compile.
    pub compile: &'a Compile,
    /// The compiler.
    pub toolchain: &'a Toolchain,
    /// Where we are.
    pub place: &'a Place,
    /// How messages look here.
    pub messages: &'a Messages,
    /// Whether messages are coloured.
    pub is_colored: bool,
    /// What the source holds.
    pub source: &'a Hash,
    /// Whether debug information may move.
    pub may_move_debug: bool,
}

/// The key, as an action that nobody runs: servers take results of actions only.
pub struct ManifestKey {
    /// The digest under which the manifest is kept.
    pub digest: Digest,
    /// The action and its command.
    pub messages: [(Digest, bytes::Bytes); 2],
}

impl ManifestKey {
    /// Makes the key of a call.
    pub fn new(making: &Making<'_>, variable: impl Fn(&str) -> Option<String>) -> Self {
        Self::of(&said(making, variable, true))
    }

    /// The key of all calls that are one but for their dependency files.
    pub fn without_dependency_file(making: &Making<'_>, variable: impl Fn(&str) -> Option<String>) -> Self {
        Self::of(&said(making, variable, false))
    }

    fn of(text: &str) -> Self {
        Self::of_kind(FORMAT, text)
    }

    /// The key of anything else that is kept like this: its kind, and all that decides it.
    pub fn of_kind(kind: &str, text: &str) -> Self {
        let hash = Digest::of(DigestFunction::Sha256, text.as_bytes()).hash_hex();
        let command = reapi::Command { arguments: vec![kind.to_owned(), hash], ..reapi::Command::default() };
        let blob = |data: Vec<u8>| (Digest::of(DigestFunction::Sha256, &data), bytes::Bytes::from(data));
        let command = blob(command.encode_to_vec());
        let action = reapi::Action {
            command_digest: Some(command.0.to_proto()),
            input_root_digest: Some(Digest::empty(DigestFunction::Sha256).to_proto()),
            ..reapi::Action::default()
        };
        let action = blob(action.encode_to_vec());
        Self { digest: action.0, messages: [action, command] }
    }
}

/// Everything, in an order that is always the same; each part with its length, so that no two calls read alike.
fn said(
    making: &Making<'_>,
    variable: impl Fn(&str) -> Option<String>,
    with_dependency_file: bool,
) -> String {
    let Making { compile, toolchain, place, messages, is_colored, source, may_move_debug } = making;
    let mut said = Said::default();
    said.all(&[FORMAT, env!("CARGO_PKG_VERSION"), &hex::encode(source)]);
    said.all(&[&place.virtual_folder(), &format!("{messages:?} {is_colored}")]);
    let mut mounts: Vec<&str> = place.mounts().iter().map(|mount| mount.name).collect();
    mounts.sort_unstable();
    said.all(&mounts);
    if *may_move_debug {
        said.part("debug information moves");
    }
    if compile.shares_link_time() {
        said.part("link-time optimisation is shared");
    }
    of_toolchain(&mut said, toolchain);
    said.all(&[compile.language.name(), &compile.is_language_explicit.to_string()]);
    said.part(&place.spelled_in_action(&compile.source));
    for argument in &compile.arguments {
        of_argument(&mut said, argument, place);
    }
    if with_dependency_file {
        of_dependency_file(&mut said, compile, place);
    } else {
        said.part("any depfile");
    }
    if compile.dialect == Dialect::Msvc {
        said.part("msvc");
        for (name, value) in environment::of_msvc(&variable) {
            said.all(&[&name, &value]);
        }
        // Debug information names the object.
        said.part(if compile.has_debug { &compile.output } else { "" });
    }
    for (name, reading) in VARIABLES {
        let is_read = match reading {
            Reading::Key => true,
            Reading::KeyIfColored => *is_colored,
            // Refused ones are not set; a date is in the entry, if it gets into the object.
            Reading::Refused | Reading::KeyIfDated => false,
        };
        if let Some(value) = variable(name).filter(|_| is_read) {
            said.all(&[name, &value]);
        }
    }
    said.0
}

fn of_toolchain(said: &mut Said, toolchain: &Toolchain) {
    let Toolchain { driver, family, major, is_cxx_driver, frontend, tools, is_bound_here, .. } = toolchain;
    said.part(&format!("{family:?} {major} {is_cxx_driver} {is_bound_here:?}"));
    said.part(&format!("{:?}", toolchain.assembler_folder));
    for path in [driver, frontend] {
        said.part(&path.to_string_lossy());
    }
    for tool in tools {
        said.all(&[&tool.path.to_string_lossy(), &tool.digest]);
    }
}

fn of_argument(said: &mut Said, argument: &Argument, place: &Place) {
    match argument {
        Argument::Words(words) => said.list("words", words),
        Argument::LinkOnly(words) => said.list("link", words),
        Argument::SearchDir { search, folder } => {
            said.all(&["search", search_flag(*search), &place.spelled_in_action(folder)]);
        }
        Argument::IncludeFile { flag, file } => said.all(&["file", flag, &place.spelled_in_action(file)]),
        Argument::PrefixMap { maps, old, new } => said.all(&["map", map_flag(*maps), old, new]),
    }
}

/// What decides the text of a dependency file, if one is made.
fn of_dependency_file(said: &mut Said, compile: &Compile, place: &Place) {
    let wanted = &compile.dependency_file;
    let Some(with_system_headers) = wanted.with_system_headers else { return };
    said.all(&["depfile", &format!("{with_system_headers} {}", wanted.has_phony_targets)]);
    for (flag, target) in &wanted.targets {
        said.all(&[flag, &place.spelled_in_action(target)]);
    }
    if wanted.targets.is_empty() {
        said.part(&place.spelled_in_action(&compile.output));
    }
}

/// What a key is made of: each part with its length, so that no two read alike.
#[derive(Default)]
pub struct Said(pub String);

impl Said {
    /// Adds a part.
    pub fn part(&mut self, part: &str) {
        use std::fmt::Write as _;
        writeln!(self.0, "{}:{part}", part.len()).expect("a text takes what is written to it");
    }

    /// Adds parts, and how many they are.
    pub fn all(&mut self, parts: &[&str]) {
        self.part(&parts.len().to_string());
        for part in parts {
            self.part(part);
        }
    }

    /// Adds words of a kind.
    pub fn list(&mut self, kind: &str, words: &[String]) {
        self.part(kind);
        self.all(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
