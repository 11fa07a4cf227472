//! [`Watch`]: what a compile read, by what it left behind; no preprocessor is run.
//!
//! gcc writes down which files it entered (`-MD`), and GNU's assembler which it was told to read (`--MD`), so what an
//! `.incbin` names is seen however it is spelled. Where the compiler looked in vain follows from the `#include` lines of
//! the files that it entered: each line is looked up here, and one that leads to a file that was entered is taken to have
//! been obeyed. All files are read when the compile has ended, and have to be older than its beginning. What does not
//! show in this way is [`Unclear`], and then preprocessing tells.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::closure::{Gathering, choosing_flags, gather, is_shadowed};
use super::literal::position;
use super::looked::{ELSEWHERE, Looked, folder_of, is_file_for_compilers};
use super::makefile::prerequisites;
use super::moved::{self, CHANGED, Identity, Still, identity_of};
use super::search::SearchPath;
use super::text::{Form, READS_FILE};
use super::{Closure, pasted::Pieces};
use crate::clock::Start;
use crate::command_line::flags::Search;
use crate::command_line::{Argument, Compile};
use crate::link_time;
use crate::local::{MemoryFile, Platform, Stamp};
use crate::paths::{ISOLATED, LEADS_OUT, Place};
use crate::reason::Reason;
use crate::toolchain::{Family, IncludeDirs, Toolchain, ToolchainMemory};

/// Words that preprocessing is for, if they stand in the command itself.
///
/// `__FILE__` and `__BASE_FILE__` end alike; `FILE` alone would be in `_FILE_OFFSET_BITS` too.
const TELLING_WORDS: [&str; 8] =
    ["FILE__", "__builtin_FILE", "source_location", "__DATE__", "__TIME", "__has_", "##", "_Pragma"];

/// Why it is not known what a compile read.
#[derive(Debug)]
pub enum Unclear {
    /// Preprocessing tells; for this reason it has to be asked.
    UntilPreprocessed(&'static str),
    /// Its result can't be kept, for this reason.
    Refused(Reason),
}

impl Unclear {
    /// Why nothing can be kept.
    fn reason(self) -> Reason {
        match self {
            Self::UntilPreprocessed(why) => why.into(),
            Self::Refused(reason) => reason,
        }
    }
}

impl From<Reason> for Unclear {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// A compile that is to be asked what it read.
pub struct Watch<'a> {
    compile: &'a Compile,
    place: &'a Place,
    start: &'a Start,
    /// Where the compiler writes down what it read, unless the user wants to know as well. In memory, like the other: the
    /// compile is not to fail over a cache that is full, or gone.
    entered: MemoryFile,
    /// Where the assembler writes down what it read.
    assembled: MemoryFile,
    /// The folders that the command names, and which they were at the beginning.
    folders: Vec<(String, Option<Identity>)>,
    /// These, those above them and those right in them: which they were.
    known: HashMap<PathBuf, Identity>,
}

impl<'a> Watch<'a> {
    /// Gets ready for a compile; `None` if it would not tell.
    pub fn new(
        compile: &'a Compile,
        toolchain: &Toolchain,
        place: &'a Place,
        start: &'a Start,
    ) -> Option<Self> {
        let is_told = toolchain.family == Family::Gcc
            && toolchain.assembler.as_ref().is_some_and(|assembler| assembler.is_gnu)
            && compile.dependency_file.with_system_headers != Some(false)
            && compile.arguments.iter().all(|argument| is_transparent(compile, argument));
        if !is_told {
            return None;
        }
        let (entered, assembled) = (Platform::memory_file()?, Platform::memory_file()?);
        let folders: Vec<_> = folders_of(compile)
            .map(|folder| place.absolute(folder))
            .map(|folder| (identity_of(&folder), folder))
            .map(|(is, named)| (named, is))
            .collect();
        let named = folders.iter().filter_map(|(folder, _)| Some(place.locate(folder).ok()?.real));
        let known = moved::identities(named);
        Some(Self { compile, place, start, entered, assembled, folders, known })
    }

    /// Calls the place otherwise.
    pub fn rename(&mut self, place: &'a Place) {
        self.place = place;
    }

    /// What the command has to be told in addition; the object is not changed by it.
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        // Objects for link-time optimisation hold what the assembler is to be told.
        if !self.compile.shares_link_time() {
            words.push(format!("-Wa,--MD,{}", self.assembled.path()).into());
        }
        if self.compile.dependency_file.with_system_headers.is_none() {
            words.extend(["-MD", "-MF"].map(OsString::from));
            words.push(self.entered.path().into());
            words.extend(["-MQ", "object"].map(OsString::from));
        }
        words
    }

    /// Whether a compile failed over what it was told in addition, by what it said.
    pub fn is_to_blame(&self, said: &[u8]) -> bool {
        [&self.entered, &self.assembled].iter().any(|file| position(said, file.path().as_bytes()).is_some())
    }

    /// Finds what the compile read, when it has ended well; by preprocessing, if its files don't tell. Says whether that
    /// was needed.
    ///
    /// # Errors
    /// Why nothing can be kept.
    pub fn find(&self, memory: &mut ToolchainMemory) -> Result<(Closure, bool), Reason> {
        match self.gather(memory) {
            Ok(closure) => Ok((closure, false)),
            Err(Unclear::Refused(reason)) => Err(reason),
            Err(Unclear::UntilPreprocessed(why)) => {
                tracing::debug!(why, "preprocessing after compiling");
                let closure = gather(self.compile, memory, self.place, self.start)?;
                Ok((self.confirm(closure).map_err(Unclear::reason)?, true))
            }
        }
    }

    /// Finds what the compile read, when it has ended well.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn gather(&self, memory: &mut ToolchainMemory) -> Result<Closure, Unclear> {
        let named = self.compile.dependency_file_name();
        let file = Path::new(named.as_deref().unwrap_or(self.entered.path()));
        let rules =
            std::fs::read_to_string(file).map_err(|_| Unclear::UntilPreprocessed("no dependency file"))?;
        let entered = prerequisites(&rules);
        if self.compile.shares_link_time() {
            self.check_unassembled()?;
        } else {
            self.check_assembler(&entered)?;
        }
        let own = memory.include_dirs(&choosing_flags(self.compile))?;
        let search = SearchPath::new(self.compile, &own);
        search.check_links(self.place)?;
        let chains = Chains::new(self.compile, &search, &own, self.place)?;
        let mut gathering =
            Gathering::new(self.compile, memory.toolchain.family, own.clone(), self.place, self.start);
        gathering.add(&self.compile.source)?;
        for name in &entered {
            gathering.add(name)?;
        }
        gathering.add_folders(&search)?;
        gathering.check_twins()?;
        if gathering.scans.values().any(|scan| scan.has_markers || scan.has_computed_include) {
            return Err(Unclear::UntilPreprocessed("computed or marked"));
        }
        // Specs may define anything.
        let is_settled =
            memory.toolchain.specs.is_empty() && gathering.settle_computed(&self.compile.arguments);
        if !is_settled {
            return Err(Unclear::UntilPreprocessed("a header that a macro names"));
        }
        gathering.add_tested(&search)?;
        let source = self.place.locate(&self.compile.source)?.name;
        let direct = gathering.scans[&source].includes.clone();
        gathering.check_precompiled(self.compile, direct.iter().map(|include| &include.name), &search)?;
        let mut tracing = Tracing {
            watch: self,
            chains: &chains,
            gathering: &gathering,
            known: HashMap::new(),
            looked: Looked::default(),
            explained: BTreeSet::from([source]),
            still: self.still(),
        };
        let predefined = tracing.trace(&entered)?;
        let mut looked = tracing.looked;
        looked.folders =
            search.all().chain(&own.left_out).map(|folder| self.place.absolute(folder)).collect();
        let looked = gathering.looked(gathering.with_links(looked, &search))?;
        self.conclude(gathering, looked, predefined, &search, &entered, rules)
    }

    fn conclude(
        &self,
        gathering: Gathering<'_>,
        looked: Looked,
        predefined: Option<String>,
        search: &SearchPath,
        entered: &[String],
        rules: String,
    ) -> Result<Closure, Unclear> {
        let mut pieces = Pieces::default();
        for scan in gathering.scans.values() {
            pieces.join(&scan.pieces);
        }
        self.check_folders()?;
        if pieces.make_date() {
            return Err(Unclear::UntilPreprocessed("words that could be pasted"));
        }
        let any = |is_so: fn(&super::scan::Scan) -> bool| gathering.scans.values().any(is_so);
        let says_file = any(|scan| scan.has_name_of_file) || pieces.make_name_of_file();
        let is_place_unproven = says_file
            && entered.iter().chain([&self.compile.source]).any(|name| self.is_named_by_place(name));
        if is_place_unproven && self.place.mounts().iter().any(|mount| mount.name == ISOLATED) {
            // Its folder is never called so again.
            return Err(Unclear::UntilPreprocessed("a file of an isolated build may name itself"));
        }
        let holds_date = any(|scan| scan.has_date);
        let names_lines = any(super::scan::Scan::names_lines);
        let links_cross = gathering.links_cross(self.compile);
        let mut closure = gathering.closure;
        closure.holds_date = holds_date;
        closure.is_place_unproven = is_place_unproven;
        closure.names_lines = names_lines;
        closure.holds_place = links_cross;
        closure.has_predefined = predefined.is_some();
        closure.is_predefined_shadowed = predefined.is_some_and(|found| is_shadowed(&found, search));
        closure.rules = self.compile.dependency_file.with_system_headers.map(|_| rules);
        closure.looked = Some(Ok(looked));
        Ok(closure)
    }

    fn still(&self) -> Still<'_> {
        Still::new(self.start, &self.known)
    }

    /// Checks that what preprocessing found afterwards is what the compile found.
    ///
    /// # Errors
    /// If files or folders were moved meanwhile.
    fn confirm(&self, closure: Closure) -> Result<Closure, Unclear> {
        self.check_folders()?;
        let mut still = self.still();
        for input in closure.inputs.values() {
            still.check(&input.real)?;
        }
        Ok(closure)
    }

    fn check_folders(&self) -> Result<(), Reason> {
        let is_same = self.folders.iter().all(|(folder, then)| identity_of(folder) == *then);
        if is_same { Ok(()) } else { Err(CHANGED) }
    }

    /// Whether a file is spelled with the name of our folder, or the project's.
    fn is_named_by_place(&self, spelled: &str) -> bool {
        spelled.starts_with('/') && self.place.names().any(|name| spelled.contains(name))
    }

    /// Checks that the assembler has been given no code, in which a file could be named: it is given that when all is linked.
    fn check_unassembled(&self) -> Result<(), Unclear> {
        let is_slim =
            std::fs::read(&self.compile.output).is_ok_and(|object| link_time::is_slim(self.compile, &object));
        if is_slim { Ok(()) } else { Err(Unclear::UntilPreprocessed("code beside that for the linker")) }
    }

    /// Checks that the assembler read what the compiler wrote, and nothing else that is not in the key anyway.
    fn check_assembler(&self, entered: &[String]) -> Result<(), Unclear> {
        let read = std::fs::read_to_string(self.assembled.path())
            .map_err(|_| Unclear::UntilPreprocessed("the assembler doesn't tell"))?;
        let mut read = prerequisites(&read);
        // The text that the compiler made comes last, if it is a file.
        if read.last().is_some_and(|last| is_text_of_compiler(last)) {
            read.pop();
        }
        let identity = |spelled: &String| {
            let stamp = Platform::stamp(&Path::new(&self.place.absolute(spelled)).metadata().ok()?);
            Some((stamp.device, stamp.inode))
        };
        let source = &self.compile.source;
        let known: HashSet<_> = entered.iter().chain([source]).filter_map(identity).collect();
        // What it is told of the source is the last part of its name alone.
        let is_name = |name: &String| {
            Path::new(source).file_name().is_some_and(|last| last == name.as_str())
                && Path::new(&self.place.absolute(name)).symlink_metadata().is_err()
        };
        let is_known =
            |name: &String| identity(name).map_or_else(|| is_name(name), |file| known.contains(&file));
        match read.iter().find(|name| !is_known(name)) {
            // Where the compiler puts its own text, preprocessing finds out; any other file was named in the source, in
            // some way or other.
            Some(name) if Path::new(name).extension().is_some_and(|end| end == "s") => {
                tracing::debug!(name, "the assembler was told of another file");
                Err(Unclear::UntilPreprocessed("the assembler read something else"))
            }
            Some(name) => {
                tracing::debug!(name, "the assembler read another file");
                Err(READS_FILE.into())
            }
            None => Ok(()),
        }
    }
}

/// Whether a name is one that gcc gives to temporary text for the assembler.
fn is_text_of_compiler(name: &str) -> bool {
    let folder = std::env::temp_dir();
    let path = Path::new(name);
    let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    path.parent().is_some_and(|parent| parent.canonicalize().ok() == folder.canonicalize().ok())
        && file.starts_with("cc")
        && path.extension().is_some_and(|extension| extension == "s")
        && !path.exists()
}

/// Whether an argument hides nothing of what is read.
fn is_transparent(compile: &Compile, argument: &Argument) -> bool {
    let hides = |word: &String| word.starts_with("-flto") && !compile.shares_link_time();
    match argument {
        Argument::IncludeFile { flag, .. } => *flag != "-imacros",
        // Names that the assembler is told are others then.
        Argument::PrefixMap { .. } => false,
        Argument::Words(words) => words
            .iter()
            .all(|word| !hides(word) && !TELLING_WORDS.iter().any(|telling| word.contains(telling))),
        Argument::SearchDir { .. } | Argument::LinkOnly(_) => true,
    }
}

/// The folders that the command names.
fn folders_of(compile: &Compile) -> impl Iterator<Item = &str> {
    let of_headers = compile.arguments.iter().filter_map(|argument| match argument {
        Argument::SearchDir { folder, .. } => Some(folder.as_str()),
        Argument::IncludeFile { file, .. } => Some(folder_of(file)),
        _ => None,
    });
    of_headers.chain([folder_of(&compile.source), "."])
}

/// The folders that gcc searches, in order: those that are there, each once.
struct Chains {
    /// For quotes alone.
    quote: Vec<String>,
    both: Vec<String>,
}

impl Chains {
    fn new(
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
struct Tracing<'a> {
    watch: &'a Watch<'a>,
    chains: &'a Chains,
    gathering: &'a Gathering<'a>,
    known: HashMap<String, There>,
    looked: Looked,
    explained: BTreeSet<String>,
    still: Still<'a>,
}

impl<'a> Tracing<'a> {
    /// Looks up all lines of all files that were entered; returns the header that gcc includes by itself, if it did.
    fn trace(&mut self, entered: &'a [String]) -> Result<Option<String>, Unclear> {
        let chains = self.chains;
        for argument in &self.watch.compile.arguments {
            let Argument::IncludeFile { file, .. } = argument else { continue };
            self.line(std::iter::once("").chain(chains.quoted()), file)?
                .ok_or(Unclear::UntilPreprocessed("a file that is included first"))?;
        }
        let is_alone = self.watch.compile.arguments.iter().any(|argument| {
            matches!(argument, Argument::Words(words) if words.iter().any(|word| word == "-nostdinc"))
        });
        let mut predefined = self.line(chains.angled(), "stdc-predef.h")?;
        self.line(std::iter::once("").chain(chains.quoted()), "stdc-predef.h")?;
        if is_alone {
            predefined = None;
        }
        let source = std::iter::once(&self.watch.compile.source);
        for spelled in source.chain(entered) {
            let name = self.watch.place.locate(spelled)?.name;
            let Some(scan) = self.gathering.scans.get(&name) else {
                return Err(Unclear::UntilPreprocessed("a file without a scan"));
            };
            for include in &scan.includes {
                let header = include.name.as_str();
                match include.form {
                    _ if header.starts_with('/') => {
                        return Err(Unclear::UntilPreprocessed("an absolute header"));
                    }
                    Form::Quoted => {
                        self.line(std::iter::once(folder_of(spelled)).chain(chains.quoted()), header)?;
                    }
                    Form::Angled => {
                        self.line(chains.angled(), header)?;
                    }
                    Form::Next => self.next_line(header)?,
                }
            }
        }
        let inputs = &self.gathering.closure.inputs;
        for name in entered {
            let name = self.watch.place.locate(name)?.name;
            if !self.explained.contains(&name) {
                return Err(Unclear::UntilPreprocessed("a header that no line names"));
            }
        }
        for input in inputs.values() {
            self.still.check(&input.real)?;
        }
        Ok(predefined)
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
            match self.at(&path)? {
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
            match self.at(&path)? {
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
        let path = self.watch.place.absolute(&spelled);
        if self.watch.place.crosses(folder, &path) { Err(LEADS_OUT) } else { Ok(path) }
    }

    fn at(&mut self, path: &str) -> Result<There, Unclear> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
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
        let located = self.watch.place.locate(path).ok().map(|located| located.name);
        if let Some(name) = located.filter(|name| self.gathering.scans.contains_key(name)) {
            return Ok(There::Entered(name));
        }
        let metadata =
            Path::new(path).metadata().map_err(|_| Unclear::UntilPreprocessed("a file that is gone"))?;
        let stamp = Platform::stamp(&metadata);
        // gcc may have left it out for being one that it had entered under another name, or one that is equal to that.
        let is_other = |name: &String, of: &Stamp| {
            (of.device, of.inode) != (stamp.device, stamp.inode)
                && !(self.gathering.scans.get(name).is_some_and(|scan| scan.has_once)
                    && of.size_bytes == stamp.size_bytes)
        };
        if !inputs.iter().all(|(name, input)| is_other(name, &input.stamp))
            || !stamp.is_settled_before(self.watch.start.instant_ns)
        {
            return Err(Unclear::UntilPreprocessed("a file that may be another"));
        }
        self.still.check(Path::new(path))?;
        Ok(There::Passed)
    }
}
