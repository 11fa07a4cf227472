//! Thirty ways out of a sandbox, each tried by a real program: none leads anywhere, and the next
//! action finds nothing of it. `tests/abuse` prints which were tried where.
//!
//! Runs twice where it is started as root: as root, and once more as a user without privileges.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it has to be")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod outputs;
mod processes;
mod reach;
mod requests;
mod trial;

#[test]
fn none_of_it_works_for_a_user_without_privileges() {
    common::run_again_unprivileged("none_of_it_works_for_a_user_without_privileges");
}
