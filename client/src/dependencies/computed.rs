//! `#include` lines that name their header by a macro: which headers that can be, told without preprocessing.
//!
//! Most such lines are hooks that nobody uses: the macro is defined nowhere, so the line was not obeyed, or the compile
//! would have failed. Others name one that the command line or a file defines as a literal. All that it may be is taken as
//! if it stood there; which of it was obeyed shows in the files that were entered.

use std::collections::{BTreeMap, BTreeSet};

use super::closure::Gathering;
use super::includes::Include;
use super::literal::position;
use super::scan::{is_word_byte, line_before, unspliced};
use super::text::Form;
use crate::command_line::Argument;

/// An `#include` line with the name of a macro behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Computed {
    /// Where the search begins, if the macro stands for a name in quotes.
    pub form: Form,
    /// The macro.
    pub name: String,
}

impl Computed {
    /// Reads what follows the word `include`; `None` if it is more than the name of a macro.
    ///
    /// Names that begin with an underscore are the compiler's own to define.
    pub(super) fn read(operand: &[u8], form: Form) -> Option<Self> {
        let length = operand.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(operand.len());
        let (name, rest) = operand.split_at(length);
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        let is_whole = line.is_empty() || line.starts_with(b"//");
        let is_name = name.first().is_some_and(u8::is_ascii_alphabetic);
        (is_whole && is_name)
            .then(|| String::from_utf8(name.to_vec()).ok().map(|name| Self { form, name }))?
    }
}

impl Gathering<'_> {
    /// Adds to the lines of each file those that its computed ones may stand for; whether that could be told of all.
    pub(super) fn settle_computed(&mut self, arguments: &[Argument]) -> bool {
        let named = self.scans.values().flat_map(|scan| &scan.computed).map(|computed| computed.name.clone());
        let names: BTreeSet<String> = named.collect();
        let files = || self.closure.inputs.values().map(|input| &input.bytes[..]);
        let headers = names.into_iter().map(|name| {
            let headers = headers_of(&name, arguments, files())?;
            Some((name, headers))
        });
        let Some(headers) = headers.collect::<Option<BTreeMap<_, _>>>() else { return false };
        for scan in self.scans.values_mut() {
            for Computed { form, name } in std::mem::take(&mut scan.computed) {
                let includes = headers[&name].iter().map(|name| Include { form, name: name.clone() });
                for include in includes {
                    if !scan.includes.contains(&include) {
                        scan.includes.push(include);
                    }
                }
            }
        }
        true
    }
}

/// The headers that a macro can stand for; `None` if it may be something else than a name in quotes.
fn headers_of<'a>(
    name: &str,
    arguments: &[Argument],
    files: impl Iterator<Item = &'a [u8]>,
) -> Option<BTreeSet<String>> {
    let mut headers = BTreeSet::new();
    for argument in arguments {
        headers.extend(by_command(argument, name)?);
    }
    for bytes in files {
        headers.extend(by_file(bytes, name.as_bytes())?);
    }
    Some(headers)
}

/// What a part of the command defines a macro as: nothing, or one header.
fn by_command(argument: &Argument, name: &str) -> Option<Vec<String>> {
    // Files that are included are among those that were read.
    let Argument::Words(words) = argument else { return Some(Vec::new()) };
    if !words.iter().any(|word| word.contains(name)) {
        return Some(Vec::new());
    }
    let [word] = &words[..] else { return None };
    match word.strip_prefix("-D")?.split_once('=') {
        Some((defined, value)) if defined == name => Some(vec![quoted(value.as_bytes())?]),
        // Of another macro, whose value it is in; or of one with a longer name.
        Some((defined, _)) if defined.bytes().all(is_word_byte) => Some(Vec::new()),
        _ => None,
    }
}

/// What a file defines a macro as. Where it stands in a condition, or in an `#include`, it is not defined.
fn by_file(bytes: &[u8], name: &[u8]) -> Option<Vec<String>> {
    const USES: [&[u8]; 7] = [b"include", b"import", b"if", b"elif", b"undef", b"else", b"endif"];
    let mut headers = Vec::new();
    let bytes = unspliced(bytes);
    let mut from = 0;
    while let Some(at) = position(&bytes[from..], name).map(|at| from + at) {
        from = at + name.len();
        let is_longer =
            at > 0 && is_word_byte(bytes[at - 1]) || bytes.get(from).copied().is_some_and(is_word_byte);
        if is_longer {
            continue;
        }
        let before = line_before(&bytes, at);
        let directive = before.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
        if position(before, b"*/").is_some() {
            return None;
        }
        if directive == b"define" {
            let line = bytes[from..].split(|byte| *byte == b'\n').next().unwrap_or_default();
            headers.push(quoted(line.trim_ascii())?);
        } else if !USES.iter().any(|word| directive.starts_with(word)) {
            return None;
        }
    }
    Some(headers)
}

/// The name of a header in quotes; nothing else may stand there.
fn quoted(text: &[u8]) -> Option<String> {
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let is_plain = !inside.is_empty() && !inside.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'\n'));
    is_plain.then(|| String::from_utf8(inside.to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(files: &[&str], command: &[&str]) -> Option<Vec<String>> {
        let arguments: Vec<Argument> =
            command.iter().map(|word| Argument::Words(vec![(*word).to_owned()])).collect();
        let files = files.iter().map(|text| text.as_bytes());
        headers_of("HOOK", &arguments, files).map(Vec::from_iter)
    }

    #[test]
    fn a_macro_that_nobody_defines_stands_for_nothing() {
        let uses = "#ifdef HOOK\n# include HOOK\n#elif !defined(HOOK)\n#undef HOOK\n#endif // HOOK\nint HOOKS, A_HOOK;\n";
        assert_eq!(headers(&[uses, ""], &["-DA=1", "-DHOOKS"]), None, "a flag that holds the name");
        assert_eq!(headers(&[uses, ""], &["-DA=1", "-O2"]), Some(Vec::new()));
    }

    #[test]
    fn what_is_defined_as_a_literal_stands_for_that() {
        let files = ["#define HOOK \"a.h\"\n#if 0\n#  define HOOK \\\n \"sub/b.h\"\r\n#endif\n"];
        assert_eq!(headers(&files, &["-DHOOK=\"c.h\""]).unwrap(), ["a.h", "c.h", "sub/b.h"]);
        assert_eq!(headers(&[], &["-DOTHER=HOOK", "-DHOOK_2=x"]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_may_be_anything_else_is_not_told() {
        for text in [
            "#define HOOK <a.h>\n",
            "#define HOOK OTHER\n",
            "#define HOOK(x) \"a.h\"\n",
            "#define HOOK \"a.h\" \"b.h\"\n",
            "#define HOOK\n",
            "#define HO\\\nOK <a.h>\n",
            "#define /*\n*/ HOOK <a.h>\n",
            "#define /*\n#ifdef HOOK */ HOOK <a.h>\n",
            "%:define HOOK <a.h>\n",
            "??=define HOOK <a.h>\n",
            "# /**/ define HOOK <a.h>\n",
            "#pragma pop_macro(\"HOOK\")\n",
            "int HOOK;\n",
        ] {
            assert_eq!(headers(&[text], &[]), None, "{text}");
        }
        for word in ["-DHOOK", "-UHOOK", "-DHOOK=<a.h>", "-Wp,-DHOOK=\"a.h\"", "-DHOOK(x)=\"a.h\""] {
            assert_eq!(headers(&[], &[word]), None, "{word}");
        }
    }

    #[test]
    fn only_the_name_of_a_macro_is_one() {
        let read = |text: &str| Computed::read(text.as_bytes(), Form::Quoted).map(|computed| computed.name);
        for text in ["HOOK\n", "HOOK", "HOOK  \r\nx", "HOOK // why\n"] {
            assert_eq!(read(text).as_deref(), Some("HOOK"), "{text:?}");
        }
        for text in ["", "\n", "__FILE__\n", "HOOK(x)\n", "HOOK /* a\n b */ x\n", "A B\n", "\"a.h\"\n", "3\n"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
