//! The command lines of MSVC's `cl`, and of `clang-cl`, which takes the same.
//!
//! Words of clang itself that `clang-cl` takes as well (`-f…`, `-m…`, `-W…`) are looked up in clang's own table. What a
//! call comes to is a [`Compile`] like any other, whose words are spelled with `-`: both compilers take it for `/`.

pub mod flags;
mod response;

use std::ffi::OsStr;
use std::path::Path;

use super::flags as gnu;
use super::{Argument, Compile, DependencyFile, Dialect, Language, check_macro, file_name, is_of_system};
use crate::command_line::flags::Search;
use crate::reason::Reason;
use flags::{Attach, Flag, Meaning};
use response::Word;

/// Why nothing of `cl` is kept.
pub const UNTESTED: Reason = Reason::new("cl: not tested with the real compiler yet");

/// What the name of a file that is included first stands behind.
const INCLUDE_FILE: &str = "-FI";

/// Debug information that clang-cl takes words for.
const DEBUG_WORDS: [&str; 7] = [
    "-gcodeview",
    "-gcodeview-ghash",
    "-gline-tables-only",
    "-gline-directives-only",
    "-gdwarf",
    "-gcolumn-info",
    "-gno-column-info",
];

/// Whose command line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Microsoft's.
    Cl,
    /// clang's.
    ClangCl,
}

impl Driver {
    /// The driver that a program is by its name: `cl`, or `clang-cl` with a target before it and a version behind it, or
    /// without.
    pub fn named(program: &Path) -> Option<Self> {
        let name = program.file_name().and_then(OsStr::to_str)?;
        let name = name.strip_suffix(".exe").unwrap_or(name);
        let name = match name.rsplit_once('-') {
            Some((rest, version)) if version.split('.').all(|part| part.parse::<u32>().is_ok()) => rest,
            _ => name,
        };
        if name == "cl" {
            return Some(Self::Cl);
        }
        (name == "clang-cl" || name.ends_with("-clang-cl")).then_some(Self::ClangCl)
    }
}

/// Understands the words after the compiler's name.
///
/// # Errors
/// The reason to pass the call through.
pub fn parse(words: &[String], folder: &Path, driver: Driver) -> Result<Compile, Reason> {
    let mut words = response::expand(words, folder)?.into_iter();
    let mut parser = Parser { driver, ..Parser::new() };
    while let Some(word) = words.next() {
        parser.take(word, &mut words, folder)?;
    }
    parser.finish()
}

/// An argument in words that clang-cl takes.
pub fn words(argument: &Argument) -> Vec<String> {
    match argument {
        Argument::SearchDir { search: Search::System, folder } => vec![format!("-clang:-isystem{folder}")],
        argument => argument.words(),
    }
}

/// The flag that says which language the source is of.
pub const fn language_flag(language: Language) -> &'static str {
    match language {
        Language::C => "-TC",
        Language::Cxx => "-TP",
    }
}

struct Parser {
    driver: Driver,
    has_compile: bool,
    /// Whether `--` was there: what follows is a source.
    is_past_flags: bool,
    /// `/TC` and `/TP`.
    language: Option<Language>,
    sources: Vec<(String, Option<Language>)>,
    outputs: Vec<String>,
    arguments: Vec<Argument>,
    has_debug: bool,
    color: Option<bool>,
}

impl Parser {
    const fn new() -> Self {
        Self {
            driver: Driver::ClangCl,
            has_compile: false,
            is_past_flags: false,
            language: None,
            sources: Vec::new(),
            outputs: Vec::new(),
            arguments: Vec::new(),
            has_debug: false,
            color: None,
        }
    }

    fn take(
        &mut self,
        word: Word,
        rest: &mut impl Iterator<Item = Word>,
        folder: &Path,
    ) -> Result<(), Reason> {
        let Word { text, ends_line } = word;
        if self.is_past_flags || !text.starts_with(['/', '-']) {
            self.sources.push((text, None));
            return Ok(());
        }
        match text.as_str() {
            "-" => return Err("source from standard input".into()),
            "--" if self.driver == Driver::ClangCl => {
                self.is_past_flags = true;
                return Ok(());
            }
            _ => {}
        }
        let Some(flag) = flags::find(&text[1..]) else { return self.take_other(text, folder) };
        let joined = &text[1 + flag.spelling.len()..];
        let value = match flag.attach {
            Attach::Exact | Attach::Family => String::new(),
            Attach::Joined => joined.to_owned(),
            Attach::Either if !joined.is_empty() => joined.to_owned(),
            Attach::Either => {
                let value = rest.next().filter(|_| !ends_line).map(|word| word.text);
                value.ok_or_else(|| Reason::of(format!("`{text}` without its value")))?
            }
        };
        self.understand(flag, &text, value)
    }

    /// Takes a word that is not in the table: clang's, or a source with an absolute name.
    fn take_other(&mut self, text: String, folder: &Path) -> Result<(), Reason> {
        if text.starts_with('-') && self.driver == Driver::ClangCl {
            return self.take_clang(text);
        }
        // A word that is no flag is a source, if there is such a file. Whether clang-cl takes it so shows when it
        // preprocesses.
        let is_source = text.starts_with('/') && self.driver == Driver::ClangCl;
        if is_source && text[1..].contains('/') && folder.join(&text).is_file() {
            self.sources.push((text, None));
            return Ok(());
        }
        Err(unknown(&text))
    }

    /// Takes a word of clang's own.
    fn take_clang(&mut self, word: String) -> Result<(), Reason> {
        if word.starts_with("-fcolor") || word.starts_with("-fno-color") {
            return match gnu::find(&word).map(|flag| flag.meaning) {
                Some(gnu::Meaning::Color(color)) => {
                    self.color = color;
                    Ok(())
                }
                _ => Err(unknown(&word)),
            };
        }
        if DEBUG_WORDS.contains(&word.as_str()) {
            self.has_debug = true;
            self.key(word);
            return Ok(());
        }
        let is_of_kind = ["-f", "-m", "-W", "--target="].iter().any(|beginning| word.starts_with(beginning));
        match gnu::find(&word).filter(|flag| is_of_kind && !gnu::may_name_file(flag, &word)) {
            Some(gnu::Flag {
                meaning: gnu::Meaning::Key,
                attach: gnu::Attach::Exact | gnu::Attach::Family,
                ..
            }) => {
                self.key(word);
                Ok(())
            }
            Some(gnu::Flag { meaning: gnu::Meaning::Refuse(reason), .. }) => Err((*reason).into()),
            _ => Err(unknown(&word)),
        }
    }

    fn key(&mut self, word: String) {
        self.arguments.push(Argument::Words(vec![word]));
    }

    fn understand(&mut self, flag: &Flag, text: &str, value: String) -> Result<(), Reason> {
        let word = format!("-{}", &text[1..]);
        match flag.meaning {
            Meaning::Refuse(reason) => return Err(reason.into()),
            Meaning::Nothing => {}
            Meaning::Compile => self.has_compile = true,
            Meaning::Output => self.outputs.push(value),
            Meaning::Language(language) => {
                if self.language.is_some_and(|earlier| earlier != language) {
                    return Err("both `/TC` and `/TP`".into());
                }
                self.language = Some(language);
            }
            Meaning::Source(language) => self.sources.push((value, Some(language))),
            Meaning::Define | Meaning::Undefine => {
                check_macro(&value)?;
                if value.contains('#') {
                    return Err("`#` in a macro of the command line".into());
                }
                self.key(format!("-{}{value}", flag.spelling));
            }
            Meaning::SearchDir => return self.search(Search::User, value),
            Meaning::ExternalDir => return self.search(Search::System, value),
            Meaning::OwnDir | Meaning::Root => self.key(format!("-{}{value}", flag.spelling)),
            Meaning::IncludeFile => {
                self.arguments.push(Argument::IncludeFile { flag: INCLUDE_FILE, file: value });
            }
            Meaning::DebugFile if self.driver == Driver::Cl => {
                return Err("debug information in a file of many compiles (`/Zi`)".into());
            }
            Meaning::Debug | Meaning::DebugFile => {
                self.has_debug = true;
                self.key(word);
            }
            Meaning::Clang => return self.take_through(&value),
            Meaning::Key => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                if flag.attach == Attach::Joined && !is_number {
                    return Err(unknown(text));
                }
                let is_apart = flag.attach == Attach::Either;
                self.key(if is_apart { format!("-{}{value}", flag.spelling) } else { word });
            }
        }
        Ok(())
    }

    /// Takes what follows `/clang:`.
    fn take_through(&mut self, word: &str) -> Result<(), Reason> {
        if self.driver == Driver::Cl {
            return Err(unknown("/clang:"));
        }
        if let Some(folder) = word.strip_prefix("-isystem").filter(|folder| !folder.is_empty()) {
            return self.search(Search::System, folder.to_owned());
        }
        let is_plain = ["-O", "-f", "-m", "-W"].iter().any(|beginning| word.starts_with(beginning));
        match gnu::find(word).filter(|flag| is_plain && !gnu::may_name_file(flag, word)) {
            Some(gnu::Flag {
                meaning: gnu::Meaning::Key,
                attach: gnu::Attach::Exact | gnu::Attach::Family,
                ..
            }) => {
                self.key(format!("-clang:{word}"));
                Ok(())
            }
            _ => Err(Reason::of(format!("`/clang:{word}`"))),
        }
    }

    fn search(&mut self, search: Search, folder: String) -> Result<(), Reason> {
        if folder.starts_with(['=', '-']) || folder.starts_with("$SYSROOT") || folder.is_empty() {
            return Err("folder of headers of an unusual name".into());
        }
        self.arguments.push(Argument::SearchDir { search, folder });
        Ok(())
    }

    fn finish(self) -> Result<Compile, Reason> {
        if !self.has_compile {
            return Err(if self.sources.is_empty() { "no source" } else { "linking" }.into());
        }
        let [(source, said)] = <[_; 1]>::try_from(self.sources).map_err(|sources| {
            Reason::new(if sources.is_empty() { "no source" } else { "several sources" })
        })?;
        if source.contains('\\') || source.ends_with('/') {
            return Err("source of an unusual name".into());
        }
        if said.is_some() && self.language.is_some() {
            return Err("both `/Tc` or `/Tp` and `/TC` or `/TP`".into());
        }
        let language = said.or(self.language).map_or_else(|| Language::of_source(&source), Ok)?;
        if self.outputs.len() > 1 {
            return Err("several outputs".into());
        }
        let is_output_explicit = !self.outputs.is_empty();
        let output = object_name(self.outputs.first().map(String::as_str), &source)?;
        let included = self.arguments.iter().filter_map(|argument| match argument {
            Argument::IncludeFile { file, .. } => Some(file),
            _ => None,
        });
        if std::iter::once(&source).chain(included).any(|name| is_of_system(name)) {
            return Err("source is no file".into());
        }
        if is_of_system(&output) {
            return Err("output is no file".into());
        }
        let place_matters = self.has_debug.then_some(Reason::new("CodeView names the folder"));
        Ok(Compile {
            source,
            language,
            is_language_explicit: true,
            output,
            is_output_explicit,
            arguments: self.arguments,
            dependency_file: DependencyFile::default(),
            has_debug: self.has_debug,
            dwarf_version: None,
            color: self.color,
            place_matters,
            has_link_time: false,
            clang_refusal: None,
            dialect: Dialect::Msvc,
        })
    }
}

fn unknown(word: &str) -> Reason {
    Reason::of(format!("unknown flag `{word}`"))
}

/// What the object is called: as `/Fo` says, in the folder that `/Fo` says, or after the source.
fn object_name(said: Option<&str>, source: &str) -> Result<String, Reason> {
    let said = said.unwrap_or_default();
    let (folder, name) = said.split_at(said.len() - file_name(said).len());
    if said.starts_with(':') || said.contains(['\\', '"']) || name.starts_with('.') || name.ends_with('.') {
        return Err("output of an unusual name".into());
    }
    let extended = |name: &str| format!("{folder}{}.obj", super::without_extension(name));
    let own = file_name(source);
    if name.is_empty() && (own.starts_with('.') || own.ends_with('.')) {
        return Err("source of an unusual name".into());
    }
    Ok(match name {
        "" => extended(own),
        name if name.contains('.') => said.to_owned(),
        name => extended(name),
    })
}

#[cfg(test)]
mod tests;
