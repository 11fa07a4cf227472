//! [`Asked`]: a call of a tool with all that is known of it before it is made, and the key of that.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::globs;
use super::names;
use super::nvcc;
use super::rule::Rule;
use crate::builds::Build;
use crate::config::Config;
use crate::direct::Hashes;
use crate::direct::key::{ManifestKey, Said};
use crate::local::{Called, Platform, witness};
use crate::paths::{BUILD, Mount, PROJECT, Place};
use crate::reason::Reason;
use crate::toolchain::resolve;
use crate::wrapper::Call;

/// Raised when what an older client kept must not be read by this one.
const FORMAT: &str = "castwork rule 2";

/// Variables with which a program is run with other code than its own, or says more than it would.
const REFUSED: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "LD_PROFILE"];

/// A call of a tool.
pub struct Asked {
    /// What is known of the tool.
    pub rule: Rule,
    /// What to run.
    pub program: PathBuf,
    /// The same as a shell would say it.
    pub started: PathBuf,
    /// What it is called by.
    pub name: String,
    /// The `PATH` that it gets, if that is not ours.
    pub search: Option<OsString>,
    /// The words that it is called with.
    pub arguments: Vec<OsString>,
    /// The same as texts.
    pub words: Vec<String>,
    /// Where.
    pub place: Place,
    /// Whether what comes of it may be right elsewhere.
    pub may_move: bool,
    /// Whether what is said goes where it can be kept.
    pub is_told: bool,
    /// Whether standard output and error are one.
    pub is_one: bool,
    /// The files that count as read.
    pub inputs: Inputs,
    /// The key of all this.
    pub key: ManifestKey,
}

/// How a shell would start a program that was found for a name: by what the user wrote, or by the entry of `PATH`.
pub fn started(name: &str, program: &Path, folder: &Path) -> PathBuf {
    if name.contains('/') {
        return if folder.join(name) == program { name.into() } else { program.to_owned() };
    }
    // What is found by a relative entry is started by a relative path; by an empty one, from here.
    let search = std::env::var_os("PATH").unwrap_or_default();
    let entries = Platform::split_path(&search).into_iter();
    let entries = entries.map(|entry| if entry.as_os_str().is_empty() { ".".into() } else { entry });
    let mut ways = entries.map(|entry| entry.join(name));
    ways.find(|way| folder.join(way) == program).unwrap_or_else(|| program.to_owned())
}

/// The files that a rule's patterns stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Each with the hash of what it holds.
    pub files: Vec<(String, String)>,
}

impl Asked {
    /// What is to be started.
    pub fn called(&self) -> Called<'_> {
        Called {
            path: &self.started,
            name: self.name.as_ref(),
            words: &self.arguments,
            search: self.search.as_deref(),
        }
    }

    /// Understands a call.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(
        config: &Config,
        rule: &Rule,
        program: &Path,
        call: &Call,
        hashes: &mut Hashes,
    ) -> Result<Self, Reason> {
        if !witness::CAN_SEE {
            return Err("programs can't be watched on this system".into());
        }
        let Call { name, arguments } = call;
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let words = words.ok_or(Reason::new("word that is not Unicode"))?;
        let is_refused =
            |word: &&String| rule.refused.iter().any(|refused| word.starts_with(refused.as_str()));
        if let Some(word) = words.iter().find(is_refused) {
            return Err(Reason::of(format!("`{word}`")));
        }
        let plain = Place::find(config.project_root.as_deref())?;
        if rule.is_nvcc {
            nvcc::check_call(rule, program, &words, &plain.folder)?;
        }
        let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if let Some(name) = REFUSED.iter().find(is_set) {
            return Err(Reason::of(format!("`{name}` is set")));
        }
        let mask = if rule.counts_all() { Platform::file_mask() } else { Some(String::new()) };
        let mask = mask.ok_or(Reason::new("mask of permissions that is not known"))?;
        let inputs = Inputs::find(rule, &words, &plain, hashes)?;
        let moved = rule.moves.then(|| place_of(rule, &words, plain.clone()));
        let still = Place::new(plain.folder, None)?;
        let started = started(&call.name, program, Path::new(&still.folder));
        let called = [program, &started, Path::new(name), Path::new(&mask)];
        let search = search_of(rule, Path::new(&still.folder));
        let variables = variables(rule, search.as_deref());
        let of_place = |place: &Place| said(rule, (&called, &variables), &words, place, &inputs);
        let moved = moved.and_then(|place| Some((of_place(&place)?, place)));
        let (place, said, may_move) = if let Some((said, place)) = moved {
            (place, said, true)
        } else {
            let said = of_place(&still).ok_or(Reason::new("word with an unusual letter"))?;
            (still, said, false)
        };
        Ok(Self {
            rule: rule.clone(),
            program: program.to_owned(),
            name: name.clone(),
            started,
            search,
            arguments: arguments.clone(),
            key: ManifestKey::of_kind(FORMAT, &said),
            is_told: !std::io::stdout().is_terminal() && !std::io::stderr().is_terminal(),
            is_one: Platform::has_one_output(),
            words,
            place,
            may_move,
            inputs,
        })
    }
}

impl Inputs {
    /// Finds them.
    ///
    /// # Errors
    /// The reason to pass the call through, or to keep nothing.
    pub fn find(rule: &Rule, words: &[String], place: &Place, hashes: &mut Hashes) -> Result<Self, Reason> {
        let mut files = Vec::new();
        for pattern in Rule::patterns(&rule.inputs, words) {
            let found = globs::files(&pattern, &place.folder);
            for path in found.ok_or(Reason::new("pattern of inputs in too many folders"))? {
                let hash = hashes.of(&path).ok_or(Reason::new("input that can't be read"))?;
                files.push((path, hex::encode(hash)));
            }
        }
        Ok(Self { files })
    }
}

/// Where a call is made whose folders may have names of their own.
fn place_of(rule: &Rule, words: &[String], place: Place) -> Place {
    let climbs = words.iter().any(|word| word.split(['/', '=']).any(|part| part == ".."));
    if !rule.is_castxml || climbs {
        return place;
    }
    let Some(build) = Build::of(&place.folder) else { return place };
    let sources = if place.is_guess { build.sources() } else { None };
    let mut mounts = vec![Mount { name: BUILD, real: build.folder.clone() }];
    mounts.extend(sources.filter(|it| *it != build.folder).map(|real| Mount { name: PROJECT, real }));
    if place.root.as_ref() == Some(&build.folder) {
        return place;
    }
    place.with_mounts(mounts)
}

/// The `PATH` of a tool that starts compilers, if that is not ours: in it these are themselves.
pub fn search_of(rule: &Rule, folder: &Path) -> Option<OsString> {
    let search = std::env::var_os("PATH").filter(|_| rule.starts_compilers())?;
    resolve::without_ourselves(&search, folder)
}

/// The variables that count, with the `PATH` that the tool gets.
fn variables(rule: &Rule, search: Option<&OsStr>) -> Vec<(OsString, OsString)> {
    let counts = |name: &OsStr| name.to_str().is_none_or(|name| rule.reads(name));
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| counts(name)).collect();
    for (_, value) in variables.iter_mut().filter(|(name, _)| name == "PATH") {
        *value = search.unwrap_or(value).to_owned();
    }
    variables.sort_unstable();
    variables
}

/// All that is known, in an order that is always the same. `None` if a name of a folder can't be made virtual in it.
fn said(
    rule: &Rule,
    (called, variables): (&[&Path], &[(OsString, OsString)]),
    words: &[String],
    place: &Place,
    inputs: &Inputs,
) -> Option<String> {
    let moved = |text: &str| {
        let moved = names::taken_out(text.as_bytes(), place)?;
        String::from_utf8(moved).ok()
    };
    let mut said = Said::default();
    said.all(&[FORMAT, env!("CARGO_PKG_VERSION"), &format!("{rule:?}")]);
    said.list("called", &called.iter().map(|name| moved(name.to_str()?)).collect::<Option<Vec<_>>>()?);
    said.all(&[&place.alias(&place.folder)]);
    let mut mounts: Vec<&str> = place.mounts().iter().map(|mount| mount.name).collect();
    mounts.sort_unstable();
    said.all(&mounts);
    said.list("words", &words.iter().map(|word| moved(word)).collect::<Option<Vec<_>>>()?);
    for (name, value) in variables {
        said.all(&[name.to_str()?, &moved(value.to_str()?)?]);
    }
    for (path, hash) in &inputs.files {
        said.all(&["input", &place.alias(path), hash]);
    }
    Some(said.0)
}
