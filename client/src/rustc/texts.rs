//! Texts that rustc writes: what it read (dep-info), and its messages; with real names or virtual ones.

use std::collections::BTreeSet;

use super::situation::Situation;
use crate::paths::Mount;

/// What stands before a variable in dep-info.
const VARIABLE: &str = "# env-dep:";

/// What stands for a blank of a name while names are told from each other.
const ESCAPED: &str = "\n";

/// How a message begins that names a file which has been written.
pub const ARTIFACT: &str = "{\"$message_type\":\"artifact\"";

/// What stands before the virtual name of a folder: no path that rustc writes has it in it.
const MARK: char = '\u{1}';

/// What dep-info says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepInfo {
    /// The files that were written.
    pub outputs: BTreeSet<String>,
    /// The files that were read.
    pub sources: Vec<String>,
    /// The variables that were asked for while compiling, and what they were.
    pub variables: Vec<(String, Option<String>)>,
}

impl DepInfo {
    /// Reads it.
    pub fn read(text: &str) -> Self {
        let mut info = Self { sources: sources(text), ..Self::default() };
        for line in text.lines() {
            if let Some(variable) = line.strip_prefix(VARIABLE) {
                let (name, value) = match variable.split_once('=') {
                    Some((name, value)) => (name, Some(unescaped(value))),
                    None => (variable, None),
                };
                info.variables.push((name.to_owned(), value));
            } else if let Some((output, _)) = line.split_once(": ") {
                info.outputs.insert(output.to_owned());
            }
        }
        info
    }
}

/// The files that the first rule names. Blanks in them are escaped, and nothing else.
fn sources(text: &str) -> Vec<String> {
    let rule = text.lines().find_map(|line| line.split_once(": "));
    let escaped = rule.map_or_else(String::new, |(_, files)| files.replace("\\ ", ESCAPED));
    escaped.split(' ').filter(|file| !file.is_empty()).map(|file| file.replace(ESCAPED, " ")).collect()
}

/// A variable's value as it was.
fn unescaped(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        let escaped = (letter == '\\').then(|| letters.next()).flatten();
        plain.push(match escaped {
            Some('n') => '\n',
            Some('r') => '\r',
            Some(other) => other,
            None => letter,
        });
    }
    plain
}

/// A text with virtual names in place of real ones, where a name can stand; `None` if there are virtual ones in it.
pub fn to_virtual(text: &str, here: &Situation) -> Option<String> {
    let renamed = |text, mount: &Mount| renamed(text, &mount.real, &format!("{MARK}{}", mount.name));
    (!text.contains(MARK)).then(|| here.place.mounts().iter().fold(text.to_owned(), renamed))
}

/// Dep-info with virtual names. Variables are as they were, but for those that count as paths.
pub fn dep_info_to_virtual(text: &str, paths: &[&str], here: &Situation) -> Option<String> {
    let is_verbatim = |line: &str| {
        let variable =
            line.strip_prefix(VARIABLE).map(|line| line.split(['=', '\n']).next().unwrap_or_default());
        variable.is_some_and(|name| !paths.contains(&name))
    };
    let moved = |line| if is_verbatim(line) { Some(line.to_owned()) } else { to_virtual(line, here) };
    if text.contains(MARK) { None } else { text.split_inclusive('\n').map(moved).collect() }
}

/// The same, the other way.
pub fn to_real(text: &str, here: &Situation) -> String {
    let renamed = |text, mount: &Mount| renamed(text, &format!("{MARK}{}", mount.name), &mount.real);
    here.place.mounts().iter().fold(text.to_owned(), renamed)
}

/// Replaces a name where it is a path of its own or begins one.
#[expect(clippy::needless_pass_by_value, reason = "texts are folded over")]
fn renamed(text: String, old: &str, new: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for (at, _) in text.match_indices(old) {
        let before = text[..at].chars().next_back();
        let after = text[at + old.len()..].chars().next();
        let begins = before.is_none_or(|letter| matches!(letter, ' ' | '\n' | '=' | '"'));
        let ends = after.is_none_or(|letter| matches!(letter, '/' | ' ' | ':' | '\n' | '"'));
        if begins && ends {
            result += &text[from..at];
            result += new;
            from = at + old.len();
        }
    }
    result += &text[from..];
    result
}

/// Messages as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// All lines, with virtual names in those that tell of files which were written.
    pub text: String,
    /// Whether others name a folder of this place.
    pub name_the_place: bool,
    /// Whether there are others.
    pub are_for_people: bool,
}

/// Messages to be kept; `None` if that can't be.
pub fn messages_to_virtual(said: &[u8], here: &Situation) -> Option<Messages> {
    let said = std::str::from_utf8(said).ok()?;
    let mut messages = Messages { text: String::new(), name_the_place: false, are_for_people: false };
    for line in said.split_inclusive('\n') {
        if line.starts_with(ARTIFACT) {
            messages.text += &to_virtual(line, here)?;
            continue;
        }
        messages.text += line;
        messages.are_for_people = true;
        messages.name_the_place |= here.names().any(|name| line.contains(name));
    }
    Some(messages)
}

/// Messages as rustc would write them here.
pub fn messages_to_real(kept: &str, here: &Situation) -> String {
    let line = |line: &str| if line.starts_with(ARTIFACT) { to_real(line, here) } else { line.to_owned() };
    kept.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Compile;
    use super::*;

    fn here(outputs: &str) -> Situation {
        let compile = Compile { folder: outputs.to_owned(), ..Compile::default() };
        Situation::find(&compile, false).unwrap()
    }

    const TEXT: &str = "/t/deps/a.d: src/lib.rs /t/deps/out/x\\ y.rs /t/deps2/z.rs\n\n\
        /t/deps/liba.rlib: src/lib.rs /t/deps/out/x\\ y.rs /t/deps2/z.rs\n\nsrc/lib.rs:\n\n\
        # env-dep:OUT_DIR=/t/deps/out\n# env-dep:UNSET\n# env-dep:LINES=a\\nb\\\\c\n";

    #[test]
    fn dep_info_is_read() {
        let info = DepInfo::read(TEXT);
        assert_eq!(info.outputs.iter().collect::<Vec<_>>(), ["/t/deps/a.d", "/t/deps/liba.rlib"]);
        assert_eq!(info.sources, ["src/lib.rs", "/t/deps/out/x y.rs", "/t/deps2/z.rs"]);
        let value = |name: &str| info.variables.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(value("OUT_DIR").as_deref(), Some("/t/deps/out"));
        assert_eq!((value("UNSET"), value("LINES").as_deref()), (None, Some("a\nb\\c")));
    }

    #[test]
    fn texts_move_to_another_folder() {
        let kept = to_virtual(TEXT, &here("/t/deps")).unwrap();
        assert!(kept.contains("/t/deps2/z.rs") && !kept.contains("/t/deps/"), "{kept}");
        assert_eq!(to_real(&kept, &here("/u")), TEXT.replace("/t/deps/", "/u/"));
        assert_eq!(to_virtual("\u{1}b/x", &here("/t/deps")), None);
        let of = |paths: &[&str]| dep_info_to_virtual(TEXT, paths, &here("/t/deps")).unwrap();
        assert_eq!(of(&["OUT_DIR"]), kept);
        assert!(of(&[]).contains("OUT_DIR=/t/deps/out\n") && !of(&[]).contains("/t/deps/liba"));
        let odd = DepInfo::read("a.d: x$$y.rs a\\#b.rs c\\ d.rs\n").sources;
        assert_eq!(odd, ["x$$y.rs", "a\\#b.rs", "c d.rs"]);
    }

    #[test]
    fn messages_that_name_the_place_are_told_from_those_that_name_outputs() {
        let artifact =
            "{\"$message_type\":\"artifact\",\"artifact\":\"/t/deps/liba.rmeta\",\"emit\":\"metadata\"}\n";
        let messages = messages_to_virtual(artifact.as_bytes(), &here("/t/deps")).unwrap();
        assert!(!messages.are_for_people && !messages.name_the_place);
        assert_eq!(messages_to_real(&messages.text, &here("/u/d")), artifact.replace("/t/deps", "/u/d"));
        let warning = "{\"$message_type\":\"diagnostic\",\"message\":\"in /t/deps/out/x.rs\"}\n";
        let messages = messages_to_virtual(format!("{artifact}{warning}").as_bytes(), &here("/t/deps"));
        assert!(messages.is_some_and(|messages| messages.are_for_people && messages.name_the_place));
    }
}
