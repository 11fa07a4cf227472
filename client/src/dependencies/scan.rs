//! Scans a file as it was written for what preprocessing hides: tests for headers, dates, pragmas.
//!
//! Comments are not left out, because telling them apart exactly takes a preprocessor; a mention in one costs a
//! call that could have been cached, and is never wrong.

use std::borrow::Cow;

use super::computed::Computed;
use super::has_include::{Tests, is_first_piece, is_usual_piece};
use super::includes::{Include, Line, include};
use super::literal::position;
use super::pasted::Pieces;
use crate::reason::Reason;

/// What a file has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Scan {
    /// Whether `__DATE__` or `__TIME__` is in it.
    pub has_date: bool,
    /// Whether the file may be included only once by its identity rather than by a macro.
    pub has_once: bool,
    /// Whether it has the first piece of a `__has_include` that is pasted together.
    pub has_first_piece: bool,
    /// Whether it has a word with which `__has_include` begins, be it so short that others begin so too.
    pub has_beginning: bool,
    /// Whether it has the last piece, where macros are made or used.
    pub has_last_piece: bool,
    /// Whether it says by itself which file a line is from, as preprocessed text does.
    pub has_markers: bool,
    /// Whether `#line` says, with a path or through a macro, which file a line is from.
    pub has_line_of_path: bool,
    /// What it tests for with `__has_include`.
    pub tests: Tests,
    /// The headers that it names in `#include` lines, each once.
    pub includes: Vec<Include>,
    /// Those for which a macro stands in the line.
    pub computed: Vec<Computed>,
    /// Whether there is an `#include` line that is neither.
    pub has_computed_include: bool,
    /// Whether a word is in it that stands for the name of a file.
    pub has_name_of_file: bool,
    /// Pieces of words that macros could paste together.
    pub pieces: Pieces,
    /// Those behind `//`, which begins no comment in C of 1989.
    pub pieces_of_1989: Pieces,
}

/// Longest number that is known from what begins a literal.
const NUMBER_BYTES_MAX: usize = 256;

/// What a byte means to the scan: most mean nothing, and all are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Word,
    Sign,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0_u8;
    loop {
        classes[byte as usize] = match byte {
            b'#' | b'%' | b'?' | b'/' | b'"' | b'\'' => Class::Sign,
            byte if is_word_byte(byte) => Class::Word,
            _ => Class::Other,
        };
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

/// Scans the bytes of a source or header.
///
/// # Errors
/// The reason to pass through.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan, Reason> {
    let bytes = unspliced(bytes);
    if position(&bytes, b"??/").is_some() {
        return Err("trigraph".into());
    }
    let mut scan = Scan::default();
    let mut hidden = Hidden::new(&bytes);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            _ if CLASSES[usize::from(*byte)] == Class::Other => {}
            b'#' => {
                let rest = bytes[at + 1..].trim_ascii_start();
                if rest.starts_with(b"embed") && !rest.get(5).is_some_and(|byte| is_word_byte(*byte)) {
                    return Err("`#embed`".into());
                }
                scan.has_once |= rest.starts_with(b"import");
                scan.directive(&bytes, at, at + 1);
            }
            // Other spellings of `#`.
            b'%' if bytes[at + 1..].starts_with(b":") => scan.directive(&bytes, at, at + 2),
            b'?' if bytes[at + 1..].starts_with(b"?=") => scan.directive(&bytes, at, at + 3),
            b'/' | b'"' | b'\'' => hidden.come_to(&bytes, at),
            _ if is_word_byte(*byte) => {
                let rest = &bytes[at..];
                let is_word = |byte: &u8| CLASSES[usize::from(*byte)] == Class::Word;
                let length = rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len());
                scan.word(&bytes, at, length)?;
                if at >= hidden.blind_until && at >= hidden.until {
                    scan.pieces.see(&rest[..length]);
                } else if at >= hidden.until {
                    scan.pieces_of_1989.see(&rest[..length]);
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(scan)
}

/// Comments and literals: no macro takes its words from there.
struct Hidden {
    /// Where the one ends that began last.
    until: usize,
    /// Where the line ends that `//` stands on.
    blind_until: usize,
    /// Whether none is looked for: raw literals are told apart from others by more than their letters.
    is_off: bool,
}

impl Hidden {
    fn new(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let mut is_off = false;
        while let Some(at) = position(rest, b"R\"") {
            let begin =
                rest[..at].iter().rposition(|byte| !is_word_byte(*byte)).map_or(0, |before| before + 1);
            is_off |= matches!(&rest[begin..at], b"" | b"u8" | b"u" | b"U" | b"L");
            rest = &rest[at + 2..];
        }
        Self { until: 0, blind_until: 0, is_off }
    }

    fn come_to(&mut self, bytes: &[u8], at: usize) {
        if at < self.until.max(self.blind_until) || self.is_off {
            return;
        }
        let rest = &bytes[at..];
        let length = match rest {
            [b'/', b'*', inside @ ..] => position(inside, b"*/").map_or(rest.len(), |end| end + 4),
            [b'/', b'/', ..] => {
                self.blind_until = at + memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                return;
            }
            // Between digits it is none.
            [b'\'', ..] => match is_in_number(&bytes[..at]) {
                Some(false) => literal_length(rest),
                Some(true) => return,
                None => {
                    self.is_off = true;
                    return;
                }
            },
            [b'"', ..] => literal_length(rest),
            _ => return,
        };
        self.until = at + length;
    }
}

/// How long the literal is that begins here, with both its quotes; it ends with its line at the latest.
fn literal_length(rest: &[u8]) -> usize {
    let (quote, inside) = (rest[0], &rest[1..]);
    let mut end = 0;
    while inside.get(end).is_some_and(|byte| *byte != quote && *byte != b'\n') {
        end += if inside[end] == b'\\' { 2 } else { 1 };
    }
    end.min(inside.len()) + 2
}

/// Whether what ends here is a number that may go on: `1'000`, `0x1'f`. `None` if it is longer than any, and so would be the
/// look at each quote in it.
fn is_in_number(before: &[u8]) -> Option<bool> {
    let is_part = |byte: &u8| is_word_byte(*byte) || *byte == b'\'';
    let near = &before[before.len().saturating_sub(NUMBER_BYTES_MAX)..];
    match near.iter().rposition(|byte| !is_part(byte)) {
        Some(other) => Some(near.get(other + 1).is_some_and(u8::is_ascii_digit)),
        None if near.len() < NUMBER_BYTES_MAX => Some(near.first().is_some_and(u8::is_ascii_digit)),
        None => None,
    }
}

impl Scan {
    /// Whether the file may say by itself, with a path, which file its lines are from: it is then called what it is called
    /// here wherever it is compiled.
    pub(super) const fn names_lines(&self) -> bool {
        self.has_markers || self.has_line_of_path
    }

    /// Takes what follows a `#`, which is at `hash` and ends before `after`.
    fn directive(&mut self, bytes: &[u8], hash: usize, after: usize) {
        self.has_markers |= begins_with_number(&bytes[after..]) && may_begin_line(bytes, hash);
        self.has_line_of_path |= is_line_of_path(&bytes[after..]);
        match include(bytes, hash, after) {
            Some(Line::Names(include)) if !self.includes.contains(&include) => self.includes.push(include),
            Some(Line::Computes(computed)) => self.computed.push(computed),
            Some(Line::Unclear) => self.has_computed_include = true,
            Some(Line::Names(_)) | None => {}
        }
    }

    fn word(&mut self, bytes: &[u8], at: usize, length: usize) -> Result<(), Reason> {
        let word = &bytes[at..at + length];
        // Nearly all words begin with other letters.
        if !matches!(word[0], b'_' | b'o' | b'p' | b'd' | b'i') {
            return Ok(());
        }
        match word {
            b"__FILE__" | b"__BASE_FILE__" | b"__builtin_FILE" | b"__builtin_source_location" => {
                self.has_name_of_file = true;
            }
            b"__DATE__" | b"__TIME__" => self.has_date = true,
            b"__TIMESTAMP__" => return Err("`__TIMESTAMP__`".into()),
            b"once" => self.has_once = true,
            b"include_alias" => return Err("`#pragma include_alias`".into()),
            b"pch_preprocess" => return Err("precompiled header".into()),
            // In a macro it may come to stand in one.
            b"dependency"
                if bytes[..at].trim_ascii_end().ends_with(b"GCC") || is_in_macro(line_before(bytes, at)) =>
            {
                return Err("`#pragma GCC dependency`".into());
            }
            b"__has_embed" => return Err("`#embed`".into()),
            b"include" | b"_include" | b"include_next" | b"_include_next" => {
                self.has_last_piece |= is_in_macro(line_before(bytes, at));
            }
            b"__has_include" | b"__has_include_next" | b"__has_include__" | b"__has_include_next__" => {
                self.tests.mention(bytes, at, length, false)?;
            }
            [b'_', b'_', b'h', ..] => {
                let is_usual = is_usual_piece(word);
                self.has_first_piece |= is_usual;
                self.has_beginning |= !is_usual && is_first_piece(word);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether there is nothing before on the line but blanks and, maybe, the end of a comment.
pub(super) fn may_begin_line(bytes: &[u8], at: usize) -> bool {
    let before = line_before(bytes, at);
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'\x0b' | b'\0');
    // Some editors put a mark of the letters' order before all else.
    before.strip_prefix(b"\xef\xbb\xbf").unwrap_or(before).iter().all(is_blank) || before.ends_with(b"*/")
}

/// Whether `line` comes next, with more behind it than a number and the name of a file beside.
fn is_line_of_path(bytes: &[u8]) -> bool {
    let Some(operand) = blanks_skipped(bytes).strip_prefix(b"line") else { return false };
    if operand.first().is_some_and(|byte| is_word_byte(*byte)) {
        return false;
    }
    let line = operand.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let name = &line[line.iter().take_while(|byte| byte.is_ascii_digit()).count()..];
    let is_none = name.is_empty() && !line.is_empty();
    let is_beside = name.trim_ascii_start().strip_prefix(b"\"").is_some_and(|name| {
        let inside = name.strip_suffix(b"\"").unwrap_or(b"/");
        !inside.starts_with(b"/") && !inside.iter().any(|byte| matches!(byte, b'\\' | b'"'))
    });
    !is_none && !is_beside
}

/// Whether a number comes next, behind blanks and comments.
fn begins_with_number(bytes: &[u8]) -> bool {
    let mut rest = bytes.trim_ascii_start();
    while let Some(comment) = rest.strip_prefix(b"/*") {
        let Some(end) = position(comment, b"*/") else { return false };
        rest = comment[end + 2..].trim_ascii_start();
    }
    rest.first().is_some_and(u8::is_ascii_digit)
}

/// What is before a word on its line.
pub(super) fn line_before(bytes: &[u8], at: usize) -> &[u8] {
    let begin = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1);
    bytes[begin..at].trim_ascii_end()
}

/// Whether what comes next on a line is part of a macro's definition or use in a condition: neither a literal, nor a
/// comment, nor the name of a directive.
fn is_in_macro(before: &[u8]) -> bool {
    let Some(directive) = before.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start) else {
        return false;
    };
    let is_about_macros =
        [b"define".as_slice(), b"if", b"elif"].iter().any(|word| directive.starts_with(word));
    let is_in_literal = before.split(|byte| *byte == b'"').count() % 2 == 0;
    is_about_macros && !is_in_literal && !is_in_comment(before)
}

/// Whether what is before on the line surely makes the rest of it a comment: it has `//` or `/*` with no quotes
/// around that could make them part of a literal.
pub(super) fn is_in_comment(before: &[u8]) -> bool {
    let has_quotes = before.iter().any(|byte| matches!(byte, b'"' | b'\''));
    let last = |mark: &[u8]| before.windows(2).rposition(|pair| pair == mark);
    let is_open = last(b"/*") > last(b"*/");
    !has_quotes && (last(b"//").is_some() || is_open)
}

pub(super) fn blanks_skipped(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[blanks..]
}

/// The bytes with continued lines joined, as the compiler sees them.
pub(super) fn unspliced(bytes: &[u8]) -> Cow<'_, [u8]> {
    let is_splice = |at: usize| {
        let blanks = bytes[at + 1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        (bytes.get(at + 1 + blanks) == Some(&b'\n')).then_some(at + 2 + blanks)
    };
    let mut joined: Option<Vec<u8>> = None;
    let mut taken = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        match is_splice(at) {
            Some(after) => {
                joined.get_or_insert_default().extend_from_slice(&bytes[taken..at]);
                (taken, at) = (after, after);
            }
            None => at += 1,
        }
    }
    match joined {
        Some(mut joined) => {
            joined.extend_from_slice(&bytes[taken..]);
            joined.into()
        }
        None => bytes.into(),
    }
}

pub(super) const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        scan(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn dates_are_seen_as_whole_words_and_over_continued_lines() {
        assert!(scan(b"x = __TIME__;").unwrap().has_date);
        assert!(scan(b"x = __TI\\\nME__;").unwrap().has_date);
        assert!(scan(b"x = __DA\\ \r\nTE__;").unwrap().has_date);
        assert!(!scan(b"x = MY__TIME__X;").unwrap().has_date);
        assert_eq!(refusal("__TIMESTAMP__"), "`__TIMESTAMP__`");
    }

    #[test]
    fn a_quote_in_a_number_opens_nothing_and_any_number_of_them_is_read_in_time() {
        let makes_date = |text: &str| scan(text.as_bytes()).unwrap().pieces.make_date();
        assert!(makes_date("int a = 1'000'000; x = P(__TI, ME__);"));
        assert!(makes_date("case'\"': x = P(__TI, ME__);"));
        assert!(!makes_date("int a = 1'000'000; s = \"__TI ME__\";"));
        // Whatever follows what is no number counts.
        assert!(makes_date(&format!("{}\n\"__TI ME__\"", "'".repeat(1 << 20))));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(refusal("# embed \"x\""), "`#embed`");
        assert_eq!(refusal("#pragma GCC dependency \"x\""), "`#pragma GCC dependency`");
        assert_eq!(refusal("??/"), "trigraph");
    }

    #[test]
    fn pieces_of_a_test_are_seen_where_they_could_be_pasted_together() {
        let pieces =
            |text: &[u8]| scan(text).map(|scan| (scan.has_first_piece, scan.has_last_piece)).unwrap();
        assert_eq!(pieces(b"#define HAS(x) __has_##include(x)\n"), (true, true));
        assert_eq!(pieces(b"#if PASTE(__has, _include)(<x>)\n"), (true, true));
        assert_eq!(
            pieces(b"# include <x>\n#define X \"include\"\n#endif // include\nint include;\n"),
            (false, false)
        );
    }

    #[test]
    fn lines_that_name_their_file_are_seen() {
        for text in ["# 1 \"x.h\" 1\n", "#/* a */ /**/3 \"x\"\n", "%: 1 \"x\"\n", "??=1 \"x\"\n"] {
            assert!(scan(text.as_bytes()).unwrap().has_markers, "{text}");
        }
        assert!(scan(b"/* a\n b */ # 3 \"x\"\n").unwrap().has_markers);
        for text in ["#line 3 \"x\"\n#if 1\nx = a %:b;\n", "// see #3\n"] {
            assert!(!scan(text.as_bytes()).unwrap().has_markers, "{text}");
        }
    }

    #[test]
    fn lines_that_are_said_to_be_of_a_path_are_seen() {
        let is_so = |text: &str| scan(text.as_bytes()).unwrap().names_lines();
        for text in [
            "#line 5 \"/x/gen.y\"\n",
            "# line 5 NAME\n",
            "#line LINE\n",
            "#line 5 \"a\\057b\"\n",
            "%:line 1 \"/x\"\n",
        ] {
            assert!(is_so(text), "{text}");
        }
        for text in ["#line 5\n", "#line 5 \"gen.y\"\n", "#  line 7  \"../gen.y\" \r\n", "#lines /x\n"] {
            assert!(!is_so(text), "{text}");
        }
    }

    #[test]
    fn files_that_count_by_identity_are_seen() {
        assert!(scan(b"#pragma once\n").unwrap().has_once);
        assert!(scan(b"# import <x.h>\n").unwrap().has_once);
        assert!(!scan(b"int x;\n").unwrap().has_once);
    }
}
