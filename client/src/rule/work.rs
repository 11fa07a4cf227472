//! [`Work`]: a call of a tool by its rule, with the keys under which what comes of it is kept.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use castwork_cas::merkle::TreeBuilder;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use prost::Message as _;

use super::book::{Rule, value_at};
use super::command::{Command, found};
use super::emulated::{self, Model};
use super::outputs::taken_out;
use super::reads::Reads;
use super::tool;
use crate::config::Config;
use crate::direct::Hashes;
use crate::direct::key::ManifestKey;
use crate::direct::memo::Hash;
use crate::environment;
use crate::paths::Place;
use crate::reason::Reason;

/// Raised when what an older client kept must not be taken for what this one would.
const FORMAT: &str = "castwork run 1";

/// Where an action has the text that a tool would work on.
const TEXT: &str = "castwork-in/preprocessed";

/// Which of the parts of a key is the tool.
const TOOL_AT: usize = 3;

/// What the program itself is called in the words of an action.
const SELF: &str = "tool";

/// A call of a tool.
pub struct Work<'a> {
    /// The settings.
    pub config: &'a Config,
    /// What is known of the tool.
    pub rule: &'a Rule,
    /// The tool.
    pub program: &'a Path,
    /// The call.
    pub command: Command,
    /// Where we are.
    pub place: Place,
    /// All folders that are searched, in order.
    pub search: Vec<String>,
    /// Everything that decides what the tool does with what it reads, in parts.
    said: Vec<String>,
}

impl<'a> Work<'a> {
    /// Understands a call.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(
        config: &'a Config,
        rule: &'a Rule,
        program: &'a Path,
        arguments: &[OsString],
    ) -> Result<Self, Reason> {
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let words = words.ok_or(Reason::new("word that is not Unicode"))?;
        let place = Place::find(config.project_root.as_deref())?;
        let command = Command::read(rule, &words, &place)?;
        let model = match &command.emulated {
            Some((compiler, is_cxx)) => Some(emulated::ask(compiler, *is_cxx, &config.dir)?),
            None => None,
        };
        let mut search = command.search.clone();
        search.extend(model.iter().flat_map(|model| model.folders.clone()));
        let mut work = Self { config, rule, program, command, place, search, said: Vec::new() };
        let tool = work.tool()?;
        work.said = work.say(&tool, model.as_ref())?;
        Ok(work)
    }

    /// The hash of the tool as it is now.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn tool(&self) -> Result<Hash, Reason> {
        tool::fingerprint(self.rule, self.program, &self.config.dir, &mut self.hashes())
    }

    /// Whether the tool is still what it was when this call was understood.
    pub fn is_tool_unchanged(&self) -> bool {
        self.tool().is_ok_and(|tool| self.said.get(TOOL_AT) == Some(&hex::encode(tool)))
    }

    /// Hashes of files as they are now.
    pub fn hashes(&self) -> Hashes {
        Hashes::new(&self.config.dir.join("memo"))
    }

    fn say(&self, tool: &Hash, model: Option<&Model>) -> Result<Vec<String>, Reason> {
        let Self { rule, place, command, .. } = self;
        let mut said = vec![FORMAT.to_owned(), env!("CARGO_PKG_VERSION").to_owned()];
        said.push(format!("{rule:?}"));
        said.push(hex::encode(tool));
        said.push(model.map(|model| hex::encode(model.hash)).unwrap_or_default());
        said.push(format!("{} {}", place.virtual_folder(), place.root.is_some()));
        for name in
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().chain(rule.variables.iter().map(String::as_str))
        {
            let value = environment::of_process(name).map(|value| self.general(&value)).transpose()?;
            said.push(format!("{name}={value:?}"));
        }
        // What a glob doesn't find now, it may find the next time.
        for glob in &rule.inputs {
            said.push(found(glob, place)?.join("\0"));
        }
        said.push(SELF.to_owned());
        for word in &command.words {
            said.push(self.general(word)?);
        }
        Ok(said)
    }

    /// A word without the name of the project's folder, which may stand right behind a flag.
    fn general(&self, word: &str) -> Result<String, Reason> {
        let at = if word.starts_with('-') { word.find('/').unwrap_or(0) } else { 0 };
        let (flag, path) = word.split_at(at);
        let path = taken_out(path.as_bytes(), &self.place)?;
        let path = String::from_utf8(path).map_err(|_| Reason::new("word that is not Unicode"))?;
        Ok(format!("{flag}{path}"))
    }

    /// The key of what has been seen with such calls, given what the inputs that the call names hold.
    pub fn key(&self, inputs: &Reads) -> ManifestKey {
        let mut text = String::new();
        let inputs = inputs.files.iter().map(|(name, (_, hash))| format!("{name} {}", hex::encode(hash)));
        for part in self.said.iter().cloned().chain(inputs) {
            writeln!(text, "{}:{part}", part.len()).expect("a text takes what is written to it");
        }
        ManifestKey::of(&text)
    }

    /// The action of this call on a text that is already preprocessed.
    pub fn action_on_text(&self, text: &[u8]) -> Option<(Digest, Vec<(Digest, Bytes)>)> {
        let mut tree = TreeBuilder::new();
        tree.add_file(TEXT, Digest::of(DigestFunction::Sha256, text), false).ok()?;
        Some(self.action(&tree))
    }

    /// The action of this call on files.
    pub fn action_on_files(&self, reads: &Reads) -> Option<(Digest, Vec<(Digest, Bytes)>)> {
        let mut tree = TreeBuilder::new();
        for (name, digest) in reads.digests() {
            tree.add_file(name, digest, false).ok()?;
        }
        Some(self.action(&tree))
    }

    fn action(&self, tree: &TreeBuilder) -> (Digest, Vec<(Digest, Bytes)>) {
        let blob = |data: Vec<u8>| (Digest::of(DigestFunction::Sha256, &data), Bytes::from(data));
        let command = reapi::Command { arguments: self.said.clone(), ..reapi::Command::default() };
        let command = blob(command.encode_to_vec());
        let action = reapi::Action {
            command_digest: Some(command.0.to_proto()),
            input_root_digest: Some(tree.build(DigestFunction::Sha256).root.to_proto()),
            salt: Bytes::from_static(FORMAT.as_bytes()),
            ..reapi::Action::default()
        };
        let action = blob(action.encode_to_vec());
        (action.0, vec![action, command])
    }

    /// The words to run the tool with: its own, but for where it leaves what we have to see.
    pub fn words_for(&self, depfile: Option<&Path>, folder: Option<&Path>) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.command.words.iter().map(OsString::from).collect();
        let mut first = Vec::new();
        if let Some(depfile) = depfile {
            let path = depfile.to_string_lossy();
            first
                .extend(self.rule.depfile_words.iter().map(|word| OsString::from(word.replace("{}", &path))));
        }
        if let (Some(folder), Some(pattern)) = (folder, &self.rule.folder) {
            let flag =
                pattern.split(' ').map(|word| OsString::from(word.replace("{}", &folder.to_string_lossy())));
            match self.command.folder {
                Some((_, at)) => {
                    let taken = pattern.split(' ').count();
                    words.splice(at..at + taken, flag);
                }
                None => first.extend(flag),
            }
        }
        first.into_iter().chain(words).collect()
    }

    /// The words with which the tool prints what it would work on.
    pub fn words_to_preprocess(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut at = 0;
        while at < self.command.words.len() {
            let rest = &self.command.words[at..];
            if let Some((_, taken)) = value_at(&self.rule.outputs, rest) {
                at += taken;
                continue;
            }
            words.push(OsString::from(&rest[0]));
            at += 1;
        }
        words.splice(0..0, self.rule.preprocess.iter().map(OsString::from));
        words
    }

    /// The folder in which the tool leaves more than it is told to.
    pub fn folder(&self) -> Option<PathBuf> {
        self.rule.folder.as_ref()?;
        let spelled = match &self.command.folder {
            Some((folder, _)) => PathBuf::from(folder),
            None => Path::new(self.command.outputs.first()?).parent()?.to_owned(),
        };
        Some(if spelled.as_os_str().is_empty() { PathBuf::from(".") } else { spelled })
    }
}
