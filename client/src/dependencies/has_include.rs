//! Tests for headers, `__has_include`: what they ask for has to be in the action if it is there.
//!
//! They are read where they are written, also through macros that stand for `__has_include` (`#define HAS(x)
//! __has_include(x)`), as many libraries have one. What is computed in other ways is refused.

use std::collections::BTreeSet;

use super::literal::position;
use super::scan::{blanks_skipped, is_in_comment, is_word_byte, line_before, unspliced};
use crate::reason::Reason;

/// Most macros that stand for other macros that stand for `__has_include`.
const ALIAS_DEPTH_MAX: usize = 4;

/// Words that gcc defines as macros in its own dialects of C: through a macro, `<linux/x.h>` is another header.
const PREDEFINED: [&str; 9] = ["linux", "unix", "i386", "mips", "sparc", "sun", "arm", "vax", "m68k"];

/// The words that test.
const OWN: [&str; 4] = ["__has_include", "__has_include_next", "__has_include__", "__has_include_next__"];

/// Fewest letters of a first piece: shorter ones begin other words.
const FIRST_PIECE_MIN: usize = 3;

const COMPUTED: Reason = Reason::new("`__has_include` that is computed");

/// A header as a test names it: whether between quotes, and what is between.
pub(super) type Tested = (bool, String);

/// What a file tests for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tests {
    /// Named to `__has_include` itself.
    pub direct: BTreeSet<Tested>,
    /// Named to a macro that stands for it.
    pub through_macros: BTreeSet<Tested>,
    /// Such macros.
    pub aliases: BTreeSet<String>,
}

impl Tests {
    /// Takes a mention of `__has_include`, or of a macro that stands for it: its definition, another name for it, a
    /// test.
    ///
    /// # Errors
    /// The reason to pass through, if it is none of these.
    pub(super) fn mention(
        &mut self,
        bytes: &[u8],
        at: usize,
        length: usize,
        is_alias: bool,
    ) -> Result<(), Reason> {
        let before = line_before(bytes, at);
        let after = blanks_skipped(&bytes[at + length..]);
        if !may_be_directive(before) || is_about_itself(before) || is_message(before) {
            return Ok(());
        }
        if let Some(alias) = alias(before, after) {
            self.aliases.insert(alias);
            return Ok(());
        }
        let Some((is_quoted, name)) = operand(after) else {
            return if is_in_comment(before) { Ok(()) } else { Err(COMPUTED) };
        };
        if name.starts_with('/') {
            return Err("`__has_include` of an absolute path".into());
        }
        let tested = if is_alias { &mut self.through_macros } else { &mut self.direct };
        tested.insert((is_quoted, name));
        Ok(())
    }
}

/// All headers that files test for, given what each tests for by itself.
///
/// # Errors
/// The reason to pass through.
pub(super) fn all_tested(
    files: &[(&[u8], &Tests)],
    is_defined: impl Fn(&str) -> bool,
) -> Result<BTreeSet<Tested>, Reason> {
    let mut tested: BTreeSet<Tested> = files.iter().flat_map(|(_, tests)| tests.direct.clone()).collect();
    let mut aliases: BTreeSet<String> = files.iter().flat_map(|(_, tests)| tests.aliases.clone()).collect();
    let mut known = BTreeSet::new();
    for _ in 0..ALIAS_DEPTH_MAX {
        if aliases.is_subset(&known) {
            return Ok(tested);
        }
        known.clone_from(&aliases);
        check_pieces(files, &known, |_| false)?;
        for (bytes, _) in files {
            let tests = through_aliases(bytes, &known)?;
            // Through a macro, words between brackets are replaced if they are macros themselves.
            let is_replaced = |(is_quoted, name): &Tested| {
                !is_quoted && words(name).any(|word| PREDEFINED.contains(&word) || is_defined(word))
            };
            if tests.through_macros.iter().any(is_replaced) {
                return Err(COMPUTED);
            }
            tested.extend(tests.through_macros);
            aliases.extend(tests.aliases);
        }
    }
    Err(COMPUTED)
}

/// Refuses files in which `__has_include` itself could be pasted of two pieces.
///
/// # Errors
/// The reason to pass through.
pub(super) fn check_own_pieces(files: &[(&[u8], &Tests)]) -> Result<(), Reason> {
    check_pieces(files, &OWN.iter().map(|word| (*word).to_owned()).collect(), |word| {
        is_usual_piece(word) || OWN.iter().any(|own| own.as_bytes() == word)
    })
}

/// Whether a word is a piece by which libraries name things of their own (`__has_##x`): that counts where `include` stands
/// in a macro alone, not in each line that includes.
pub(super) fn is_usual_piece(word: &[u8]) -> bool {
    matches!(word, b"__has" | b"__has_")
}

/// Whether a word may be the first piece of `__has_include` and its kin.
pub(super) fn is_first_piece(word: &[u8]) -> bool {
    word.len() >= FIRST_PIECE_MIN
        && OWN.iter().any(|own| own.as_bytes().starts_with(word))
        && !OWN.iter().any(|own| own.as_bytes() == word)
}

/// Refuses macros that could be named by pasting: both pieces of such a name are somewhere in the files.
fn check_pieces(
    files: &[(&[u8], &Tests)],
    aliases: &BTreeSet<String>,
    is_left_out: impl Fn(&[u8]) -> bool,
) -> Result<(), Reason> {
    let (mut first, mut last) = (BTreeSet::new(), BTreeSet::new());
    for (bytes, _) in files {
        let bytes = unspliced(bytes);
        for word in bytes.split(|byte| !is_word_byte(*byte)).filter(|word| !word.is_empty()) {
            for alias in aliases.iter().filter(|alias| alias.len() > word.len()) {
                if alias.as_bytes().starts_with(word) && !is_left_out(word) {
                    first.insert((alias, word.len()));
                }
                if alias.as_bytes().ends_with(word) {
                    last.insert((alias, alias.len() - word.len()));
                }
            }
        }
    }
    if first.is_disjoint(&last) { Ok(()) } else { Err(COMPUTED) }
}

/// Whether a file defines a macro of that name, or may.
pub(super) fn defines(bytes: &[u8], name: &str) -> bool {
    let mut rest = bytes;
    while let Some(at) = position(rest, b"define") {
        rest = &rest[at + b"define".len()..];
        let named = rest.trim_ascii_start();
        let is_it = named
            .strip_prefix(name.as_bytes())
            .is_some_and(|after| !after.first().is_some_and(|b| is_word_byte(*b)));
        if is_it {
            return true;
        }
    }
    false
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// What a file tests for through macros.
fn through_aliases(bytes: &[u8], aliases: &BTreeSet<String>) -> Result<Tests, Reason> {
    let mut tests = Tests::default();
    if !aliases.iter().any(|alias| position(bytes, alias.as_bytes()).is_some()) {
        return Ok(tests);
    }
    let bytes = unspliced(bytes);
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().position(|byte| !is_word_byte(*byte)).unwrap_or(bytes.len() - at);
        if std::str::from_utf8(&bytes[at..at + length]).is_ok_and(|word| aliases.contains(word)) {
            tests.mention(&bytes, at, length, true)?;
        }
        at += length.max(1);
    }
    Ok(tests)
}

/// The macro that is being defined as nothing but what comes next: `#define HAS`, or `#define HAS(x)` with `(x)` after.
fn alias(before: &[u8], after: &[u8]) -> Option<String> {
    let directive = before.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
    let definition = std::str::from_utf8(directive.strip_prefix(b"define")?).ok()?.trim();
    let (name, parameter) = match definition.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')')?.trim())),
        None => (definition, None),
    };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_word_byte);
    let line = after.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let rest = match parameter {
        None => line,
        Some(parameter) => {
            let passed = blanks_skipped(line.strip_prefix(b"(")?);
            blanks_skipped(blanks_skipped(passed.strip_prefix(parameter.as_bytes())?).strip_prefix(b")")?)
        }
    };
    let ends = [b"".as_slice(), b"//", b"/*"]
        .iter()
        .any(|end| rest.trim_ascii().starts_with(end) && (!end.is_empty() || rest.trim_ascii().is_empty()));
    (is_word(name) && parameter.is_none_or(is_word) && ends).then(|| name.to_owned())
}

/// The header that is named in the parentheses that come next.
fn operand(after: &[u8]) -> Option<Tested> {
    let operand = blanks_skipped(after.strip_prefix(b"(")?);
    let close = match operand.first()? {
        b'<' => b'>',
        b'"' => b'"',
        _ => return None,
    };
    let end = operand[1..].iter().position(|byte| *byte == close || *byte == b'\n')? + 1;
    let name = std::str::from_utf8(&operand[1..end]).ok()?;
    (operand[end] == close).then(|| (close == b'"', name.to_owned()))
}

/// Whether a line that begins so may be one for the preprocessor: elsewhere a test means nothing. The end of a comment
/// may be the middle of such a line.
fn may_be_directive(before: &[u8]) -> bool {
    [b"#".as_slice(), b"%:", b"??=", b"*/"].iter().any(|mark| position(before, mark).is_some())
}

/// Whether the word that comes next is asked after, or defined, rather than used.
fn is_about_itself(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"(").map_or(before, <[u8]>::trim_ascii_end);
    [b"ifdef".as_slice(), b"ifndef", b"undef", b"define", b"defined"]
        .iter()
        .any(|word| before.ends_with(word))
}

/// Whether a line that begins so is a message and nothing else: what `#error` or `#warning` says.
fn is_message(before: &[u8]) -> bool {
    let directive = before.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
    let text = directive.and_then(|words| {
        [b"error".as_slice(), b"warning"].iter().find_map(|name| words.strip_prefix(*name))
    });
    // Where a comment ends, what looks like the directive may be in it, and another may begin.
    text.is_some_and(|text| !text.first().is_some_and(|byte| is_word_byte(*byte)))
        && position(before, b"*/").is_none()
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn tested(text: &str) -> Result<Vec<Tested>, String> {
        let scan = scan(text.as_bytes()).map_err(|reason| reason.to_string())?;
        let files = [(text.as_bytes(), &scan.tests)];
        let all = all_tested(&files, |name| defines(text.as_bytes(), name));
        all.map(|tested| tested.into_iter().collect()).map_err(|reason| reason.to_string())
    }

    fn angled(name: &str) -> Tested {
        (false, name.to_owned())
    }

    #[test]
    fn headers_that_are_tested_for_are_listed() {
        let text = "#ifdef __has_include\n# if defined(__has_include) && __has_include(<a/b.h>) || __has_include ( \"c.h\" )\n\
            #endif\n/* a\n   __has_include argument (x) */\n#ifndef __has_include\n#define __has_include(x) 0\n\
            #endif /* __has_include */\n// see __has_include\n";
        assert_eq!(tested(text).unwrap(), [angled("a/b.h"), (true, "c.h".to_owned())]);
    }

    #[test]
    fn tests_through_macros_are_listed() {
        let check = |text: &str| assert_eq!(tested(text).unwrap(), [angled("a.h")], "{text}");
        check("#define HAS __has_include\n#if HAS(<a.h>)\n");
        check("#  define HAS( x )  __has_include( x ) // why\n#if defined(HAS) && HAS(<a.h>)\n");
        check(
            "#define ONE(x) __has_include(x)\n#define TWO(y) ONE(y)\n#if TWO(<a.h>)\n#else\n#define TWO(y) 0\n#endif\n",
        );
        check("/* HAS(x) is\n * HAS of a thing */\n#define HAS __has_include /* so */\n#if HAS(<a.h>)\n");
    }

    #[test]
    fn messages_test_for_nothing() {
        let text = "#  error \"the __has_include check should move to <a.h>\"\n# warning __has_include(A)\n";
        assert_eq!(tested(text).unwrap(), []);
    }

    #[test]
    fn tests_that_are_not_plain_are_refused() {
        for text in [
            "#if __has_include(HEADER)",
            "#define HAS(x) __has_include(x) && 1\n",
            "#define HAS(x) __has_include(PRE x)\n",
            "#define HAS __has_include\n#if HAS(HEADER)\n",
            "#define HAS(x) __has_include(x)\n#define name other\n#if HAS(<a/name.h>)\n",
            "#define HAS(x) __has_include(x)\n#if HAS(<linux/a.h>)\n",
            "#if X /* a\n b */ && __has_include(HEADER)\n",
            "#if CHECK(__has_include, <a.h>)\n",
            "/*\n#error */ #if __has_include(HEADER)\n",
            "#define MY_HAS __has_include\n#if PASTE(MY_, HAS)(<a.h>)\n",
        ] {
            assert_eq!(tested(text).unwrap_err(), COMPUTED.as_str(), "{text}");
        }
        assert_eq!(tested("#if __has_include(</etc/x>)").unwrap_err(), "`__has_include` of an absolute path");
    }
}
