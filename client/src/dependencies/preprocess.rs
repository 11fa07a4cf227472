//! Runs the compiler as a preprocessor: what it read is what the key has to cover.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::makefile;
use crate::command_line::{Argument, Compile};
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
            command.args(argument.words());
        }
    }
    if compile.is_language_explicit {
        command.args(["-x", compile.language.name()]);
    }
    // `-v` shows which program preprocesses and where it looks; `-dI` shows how each header was named.
    command.args(["-E", "-v", "-dI"]);
    let dependency_file = depend(compile, &mut command, temporary);
    command.arg(&compile.source);
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
    Ok(Preprocessed {
        text: output.stdout,
        about,
        prerequisites: makefile::prerequisites(&rules),
        rules,
        seconds: (begun, seconds_now()),
    })
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
