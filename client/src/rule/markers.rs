//! The names of files in the line markers of preprocessed text.

use std::collections::BTreeSet;

/// The files that line markers name, as spelled; `None` if a marker is not understood.
pub(super) fn files_in_markers(text: &[u8]) -> Option<Vec<String>> {
    let mut files = BTreeSet::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"# ").or_else(|| line.strip_prefix(b"#line ")) else { continue };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(rest) = rest[digits..].strip_prefix(b" \"").filter(|_| digits > 0) else { continue };
        let name = quoted(rest)?;
        // `<built-in>` and the like are no files; with slashes at its end, a name is the working folder's.
        let is_none =
            name.is_empty() || name.ends_with('/') || (name.starts_with('<') && name.ends_with('>'));
        if !is_none {
            files.insert(name);
        }
    }
    Some(files.into_iter().collect())
}

/// What stands up to the closing quote.
fn quoted(rest: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => return String::from_utf8(name).ok(),
            b'\\' => name.push(*bytes.next().filter(|byte| b"\\\"".contains(byte))?),
            byte => name.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_name_files() {
        let text = b"# 1 \"a.cc\"\n# 1 \"<built-in>\" 1\n# 1 \"/home//\"\n#pragma x \"y\"\n#line 3 \"b\\\"c.h\"\nint x; # 1 \"no\"\n";
        assert_eq!(files_in_markers(text).unwrap(), ["a.cc", "b\"c.h"]);
        assert_eq!(files_in_markers(b"# 1 \"a\\x41\"\n"), None);
    }
}
