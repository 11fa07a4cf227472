//! Other names for `__has_include`, which many portable headers give it, and the tests made under them.

use std::collections::BTreeSet;

use super::scan::{
    COMPUTED, Tested, blanks_skipped, is_about_itself, is_in_comment, is_word_byte, line_before,
    may_be_directive, operand, unspliced,
};
use crate::reason::Reason;

/// The name that a definition gives to `__has_include`: `#define NAME __has_include` and
/// `#define NAME(x) __has_include(x)`, with what is before and after that word; anything else is none.
pub(super) fn defined(before: &[u8], after: &[u8]) -> Option<String> {
    let directive = before.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
    let definition = directive.strip_prefix(b"define")?.trim_ascii();
    let (name, rest) = definition.split_at(word_length(definition));
    let after = if rest.is_empty() {
        after
    } else {
        let parameter = rest.strip_prefix(b"(")?.strip_suffix(b")")?.trim_ascii();
        let argument = blanks_skipped(after.strip_prefix(b"(")?);
        let argument =
            argument.strip_prefix(parameter).filter(|_| word_length(parameter) == parameter.len())?;
        blanks_skipped(argument).strip_prefix(b")")?
    };
    let rest = blanks_skipped(after);
    let ends =
        rest.is_empty() || [b"\n".as_slice(), b"\r", b"/*", b"//"].iter().any(|end| rest.starts_with(end));
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    ends.then(|| name.to_owned())
}

/// The headers that a file tests for under one of `aliases`.
///
/// # Errors
/// The reason to pass through, if an alias is used in any other way than with a plain name of a header.
pub(super) fn tested(bytes: &[u8], aliases: &BTreeSet<String>) -> Result<BTreeSet<Tested>, Reason> {
    let bytes = unspliced(bytes);
    let mut tested = BTreeSet::new();
    for (at, word) in words(&bytes) {
        if !aliases.iter().any(|alias| alias.as_bytes() == word) {
            continue;
        }
        let before = line_before(&bytes, at);
        let after = blanks_skipped(&bytes[at + word.len()..]);
        if !may_be_directive(before) || is_about_itself(before) || is_in_comment(before) {
            continue;
        }
        tested.insert(operand(after)?);
    }
    Ok(tested)
}

/// Refuses aliases that macros could paste together: both pieces of one are somewhere in the files.
///
/// # Errors
/// The reason to pass through.
pub(super) fn check_pieces<'a>(
    files: impl Iterator<Item = &'a [u8]>,
    aliases: &BTreeSet<String>,
) -> Result<(), Reason> {
    let (mut first, mut last) = (BTreeSet::new(), BTreeSet::new());
    for bytes in files {
        let bytes = unspliced(bytes);
        for (_, word) in words(&bytes) {
            for alias in aliases.iter().filter(|alias| alias.len() > word.len()) {
                if alias.as_bytes().starts_with(word) {
                    first.insert((alias, word.len()));
                }
                if alias.as_bytes().ends_with(word) {
                    last.insert((alias, alias.len() - word.len()));
                }
            }
        }
    }
    if first.is_disjoint(&last) { Ok(()) } else { Err(COMPUTED.into()) }
}

/// Every word, and where it begins.
fn words(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += bytes[at..].iter().position(|byte| is_word_byte(*byte))?;
        let begin = at;
        at += word_length(&bytes[begin..]);
        Some((begin, &bytes[begin..at]))
    })
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn aliases(text: &str) -> Vec<String> {
        scan(text.as_bytes()).unwrap().aliases.into_iter().collect()
    }

    #[test]
    fn a_definition_gives_another_name() {
        assert_eq!(aliases("#  define HAS __has_include\n"), ["HAS"]);
        assert_eq!(aliases("#define HAS __has_include /* if there is one */\n"), ["HAS"]);
        assert_eq!(aliases("# define HAS(x) __has_include(x)\n"), ["HAS"]);
        assert_eq!(aliases("#define HAS( x ) __has_include ( x ) // so\n"), ["HAS"]);
        assert_eq!(aliases("#define HAS \\\n __has_include"), ["HAS"]);
    }

    #[test]
    fn tests_under_another_name_are_listed() {
        let names = BTreeSet::from(["HAS".to_owned()]);
        let text = b"#if defined(HAS) && HAS(<a.h>) // HAS x\n#  elif HAS ( \"b.h\" )\nint HAS;\n#undef HAS\n#define HAS(x) 0\n";
        let found: Vec<_> = tested(text, &names).unwrap().into_iter().collect();
        assert_eq!(found, [(false, "a.h".to_owned()), (true, "b.h".to_owned())]);
    }

    #[test]
    fn other_uses_of_another_name_are_refused() {
        let names = BTreeSet::from(["HAS".to_owned()]);
        for text in
            ["#if HAS(HEADER)\n", "#define MORE HAS\n", "#define MORE(x) HAS(x)\n", "#if HAS(</a.h>)\n"]
        {
            assert!(tested(text.as_bytes(), &names).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_could_be_pasted_together_are_refused() {
        let names = BTreeSet::from(["MY_HAS".to_owned()]);
        let check = |text: &'static [u8]| check_pieces([text].into_iter(), &names);
        assert!(check(b"#if PASTE(MY_, HAS)(<x>)\n").is_err());
        assert!(check(b"#define MY_HAS __has_include\nint HAS, MY, AS;\n").is_ok());
    }
}
