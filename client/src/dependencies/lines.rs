//! [`Tracing`]: where gcc looked in vain, by the `#include` lines of the files that it entered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::closure::Gathering;
use super::compiled::Unclear;
use super::includes::Include;
use super::listings::Listings;
use super::looked::{ELSEWHERE, Looked, folder_of, is_file_for_compilers};
use super::moved::{Still, identity_of};
use super::search::SearchPath;
use super::text::Form;
use crate::clock::Start;
use crate::command_line::flags::Search;
use crate::command_line::{Argument, Compile};
use crate::local::{Platform, Stamp};
use crate::paths::{LEADS_OUT, Place};
use crate::reason::Reason;
use crate::toolchain::IncludeDirs;

/// The folders that gcc searches, in order: those that are there, each once.
pub(super) struct Chains {
    /// For quotes alone.
    quote: Vec<String>,
    both: Vec<String>,
}

impl Chains {
    /// Finds them.
    ///
    /// # Errors
    /// If it isn't known which of two gcc takes.
    pub(super) fn new(
        compile: &Compile,
        search: &SearchPath,
        own: &IncludeDirs,
        place: &Place,
    ) -> Result<Self, Unclear> {
        let users = compile
            .arguments
            .iter()
            .filter(|argument| matches!(argument, Argument::SearchDir { search: Search::User, .. }))
            .count();
        let identity = |folder: &String| identity_of(place.absolute(folder));
        let mut chains = Self { quote: Vec::new(), both: Vec::new() };
        let mut seen = HashSet::new();
        for (at, folder) in search.both.iter().enumerate() {
            let Some(identity) = identity(folder) else { continue };
            if seen.insert(identity) {
                chains.both.push(folder.clone());
            } else if at >= users {
                // Which of the two is left out is gcc's secret.
                return Err(Unclear::UntilPreprocessed("a folder is there twice"));
            }
        }
        for folder in &search.quote {
            let Some(identity) = identity(folder) else { continue };
            if !seen.insert(identity) {
                return Err(Unclear::UntilPreprocessed("a folder is there twice"));
            }
            chains.quote.push(folder.clone());
        }
        // What was left out when the compiler was asked may have come since.
        let has_come =
            |folder: &String| identity_of(folder).is_some_and(|identity| !seen.contains(&identity));
        if own.left_out.iter().any(has_come) {
            Err(Unclear::UntilPreprocessed("a folder of the compiler's has come"))
        } else {
            Ok(chains)
        }
    }

    fn quoted(&self) -> impl Iterator<Item = &str> {
        self.quote.iter().chain(&self.both).map(String::as_str)
    }

    fn angled(&self) -> impl Iterator<Item = &str> {
        self.both.iter().map(String::as_str)
    }
}

/// What is at a place where a header may be.
#[derive(Clone)]
enum There {
    Nothing,
    /// A file that is among those that were read: its name.
    Entered(String),
    /// Another file.
    Passed,
}

/// The looking up of all `#include` lines.
pub(super) struct Tracing<'a> {
    compile: &'a Compile,
    place: &'a Place,
    start: &'a Start,
    chains: &'a Chains,
    gathering: &'a Gathering<'a>,
    /// The names of the files that were read, by their paths.
    entered: HashMap<&'a str, &'a String>,
    /// The lines that have been looked up: the same one again, from the same folder, leads to the same file.
    asked: HashSet<(Form, &'a str, &'a str)>,
    known: HashMap<String, There>,
    listings: Listings,
    /// Where nothing was, so far.
    pub looked: Looked,
    explained: BTreeSet<String>,
    still: Still<'a>,
}

impl<'a> Tracing<'a> {
    /// Begins with nothing looked up.
    pub(super) fn new(
        (compile, place, start): (&'a Compile, &'a Place, &'a Start),
        chains: &'a Chains,
        gathering: &'a Gathering<'a>,
        still: Still<'a>,
    ) -> Self {
        let inputs = gathering.closure.inputs.iter().filter(|(name, _)| gathering.scans.contains_key(*name));
        Self {
            compile,
            place,
            start,
            chains,
            gathering,
            entered: inputs.filter_map(|(name, input)| Some((input.real.to_str()?, name))).collect(),
            asked: HashSet::new(),
            known: HashMap::new(),
            listings: Listings::default(),
            looked: Looked::default(),
            explained: BTreeSet::new(),
            still,
        }
    }

    /// Looks up all lines of all files that were entered; returns the header that gcc includes by itself, if it did.
    ///
    /// # Errors
    /// If a file that was entered isn't one that a line leads to, or it isn't known what a line leads to.
    pub(super) fn trace(&mut self, source: &str, entered: &'a [String]) -> Result<Option<String>, Unclear> {
        let chains = self.chains;
        self.explained.insert(source.to_owned());
        for argument in &self.compile.arguments {
            let Argument::IncludeFile { file, .. } = argument else { continue };
            self.line(std::iter::once("").chain(chains.quoted()), file)?
                .ok_or(Unclear::UntilPreprocessed("a file that is included first"))?;
        }
        let is_alone = self.compile.arguments.iter().any(|argument| {
            matches!(argument, Argument::Words(words) if words.iter().any(|word| word == "-nostdinc"))
        });
        let mut predefined = self.line(chains.angled(), "stdc-predef.h")?;
        self.line(std::iter::once("").chain(chains.quoted()), "stdc-predef.h")?;
        if is_alone {
            predefined = None;
        }
        let mut names = vec![self.place.locate(&self.compile.source)?.name];
        for spelled in entered {
            names.push(self.place.locate(spelled)?.name);
        }
        let own = std::iter::once(&self.compile.source);
        for (spelled, name) in own.chain(entered).zip(&names) {
            let Some(scan) = self.gathering.scans.get(name) else {
                return Err(Unclear::UntilPreprocessed("a file without a scan"));
            };
            for include in &scan.includes {
                self.include(spelled, include)?;
            }
        }
        let inputs = &self.gathering.closure.inputs;
        if !names[1..].iter().all(|name| self.explained.contains(name)) {
            return Err(Unclear::UntilPreprocessed("a header that no line names"));
        }
        for input in inputs.values() {
            self.still.check(&input.real)?;
        }
        Ok(predefined)
    }

    /// Looks up a line of a file.
    fn include(&mut self, spelled: &'a str, include: &'a Include) -> Result<(), Unclear> {
        let chains = self.chains;
        let header = include.name.as_str();
        if header.starts_with('/') {
            return Err(Unclear::UntilPreprocessed("an absolute header"));
        }
        let beside = if include.form == Form::Quoted { folder_of(spelled) } else { "" };
        if !self.asked.insert((include.form, beside, header)) {
            return Ok(());
        }
        match include.form {
            Form::Quoted => self.line(std::iter::once(beside).chain(chains.quoted()), header).map(|_| ()),
            Form::Angled => self.line(chains.angled(), header).map(|_| ()),
            Form::Next => self.next_line(header),
        }
    }

    /// Looks a line up; if it was obeyed, what was looked for in vain is noted, and the file found is returned.
    fn line<'b>(
        &mut self,
        folders: impl Iterator<Item = &'b str>,
        header: &str,
    ) -> Result<Option<String>, Unclear> {
        let mut absent = Vec::new();
        for folder in folders {
            let path = self.path(folder, header)?;
            match self.at(header, &path)? {
                There::Nothing => absent.push(path),
                // It was there all the time, so had the line been obeyed, it would have been entered.
                There::Passed => return Ok(None),
                There::Entered(name) => {
                    self.looked.absent.extend(absent);
                    self.explained.insert(name);
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    /// Where an `#include_next` begins depends on how the file that asks was found: all that isn't there counts.
    fn next_line(&mut self, header: &str) -> Result<(), Unclear> {
        let chains = self.chains;
        for folder in chains.quoted() {
            let path = self.path(folder, header)?;
            match self.at(header, &path)? {
                There::Nothing => {
                    self.looked.absent.insert(path);
                }
                There::Entered(name) => {
                    self.explained.insert(name);
                }
                There::Passed => {}
            }
        }
        Ok(())
    }

    fn path(&self, folder: &str, header: &str) -> Result<String, Reason> {
        let spelled = match folder {
            "" => header.to_owned(),
            folder => format!("{}/{header}", folder.trim_end_matches('/')),
        };
        let path = self.place.absolute(&spelled);
        if self.place.crosses(folder, &path) { Err(LEADS_OUT) } else { Ok(path) }
    }

    fn at(&mut self, header: &str, path: &str) -> Result<There, Unclear> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        if let Some(name) = self.entered.get(path) {
            return Ok(There::Entered((*name).clone()));
        }
        if path.strip_suffix(header).is_some_and(|folder| self.listings.lack(folder, header)) {
            return Ok(There::Nothing);
        }
        let there = match is_file_for_compilers(Path::new(path)) {
            None => return Err(ELSEWHERE.into()),
            Some(false) => There::Nothing,
            Some(true) => self.file(path)?,
        };
        self.known.insert(path.to_owned(), there.clone());
        Ok(there)
    }

    fn file(&mut self, path: &str) -> Result<There, Unclear> {
        let inputs = &self.gathering.closure.inputs;
        // A file that is there for a test alone has no scan.
        let located = self.place.locate(path).ok().map(|located| located.name);
        if let Some(name) = located.filter(|name| self.gathering.scans.contains_key(name)) {
            return Ok(There::Entered(name));
        }
        let metadata =
            Path::new(path).metadata().map_err(|_| Unclear::UntilPreprocessed("a file that is gone"))?;
        let stamp = Platform::stamp(&metadata);
        // gcc may have left it out for being one that it had entered under another name, or one that is equal to that.
        let is_other = |name: &String, of: &Stamp| {
            // What is there for a test alone was not entered.
            let Some(scan) = self.gathering.scans.get(name) else { return true };
            (of.device, of.inode) != (stamp.device, stamp.inode)
                && !(scan.has_once && of.size_bytes == stamp.size_bytes)
        };
        if !inputs.iter().all(|(name, input)| is_other(name, &input.stamp))
            || !stamp.is_settled_before(self.start.instant_ns)
        {
            tracing::debug!(path, "it may have been left out");
            return Err(Unclear::UntilPreprocessed("a file that may be another"));
        }
        self.still.check(Path::new(path))?;
        Ok(There::Passed)
    }
}
