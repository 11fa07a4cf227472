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
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let begin = call.iter().rposition(|byte| !is_of_name(byte)).map_or(0, |at| at + 1);
    let (before, name) = call.split_at(begin);
    let begins = before.trim_ascii_end().last().is_none_or(|byte| matches!(byte, b'{' | b'}' | b';'));
    begins && !name.is_empty() && after.trim_ascii_start().starts_with(b";") && never_returns(text, name)
}

/// Whether a function of this name is declared as one that never returns.
fn never_returns(text: &[u8], name: &[u8]) -> bool {
    let call = [b" ", name, b"("].concat();
    let mut rest = text;
    while let Some(at) = position(rest, MARK) {
        rest = &rest[at + MARK.len()..];
        let declaration = &rest[..rest.len().min(DECLARATION_BYTES_MAX)];
        let end =
            declaration.iter().position(|byte| matches!(byte, b';' | b'{')).unwrap_or(declaration.len());
        if position(&declaration[..end], &call).is_some() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_by_itself_in_a_call_that_never_returns_is_nobodys() {
        let declared = "[[noreturn]] __attribute__((noinline)) void fail(const char *reason) {\n";
        for (statement, expected) in [
            ("; fail(@);", true),
            ("{\n  fail( @ ) ;", true),
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
        assert!(!ends_over(b"void fail(const char *); ; fail(\"\");", 31..33));
    }
}
