//! The delivering of an answer: object, dependency file and messages, as the compiler would have left them here.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;

use crate::coff;
use crate::command_line::Dialect;
use crate::debug_names;
use crate::direct::Entry;
use crate::files;
use crate::messages;
use crate::prepare::Understood;
use crate::reason::Reason;
use crate::tiers::{Answer, Stack};
use crate::worker_names;

/// Why an object is not kept, or not taken: its debug information is of a form that nobody has described.
pub const STAYS: Reason = Reason::new("debug information that does not move");

/// What is known of an answer that is to be delivered.
pub struct Delivery<'a> {
    /// Tells the dependency file; without one, that is written already.
    pub entry: Option<&'a Entry>,
    /// Whether paths in its object's debug information are virtual.
    pub moves_debug: bool,
    /// Whether it comes from elsewhere.
    pub is_foreign: bool,
}

impl<'a> Delivery<'a> {
    /// That of a call that was recognised.
    pub const fn known(entry: &'a Entry, is_foreign: bool) -> Self {
        Self { entry: Some(entry), moves_debug: entry.moves_debug, is_foreign }
    }
}

/// Leaves an answer where the compiler would have left it. If that fails, the compiler will say why.
pub fn deliver(call: &Understood, answer: &Answer, how: &Delivery<'_>, stack: &mut Stack<'_>) -> bool {
    let Some(object) = object_of_here(call, answer, how, stack) else { return false };
    let driver = file_name(&call.toolchain().driver);
    let Some(stdout) = stdout_of_here(call, answer) else {
        stack.reasons.push("messages that don't fit this folder".into());
        return false;
    };
    let Some(stderr) = messages::to_real(&answer.stderr, &call.place) else {
        stack.reasons.push("messages that don't fit this folder".into());
        return false;
    };
    if messages::names_program(&stderr, &driver) {
        stack.reasons.push("messages of the driver".into());
        return false;
    }
    if let (Some(entry), Some(path)) = (how.entry, call.compile.dependency_file_name()) {
        let text = entry.depfile.as_ref().and_then(|depfile| depfile.text(&call.place));
        if text.is_none_or(|text| files::write_output(Path::new(&path), text.as_bytes()).is_err()) {
            stack.reasons.push("dependency file can't be written".into());
            return false;
        }
    }
    if let Err(error) = files::write_object(Path::new(&call.compile.output), &object) {
        tracing::debug!(%error, "the object can't be written");
        stack.reasons.push("object can't be written".into());
        return false;
    }
    say(&stdout, &stderr);
    true
}

/// Says what a compiler said.
pub fn say(stdout: &[u8], stderr: &[u8]) {
    // Whoever closed our outputs doesn't want to hear; the compiler would not fail over that either.
    let _ = std::io::stdout().write_all(stdout).and_then(|()| std::io::stdout().flush());
    let _ = std::io::stderr().write_all(stderr);
}

/// What an answer says on standard output: under `/showIncludes` that is which headers were read.
fn stdout_of_here(call: &Understood, answer: &Answer) -> Option<Bytes> {
    match call.compile.dialect {
        Dialect::Gnu => Some(answer.stdout.clone()),
        Dialect::Msvc => messages::to_real(&answer.stdout, &call.place).map(Bytes::from),
    }
}

/// The object of an answer, as the compiler would have made it here. `None` if it is not known how.
fn object_of_here(
    call: &Understood,
    answer: &Answer,
    how: &Delivery<'_>,
    stack: &mut Stack<'_>,
) -> Option<Bytes> {
    let Some(object) = answer.object() else {
        stack.reasons.push("result without its object".into());
        return None;
    };
    let object = if how.moves_debug {
        let Some(object) = debug_names::to_real(object, &call.place) else {
            stack.reasons.push(STAYS);
            return None;
        };
        object.into()
    } else {
        object.clone()
    };
    if how.is_foreign && worker_names::shows(&object, &call.place) {
        stack.is_foreign = true;
        stack.reasons.push("object that names a worker's folders".into());
        return None;
    }
    if call.compile.dialect == Dialect::Msvc {
        return Some(Bytes::from(coff::with_time_of_now(&object).into_owned()));
    }
    Some(object)
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
