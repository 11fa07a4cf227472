//! `castwork toolchain`: what it says is so, and what it packs is enough.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Project, c_compilers, cross_compilers, cxx_compilers, skip, text};

fn show(project: &Project, words: &str) -> Value {
    let shown = project.cached(&format!("toolchain show --json {words}"));
    assert!(shown.status.success(), "{}{}", text(&shown.stdout), text(&shown.stderr));
    serde_json::from_slice::<Value>(&shown.stdout).unwrap()[0].clone()
}

/// The roles of what is shown.
fn roles(shown: &Value) -> BTreeSet<String> {
    let files = shown["files"].as_array().unwrap();
    files.iter().map(|file| file["role"].as_str().expect("each file has a role").to_owned()).collect()
}

#[test]
fn each_file_is_shown_with_what_it_is_there_for() {
    let project = Project::new();
    let shown = show(&project, "g++");
    let roles_found = roles(&shown);
    for role in ["driver", "front end", "assembler"] {
        assert!(roles_found.contains(role), "{role}: {roles_found:?}");
    }
    assert!(roles_found.iter().any(|role| role.starts_with("library of ")), "{roles_found:?}");
    assert!(!roles_found.contains("linker"), "no compile needs one");
    assert!(!shown["headers"].as_array().unwrap().is_empty());
    let linking = show(&project, "--link g++");
    for role in [
        "linker",
        "starts the linker",
        "link-time optimiser",
        "lets the linker optimise",
        "linked into programs",
    ] {
        assert!(roles(&linking).contains(role), "{role}: {linking}");
    }
    assert_ne!(linking["root"], shown["root"]);
    let as_text = project.cached("toolchain show g++");
    assert!(text(&as_text.stdout).contains("(front end)"), "{}", text(&as_text.stdout));
}

#[test]
fn what_is_shown_is_what_actions_take_along() {
    let project = Project::with(&[("a.c", "int f(void) { return 1; }\n")]);
    let shown = show(&project, "gcc");
    assert!(project.cached("gcc -c a.c").status.success());
    let remembered = std::fs::read_dir(project.cache.join("toolchains")).unwrap();
    let remembered: Vec<Value> = remembered
        .map(|entry| serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    assert_eq!(remembered.len(), 1, "it is asked once");
    let files = remembered[0]["toolchain"]["travel"]["Along"]["files"].as_object().unwrap();
    let shown: Vec<&str> =
        shown["files"].as_array().unwrap().iter().filter_map(|file| file["path"].as_str()).collect();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), shown);
}

#[test]
fn in_a_root_that_holds_nothing_else_a_compiler_gives_what_it_gives_here() {
    let project = Project::new();
    let compilers = cxx_compilers().into_iter().chain(cross_compilers());
    let linking = compilers.map(|compiler| (format!("--link {compiler}"), "the program is the same"));
    let compiling = c_compilers().into_iter().map(|compiler| (compiler.to_owned(), "the object is the same"));
    for (words, expected) in linking.chain(compiling) {
        let checked = project.cached(&format!("toolchain check {words}"));
        let said = text(&checked.stdout);
        if said.contains("nor user namespaces can be used") {
            return skip("a compiler in a root of its own", "there is no way into one");
        }
        assert!(
            checked.status.success() && said.contains(expected),
            "{words}: {said}{}",
            text(&checked.stderr)
        );
    }
}

#[test]
fn an_archive_is_the_same_each_time() {
    let project = Project::new();
    for name in ["a.tar", "b.tar"] {
        let packed = project.cached(&format!("toolchain pack cc --without-headers --into {name}"));
        assert!(packed.status.success(), "{}", text(&packed.stderr));
    }
    let read = |name: &str| std::fs::read(project.root.join(name)).unwrap();
    assert!(read("a.tar") == read("b.tar"));
    let again = project.cached("toolchain pack cc --without-headers --into a.tar");
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
    let unpacked = project.plain("tar -tf a.tar");
    assert!(text(&unpacked.stdout).lines().any(|line| line.ends_with("/cc1")), "{}", text(&unpacked.stdout));
}

#[test]
fn what_is_no_compiler_is_said_to_be_none() {
    let project = Project::with(&[("gcc", "#!/bin/sh\nexec gcc-12 \"$@\"\n")]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(project.root.join("gcc"), mode).unwrap();
    for (name, expected) in [("./gcc", "script"), ("castwork-no-such-cc", "no compiler")] {
        let shown = project.cached(&format!("toolchain show {name}"));
        assert_eq!(shown.status.code(), Some(1), "{name}");
        assert!(text(&shown.stderr).contains(expected), "{name}: {}", text(&shown.stderr));
    }
}
