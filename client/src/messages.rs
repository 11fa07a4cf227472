//! A compiler's messages, with the names of files as the user knows them, or virtual as they are kept.
//!
//! Names are replaced only where a message has its file's name: at the start of a line, or after `In file included
//! from`. A name anywhere else, in a quoted line of source for one, was written by the user and stays.

use crate::paths::{ABSOLUTE, INPUT_ROOT, MOUNTS, Place};

/// What stands before the name of a file that is not at the start of its line.
const INTRODUCTIONS: [&[u8]; 4] = [
    b"In file included from ",
    b"In module imported at ",
    b"                 from ",
    // clang-cl under `/showIncludes`; more blanks the deeper it is.
    b"Note: including file: ",
];

/// Replaces real names by virtual ones. `None` if a name of the project's folder is left that no rule reaches: such
/// messages are right in this folder alone.
pub fn to_virtual(text: &[u8], place: &Place) -> Option<Vec<u8>> {
    let renamed = with_names(text, |name| {
        if !name.starts_with(b"/") {
            return None;
        }
        let mount = place.mounts().iter().find(|mount| {
            name.strip_prefix(mount.real.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
        });
        match mount {
            Some(mount) => Some((mount.real.len(), format!("{INPUT_ROOT}/{}", mount.name))),
            None => Some((0, format!("{INPUT_ROOT}/{ABSOLUTE}"))),
        }
    });
    let real: Vec<&str> = place.names().collect();
    let is_clean = renamed.split(|byte| *byte == b'\n').all(|line| {
        let said = after_name(line);
        !real.iter().any(|name| holds(said, name))
    });
    is_clean.then_some(renamed)
}

/// What a line says behind the name of its file.
fn after_name(line: &[u8]) -> &[u8] {
    let at = name_at(line);
    if !line[at..].starts_with(b"/") {
        return line;
    }
    let end = line[at..].iter().position(|byte| *byte == b':').unwrap_or(0);
    &line[at + end..]
}

/// Replaces virtual names by real ones. `None` if a virtual name is left that no rule reaches.
pub fn to_real(text: &[u8], place: &Place) -> Option<Vec<u8>> {
    let mounts =
        place.mounts().iter().map(|mount| (format!("{INPUT_ROOT}/{}", mount.name), mount.real.as_str()));
    let names: Vec<(String, &str)> = mounts.chain([(format!("{INPUT_ROOT}/{ABSOLUTE}"), "")]).collect();
    let renamed = with_names(text, |name| {
        let has =
            |prefix: &str| name.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
        let (prefix, real) = names.iter().find(|(prefix, _)| has(prefix))?;
        Some((prefix.len(), (*real).to_owned()))
    });
    // Those that are not here have names here as well.
    let all = MOUNTS.iter().map(|name| format!("{INPUT_ROOT}/{name}/"));
    let is_clean = !all.chain([format!("{INPUT_ROOT}/{ABSOLUTE}/")]).any(|name| holds(&renamed, &name));
    is_clean.then_some(renamed)
}

/// Whether a line is a word of the driver's about itself, which says under what name it was called.
pub fn names_program(text: &[u8], program: &str) -> bool {
    let start = format!("{program}: ");
    text.split(|byte| *byte == b'\n').any(|line| visible(line).0.starts_with(start.as_bytes()))
}

fn holds(text: &[u8], name: &str) -> bool {
    text.windows(name.len().max(1)).any(|window| window == name.as_bytes())
}

/// Replaces names: `rename` says how many bytes of a name go, and what comes in their place.
fn with_names(text: &[u8], rename: impl Fn(&[u8]) -> Option<(usize, String)>) -> Vec<u8> {
    let mut renamed = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let at = name_at(line);
        match rename(&line[at..]) {
            Some((gone, put)) => {
                renamed.extend_from_slice(&line[..at]);
                renamed.extend_from_slice(put.as_bytes());
                renamed.extend_from_slice(&line[at + gone..]);
            }
            None => renamed.extend_from_slice(line),
        }
    }
    renamed
}

/// Where in a line the name of a file would be.
fn name_at(line: &[u8]) -> usize {
    let (rest, mut at) = visible(line);
    if let Some(introduction) = INTRODUCTIONS.iter().find(|introduction| rest.starts_with(introduction)) {
        at += introduction.len();
        at += line[at..].iter().take_while(|byte| **byte == b' ').count();
        at += visible(&line[at..]).1;
    }
    at
}

/// A line without the colours it begins with, and how many bytes those are.
fn visible(line: &[u8]) -> (&[u8], usize) {
    let mut at = 0;
    while line[at..].starts_with(b"\x1b[") {
        let length = line[at + 2..].iter().position(u8::is_ascii_alphabetic);
        let Some(length) = length else { break };
        at += 2 + length + 1;
    }
    (&line[at..], at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str) -> Place {
        Place::new(format!("{root}/sub"), Some(root.to_owned())).unwrap()
    }

    const MESSAGES: &str = "In file included from /home/me/x/a.h:3,\n                 from \x1b[01m\x1b[K/home/me/x/a.cc:1\x1b[m\x1b[K:\n\
        \x1b[01m\x1b[K/usr/include/c.h:5:9:\x1b[m\x1b[K warning: w\n    5 | int x; // like /usr/lib\n\
        src/b.cc:1:2: note: n\n";

    #[test]
    fn messages_move_to_another_folder() {
        let kept = to_virtual(MESSAGES.as_bytes(), &place("/home/me/x")).unwrap();
        let text = String::from_utf8_lossy(&kept).into_owned();
        assert!(
            text.contains("from /build/p/a.h:3") && text.contains("/build/abs/usr/include/c.h:5"),
            "{text}"
        );
        assert!(text.contains("like /usr/lib") && text.contains("\nsrc/b.cc:1"), "{text}");
        let there = to_real(&kept, &place("/tmp/y")).unwrap();
        assert_eq!(String::from_utf8(there).unwrap(), MESSAGES.replace("/home/me/x", "/tmp/y"));
    }

    #[test]
    fn messages_that_hold_the_folder_elsewhere_do_not_move() {
        let quoted = b"a.cc:1:2: warning: w\n    1 | f(\"/home/me/x/data\");\n";
        assert_eq!(to_virtual(quoted, &place("/home/me/x")), None);
        assert!(to_virtual(quoted, &place("/home/other")).is_some());
        assert_eq!(to_real(b"a.cc:1: note: in /build/p/b.cc\n", &place("/home/me/x")), None);
    }

    #[test]
    fn notes_of_headers_move_to_another_folder() {
        let notes = "Note: including file: /home/me/x/a.h\r\nNote: including file:   /usr/b.h\nNote: including file:  c.h\n";
        let kept = to_virtual(notes.as_bytes(), &place("/home/me/x")).unwrap();
        let text = String::from_utf8_lossy(&kept).into_owned();
        assert!(
            text.contains("file: /build/p/a.h\r\n") && text.contains("file:   /build/abs/usr/b.h"),
            "{text}"
        );
        let there = to_real(&kept, &place("/tmp/y")).unwrap();
        assert_eq!(String::from_utf8(there).unwrap(), notes.replace("/home/me/x", "/tmp/y"));
    }

    #[test]
    fn the_drivers_own_words_are_seen() {
        assert!(names_program(b"x\ncc: warning: -lz: unused\n", "cc"));
        assert!(names_program(b"\x1b[1mclang: \x1b[0mwarning: unused\n", "clang"));
        assert!(!names_program(b"acc: x\n", "cc"));
    }
}
