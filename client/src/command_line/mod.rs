//! What a compiler's command line asks for, or why it is passed through.

pub mod flags;
pub mod msvc;
mod response;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::link_time;
use crate::reason::Reason;
use flags::{Attach, Dependency, Flag, Maps, Meaning, Search};

/// Words for the assembler that change the object and nothing else, and read no file.
const ASSEMBLER_WORDS: &[&str] = &[
    "--noexecstack",
    "--execstack",
    "--fatal-warnings",
    "--no-warn",
    "--compress-debug-sections",
    "--compress-debug-sections=zlib",
    "--compress-debug-sections=zlib-gnu",
    "--compress-debug-sections=none",
    "--nocompress-debug-sections",
    "-mbig-obj",
    "-mbranches-within-32B-boundaries",
];

/// A language that is compiled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
}

impl Language {
    /// How `-x` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
        }
    }

    /// The language of a source by the end of its name, as gcc and clang have it.
    fn of_source(name: &str) -> Result<Self, Reason> {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        match extension.unwrap_or_default() {
            "c" => Ok(Self::C),
            "cc" | "cp" | "cxx" | "cpp" | "CPP" | "c++" | "C" => Ok(Self::Cxx),
            "s" | "S" | "sx" => Err("assembler source".into()),
            "i" | "ii" => Err("preprocessed source".into()),
            "h" | "hh" | "hpp" | "hxx" | "H" | "h++" | "tcc" => Err("precompiled header".into()),
            "o" | "a" | "so" | "obj" | "lo" | "dylib" => Err("input for the linker".into()),
            _ => Err("source of an unknown language".into()),
        }
    }
}

/// A word or some words of the command, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Goes as it stands.
    Words(Vec<String>),
    /// A folder of headers.
    SearchDir {
        /// Where it stands in the order.
        search: Search,
        /// As spelled.
        folder: String,
    },
    /// A file included first.
    IncludeFile {
        /// `-include` or `-imacros`.
        flag: &'static str,
        /// As spelled.
        file: String,
    },
    /// Paths are renamed in the object.
    PrefixMap {
        /// Which paths.
        maps: Maps,
        /// What they begin with.
        old: String,
        /// What stands there instead.
        new: String,
    },
    /// Nothing to a compile, though clang complains of it.
    LinkOnly(Vec<String>),
}

impl Argument {
    /// The argument in the words of the command line.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Words(words) | Self::LinkOnly(words) => words.clone(),
            Self::SearchDir { search, folder } => vec![search_flag(*search).to_owned(), folder.clone()],
            Self::IncludeFile { flag, file } => vec![(*flag).to_owned(), file.clone()],
            Self::PrefixMap { maps, old, new } => vec![format!("{}{old}={new}", map_flag(*maps))],
        }
    }
}

/// The flag that names a folder of headers of that kind.
pub const fn search_flag(search: Search) -> &'static str {
    match search {
        Search::Quote => "-iquote",
        Search::User => "-I",
        Search::System => "-isystem",
        Search::After => "-idirafter",
    }
}

/// The flag that renames paths, with its `=`.
pub const fn map_flag(maps: Maps) -> &'static str {
    match maps {
        Maps::Debug => "-fdebug-prefix-map=",
        Maps::Macro => "-fmacro-prefix-map=",
        Maps::File => "-ffile-prefix-map=",
    }
}

/// A wish for a dependency file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DependencyFile {
    /// Whether system headers are listed too; `None` if no file is wanted.
    pub with_system_headers: Option<bool>,
    /// Where to, if said.
    pub file: Option<String>,
    /// `-MT` and `-MQ` with their values, in order.
    pub targets: Vec<(&'static str, String)>,
    /// `-MP`.
    pub has_phony_targets: bool,
}

/// In which words a compiler is told what to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// As gcc has them, and clang.
    #[default]
    Gnu,
    /// As Microsoft's `cl` has them, and clang-cl.
    Msvc,
}

/// A compile of one C or C++ source to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Compile {
    /// The source, as spelled.
    pub source: String,
    /// Its language by its name or `-x`; a C++ driver takes C for C++, see [`Compile::language_for`].
    pub language: Language,
    /// Whether `-x` said so.
    pub is_language_explicit: bool,
    /// The object, as spelled.
    pub output: String,
    /// Whether `-o` said so.
    pub is_output_explicit: bool,
    /// All else that matters, in order.
    pub arguments: Vec<Argument>,
    /// The wish for a dependency file.
    pub dependency_file: DependencyFile,
    /// Whether there is debug information.
    pub has_debug: bool,
    /// The version of DWARF, if said.
    pub dwarf_version: Option<u8>,
    /// Whether messages are coloured, if said.
    pub color: Option<bool>,
    /// Set if the object holds paths that no map reaches: run here only, with the folder in the key.
    pub place_matters: Option<Reason>,
    /// Whether link-time optimisation is asked for.
    pub has_link_time: bool,
    /// Set if this is fine with gcc and not with clang.
    pub clang_refusal: Option<Reason>,
    /// In which words it was asked for.
    pub dialect: Dialect,
}

impl Compile {
    /// Understands the words after the compiler's name.
    ///
    /// # Errors
    /// The reason to pass the call through.
    pub fn parse(words: &[String], folder: &Path) -> Result<Self, Reason> {
        let words = response::expand(words, folder)?;
        let mut parser = Parser::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            parser.take(word, &mut words)?;
        }
        parser.finish()
    }

    /// The language that a driver of C++ (`g++`), or another, takes the source for.
    pub fn language_for(&self, is_cxx_driver: bool) -> Language {
        if is_cxx_driver && !self.is_language_explicit { Language::Cxx } else { self.language }
    }

    /// An argument in words that the compiler takes.
    pub fn words_of(&self, argument: &Argument) -> Vec<String> {
        match self.dialect {
            Dialect::Gnu => argument.words(),
            Dialect::Msvc => msvc::words(argument),
        }
    }

    /// Whether the object is for link-time optimisation, and nothing binds it to its folder.
    pub const fn shares_link_time(&self) -> bool {
        self.has_link_time && self.place_matters.is_none()
    }

    /// The dependency file's name, if one is wanted.
    pub fn dependency_file_name(&self) -> Option<String> {
        self.dependency_file.with_system_headers?;
        Some(self.dependency_file.file.clone().unwrap_or_else(|| {
            let base = if self.is_output_explicit { &self.output } else { file_name(&self.source) };
            format!("{}.d", without_extension(base))
        }))
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn without_extension(path: &str) -> &str {
    let name_at = path.len() - file_name(path).len();
    match path[name_at..].rfind('.') {
        Some(dot) => &path[..name_at + dot],
        None => path,
    }
}

/// What has been understood so far.
#[derive(Default)]
struct Parser {
    has_compile: bool,
    sources: Vec<String>,
    /// `-x` as it stands at the source.
    source_language: Option<String>,
    language: Option<String>,
    outputs: Vec<String>,
    arguments: Vec<Argument>,
    dependency_file: DependencyFile,
    has_debug: bool,
    dwarf_version: Option<u8>,
    color: Option<bool>,
    architectures: usize,
    place_matters: Option<Reason>,
    has_link_time: bool,
    clang_refusal: Option<Reason>,
}

impl Parser {
    fn take(&mut self, word: String, rest: &mut impl Iterator<Item = String>) -> Result<(), Reason> {
        if !word.starts_with('-') || word == "-" {
            if word == "-" {
                return Err("source from standard input".into());
            }
            self.source_language.clone_from(&self.language);
            self.sources.push(word);
            return Ok(());
        }
        let flag = flags::find(&word).ok_or_else(|| Reason::of(format!("unknown flag `{word}`")))?;
        let value = match flag.attach {
            Attach::Exact | Attach::Family => None,
            Attach::Either if word.len() > flag.spelling.len() => {
                Some(word[flag.spelling.len()..].to_owned())
            }
            Attach::Either | Attach::Separate => {
                Some(rest.next().ok_or_else(|| Reason::of(format!("`{word}` without its value")))?)
            }
        };
        self.understand(flag, word, value)
    }

    fn understand(&mut self, flag: &'static Flag, word: String, value: Option<String>) -> Result<(), Reason> {
        let is_joined = value.as_ref().is_some_and(|_| word.len() > flag.spelling.len());
        if flags::may_name_file(flag, &word) {
            return Err(Reason::of(format!("flag that may name a file: `{word}`")));
        }
        let mut words = vec![word];
        match flag.meaning {
            Meaning::Refuse(reason) => return Err(reason.into()),
            Meaning::Compile => self.has_compile = true,
            Meaning::Output => self.outputs.extend(value),
            Meaning::Language => self.language = value.filter(|language| language != "none"),
            Meaning::Dependency(what) => self.depend(what, value)?,
            Meaning::Color(color) => self.color = color,
            Meaning::SearchDir(search) => return self.search(search, value),
            Meaning::IncludeFile => {
                let file = value.unwrap_or_default();
                self.arguments.push(Argument::IncludeFile { flag: flag.spelling, file });
            }
            // The two spellings, `-DX` and `-D X`, are one to the key.
            Meaning::Define => {
                let value = value.unwrap_or_default();
                check_macro(&value)?;
                self.arguments.push(Argument::Words(vec![format!("{}{value}", flag.spelling)]));
            }
            Meaning::PrefixMap(maps) => self.map(maps, &words[0][flag.spelling.len()..])?,
            Meaning::LinkOnly => {
                words.extend(value.filter(|_| !is_joined));
                self.arguments.push(Argument::LinkOnly(words));
            }
            Meaning::Key
            | Meaning::Place(_)
            | Meaning::LinkTime
            | Meaning::Sanitizer
            | Meaning::Debug
            | Meaning::Architecture
            | Meaning::ForPreprocessor
            | Meaning::ForAssembler => {
                self.check(flag.meaning, &words[0])?;
                words.extend(value);
                self.arguments.push(Argument::Words(words));
            }
        }
        Ok(())
    }

    /// Notes what a flag that goes into the key as it stands means beyond that.
    fn check(&mut self, meaning: Meaning, word: &str) -> Result<(), Reason> {
        match meaning {
            Meaning::Place(reason) => self.place_matters = Some(reason.into()),
            Meaning::LinkTime => self.has_link_time = true,
            Meaning::Sanitizer => {
                self.place_matters = Some("sanitizers".into());
                self.clang_refusal = Some("sanitizers of clang".into());
            }
            Meaning::Debug => self.debug(word),
            Meaning::Architecture => {
                self.architectures += 1;
                if self.architectures > 1 {
                    return Err("several architectures".into());
                }
            }
            Meaning::ForPreprocessor => {
                let mut pieces = word["-Wp,".len()..].split(',');
                if !pieces.all(is_macro_flag) {
                    return Err("words for a sub-program".into());
                }
                check_macro(word)?;
            }
            Meaning::ForAssembler => {
                let mut pieces = word["-Wa,".len()..].split(',');
                if !pieces.all(|piece| ASSEMBLER_WORDS.contains(&piece)) {
                    return Err("words for the assembler".into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn depend(&mut self, what: Dependency, value: Option<String>) -> Result<(), Reason> {
        let file = &mut self.dependency_file;
        match what {
            Dependency::All | Dependency::User => {
                let with_system_headers = what == Dependency::All;
                // Which one wins differs between compilers.
                if file.with_system_headers.is_some_and(|earlier| earlier != with_system_headers) {
                    return Err("both `-MD` and `-MMD`".into());
                }
                file.with_system_headers = Some(with_system_headers);
            }
            Dependency::File => file.file = value,
            Dependency::Target => file.targets.extend(value.map(|target| ("-MT", target))),
            Dependency::QuotedTarget => file.targets.extend(value.map(|target| ("-MQ", target))),
            Dependency::Phony => file.has_phony_targets = true,
        }
        Ok(())
    }

    fn search(&mut self, search: Search, value: Option<String>) -> Result<(), Reason> {
        let folder = value.unwrap_or_default();
        if folder.starts_with('=') || folder.starts_with("$SYSROOT") || folder.is_empty() {
            return Err("another system root".into());
        }
        self.arguments.push(Argument::SearchDir { search, folder });
        Ok(())
    }

    fn map(&mut self, maps: Maps, text: &str) -> Result<(), Reason> {
        // gcc parts at the first sign of equality, clang at the first as well.
        let (old, new) = text.split_once('=').ok_or(Reason::new("prefix map without `=`"))?;
        self.arguments.push(Argument::PrefixMap { maps, old: old.to_owned(), new: new.to_owned() });
        Ok(())
    }

    fn debug(&mut self, word: &str) {
        self.has_debug = !matches!(word, "-g0" | "-ggdb0");
        let version = word.strip_prefix("-gdwarf-").and_then(|version| version.parse().ok());
        self.dwarf_version = version.or(self.dwarf_version);
    }

    fn finish(self) -> Result<Compile, Reason> {
        if !self.has_compile {
            return Err(if self.sources.is_empty() { "no source" } else { "linking" }.into());
        }
        let [source] = <[String; 1]>::try_from(self.sources).map_err(|sources| {
            Reason::new(if sources.is_empty() { "no source" } else { "several sources" })
        })?;
        let is_language_explicit = self.source_language.is_some();
        let language = match self.source_language.as_deref() {
            None => Language::of_source(&source)?,
            Some("c") => Language::C,
            Some("c++") => Language::Cxx,
            Some("c-header" | "c++-header") => return Err("precompiled header".into()),
            Some("assembler" | "assembler-with-cpp") => return Err("assembler source".into()),
            Some(other) => return Err(Reason::of(format!("source of language `{other}`"))),
        };
        let dependencies = &self.dependency_file;
        let is_detail_given =
            dependencies.file.is_some() || !dependencies.targets.is_empty() || dependencies.has_phony_targets;
        if is_detail_given && dependencies.with_system_headers.is_none() {
            return Err("`-MF`, `-MT`, `-MQ` or `-MP` without `-MD`".into());
        }
        if self.outputs.len() > 1 {
            return Err("several outputs".into());
        }
        let is_output_explicit = !self.outputs.is_empty();
        let output = self.outputs.into_iter().next();
        let output = output.unwrap_or_else(|| format!("{}.o", without_extension(file_name(&source))));
        let devices = |name: &str| name == "-" || name.is_empty() || is_of_system(name);
        let first = self.arguments.iter().filter_map(|argument| match argument {
            Argument::IncludeFile { file, .. } => Some(file),
            _ => None,
        });
        if std::iter::once(&source).chain(first).any(|name| is_of_system(name)) {
            return Err("source is no file".into());
        }
        if devices(&output) || dependencies.file.as_deref().is_some_and(devices) {
            return Err("output is no file".into());
        }
        Ok(Compile {
            source,
            language,
            is_language_explicit,
            output,
            is_output_explicit,
            arguments: self.arguments,
            dependency_file: self.dependency_file,
            has_debug: self.has_debug,
            dwarf_version: self.dwarf_version,
            color: self.color,
            place_matters: self.place_matters.or(self.has_link_time.then_some(link_time::STAYS)),
            has_link_time: self.has_link_time,
            clang_refusal: self.clang_refusal,
            dialect: Dialect::Gnu,
        })
    }
}

/// Whether a path leads to where files are other things for each process, `/dev/stdin` for one.
fn is_of_system(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    path.starts_with('/') && matches!(parts.next(), Some("dev" | "proc"))
}

/// Refuses macros that hold what is looked for in files: the command line isn't searched for uses of it.
fn check_macro(text: &str) -> Result<(), Reason> {
    let hidden = ["__has_include", "__has_embed", "__DATE__", "__TIME__", "__TIMESTAMP__"];
    match hidden.into_iter().find(|word| text.contains(word)) {
        Some(word) => Err(Reason::of(format!("`{word}` in a macro of the command line"))),
        None => Ok(()),
    }
}

fn is_macro_flag(piece: &str) -> bool {
    (piece.starts_with("-D") || piece.starts_with("-U")) && piece.len() > 2
}

#[cfg(test)]
mod tests;
