//! Builds by ninja with clang-cl: which headers an object was made of ninja knows from what a hit says.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::msvc::ClangCl;
use support::{Counters, Project, castwork, program, shown, skip, text};

fn project() -> Project {
    Project::with(&[
        (
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.20)\nproject(x LANGUAGES C CXX)\nadd_library(o OBJECT a.cc b.cc c.c)\ntarget_include_directories(o PRIVATE inc)\n",
        ),
        ("a.cc", "#include \"one.h\"\nint a() { return ONE; }\n"),
        ("b.cc", "#include \"two.h\"\nint b() { return TWO; }\n"),
        ("c.c", "int c(void) { return 3; }\n"),
        ("inc/one.h", "#include \"two.h\"\n#define ONE (TWO - 1)\n"),
        ("inc/two.h", "#define TWO 2\n"),
    ])
}

/// Runs a command to its good end, and returns what it says.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Builds; returns the sources that were compiled.
fn built(project: &Project, folder: &Path) -> BTreeSet<&'static str> {
    let said = run(project.command("ninja").arg("-C").arg(folder).arg("-v"));
    ["a.cc", "b.cc", "c.c"]
        .into_iter()
        .filter(|name| said.contains(&format!("/{name}\n")) || said.contains(&format!("-- {name}\n")))
        .collect()
}

/// The headers that ninja knows an object by.
fn known_headers(project: &Project, folder: &Path) -> Vec<String> {
    let said = run(project.command("ninja").arg("-C").arg(folder).args(["-t", "deps"]));
    let mut headers: Vec<String> =
        said.lines().filter(|line| line.starts_with(' ')).map(|line| line.trim().to_owned()).collect();
    headers.sort();
    headers
}

/// Builds in two folders, touching headers between, and checks what ninja builds anew.
fn check(here: &Project, configure: impl Fn(&Project, &Path)) {
    let build = |project: &Project| {
        let folder = project.root.join("build");
        configure(project, &folder);
        folder
    };
    let all = BTreeSet::from(["a.cc", "b.cc", "c.c"]);
    let folder = build(here);
    here.counters();
    assert_eq!(built(here, &folder), all);
    assert_eq!(here.counters().local(), [3, 0, 3, 0]);
    let there = here.copy("elsewhere");
    std::fs::remove_dir_all(there.root.join("build")).unwrap();
    let other = build(&there);
    there.counters();
    assert_eq!(built(&there, &other), all);
    assert_eq!(there.counters().local(), [3, 3, 0, 0], "all hits in another checkout");
    let moved = |headers: Vec<String>| -> Vec<String> {
        headers.iter().map(|name| name.replace(&shown(&here.root), &shown(&there.root))).collect()
    };
    assert_eq!(known_headers(&there, &other), moved(known_headers(here, &folder)));
    assert_eq!(built(&there, &other), BTreeSet::new(), "nothing is left to do");
    for (header, anew) in [("inc/one.h", vec!["a.cc"]), ("inc/two.h", vec!["a.cc", "b.cc"])] {
        let anew = BTreeSet::from_iter(anew);
        there.write(header, &format!("{}\n", std::fs::read_to_string(there.root.join(header)).unwrap()));
        assert_eq!(built(&there, &other), anew, "{header} was changed after hits");
        assert_eq!(built(&there, &other), BTreeSet::new());
        // Removed, the objects come back as hits, and ninja knows no less of them.
        run(there.command("ninja").arg("-C").arg(&other).args(["-t", "clean"]));
        there.counters();
        assert_eq!(built(&there, &other), all);
        let Counters(counted) = there.counters();
        assert_eq!((&counted["local_hits"], &counted["passed_through"]), (&3.into(), &0.into()));
    }
}

/// Whether the tools are here.
fn has(test: &str, tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| program(tool).is_none());
    if let Some(tool) = missing {
        skip(test, &format!("{tool} is not installed"));
    }
    missing.is_none()
}

#[test]
fn ninja_knows_the_headers_of_hits() {
    let Some(clang_cl) = ClangCl::find("ninja_knows_the_headers_of_hits") else { return };
    if !has("ninja_knows_the_headers_of_hits", &["ninja"]) {
        return;
    }
    check(&project(), |project, folder| {
        std::fs::create_dir(folder).unwrap();
        let text = format!(
            "rule cc\n  command = {} {} /nologo /showIncludes /I../inc /O2 /Fo$out /c -- $in\n  deps = msvc\n\
             build a.obj: cc ../a.cc\nbuild b.obj: cc ../b.cc\nbuild c.obj: cc ../c.c\n",
            castwork(),
            clang_cl.path()
        );
        std::fs::write(folder.join("build.ninja"), text).unwrap();
        assert!(project.root.join("inc").is_dir());
    });
}

#[test]
fn cmake_builds_are_hits_in_other_checkouts() {
    let test = "cmake_builds_are_hits_in_other_checkouts";
    let Some(clang_cl) = ClangCl::find(test) else { return };
    let tools = program("clang").and_then(|clang| Some(clang.canonicalize().ok()?.parent()?.to_owned()));
    let Some(tools) =
        tools.filter(|tools| has(test, &["ninja", "cmake"]) && tools.join("llvm-lib").is_file())
    else {
        return skip(test, "ninja, cmake or llvm-lib is not installed");
    };
    check(&project(), |project, folder| {
        let mut command = project.command("cmake");
        command.args(["-G", "Ninja", "-DCMAKE_SYSTEM_NAME=Windows", "-DCMAKE_BUILD_TYPE=Release"]);
        command.arg("-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY");
        for language in ["C", "CXX"] {
            command.arg(format!("-DCMAKE_{language}_COMPILER={}", clang_cl.path()));
            command.arg(format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", castwork()));
        }
        for (name, tool) in [("AR", "llvm-lib"), ("MT", "llvm-mt")] {
            command.arg(format!("-DCMAKE_{name}={}", shown(&tools.join(tool))));
        }
        run(command.arg("-S").arg(&project.root).arg("-B").arg(folder));
    });
}
