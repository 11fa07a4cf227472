//! Tells how we were called: as a compiler, in front of one, or with a subcommand.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::command_line::msvc::Driver;
use crate::config::KEYS;
use crate::wrapper::Call;

/// Words that are no compilers.
pub const SUBCOMMANDS: [&str; 19] = [
    "stats",
    "why",
    "report",
    "config",
    "doctor",
    "toolchain",
    "exec",
    "env",
    "jobs",
    "upload",
    "completions",
    "man",
    "status",
    "workers",
    "runs",
    "action",
    "drain",
    "undrain",
    "cancel",
];

/// Names, beside `clang-cl`, under which a link or copy of this program is a compiler.
const COMPILERS: [&str; 6] = ["gcc", "g++", "cc", "c++", "clang", "clang++"];

/// How we were called.
pub enum Invocation {
    /// To answer for a compiler.
    Compiler(Call),
    /// To do something else; the words from the subcommand on.
    Subcommand(Vec<OsString>),
    /// To say what we can do; whether that was asked for.
    Help {
        /// Whether it was asked for, or something is missing.
        is_asked: bool,
    },
    /// To say which version this is.
    Version,
    /// Wrongly, with what is wrong.
    Wrong(String),
}

/// Reads our own command line: the settings given as flags, and what is to be done.
pub fn read(words: impl IntoIterator<Item = OsString>) -> (BTreeMap<String, String>, Invocation) {
    let mut words = words.into_iter();
    let own_name = words.next().unwrap_or_default();
    let mut words: Vec<OsString> = words.collect();
    let mut flags = BTreeMap::new();
    if let Some(name) = Path::new(&own_name).file_stem().filter(|_| is_compiler(&own_name)) {
        // Given as a path, a link may lie outside of `PATH`: what counts is its name.
        let name = name_as_called(&own_name).unwrap_or_else(|| name.to_string_lossy().into_owned());
        return (flags, Invocation::Compiler(Call { name, arguments: words }));
    }
    loop {
        let Some(first) = words.first().and_then(|word| word.to_str()).map(str::to_owned) else {
            return (flags, Invocation::Help { is_asked: false });
        };
        match first.as_str() {
            "--help" | "-h" => return (flags, Invocation::Help { is_asked: true }),
            "--version" | "-V" => return (flags, Invocation::Version),
            word if SUBCOMMANDS.contains(&word) => return (flags, Invocation::Subcommand(words)),
            word if !word.starts_with('-') => {
                let arguments = words.split_off(1);
                return (flags, Invocation::Compiler(Call { name: first, arguments }));
            }
            word => {
                if let Err(what) = take_flag(word, &mut words, &mut flags) {
                    return (flags, Invocation::Wrong(what));
                }
            }
        }
    }
}

/// Takes `--name value` or `--name=value` off the front.
fn take_flag(
    word: &str,
    words: &mut Vec<OsString>,
    flags: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let (name, joined) =
        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
    let key = name.trim_start_matches('-').replace('-', "_");
    let is_known = name.starts_with("--") && (key == "config" || KEYS.iter().any(|known| known.name == key));
    if !is_known {
        return Err(format!("unknown flag `{name}`"));
    }
    let taken = if joined.is_some() { 1 } else { 2 };
    let value = joined.or_else(|| words.get(1).and_then(|value| value.to_str()).map(str::to_owned));
    let value = value.ok_or_else(|| format!("`{name}` without its value"))?;
    words.drain(..taken);
    flags.insert(key, value);
    Ok(())
}

/// Whether a program's name is a compiler's: with a target before it and a version behind it, or without.
pub fn is_compiler(name: &OsStr) -> bool {
    let Some(name) = name_as_called(name) else { return false };
    let without_version = match name.rsplit_once('-') {
        Some((rest, version)) if version.split('.').all(|part| part.parse::<u32>().is_ok()) => rest,
        _ => &name,
    };
    let plain = without_version.rsplit('-').next().unwrap_or(without_version);
    COMPILERS.contains(&plain) || Driver::named(Path::new(&name)) == Some(Driver::ClangCl)
}

fn name_as_called(name: &OsStr) -> Option<String> {
    let name = Path::new(name).file_name()?.to_str()?;
    Some(name.strip_suffix(".exe").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn reading(line: &str) -> (BTreeMap<String, String>, Invocation) {
        read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_compiler_is_told_from_a_subcommand() {
        let Invocation::Compiler(call) = reading("castwork g++ -c a.cc").1 else { panic!("not a compiler") };
        assert_eq!((call.name.as_str(), call.arguments.len()), ("g++", 2));
        assert!(matches!(reading("castwork stats --json").1, Invocation::Subcommand(_)));
        assert!(matches!(reading("castwork --version").1, Invocation::Version));
        assert!(matches!(reading("castwork").1, Invocation::Help { is_asked: false }));
        assert!(matches!(reading("castwork --frob gcc").1, Invocation::Wrong(_)));
    }

    #[test]
    fn every_subcommand_is_told_from_a_compiler() {
        let known = crate::commands::names();
        assert_eq!(BTreeSet::from_iter(known), SUBCOMMANDS.map(str::to_owned).into());
    }

    #[test]
    fn settings_stand_before_the_compiler() {
        let (flags, invocation) = reading("castwork --remote grpc://h:1 --max-size=1GB gcc --remote x");
        assert_eq!(flags["remote"], "grpc://h:1");
        assert_eq!(flags["max_size"], "1GB");
        let Invocation::Compiler(call) = invocation else { panic!("not a compiler") };
        assert_eq!(call.arguments, ["--remote", "x"]);
    }

    #[test]
    fn a_link_named_like_a_compiler_is_one() {
        for name in [
            "gcc",
            "/usr/lib/castwork/g++",
            "clang++-14",
            "x86_64-linux-gnu-gcc-12.2",
            "aarch64-none-elf-c++",
            "cc",
            "clang-cl",
            "/opt/llvm/bin/clang-cl-14",
        ] {
            assert!(is_compiler(OsStr::new(name)), "{name}");
        }
        for name in [
            "castwork",
            "gcc-ar",
            "cpp",
            "clang-tidy",
            "castwork-gcc-wrapper",
            "clang-format-14",
            "cl",
            "not-cl",
        ] {
            assert!(!is_compiler(OsStr::new(name)), "{name}");
        }
        let Invocation::Compiler(call) = reading("/opt/links/gcc-12 stats").1 else {
            panic!("not a compiler")
        };
        assert_eq!(call.name, "gcc-12");
    }
}
