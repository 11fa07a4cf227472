//! Where programs can't be watched.

use std::ffi::OsString;
use std::io;

use crate::local::{Called, Deeds};
use crate::run::{self, Ran};

/// Whether [`run`] can see what a program does.
pub const CAN_SEE: bool = false;

/// Runs a program as [`run::run_called`] does.
///
/// # Errors
/// If it can't be started.
pub fn run(called: &Called<'_>, _told: Option<bool>) -> io::Result<(Ran, Option<Deeds>)> {
    run::run_called(called).map(|ran| (ran, None))
}

/// Is never asked for here.
pub fn be_seen(_words: &[OsString]) -> u8 {
    run::complain("programs can't be watched on this system");
    127
}

/// Is never asked for here.
pub const fn pass_on() -> u8 {
    0
}

/// What this system says that it is.
pub fn system() -> String {
    String::new()
}

/// Who runs this.
pub fn user() -> String {
    String::new()
}

/// What our standard input is.
pub fn input() -> String {
    String::new()
}

/// Which of our standard input, output and error are terminals.
pub fn terminals() -> String {
    String::new()
}
