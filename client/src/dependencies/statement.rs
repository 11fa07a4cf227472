//! Statements that do nothing with a text but end over it: `fail("unreachable: " __FILE__);`.

use super::literal::position;

/// How a function is marked that never returns.
const MARK: &[u8] = b"[[noreturn]]";

/// Most bytes of a declaration that are read.
const DECLARATION_BYTES_MAX: usize = 400;

/// Whether a literal is all that a statement hands to a function that never returns.
///
/// Nothing that is computed while compiling can go on from there, so no type, size or number comes of such a text; what the
/// function does with it is in the object, or is not.
pub(super) fn ends_over(text: &[u8], literal: std::ops::Range<usize>) -> bool {
    let before = text[..literal.start].trim_ascii_end();
    let after = text[literal.end..].trim_ascii_start();
    let Some(call) = before.strip_suffix(b"(") else { return false };
    let Some(after) = after.strip_prefix(b")") else { return false };
    let begin = call.iter().rposition(|byte| !is_of_name(*byte)).map_or(0, |at| at + 1);
    let (before, name) = call.split_at(begin);
    let begins = before.trim_ascii_end().last().is_none_or(|byte| matches!(byte, b'{' | b'}' | b';'));
    begins && !name.is_empty() && after.trim_ascii_start().starts_with(b";") && never_returns(text, name)
}

/// Whether all functions of this name are declared as ones that never return and are not put in where they are called; none is
/// a template, which would have a text's length in its type.
fn never_returns(text: &[u8], name: &[u8]) -> bool {
    let mut from = 0;
    let mut is_declared = false;
    while let Some(at) = position(&text[from..], name).map(|at| from + at) {
        from = at + name.len();
        let (before, after) = (&text[..at], text[from..].trim_ascii_start());
        if before.last().copied().is_some_and(is_of_name) || !after.starts_with(b"(") {
            continue;
        }
        match kind(without_markers(before)) {
            Kind::Use => {}
            Kind::Declaration if is_of_one_that_ends(before) => is_declared = true,
            Kind::Declaration => return false,
        }
    }
    is_declared
}

/// A text without the lines at its end that say which file the next is from.
fn without_markers(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_end();
        let line = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if !text[line..].trim_ascii_start().starts_with(b"#") {
            return text;
        }
        text = &text[..line];
    }
}

/// What a name with a parenthesis behind it is, by what stands before it.
enum Kind {
    Use,
    Declaration,
}

fn kind(before: &[u8]) -> Kind {
    let word = before.iter().rposition(|byte| !is_of_name(*byte)).map_or(before, |at| &before[at + 1..]);
    match word {
        b"return" | b"else" | b"throw" | b"do" | b"co_return" => Kind::Use,
        b"" if !before.last().is_some_and(|byte| matches!(byte, b'>' | b'*' | b'&')) => Kind::Use,
        _ => Kind::Declaration,
    }
}

/// Whether a declaration is marked, from where the last statement ended.
fn is_of_one_that_ends(before: &[u8]) -> bool {
    let least = before.len().saturating_sub(DECLARATION_BYTES_MAX);
    let ended = before[least..].iter().rposition(|byte| matches!(byte, b';' | b'{' | b'}'));
    let declaration = &before[least + ended.unwrap_or_default()..];
    let has = |word: &[u8]| position(declaration, word).is_some();
    has(MARK) && has(b"noinline") && !has(b"template")
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_by_itself_in_a_call_that_never_returns_is_nobodys() {
        let declared = "; [[noreturn]] __attribute__((noinline)) void fail(const char *reason) {\n";
        for (statement, expected) in [
            ("; fail(@);", true),
            ("{\n  fail( @ ) ;", true),
            ("; if (x)\n# 7 y.h 3 4\n fail(0); fail(@);", true),
            ("; if (x) fail(@);", false),
            ("; int n = fail(@);", false),
            ("; return fail(@);", false),
            ("; a.fail(@);", false),
            ("; fail(@, 1);", false),
            ("; fail(@[3]);", false),
            ("; fail(sizeof(@));", false),
            ("; other(@);", false),
            ("; Fail fail(@);", false),
        ] {
            let text = format!("{declared}{statement}").replace('@', "\"/x/y.h\"");
            let begin = text.find('"').unwrap();
            assert_eq!(ends_over(text.as_bytes(), begin..begin + 8), expected, "{statement}");
        }
        for declared in [
            "void fail(const char *);",
            "[[noreturn]] inline void fail(const char *);",
            "[[noreturn]] [[gnu::noinline]] void fail(const char *); template <int N> int fail(const char (&)[N]);",
            "[[noreturn]] [[gnu::noinline]] void fail(const char *); int *fail(const char *, int = 0);",
        ] {
            let text = format!("; {declared} fail(\"\");");
            assert!(!ends_over(text.as_bytes(), text.len() - 4..text.len() - 2), "{declared}");
        }
    }
}
