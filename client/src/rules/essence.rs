//! What of a file counts: all of it but the names of folders of this place, and but for comments where they don't.

use super::names;
use crate::direct::hashes::hash_of;
use crate::direct::memo::Hash;
use crate::paths::Place;

/// How a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Look {
    /// As it is.
    Plain = 0,
    /// Names of folders are taken out.
    Moved = 1,
    /// As a source of C or C++ as well: comments are taken out, and what is left stays in its line and column.
    Code = 2,
}

/// The hash of what counts; `None` if that can't be told.
pub fn of(bytes: &[u8], look: Look, place: &Place) -> Option<Hash> {
    let counts = match look {
        Look::Plain => return None,
        Look::Moved => names::taken_out(bytes, place)?,
        Look::Code => names::taken_out(&without_comments(bytes)?, place)?,
    };
    let mut said = format!("castwork essence 2 {look:?}\n").into_bytes();
    said.extend(counts);
    Some(hash_of(&said))
}

/// Whether a file is one of C or C++, by its name.
pub fn is_code(path: &str) -> bool {
    let endings =
        ["h", "hh", "hpp", "hxx", "h++", "c", "cc", "cpp", "cxx", "c++", "txx", "tpp", "ipp", "inl"];
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
    ending.is_some_and(|ending| endings.contains(&ending.to_ascii_lowercase().as_str()))
}

/// A source without its comments: each is the ends of lines that were in it, and as many spaces as it has bytes after the
/// last of these, since columns can show; one space if nothing comes after it in its line.
///
/// `None` if it has in it what could be read in two ways: a literal that isn't ended, a trigraph, a line that goes on
/// in the next within a comment's mark or in a raw literal's beginning, a backslash
/// before a comment: without that the line would go on.
pub fn without_comments(text: &[u8]) -> Option<Vec<u8>> {
    if memchr::memmem::find(text, b"??").is_some() || text.contains(&0) || text.contains(&b'\r') {
        return None;
    }
    let mut stripper = Stripper { text, at: 0, out: Vec::with_capacity(text.len()) };
    while stripper.at < text.len() {
        stripper.step()?;
    }
    Some(stripper.out)
}

struct Stripper<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Stripper<'_> {
    fn step(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        match rest {
            [b'/', b'*', ..] => self.block(),
            [b'/', b'/', ..] => self.line(),
            // Between the two letters of a mark the line might go on.
            [b'/' | b'*', b'\\', ..] => None,
            [b'"', ..] => self.literal(b'"'),
            [b'\'', ..] => self.literal(b'\''),
            [b'#', ..] => self.directive(),
            [first, ..] if is_of_word(*first) => self.word(),
            [first, ..] => {
                self.out.push(*first);
                self.at += 1;
                Some(())
            }
            [] => Some(()),
        }
    }

    fn block(&mut self) -> Option<()> {
        let body = &self.text[self.at + 2..];
        let end = memchr::memmem::find(body, b"*/")?;
        // An end that is parted by the end of a line would be found too late.
        if memchr::memmem::find(&body[..end], b"*\\\n").is_some() {
            return None;
        }
        self.check_before()?;
        let comment = &self.text[self.at..self.at + 2 + end + 2];
        let behind = &self.text[self.at + comment.len()..];
        let behind = behind.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        self.out.extend(comment.iter().filter(|byte| **byte == b'\n'));
        let last = comment.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let spaces = if behind.is_empty() || behind.starts_with(b"//") { 1 } else { last.len() };
        self.out.resize(self.out.len() + spaces, b' ');
        self.at += comment.len();
        Some(())
    }

    /// Refuses a comment behind a backslash.
    fn check_before(&self) -> Option<()> {
        let before = self.out.iter().rev().find(|byte| !matches!(byte, b' ' | b'\t'));
        (before != Some(&b'\\')).then_some(())
    }

    fn line(&mut self) -> Option<()> {
        self.check_before()?;
        self.out.push(b' ');
        while let Some(byte) = self.text.get(self.at) {
            let is_end = *byte == b'\n';
            if is_end {
                // With a backslash before it, and perhaps spaces, the comment goes on.
                let before = self.text[..self.at].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t'));
                if before != Some(&b'\\') {
                    return Some(());
                }
                self.out.push(b'\n');
            }
            self.at += 1;
        }
        Some(())
    }

    /// A literal, within its line.
    fn literal(&mut self, quote: u8) -> Option<()> {
        let mut end = self.at + 1;
        loop {
            match self.text.get(end)? {
                b'\n' => return None,
                b'\\' => end += 2,
                byte if *byte == quote => break,
                _ => end += 1,
            }
        }
        self.copy_to(end + 1);
        Some(())
    }

    /// A word or number; a raw literal if that is what it begins. Signs in numbers (`1'000`) are no literals.
    fn word(&mut self) -> Option<()> {
        let is_number = self.text[self.at].is_ascii_digit();
        let mut end = self.at + 1;
        while let Some(byte) = self.text.get(end) {
            let parts =
                is_number && *byte == b'\'' && self.text.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
            if !is_of_word(*byte) && !parts {
                break;
            }
            end += 1;
        }
        if self.text.get(end) == Some(&b'\\') {
            return None;
        }
        let word = &self.text[self.at..end];
        let begins_raw = [&b"R"[..], b"u8R", b"uR", b"UR", b"LR"].contains(&word);
        if begins_raw && self.text.get(end) == Some(&b'"') {
            return self.raw(end + 1);
        }
        self.copy_to(end);
        Some(())
    }

    fn raw(&mut self, begin: usize) -> Option<()> {
        let open = self.text[begin..].iter().take(17).position(|byte| *byte == b'(')?;
        let mut close = vec![b')'];
        close.extend_from_slice(&self.text[begin..begin + open]);
        close.push(b'"');
        let end = begin + open + memchr::memmem::find(&self.text[begin + open..], &close)?;
        self.copy_to(end + close.len());
        Some(())
    }

    /// A `#`; the name of a header in brackets may look as if a comment began in it.
    fn directive(&mut self) -> Option<()> {
        let end = memchr::memchr(b'\n', &self.text[self.at..]).map_or(self.text.len(), |end| self.at + end);
        let line = &self.text[self.at..end];
        let names_header = |word: &[u8]| memchr::memmem::find(line, word).is_some();
        let bracket =
            memchr::memchr(b'<', line).filter(|_| names_header(b"include") || names_header(b"import"));
        if let Some(open) = bracket {
            let close = memchr::memchr(b'>', &line[open..])? + open;
            let has_mark = |text: &[u8]| {
                [&b"/*"[..], b"//"].iter().any(|mark| memchr::memmem::find(text, mark).is_some())
            };
            if has_mark(&line[..=close]) {
                return None;
            }
        }
        self.copy_to(self.at + 1);
        Some(())
    }

    fn copy_to(&mut self, end: usize) {
        let end = end.min(self.text.len());
        self.out.extend_from_slice(&self.text[self.at..end]);
        self.at = end;
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(text: &str) -> Option<String> {
        without_comments(text.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn comments_are_spaces_and_lines_stay() {
        for (text, expected) in [
            ("a/* x\ny */b\n", "a\n    b\n"),
            ("a/*x*/b /*y*/\n/*\u{e9}*/ c", "a     b  \n       c"),
            ("a /* x */ // y\nb", "a    \nb"),
            ("a // x\nb", "a  \nb"),
            ("a // x \\\n more\nb", "a  \n\nb"),
            ("\"/* no */\" '\"' // x\n", "\"/* no */\" '\"'  \n"),
            ("R\"x(// \" )y\" )x\" /**/", "R\"x(// \" )y\" )x\"  "),
            ("1'000 /* ' */ 2", "1'000         2"),
            ("#include <a/b.h> // x\n", "#include <a/b.h>  \n"),
            ("\"a\\\"/*\"/**/", "\"a\\\"/*\" "),
            ("a / b * c", "a / b * c"),
        ] {
            assert_eq!(stripped(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "/* open",
            "'x",
            "\"x\n\"",
            "#error don't\n",
            "??/\n",
            "/\\\n* x */",
            "/* x *\\\n/ y */",
            "#include <a//b>\n",
            "R\\\n\"(x)\"",
            "a\r\nb",
            "#define A \\ /* x */\nb",
            "#define A \\ // x\nb",
        ] {
            assert_eq!(stripped(text), None, "{text}");
        }
    }
}
