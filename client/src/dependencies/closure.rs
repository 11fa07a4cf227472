//! [`Closure`]: all the files that a compile reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};

use super::has_include;
use super::looked::{self, Looked, is_file_for_compilers};
use super::moved::links_on_ways;
use super::pasted::Pieces;
use super::preprocess::{Preprocessed, preprocess};
use super::scan::{Scan, is_word_byte, scan};
use super::search::SearchPath;
use super::text::{self, Looking, Text};
use crate::clock::Start;
use crate::command_line::flags::Search;
use crate::command_line::{Argument, Compile, Dialect};
use crate::environment;
use crate::local::{Platform, Stamp};
use crate::paths::{ISOLATED, LEADS_OUT, Located, Place, normal};
use crate::reason::Reason;
use crate::toolchain::{Family, IncludeDirs, ToolchainMemory};

/// Most files of a compile.
const FILES_MAX: usize = 50_000;

/// Most bytes of them together; they are held in memory until they are uploaded.
const BYTES_MAX: u64 = 512 << 20;

/// A file that a compile reads.
#[derive(Debug)]
pub struct Input {
    /// Where it is.
    pub real: PathBuf,
    /// What it holds.
    pub bytes: Bytes,
    /// The digest of that.
    pub digest: Digest,
    /// What it was recognised by when it was read.
    pub stamp: Stamp,
}

/// A link to a file that a compile reads, for which the compiler names the file instead.
#[derive(Debug)]
pub struct Link {
    /// Where it is.
    pub real: PathBuf,
    /// The file's name below the input root.
    pub to: String,
}

/// All that a compile reads, and what else its text shows.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Closure {
    /// Files by their name below the input root.
    pub inputs: BTreeMap<String, Input>,
    /// Links to files under which those were found, by their name below the input root.
    pub links: BTreeMap<String, Link>,
    /// Folders that have to be there, by their name below the input root.
    pub folders: BTreeSet<String>,
    /// The compiler's own folders of headers.
    pub own_folders: IncludeDirs,
    /// Whether gcc included `stdc-predef.h` before all else.
    pub has_predefined: bool,
    /// Whether an action that includes it by name would take another one.
    pub is_predefined_shadowed: bool,
    /// Whether the object may hold the name of the folder outside of debug information.
    pub holds_place: bool,
    /// Whether it may hold no more than that of an isolated build, and may well not: compiling once more tells.
    pub holds_isolated_alone: bool,
    /// Whether a file says by itself, with a path, which file its lines are from.
    pub names_lines: bool,
    /// Whether dates get into the object.
    pub holds_date: bool,
    /// Folders, by their name below the input root, that are no links: the way to a file goes out of them again.
    pub plain: BTreeSet<String>,
    /// Where the compiler looked for more, or why that is not known.
    pub looked: Option<Result<Looked, Reason>>,
    /// The dependency file as it was written, if one was asked for.
    pub rules: Option<String>,
    /// Whether the object may hold the name of the folder for all that is known, though `holds_place` says no.
    pub is_place_unproven: bool,
}

impl Closure {
    /// Whether every file is still what it was when it was read, and none has appeared where the compiler looked.
    pub fn is_unchanged(&self) -> bool {
        let mut absent = self.looked.iter().flatten().flat_map(|looked| &looked.absent);
        let is_same = |path: &Path, input: &Input| {
            path.metadata().is_ok_and(|metadata| Platform::stamp(&metadata) == input.stamp)
        };
        self.inputs.values().all(|input| is_same(&input.real, input))
            && self.links.values().all(|link| is_same(&link.real, &self.inputs[&link.to]))
            && absent.all(|path| is_file_for_compilers(Path::new(path)) == Some(false))
    }
}

/// Finds all that a compile reads, by running the preprocessor; makes the dependency file that is asked for.
///
/// # Errors
/// The reason to pass through.
pub fn gather(
    compile: &Compile,
    memory: &mut ToolchainMemory,
    place: &Place,
    start: &Start,
) -> Result<Closure, Reason> {
    let preprocessed = preprocess(compile, &memory.toolchain, start.path())?;
    let (own_folders, search) = search_path(compile, memory, &preprocessed.about)?;
    search.check_links(place)?;
    let standard = last_standard(compile);
    let places: Vec<&str> = place.names().collect();
    let isolated = place.mounts().iter().find(|mount| mount.name == ISOLATED);
    let looking = Looking {
        language: compile.language_for(memory.toolchain.is_cxx_driver),
        has_assembler_blocks: compile.dialect == Dialect::Msvc,
        standard: standard.as_deref(),
        places: &places,
        isolated: isolated.map(|mount| mount.real.as_str()),
        seconds: preprocessed.seconds,
    };
    let text = text::read(&preprocessed.text, &looking)?;
    let mut gathering = Gathering::new(compile, memory.toolchain.family, own_folders, place, start);
    gathering.add_all(compile, &text, &preprocessed)?;
    gathering.add_folders(&search)?;
    gathering.add_links(&text, &search);
    gathering.check_twins()?;
    gathering.add_tested(&search)?;
    gathering.check_precompiled(compile, text.direct_includes.iter(), &search)?;
    let looked = looked::Search {
        compile,
        toolchain: &memory.toolchain,
        place,
        text: &text,
        about: &preprocessed.about,
        path: &search,
        is_known: &|file| gathering.is_known(file),
    };
    let looked = looked.repeat();
    if looked.as_ref().is_err_and(|reason| *reason == LEADS_OUT) {
        return Err(LEADS_OUT);
    }
    let looked = looked.and_then(|looked| gathering.with_links(looked, &search));
    let looked = gathering.looked(looked);
    let links_cross = gathering.links_cross(compile);
    let names_lines = gathering.scans.values().any(Scan::names_lines);
    // A date that was set doesn't read like now.
    let may_be_pasted =
        || environment::of_process(environment::DATE).is_some() && gathering.pieces(compile).make_date();
    let holds_date = text.holds_date || gathering.scans.values().any(|scan| scan.has_date) || may_be_pasted();
    let mut closure = gathering.closure;
    closure.looked = Some(looked);
    closure.rules = compile.dependency_file.with_system_headers.map(|_| preprocessed.rules);
    closure.has_predefined = text.predefined.is_some();
    closure.is_predefined_shadowed = text.predefined.is_some_and(|found| is_shadowed(&found, &search));
    let is_named_after_source =
        compile.dialect == Dialect::Msvc && compile.source.starts_with('/') && text.has_unnamed_namespace;
    let holds_more = text.holds_place || links_cross || is_named_after_source;
    closure.holds_place = holds_more || text.holds_isolated;
    closure.holds_isolated_alone = text.holds_isolated && !holds_more;
    closure.names_lines = names_lines;
    closure.holds_date = holds_date;
    Ok(closure)
}

/// The folders that were searched; what the compiler adds is asked again if it isn't what was remembered.
fn search_path(
    compile: &Compile,
    memory: &mut ToolchainMemory,
    about: &str,
) -> Result<(IncludeDirs, SearchPath), Reason> {
    let flags = choosing_flags(compile);
    for attempt in 0..2 {
        let own = memory.include_dirs(&flags)?;
        let search = SearchPath::new(compile, &own);
        if search.is_what_was_searched(about) {
            return Ok((own, search));
        }
        if attempt == 0 {
            memory.forget_include_dirs();
        }
    }
    Err("folders of headers that are not understood".into())
}

/// The flags that may choose other folders of the compiler's own: all but those that surely don't.
pub(super) fn choosing_flags(compile: &Compile) -> Vec<String> {
    let is_neutral = |word: &str| {
        matches!(word, "-w" | "-pipe")
            || ["-D", "-U", "-W", "-O", "-g"].iter().any(|flag| word.starts_with(flag))
    };
    let words = compile.arguments.iter().filter_map(|argument| match argument {
        Argument::Words(words) if !is_neutral(&words[0]) => Some(words.clone()),
        _ => None,
    });
    words.flatten().collect()
}

fn last_standard(compile: &Compile) -> Option<String> {
    compile.arguments.iter().rev().find_map(|argument| match argument {
        // What `c++latest` is, each version of clang-cl decides: it has all that any has.
        Argument::Words(words) if words[0] == "-std:c++latest" => Some("c++2c".to_owned()),
        Argument::Words(words) => {
            let said = words[0].strip_prefix("-std=").or_else(|| words[0].strip_prefix("-std:"));
            said.map(str::to_owned)
        }
        _ => None,
    })
}

/// Whether `//` may begin no comment.
fn is_of_1989(compile: &Compile) -> bool {
    let standards = ["c89", "c90", "iso9899:1990", "iso9899:199409"];
    let is_one = |word: &String| {
        word == "-ansi"
            || word.starts_with("-trad")
            || word.strip_prefix("-std=").is_some_and(|standard| standards.contains(&standard))
    };
    compile.arguments.iter().any(|argument| match argument {
        Argument::Words(words) => words.iter().any(is_one),
        _ => false,
    })
}

/// The macros that an argument defines.
fn defined_macros(argument: &Argument) -> Vec<String> {
    let Argument::Words(words) = argument else { return Vec::new() };
    let words = words[0].strip_prefix("-Wp,").unwrap_or(&words[0]);
    let texts = words.split(',').filter_map(|word| word.strip_prefix("-D"));
    texts.map(|text| text.split(['=', '(']).next().unwrap_or(text).to_owned()).collect()
}

/// Whether `-include stdc-predef.h` would find another one than the compiler does by itself.
pub(super) fn is_shadowed(found: &str, search: &SearchPath) -> bool {
    let here = String::from(".");
    let first =
        std::iter::once(&here).chain(search.all()).map(|folder| Path::new(folder).join("stdc-predef.h"));
    let real = |path: &Path| path.canonicalize().ok();
    // gcc may name what it found by a shorter way than the one that led there.
    first.into_iter().find(|path| path.is_file()).and_then(|path| real(&path)) != real(Path::new(found))
}

pub(super) struct Gathering<'a> {
    place: &'a Place,
    start: &'a Start,
    family: Family,
    /// What has been found so far.
    pub closure: Closure,
    /// What is in each file, by its name.
    pub scans: BTreeMap<String, Scan>,
    /// Paths at which a file was looked for and not found, beside those of the search for headers.
    absent: BTreeSet<String>,
    /// Macros of the command line.
    macros: Vec<String>,
    bytes_left: u64,
}

impl<'a> Gathering<'a> {
    /// Begins with nothing.
    pub(super) fn new(
        compile: &Compile,
        family: Family,
        own_folders: IncludeDirs,
        place: &'a Place,
        start: &'a Start,
    ) -> Self {
        Self {
            place,
            start,
            family,
            closure: Closure { own_folders, ..Closure::default() },
            scans: BTreeMap::new(),
            absent: BTreeSet::new(),
            macros: compile.arguments.iter().flat_map(defined_macros).collect(),
            bytes_left: BYTES_MAX,
        }
    }

    fn add_all(&mut self, compile: &Compile, text: &Text, preprocessed: &Preprocessed) -> Result<(), Reason> {
        let takes_macros = compile
            .arguments
            .iter()
            .any(|argument| matches!(argument, Argument::IncludeFile { flag: "-imacros", .. }));
        if takes_macros && compile.dependency_file.with_system_headers == Some(false) {
            // What such a file includes from the system shows neither in the text nor in the dependency file.
            return Err("`-imacros` with `-MMD`".into());
        }
        self.add(&compile.source)?;
        for name in text.files.iter().chain(&preprocessed.prerequisites) {
            self.add(name)?;
        }
        Ok(())
    }

    /// Refuses precompiled headers: gcc takes `x.h.gch` in place of `x.h`, and clang those given by `-include`.
    pub(super) fn check_precompiled<'b>(
        &mut self,
        compile: &'b Compile,
        direct_includes: impl Iterator<Item = &'b String>,
        search: &SearchPath,
    ) -> Result<(), Reason> {
        let included = compile.arguments.iter().filter_map(|argument| match argument {
            Argument::IncludeFile { file, .. } => Some(file),
            _ => None,
        });
        let beside = Path::new(&compile.source).parent().unwrap_or(Path::new(""));
        let included: Vec<&String> = included.collect();
        for name in direct_includes.chain(included) {
            let folders = [Path::new(""), beside].into_iter().chain(search.all().map(Path::new));
            for folder in folders {
                for end in [".gch", ".pch"] {
                    let path = self.place.absolute(&format!("{}{end}", folder.join(name).display()));
                    if Path::new(&path).exists() {
                        return Err("precompiled header".into());
                    }
                    self.absent.insert(path);
                }
            }
        }
        Ok(())
    }

    /// Whether a file is among those that are read.
    fn is_known(&self, spelled: &str) -> bool {
        self.place.locate(spelled).is_ok_and(|Located { name, .. }| {
            self.closure.inputs.contains_key(&name) || self.closure.links.contains_key(&name)
        })
    }

    /// What the search depended on, with what was looked for beside it.
    pub(super) fn looked(&mut self, searched: Result<Looked, Reason>) -> Result<Looked, Reason> {
        if self.scans.values().any(|scan| scan.has_markers) {
            return Err("source that says by itself which file it is from".into());
        }
        let mut looked = searched?;
        looked.absent.append(&mut self.absent);
        Ok(looked)
    }

    /// Adds the links on the ways to the folders of the search, and to the headers that gcc calls by their real paths.
    pub(super) fn with_links(&self, looked: Looked, search: &SearchPath) -> Result<Looked, Reason> {
        if self.family != Family::Gcc {
            return Ok(looked);
        }
        let headers = self.closure.links.values().filter_map(|link| link.real.to_str());
        let ways = search.both.iter().map(String::as_str).chain(headers);
        Ok(Looked { links: links_on_ways(ways, self.place, self.start)?, ..looked })
    }

    /// Reads a file and adds it under its virtual name.
    pub(super) fn add(&mut self, spelled: &str) -> Result<(), Reason> {
        let (real, name) = self.locate(spelled)?;
        if self.closure.inputs.contains_key(&name) {
            return Ok(());
        }
        if self.closure.inputs.len() >= FILES_MAX {
            return Err("too many headers".into());
        }
        let input = self.read(real)?;
        self.scans.insert(name.clone(), scan(&input.bytes)?);
        self.closure.inputs.insert(name, input);
        Ok(())
    }

    /// The path and the virtual name of a file or folder; the way to it is noted.
    fn locate(&mut self, spelled: &str) -> Result<(PathBuf, String), Reason> {
        let Located { real, name, passed } = self.place.locate(spelled)?;
        self.closure.plain.extend(passed.iter().cloned());
        self.closure.folders.extend(passed);
        Ok((real, name))
    }

    fn read(&mut self, real: PathBuf) -> Result<Input, Reason> {
        let gone = |_| Reason::new("header that is gone");
        let metadata = real.metadata().map_err(gone)?;
        if !metadata.is_file() {
            return Err("header that is no file".into());
        }
        let stamp = Platform::stamp(&metadata);
        let left = self.bytes_left.checked_sub(stamp.size_bytes);
        self.bytes_left = left.ok_or(Reason::new("too many bytes of headers"))?;
        let mut file = File::open(&real).map_err(gone)?;
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size_bytes).unwrap_or(0) + 1);
        file.read_to_end(&mut bytes).map_err(gone)?;
        let bytes = Bytes::from(bytes);
        let is_same = file.metadata().is_ok_and(|metadata| Platform::stamp(&metadata) == stamp);
        if !is_same || !stamp.is_settled_before(self.start.instant_ns) {
            return Err("file changed while compiling".into());
        }
        let digest = Digest::of(DigestFunction::Sha256, &bytes);
        Ok(Input { real, bytes, digest, stamp })
    }

    /// Adds the folders that are searched, so that those that are there are there in the action.
    pub(super) fn add_folders(&mut self, search: &SearchPath) -> Result<(), Reason> {
        for folder in search.all().filter(|folder| Path::new(folder).is_dir()) {
            let (_, name) = self.locate(folder)?;
            self.closure.folders.insert(name);
        }
        self.closure.folders.insert(self.place.virtual_folder());
        Ok(())
    }

    /// Adds the links behind which gcc found headers: in the folders of the system it calls a header by its real path,
    /// if that is shorter.
    fn add_links(&mut self, text: &Text, search: &SearchPath) {
        if self.family != Family::Gcc {
            return;
        }
        let names: BTreeSet<&str> = text.asked().collect();
        for (folder, name) in
            search.both.iter().flat_map(|folder| names.iter().map(move |name| (folder, name)))
        {
            let real =
                PathBuf::from(self.place.absolute(&format!("{}/{name}", folder.trim_end_matches('/'))));
            // By whatever way: one that can't be followed in an action is not the one that was taken.
            let name_of = |path: &Path| path.to_str().and_then(|path| self.place.locate(path).ok());
            if let Some(spelled) = name_of(&real).filter(|_| real.is_file())
                && !self.closure.inputs.contains_key(&spelled.name)
                && let Some(target) = real.canonicalize().ok().and_then(|target| name_of(&target))
                && self.closure.inputs.contains_key(&target.name)
            {
                self.closure.plain.extend(spelled.passed.iter().cloned());
                self.closure.folders.extend(spelled.passed);
                self.closure.links.insert(spelled.name, Link { real, to: target.name });
            }
        }
    }

    /// Whether links lead from a folder of the system's headers with a name of its own to elsewhere: gcc calls such a header
    /// by its real path if that is shorter, which is not so in each place.
    pub(super) fn links_cross(&self, compile: &Compile) -> bool {
        let first = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        if self.closure.links.iter().any(|(name, link)| first(name) != first(&link.to)) {
            return true;
        }
        let of_system = compile.arguments.iter().filter_map(|argument| match argument {
            Argument::SearchDir { search: Search::System | Search::After, folder } => {
                Some(normal(&self.place.absolute(folder)))
            }
            _ => None,
        });
        let of_system: BTreeSet<String> = of_system.filter(|folder| self.place.is_named(folder)).collect();
        if of_system.is_empty() {
            return false;
        }
        let mut ways = BTreeSet::new();
        for input in self.closure.inputs.values() {
            if of_system.iter().any(|folder| input.real.starts_with(folder)) {
                ways.extend(input.real.parent().map(Path::to_owned));
                if input.real.is_symlink() {
                    ways.insert(input.real.clone());
                }
            }
        }
        let leads_on = |way: &PathBuf| {
            let real = way.canonicalize().ok().and_then(|real| real.to_str().map(str::to_owned));
            real.zip(way.to_str()).is_none_or(|(real, way)| self.place.crosses(way, &real))
        };
        ways.iter().any(leads_on)
    }

    /// Refuses equal files under two names where compilers tell files apart by more than their names: gcc compares
    /// times for `#pragma once`, clang inodes for everything, and both may be others on a worker.
    pub(super) fn check_twins(&self) -> Result<(), Reason> {
        let mut seen: HashMap<&Digest, &String> = HashMap::new();
        for (name, input) in &self.closure.inputs {
            let is_twin = !input.bytes.is_empty() && seen.insert(&input.digest, name).is_some();
            if is_twin && (self.family == Family::Clang || self.scans[name].has_once) {
                return Err("equal headers in two places".into());
            }
        }
        Ok(())
    }

    /// The pieces of words that stand in the files and in the command.
    pub(super) fn pieces(&self, compile: &Compile) -> Pieces {
        let mut pieces = Pieces::default();
        let is_of_1989 = is_of_1989(compile);
        for scan in self.scans.values() {
            pieces.join(&scan.pieces);
            if is_of_1989 {
                pieces.join(&scan.pieces_of_1989);
            }
        }
        for argument in &compile.arguments {
            let Argument::Words(words) = argument else { continue };
            for word in words.iter().flat_map(|word| word.as_bytes().split(|byte| !is_word_byte(*byte))) {
                pieces.see(word);
                // What is behind the flag, in `-DNAME`.
                pieces.see(word.strip_prefix(b"D").unwrap_or_default());
            }
        }
        pieces
    }

    /// Adds the files that `__has_include` finds, in whichever folder it may look.
    pub(super) fn add_tested(&mut self, search: &SearchPath) -> Result<(), Reason> {
        let any = |is_so: fn(&Scan) -> bool| self.scans.values().any(is_so);
        if any(|scan| scan.has_first_piece) && any(|scan| scan.has_last_piece) {
            return Err("`__has_include` that is computed".into());
        }
        let inputs = &self.closure.inputs;
        let files: Vec<_> =
            self.scans.iter().map(|(name, scan)| (&inputs[name].bytes[..], &scan.tests)).collect();
        if any(|scan| scan.has_beginning) {
            has_include::check_own_pieces(&files)?;
        }
        let is_defined = |name: &str| {
            self.macros.iter().any(|known| known == name)
                || inputs.values().any(|input| has_include::defines(&input.bytes, name))
        };
        let tested = has_include::all_tested(&files, is_defined)?;
        if tested.is_empty() {
            return Ok(());
        }
        // A test may stand in one file and be made in another, through a macro: each folder of a file counts.
        let beside: BTreeSet<String> = self
            .closure
            .inputs
            .values()
            .filter_map(|input| input.real.parent()?.to_str().map(str::to_owned))
            .collect();
        for (is_quoted, header) in &tested {
            if header.contains('\\') {
                return Err("`__has_include` with a backslash".into());
            }
            let folders: Vec<&String> = if *is_quoted {
                beside.iter().chain(search.all()).collect()
            } else {
                search.both.iter().collect()
            };
            for folder in folders {
                let path = format!("{}/{header}", folder.trim_end_matches('/'));
                if self.place.crosses(folder, &self.place.absolute(&path)) {
                    return Err(LEADS_OUT);
                }
                if Path::new(&path).is_file() {
                    self.add_existing(&path)?;
                } else {
                    self.absent.insert(self.place.absolute(&path));
                }
            }
        }
        Ok(())
    }

    /// Adds a file for its being there. What is in it counts as well, which is more than has to be.
    fn add_existing(&mut self, spelled: &str) -> Result<(), Reason> {
        let (real, name) = self.locate(spelled)?;
        if !self.closure.inputs.contains_key(&name) {
            let input = self.read(real)?;
            self.closure.inputs.insert(name, input);
        }
        Ok(())
    }
}
