//! Runs the compiler as a preprocessor: what it read is what the key has to cover.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::makefile;
use crate::command_line::{Argument, Compile, Dialect, msvc};
use crate::reason::Reason;
use crate::toolchain::{Toolchain, check_program};

/// What came out of preprocessing.
pub(super) struct Preprocessed {
    /// The text, with line markers and `#include` lines.
    pub text: Vec<u8>,
    /// What the compiler said about itself (`-v`).
    pub about: String,
    /// The dependency file.
    pub rules: String,
    /// The names in it.
    pub prerequisites: Vec<String>,
    /// When it was started and when it ended, in seconds since 1970.
    pub seconds: (u64, u64),
}

/// Preprocesses the source; writes the dependency file that the user asked for, or a temporary one.
///
/// # Errors
/// The reason to run the compiler plainly: it shall say itself what is wrong.
pub(super) fn preprocess(
    compile: &Compile,
    toolchain: &Toolchain,
    temporary: &Path,
) -> Result<Preprocessed, Reason> {
    let mut command = toolchain.command();
    for argument in &compile.arguments {
        if !matches!(argument, Argument::LinkOnly(_)) {
            command.args(compile.words_of(argument));
        }
    }
    // `-v` shows which program preprocesses and where it looks; `-dI` shows how each header was named.
    let dependency_file = match compile.dialect {
        Dialect::Gnu => {
            if compile.is_language_explicit {
                command.args(["-x", compile.language.name()]);
            }
            command.args(["-E", "-v", "-dI"]);
            let dependency_file = depend(compile, &mut command, temporary);
            command.arg(&compile.source);
            dependency_file
        }
        Dialect::Msvc => {
            command.args(["-E", "-v", "-clang:-dI", "-clang:-MD", "-clang:-MQobject"]);
            command.arg(format!("-clang:-MF{}", temporary.display()));
            command.args([msvc::language_flag(compile.language), "--", &compile.source]);
            temporary.to_owned()
        }
    };
    command.env("LC_ALL", "C").stdin(Stdio::null());
    let begun = seconds_now();
    let output = command.output().map_err(|_| Reason::new("compiler can't be started"))?;
    let failed = Reason::new("preprocessing failed");
    if !output.status.success() {
        return Err(failed);
    }
    let rules = std::fs::read_to_string(dependency_file).map_err(|_| failed)?;
    let about = String::from_utf8_lossy(&output.stderr).into_owned();
    check_program(&about, toolchain)?;
    if compile.dialect == Dialect::Msvc {
        check_source(&about, compile)?;
    }
    Ok(Preprocessed {
        text: output.stdout,
        about,
        prerequisites: makefile::prerequisites(&rules),
        rules,
        seconds: (begun, seconds_now()),
    })
}

/// Checks that clang-cl took the words for what we take them for, by what it told the compiler proper.
fn check_source(about: &str, compile: &Compile) -> Result<(), Reason> {
    let source = &compile.source;
    // Quoted or not, as clang finds it necessary.
    let ends = [source.clone(), format!("\"{source}\"")]
        .map(|source| format!(" -x {} {source}", compile.language.name()));
    let mut commands = about.lines().filter(|line| line.starts_with(" \"") && line.contains("-cc1"));
    let is_it = |line: &str| ends.iter().any(|end| line.ends_with(end));
    let is_so = commands.next().is_some_and(is_it) && commands.next().is_none();
    if is_so { Ok(()) } else { Err("command line that clang-cl reads otherwise".into()) }
}

/// Asks for the dependency file as the user did, with the names that the compiler would choose by `-o`.
fn depend(compile: &Compile, command: &mut Command, temporary: &Path) -> std::path::PathBuf {
    let wanted = &compile.dependency_file;
    let Some(name) = compile.dependency_file_name() else {
        command.args(["-MD", "-MF"]).arg(temporary).args(["-MQ", "object"]);
        return temporary.to_owned();
    };
    command.arg(if wanted.with_system_headers == Some(true) { "-MD" } else { "-MMD" });
    command.args(["-MF", &name]);
    for (flag, target) in &wanted.targets {
        command.args([flag, &target.as_str()]);
    }
    if wanted.targets.is_empty() {
        command.args(["-MQ", &compile.output]);
    }
    if wanted.has_phony_targets {
        command.arg("-MP");
    }
    name.into()
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
