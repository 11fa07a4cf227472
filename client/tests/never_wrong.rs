//! Situations in which other wrappers hand out wrong objects. The oracle is the bare compiler, each time.
//!
//! Eighteen of them are known to break at least one of ccache 4.14, sccache 0.19 and zccache 1.15:
//!
//! - a header that comes to shadow another; a file that `__has_include` asks for, and that appears;
//! - two checkouts of one layout, with equal headers and with different ones; `__FILE__` in two trees; the compilation
//!   folder in debug information;
//! - an `.incbin` whose file changes, and one that is spelled by macros;
//! - an edit that leaves size and time alone; edits without a pause;
//! - specs that change; a compiler that is a script; an assembler behind `-B`; a response file that changes; a profile;
//! - `CPATH`; `SOURCE_DATE_EPOCH`;
//! - an object that is overwritten in place.
//!
//! More are in `direct.rs`, for calls that are recognised, in `another_compiler.rs`, and random ones in `differential.rs`.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use support::{Project, c_compilers, cxx_compilers, program, shown};

#[test]
fn a_header_that_comes_to_shadow_another_is_seen() {
    for compiler in cxx_compilers() {
        let project = Project::with(&[
            ("a.cc", "#include <h.h>\nint x = H;\n"),
            ("first/other.h", ""),
            ("second/h.h", "#define H 1\n"),
        ]);
        project.check_change(&format!("{compiler} -Ifirst -Isecond -c a.cc"), || {
            project.write("first/h.h", "#define H 2\n");
        });
    }
}

#[test]
fn a_file_that_has_include_asks_for_is_seen_when_it_appears() {
    for compiler in cxx_compilers() {
        for (test, file) in
            [("<new.h>", "i/new.h"), ("\"new.h\"", "src/new.h"), ("\"sub/new.h\"", "i/sub/new.h")]
        {
            let source = format!("#if __has_include({test})\nint x = 1;\n#else\nint x = 2;\n#endif\n");
            let project = Project::with(&[("src/a.cc", &source), ("i/other.h", "")]);
            let line = format!("{compiler} -Ii -c src/a.cc");
            project.check_change(&line, || project.write(file, ""));
            assert!(project.counters().number("local_hits") >= 2, "{test}: cached, not just passed through");
        }
    }
}

#[test]
fn a_test_for_a_header_through_a_macro_of_another_file_is_seen() {
    for (definition, test) in [
        ("#define HAS_NEW __has_include(\"new.h\")", "HAS_NEW"),
        ("#define HAS __has_include", "HAS(\"new.h\")"),
        ("#define HAS __has_include", "HAS(<sub/new.h>)"),
        ("#define HAS(x) __has_include(x)", "defined(HAS) && HAS(<sub/new.h>)"),
        ("#define INNER(y) __has_include(y)\n#define HAS(x) INNER(x)", "HAS(\"sub/new.h\")"),
    ] {
        let project = Project::with(&[
            ("a.c", &format!("#include \"i/has.h\"\n#if {test}\nint x = 1;\n#else\nint x = 2;\n#endif\n")),
            ("i/has.h", &format!("#ifdef __has_include\n{definition}\n#else\n#define HAS(x) 0\n#endif\n")),
            ("i/sub/other.h", ""),
        ]);
        project.check_change("gcc -Ii -c a.c", || {
            project.write(if test.contains("sub") { "i/sub/new.h" } else { "new.h" }, "");
        });
        assert_eq!(project.counters().local(), [4, 2, 2, 0], "{definition}, {test}");
    }
}

#[test]
fn times_and_dates_are_never_kept() {
    for source in [
        "const char *t = __TIME__;\n",
        "const char *t = __TI\\\nME__ __DATE__;\n",
        "#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nconst char *t = Q(__TI, ME__);\n",
        "const char *t = __TIMESTAMP__;\n",
    ] {
        let project = Project::with(&[("a.c", source)]);
        assert!(project.cached("gcc -c a.c -o cached.o").status.success());
        assert_eq!(project.counters().local(), [0, 0, 0, 1], "{source}");
    }
}

#[test]
fn a_date_that_is_set_is_kept_with_that_date() {
    for compiler in c_compilers() {
        let mut project = Project::with(&[("a.c", "const char *d = __DATE__ __TIME__;\n")]);
        project.set("SOURCE_DATE_EPOCH", "1000000000");
        let line = format!("{compiler} -c a.c -o cached.o");
        let object = |project: &Project| {
            assert!(project.cached(&line).status.success());
            std::fs::read(project.root.join("cached.o")).unwrap()
        };
        let before = object(&project);
        project.set("SOURCE_DATE_EPOCH", "1100000000");
        if compiler == "gcc" {
            assert_ne!(before, object(&project));
            project.set("SOURCE_DATE_EPOCH", "1000000000");
            assert_eq!(before, object(&project));
            assert_eq!(project.counters().local(), [3, 1, 2, 0]);
        }
    }
}

#[test]
fn what_the_assembler_reads_is_never_missed() {
    for source in [
        "asm(\".globl d\\nd: .incbin \\\"data\\\"\\n\");\n",
        "#define S(x) #x\n#define X(x) S(x)\n#define BIN incbin\nasm(\".globl d\\nd: .\" X(BIN) \" \\\"data\\\"\\n\");\n",
        "#define A \".inc\"\n#define B \"bin\"\nasm(\".globl d\\nd: \" A B \" \\\"data\\\"\\n\");\n",
    ] {
        let project = Project::with(&[("a.c", source), ("data", "one")]);
        project.check_change("gcc -c a.c", || project.write("data", "two"));
    }
}

#[test]
fn the_compilation_folder_in_debug_information_is_the_right_one() {
    for compiler in cxx_compilers() {
        let project = Project::with(&[("a.cc", "int f() { return 1; }\n"), ("x/empty", ""), ("y/empty", "")]);
        let root = shown(&project.root);
        let in_folder = |folder: &str, program: &str, output: &str| {
            let status = project
                .command(program)
                .args(if program == support::castwork() { vec![compiler] } else { vec![] })
                .args(["-g", "-c", &format!("{root}/a.cc"), "-o", &format!("{root}/{output}")])
                .current_dir(project.root.join(folder))
                .env("PWD", project.root.join(folder))
                .status();
            assert!(status.unwrap().success());
            std::fs::read(project.root.join(output)).unwrap()
        };
        for folder in ["x", "y", "x"] {
            let cached = in_folder(folder, support::castwork(), "cached.o");
            assert_eq!(cached, in_folder(folder, compiler, "plain.o"), "{compiler} in {folder}");
        }
        assert_eq!(project.counters().local(), [3, 1, 2, 0], "{compiler}");
    }
}

#[test]
fn two_checkouts_share_what_is_equal_and_nothing_else() {
    for compiler in cxx_compilers() {
        let here = Project::with(&[
            ("a.cc", "#include \"h.h\"\nint x = H;\nconst char *f = __FILE__;\n#warning w\n"),
            ("h.h", "#define H 1\n"),
        ]);
        let there = here.copy("elsewhere");
        here.check(&format!("{compiler} -O2 -c a.cc"));
        there.check(&format!("{compiler} -O2 -c a.cc"));
        assert_eq!(there.counters().local(), [2, 1, 1, 0], "{compiler}: the second is a hit");
        let absolute = |project: &Project, flags: &str| {
            project
                .check(&format!("{compiler} {flags} -I{root} -c {root}/a.cc", root = shown(&project.root)));
        };
        for flags in ["-O2", "-g"] {
            absolute(&here, flags);
            absolute(&there, flags);
        }
        there.write("h.h", "#define H 2\n");
        there.check(&format!("{compiler} -O2 -c a.cc"));
        here.check(&format!("{compiler} -O2 -c a.cc"));
    }
}

#[test]
fn a_warning_with_an_absolute_name_names_the_right_folder() {
    let here = Project::with(&[
        ("a.c", "#include \"h.h\"\nint f(void) { int unused; return 0; }\n"),
        ("h.h", "#warning from the header\n"),
    ]);
    let there = here.copy("elsewhere");
    for project in [&here, &there] {
        for _ in 0..2 {
            project.check(&format!("gcc -Wall -I{root} -c {root}/a.c", root = shown(&project.root)));
        }
    }
    assert_eq!(here.counters().local(), [4, 3, 1, 0]);
}

#[test]
fn variables_that_lead_elsewhere_are_seen() {
    let mut project = Project::with(&[
        ("a.c", "#include <h.h>\nint x = H;\n"),
        ("one/h.h", "#define H 1\n"),
        ("two/h.h", "#define H 2\n"),
    ]);
    project.set("CPATH", "one");
    let one = project.check("gcc -c a.c");
    project.set("CPATH", "two");
    assert_ne!(project.check("gcc -c a.c"), one);
}

#[test]
fn response_files_count_by_what_is_in_them() {
    let project = Project::with(&[("a.c", "int x = VALUE;\n"), ("flags", "-DVALUE=1")]);
    project.check_change("gcc @flags -c a.c", || project.write("flags", "-DVALUE=2"));
    assert_eq!(project.counters().local(), [4, 2, 2, 0]);
}

#[test]
fn edits_that_leave_size_and_time_alone_are_seen() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
    let header = project.root.join("h.h");
    let time = header.metadata().unwrap().modified().unwrap();
    project.check_change("gcc -c a.c", || {
        project.write("h.h", "#define H 2\n");
        std::fs::File::options().write(true).open(&header).unwrap().set_modified(time).unwrap();
        project.write("tick", "");
    });
}

#[test]
fn edits_without_a_pause_are_seen() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n")]);
    for value in 0..6 {
        std::fs::write(project.root.join("h.h"), format!("#define H {value}\n")).unwrap();
        project.check("gcc -c a.c");
    }
}

#[test]
fn an_object_that_is_overwritten_in_place_is_no_door_into_the_cache() {
    let project = Project::with(&[("a.c", "int x;\n")]);
    project.check("gcc -c a.c");
    project.check("gcc -c a.c");
    let mut object = std::fs::File::options().write(true).open(project.root.join("cached.o")).unwrap();
    std::io::Write::write_all(&mut object, b"garbage").unwrap();
    project.check("gcc -c a.c");
    assert_eq!(project.counters().local(), [3, 2, 1, 0]);
}

#[test]
fn profiles_are_passed_through() {
    let project = Project::with(&[("a.c", "int x;\n")]);
    project.check("gcc -fprofile-use=none.gcda -c a.c");
    assert_eq!(project.counters().reason("profiling or coverage"), 1);
}

#[test]
fn precompiled_headers_are_passed_through() {
    let project = Project::with(&[("a.c", "#include \"h.h\"\nint x = H;\n"), ("h.h", "#define H 1\n")]);
    project.check("gcc -c a.c");
    assert!(project.plain("gcc -x c-header h.h -o h.h.gch").status.success());
    project.check("gcc -c a.c");
    assert_eq!(project.counters().reason("precompiled header"), 1);
}

#[test]
fn equal_headers_that_count_by_identity_are_passed_through() {
    let project = Project::with(&[
        ("a.c", "#include \"one/h.h\"\n#include \"two/h.h\"\nint x = N;\n"),
        ("one/h.h", "#pragma once\n#ifdef N\n#undef N\n#define N 2\n#else\n#define N 1\n#endif\n"),
    ]);
    std::fs::create_dir(project.root.join("two")).unwrap();
    let twin = project.root.join("two/h.h");
    std::fs::copy(project.root.join("one/h.h"), &twin).unwrap();
    // gcc holds equal files for one if their times are equal too; on a worker they are.
    let earlier = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    std::fs::File::options().write(true).open(&twin).unwrap().set_modified(earlier).unwrap();
    project.write("tick", "");
    project.check("gcc -c a.c");
    assert_eq!(project.counters().reason("equal headers in two places"), 1);
}

#[test]
fn links_in_the_way_lead_to_the_same_object() {
    let project = Project::with(&[
        ("real/deep/a.c", "#include \"../h.h\"\nint x = H;\n"),
        ("real/h.h", "#define H 1\n"),
        ("h.h", "#define H 2\n"),
    ]);
    symlink("real/deep", project.root.join("link")).unwrap();
    assert!(Path::new(&project.root.join("link/a.c")).exists());
    project.check("gcc -c link/a.c");
    project.check("gcc -c link/a.c");
    assert_eq!(project.counters().reason("`..` after a symbolic link"), 2);
}

#[test]
fn a_header_by_its_absolute_name_is_not_missed() {
    let project = Project::with(&[("h.h", "#define H 1\n")]);
    let root = shown(&project.root);
    for compiler in c_compilers() {
        for (source, flags) in [
            (format!("#include \"{root}/h.h\"\nint x = H;\n"), String::new()),
            (format!("#define WHERE \"{root}/h.h\"\n#include WHERE\nint x = H;\n"), String::new()),
            ("#include WHERE\nint x = H;\n".to_owned(), format!("-DWHERE=\"{root}/h.h\"")),
        ] {
            project.write("h.h", "#define H 1\n");
            project.write("a.c", &source);
            project.check_change(&format!("{compiler} {flags} -c a.c"), || {
                project.write("h.h", "#define H 2\n");
            });
        }
    }
    assert_eq!(project.counters().local()[..3], [0, 0, 0]);
    // Found by its name, it is just a header.
    project.write("a.c", "#define WHERE \"h.h\"\n#include WHERE\nint x = H;\n");
    project.check_change("gcc -c a.c", || project.write("h.h", "#define H 3\n"));
    assert_eq!(project.counters().local(), [4, 2, 2, 0]);
}

#[test]
fn a_link_on_the_way_to_headers_of_the_system_is_seen_when_it_is_turned() {
    for compiler in cxx_compilers() {
        let project = Project::with(&[("a.cc", "#include <foo.h>\nint x = V;\n")]);
        for (version, value) in [("v1", 1), ("v2", 2)] {
            let write =
                |name: &str, text: &str| project.write(&format!("opt/{version}/include/{name}"), text);
            write("foo.h", "#include \"detail/impl.h\"\n");
            write("detail/impl.h", "#include \"more.h\"\n");
            write("detail/more.h", &format!("#define V {value}\n"));
        }
        project.turn("opt/current", "v1");
        let line = format!("{compiler} -isystem {}/opt/current/include -c a.cc", shown(&project.root));
        project.check_change(&line, || project.turn("opt/current", "v2"));
        project.turn("opt/current", "v1");
        let before = project.counters().local();
        assert_eq!(before, [4, 2, 2, 0], "{compiler}");
        project.check(&line);
        let counters = project.counters();
        assert_eq!(
            (counters.local(), counters.number("preprocessed")),
            ([1, 1, 0, 0], 0),
            "{compiler}: it is known"
        );
    }
}

#[test]
fn names_of_files_in_the_command_itself_are_those_of_this_checkout() {
    for word in ["__FILE__", "__BASE_FILE__", "__builtin_FILE()"] {
        let here = Project::with(&[("a.cc", "extern const char *v;\nconst char *v = WHERE;\n")]);
        let there = here.copy("elsewhere");
        for project in [&here, &there, &here] {
            project.check(&format!("g++ -DWHERE={word} -c {}/a.cc", shown(&project.root)));
        }
        assert_eq!(here.counters().local(), [3, 1, 2, 0], "{word}");
    }
}

#[test]
fn symbols_with_the_name_of_the_source_are_those_of_this_checkout() {
    for compiler in c_compilers().into_iter().filter(|compiler| *compiler == "clang") {
        let text = "static int f(int x) { return x * x + 1; }\nint (*p)(int) = f;\n";
        let here = Project::with(&[("a.c", text)]);
        let there = here.copy("elsewhere");
        for project in [&here, &there] {
            let root = shown(&project.root);
            project.check(&format!("{compiler} -funique-internal-linkage-names -c {root}/a.c"));
        }
    }
}

#[test]
fn an_output_that_is_a_link_is_replaced_as_assemblers_do() {
    for compiler in c_compilers() {
        let project = Project::with(&[("a.c", "int x;\n")]);
        project.check(&format!("{compiler} -c a.c"));
        for program in ["plain", "cached"] {
            project.write("target", "precious\n");
            project.turn("link.o", "target");
            let line = format!("{compiler} -c a.c -o link.o");
            let ran = if program == "plain" { project.plain(&line) } else { project.cached(&line) };
            assert!(ran.status.success());
            assert_eq!(
                std::fs::read_to_string(project.root.join("target")).unwrap(),
                "precious\n",
                "{program}"
            );
            assert!(!project.root.join("link.o").is_symlink(), "{compiler}, {program}");
        }
        assert_eq!(project.counters().local(), [2, 1, 1, 0], "{compiler}: the second is a hit");
    }
}

#[test]
fn a_test_in_a_directive_of_trigraphs_is_seen() {
    for compiler in c_compilers() {
        let text = "??=if __has_include(\"new.h\")\nint x = 1;\n??=else\nint x = 2;\n??=endif\n";
        let project = Project::with(&[("a.c", text)]);
        project.check_change(&format!("{compiler} -w -std=c11 -c a.c"), || project.write("new.h", ""));
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_may_name_the_working_folder() {
    let mut project = Project::with(&[("a.c", "int x;\n")]);
    let before = project.check("gcc -c a.c");
    let text = format!("#!/bin/sh\nexec {} --defsym other=1 \"$@\"\n", shown(&program("as").unwrap()));
    project.write("as", &text);
    std::fs::set_permissions(project.root.join("as"), PermissionsExt::from_mode(0o755)).unwrap();
    project.write("tick", "");
    project.set("COMPILER_PATH", "");
    assert_ne!(project.check("gcc -c a.c"), before);
    assert_eq!(project.counters().reason("`COMPILER_PATH` is set"), 1);
    // A list of folders of headers that is empty is none.
    project.variables.clear();
    project.set("CPATH", "");
    project.check("gcc -c a.c");
    assert_eq!(project.counters().local(), [1, 1, 0, 0]);
}
