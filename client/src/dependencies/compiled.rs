//! [`Watch`]: what a compile read, by what it left behind; no preprocessor is run.
//!
//! gcc writes down which files it entered (`-MD`), and GNU's assembler which it was told to read (`--MD`), so what an
//! `.incbin` names is seen however it is spelled. Where the compiler looked in vain follows from the `#include` lines of
//! the files that it entered: each line is looked up here, and one that leads to a file that was entered is taken to have
//! been obeyed. All files are read when the compile has ended, and have to be older than its beginning. What does not
//! show in this way is [`Unclear`], and then preprocessing tells.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Closure;
use super::closure::{Gathering, choosing_flags, gather, is_shadowed};
use super::lines::{Chains, Tracing};
use super::literal::position;
use super::looked::{Looked, folder_of};
use super::makefile::prerequisites;
use super::moved::{self, CHANGED, Identity, Still, identity_of};
use super::search::SearchPath;
use super::text::READS_FILE;
use crate::clock::Start;
use crate::command_line::{Argument, Compile};
use crate::link_time;
use crate::local::{MemoryFile, Platform};
use crate::paths::{ISOLATED, Place};
use crate::reason::Reason;
use crate::toolchain::{Family, Toolchain, ToolchainMemory};

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
        let mut tracing =
            Tracing::new((self.compile, self.place, self.start), &chains, &gathering, self.still());
        let predefined = tracing.trace(&source, &entered)?;
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
        let pieces = gathering.pieces(self.compile);
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
        if read.is_empty() {
            return Ok(());
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
