//! `castwork why`: who made it a miss.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use support::{Project, shown, text};

/// The kinds of culprits, and all that is said.
fn why(project: &Project, words: &str) -> (Vec<String>, String) {
    let ran = project.cached(&format!("why --json {words}"));
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let value: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let culprits = value["culprits"].as_array().unwrap_or_else(|| panic!("{value}"));
    let kinds = culprits.iter().map(|culprit| culprit["what"].as_str().unwrap().to_owned()).collect();
    (kinds, value.to_string())
}

fn project() -> Project {
    Project::with(&[
        ("src/a.c", "#include \"h.h\"\nint f(void) { return H; }\n"),
        ("inc/h.h", "#define H 1\n"),
    ])
}

#[test]
fn the_culprit_of_a_miss_is_named() {
    let project = project();
    let compile = |line: &str| assert!(project.cached(&format!("{line} -c src/a.c -o a.o")).status.success());
    compile("gcc -Iinc -O1");
    assert_eq!(why(&project, "src/a.c").0, ["new"]);
    compile("gcc -Iinc -O2");
    let (kinds, said) = why(&project, "src/a.c");
    assert_eq!(kinds, ["flag", "flag"]);
    assert!(said.contains("`-O2` is new") && said.contains("`-O1` is gone"), "{said}");
    project.write("inc/h.h", "#define H 2\n");
    compile("gcc -Iinc -O2");
    let (kinds, said) = why(&project, "--last");
    assert_eq!(kinds, ["header"], "the nearest one is that with -O2");
    assert!(said.contains("p/inc/h.h"), "{said}");
    project.write("src/a.c", "#include \"h.h\"\nint g(void) { return H; }\n");
    compile("gcc -Iinc -O2");
    assert_eq!(why(&project, "src/../src/a.c").0, ["source"]);
}

#[test]
fn paths_that_are_not_virtual_and_places_in_results_are_named() {
    let here = project();
    let there = here.copy("there");
    let outside = Project::with(&[("one/x.h", ""), ("two/x.h", "")]);
    for folder in ["one", "two"] {
        let line = format!("gcc -Iinc -isystem {}/{folder} -c src/a.c -o a.o", shown(&outside.root));
        assert!(here.cached(&line).status.success());
    }
    let (kinds, said) = why(&here, "--last");
    assert_eq!(kinds, ["path", "path"]);
    assert!(said.contains("CASTWORK_PROJECT_ROOT") && said.contains("/two`"), "{said}");
    for project in [&here, &there] {
        assert!(project.cached("gcc -g3 -Iinc -c src/a.c -o a.o").status.success());
    }
    let (kinds, said) = why(&there, "--last");
    assert_eq!(kinds, ["place"], "{said}");
}

#[test]
fn what_was_lost_and_what_was_passed_through_is_told() {
    let project = project();
    assert_eq!(project.cached("why --last").status.code(), Some(1));
    let line = "gcc -Iinc -c src/a.c -o a.o";
    assert!(project.cached(line).status.success());
    // All results go, as by eviction, but for the accounts: those lie beside them, so they are put back.
    let folder = project.cache.join("cache/results");
    let aside = project.cache.join("aside");
    assert!(project.plain(&format!("cp -r {} {}", shown(&folder), shown(&aside))).status.success());
    for file in files(&folder) {
        std::fs::remove_file(&file).unwrap();
        if !project.cached("why src/a.c").status.success() {
            std::fs::copy(aside.join(file.strip_prefix(&folder).unwrap()), &file).unwrap();
        }
    }
    assert!(project.cached(line).status.success());
    assert_eq!(why(&project, "src/a.c").0, ["evicted"]);
    assert!(project.cached("gcc -Iinc -E src/a.c").status.success());
    let said = project.cached("why --last");
    assert!(text(&said.stdout).contains("passed through: preprocessing only"), "{}", text(&said.stdout));
}

/// All files below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
