//! Reads `#include` lines in a file as it was written: all of them, whether the preprocessor comes to them or not.

use super::computed::Computed;
use super::literal::position;
use super::scan::may_begin_line;
use super::text::Form;

/// A header that a line names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Include {
    /// How it is looked for.
    pub form: Form,
    /// What is between the quotes or brackets.
    pub name: String,
}

/// What an `#include` line says.
pub(super) enum Line {
    /// The header.
    Names(Include),
    /// A macro that stands for it.
    Computes(Computed),
    /// Something else.
    Unclear,
}

/// Reads what follows a `#`, if that is an `#include` at the beginning of a line. `hash` is where the `#` is, `at` what
/// follows it.
pub(super) fn include(bytes: &[u8], hash: usize, at: usize) -> Option<Line> {
    let rest = skipped(&bytes[at..]);
    let word = ["include_next", "include", "import"].iter().find(|word| rest.starts_with(word.as_bytes()))?;
    let operand = &rest[word.len()..];
    if !may_begin_line(bytes, hash) || operand.first().is_some_and(|byte| super::scan::is_word_byte(*byte)) {
        return None;
    }
    let operand = skipped(operand);
    let form = match (*word, operand.first()) {
        ("include_next", _) => Form::Next,
        (_, Some(b'"')) => Form::Quoted,
        _ => Form::Angled,
    };
    let close = match operand.first() {
        Some(b'"') => b'"',
        Some(b'<') => b'>',
        // With nothing behind it that may be a macro, an obeyed line is an error: this is a comment's, or a dead one.
        None | Some(b'\n' | b'\'' | b'.' | b',' | b';' | b':' | b'(' | b')' | b'-' | b'=') => return None,
        Some(byte) if byte.is_ascii_digit() => return None,
        Some(_) => {
            let form = if form == Form::Next { form } else { Form::Quoted };
            return Some(Computed::read(operand, form).map_or(Line::Unclear, Line::Computes));
        }
    };
    let line = operand.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let end = line[1..].iter().position(|byte| *byte == close);
    let name = end.and_then(|end| String::from_utf8(line[1..=end].to_vec()).ok());
    Some(name.map_or(Line::Unclear, |name| Line::Names(Include { form, name })))
}

/// The bytes behind blanks and comments.
fn skipped(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    loop {
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\x0b' | b'\x0c' | b'\r'));
        rest = &rest[blanks.count()..];
        let Some(comment) = rest.strip_prefix(b"/*") else { return rest };
        let Some(end) = position(comment, b"*/") else { return rest };
        rest = &comment[end + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn found(text: &str) -> Vec<(Form, String)> {
        let scan = scan(text.as_bytes()).unwrap();
        assert!(!scan.has_computed_include, "{text}");
        assert!(scan.computed.is_empty(), "{text}");
        scan.includes.into_iter().map(|include| (include.form, include.name)).collect()
    }

    #[test]
    fn every_spelling_of_an_include_is_seen() {
        for text in [
            "#include <a/b.h>\n",
            "int x;\n  # include <a/b.h> // c\n",
            "/* c */ #/**/include/**/<a/b.h>\n",
            "/* c\n c */ %:include <a/b.h>",
            "??=  include <a/b.h>\n",
            "#\\\ninc\\\nlude <a\\\n/b.h>\n",
            "\u{feff}#include <a/b.h>\r\n",
            "\x0b#\x0binclude\x0c<a/b.h>\n",
        ] {
            assert_eq!(found(text), [(Form::Angled, "a/b.h".to_owned())], "{text:?}");
        }
        assert_eq!(
            found("#import \"x\"\n#include_next <y>\n"),
            [(Form::Quoted, "x".to_owned()), (Form::Next, "y".to_owned())]
        );
        assert_eq!(found("x = a #include <b>\n #included <a>\n"), []);
        assert_eq!(found("/* Of two\n   #include's the first,\n   #include.\n   #include\n*/\n"), []);
    }

    #[test]
    fn an_include_that_a_macro_spells_is_seen_as_one() {
        for text in ["# include H(x)\n", "#include \\u0041\n", "#include __FILE__\n", "#include <a\n"] {
            assert!(scan(text.as_bytes()).unwrap().has_computed_include, "{text}");
        }
        for (text, form) in [("#include HEADER\n", Form::Quoted), ("#include_next HEADER\n", Form::Next)] {
            let scan = scan(text.as_bytes()).unwrap();
            assert_eq!(scan.computed, [Computed { form, name: "HEADER".to_owned() }], "{text}");
            assert!(!scan.has_computed_include && scan.includes.is_empty(), "{text}");
        }
    }
}
