//! Response files as `cl` and `clang-cl` read them: `@file` stands for the words in it.

use std::path::Path;

use crate::reason::Reason;

/// Most bytes of a response file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A word of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says.
    pub text: String,
    /// Whether a line of a file ends with it: a value apart from its flag is not looked for in the next line.
    pub ends_line: bool,
}

/// Replaces each `@file` by the words in the file.
///
/// # Errors
/// The reason to pass through: a file can't be read, or names another one, which versions look for in different folders.
pub(super) fn expand(words: &[String], folder: &Path) -> Result<Vec<Word>, Reason> {
    let mut all = Vec::with_capacity(words.len());
    for word in words {
        let Some(name) = word.strip_prefix('@') else {
            all.push(Word { text: word.clone(), ends_line: false });
            continue;
        };
        let inside = split(&read(&folder.join(name))?)?;
        if inside.iter().any(|word| word.text.starts_with('@')) {
            return Err("response file in a response file".into());
        }
        all.extend(inside);
        if let Some(last) = all.last_mut() {
            last.ends_line = true;
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Result<String, Reason> {
    let unreadable = Reason::new("response file can't be read");
    let metadata = path.metadata().map_err(|_| unreadable.clone())?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(unreadable);
    }
    let bytes = std::fs::read(path).map_err(|_| unreadable.clone())?;
    decoded(&bytes).ok_or(unreadable)
}

/// The text of a file: UTF-16 if it begins with the mark of that, in either order of bytes, and else UTF-8.
fn decoded(bytes: &[u8]) -> Option<String> {
    let pairs = |order: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| order(*pair)).collect();
        rest.is_empty().then(|| String::from_utf16(&units).ok())?
    };
    match bytes {
        [0xff, 0xfe, ..] => pairs(u16::from_le_bytes),
        [0xfe, 0xff, ..] => pairs(u16::from_be_bytes),
        _ => {
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            String::from_utf8(text.to_vec()).ok()
        }
    }
}

/// Splits text into words as Windows does: blanks part and double quotes keep together. Before a double quote, two
/// backslashes stand for one, and one makes the quote a letter; elsewhere a backslash is a letter. In quotes, two quotes
/// are a letter.
///
/// # Errors
/// If it ends within quotes, or holds a zero.
fn split(text: &str) -> Result<Vec<Word>, Reason> {
    let unusual = Reason::new("response file of an unusual shape");
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\0' => return Err(unusual),
            '\\' => {
                let mut count = 1;
                while letters.next_if_eq(&'\\').is_some() {
                    count += 1;
                }
                let is_before_quote = letters.peek() == Some(&'"');
                let kept = if is_before_quote { count / 2 } else { count };
                word.get_or_insert_default().extend(std::iter::repeat_n('\\', kept));
                if is_before_quote && count % 2 == 1 {
                    word.get_or_insert_default().extend(letters.next());
                }
            }
            '"' if is_quoted && letters.next_if_eq(&'"').is_some() => word.get_or_insert_default().push('"'),
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' | '\r' | '\n' if !is_quoted => {
                words.extend(word.take().map(|text| Word { text, ends_line: false }));
                if letter == '\n'
                    && let Some(last) = words.last_mut()
                {
                    last.ends_line = true;
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if is_quoted {
        return Err(unusual);
    }
    words.extend(word.map(|text| Word { text, ends_line: true }));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(text).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_split_as_windows_splits_them() {
        let check = |text: &str, words: &[&str]| assert_eq!(texts(text), words, "{text}");
        check("/O2  /c\r\n\t/DX", &["/O2", "/c", "/DX"]);
        check(r#"/DA="x y" "/DB=a b""#, &["/DA=x y", "/DB=a b"]);
        check(r#""/DX=\"q\"" /DP=a\b\\c"#, &[r#"/DX="q""#, r"/DP=a\b\\c"]);
        check(r#""/DR=\\" /DQ="x""y" '/DS a'"#, &[r"/DR=\", r#"/DQ=x"y"#, "'/DS", "a'"]);
        check(r#""" end"#, &["", "end"]);
        check("", &[]);
        assert!(split("\"open").is_err());
    }

    #[test]
    fn lines_end_with_their_last_words() {
        let ends: Vec<bool> = split("/c /I\nx\n\n y z").unwrap().iter().map(|word| word.ends_line).collect();
        assert_eq!(ends, [false, true, true, false, true]);
    }

    #[test]
    fn files_are_of_utf_8_or_16_and_name_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let of = |name: &str| expand(&[format!("@{name}")], folder.path());
        let words = |name: &str| of(name).unwrap().into_iter().map(|word| word.text).collect::<Vec<_>>();
        let units = "/Dä /c".encode_utf16().flat_map(u16::to_le_bytes);
        write("le", &[0xff, 0xfe].into_iter().chain(units).collect::<Vec<_>>());
        write("marked", "\u{feff}/Dä /c".as_bytes());
        write("plain", "/Dä /c".as_bytes());
        for name in ["le", "marked", "plain"] {
            assert_eq!(words(name), ["/Dä", "/c"], "{name}");
        }
        write("odd", &[0xff, 0xfe, b'/']);
        write("latin", b"/D\xe4");
        write("nested", b"/c @plain");
        for name in ["odd", "latin", "nested", "absent"] {
            assert!(of(name).is_err(), "{name}");
        }
    }
}
