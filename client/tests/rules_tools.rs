//! swig, protoc, Cython, moc and the assembler by their rules, with the real tools.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::tool::{check, check_change, check_hit, has};
use support::{Project, program};

/// Makes a file a program.
fn make_program(project: &Project, name: &str, text: &str) {
    project.write(name, text);
    assert!(Command::new("chmod").arg("+x").arg(project.root.join(name)).status().unwrap().success());
}

fn check_not_kept(project: &Project, line: &str, outputs: &[&str], reason: &str) {
    for _ in 0..2 {
        check(project, line, outputs);
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{line}: {}", counters.0);
    assert_eq!(counters.reason(reason), 2, "{line}: {}", counters.0);
}

#[test]
fn swig() {
    if !has("swig", "swig") {
        return;
    }
    let files = [
        (
            "m.i",
            "%module m\n%include \"sub.i\"\n%import \"other.i\"\n%inline %{ int f(int x) { return x; } %}\n",
        ),
        ("i/sub.i", "int g(int);\n"),
        ("i/other.i", "typedef int other;\n"),
        ("early/.keep", ""),
        ("py/.keep", ""),
    ];
    let mut project = Project::with(&files);
    let line = "swig -python -Iearly -Ii -o m_wrap.c -outdir py m.i";
    let outputs = ["m_wrap.c", "py/m.py"];
    check_hit(&project, "", line, &outputs);
    // The side output alone is gone.
    let module = std::fs::read(project.root.join("py/m.py")).unwrap();
    std::fs::remove_file(project.root.join("py/m.py")).unwrap();
    assert!(project.cached(line).status.success());
    assert_eq!(std::fs::read(project.root.join("py/m.py")).unwrap(), module);
    project.counters();
    // Another tree.
    let other = project.copy("another-tree");
    check(&other, line, &outputs);
    assert_eq!(other.counters().local(), [1, 1, 0, 0]);
    let absolute = |project: &Project| line.replace("m.i", &format!("{}/m.i", project.root.display()));
    check_hit(&project, "", &absolute(&project), &outputs);
    check(&other, &absolute(&other), &outputs);
    check_change(&project, "", line, &outputs, || project.write("i/sub.i", "int h(int);\n"));
    project.write("i/other.i", "typedef double other;\n");
    check(&project, line, &outputs);
    assert_eq!(project.counters().number("local_hits"), 0, "what is imported counts");
    check_change(&project, "", line, &outputs, || project.write("early/sub.i", "int shadow(int);\n"));
    // A library of its own that comes before swig's.
    project.write("m.i", "%module m\n%include <stdint.i>\nint g(uint8_t);\n");
    check_hit(&project, "", line, &outputs);
    project.write("lib/stdint.i", "typedef double uint8_t;\n");
    let real = Command::new("swig").arg("-swiglib").output().unwrap();
    let real = String::from_utf8(real.stdout).unwrap().trim().to_owned();
    assert!(
        Command::new("cp")
            .arg("-rn")
            .arg(format!("{real}/."))
            .arg(project.root.join("lib"))
            .status()
            .unwrap()
            .success()
    );
    project.set("SWIG_LIB", &project.root.join("lib").display().to_string());
    project.write("tick", "");
    check_change(&project, "", line, &outputs, || project.write("lib/stdint.i", "typedef float uint8_t;\n"));
    // Messages come again.
    project.write("m.i", "%module m\nclass A : public Unknown {};\n");
    let line = line.replace("-python", "-c++ -python");
    assert!(!check_hit(&project, "", &line, &outputs).stderr.is_empty());
    check(&project, "swig -python -o - m.i", &["-"]);
    check(&project, "swig -python nothing.i", &["nothing_wrap.c"]);
}

#[test]
fn protoc() {
    if !has("protoc", "protoc") {
        return;
    }
    let mut project = Project::with(&[
        ("m.proto", "syntax = \"proto3\";\nimport \"i.proto\";\nmessage M { I i = 1; }\n"),
        ("d/i.proto", "syntax = \"proto3\";\nmessage I { int32 a = 1; }\n"),
        ("early/.keep", ""),
        ("out/.keep", ""),
    ]);
    let line = "protoc -Iearly -I. -Id --cpp_out=out --dependency_out=out/m.d m.proto";
    let outputs = ["out/m.pb.h", "out/m.pb.cc", "out/m.d"];
    check_hit(&project, "", line, &outputs);
    let other = project.copy("another-tree");
    check(&other, line, &outputs);
    let set = "protoc -I. -Id --include_imports --descriptor_set_out=out/set m.proto";
    check_hit(&project, "", set, &["out/set"]);
    check_change(&project, "", set, &["out/set"], || {
        project.write("d/i.proto", "syntax = \"proto3\";\nmessage I { int32 b = 1; }\n");
    });
    check_change(&project, "", set, &["out/set"], || {
        project.write("i.proto", "syntax = \"proto3\";\nmessage I { int32 c = 1; }\n");
    });
    let python = "protoc -I. -Id --python_out=out m.proto";
    check_change(&project, "", python, &["out/m_pb2.py"], || {
        project.write("m.proto", "syntax = \"proto3\";\nimport \"i.proto\";\nmessage N { I i = 1; }\n");
    });
    // A plug-in is another's program: what it depends on is not known.
    make_program(&project, "protoc-gen-x", "#!/bin/sh\ncat > /dev/null\n");
    project.set("PATH", &format!("{}:{}", project.root.display(), std::env::var("PATH").unwrap()));
    project.write("words", "--cpp_out=out\nm.proto\n");
    check_change(&project, "", "protoc -I. -Id @words", &["out/m.pb.h"], || {
        project.write("words", "--cpp_out=dllexport_decl=X:out\nm.proto\n");
    });
    let line = "protoc -I. -Id --cpp_out=out --x_out=out m.proto";
    check_not_kept(&project, line, &["out/m.pb.h"], "tool that starts `protoc-gen-x`");
}

#[test]
fn cython() {
    let Some(tool) = ["cython3", "cython"].into_iter().find(|tool| program(tool).is_some()) else {
        has("cython", "cython3");
        return;
    };
    let project = Project::with(&[
        ("pkg/m.pyx", "cimport pkg.d\ndef f(int x): return x + pkg.d.LIMIT\n"),
        ("pkg/d.pxd", "cdef enum:\n    LIMIT = 3\n"),
        ("pkg/__init__.py", ""),
    ]);
    // What Python compiles of itself beforehand is not of this.
    project.plain(&format!("{tool} -3 pkg/m.pyx -o m.c"));
    let line = format!("{tool} -3 pkg/m.pyx -o m.c");
    check_hit(&project, "", &line, &["m.c"]);
    check_change(&project, "", &line, &["m.c"], || {
        project
            .write("pkg/d.pxd", "cdef enum:\n    LIMIT = 3\n    MORE = 4\ncdef inline int q(): return 2\n");
    });
    check_change(&project, "", &line, &["m.c"], || project.write("pkg/m.pxd", "cpdef f(int x)\n"));
    let positions = format!("{tool} -3 --embed-positions {}/pkg/m.pyx -o m.c", project.root.display());
    project.write("pkg/m.pxd", "");
    check_hit(&project, "", &positions, &["m.c"]);
    let other = project.copy("another-tree");
    check(&other, &positions.replace(project.root.to_str().unwrap(), other.root.to_str().unwrap()), &["m.c"]);
    // Which package it is in is found by looking upwards.
    check_change(&project, "", &line, &["m.c"], || {
        std::fs::remove_file(project.root.join("pkg/__init__.py")).unwrap();
    });
}

#[test]
fn moc() {
    if !has("moc", "moc") {
        return;
    }
    let header = "#pragma once\n#include <base.h>\nclass A : public BASE { Q_OBJECT\npublic: signals: void s(int); };\n";
    let mut project = Project::with(&[
        ("src/a.h", header),
        ("src/base.h", "#define BASE QObject\n"),
        ("early/.keep", ""),
        ("build/.keep", ""),
        ("castwork.toml", ""),
    ]);
    let line = "moc -Iearly -Isrc src/a.h -o build/moc_a.cpp --output-json --output-dep-file";
    let outputs = ["build/moc_a.cpp", "build/moc_a.cpp.json", "build/moc_a.cpp.d"];
    let plain = project.plain(line);
    if !plain.status.success() {
        support::skip("moc with json", "this moc doesn't know it");
        return;
    }
    let made = check_hit(&project, "", line, &outputs);
    assert!(made.text("build/moc_a.cpp").contains("../src/a.h"), "it writes how files lie to each other");
    // One of the side outputs is gone.
    std::fs::remove_file(project.root.join("build/moc_a.cpp.json")).unwrap();
    assert!(project.cached(line).status.success());
    assert!(project.root.join("build/moc_a.cpp.json").exists());
    project.counters();
    let absolute = |project: &Project| {
        format!("moc {root}/src/a.h -o {root}/build/moc_a.cpp", root = project.root.display())
    };
    check_hit(&project, "", &absolute(&project), &outputs[..1]);
    let mut other = project.copy("another-tree");
    check(&other, &absolute(&other), &outputs[..1]);
    std::fs::create_dir_all(other.root.join("deeper/build")).unwrap();
    let deeper = format!("moc {root}/src/a.h -o {root}/deeper/build/moc_a.cpp", root = other.root.display());
    check(&other, &deeper, &["deeper/build/moc_a.cpp"]);
    check_change(&project, "", line, &outputs, || {
        project.write("src/a.h", &header.replace("s(int)", "t(int)"));
    });
    check_change(&project, "", line, &outputs, || project.write("early/base.h", "#define BASE QThing\n"));
    other.set("QT_SELECT", "nonsense");
    check(&other, line, &outputs);
    project.set("CPLUS_INCLUDE_PATH", "early");
    check(&project, line, &outputs);
}

#[test]
fn assembler() {
    let project = Project::with(&[
        ("x.s", ".include \"i.inc\"\n.data\n.incbin \"d.bin\"\n"),
        ("i/i.inc", ".byte 1\n"),
        ("i/d.bin", "data"),
        ("early/.keep", ""),
    ]);
    let line = "as -Iearly -Ii x.s -o x.o";
    check_hit(&project, "", line, &["x.o"]);
    check_change(&project, "", line, &["x.o"], || project.write("i/i.inc", ".byte 2\n"));
    check_change(&project, "", line, &["x.o"], || project.write("i/d.bin", "other"));
    check_change(&project, "", line, &["x.o"], || project.write("early/d.bin", "early"));
    let why = |file: &str| String::from_utf8(project.cached(&format!("why {file}")).stdout).unwrap();
    assert!(why("x.s").contains("early/d.bin"), "{}", why("x.s"));
    let line = "as -g --MD x.d @words -o x.o";
    project.write("words", "-Ii x.s\n");
    check_hit(&project, "", line, &["x.o", "x.d"]);
    check_change(&project, "", line, &["x.o", "x.d"], || project.write("words", "-Iearly -Ii x.s\n"));
    // The folder is in the debug information.
    project.write("z.s", "nop\n");
    let debug = "as -g z.s -o z.o";
    check_hit(&project, "", debug, &["z.o"]);
    let other = project.copy("another-tree");
    check(&other, debug, &["z.o"]);
    // Standard input and output.
    check(&project, "as -o x.o", &["x.o"]);
    assert_eq!(project.counters().number("local_hits"), 0);
}
