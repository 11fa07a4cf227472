//! Platform conditionals and `unsafe` stand in their homes, and nowhere else in what we ship.

use std::ops::Range;

use super::scan::{between_brackets, line_of, words};
use super::tree::Tree;
use super::{holds, says};

/// Words in a `cfg` that choose a platform.
const PLATFORM: [&str; 7] =
    ["unix", "windows", "target_os", "target_family", "target_env", "target_vendor", "target_abi"];

/// A folder whose children may be for one platform only, and the beginnings of those children's names. In the
/// folder's `mod.rs`, a conditional may stand before the lines that choose a child, and nowhere else.
const PLATFORM_HOMES: [(&str, &[&str]); 3] = [
    ("worker/src/sandbox/", &["linux", "macos", "unix", "windows"]),
    ("cas/src/files/", &["unix", "windows"]),
    ("client/src/local/", &["unix", "windows"]),
];
const UNSAFE_HOME: &str = "worker/src/sandbox/";

/// What measures and tests us from outside may do as the platform wants.
fn is_free(path: &str) -> bool {
    path.starts_with("bench/")
        || path.starts_with("tests/")
        || path.contains("/tests/") && !path.contains("/src/")
}

fn strayed_conditionals(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, layers) in tree.rust().filter(|(path, _)| !is_free(path)) {
        let tests = test_modules(&layers.code);
        for (at, condition) in conditionals(&layers.code, &PLATFORM) {
            let rest = &layers.code[at..];
            let is_chosen = is_chooser(path) && chooses_a_child(rest, condition);
            let is_test = is_for_tests(condition) || tests.iter().any(|module| module.contains(&at));
            if !in_platform_home(path) && !is_chosen && !is_test {
                let line = line_of(&layers.code, at);
                breaches.push(format!("{path}:{line}: a platform conditional away from its home"));
            }
        }
    }
    breaches
}

/// Where the modules are that are there for tests only.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let conditions =
        conditionals(code, &["test"]).into_iter().filter(|(_, condition)| is_for_tests(condition));
    let modules = conditions.filter(|(at, condition)| chooses_a_child(&code[*at..], condition));
    modules
        .filter_map(|(at, _)| {
            let open = at + code[at..].find(['{', ';'])?;
            Some(at..open + between_brackets(code, open).len())
        })
        .collect()
}

/// Whether a condition is never true outside of tests: `test`, or `all(…)` with `test` among plain words.
fn is_for_tests(condition: &str) -> bool {
    let mut all = words(condition).map(|(_, word)| word);
    condition.trim() == "test"
        || all.next() == Some("all")
            && all.all(|word| word != "any" && word != "not")
            && words(condition).any(|(_, word)| word == "test")
}

/// Every `cfg`, `cfg!` and `cfg_attr` with one of some words: where it begins, and what is in its brackets.
fn conditionals<'a>(code: &'a str, wanted: &[&str]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let after = &code[at + word.len()..];
        let gap = after.len() - after.trim_start_matches([' ', '!', '\n']).len();
        if matches!(word, "cfg" | "cfg_attr") && after[gap..].starts_with('(') {
            let condition = between_brackets(code, at + word.len() + gap);
            if words(condition).any(|(_, word)| wanted.contains(&word)) {
                found.push((at, condition));
            }
        }
    }
    found
}

fn in_platform_home(path: &str) -> bool {
    PLATFORM_HOMES.iter().any(|(folder, children)| {
        let child = path.strip_prefix(folder);
        child.is_some_and(|child| children.iter().any(|start| child.starts_with(start)))
    })
}

fn is_chooser(path: &str) -> bool {
    PLATFORM_HOMES.iter().any(|(folder, _)| path.strip_prefix(folder) == Some("mod.rs"))
}

/// Whether what follows `cfg(…)]` is a `mod` or a `use`, perhaps after further attributes and a `pub(…)`.
fn chooses_a_child(rest: &str, condition: &str) -> bool {
    let mut after =
        rest[rest.find(condition).unwrap_or(0) + condition.len()..].trim_start_matches([')', ']']);
    loop {
        after = after.trim_start();
        if after.starts_with("#[") {
            after = after[2 + between_brackets(after, 1).len()..].trim_start_matches(']');
        } else if after.starts_with("pub(") {
            after = after[5 + between_brackets(after, 3).len()..].trim_start();
        } else if let Some(item) = after.strip_prefix("pub ") {
            after = item;
        } else {
            return after.starts_with("mod ") || after.starts_with("use ");
        }
    }
}

fn strayed_unsafe(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, layers) in tree.rust().filter(|(path, _)| !is_free(path) && !path.starts_with(UNSAFE_HOME)) {
        for (at, word) in words(&layers.code).filter(|(_, word)| matches!(*word, "unsafe" | "unsafe_code")) {
            breaches.push(format!("{path}:{}: `{word}` away from its home", line_of(&layers.code, at)));
        }
    }
    breaches
}

/// Each `unsafe` block and impl has its reason in the comment right above it, or on its line.
fn unsafe_without_reason(tree: &Tree) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, layers) in tree.rust() {
        let comments: Vec<_> = layers.comments.lines().map(str::trim).collect();
        let code: Vec<_> = layers.code.lines().map(str::trim).collect();
        for (at, _) in words(&layers.code).filter(|(_, word)| *word == "unsafe") {
            let line = line_of(&layers.code, at);
            let above = (0..line - 1).rev().take_while(|above| code[*above].is_empty());
            let reason =
                std::iter::once(line - 1).chain(above).any(|near| comments[near].contains("SAFETY:"));
            let begins = layers.code[at..].trim_start_matches("unsafe").trim_start();
            if !reason && (begins.starts_with('{') || begins.starts_with("impl")) {
                breaches.push(format!("{path}:{line}: `unsafe` without a `SAFETY:` above it"));
            }
        }
    }
    breaches
}

#[test]
fn platform_conditionals_are_at_home() {
    holds(strayed_conditionals);
}

#[test]
fn unsafe_is_at_home() {
    holds(strayed_unsafe);
}

#[test]
fn every_unsafe_has_its_reason() {
    holds(unsafe_without_reason);
}

#[test]
fn a_strayed_conditional_is_seen() {
    let breach = ["cas/src/a.rs:1: a platform conditional away from its home"];
    for code in [
        "#[cfg(unix)] fn a() {}",
        "#[cfg(any(test, target_os = \"linux\"))] fn a() {}",
        "fn a() { if cfg!(windows) {} }",
        "#![cfg_attr(not(target_family = \"unix\"), allow(unused))]",
    ] {
        says(strayed_conditionals, "cas/src/a.rs", code, &breach);
        for home in ["worker/src/sandbox/linux.rs", "worker/src/sandbox/linux/mounts.rs", "tests/a.rs"] {
            says(strayed_conditionals, home, code, &[]);
        }
    }
    let after = "#[cfg(test)] mod tests {}\n#[cfg(unix)] fn a() {}";
    says(
        strayed_conditionals,
        "cas/src/a.rs",
        after,
        &["cas/src/a.rs:2: a platform conditional away from its home"],
    );
    for code in [
        "#[cfg(test)] mod tests { #[cfg(unix)] #[test] fn a() {} }",
        "#[cfg(all(test, unix))] mod tests {}",
        "#[cfg(test)] mod tests {}",
        "// cfg(unix)",
        "let a = \"cfg(unix)\";",
        "fn windows() {}",
    ] {
        says(strayed_conditionals, "cas/src/a.rs", code, &[]);
    }
}

#[test]
fn a_chooser_only_chooses() {
    let path = "cas/src/files/mod.rs";
    for code in [
        "#[cfg(unix)]\nmod unix;",
        "#[cfg(unix)]\npub(crate) use unix::Place;",
        "#[cfg_attr(windows, path = \"windows.rs\")]\n#[allow(a)]\npub mod place;",
    ] {
        says(strayed_conditionals, path, code, &[]);
    }
    let breach = ["cas/src/files/mod.rs:1: a platform conditional away from its home"];
    says(strayed_conditionals, path, "#[cfg(unix)]\nfn a() {}", &breach);
    says(strayed_conditionals, path, "fn a() { cfg!(unix) }", &breach);
}

#[test]
fn a_strayed_unsafe_is_seen() {
    says(strayed_unsafe, "cas/src/a.rs", "\nunsafe {}", &["cas/src/a.rs:2: `unsafe` away from its home"]);
    let allowed = "#![allow(unsafe_code)]";
    says(strayed_unsafe, "cas/src/a.rs", allowed, &["cas/src/a.rs:1: `unsafe_code` away from its home"]);
    says(strayed_unsafe, "cas/src/a.rs", "// unsafe\nlet a = \"unsafe\";", &[]);
    says(strayed_unsafe, "worker/src/sandbox/linux.rs", "unsafe {}", &[]);
}

#[test]
fn an_unsafe_without_a_reason_is_seen() {
    let breach = ["a.rs:2: `unsafe` without a `SAFETY:` above it"];
    says(unsafe_without_reason, "a.rs", "let a = 1;\nunsafe { b() }", &breach);
    says(
        unsafe_without_reason,
        "a.rs",
        "// SAFETY: c.\nlet a = 1; let b =\nunsafe { b() }",
        &["a.rs:3: `unsafe` without a `SAFETY:` above it"],
    );
    says(unsafe_without_reason, "a.rs", "// SAFETY: because\n// of this.\nunsafe { b() }", &[]);
    says(unsafe_without_reason, "a.rs", "unsafe fn a() {}", &[]);
}
