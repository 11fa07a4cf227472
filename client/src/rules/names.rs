//! Names of folders in texts: taken out where a text is to be the same in every place, and put in again.

use crate::paths::Place;

/// What stands before and after a folder's virtual name; in no text that is given a meaning.
const MARK: char = '\0';

/// Whether a folder's name is one that no tool writes in another way.
pub fn is_plain(name: &str) -> bool {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-' | '+' | '@');
    name.len() > 1 && name.chars().all(is_plain)
}

/// Whether a name of a folder of this place, which is called otherwise elsewhere, is in a text.
pub fn shows(text: &[u8], place: &Place) -> bool {
    place.mounts().iter().any(|mount| memchr::memmem::find(text, mount.real.as_bytes()).is_some())
}

/// A text in which each name of a folder of this place is virtual.
///
/// `None` if such a name is there in a way in which it may be a part of another, or the text has a NUL in it.
pub fn taken_out(text: &[u8], place: &Place) -> Option<Vec<u8>> {
    if !shows(text, place) {
        return Some(text.to_vec());
    }
    if text.contains(&0) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let here = &text[at..];
        // Of two within each other the inner one comes first.
        let Some(mount) = place.mounts().iter().find(|mount| here.starts_with(mount.real.as_bytes())) else {
            out.push(text[at]);
            at += 1;
            continue;
        };
        let end = at + mount.real.len();
        if !may_begin(&text[..at]) || !may_end(text.get(end).copied()) {
            return None;
        }
        out.extend(format!("{MARK}{}{MARK}", mount.name).bytes());
        at = end;
    }
    Some(out)
}

/// The text for this place. `None` if it names what is not here.
pub fn put_in(text: &[u8], place: &Place) -> Option<Vec<u8>> {
    let mark = MARK as u8;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = memchr::memchr(mark, rest) {
        let end = begin + 1 + memchr::memchr(mark, &rest[begin + 1..])?;
        let name = &rest[begin + 1..end];
        let mount = place.mounts().iter().find(|mount| mount.name.as_bytes() == name)?;
        out.extend_from_slice(&rest[..begin]);
        out.extend_from_slice(mount.real.as_bytes());
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Whether a path may begin behind this: at a word's begin, behind what no name holds, or behind a flag's letters.
fn may_begin(before: &[u8]) -> bool {
    let Some(last) = before.last() else { return true };
    if !is_of_name(*last) {
        return *last != b'/';
    }
    // `-I/x`: back to the begin of the word there is a flag, and no other path.
    let from = before.iter().rposition(|byte| !is_of_name(*byte)).map_or(0, |at| at + 1);
    let flag = &before[from..];
    (flag.starts_with(b"-") || flag == b"@") && from_is_begin(before, from)
}

fn from_is_begin(before: &[u8], from: usize) -> bool {
    from == 0 || matches!(before[from - 1], b' ' | b'\t' | b'\n' | b'"' | b'\'' | b'=' | b',')
}

/// Whether a folder's name may end before this.
fn may_end(next: Option<u8>) -> bool {
    next.is_none_or(|next| !is_of_name(next))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'@' | b'~' | b'%' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str) -> Place {
        Place::new(format!("{root}/sub"), Some(root.to_owned())).unwrap()
    }

    #[test]
    fn names_move_from_place_to_place() {
        let (here, there) = (place("/home/a/x"), place("/tmp/y"));
        for text in [
            "-I/home/a/x/i",
            "/home/a/x",
            "@/home/a/x/w",
            "\"/home/a/x/h.h\"",
            "--o=/home/a/x:/home/a/x/b",
            "nothing",
        ] {
            let out = taken_out(text.as_bytes(), &here).unwrap();
            let moved = put_in(&out, &there).unwrap();
            assert_eq!(String::from_utf8(moved).unwrap(), text.replace("/home/a/x", "/tmp/y"));
            assert_eq!(put_in(&out, &here).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn names_that_may_be_parts_of_others_are_refused() {
        for text in ["/home/a/xy", "/q/home/a/x", "q/home/a/x", "//home/a/x", "/home/a/x.d", "-I/q/home/a/x"]
        {
            assert_eq!(taken_out(text.as_bytes(), &place("/home/a/x")), None, "{text}");
        }
        assert_eq!(taken_out(b"\0 /home/a/x", &place("/home/a/x")), None);
        assert_eq!(put_in(b"\0q\0", &place("/home/a/x")), None);
        assert_eq!(put_in(b"\0p", &place("/home/a/x")), None);
    }
}
