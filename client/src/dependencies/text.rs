//! Reads preprocessed text: which files went into it, and what in it depends on more than those files.
//!
//! Preprocessed text has no comments and no macros left, so its literals can be read exactly. That is how an
//! `.incbin` is seen however many macros spelled it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::literal::{decoded, position, reads_like_now};
use super::statement::ends_over;
use crate::command_line::Language;
use crate::reason::Reason;

/// What is looked for in the text beyond the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looking<'a> {
    /// The language of the source.
    pub language: Language,
    /// Whether an assembler statement may do without parentheses.
    pub has_assembler_blocks: bool,
    /// The last `-std=`, without that.
    pub standard: Option<&'a str>,
    /// Names of folders that make the object belong to its place if a literal holds them.
    pub places: &'a [&'a str],
    /// The one of them that is an isolated build's.
    pub isolated: Option<&'a str>,
    /// When the compiler was started, and ended, in seconds since 1970: what `__TIME__` may say.
    pub seconds: (u64, u64),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Text {
    /// Files that were entered, as spelled by the compiler.
    pub files: BTreeSet<String>,
    /// What the source itself includes, as between the quotes or brackets.
    pub direct_includes: BTreeSet<String>,
    /// The header that gcc includes before all else, if it did.
    pub predefined: Option<String>,
    /// Whether the object may hold the name of the folder.
    pub holds_place: bool,
    /// Whether it may hold that of an isolated build, said where nothing is computed from it.
    pub holds_isolated: bool,
    /// Whether there is a namespace without a name: Microsoft's names for what is in it are made from the source's.
    pub has_unnamed_namespace: bool,
    /// Whether a literal reads like the present date or time.
    pub holds_date: bool,
    /// What the preprocessor looked for and where it went, in order.
    pub steps: Vec<Step>,
}

impl Text {
    /// The names of headers that were looked for, as they stand in the text.
    pub(super) fn asked(&self) -> impl Iterator<Item = &str> {
        let own = self.predefined.iter().map(|_| "stdc-predef.h");
        own.chain(self.steps.iter().filter_map(|step| match step {
            Step::Asked { name, .. } => Some(name.as_str()),
            Step::Entered(_) => None,
        }))
    }
}

/// Where a search for a header begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Form {
    /// `#include "…"`: beside the file that asks.
    Quoted,
    /// `#include <…>`: at the first folder of the list.
    Angled,
    /// `#include_next`: behind the folder of the file that asks.
    Next,
}

/// A thing that the preprocessor did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It looked for a header.
    Asked {
        /// The file in which it is included, as spelled by the compiler; `None` for the source itself.
        by: Option<Rc<str>>,
        /// What is between the quotes or brackets.
        name: String,
        /// How.
        form: Form,
    },
    /// It entered a file, as spelled by the compiler.
    Entered(Rc<str>),
}

/// Identifiers that compilers turn into paths after preprocessing.
const PLACE_WORDS: [&[u8]; 6] = [
    b"__builtin_FILE",
    b"__builtin_source_location",
    b"__PRETTY_FUNCTION__",
    b"__builtin_dump_struct",
    b"__FUNCSIG__",
    b"__builtin_unique_stable_name",
];

/// Why nothing is known of a file that the assembler is told to read.
pub(super) const READS_FILE: Reason = Reason::new("assembler text that reads a file");

const ASSEMBLER_WORDS: [&[u8]; 4] = [b"asm", b"__asm", b"__asm__", b"_asm"];

/// What may stand between such a word and its parenthesis.
const ASSEMBLER_QUALIFIERS: [&[u8]; 6] =
    [b"volatile", b"__volatile__", b"__volatile", b"goto", b"inline", b"__inline__"];

const BLOCK: Reason = Reason::new("block of assembler");

/// What makes the assembler read files, or build words that do so. In any literal: a name of a section, for one,
/// gets into the assembler's text as well.
const READING: [&[u8]; 2] = [b"incbin", b".include"];

/// The same, but too common in ordinary literals to be refused outside of assembler statements.
const BUILDING: [&[u8]; 7] = [b".inc", b".macro", b".irp", b".rept", b".altmacro", b"\\", b".%"];

/// Reads preprocessed text, with line markers and with `#include` lines (`-dI`).
///
/// # Errors
/// The reason to pass through, if the text shows that the key would miss something.
pub(super) fn read(text: &[u8], looking: &Looking<'_>) -> Result<Text, Reason> {
    let mut reader = Reader {
        text,
        at: 0,
        looking,
        found: Text::default(),
        within: Vec::new(),
        marked: String::new(),
        joined: None,
        joined_at: 0..0,
        assembler: Assembler::Outside,
    };
    reader.run()?;
    Ok(reader.found)
}

/// Whether the reader is within an assembler statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assembler {
    Outside,
    /// The word was seen; qualifiers and the parenthesis follow.
    Announced,
    /// So many parentheses are open.
    Inside {
        open: usize,
        has_literal: bool,
    },
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    looking: &'a Looking<'a>,
    found: Text,
    /// The files that include each other here; none is the source itself.
    within: Vec<Rc<str>>,
    /// The file of the last line marker.
    marked: String,
    /// Literals that stand one after another, decoded.
    joined: Option<Vec<u8>>,
    /// Where they are.
    joined_at: Range<usize>,
    assembler: Assembler,
}

impl<'a> Reader<'a> {
    fn run(&mut self) -> Result<(), Reason> {
        let mut is_line_start = true;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\n' => self.at += 1,
                b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c' => {
                    self.at += 1;
                    continue;
                }
                b'#' if is_line_start => {
                    let line = self.take_while(|byte| byte != b'\n');
                    self.directive(line)?;
                }
                b'"' => self.string(),
                b'\'' => {
                    self.end_of_literals()?;
                    self.quoted(b'\'');
                }
                _ if is_word_byte(byte) && !byte.is_ascii_digit() => self.word(is_line_start)?,
                _ if byte.is_ascii_digit()
                    || (byte == b'.' && self.peek(1).is_some_and(|b| b.is_ascii_digit())) =>
                {
                    self.end_of_literals()?;
                    self.number();
                }
                _ => self.sign(byte)?,
            }
            is_line_start = byte == b'\n';
        }
        self.end_of_literals()
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !fits(*byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Takes a literal from its opening quote to its closing one, or the end of the line, and returns what is within.
    fn quoted(&mut self, quote: u8) -> &'a [u8] {
        self.at += 1;
        let begin = self.at;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\n' => return &self.text[begin..self.at],
                b'\\' => self.at += 1,
                _ if byte == quote => {
                    self.at += 1;
                    return &self.text[begin..self.at - 1];
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.text.len();
        &self.text[begin.min(self.at)..]
    }

    fn string(&mut self) {
        let begin = self.at;
        let inside = self.quoted(b'"');
        let begin = if self.joined.is_some() { self.joined_at.start } else { begin };
        self.joined_at = begin..self.at;
        let decoded = decoded(inside);
        self.literal(&decoded);
    }

    fn raw_string(&mut self) -> Result<(), Reason> {
        let is_old = self
            .looking
            .standard
            .is_some_and(|standard| standard.ends_with("98") || standard.ends_with("03"));
        if self.looking.language == Language::C || is_old {
            return Err("raw literal in a language that may not have them".into());
        }
        // Where such a one begins doesn't matter to anybody.
        if self.joined.is_none() {
            self.joined_at = 0..0;
        }
        let unclosed = Reason::new("raw literal that doesn't end");
        self.at += 1;
        let delimiter = self.take_while(|byte| !matches!(byte, b'(' | b'"' | b'\n'));
        if self.peek(0) != Some(b'(') {
            return Err(unclosed);
        }
        self.at += 1;
        let end: Vec<u8> = [b")", delimiter, b"\""].concat();
        let rest = &self.text[self.at..];
        let length = position(rest, &end).ok_or(unclosed)?;
        self.at += length + end.len();
        self.literal(&rest[..length]);
        Ok(())
    }

    /// A literal by itself; with those around it, it is looked at when they end.
    fn literal(&mut self, decoded: &[u8]) {
        if let Assembler::Inside { has_literal, .. } = &mut self.assembler {
            *has_literal = true;
        }
        self.found.holds_date |= reads_like_now(decoded, self.looking.seconds);
        self.joined.get_or_insert_default().extend_from_slice(decoded);
    }

    fn end_of_literals(&mut self) -> Result<(), Reason> {
        let Some(joined) = self.joined.take() else { return Ok(()) };
        let holds = |word: &&[u8]| position(&joined, word).is_some();
        // Assemblers take their directives in capitals too.
        let small = joined.to_ascii_lowercase();
        let directs = |word: &&[u8]| position(&small, word).is_some();
        if READING.iter().any(directs) {
            return Err(READS_FILE);
        }
        if matches!(self.assembler, Assembler::Inside { .. }) && BUILDING.iter().any(directs) {
            return Err("assembler text that may read a file".into());
        }
        if holds(&b"=native".as_slice()) {
            return Err("code for this very processor (`native`)".into());
        }
        let mut places = self.looking.places.iter().filter(|place| holds(&place.as_bytes())).peekable();
        if places.peek().is_some() {
            let is_isolated = places.all(|place| self.looking.isolated == Some(*place))
                && self.assembler == Assembler::Outside
                && ends_over(self.text, self.joined_at.clone());
            self.found.holds_isolated |= is_isolated;
            self.found.holds_place |= !is_isolated;
        }
        Ok(())
    }

    fn number(&mut self) {
        // A preprocessing number: digits, letters, points, signs after an exponent, and `'` between digits.
        while let Some(byte) = self.peek(0) {
            let is_exponent = matches!(byte, b'e' | b'E' | b'p' | b'P');
            if is_exponent && matches!(self.peek(1), Some(b'+' | b'-')) {
                self.at += 2;
            } else if is_word_byte(byte)
                || byte == b'.'
                || (byte == b'\'' && self.peek(1).is_some_and(|next| next.is_ascii_alphanumeric()))
            {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn word(&mut self, is_line_start: bool) -> Result<(), Reason> {
        let word = self.take_while(is_word_byte);
        match (word, self.peek(0)) {
            (b"R" | b"u8R" | b"uR" | b"UR" | b"LR", Some(b'"')) => return self.raw_string(),
            (b"u8" | b"u" | b"U" | b"L", Some(b'"')) => {
                self.string();
                return Ok(());
            }
            _ => self.end_of_literals()?,
        }
        let is_block = self.assembler == Assembler::Announced
            && self.looking.has_assembler_blocks
            && !ASSEMBLER_QUALIFIERS.contains(&word);
        if is_block {
            return Err(BLOCK);
        }
        if word == b"namespace" {
            let rest = self.text[self.at..].trim_ascii_start();
            // Attributes, or line markers, may come before what tells.
            let has_name = rest.first().is_some_and(|byte| is_word_byte(*byte));
            self.found.has_unnamed_namespace |= !has_name || rest.starts_with(b"__attribute");
        }
        if ASSEMBLER_WORDS.contains(&word) {
            self.assembler = Assembler::Announced;
        } else if word.starts_with(b"__") {
            self.found.holds_place |= PLACE_WORDS.contains(&word);
        } else if is_line_start && matches!(word, b"import" | b"module" | b"export") && self.has_modules(word)
        {
            return Err("modules".into());
        }
        Ok(())
    }

    /// Whether a word at the start of a line begins what only C++20's modules have.
    fn has_modules(&self, word: &[u8]) -> bool {
        let standard = self.looking.standard.unwrap_or_default();
        let is_new = ["20", "2a", "23", "2b", "26", "2c"].iter().any(|year| standard.ends_with(year));
        let rest = self.text[self.at..].trim_ascii_start();
        let is_import = |text: &[u8]| text.starts_with(b"import") || text.starts_with(b"module");
        is_new
            && self.looking.language == Language::Cxx
            && (word == b"export" && is_import(rest)
                || word != b"export"
                    && rest
                        .first()
                        .is_some_and(|byte| is_word_byte(*byte) || matches!(byte, b'<' | b'"' | b':' | b';')))
    }

    fn sign(&mut self, byte: u8) -> Result<(), Reason> {
        self.end_of_literals()?;
        self.at += 1;
        self.assembler = match (self.assembler, byte) {
            (Assembler::Announced, b'(') => Assembler::Inside { open: 1, has_literal: false },
            (Assembler::Announced, b'{') => return Err(BLOCK),
            (Assembler::Announced, _) if self.looking.has_assembler_blocks => return Err(BLOCK),
            (Assembler::Inside { has_literal: false, .. }, b'(') => {
                return Err("assembler text that is computed".into());
            }
            (Assembler::Inside { open, has_literal }, b'(') => {
                Assembler::Inside { open: open + 1, has_literal }
            }
            (Assembler::Announced, _) | (Assembler::Inside { open: 1, .. }, b')') => Assembler::Outside,
            (Assembler::Inside { open, has_literal }, b')') => {
                Assembler::Inside { open: open - 1, has_literal }
            }
            (state, _) => state,
        };
        Ok(())
    }

    fn directive(&mut self, line: &[u8]) -> Result<(), Reason> {
        let line = line[1..].trim_ascii();
        if line.first().is_some_and(u8::is_ascii_digit) {
            return self.marker(line);
        }
        let word_end = line.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(line.len());
        let (word, rest) = (&line[..word_end], line[word_end..].trim_ascii_start());
        match word {
            b"include" | b"include_next" | b"import" => self.include(rest, word == b"include_next"),
            // Which file is entered where doesn't show in these.
            b"line" => Err("line marker of an unusual shape".into()),
            b"pragma" if rest.starts_with(b"clang module") || rest.starts_with(b"GCC pch_preprocess") => {
                Err("modules".into())
            }
            _ => Ok(()),
        }
    }

    fn include(&mut self, operand: &[u8], is_next: bool) -> Result<(), Reason> {
        let close = match operand.first() {
            Some(b'<') => b'>',
            Some(b'"') => b'"',
            _ => return Err("`#include` of an unusual shape".into()),
        };
        let end = operand[1..].iter().position(|byte| *byte == close);
        let name = end.map(|end| &operand[1..=end]).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or(Reason::new("`#include` of an unusual shape"))?;
        if name.starts_with('/') {
            return Err("`#include` of an absolute path".into());
        }
        if self.within.is_empty() {
            self.found.direct_includes.insert(name.to_owned());
        }
        let form = match close {
            _ if is_next => Form::Next,
            b'"' => Form::Quoted,
            _ => Form::Angled,
        };
        self.found.steps.push(Step::Asked { by: self.within.last().cloned(), name: name.to_owned(), form });
        Ok(())
    }

    /// `12 "file" 1 3`: 1 enters a file, 2 comes back, 3 is a system header.
    fn marker(&mut self, line: &[u8]) -> Result<(), Reason> {
        let unusual = Reason::new("line marker of an unusual shape");
        let open = line.iter().position(|byte| *byte == b'"').ok_or(unusual.clone())?;
        let close = line.iter().rposition(|byte| *byte == b'"').filter(|close| *close > open);
        let close = close.ok_or(unusual.clone())?;
        let name = String::from_utf8(decoded(&line[open + 1..close])).map_err(|_| unusual)?;
        let flags: Vec<&[u8]> = line[close + 1..].split(|byte| *byte == b' ').collect();
        let has = |flag: &[u8]| flags.contains(&flag);
        if has(b"1") {
            let is_first = self.found.files.is_empty() && self.marked.starts_with('<');
            if is_first && has(b"3") && name.ends_with("/stdc-predef.h") {
                self.found.predefined = Some(name.clone());
            }
            let entered: Rc<str> = name.as_str().into();
            self.within.push(entered.clone());
            // `<built-in>`, `<command line>`: clang enters them like files.
            if !(name.starts_with('<') && name.ends_with('>')) {
                self.found.files.insert(name.clone());
                self.found.steps.push(Step::Entered(entered));
            }
        } else if has(b"2") {
            self.within.pop();
        }
        self.marked = name;
        Ok(())
    }
}

const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests;
