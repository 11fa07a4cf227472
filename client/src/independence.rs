//! Whether an object hangs on the name of an isolated build's folder, which its text says.
//!
//! A header of a build's requirement may name itself where nothing comes of it, in an inline function that nobody calls:
//! pybind11 does. Each such build has a folder of its own, so what names it would never be found again. The object is
//! therefore compiled once more, with that folder called as it is in the key: if it is the same, it is so for every
//! build. That is only asked for texts of which nothing can be computed while compiling.

use std::process::Stdio;

use crate::command_line::{Argument, Compile};
use crate::debug_names;
use crate::dependencies::position;
use crate::link_time;
use crate::paths::{INPUT_ROOT, ISOLATED};
use crate::prepare::Understood;

/// Whether an object that was just compiled is the same however the folder of the isolated build is called.
pub fn is_proven(call: &Understood) -> bool {
    let Some(folder) = call.place.mounts().iter().find(|mount| mount.name == ISOLATED) else { return false };
    if !call.toolchain().has_macro_prefix_map() {
        return false;
    }
    let Ok(object) = std::fs::read(&call.compile.output) else { return false };
    let is_shown = if call.compile.shares_link_time() {
        link_time::shows(&object, &folder.real)
    } else {
        let shown = if call.may_move_debug { debug_names::to_virtual(&object, &call.place) } else { None };
        position(shown.as_ref().unwrap_or(&object), folder.real.as_bytes()).is_some()
    };
    !is_shown && is_same_elsewhere(call, &object, &folder.real)
}

/// Whether a compile gives the same object if the folder of the isolated build is called otherwise.
fn is_same_elsewhere(call: &Understood, object: &[u8], folder: &str) -> bool {
    let Ok(other) = tempfile::Builder::new().prefix("castwork-").suffix(".o").tempfile() else {
        return false;
    };
    let map = format!("-fmacro-prefix-map={folder}={INPUT_ROOT}/{ISOLATED}");
    // What is numbered by chance has to get the same number.
    let seed = if call.compile.shares_link_time() && !says_seed(&call.compile) {
        let Some(seed) = link_time::seed_of(object) else { return false };
        Some(seed)
    } else {
        None
    };
    let mut command = call.command_to(other.path(), [map.as_str()].into_iter().chain(seed.as_deref()));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_same = || {
        std::fs::read(other.path()).is_ok_and(|other| match &seed {
            Some(seed) => link_time::is_same_without(seed, object, &other),
            None => other == object,
        })
    };
    let is_proven = status.is_ok_and(|status| status.success()) && is_same();
    tracing::debug!(is_proven, "compiled once more, with the isolated build's folder called otherwise");
    is_proven
}

/// Whether the user says what is taken for chance.
fn says_seed(compile: &Compile) -> bool {
    compile.arguments.iter().any(|argument| match argument {
        Argument::Words(words) => words.iter().any(|word| word.starts_with("-frandom-seed")),
        _ => false,
    })
}
