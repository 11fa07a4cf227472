//! The flags of rustc that are understood.

use crate::reason::Reason;

/// Whether a flag has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It has none.
    Nothing,
    /// It has one, joined or as the next word.
    Value,
}

/// How a kind of crate comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By rustc alone.
    Archived,
    /// By the linker.
    Linked,
}

/// How a kind of crate comes to be; `None` for those that are not understood.
pub fn kind(name: &str) -> Option<Kind> {
    match name {
        "lib" | "rlib" => Some(Kind::Archived),
        "bin" | "cdylib" | "proc-macro" => Some(Kind::Linked),
        _ => None,
    }
}

/// Flags with a value, long and short.
const WITH_VALUE: [&str; 20] = [
    "--cfg",
    "--check-cfg",
    "--crate-type",
    "--crate-name",
    "--edition",
    "--emit",
    "--out-dir",
    "--target",
    "--allow",
    "--warn",
    "--deny",
    "--forbid",
    "--force-warn",
    "--cap-lints",
    "--extern",
    "--error-format",
    "--json",
    "--color",
    "--diagnostic-width",
    "--remap-path-prefix",
];

/// Short flags with a value.
const SHORT_WITH_VALUE: [&str; 7] = ["-L", "-l", "-C", "-A", "-W", "-D", "-F"];

/// Flags without one.
const ALONE: [&str; 5] = ["--test", "-g", "-O", "-v", "--verbose"];

/// Flags that ask a question.
const QUESTIONS: [&str; 8] = ["--print", "--version", "-V", "-vV", "-Vv", "--help", "-h", "--explain"];

/// Tells a flag from its value, if that is joined to it.
///
/// # Errors
/// The reason to pass the call through, if the flag is not understood.
pub fn split(word: &str) -> Result<(&str, Takes, Option<&str>), Reason> {
    let (name, joined) = match word.split_once('=') {
        Some((name, value)) if word.starts_with("--") => (name, Some(value)),
        _ => (word, None),
    };
    if QUESTIONS.contains(&name) {
        return Err("asks about the compiler".into());
    }
    if name == "--codegen" {
        return Ok(("-C", Takes::Value, joined));
    }
    if WITH_VALUE.contains(&name) {
        return Ok((name, Takes::Value, joined));
    }
    if ALONE.contains(&name) && joined.is_none() {
        return Ok((name, Takes::Nothing, None));
    }
    if !name.starts_with("--") && name.is_char_boundary(2) {
        let (short, rest) = word.split_at(2);
        if SHORT_WITH_VALUE.contains(&short) {
            return Ok((short, Takes::Value, Some(rest).filter(|rest| !rest.is_empty())));
        }
        if matches!(short, "-Z" | "-o") {
            return Err(Reason::of(format!("flag `{short}`")));
        }
    }
    Err(Reason::of(format!("unknown flag `{name}`")))
}

/// Keys of `-C` that change what is made of the same files, and read or write no others.
const CODEGEN: [&str; 35] = [
    "code-model",
    "codegen-units",
    "collapse-macro-debuginfo",
    "control-flow-guard",
    "debug-assertions",
    "debuginfo",
    "default-linker-libraries",
    "dlltool",
    "dwarf-version",
    "embed-bitcode",
    "force-frame-pointers",
    "force-unwind-tables",
    "inline-threshold",
    "instrument-coverage",
    "link-dead-code",
    "link-self-contained",
    "linker-flavor",
    "linker-features",
    "linker-plugin-lto",
    "lto",
    "metadata",
    "no-prepopulate-passes",
    "no-redzone",
    "no-vectorize-loops",
    "no-vectorize-slp",
    "opt-level",
    "overflow-checks",
    "panic",
    "prefer-dynamic",
    "relocation-model",
    "relro-level",
    "soft-float",
    "strip",
    "symbol-mangling-version",
    "target-feature",
];

/// Checks a key of `-C`.
///
/// # Errors
/// The reason to pass the call through.
pub fn check_codegen(key: &str, value: &str) -> Result<(), Reason> {
    match (key, value) {
        ("incremental", _) => Err("incremental compilation".into()),
        // What that is depends on the machine.
        ("target-cpu" | "tune-cpu", "native") => Err(Reason::of(format!("`-C {key}=native`"))),
        ("target-cpu", _) | ("split-debuginfo", "off") => Ok(()),
        // Such debug information is in files of its own.
        ("split-debuginfo", _) => Err("`-C split-debuginfo`".into()),
        _ if CODEGEN.contains(&key) => Ok(()),
        _ => Err(Reason::of(format!("unknown flag `-C {key}`"))),
    }
}
