//! rustc, as `RUSTC_WRAPPER`: what a call reads, what it leaves, and when that may be taken from a cache.
//!
//! A call is understood ([`arguments`]), placed ([`situation`]) and given a key ([`asked`]): the command, the compiler
//! ([`identity`]), the crates that it names, its first source, and what cargo says of the package. Under that key is kept
//! what was read by such calls before ([`crate::direct::call`]). If it is all as it was, the result is the answer
//! ([`answering`]); if not, rustc is run, on a worker ([`action`], [`elsewhere`]) or here, and says in dep-info what it reads,
//! and by its linker what that does ([`keeping`], [`linking`]).

pub mod account;
pub mod action;
pub mod answering;
pub mod archive;
pub mod arguments;
pub mod asked;
pub mod behind;
pub mod elsewhere;
pub mod flags;
pub mod identity;
pub mod keeping;
pub mod linking;
pub mod out_dir;
pub mod package;
pub mod passed;
pub mod situation;
pub mod texts;

use std::path::Path;

/// What rustc is called.
const NAME: &str = "rustc";

/// Whether a program's name is rustc's.
pub fn is_rustc(name: &str) -> bool {
    Path::new(name).file_stem().is_some_and(|stem| stem == NAME)
}

/// Whether the name of a file has this ending.
fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}
