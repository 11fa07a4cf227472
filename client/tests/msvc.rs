//! clang-cl: what it makes through the wrapper is what it makes without, the notes of `/showIncludes` included.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};

use support::msvc::{ClangCl, MINGW, has_mingw, seconds_now};
use support::{Project, program, shown, text};

fn project() -> Project {
    Project::with(&[
        ("a.cc", "#include \"h.h\"\n#include <sys.h>\n#warning heard\nint f() { return H + S; }\n"),
        ("inc/h.h", "#include \"deep/d.h\"\n#define H 1\n"),
        ("inc/deep/d.h", "#pragma once\n"),
        ("sys/sys.h", "#define S 1\n"),
    ])
}

#[test]
fn a_hit_says_which_headers_were_read_as_they_are_called_here() {
    let Some(clang_cl) = ClangCl::find("a_hit_says_which_headers_were_read") else { return };
    let here = project();
    let line = "/showIncludes /O2 /EHsc -MD /Iinc /external:I sys /Foout.obj /c -- a.cc";
    let (_, notes) = clang_cl.check_hit(&here, line, "out.obj");
    assert!(notes.contains("Note: including file: inc/h.h"), "{notes}");
    assert!(notes.contains("Note: including file:  inc/deep/d.h"), "{notes}");
    let there = here.copy("elsewhere");
    clang_cl.check(&there, line, "out.obj");
    assert_eq!(there.counters().local(), [1, 1, 0, 0], "another checkout");
    // As CMake names everything.
    let absolute = |project: &Project| {
        let root = shown(&project.root);
        format!(
            "-TP /showIncludes -I{root}/inc -imsvc {MINGW} /external:I{root}/sys /Foout.obj -c -- {root}/a.cc"
        )
    };
    let (_, notes) = clang_cl.check_hit(&here, &absolute(&here), "out.obj");
    assert!(notes.contains(&format!("Note: including file: {}/inc/h.h", shown(&here.root))), "{notes}");
    let (_, notes) = clang_cl.check(&there, &absolute(&there), "out.obj");
    assert!(notes.contains(&format!("Note: including file: {}/inc/h.h", shown(&there.root))), "{notes}");
    assert_eq!(there.counters().local(), [1, 1, 0, 0], "another checkout, by absolute names");
    let (_, notes) =
        clang_cl.check_hit(&here, "/showIncludes /FIinc/h.h /Foout.obj /c /Iinc /Isys a.cc", "out.obj");
    assert!(notes.starts_with("Note: including file: ") && notes.contains("inc/h.h"), "{notes}");
    // Without the system's headers there is less to say.
    let (_, notes) = clang_cl.check_hit(
        &here,
        "/showIncludes:user /Iinc /clang:-isystemsys /Foout.obj /c -- a.cc",
        "out.obj",
    );
    assert!(!notes.contains("sys.h"), "{notes}");
}

#[test]
fn objects_of_real_headers_are_what_they_are_without_us() {
    let Some(clang_cl) = ClangCl::find("objects_of_real_headers") else { return };
    if !has_mingw("objects_of_real_headers") {
        return;
    }
    let project = Project::with(&[
        ("io.c", "#include <stdio.h>\n#include <stdlib.h>\nint f(void) { return printf(\"%d\", rand()); }\n"),
        ("win.c", "#include <windows.h>\nint f(void) { return (int)GetLastError(); }\n"),
        (
            "vec.cc",
            "#include <vector>\n#include <string>\nint f(std::vector<std::string> &v) { return v.size(); }\n",
        ),
    ]);
    let line = |more: &str| format!("/imsvc{MINGW} -fgnuc-version=4.2.1 /showIncludes /Fox.obj /c {more}");
    let (_, notes) = clang_cl.check_hit(&project, &line("-- io.c"), "x.obj");
    assert!(notes.contains(&format!("{MINGW}/stdio.h")), "{notes}");
    let (_, notes) = clang_cl.check_hit(&project, &line("-fmsc-version=0 -- win.c"), "x.obj");
    assert!(notes.lines().count() > 50, "{notes}");
    let gcc = program("x86_64-w64-mingw32-g++")
        .map(|gcc| project.plain(&format!("{} -print-file-name=include", shown(&gcc))));
    let folder = gcc.map(|said| text(&said.stdout).trim().to_owned()).unwrap_or_default();
    let cxx = folder.replace("/include", "/include/c++");
    if cxx.is_empty() {
        return support::skip("objects_of_real_headers", "there is no C++ for mingw");
    }
    let line = format!(
        "--target=x86_64-w64-windows-gnu /clang:-isystem{cxx} /clang:-isystem{cxx}/x86_64-w64-mingw32 /EHsc \
         /clang:-O2 /showIncludes /Fox.obj /c -- vec.cc"
    );
    let (_, notes) = clang_cl.check_hit(&project, &line, "x.obj");
    assert!(notes.contains("bits/stl_vector.h"), "{notes}");
}

/// Checks a line before and after a change, each until it is a hit.
fn check_change(clang_cl: &ClangCl, project: &Project, line: &str, change: impl FnOnce()) {
    let before = clang_cl.check_hit(project, line, "x.obj");
    change();
    let after = clang_cl.check_hit(project, line, "x.obj");
    assert_ne!(before, after, "{line}: the change doesn't show, so this tests nothing");
}

#[test]
fn a_header_that_changes_or_appears_is_seen() {
    let Some(clang_cl) = ClangCl::find("a_header_that_changes_or_appears") else { return };
    let project = Project::with(&[
        ("src/m.cc", "#include \"../a/x.h\"\nint f() { return V; }\n"),
        ("a/x.h", "#include \"../b/y.h\"\n"),
        ("b/y.h", "#include \"z.h\"\n#if __has_include(\"later.h\")\nint later;\n#endif\n"),
        ("inc/z.h", "#define V 1\n"),
        ("first/other.h", ""),
    ]);
    let line = "/showIncludes -Ifirst -Iinc /Fox.obj /c src/m.cc";
    let change = |name: &str, text: &str| {
        check_change(&clang_cl, &project, line, || project.write(name, text));
    };
    change("inc/z.h", "#define V 2\n");
    change("first/z.h", "#define V 3\n");
    // Microsoft's rules: beside those that include the one that asks.
    change("src/z.h", "#define V 4\n");
    change("a/z.h", "#define V 5\n");
    change("b/z.h", "#define V 6\n");
    change("a/later.h", "");
    check_change(&clang_cl, &project, line, || std::fs::remove_file(project.root.join("b/z.h")).unwrap());
}

#[test]
fn folders_that_variables_name_are_in_the_key() {
    let Some(clang_cl) = ClangCl::find("folders_that_variables_name") else { return };
    let mut project = Project::with(&[
        ("a.c", "#include <z.h>\nint f(void) { return V; }\n"),
        ("one/z.h", "#define V 1\n"),
        ("two/z.h", "#define V 2\n"),
    ]);
    let line = "/showIncludes /Fox.obj /c -- a.c";
    let folders = |names: &[&str]| {
        names.iter().map(|name| shown(&project.root.join(name))).collect::<Vec<_>>().join(";")
    };
    let (one, both) = (folders(&["one"]), folders(&["two", "one"]));
    project.set("INCLUDE", &one);
    let first = clang_cl.check_hit(&project, line, "x.obj");
    project.set("INCLUDE", &both);
    assert_ne!(clang_cl.check_hit(&project, line, "x.obj"), first);
    project.set("INCLUDE", &one);
    assert_eq!(clang_cl.check_hit(&project, line, "x.obj"), first);
    for name in ["CL", "_CL_"] {
        let mut with = project.copy("with");
        with.set(name, "/DV=7");
        clang_cl.check(&with, line, "x.obj");
        assert_eq!(with.counters().reason(&format!("`{name}` is set")), 1);
    }
}

#[test]
fn toolsets_of_microsoft_are_chosen_anew_each_time() {
    let Some(clang_cl) = ClangCl::find("toolsets_of_microsoft") else { return };
    let mut project = Project::with(&[
        ("a.c", "#include <z.h>\nint f(void) { return V; }\n"),
        ("one/VC/Tools/MSVC/14.1.1/include/z.h", "#define V 1\n"),
        ("one/VC/Tools/MSVC/14.1.1/bin/Hostx64/x64/cl.exe", ""),
        ("one/VC/Tools/MSVC/14.1.1/bin/Hostx64/x64/link.exe", ""),
        ("two/VC/Tools/MSVC/14.1.1/include/z.h", "#define V 2\n"),
        ("two/VC/Tools/MSVC/14.1.1/bin/Hostx64/x64/cl.exe", ""),
        ("two/VC/Tools/MSVC/14.1.1/bin/Hostx64/x64/link.exe", ""),
    ]);
    let root = shown(&project.root);
    let toolset = |name: &str| format!("{root}/{name}/VC/Tools/MSVC/14.1.1");
    for (name, program) in [("one", "cl"), ("one", "link"), ("two", "cl"), ("two", "link")] {
        let program = project.root.join(format!("{}/bin/Hostx64/x64/{program}.exe", toolset(name)));
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let line = "/showIncludes /Fox.obj /c -- a.c";
    // By variables.
    let path = std::env::var("PATH").unwrap();
    let mut made = Vec::new();
    for name in ["one", "two", "one"] {
        project.set("VCToolsInstallDir", &toolset(name));
        made.push(clang_cl.check_hit(&project, line, "x.obj"));
    }
    project.variables.clear();
    for name in ["one", "two"] {
        project.set("PATH", &format!("{path}:{}/bin/Hostx64/x64", toolset(name)));
        made.push(clang_cl.check_hit(&project, line, "x.obj"));
    }
    project.variables.clear();
    let [one, two] = [made[0].clone(), made[1].clone()];
    assert_ne!(one, two);
    assert_eq!(made[2..], [one.clone(), one, two]);
    // By the version that is the latest in a folder.
    let line = "/winsysroot one /showIncludes /Fox.obj /c -- a.c";
    check_change(&clang_cl, &project, line, || {
        project.write("one/VC/Tools/MSVC/14.2.2/include/z.h", "#define V 3\n");
    });
}

#[test]
fn an_object_has_the_present_time_unless_it_is_to_have_none() {
    let Some(clang_cl) = ClangCl::find("an_object_has_the_present_time") else { return };
    let project = Project::with(&[("a.cc", "int x;\n")]);
    let time = |line: &str| {
        clang_cl.check_hit(&project, line, "x.obj");
        // The next second: a hit then has not the time of the compile.
        let begun = seconds_now();
        while seconds_now() == begun {
            std::thread::yield_now();
        }
        clang_cl.check_hit(&project, line, "x.obj");
        let mut object = std::fs::read(project.root.join("x.obj")).unwrap();
        support::msvc::take_time(&mut object)
    };
    assert_ne!(time("/c /Fox.obj a.cc"), 0);
    assert_ne!(time("/c /bigobj /Fox.obj a.cc"), 0);
    assert_eq!(time("/c /Brepro /Fox.obj a.cc"), 0);
}

#[test]
fn debug_information_is_of_its_folder_and_object() {
    let Some(clang_cl) = ClangCl::find("debug_information_is_of_its_folder") else { return };
    let here = project();
    let line = "/Z7 /Iinc /external:Isys /Foone.obj /c a.cc";
    let (one, _) = clang_cl.check_hit(&here, line, "one.obj");
    let (two, _) = clang_cl.check_hit(&here, &line.replace("one.obj", "two.obj"), "two.obj");
    assert_ne!(one, two, "it names the object");
    let there = here.copy("elsewhere");
    there.counters();
    let (other, _) = clang_cl.check(&there, line, "one.obj");
    assert_ne!(one, other, "it names the folder");
    assert_eq!(there.counters().local(), [1, 0, 1, 0]);
    clang_cl.check_hit(&there, &line.replace("/Z7", "/Zi /Fdx.pdb /FS"), "one.obj");
}

#[test]
fn names_that_are_made_from_the_sources_are_of_its_folder() {
    let Some(clang_cl) = ClangCl::find("names_that_are_made_from_the_sources") else { return };
    let here = Project::with(&[
        (
            "named.cc",
            "namespace { struct S { int f(); }; int S::f() { return 1; } }\nint g() { return S().f(); }\n",
        ),
        ("file.cc", "const char *f() { return __FILE__; }\n"),
        ("plain.cc", "namespace n { int x; }\n"),
    ]);
    let there = here.copy("elsewhere");
    for (name, hits) in [("named.cc", 0), ("file.cc", 0), ("plain.cc", 1)] {
        let line = |project: &Project| format!("/c /Fox.obj -- {}/{name}", shown(&project.root));
        let (one, _) = clang_cl.check_hit(&here, &line(&here), "x.obj");
        let (other, _) = clang_cl.check(&there, &line(&there), "x.obj");
        assert_eq!(one == other, hits == 1, "{name}");
        assert_eq!(there.counters().number("local_hits"), hits, "{name}");
    }
}

#[test]
fn words_from_files_are_words() {
    let Some(clang_cl) = ClangCl::find("words_from_files") else { return };
    let project = Project::with(&[
        ("a.c", "const char *s = S;\nconst char *p = P;\n"),
        ("words", "/Fox.obj \"/DS=\\\"a b\\\"\" /DP=\\\"x\\\\y\\\"\r\n/O2 /c\n-- a.c"),
    ]);
    let (one, _) = clang_cl.check_hit(&project, "@words", "x.obj");
    let utf_16 = |text: &str| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        std::fs::write(project.root.join("wide"), [0xff, 0xfe].into_iter().chain(units).collect::<Vec<_>>())
            .unwrap();
    };
    let words = std::fs::read_to_string(project.root.join("words")).unwrap();
    utf_16(&words);
    let (other, _) = clang_cl.check(&project, "@wide", "x.obj");
    assert_eq!((one.clone(), project.counters().local()), (other, [1, 1, 0, 0]), "the same words");
    utf_16(&words.replace("a b", "a  b"));
    let (other, _) = clang_cl.check_hit(&project, "@wide", "x.obj");
    assert_ne!(one, other);
}

#[test]
fn objects_are_called_as_clang_cl_calls_them() {
    let Some(clang_cl) = ClangCl::find("objects_are_called_as_clang_cl") else { return };
    let project = Project::with(&[("src/a.b.c", "int x;\n"), ("out/x", "")]);
    for (said, object) in [
        ("", "a.b.obj"),
        ("/Foout/", "out/a.b.obj"),
        ("/Foy", "y.obj"),
        ("/Foout/y", "out/y.obj"),
        ("/Foout", "out.obj"),
        ("/Foy.o", "y.o"),
        ("-oz", "z.obj"),
        ("-o z.o", "z.o"),
    ] {
        clang_cl.check_hit(&project, &format!("/c {said} src/a.b.c"), object);
    }
    // An absolute name looks like a flag.
    clang_cl.check_hit(&project, &format!("/c {}/src/a.b.c", shown(&project.root)), "a.b.obj");
}

#[test]
fn what_is_not_understood_is_passed_through() {
    let Some(clang_cl) = ClangCl::find("msvc: what_is_not_understood") else { return };
    let project = Project::with(&[
        ("a.cc", "#include \"p.h\"\nint x;\n"),
        ("p.h", ""),
        ("b.cc", "int y;\n"),
        ("asm.cc", "void f() { __asm .incbin \"p.h\"\n }\n"),
        ("alias.cc", "#pragma include_alias(\"q.h\", \"p.h\")\n#include \"q.h\"\n"),
    ]);
    for (line, reason) in [
        ("/c a.cc b.cc", "several sources"),
        ("/c /Fa a.cc", "listing of assembler (`/FA`)"),
        ("/E a.cc", "preprocessing only"),
        ("/P a.cc", "preprocessing only"),
        ("/c /Ycp.h a.cc", "precompiled header"),
        ("/c /Yup.h a.cc", "precompiled header"),
        ("/c /Wp64 a.cc", "unknown flag `/Wp64`"),
        ("/c /MP a.cc", "several compiles at once (`/MP`)"),
        ("/c asm.cc", "block of assembler"),
        ("/c alias.cc", "`#pragma include_alias`"),
    ] {
        clang_cl.check(&project, line, "a.obj");
        let counters = project.counters();
        assert_eq!((counters.number("passed_through"), counters.reason(reason)), (1, 1), "{line}");
    }
    // What the driver says of the command holds the command.
    clang_cl.check(&project, "/c -fno-exceptions a.cc", "a.obj");
    assert_eq!(project.counters().reason("messages of the driver"), 1);
}

#[test]
fn microsofts_own_is_passed_through_by_its_name() {
    let Some(clang) = program("clang") else { return };
    let project = Project::with(&[("a.c", "int x;\n")]);
    // clang takes that name for a wish to be like it.
    let cl = project.root.join("cl");
    symlink(clang, &cl).unwrap();
    let ran = project.cached(&format!("{} /nologo /c a.c", shown(&cl)));
    assert!(ran.status.success() && project.root.join("a.obj").is_file(), "{}", text(&ran.stderr));
    assert_eq!(project.counters().reason("cl: not tested with the real compiler yet"), 1);
}
