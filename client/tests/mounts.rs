//! Folders with other names for each build: what is compiled in one is known in the others, and comes out right.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use support::{Project, castwork, shown, text};

/// A project with a build folder of this name, configured, with a header in it.
fn checkout(from: Option<&Project>, name: &str, build: &str) -> (Project, PathBuf) {
    let project = from.map_or_else(
        || {
            Project::with(&[
                ("src/a.c", "#include <assert.h>\n#include \"h.h\"\n#include \"made.h\"\nint f(int x) { int y; assert(x); return y + H + MADE; }\nconst char *n(void) { return NAME; }\n"),
                ("include/h.h", "#define H 1\n#ifdef NAMED\n#define NAME __FILE__\n#else\n#define NAME \"\"\n#endif\n"),
            ])
        },
        |other| other.copy(name),
    );
    project.write(&format!("{build}/CMakeCache.txt"), "");
    project.write(&format!("{build}/made.h"), "#define MADE 2\n#warning made\n");
    let build = project.root.join(build);
    (project, build)
}

/// Compiles as `CMake` has it done, through the wrapper and without, and compares. Returns whether it was a hit.
fn compile(project: &Project, build: &PathBuf, flags: &str) -> bool {
    let root = shown(&project.root);
    let line = format!(
        "gcc {flags} -Wall -I{root}/include -I{} -MD -MT x.dir/a.c.o -MF a.d -o a.o -c {root}/src/a.c",
        shown(build)
    );
    let ran = |program: Option<&str>| {
        let mut words = line.split(' ');
        let mut command = project.command(program.unwrap_or_else(|| words.next().unwrap()));
        let output = command.args(words).current_dir(build).env("PWD", build).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let file = |name: &str| std::fs::read(build.join(name)).unwrap();
        (file("a.o"), text(&file("a.d")), text(&output.stderr))
    };
    let plain = ran(None);
    let _ = project.counters();
    let cached = ran(Some(castwork()));
    assert!(cached == plain, "{line}\nplain: {}{}\ncached: {}{}", plain.1, plain.2, cached.1, cached.2);
    project.counters().number("local_hits") == 1
}

#[test]
fn checkouts_with_build_folders_of_different_names_share_everything_that_is_equal() {
    let (here, build) = checkout(None, "", "build");
    let (there, other) = checkout(Some(&here), "another-checkout", "out/of/release");
    for flags in ["-O2 -DNDEBUG", "-O2", "-O2 -DNAMED"] {
        assert!(!compile(&here, &build, flags), "{flags}");
        assert!(compile(&here, &build, flags), "{flags}");
        // An object that holds its folder's name is another one there.
        assert_eq!(compile(&there, &other, flags), flags == "-O2 -DNDEBUG", "{flags}");
        assert!(compile(&there, &other, flags), "{flags}");
    }
    assert!(!compile(&here, &build, "-g"));
    assert!(!compile(&there, &other, "-g"), "debug information names the folders");
    assert!(compile(&there, &other, "-g"));
    there.write("out/of/release/made.h", "#define MADE 3\n#warning made\n");
    assert!(!compile(&there, &other, "-O2 -DNDEBUG"), "what is made counts");
}

#[test]
fn isolated_builds_share_what_they_compile() {
    let here = Project::with(&[("a.c", "#include <binding.h>\nint f(void) { return B; }\n")]);
    let mut hits = Vec::new();
    for random in ["kx2_1", "9zq", "other"] {
        let folder = format!("pip-build-env-{random}/overlay/include");
        here.write(&format!("{folder}/binding.h"), "#define B 1\n#warning look here\n");
        here.check(&format!("gcc -isystem {}/{folder} -c a.c", shown(&here.root)));
        hits.push(here.counters().number("local_hits"));
    }
    assert_eq!(hits, [0, 1, 1]);
}

#[test]
fn a_build_folder_whose_files_climb_out_of_it_keeps_its_own_name() {
    let (here, build) = checkout(None, "", "build");
    let moved = |project: &Project, build: &PathBuf, climb: &str| {
        project.write("include/h.h", "#define H 1\n#define NAME \"\"\n#include \"climbs.h\"\n");
        project.write(&format!("{}/climbs.h", shown(build)), &format!("#include \"{climb}/src/far.h\"\n"));
        project.write("src/far.h", "#define FAR 1\n");
    };
    moved(&here, &build, "..");
    assert!(!compile(&here, &build, "-O2 -DNDEBUG"));
    assert!(compile(&here, &build, "-O2 -DNDEBUG"));
    here.write("src/far.h", "#define FAR 2\n");
    assert!(!compile(&here, &build, "-O2 -DNDEBUG"), "what is reached that way counts");
    let there = here.copy("another-checkout");
    assert!(compile(&there, &there.root.join("build"), "-O2 -DNDEBUG"), "the same name is known");
}

#[test]
fn a_header_that_is_found_through_another_folder_is_not_taken_for_one_of_the_build() {
    let (here, build) = checkout(None, "", "build");
    here.write("src/a.c", "#include <build/made.h>\nint f(void) { return MADE; }\n");
    here.write("other/made.h", "#define MADE 7\n");
    let moved = |project: &Project, build: &PathBuf| {
        let root = shown(&project.root);
        let line = format!("gcc -O1 -w -I{root} -I{root}/other -o a.o -c {root}/src/a.c");
        let ran = |program: &str, words: &str| {
            let _ = std::fs::remove_file(build.join("a.o"));
            let mut command = project.command(program);
            command.args(words.split(' ')).current_dir(build).env("PWD", build);
            let code = command.output().unwrap().status.code();
            (code, std::fs::read(build.join("a.o")).ok())
        };
        let (compiler, words) = line.split_once(' ').unwrap();
        assert!(ran(castwork(), &line) == ran(compiler, words));
    };
    moved(&here, &build);
    moved(&here, &build);
    let there = here.copy("another-checkout");
    std::fs::rename(there.root.join("build"), there.root.join("out")).unwrap();
    moved(&there, &there.root.join("out"));
    // What is called as the build is elsewhere is another folder.
    there.write("build/made.h", "#define MADE 9\n");
    moved(&there, &there.root.join("out"));
}

#[test]
fn what_does_not_include_python_compiles_once_for_all_versions_of_it() {
    let project = Project::with(&[
        ("unit.c", "#include \"unit.h\"\nint unit(int x) { return x + UNIT; }\n"),
        (
            "other.c",
            "#include <stdio.h>\n#include \"unit.h\"\nint other(void) { return printf(\"%d\", UNIT); }\n",
        ),
        ("unit.h", "#define UNIT 3\n"),
        (
            "module.c",
            "#include <Python.h>\n#include \"unit.h\"\nint module(void) { return PY_VERSION_HEX + UNIT; }\n",
        ),
        ("macro.c", "#if __has_include(<only_new.h>)\nint is_new = 1;\n#else\nint is_new = 0;\n#endif\n"),
    ]);
    let pythons = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for (version, number) in [("3.11", "0x030b0000"), ("3.12", "0x030c0000"), ("3.13t", "0x030d0000")] {
        let folder = format!("{}/cp{version}/include/python{version}", shown(pythons.path()));
        project.write(&format!("{folder}/Python.h"), "#include \"patchlevel.h\"\n#define Py_LIMIT 1\n");
        project.write(&format!("{folder}/patchlevel.h"), &format!("#define PY_VERSION_HEX {number}\n"));
        folders.push(folder);
    }
    project.write(&format!("{}/only_new.h", folders[2]), "");
    for flags in ["-O2 -fPIC -DNDEBUG", "-O2 -fPIC -DNDEBUG -g"] {
        for (at, folder) in folders.iter().enumerate() {
            let _ = project.counters();
            for source in ["unit.c", "other.c", "module.c", "macro.c"] {
                project.check(&format!("gcc {flags} -I{folder} -c {source}"));
            }
            let hits = project.counters().number("local_hits");
            // The last Python has a header that a test finds.
            assert_eq!(hits, [0, 3, 2][at], "{flags} {folder}");
        }
    }
}

#[test]
fn a_build_folder_of_mesons_may_have_any_name_in_its_project() {
    let here = Project::with(&[
        ("src/a.c", "#include \"h.h\"\n#include \"made.h\"\nint f(void) { return H + MADE; }\n"),
        ("src/h.h", "#define H 1\n"),
    ]);
    let there = here.copy("another-checkout");
    let mut hits = Vec::new();
    for (project, name) in [(&here, ".mesonpy-x1"), (&here, ".mesonpy-other"), (&there, "build")] {
        let build = project.root.join(name);
        let about = format!("{{\"directories\": {{\"source\": \"{}\"}}}}", shown(&project.root));
        project.write(&format!("{name}/meson-info/meson-info.json"), &about);
        project.write(&format!("{name}/made.h"), "#define MADE 2\n");
        for flags in ["-O2", "-O2 -g"] {
            let line = format!("gcc {flags} -Ix.p -I. -I../src -MD -MQ x.p/a.o -MF a.d -o a.o -c ../src/a.c");
            let ran = |program: &str, words: &str| {
                let mut command = project.command(program);
                command.args(words.split(' ')).current_dir(&build).env("PWD", &build);
                let output = command.env_remove("CASTWORK_PROJECT_ROOT").output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                ["a.o", "a.d"].map(|file| std::fs::read(build.join(file)).unwrap())
            };
            let plain = ran("gcc", line.strip_prefix("gcc ").unwrap());
            assert!(ran(castwork(), &line) == plain, "{line}");
        }
        hits.push(project.counters().number("local_hits"));
    }
    assert_eq!(hits, [0, 2, 2]);
}

#[test]
fn a_header_that_the_command_finds_through_the_folder_above_a_build_is_the_one_that_is_there() {
    let (here, build) = checkout(None, "", "build");
    let (there, other) = checkout(Some(&here), "another-checkout", "out");
    there.write("build/made.h", "#define MADE 9\n");
    for project in [&here, &there] {
        project.write("src/b.c", "#ifdef HDR\n#include HDR\n#endif\nint f(void) { return MADE; }\n");
        project.write("src/c.c", "#include <build\\\n/made.h>\nint f(void) { return MADE; }\n");
    }
    let compile = |project: &Project, build: &PathBuf, line: &str| {
        let line = line.replace("ROOT", &shown(&project.root));
        let ran = |program: &str| {
            let mut command = project.command(program);
            command.args(line.split(' ').skip(usize::from(program == "gcc")));
            let output = command.current_dir(build).env("PWD", build).output().unwrap();
            (output.status.code(), std::fs::read(build.join("a.o")).unwrap_or_default())
        };
        let plain = ran("gcc");
        assert!(ran(castwork()) == plain, "{line}");
    };
    for line in [
        "gcc -DHDR=<build/made.h> -IROOT -o a.o -c ROOT/src/b.c",
        "gcc -include build/made.h -IROOT -o a.o -c ROOT/src/b.c",
        "gcc -IROOT -o a.o -c ROOT/src/c.c",
    ] {
        for (project, build) in [(&here, &build), (&here, &build), (&there, &other), (&there, &other)] {
            compile(project, build, line);
        }
    }
}
