//! Any tool by a rule: `castwork castxml …`, and `castwork run --output … -- TOOL …`.
//!
//! A [`Rule`] says how a tool's command line names what it reads and writes ([`command`]). A call is recognised as a compile
//! is, without a process ([`crate::direct`]): by its words, the tool ([`tool`]), the compiler that the tool asks what it
//! predefines ([`emulated`]), and by the files that it was seen to read ([`reads`]). If it is not, and the tool can print
//! what it would work on, its key is that text; else the files. What is kept are all outputs, in one piece ([`outputs`]):
//! a hit restores every one of them.

pub mod answer;
pub mod book;
pub mod cli;
pub mod command;
pub mod emulated;
mod leavings;
mod markers;
pub mod outputs;
pub mod reads;
mod remembered;
pub mod tool;
pub mod work;

use std::path::Path;

pub use answer::answer;
pub use book::{Book, Rule, RuleError};

use crate::config::Config;
use crate::paths::Place;
use crate::run::complain;

/// The rule for a program, if there is one; a project's rules that can't be read are complained about, and the shipped ones
/// hold.
pub fn of_program(config: &Config, program: &str) -> Option<Rule> {
    let book = Book::open(root(config).as_deref()).or_else(|error| {
        complain(&error.to_string());
        Book::open(None)
    });
    book.ok()?.for_program(program).cloned()
}

/// The root of the project that we are in.
fn root(config: &Config) -> Option<std::path::PathBuf> {
    Place::find(config.project_root.as_deref()).ok()?.root.map(|root| Path::new(&root).to_owned())
}
