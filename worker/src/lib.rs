//! Runs actions: fetches their inputs, confines their commands, uploads their outputs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod sandbox;

/// Turns this process into the sandbox of one command if it was started to be that.
///
/// Every program that runs a worker calls this first thing in `main`, before it starts a second
/// thread: commands are confined by a fresh, single-threaded start of the same program.
pub fn enter_sandbox_if_asked() {
    sandbox::enter_if_asked();
}
