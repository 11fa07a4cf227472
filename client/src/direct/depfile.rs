//! [`Depfile`]: a dependency file in a form that can be written again elsewhere, as the compiler there would have
//! written it.
//!
//! Names that begin with the project's root begin with something else in another checkout, and where lines are broken
//! depends on how long names are. So words are kept, and lines broken anew by each compiler's rule; a file that doesn't
//! come out as it was that way is kept as it is, for the place where it was made.

use crate::paths::{INPUT_ROOT, MOUNTS, Place};
use crate::toolchain::Family;

/// How a compiler breaks lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Breaking {
    /// Before column 72, names one blank in.
    Gcc = 0,
    /// Before column 75, targets two blanks in.
    Clang = 1,
}

/// A dependency file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Depfile {
    /// What stands before the colon; or the whole text, if it is verbatim.
    #[prost(string, repeated, tag = "1")]
    pub targets: Vec<String>,
    /// What stands behind it.
    #[prost(string, repeated, tag = "2")]
    pub files: Vec<String>,
    /// The empty rules that follow (`-MP`).
    #[prost(string, repeated, tag = "3")]
    pub phony: Vec<String>,
    /// How lines are broken.
    #[prost(enumeration = "Breaking", tag = "4")]
    pub breaking: i32,
    /// Whether it is the text as it was, right in its place only.
    #[prost(bool, tag = "5")]
    pub is_verbatim: bool,
}

impl Depfile {
    /// Learns a file from its text.
    pub fn learn(text: &str, family: Family, place: &Place) -> Self {
        let breaking = match family {
            Family::Gcc => Breaking::Gcc,
            Family::Clang => Breaking::Clang,
        };
        let verbatim = || Self {
            targets: vec![text.to_owned()],
            is_verbatim: true,
            breaking: breaking as i32,
            ..Self::default()
        };
        if !is_plain(place) {
            return verbatim();
        }
        let Some(words) = Words::read(text) else { return verbatim() };
        let moved = |words: Vec<&str>| words.into_iter().map(|word| to_virtual(word, place)).collect();
        let learned = Self {
            targets: moved(words.targets),
            files: moved(words.files),
            phony: moved(words.phony),
            breaking: breaking as i32,
            is_verbatim: false,
        };
        let comes_back = learned.text(place).as_deref() == Some(text);
        if comes_back { learned } else { verbatim() }
    }

    /// The text, as it is here. `None` if a name in it can't be here.
    pub fn text(&self, place: &Place) -> Option<String> {
        if self.is_verbatim {
            return self.targets.first().cloned();
        }
        if !is_plain(place) {
            return None;
        }
        let real =
            |names: &[String]| names.iter().map(|name| to_real(name, place)).collect::<Option<Vec<_>>>();
        let (targets, files, phony) = (real(&self.targets)?, real(&self.files)?, real(&self.phony)?);
        let mut text = match self.breaking() {
            Breaking::Gcc => broken_by_gcc(&targets, &files),
            Breaking::Clang => broken_by_clang(&targets, &files),
        };
        for name in phony {
            text.push_str(&name);
            text.push_str(":\n");
        }
        Some(text)
    }
}

/// Whether no name of the place's is escaped, which each compiler does in its own way.
fn is_plain(place: &Place) -> bool {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-' | '+');
    place.mounts().iter().all(|mount| mount.real.chars().all(is_plain))
}

fn to_virtual(word: &str, place: &Place) -> String {
    let mounts = place.mounts().iter();
    let named = mounts.filter_map(|mount| Some((mount, word.strip_prefix(mount.real.as_str())?)));
    match named.into_iter().find(|(_, rest)| rest.starts_with('/')) {
        Some((mount, rest)) => format!("{INPUT_ROOT}/{}{rest}", mount.name),
        None => word.to_owned(),
    }
}

fn to_real(name: &str, place: &Place) -> Option<String> {
    let virtual_name = MOUNTS.iter().find(|virtual_name| {
        let rest = name.strip_prefix(&format!("{INPUT_ROOT}/{virtual_name}"));
        rest.is_some_and(|rest| rest.starts_with('/'))
    });
    let Some(virtual_name) = virtual_name else { return Some(name.to_owned()) };
    let mount = place.mounts().iter().find(|mount| mount.name == *virtual_name)?;
    Some(format!("{}{}", mount.real, &name[INPUT_ROOT.len() + 1 + virtual_name.len()..]))
}

/// The words of a file, escaped as they stand.
struct Words<'a> {
    targets: Vec<&'a str>,
    files: Vec<&'a str>,
    phony: Vec<&'a str>,
}

impl<'a> Words<'a> {
    /// Reads one rule, and the empty rules after it.
    fn read(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let mut words: Vec<&str> = Vec::new();
        let mut targets = None;
        loop {
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            rest = &rest[blanks..];
            if let Some(after) = rest.strip_prefix("\\\n") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix('\n') {
                rest = after;
                break;
            } else if rest.is_empty() {
                return None;
            } else {
                let end = word_end(rest);
                let (word, after) = rest.split_at(end);
                rest = after;
                // The first word that ends in a colon ends the targets.
                match word.strip_suffix(':').filter(|_| targets.is_none()) {
                    Some(word) => {
                        words.extend(Some(word).filter(|word| !word.is_empty()));
                        targets = Some(std::mem::take(&mut words));
                    }
                    None => words.push(word),
                }
            }
        }
        let phony: Option<Vec<&str>> = rest.lines().map(|line| line.strip_suffix(':')).collect();
        Some(Self { targets: targets?, files: words, phony: phony? })
    }
}

/// Where a word ends: at a blank or line end that no backslash escapes.
fn word_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '\n' => return if is_escaped { at - 1 } else { at },
            ' ' | '\t' if !is_escaped => return at,
            _ => is_escaped = letter == '\\' && !is_escaped,
        }
    }
    text.len()
}

fn broken_by_gcc(targets: &[String], files: &[String]) -> String {
    const COLUMNS_MAX: usize = 72;
    let mut text = String::new();
    let mut column = 0;
    let add = |word: &String, column: &mut usize, text: &mut String| {
        if *column > 0 {
            if *column + word.len() > COLUMNS_MAX {
                text.push_str(" \\\n");
                *column = 0;
            }
            *column += 1;
            text.push(' ');
        }
        *column += word.len();
        text.push_str(word);
    };
    for word in targets {
        add(word, &mut column, &mut text);
    }
    text.push(':');
    column += 1;
    for word in files {
        add(word, &mut column, &mut text);
    }
    text.push('\n');
    text
}

fn broken_by_clang(targets: &[String], files: &[String]) -> String {
    const COLUMNS_MAX: usize = 75;
    let mut text = String::new();
    let mut column = 0;
    for word in targets {
        if column == 0 {
            column += word.len();
        } else if column + word.len() + 2 > COLUMNS_MAX {
            column = word.len() + 2;
            text.push_str(" \\\n  ");
        } else {
            column += word.len() + 1;
            text.push(' ');
        }
        text.push_str(word);
    }
    text.push(':');
    column += 1;
    for word in files {
        // There has to be room for ` \` behind it.
        if column + word.len() + 3 > COLUMNS_MAX {
            text.push_str(" \\\n ");
            column = 2;
        }
        text.push(' ');
        text.push_str(word);
        column += word.len() + 1;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str) -> Place {
        Place::new(format!("{root}/build"), Some(root.to_owned())).unwrap()
    }

    const GCC: &str = "out/a.o: /home/me/x/src/a.cc \\\n /home/me/x/include/some/rather/long/name/of/a/header.h \\\n \
        /usr/include/stdio.h ../b\\ c.h\n/home/me/x/include/some/rather/long/name/of/a/header.h:\n/usr/include/stdio.h:\n../b\\ c.h:\n";

    #[test]
    fn lines_are_broken_anew_in_another_place() {
        let learned = Depfile::learn(GCC, Family::Gcc, &place("/home/me/x"));
        assert!(!learned.is_verbatim, "{learned:?}");
        assert_eq!(learned.text(&place("/home/me/x")).as_deref(), Some(GCC));
        let there = learned.text(&place("/y")).unwrap();
        assert!(
            there.starts_with(
                "out/a.o: /y/src/a.cc /y/include/some/rather/long/name/of/a/header.h \\\n /usr/"
            ),
            "{there}"
        );
        assert!(
            there.ends_with(
                "\n/y/include/some/rather/long/name/of/a/header.h:\n/usr/include/stdio.h:\n../b\\ c.h:\n"
            ),
            "{there}"
        );
    }

    #[test]
    fn what_does_not_come_out_as_it_was_is_kept_for_its_place() {
        for text in ["a.o: a.c", "a.o: a.c \\\n b.h\n", "a.o:  a.c\n", "no rule\n", "", "a.o: a.c\nx\n"] {
            let learned = Depfile::learn(text, Family::Gcc, &place("/home/me/x"));
            assert!(learned.is_verbatim, "{text}");
            assert_eq!(learned.text(&place("/home/me/x")).as_deref(), Some(text));
        }
        assert!(Depfile::learn("a.o: a.c\n", Family::Gcc, &place("/tmp/m e/x")).is_verbatim);
        assert!(!Depfile::learn("a.o: a.c\n", Family::Gcc, &place("/home/me/x")).is_verbatim);
    }
}
