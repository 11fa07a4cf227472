//! `CastXML` by its rule: the case of ITK, and each way in which an answer could be another than its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::tool::{check, check_change, check_hit, has};
use support::{Project, castwork, program, shown, text};

/// Headers of the standard library that this `CastXML` takes with any GCC.
const HEADERS: [&str; 30] = [
    "algorithm",
    "array",
    "atomic",
    "cassert",
    "cctype",
    "cerrno",
    "cfloat",
    "climits",
    "cmath",
    "cstddef",
    "cstdint",
    "cstdio",
    "cstdlib",
    "cstring",
    "ctime",
    "exception",
    "initializer_list",
    "iosfwd",
    "limits",
    "list",
    "map",
    "memory",
    "numeric",
    "ratio",
    "set",
    "tuple",
    "type_traits",
    "typeindex",
    "utility",
    "vector",
];

/// A change to a project.
type Change = fn(&Project);

/// As ITK calls it.
const ITK: &str =
    "castxml --castxml-gccxml --castxml-start _wrapping_ --castxml-cc-gnu ( /usr/bin/g++ ) -w -c";

fn project() -> Project {
    Project::with(&[
        ("a.cxx", "#include <cstdint>\n#include \"h.h\"\nnamespace _wrapping_ { typedef A<int> a; a v; }\n"),
        (
            "inc/h.h",
            "#ifndef H\n#define H\n// one\ntemplate <class T> struct A { T x; int f(int v = LIMIT); };\n#endif\n",
        ),
        ("early/.keep", ""),
        ("castwork.toml", ""),
    ])
}

fn call() -> String {
    format!("{ITK} -DLIMIT=3 -Iearly -Iinc a.cxx -o a.xml")
}

#[test]
fn thirty_headers_are_hits_in_another_tree_and_byte_for_byte_its_own() {
    if !has("thirty headers", "castxml") {
        return;
    }
    let project = project();
    let line = |project: &Project, header: &str| {
        let root = project.root.display();
        format!("{ITK} @{root}/inc.rsp {root}/{header}.cxx -o {root}/xml/{header}.xml")
    };
    let fill = |project: &Project| {
        project.write(
            "inc.rsp",
            &format!("-DLIMIT=3\n-I{root}/early\n-I{root}/inc\n", root = project.root.display()),
        );
        project.write("xml/.keep", "");
    };
    fill(&project);
    for header in HEADERS {
        let body = "namespace _wrapping_ { typedef A<int> a; a v; }";
        project.write(&format!("{header}.cxx"), &format!("#include <{header}>\n#include \"h.h\"\n{body}\n"));
    }
    for header in HEADERS {
        let left = check(&project, &line(&project, header), &[&format!("xml/{header}.xml")]);
        assert_eq!(left.code, Some(0), "{header}: {}", left.stderr);
    }
    let counters = project.counters();
    assert_eq!(counters.local(), [30, 0, 30, 0], "{}", counters.0);
    let other = project.copy("another-tree");
    fill(&other);
    for header in HEADERS {
        let left = check(&other, &line(&other, header), &[&format!("xml/{header}.xml")]);
        assert!(left.text(&format!("xml/{header}.xml")).contains("another-tree"), "{header}");
    }
    let counters = other.counters();
    assert_eq!(counters.local(), [30, 30, 0, 0], "{}", counters.0);
}

#[test]
fn a_comment_alone_is_a_hit_and_all_else_is_not() {
    if !has("comments", "castxml") {
        return;
    }
    let project = project();
    let header = |comment: &str, value: &str| {
        format!(
            "#ifndef H\n#define H\n// {comment}\ntemplate <class T> struct A {{ T x; int f(int v = {value}); }}; /* {comment} */\n#endif\n"
        )
    };
    project.write("inc/h.h", &header("one", "LIMIT"));
    let first = check_hit(&project, "", &call(), &["a.xml"]);
    project.write("inc/h.h", &header("something else", "LIMIT"));
    assert_eq!(check(&project, &call(), &["a.xml"]), first);
    assert_eq!(check(&project, &call(), &["a.xml"]), first);
    assert_eq!(project.counters().local(), [2, 2, 0, 0]);
    project.write("inc/h.h", &header("something else", "4"));
    assert_ne!(check(&project, &call(), &["a.xml"]), first);
    assert_eq!(project.counters().local(), [1, 0, 1, 0]);
    // Lines count.
    project.write("inc/h.h", &header("two\n// lines", "4"));
    check(&project, &call(), &["a.xml"]);
    assert_eq!(project.counters().local(), [1, 0, 1, 0]);
    // So do comments where they are written out.
    let line = "castxml --castxml-output=1 --castxml-cc-gnu ( g++ ) -DLIMIT=3 -Iinc -w a.cxx -o a.xml";
    project.write("inc/h.h", &header("one", "LIMIT"));
    check_change(&project, "", line, &["a.xml"], || {
        project.write("inc/h.h", "/** seven */\ntemplate <class T> struct A { T x; };\n");
    });
}

#[test]
fn columns_count_since_they_can_be_written_out() {
    if !has("columns", "castxml") {
        return;
    }
    for code in [
        "int a[__builtin_COLUMN()];",
        "template <class T> struct S { T x; }; auto l = [](int x) { return x; }; S<decltype(l)> s{l};",
    ] {
        let project = project();
        let source =
            |comment: &str| format!("namespace _wrapping_ {{\n/*{comment}*/ {code} /*{comment}*/\n}}\n");
        project.write("a.cxx", &source("a"));
        check_change(&project, "", &call(), &["a.xml"], || project.write("a.cxx", &source("longer")));
        project.write("a.cxx", &source("letter"));
        check(&project, &call(), &["a.xml"]);
        assert_eq!(project.counters().local(), [1, 1, 0, 0], "{code}");
    }
}

#[test]
fn headers_that_change_appear_or_come_before_others() {
    if !has("headers", "castxml") {
        return;
    }
    let changes: [(&str, Change); 4] = [
        ("change", |project| project.write("inc/h.h", "template <class T> struct A { T y; };\n")),
        ("shadow", |project| project.write("early/h.h", "template <class T> struct A { T z; };\n")),
        ("beside", |project| project.write("h.h", "template <class T> struct A { T w; };\n")),
        ("source", |project| project.write("a.cxx", "namespace _wrapping_ { int v; }\n")),
    ];
    for (name, change) in changes {
        let project = project();
        eprintln!("{name}");
        check_change(&project, "", &call(), &["a.xml"], || change(&project));
    }
    let project = project();
    project.write("a.cxx", "#if __has_include(\"new.h\")\nint with;\n#else\nint without;\n#endif\n");
    check_change(&project, "", "castxml --castxml-gccxml -w -Iearly a.cxx -o a.xml", &["a.xml"], || {
        project.write("early/new.h", "");
    });
}

#[test]
fn what_the_emulated_compiler_predefines_counts() {
    if !has("predefines", "castxml") {
        return;
    }
    let mut project = project();
    project.write("a.cxx", "int v = VAL; struct S { int f(int max = VAL); };\n");
    // A script that takes a value from a file: what else it reads nobody knows.
    project.write("value", "2");
    project.write("mygxx2", "#!/bin/sh\nexec /usr/bin/g++ -DVAL=$(cat value) \"$@\"\n");
    Command::new("chmod").arg("+x").arg(project.root.join("mygxx2")).status().unwrap();
    let line = "castxml --castxml-gccxml --castxml-cc-gnu ( ./mygxx2 ) -w -c a.cxx -o a.xml";
    let before = check(&project, line, &["a.xml"]);
    assert_eq!(check(&project, line, &["a.xml"]), before);
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0);
    assert_eq!(counters.number("passed_through"), 2, "{}", counters.0);
    project.write("value", "6");
    assert_ne!(check(&project, line, &["a.xml"]), before);
    // The same by a flag, which is a word.
    let of = |value: &str| {
        format!("castxml --castxml-gccxml --castxml-cc-gnu ( g++ -DVAL={value} ) -w -c a.cxx -o a.xml")
    };
    let two = check_hit(&project, "", &of("2"), &["a.xml"]);
    assert_ne!(check(&project, &of("3"), &["a.xml"]), two);
    // A compiler that comes before it on `PATH`, later.
    let path = format!("{}/bin:{}", project.root.display(), std::env::var("PATH").unwrap());
    project.write("bin/.keep", "");
    project.set("PATH", &path);
    check_change(&project, "", &of("2"), &["a.xml"], || {
        project.write("bin/g++", "#!/bin/sh\nexec /usr/bin/g++ \"$@\" -UVAL -DVAL=7\n");
        Command::new("chmod").arg("+x").arg(project.root.join("bin/g++")).status().unwrap();
    });
    // And by a variable.
    project.write("v/value.h", "#define OTHER 1\n");
    project.write("a.cxx", "#if __has_include(<value.h>)\nint with;\n#endif\nint v;\n");
    let line = "castxml --castxml-gccxml --castxml-cc-gnu ( /usr/bin/g++ ) -w -c a.cxx -o a.xml";
    let without = check_hit(&project, "", line, &["a.xml"]);
    project.set("CPLUS_INCLUDE_PATH", &project.root.join("v").display().to_string());
    assert_ne!(check(&project, line, &["a.xml"]), without);
}

#[test]
fn a_tool_or_its_data_that_is_replaced_counts() {
    if !has("castxml replaced", "castxml") {
        return;
    }
    let project = project();
    let real = program("castxml").unwrap().canonicalize().unwrap();
    let own = project.root.join("own");
    std::fs::create_dir_all(own.join("bin")).unwrap();
    std::fs::create_dir_all(own.join("share")).unwrap();
    std::fs::copy(&real, own.join("bin/castxml")).unwrap();
    let data = real.parent().unwrap().join("../share/castxml");
    assert!(
        Command::new("cp").arg("-rL").arg(data).arg(own.join("share/castxml")).status().unwrap().success()
    );
    project.write("a.cxx", "#include <stddef.h>\nint v = sizeof(size_t);\n");
    project.write("tick", "");
    let line = "own/bin/castxml --castxml-gccxml -w a.cxx -o a.xml";
    check_hit(&project, "", line, &["a.xml"]);
    // Its own header.
    let header = "own/share/castxml/clang/include/stddef.h";
    let text = std::fs::read_to_string(project.root.join(header)).unwrap();
    check_change(&project, "", line, &["a.xml"], || {
        project.write(header, &format!("{text}\nint from_the_header;\n"));
    });
    // The program: other bytes, the same behaviour.
    check_hit(&project, "", line, &["a.xml"]);
    let mut bytes = std::fs::read(&real).unwrap();
    bytes.push(0);
    std::fs::remove_file(own.join("bin/castxml")).unwrap();
    std::fs::copy(&real, own.join("bin/castxml")).unwrap();
    std::fs::write(own.join("bin/castxml"), bytes).unwrap();
    project.write("tick", "");
    check(&project, line, &["a.xml"]);
    assert_eq!(project.counters().number("local_hits"), 0);
}

#[test]
fn outputs_come_back_where_they_are_gone_and_only_as_files_of_their_own() {
    if !has("castxml outputs", "castxml") {
        return;
    }
    let project = project();
    let line = call();
    check_hit(&project, "", &line, &["a.xml"]);
    // Hits are given in place of an older output.
    std::fs::write(project.root.join("a.xml"), "old").unwrap();
    let expected = std::fs::read(project.root.join("a.xml")).unwrap();
    assert_eq!(project.cached(&line).status.code(), Some(0));
    let made = std::fs::read(project.root.join("a.xml")).unwrap();
    assert_ne!(made, expected);
    // A hard link's other name is not changed by a hit unless the tool changes it.
    for kind in ["hard", "symbolic"] {
        let make = || {
            let _ = std::fs::remove_file(project.root.join("a.xml"));
            std::fs::write(project.root.join("other"), "other").unwrap();
            match kind {
                "hard" => std::fs::hard_link(project.root.join("other"), project.root.join("a.xml")).unwrap(),
                _ => std::os::unix::fs::symlink("other", project.root.join("a.xml")).unwrap(),
            }
        };
        let left = |output: std::process::Output| {
            let read = |name: &str| std::fs::read(project.root.join(name)).ok();
            (output.status.code(), read("other"), read("a.xml"))
        };
        make();
        let plain = left(project.plain(&line));
        make();
        assert_eq!(left(project.cached(&line)), plain, "{kind}");
    }
    // To a folder that isn't there, to standard output, and of standard input.
    std::fs::remove_file(project.root.join("a.xml")).unwrap();
    check(&project, &line.replace("a.xml", "nowhere/a.xml"), &["nowhere/a.xml"]);
    check(&project, &line.replace("a.xml", "-"), &["-"]);
}

#[test]
fn dates_and_names_of_files_that_show() {
    if !has("castxml dates", "castxml") {
        return;
    }
    let project = project();
    project.write("a.cxx", "struct S { void f(const char *t = __TIME__); };\n");
    let line = "castxml --castxml-gccxml -w a.cxx -o a.xml";
    for _ in 0..2 {
        project.cached(line);
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{}", counters.0);
    let reasons = ["file that may ask for the date", "output that may hold the date"];
    assert_eq!(reasons.map(|reason| counters.reason(reason)).iter().sum::<u64>(), 2, "{}", counters.0);
    // Pasted together out of pieces, no file says it.
    project.write("a.cxx", "#define P(a, b) a##b\nstruct S { void f(const char *t = P(__TI, ME__)); };\n");
    for _ in 0..2 {
        project.cached(line);
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{}", counters.0);
    project.write("a.cxx", "struct S { void f(const char *t = __FILE__); };\n");
    let line =
        |project: &Project| format!("castxml --castxml-gccxml -w {}/a.cxx -o a.xml", project.root.display());
    check_hit(&project, "", &line(&project), &["a.xml"]);
    let other = project.copy("another-tree");
    let left = check(&other, &line(&other), &["a.xml"]);
    assert!(left.text("a.xml").contains("another-tree"));
    assert_eq!(other.counters().number("local_hits"), 0);
}

#[test]
fn a_file_that_names_its_own_tree_is_not_taken_for_one_that_names_another() {
    if !has("castxml names", "castxml") {
        return;
    }
    let project = project();
    let other = project.copy("another-tree");
    // The same bytes in both trees: the name of the first.
    for tree in [&project, &other] {
        tree.write(
            "a.cxx",
            &format!("struct S {{ void f(const char *t = \"{}/x\"); }};\n", project.root.display()),
        );
    }
    let line = "castxml --castxml-gccxml -w a.cxx -o a.xml";
    check_hit(&project, "", line, &["a.xml"]);
    let left = check(&other, line, &["a.xml"]);
    assert!(left.text("a.xml").contains(project.root.to_str().unwrap()));
}

#[test]
fn a_shared_root_that_is_read_only_stands_behind_the_local_one() {
    if !has("castxml shared", "castxml") {
        return;
    }
    let mut project = project();
    let shared = project.cache.with_file_name("shared");
    project.set("CASTWORK_REMOTE", &format!("file://{}", shared.display()));
    check(&project, &call(), &["a.xml"]);
    let listed = |folder: &Path| {
        let found = Command::new("find")
            .arg(folder)
            .args(["-type", "f", "-printf", "%p %s %T@\\n"])
            .output()
            .unwrap();
        text(&found.stdout)
    };
    let before = listed(&shared);
    assert!(!before.is_empty());
    let mut other = project.copy("another-tree");
    other.cache = other.cache.with_file_name("fresh");
    other.variables.clone_from(&project.variables);
    other.set("CASTWORK_REMOTE", &format!("file://{}?mode=ro", shared.display()));
    other.counters();
    check(&other, &call(), &["a.xml"]);
    assert_eq!(other.counters().number("remote_hits"), 1);
    check(&other, &call(), &["a.xml"]);
    assert_eq!(other.counters().number("local_hits"), 1, "it is kept locally");
    other.write("inc/h.h", "template <class T> struct A { T y; };\n");
    check(&other, &call(), &["a.xml"]);
    assert_eq!(listed(&shared), before, "nothing is written to what is read-only");
}

#[test]
fn torn_entries_and_calls_at_once() {
    if !has("castxml torn", "castxml") {
        return;
    }
    let project = project();
    check_hit(&project, "", &call(), &["a.xml"]);
    let found = Command::new("find").arg(project.cache.join("cache")).args(["-type", "f"]).output().unwrap();
    for file in text(&found.stdout).lines() {
        let bytes = std::fs::read(file).unwrap();
        for torn in [&bytes[..bytes.len() / 2], b"", b"garbage"] {
            let _ = std::fs::remove_file(file);
            std::fs::write(file, torn).unwrap();
            check(&project, &call(), &["a.xml"]);
        }
    }
    project.write("inc/h.h", "template <class T> struct A { T y; };\n");
    let expected = {
        project.plain(&call());
        std::fs::read(project.root.join("a.xml")).unwrap()
    };
    let line = call();
    let run = || project.command(castwork()).args(line.split_whitespace()).output().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(run().status.code(), Some(0));
                }
            });
        }
    });
    assert_eq!(std::fs::read(project.root.join("a.xml")).unwrap(), expected);
    check(&project, &line, &["a.xml"]);
}

#[test]
fn a_build_in_another_folder_of_the_same_sources_is_a_hit() {
    if !has("castxml builds", "castxml") {
        return;
    }
    let project = project();
    let builds = project.cache.with_file_name("builds");
    let root = project.root.display().to_string();
    for (name, hits) in [("b1", 0), ("elsewhere/b2", 1)] {
        let build = builds.join(name);
        std::fs::create_dir_all(build.join("gen")).unwrap();
        let folder = build.display().to_string();
        std::fs::write(build.join("CMakeCache.txt"), format!("CMAKE_HOME_DIRECTORY:INTERNAL={root}\n"))
            .unwrap();
        let include = format!("-DLIMIT=3\n-I{folder}/gen\n-I{root}/inc\n");
        std::fs::write(build.join("inc.rsp"), include).unwrap();
        std::fs::write(build.join("gen/made.h"), "struct Made { int x; };\n").unwrap();
        std::fs::write(build.join("w.cxx"), format!("#include \"made.h\"\n#include \"{root}/a.cxx\"\n"))
            .unwrap();
        project.write("tick", "");
        let words = format!(
            "--castxml-gccxml --castxml-cc-gnu ( /usr/bin/g++ ) -w -c @{folder}/inc.rsp {folder}/w.cxx -o {folder}/w.xml"
        );
        let run = |program: &str, first: &[&str]| {
            let _ = std::fs::remove_file(build.join("w.xml"));
            let mut command = project.command(program);
            command.current_dir(&build).env("PWD", &build).args(first).args(words.split(' '));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            std::fs::read(build.join("w.xml")).unwrap()
        };
        let plain = run("castxml", &[]);
        assert!(text(&plain).contains(&format!("{folder}/gen/made.h")));
        assert!(run(castwork(), &["castxml"]) == plain, "{name}: another output");
        assert_eq!(project.counters().number("local_hits"), hits, "{name}");
    }
}

#[test]
fn what_counts_without_being_shown_is_not_taken_elsewhere() {
    if !has("castxml elsewhere", "castxml") {
        return;
    }
    for (source, header, word) in [
        ("int arr[sizeof(__FILE__)];\n", "", ""),
        ("#define NAME __builtin_FILE()\nint arr[sizeof(NAME)];\n", "", ""),
        ("int arr[sizeof(ROOT)];\n", "", "-DROOT=\"@\""),
        ("#include \"made.h\"\nint arr[sizeof(SRC)];\n", "#define SRC \"@\"\n", ""),
    ] {
        let here = Project::with(&[("a.cxx", source)]);
        let there = here.copy("of-another-length");
        for project in [&here, &there] {
            let root = shown(&project.root);
            project.write("made.h", &header.replace('@', &root));
            let word = word.replace('@', &root);
            let line = format!("castxml --castxml-gccxml -w {word} -c {root}/a.cxx -o a.xml");
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            check(project, &line, &["a.xml"]);
            check(project, &line, &["a.xml"]);
        }
    }
}

#[test]
fn a_folder_that_is_entered_from_above_has_its_own_name() {
    if !has("castxml from above", "castxml") {
        return;
    }
    let project = Project::new();
    for name in ["one", "two"] {
        project.write(&format!("{name}/h.h"), &format!("struct In_{name} {{}};\n"));
        project.write(&format!("{name}/a.cxx"), "#include <one/h.h>\nint x;\n");
    }
    for above in [shown(&project.root), "..".to_owned()] {
        for name in ["one", "two", "one", "two"] {
            let folder = project.root.join(name);
            let run = |program: &str, first: &[&str]| {
                let mut command = project.command(program);
                command.current_dir(&folder).env("PWD", &folder).env("CASTWORK_PROJECT_ROOT", &folder);
                command.args(first).args(["--castxml-gccxml", "-w", &format!("-I{above}"), "-c"]);
                let output = command.arg(folder.join("a.cxx")).args(["-o", "a.xml"]).output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                std::fs::read(folder.join("a.xml")).unwrap()
            };
            let plain = run("castxml", &[]);
            assert!(run(castwork(), &["castxml"]) == plain, "{above} {name}");
        }
    }
}

#[test]
fn a_time_that_a_word_asks_for_is_not_kept() {
    if !has("castxml dates", "castxml") {
        return;
    }
    let project = Project::with(&[("a.cxx", "int arr[T[7]];\n"), ("w.rsp", "-DT=__TIME__\n")]);
    for word in ["-DT=__TIME__", "@w.rsp"] {
        let line = format!("castxml --castxml-gccxml -w {word} -c a.cxx -o a.xml");
        for _ in 0..2 {
            let ours = project.cached(&line);
            assert_eq!(ours.status.code(), Some(0), "{}", text(&ours.stderr));
        }
        assert_eq!(project.counters().number("local_hits"), 0, "{word}");
    }
}

#[test]
fn a_compiler_that_is_called_through_us_is_itself_to_castxml() {
    if !has("castxml below exec", "castxml") {
        return;
    }
    let project = project();
    let line = call().replace("/usr/bin/g++", "g++");
    let below_exec = || {
        let output = project.cached(&format!("exec -- {} {line}", castwork()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        project.counters().local()
    };
    assert_eq!(below_exec(), [1, 0, 1, 0]);
    assert_eq!(below_exec(), [1, 1, 0, 0]);
    check(&project, &line, &["a.xml"]);
    assert_eq!(project.counters().local(), [1, 1, 0, 0], "it is the same call without exec");
}
