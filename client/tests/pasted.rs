//! Words that macros make of pieces: what they stand for has to be seen however they are spelled.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Project, text};

/// Two macros that paste.
const PASTES: &str = "#define A(x,y) B(x,y)\n#define B(x,y) x##y\n";

/// Compiles twice, with more than a second between: an object that holds the time is never handed out.
fn holds_the_time(source: &str, flags: &str) {
    let project = Project::with(&[("a.c", &format!("{PASTES}{source}"))]);
    let line = format!("gcc {flags} -c a.c -o a.o");
    for _ in 0..2 {
        assert!(project.cached(&line).status.success(), "{source}");
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(project.counters().number("local_hits"), 0, "{source} {flags}");
}

#[test]
fn a_time_that_is_pasted_is_seen_wherever_its_pieces_come_from() {
    std::thread::scope(|scope| {
        for (source, flags) in [
            ("const char *s = A(P, ME__);\n", "-DP=__TI"),
            ("const char *s = A(P, Q);\n", "-DP=__TI -DQ=ME__"),
            // Neither is what opens a literal or a comment.
            ("int q = L'\"'; const char *s = A(__TI, ME__);\n", ""),
            ("int x = 8 //**/ 2; const char *s = A(__TI, ME__);\n;\n", "-std=c89"),
            ("const char *o = \"o\"; const char *s = A(__TI, ME__);\n", ""),
            ("int x = 1; // don't\nconst char *s = A(__TI, ME__);\n", ""),
            (
                "#define E(a,b,c,d,e,f) F(a,b,c,d,e,f)\n#define F(a,b,c,d,e,f) a##b##c##d##e##f\n\
                 const char *s = E(__,T,I,M,E_,_);\n",
                "",
            ),
        ] {
            scope.spawn(move || holds_the_time(source, flags));
        }
    });
}

#[test]
fn a_pasted_date_that_is_set_is_in_the_key() {
    let mut project = Project::with(&[("a.c", "#define A(x,y) x##y\nconst char *s = A(__TI, ME__);\n")]);
    for seconds in ["1000", "9000000", "1000"] {
        project.set("SOURCE_DATE_EPOCH", seconds);
        project.check("gcc -c a.c -o a.o");
    }
}

#[test]
fn a_test_for_a_header_that_is_pasted_is_seen() {
    let source = format!("{PASTES}#if A(__ha,s_include)(<x.h>)\nint a;\n#else\nint b, c;\n#endif\n");
    let project = Project::with(&[("a.c", &source), ("inc/y.h", "")]);
    for _ in 0..2 {
        project.check("gcc -Iinc -c a.c -o a.o");
    }
    project.write("inc/x.h", "");
    project.check("gcc -Iinc -c a.c -o a.o");
}

#[test]
fn a_pragma_that_a_macro_makes_says_what_it_says_each_time() {
    let source = "#define DO(x) _Pragma(#x)\n#define D2(x) DO(x)\n#define DEP dependency\nD2(GCC DEP \"x.h\")\nint a;\n";
    let project = Project::with(&[("x.h", ""), ("a.c", source)]);
    let line = "gcc -I. -c a.c -o a.o";
    assert!(project.cached(line).status.success());
    project.write("x.h", "");
    assert_eq!(text(&project.cached(line).stderr), text(&project.plain(line).stderr));
}

#[test]
fn a_name_that_the_system_refuses_is_not_taken_for_absent() {
    let dead = (0..30).map(|n| format!("#include <nope{n}.h>\n")).collect::<Vec<_>>().concat();
    let source = format!("#if 0\n{dead}#include \"two/z.h\"\n#endif\n#include \"w.h\"\n");
    let project = Project::with(&[
        ("a.c", &source),
        ("w.h", "#include <z.h\0x>\n"),
        ("two/z.h", "int z = 1;\n"),
        ("one/y.h", ""),
    ]);
    let line = "gcc -w -Ione -Itwo -c a.c -o a.o";
    for _ in 0..2 {
        project.check(line);
    }
    project.write("one/z.h", "int z = 22, zz;\n");
    project.check(line);
}
