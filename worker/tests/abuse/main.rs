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

/// What only namespaces contain: the bound on processes is the user's, `/proc` is the machine's, and there
/// is no `/tmp` to fill.
const NEED_MORE: [&str; 3] =
    ["e10_e11_a_bomb_of_processes", "e13_filling_every_disk", "e25_the_kernel_by_its_files"];

#[test]
fn most_of_it_does_not_work_without_namespaces_either() {
    let own = [
        "most_of_it_does_not_work_without_namespaces_either",
        "none_of_it_works_for_a_user_without_privileges",
    ];
    common::run_again_with_filters_only(&[&own[..], &NEED_MORE[..]].concat());
}

#[test]
fn none_of_it_works_for_a_user_without_privileges() {
    common::run_again_unprivileged("none_of_it_works_for_a_user_without_privileges");
}
