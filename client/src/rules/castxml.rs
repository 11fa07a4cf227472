//! What is known of `CastXML`'s outputs: where names of folders stand, and when comments don't count.

use super::names;
use crate::dependencies::reads_like_now;
use crate::paths::Place;

/// How a line of its output begins that names a file.
const FILE: &[u8] = b"<File id=\"";

/// What comes before the name.
const NAME: &[u8] = b" name=\"";

/// Words that the preprocessor replaces by the present date or time.
const DATES: [&[u8]; 3] = [b"__DATE__", b"__TIME__", b"__TIMESTAMP__"];

/// Words that stand for the name of the file that they are in.
const NAMES: [&[u8]; 4] = [b"__FILE__", b"__BASE_FILE__", b"__builtin_FILE", b"source_location"];

/// Whether comments leave no trace: the format of gccxml has none, and without warnings none is said of them.
pub fn ignores_comments(words: &[String]) -> bool {
    let has = |word: &str| words.iter().any(|other| other == word);
    // A file of words may ask for anything.
    let is_told_by_file = words.iter().any(|word| word.starts_with('@'));
    let asks_for_more = |word: &String| {
        [
            "-Wdocumentation",
            "-Werror",
            "-fparse-all-comments",
            "-C",
            "-E",
            "-Xclang",
            "-fdiagnostics",
            "-verify",
        ]
        .iter()
        .any(|begin| word.starts_with(begin))
    };
    has("--castxml-gccxml") && has("-w") && !is_told_by_file && !words.iter().any(asks_for_more)
}

/// An output in which folders have virtual names. `None` if one is named elsewhere than where files are.
pub fn taken_out(output: &[u8], place: &Place) -> Option<Vec<u8>> {
    if output.contains(&0) || !place.mounts().iter().all(|mount| names::is_plain(&mount.real)) {
        return None;
    }
    let mut out = Vec::with_capacity(output.len());
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        if !names::shows(line, place) {
            out.extend_from_slice(line);
            continue;
        }
        let begins = line.trim_ascii_start().starts_with(FILE);
        let at = memchr::memmem::find(line, NAME).filter(|_| begins)? + NAME.len();
        let named = names::taken_out(&line[at..], place)?;
        // Once, where the name begins.
        if named.first() != Some(&0) || memchr::memchr_iter(0, &named).count() != 2 {
            return None;
        }
        out.extend_from_slice(&line[..at]);
        out.extend(named);
    }
    Some(out)
}

/// Whether a date may get from a file into what is made of it.
pub fn may_hold_date(bytes: &[u8]) -> bool {
    !bytes.starts_with(b"\x7fELF") && DATES.iter().any(|word| memchr::memmem::find(bytes, word).is_some())
}

/// Whether a source may ask what it is called.
pub fn may_ask_its_name(bytes: &[u8]) -> bool {
    NAMES.iter().any(|word| memchr::memmem::find(bytes, word).is_some())
}

/// Whether a line includes a file, and does nothing else.
pub fn includes(line: &[u8]) -> bool {
    let rest = line.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
    rest.is_some_and(|rest| rest.starts_with(b"include")) && !line.trim_ascii_end().ends_with(b"\\")
}

/// Whether a literal in an output reads like a date or time between two instants, in seconds since 1970: words for these
/// can be pasted together out of pieces.
pub fn shows_now(output: &[u8], seconds: (u64, u64)) -> bool {
    const QUOTE: &[u8] = b"&quot;";
    let marks: Vec<usize> = memchr::memmem::find_iter(output, QUOTE).collect();
    marks.windows(2).any(|pair| reads_like_now(&output[pair[0] + QUOTE.len()..pair[1]], seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_where_files_are_named_and_nowhere_else() {
        let place = |root: &str| Place::new(root.to_owned(), Some(root.to_owned())).unwrap();
        let (here, there) = (place("/home/a/x"), place("/tmp/y"));
        let xml =
            b"<CastXML>\n  <File id=\"f1\" name=\"/home/a/x/h.h\"/>\n  <File id=\"f2\" name=\"/usr/i.h\"/>\n";
        let moved = names::put_in(&taken_out(xml, &here).unwrap(), &there).unwrap();
        let expected = String::from_utf8(xml.to_vec()).unwrap().replace("/home/a/x", "/tmp/y");
        assert_eq!(String::from_utf8(moved).unwrap(), expected);
        for text in [
            "<Argument name=\"p\" default=\"&quot;/home/a/x/h.h&quot;\"/>",
            "<File id=\"f1\" name=\"/usr/home/a/x/h.h\"/>",
            "<File id=\"f1\" name=\"/home/a/x/home/a/x/h.h\"/>",
        ] {
            assert_eq!(taken_out(text.as_bytes(), &here), None, "{text}");
        }
    }

    #[test]
    fn comments_count_unless_it_is_known_that_they_do_not() {
        let ignores = |line: &str| ignores_comments(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(ignores("--castxml-gccxml -w -c a.cxx"));
        for line in
            ["--castxml-output=1 -w", "--castxml-gccxml", "--castxml-gccxml -w @x", "--castxml-gccxml -w -CC"]
        {
            assert!(!ignores(line), "{line}");
        }
    }
}
