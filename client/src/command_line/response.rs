//! Response files: `@file` stands for the words in it.

use std::path::Path;

use crate::reason::Reason;

/// Most bytes of a response file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Most response files in a command, those in others counted.
const FILES_MAX: usize = 100;

/// Replaces each `@file` by the words in the file, also within files.
///
/// # Errors
/// The reason to pass through, if a file can't be read: the compiler then takes `@file` for a name.
pub(super) fn expand(words: &[String], folder: &Path) -> Result<Vec<String>, Reason> {
    let mut files_left = FILES_MAX;
    let mut all = Vec::with_capacity(words.len());
    expand_into(&mut all, words, folder, &mut files_left)?;
    Ok(all)
}

fn expand_into(
    all: &mut Vec<String>,
    words: &[String],
    folder: &Path,
    files_left: &mut usize,
) -> Result<(), Reason> {
    for word in words {
        let Some(name) = word.strip_prefix('@') else {
            all.push(word.clone());
            continue;
        };
        *files_left = files_left.checked_sub(1).ok_or(Reason::new("too many response files"))?;
        let path = folder.join(name);
        let unreadable = Reason::new("response file can't be read");
        let metadata = path.metadata().map_err(|_| unreadable.clone())?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return Err(unreadable);
        }
        let text = std::fs::read_to_string(&path).map_err(|_| unreadable)?;
        expand_into(all, &split(&text), folder, files_left)?;
    }
    Ok(())
}

/// Splits text into words as gcc and clang do: blanks part, quotes of both kinds keep together, and a backslash
/// takes the next character as it is, within quotes too.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.get_or_insert_default().extend(letters.next()),
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_ascii_whitespace() || letter == '\x0b' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_compilers_split_them() {
        let check = |text: &str, words: &[&str]| assert_eq!(split(text), words, "{text}");
        check("-O2  -g\n\t-DX", &["-O2", "-g", "-DX"]);
        check(r#"-DA="x y" '-DB=a b'"#, &["-DA=x y", "-DB=a b"]);
        check(r#"-DS=\"quoted\" a\ b"#, &[r#"-DS="quoted""#, "a b"]);
        check(r#"'it\'s' "" end"#, &["it's", "", "end"]);
        check("", &[]);
    }

    #[test]
    fn files_in_files_are_read_and_a_loop_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "-O2 @b -g").unwrap();
        std::fs::write(folder.path().join("b"), "-Iinclude").unwrap();
        std::fs::write(folder.path().join("loop"), "@loop").unwrap();
        let words = expand(&["@a".to_owned(), "x.c".to_owned()], folder.path());
        assert_eq!(words.unwrap(), ["-O2", "-Iinclude", "-g", "x.c"]);
        assert!(expand(&["@loop".to_owned()], folder.path()).is_err());
        assert!(expand(&["@absent".to_owned()], folder.path()).is_err());
    }
}
