//! Tests that need what a machine may not have.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

/// Says that a test is left out, and why; `tests/run` counts these lines.
///
/// # Panics
/// Where `CASTWORK_TESTS_MUST_RUN` is set, as in CI, which installs what tests need: there, a test that is
/// left out is a test that fails.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    assert!(env::var_os("CASTWORK_TESTS_MUST_RUN").is_none(), "`{test}` has to run here, but {reason}");
    let Some(list) = env::var_os("CASTWORK_TESTS_SKIPPED") else {
        return;
    };
    let appended = OpenOptions::new().create(true).append(true).open(&list);
    appended
        .and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()))
        .unwrap_or_else(|error| panic!("write down in `{}` what was skipped: {error}", list.display()));
}

/// Whether a program can be found; if not, the test is skipped.
pub fn have(test: &str, program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(test, &format!("there is no `{program}`"));
    }
    found
}
