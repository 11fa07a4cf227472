//! The first level of the key: calls that are recognised without starting a process, and all that must keep them from
//! being recognised. The oracle is the bare compiler, each time.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::symlink;

use support::{Project, cxx_compilers, shown};

/// Compiles twice; the second has to be recognised at once.
fn check_recognised(project: &Project, line: &str) -> Vec<u8> {
    let object = project.check(line);
    let _ = project.counters();
    assert_eq!(project.check(line), object);
    let counters = project.counters();
    assert_eq!(counters.number("preprocessed"), 0, "{line}: {}", counters.0);
    assert_eq!(counters.local(), [1, 1, 0, 0], "{line}: {}", counters.0);
    object
}

/// A change after which the call is recognised again, and before which it was; the object has to differ.
fn check_change(project: &Project, line: &str, change: impl FnOnce()) {
    let before = check_recognised(project, line);
    change();
    assert_ne!(check_recognised(project, line), before, "{line}: the change doesn't show");
}

#[test]
fn a_call_is_recognised_without_the_preprocessor() {
    for compiler in cxx_compilers() {
        let project = Project::with(&[
            ("src/a.cc", "#include <map>\n#include \"h.h\"\n#include <deep/b.h>\nint x = H + B;\n"),
            ("src/h.h", "#pragma once\n#define H 1\n"),
            ("i/deep/b.h", "#include \"c.h\"\n#if __has_include(\"d.h\")\n#endif\n"),
            ("i/deep/c.h", "#define B 2\n"),
        ]);
        for flags in [
            "-Ii",
            "-Ii -Inone -isystem i -O2 -Wall",
            "-iquote i -Ii -g -std=c++17",
            "-include i/deep/c.h -Ii",
        ] {
            check_recognised(&project, &format!("{compiler} {flags} -c src/a.cc"));
        }
        let root = shown(&project.root);
        check_recognised(&project, &format!("{compiler} -I{root}/i -c {root}/src/a.cc"));
    }
}

#[test]
fn what_is_edited_and_edited_back_is_recognised_again() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
    let one = check_recognised(&project, "gcc -c a.c");
    project.write("h.h", "#define H 2\n");
    assert_ne!(check_recognised(&project, "gcc -c a.c"), one);
    project.write("h.h", "#define H 1\n");
    let _ = project.counters();
    assert_eq!(project.check("gcc -c a.c"), one);
    assert_eq!(project.counters().number("preprocessed"), 0, "it has been seen before");
}

#[test]
fn another_checkout_is_recognised() {
    for compiler in cxx_compilers() {
        let here = Project::with(&[
            ("src/a.cc", "#include \"../i/h.h\"\nint x = H;\n"),
            ("i/h.h", "#define H 1\n#warning w\n"),
        ]);
        let there = here.copy("a-much-longer-way-to-the-other-checkout-of-this");
        for line in ["-c src/a.cc", "-I{root}/i -c {root}/src/a.cc", "-MD -MF {root}/d -c {root}/src/a.cc"] {
            let in_root =
                |project: &Project| format!("{compiler} {}", line.replace("{root}", &shown(&project.root)));
            here.check(&in_root(&here));
            let _ = here.counters();
            there.check(&in_root(&there));
            let counters = there.counters();
            assert_eq!(counters.number("preprocessed"), 0, "{line}: {}", counters.0);
        }
    }
}

#[test]
fn another_machine_recognises_what_was_seen_elsewhere() {
    for compiler in cxx_compilers() {
        let mut here = Project::with(&[("a.cc", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
        let shared = here.root.parent().unwrap().join("shared");
        here.set("CASTWORK_REMOTE", &format!("file://{}", shown(&shared)));
        let mut there = here.copy("elsewhere");
        there.variables.clone_from(&here.variables);
        there.cache = there.root.join("own-cache");
        let line = format!("{compiler} -O2 -MD -MF d -c a.cc");
        here.check(&line);
        there.check(&line);
        let counters = there.counters();
        let numbers = ["remote_hits", "preprocessed"].map(|name| counters.number(name));
        assert_eq!(numbers, [1, 0], "{compiler}: {}", counters.0);
        // From now on by itself.
        there.set("CASTWORK_REMOTE", "");
        check_recognised(&there, &line);
        there.set("CASTWORK_REMOTE", &here.variables[0].1);
        there.write("h.h", "#define H 2\n");
        there.check(&line);
        here.check(&line);
        here.write("h.h", "#define H 2\n");
        let _ = here.counters();
        here.check(&line);
        let counters = here.counters();
        let numbers = ["remote_hits", "preprocessed"].map(|name| counters.number(name));
        assert_eq!(numbers, [1, 0], "{compiler}: {}", counters.0);
    }
}

#[test]
fn dependency_files_are_what_the_compiler_writes() {
    for compiler in cxx_compilers() {
        let here = Project::with(&[
            ("src/a.cc", "#include \"h.h\"\n#include <string>\n"),
            ("src/h.h", ""),
            ("out/x", ""),
        ]);
        let there = here.copy("another-place-with-a-long-name-in-its-path");
        for flags in [
            "-MD",
            "-MMD",
            "-MD -MP",
            "-MMD -MP -MT out/a.o",
            "-MD -MQ a$b -MT two",
            "-MD -MT {root}/out/a.o -I{root}/src",
        ] {
            for project in [&here, &there, &here] {
                let flags = flags.replace("{root}", &shown(&project.root));
                let depfile = |program: &str| {
                    let _ = std::fs::remove_file(project.root.join("out/d"));
                    let line = format!("{compiler} {flags} -MF out/d -c src/a.cc -o out/a.o");
                    let ran = if program == "plain" { project.plain(&line) } else { project.cached(&line) };
                    assert!(ran.status.success());
                    std::fs::read_to_string(project.root.join("out/d")).unwrap()
                };
                let plain = depfile("plain");
                assert_eq!(depfile("cached"), plain, "{compiler} {flags}");
                let _ = project.counters();
                assert_eq!(depfile("cached"), plain, "{compiler} {flags}, the second time");
                assert_eq!(project.counters().number("preprocessed"), 0, "{compiler} {flags}");
            }
        }
    }
}

#[test]
fn a_header_that_comes_first_is_seen_wherever_it_appears() {
    for compiler in cxx_compilers() {
        for (include, flags, appears) in [
            ("<h.h>", "-Ifirst -Isecond", "first/h.h"),
            ("<h.h>", "-Inone -Isecond", "none/h.h"),
            ("\"h.h\"", "-Isecond", "src/h.h"),
            ("\"h.h\"", "-iquote none -Isecond", "none/h.h"),
            ("<sub/h.h>", "-Ifirst -Isecond", "first/sub/h.h"),
            ("<sub/../h.h>", "-Ifirst -Isecond", "first/h.h"),
            ("<h.h>", "-isystem none -isystem second", "none/h.h"),
        ] {
            let project = Project::with(&[
                ("src/a.cc", &format!("#include {include}\nint x = H;\n")),
                ("second/h.h", "#define H 1\n"),
                ("second/sub/h.h", "#define H 1\n"),
                ("first/other.h", ""),
                // For the way through it; the header itself is not there.
                ("first/sub/other.h", ""),
            ]);
            check_change(&project, &format!("{compiler} {flags} -c src/a.cc"), || {
                project.write(appears, "#define H 2\n");
            });
        }
    }
}

#[test]
fn a_header_that_a_header_finds_beside_itself_is_seen() {
    let project = Project::with(&[
        ("a.c", "#include <one/outer.h>\nint x = H;\n"),
        ("i/one/outer.h", "#include \"inner.h\"\n"),
        ("j/inner.h", "#define H 1\n"),
    ]);
    check_change(&project, "gcc -Ii -Ij -c a.c", || project.write("i/one/inner.h", "#define H 2\n"));
}

#[test]
fn a_header_that_include_next_would_find_is_seen() {
    let project = Project::with(&[
        ("a.c", "#include <h.h>\nint x = H;\n"),
        ("first/h.h", "#include_next <h.h>\n"),
        ("second/other.h", ""),
        ("third/h.h", "#define H 1\n"),
    ]);
    check_change(&project, "gcc -Ifirst -Isecond -Ithird -c a.c", || {
        project.write("second/h.h", "#define H 2\n");
    });
}

#[test]
fn a_folder_that_becomes_another_is_seen() {
    let project = Project::with(&[
        ("a.c", "#include <h.h>\nint x = H;\n"),
        ("one/h.h", "#define H 1\n"),
        ("two/h.h", "#define H 2\n"),
        ("three/h.h", "#define H 3\n"),
    ]);
    let link = project.root.join("link");
    symlink("one", &link).unwrap();
    check_change(&project, "gcc -Ilink -c a.c", || {
        std::fs::remove_file(&link).unwrap();
        symlink("two", &link).unwrap();
        project.write("tick", "");
    });
    // One that becomes another's twin: the compiler leaves one of them out.
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    project.write("link/other.h", "");
    let line = "gcc -Ilink -Ithree -isystem two -c a.c";
    let before = check_recognised(&project, line);
    std::fs::remove_dir_all(&link).unwrap();
    symlink("two", &link).unwrap();
    std::fs::remove_file(project.root.join("three/h.h")).unwrap();
    project.write("tick", "");
    assert_ne!(project.check(line), before);
}

#[test]
fn a_header_behind_a_link_that_led_nowhere_is_seen() {
    let project = Project::with(&[
        ("a.c", "#include <h.h>\nint x = H;\n"),
        ("first/other.h", ""),
        ("second/h.h", "#define H 1\n"),
        ("gen/other.h", ""),
    ]);
    symlink("../gen/h.h", project.root.join("first/h.h")).unwrap();
    check_change(&project, "gcc -Ifirst -Isecond -c a.c", || project.write("gen/h.h", "#define H 2\n"));
}

#[test]
fn a_precompiled_header_that_appears_is_seen() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
    check_recognised(&project, "gcc -c a.c");
    assert!(project.plain("gcc -DY -x c-header h.h -o h.h.gch").status.success());
    project.check("gcc -c a.c");
    assert_eq!(project.counters().reason("precompiled header"), 1);
}

#[test]
fn sources_that_name_their_files_themselves_are_always_preprocessed() {
    let project = Project::with(&[
        ("a.c", "# 1 \"i/x.h\" 1\n#include \"h.h\"\n# 3 \"a.c\" 2\nint x = H;\n"),
        ("i/x.h", ""),
        ("h.h", "#define H 1\n"),
    ]);
    project.check("gcc -c a.c");
    let _ = project.counters();
    project.check("gcc -c a.c");
    assert_eq!(project.counters().number("preprocessed"), 1);
}

#[test]
fn a_date_counts_only_where_it_gets_in() {
    let mut project = Project::with(&[("a.c", "int x;\n"), ("b.c", "const char *d = __DATE__;\n")]);
    project.set("SOURCE_DATE_EPOCH", "1000000000");
    let dated = check_recognised(&project, "gcc -c b.c");
    check_recognised(&project, "gcc -c a.c");
    project.set("SOURCE_DATE_EPOCH", "1100000000");
    project.check("gcc -c a.c");
    assert_eq!(project.counters().number("preprocessed"), 0);
    assert_ne!(check_recognised(&project, "gcc -c b.c"), dated);
}

#[test]
fn a_cache_that_was_damaged_is_no_harm() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
    let object = check_recognised(&project, "gcc -c a.c");
    let damage = |change: &dyn Fn(&std::path::Path)| {
        let mut folders = vec![project.cache.clone()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    change(&entry.path());
                }
            }
        }
    };
    damage(&|file| {
        let mut bytes = std::fs::read(file).unwrap();
        for byte in &mut bytes {
            *byte ^= 0x55;
        }
        let _ = std::fs::remove_file(file);
        std::fs::write(file, bytes).unwrap();
    });
    assert_eq!(check_recognised(&project, "gcc -c a.c"), object);
    damage(&|file| std::fs::File::create(file).unwrap().set_len(100).unwrap());
    assert_eq!(check_recognised(&project, "gcc -c a.c"), object);
    damage(&|file| std::fs::remove_file(file).unwrap());
    assert_eq!(check_recognised(&project, "gcc -c a.c"), object);
}

#[test]
fn a_way_back_after_a_symbolic_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("real/deep")).unwrap();
    symlink("real/deep", folder.path().join("link")).unwrap();
    let root = folder.path().to_str().unwrap().to_owned();
    let place = castwork::paths::Place::new(root.clone(), Some(root)).unwrap();
    assert_eq!(place.locate("link/../x.h").unwrap_err().as_str(), "`..` after a symbolic link");
    assert!(place.locate("link/x.h").is_ok());
}
