//! Debug information that moves: its paths are virtual in an object as it is kept, and real where it is delivered.
//!
//! gcc's DWARF 5 has all its paths in one table, `.debug_line_str`, and nothing but relocations says where in it. So an
//! object is taken apart, names in the table are replaced, and it is put together as the assembler would have: what
//! comes out is, byte by byte, what the compiler gives in that folder. Whatever is not understood is refused, and is
//! then right in its folder only.

pub(crate) mod parts;
mod table;

use std::path::Path;

use crate::command_line::{Argument, Compile};
use crate::dependencies::position;
use crate::paths::{Mount, Place};
use crate::toolchain::{Family, Toolchain};
use parts::Parts;

/// Fewest bytes in the name of a folder: gcc puts shorter texts where they are needed, and not into the table.
const NAME_BYTES_MIN: usize = 4;

/// Words beside those of debug information that put paths elsewhere, or make another format of it, by how they begin.
const STAYING: [&str; 5] = ["-fdebug-types-section", "-m32", "-mx32", "-flto", "-ffat-lto"];

/// Words of debug information with which all paths are in the table.
const MOVING: [&str; 21] = [
    "-g",
    "-g0",
    "-g1",
    "-g2",
    "-ggdb",
    "-ggdb0",
    "-ggdb1",
    "-ggdb2",
    "-gdwarf",
    "-gdwarf-5",
    "-gcolumn-info",
    "-gno-column-info",
    "-gstatement-frontiers",
    "-gno-statement-frontiers",
    "-gvariable-location-views",
    "-gno-variable-location-views",
    "-ginline-points",
    "-gno-inline-points",
    "-gstrict-dwarf",
    "-gno-strict-dwarf",
    "-grecord-gcc-switches",
];

/// Whether the debug information of a compile may move: if not, its object is right in one folder only.
pub fn may_move(compile: &Compile, toolchain: &Toolchain) -> bool {
    let is_known = toolchain.family == Family::Gcc
        && toolchain.major >= 11
        && toolchain.mode.is_none()
        && is_for_linux(&toolchain.frontend)
        && toolchain.assembler.as_ref().is_some_and(|assembler| assembler.is_gnu)
        && compile.dwarf_version.unwrap_or(toolchain.default_dwarf_version()) == 5;
    let is_plain = |argument: &Argument| match argument {
        Argument::Words(words) => !words.iter().any(|word| {
            word.starts_with("-g") && !MOVING.contains(&word.as_str())
                || STAYING.iter().any(|staying| word.starts_with(staying))
        }),
        Argument::PrefixMap { .. } => false,
        Argument::SearchDir { .. } | Argument::IncludeFile { .. } | Argument::LinkOnly(_) => true,
    };
    compile.has_debug && is_known && compile.place_matters.is_none() && compile.arguments.iter().all(is_plain)
}

/// Whether a front end is for a system with ELF objects, by the folder of its target: `…/gcc/x86_64-linux-gnu/12/cc1`.
pub(crate) fn is_for_linux(frontend: &Path) -> bool {
    frontend.components().any(|part| {
        let target = part.as_os_str().to_string_lossy();
        ["x86_64-", "aarch64-"].iter().any(|machine| target.starts_with(machine)) && target.contains("linux")
    })
}

/// Whether all paths in a folder are in the table.
pub const fn is_in_table(mount: &Mount) -> bool {
    mount.real.len() >= NAME_BYTES_MIN
}

/// An object of this place, as it is kept. `None` if it doesn't come back as it was.
pub fn to_virtual(object: &[u8], place: &Place) -> Option<Vec<u8>> {
    let parts = Parts::of(object)?;
    let is_named =
        |text: &[u8]| place.mounts().iter().any(|mount| position(text, mount.real.as_bytes()).is_some());
    if parts.unloaded().any(|(name, text)| name != table::NAME && is_named(text)) {
        return None;
    }
    let kept = table::rename(&parts, |path| place.virtual_name(path))?;
    let comes_back = to_real(&kept, place).is_some_and(|back| back == object);
    comes_back.then_some(kept)
}

/// A kept object, as the compiler would have made it in this place.
pub fn to_real(object: &[u8], place: &Place) -> Option<Vec<u8>> {
    table::rename(&Parts::of(object)?, |name| place.real_name(name))
}
