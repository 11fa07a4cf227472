//! What nobody has compiled before is compiled at once: no preprocessor, and nothing kept that could be wrong.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use castwork::config::Config;
use castwork::dependencies::{Closure, Unclear, Watch};
use castwork::prepare::Understood;
use support::{Project, program, shown};

fn project() -> Project {
    Project::with(&[
        (
            "src/a.c",
            "#include <stdio.h>\n#include <assert.h>\n#include \"h.h\"\nint f(int x) { assert(x); return H; }\n",
        ),
        ("inc/h.h", "#define H 1\n"),
    ])
}

#[test]
fn a_compile_that_is_new_starts_no_preprocessor_and_is_known_afterwards() {
    for line in
        ["gcc -O2 -Iinc -c src/a.c", "gcc -O2 -g -MD -MF d -Iinc -c {root}/src/a.c", "g++ -Iinc -c src/a.c"]
    {
        let project = project();
        let line = line.replace("{root}", &shown(&project.root));
        project.check(&line);
        project.check(&line);
        let counters = project.counters();
        assert_eq!(counters.local(), [2, 1, 1, 0], "{line}: {}", counters.0);
        assert_eq!(counters.number("preprocessed"), 0, "{line}: {}", counters.0);
    }
}

#[test]
fn a_header_that_is_looked_for_and_not_included_needs_no_preprocessor() {
    // As `<span>` by what is for C++20 as well.
    let text = "#if __has_include(\"extra.h\") && defined(WANTED)\n#include \"extra.h\"\n#endif\n\
        #ifndef EXTRA\n#define EXTRA 1\n#endif\nint x = EXTRA;\n";
    let project = Project::with(&[("src/a.c", text), ("src/extra.h", "#define EXTRA 2\n")]);
    project.check("gcc -c src/a.c");
    project.check("gcc -c src/a.c");
    let counters = project.counters();
    assert_eq!(counters.local(), [2, 1, 1, 0], "{}", counters.0);
    assert_eq!(counters.number("preprocessed"), 0, "{}", counters.0);
    project.check("gcc -DWANTED -c src/a.c");
    project.check_change("gcc -DWANTED -c src/a.c", || project.write("src/extra.h", "#define EXTRA 3\n"));
    std::fs::remove_file(project.root.join("src/extra.h")).unwrap();
    project.check("gcc -DWANTED -c src/a.c");
}

#[test]
fn what_the_compiler_is_told_in_addition_is_not_in_the_object() {
    let project = project();
    for flags in [
        "-g",
        "-g3 -gdwarf-4",
        "-g -grecord-gcc-switches",
        "-frecord-gcc-switches",
        "-fverbose-asm -g",
        "-fstack-protector-all -Wa,--noexecstack",
        "-O3 -fno-asynchronous-unwind-tables -pipe",
        "-fsanitize=address,undefined",
        "-gsplit-dwarf",
        "-flto",
    ] {
        project.cached(&format!("gcc {flags} -Iinc -c src/a.c -o a.o"));
        let cached = std::fs::read(project.root.join("a.o")).unwrap();
        project.plain(&format!("gcc {flags} -Iinc -c src/a.c -o a.o"));
        // Link-time optimisation gives its sections random names.
        let is_same = cached == std::fs::read(project.root.join("a.o")).unwrap();
        assert!(is_same || flags == "-flto", "{flags}");
    }
}

#[test]
fn an_object_that_may_hold_its_place_is_preprocessed_in_another_and_shared_if_it_does_not() {
    let text = "#ifdef NAMED\nconst char *file = __FILE__;\n#endif\nint x;\n";
    let here = Project::with(&[("a.c", text)]);
    let there = here.copy("there");
    let third = here.copy("elsewhere");
    let compile = |project: &Project, flag: &str, hits: [u64; 2]| {
        project.check(&format!("gcc {flag} -c {}/a.c", project.root.display()));
        let counters = project.counters();
        let numbers = ["local_hits", "preprocessed"].map(|name| counters.number(name));
        assert_eq!(numbers, hits, "{flag}: {}", counters.0);
    };
    compile(&here, "-DPLAIN", [0, 0]);
    compile(&there, "-DPLAIN", [1, 1]);
    compile(&third, "-DPLAIN", [1, 0]);
    compile(&here, "-DNAMED", [0, 0]);
    compile(&there, "-DNAMED", [0, 1]);
    compile(&there, "-DNAMED", [1, 0]);
    compile(&here, "-DNAMED", [1, 0]);
}

#[test]
fn hooks_that_nobody_uses_and_headers_that_the_command_names_need_no_preprocessing() {
    let hooked = "#include \"h.h\"\n#ifdef HOOK\n#include HOOK\n#endif\nint f(void) { return H; }\n";
    let project = Project::with(&[
        ("a.c", hooked),
        ("h.h", "#define H 1\n"),
        ("inc/hook.h", "#undef H\n#define H 2\n"),
        ("early/other.h", ""),
    ]);
    let check = |flags: &str, is_hit: bool| {
        project.check(&format!("gcc {flags} -Iearly -Iinc -c a.c"));
        let counters = project.counters();
        assert_eq!(
            counters.local(),
            if is_hit { [1, 1, 0, 0] } else { [1, 0, 1, 0] },
            "{flags}: {}",
            counters.0
        );
        assert_eq!(counters.number("preprocessed"), 0, "{flags}: {}", counters.0);
    };
    let named = "-DHOOK=\"hook.h\"";
    check("", false);
    check("", true);
    check(named, false);
    check(named, true);
    // What is named so is read, and may come to be found elsewhere.
    project.write("inc/hook.h", "#undef H\n#define H 3\n");
    check(named, false);
    project.write("early/hook.h", "#undef H\n#define H 4\n");
    check(named, false);
    check(named, true);
    check("", true);
    // A header defines the hook now.
    project.write("h.h", "#define H 1\n#define HOOK \"hook.h\"\n");
    check("", false);
    check("", true);
    project.write("early/hook.h", "#undef H\n#define H 5\n");
    check("", false);
    std::fs::remove_file(project.root.join("early/hook.h")).unwrap();
    check("", false);
}

#[test]
fn headers_that_macros_name_are_found_by_preprocessing_afterwards() {
    let project = Project::with(&[
        ("a.c", "#define HEADER <h.h>\n#include HEADER\nint f(void) { return H; }\n"),
        ("i/h.h", "#define H 1\n"),
    ]);
    let line = "gcc -Ij -Ii -c a.c";
    project.check(line);
    assert_eq!(project.counters().number("preprocessed"), 1);
    project.check(line);
    assert_eq!(project.counters().local(), [1, 1, 0, 0]);
    project.write("j/h.h", "#define H 2\n");
    project.check(line);
}

#[test]
fn what_an_assembler_statement_reads_is_seen_however_it_is_spelled() {
    for directive in ["T(.inc) T(bin)", "T(.INC) T(BIN)", "\".Incbin\""] {
        let text = format!(
            "#define S(x) #x\n#define T(x) S(x)\n__asm__(\".data\\n\" {directive} \" \\\"data\\\"\\n.text\");\n"
        );
        let project = Project::with(&[("a.c", &text), ("data", "one\n")]);
        project.check("gcc -c a.c");
        project.write("data", "two\n");
        project.check("gcc -c a.c");
        let counters = project.counters();
        assert_eq!(counters.number("local_hits"), 0, "{directive}");
        assert_eq!(counters.reason("assembler text that reads a file"), 2, "{directive}: {}", counters.0);
    }
}

#[test]
fn words_that_are_pasted_together_are_seen() {
    let project = Project::with(&[(
        "a.c",
        "#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nint x = sizeof Q(__DA, TE__);\nconst char *d = Q(__TI, ME__);\n",
    )]);
    let line = "gcc -c a.c";
    assert!(project.cached(&format!("{line} -o a.o")).status.success());
    assert!(project.cached(&format!("{line} -o a.o")).status.success());
    assert_eq!(project.counters().number("local_hits"), 0);
}

/// Working folder and environment belong to the whole process.
static PROCESS: Mutex<()> = Mutex::new(());

/// Something that happens while a compile runs.
type Change = fn(&Project);

/// Compiles `src/a.c` with what tells what it reads, does `meanwhile`, and asks.
fn gathered(project: &Project, meanwhile: impl FnOnce(&Project)) -> Result<Closure, Unclear> {
    gathered_between(project, |_| {}, meanwhile)
}

/// The same, with something that happens before the compiler is started.
fn gathered_between(
    project: &Project,
    before: impl FnOnce(&Project),
    meanwhile: impl FnOnce(&Project),
) -> Result<Closure, Unclear> {
    let _alone = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    std::env::set_current_dir(&project.root).unwrap();
    let variables = BTreeMap::from([
        ("CASTWORK_DIR", shown(&project.cache)),
        ("CASTWORK_PROJECT_ROOT", shown(&project.root)),
    ]);
    let config = Config::load(&BTreeMap::new(), |name| variables.get(name).cloned()).unwrap();
    let gcc = program("gcc").unwrap();
    let words = ["-Iearlier", "-Icurrent", "-c", "src/a.c", "-o", "a.o"].map(std::ffi::OsString::from);
    let mut call = Understood::new(&config, &gcc, &words).unwrap();
    let start = call.start(&config).unwrap();
    let watch = Watch::new(&call.compile, &call.memory.toolchain, &call.place, &start).unwrap();
    before(project);
    let ran = Command::new(&gcc).args(&words).args(watch.words()).status().unwrap();
    assert!(ran.success());
    meanwhile(project);
    watch.gather(&mut call.memory)
}

#[test]
fn what_changes_while_compiling_is_noticed() {
    let begin = || {
        let project = project();
        project.write("old/h.h", "#include \"sub/d.h\"\n#define H 1\n");
        project.write("new/h.h", "#define H 2\n");
        project.write("old/sub/d.h", "#define D 1\n");
        project.write("new/sub/d.h", "#define D 2\n");
        project.write("earlier/x", "");
        std::os::unix::fs::symlink("old", project.root.join("current")).unwrap();
        // The clock of files goes on.
        project.write("tick", "");
        project
    };
    let project = begin();
    let names: Vec<String> = gathered(&project, |_| {}).unwrap().inputs.into_keys().collect();
    assert!(names.contains(&"p/current/h.h".to_owned()), "{names:?}");

    let ordinary: Change = |project| {
        project.write("old/sub/d.o", "made by another compile");
        project.write("old/h.o", "made by another compile");
    };
    assert!(gathered(&begin(), ordinary).is_ok(), "files that are made beside headers are no harm");

    let changes: [(&str, Change); 6] = [
        ("subfolder swapped, and a file made in it", |project| {
            std::fs::rename(project.root.join("old/sub"), project.root.join("old/sub.old")).unwrap();
            std::fs::rename(project.root.join("new/sub"), project.root.join("old/sub")).unwrap();
            project.write("old/sub/stamp", "");
        }),
        ("edited", |project| project.write("old/h.h", "#define H 3\n")),
        ("source edited", |project| project.write("src/a.c", "int x;\n")),
        ("link changed", |project| {
            std::fs::remove_file(project.root.join("current")).unwrap();
            std::os::unix::fs::symlink("new", project.root.join("current")).unwrap();
        }),
        ("folder swapped", |project| {
            std::fs::rename(project.root.join("old"), project.root.join("older")).unwrap();
            std::fs::rename(project.root.join("new"), project.root.join("old")).unwrap();
        }),
        ("shadowed", |project| project.write("earlier/h.h", "#define H 4\n")),
    ];
    for (what, change) in changes {
        let project = begin();
        assert!(gathered(&project, change).is_err(), "{what}");
    }
}

#[test]
fn a_compile_needs_nothing_of_the_cache_while_it_runs() {
    let project = project();
    project.write("earlier/x", "");
    std::os::unix::fs::symlink("inc", project.root.join("current")).unwrap();
    project.write("tick", "");
    let closure = gathered_between(
        &project,
        |project| std::fs::remove_dir_all(&project.cache).unwrap(),
        |project| assert!(!project.cache.exists(), "nothing was put there"),
    );
    assert!(closure.unwrap().inputs.contains_key("p/current/h.h"));
}
