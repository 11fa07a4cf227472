//! Debug information in other folders than it was made in: what a hit gives is, byte by byte, what the compiler gives there.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use support::{Project, castwork, shown, text};

const FILES: [(&str, &str); 3] = [
    (
        "src/a.cc",
        "#include <vector>\n#include \"h.h\"\n#include <far.h>\n#include \"made.h\"\nint f(std::vector<int> &v) { v.push_back(H + MADE); return far(static_cast<int>(v.size())); }\n",
    ),
    (
        "src/b.c",
        "#include <stdio.h>\n#include \"h.h\"\n#include <far.h>\nstatic int g(int x) { return far(x) + H; }\nint f(int x) { printf(\"%d\", x); return g(x); }\n",
    ),
    ("include/h.h", "#define H 1\n"),
];

/// A project, a folder that it is built in, and a folder with what the build requires: apart from each other.
struct Places {
    project: Project,
    _folders: [tempfile::TempDir; 2],
    build: PathBuf,
    required: PathBuf,
}

impl Places {
    /// In folders with such names.
    fn new(from: Option<&Places>, source: &str, build: &str) -> Self {
        let project = from.map_or_else(|| Project::with(&FILES), |other| other.project.copy(source));
        let folders =
            [build, "pip-build-env-"].map(|name| tempfile::Builder::new().prefix(name).tempdir().unwrap());
        let [build, required] =
            [&folders[0], &folders[1]].map(|folder| folder.path().canonicalize().unwrap());
        Self::at(project, folders, build.join("build"), required)
    }

    /// Built in a folder in the project's, or beside it: `{}` is the project's own name.
    fn built_in(from: &Places, source: &str, build: &str) -> Self {
        let project = from.project.copy(source);
        let folders =
            ["tmp", "pip-build-env-"].map(|name| tempfile::Builder::new().prefix(name).tempdir().unwrap());
        let required = folders[1].path().canonicalize().unwrap();
        let build = match build.strip_prefix("../") {
            Some(beside) => project.root.parent().unwrap().join(beside.replace("{}", source)),
            None => project.root.join(build),
        };
        Self::at(project, folders, build, required)
    }

    fn at(project: Project, folders: [tempfile::TempDir; 2], build: PathBuf, required: PathBuf) -> Self {
        std::fs::create_dir_all(build.join("dir")).unwrap();
        std::fs::create_dir_all(required.join("include")).unwrap();
        let places = Self { project, _folders: folders, build, required };
        let sources = shown(&places.project.root);
        places.write(&places.build, "CMakeCache.txt", &format!("CMAKE_HOME_DIRECTORY:INTERNAL={sources}\n"));
        places.write(&places.build, "made.h", "#define MADE 2\n");
        places.write(&places.required, "include/far.h", "static inline int far(int x) { return x * 3; }\n");
        places
    }

    fn write(&self, folder: &Path, name: &str, text: &str) {
        self.project.write(&shown(&folder.join(name)), text);
    }

    /// Compiles as `CMake` has it done, through the wrapper and without, and compares. Returns whether it was a hit.
    fn compile(&self, compiler: &str, source: &str, flags: &str) -> bool {
        let (root, required) = (shown(&self.project.root), shown(&self.required));
        let line = format!(
            "{compiler} {flags} -I{root}/include -I{} -isystem {required}/include -MD -MF dir/a.d -o dir/a.o -c {source}",
            shown(&self.build)
        );
        let line = line.replace("ROOT", &root).replace("REQUIRED", &required);
        let ran = |program: Option<&str>| {
            let mut words = line.split(' ');
            let mut command = self.project.command(program.unwrap_or_else(|| words.next().unwrap()));
            command.env_remove("CASTWORK_PROJECT_ROOT").current_dir(&self.build).env("PWD", &self.build);
            let output = command.args(words).output().unwrap();
            assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
            let file = |name: &str| std::fs::read(self.build.join(name)).unwrap();
            (file("dir/a.o"), text(&file("dir/a.d")), text(&output.stderr))
        };
        let plain = ran(None);
        let _ = self.project.counters();
        let cached = ran(Some(castwork()));
        assert!(cached.0 == plain.0, "another object: {line}");
        assert_eq!((cached.1, cached.2), (plain.1, plain.2), "{line}");
        self.project.counters().number("local_hits") == 1
    }
}

#[test]
fn objects_with_debug_information_move() {
    let here = Places::new(None, "", "tmp");
    // Of more lengths than gcc's table of its own two paths has slots.
    let others: Vec<Places> = (0..15)
        .map(|n| Places::new(Some(&here), &"another-checkout-"[n..], &"of-a-build-of-it-"[..=n]))
        .collect();
    for (compiler, source, flags) in [
        ("g++", "ROOT/src/a.cc", "-g"),
        ("gcc", "ROOT/src/b.c", "-g -O2"),
        ("gcc", "ROOT/src/../src/b.c", "-O1 -ggdb -fPIC"),
        ("gcc", "ROOT//src/b.c", "-g1"),
        (
            "gcc",
            "ROOT/src/b.c",
            "-gdwarf-5 -ffunction-sections -gno-column-info -fno-asynchronous-unwind-tables",
        ),
    ] {
        assert!(!here.compile(compiler, source, flags), "{source} {flags}");
        assert!(here.compile(compiler, source, flags), "{source} {flags}");
        for other in &others {
            assert!(other.compile(compiler, source, flags), "{source} {flags}");
        }
    }
    others[0].write(&others[0].required, "include/far.h", "static inline int far(int x) { return x * 4; }\n");
    assert!(!others[0].compile("gcc", "ROOT/src/b.c", "-g -O2"), "what is required counts");
}

#[test]
fn where_the_folder_of_a_build_lies_is_no_matter() {
    let apart = Places::new(None, "", "tmp");
    // In the project's, at several depths, under a name with which another folder in it begins; beside it, with a name that
    // begins as the project's; and one with which the project's begins.
    let within = [
        "build",
        "cmake-build-debug",
        "a/much/deeper/one",
        "src-build",
        "inc",
        "../{}-build",
        "../{}x/y",
        "../ano",
    ];
    let places: Vec<Places> = within.iter().map(|build| Places::built_in(&apart, "another", build)).collect();
    for (compiler, source, flags) in
        [("g++", "ROOT/src/a.cc", "-g"), ("gcc", "ROOT/src/b.c", "-O2 -g"), ("gcc", "ROOT/src/b.c", "-O2")]
    {
        assert!(!places[0].compile(compiler, source, flags), "{source} {flags}");
        for (place, build) in places.iter().zip(within).chain([(&apart, "apart")]) {
            assert!(place.compile(compiler, source, flags), "{build}: {source} {flags}");
        }
    }
    // From the folder of a build, the project's own is a way there.
    for (place, build) in places.iter().zip(within) {
        let is_far = build.contains('/');
        let way = if is_far { "ROOT/src/b.c" } else { "../src/b.c" };
        place.compile("gcc", way, "-g -O1");
        assert!(place.compile("gcc", way, "-g -O1"), "{build}");
    }
}

#[test]
fn debug_information_of_other_forms_stays() {
    let here = Places::new(None, "", "tmp");
    let there = Places::new(Some(&here), "another-checkout", "of-a-build");
    for flags in [
        "-g3",
        "-gdwarf-4",
        "-g -gz",
        "-g -m32",
        "-g -gno-as-loc-support",
        "-g -fdebug-prefix-map=/usr=/other",
        "-g -Wa,--compress-debug-sections=zlib",
    ] {
        if flags.contains("-m32") && !Path::new("/usr/include/gnu/stubs-32.h").exists() {
            continue;
        }
        // What the command doesn't tell is seen in the object, so it takes one compile more.
        let tries = (0..3).position(|_| here.compile("gcc", "ROOT/src/b.c", flags));
        assert!(tries.is_some_and(|tries| tries > 0), "{flags}: {tries:?}");
        assert!(!there.compile("gcc", "ROOT/src/b.c", flags), "{flags}");
    }
}

#[test]
fn a_debugger_finds_the_sources_of_the_folder_it_was_delivered_to() {
    let here = Places::new(None, "", "tmp");
    let there = Places::new(Some(&here), "another-checkout", "of-a-build");
    assert!(!here.compile("gcc", "ROOT/src/b.c", "-g"));
    assert!(there.compile("gcc", "ROOT/src/b.c", "-g"));
    let object = std::fs::read(there.build.join("dir/a.o")).unwrap();
    let holds = |path: &Path| {
        let name = [shown(path).as_bytes(), b"\0"].concat();
        object.windows(name.len()).any(|window| window == name)
    };
    assert!(holds(&there.build) && holds(&there.project.root.join("src/b.c")));
    assert!(holds(&there.required.join("include")));
    assert!(!holds(&here.build) && !holds(&here.project.root.join("src/b.c")));
    assert!(!object.windows(8).any(|window| window == b"/build/p"));
}

/// A header that names itself, in a function that a source calls or doesn't.
fn naming(said: &str, with_length: bool) -> String {
    let length = if with_length { "inline int length() { return sizeof(__FILE__); }\n" } else { "" };
    format!(
        "#include <stdexcept>\n#include <stdlib.h>\n#include <string.h>\n[[noreturn]] __attribute__((noinline)) inline void fail(const char *why) {{ {said} }}\n\
         inline void nobody(int x) {{ if (x) {{ fail(\"not here: \" __FILE__); }} }}\n\
         inline int far(int x) {{ return x; }}\n{length}"
    )
}

#[test]
fn a_header_that_names_itself_where_nothing_comes_of_it_is_no_reason_for_a_miss() {
    const THROWS: &str = "throw std::runtime_error(why);";
    for (said, called, is_shared) in [
        (THROWS, "far(1)", true),
        (THROWS, "(nobody(1), far(1))", false),
        ("exit((int)strlen(why));", "(nobody(1), far(1))", false),
        ("exit(why[20]);", "(nobody(1), far(1))", false),
        ("abort();", "(nobody(1), far(1))", true),
        (THROWS, "far(length())", false),
    ] {
        for debug in ["", " -g"] {
            let here = Places::new(None, "", "tmp");
            let prepare = |places: &Places| {
                let source = format!("#include <far.h>\n#include <vector>\nint f() {{ return {called}; }}\n");
                places.write(&places.required, "include/far.h", &naming(said, called.contains("length")));
                places.project.write("src/a.cc", &source);
            };
            prepare(&here);
            let there = Places::new(Some(&here), "another-checkout", "of-a-build");
            prepare(&there);
            let flags = format!("-O2{debug}");
            assert!(!here.compile("g++", "ROOT/src/a.cc", &flags), "{said} {called}");
            assert_eq!(there.compile("g++", "ROOT/src/a.cc", &flags), is_shared, "{said} {called}{debug}");
        }
    }
}

/// The same project in folders with names of several lengths.
fn in_many(files: &[(&str, &str)], prepare: impl Fn(&Project)) -> Vec<Project> {
    let first = Project::with(files);
    let mut all: Vec<Project> = ["b", "a-much-longer-name-of-a-checkout"].map(|name| first.copy(name)).into();
    all.insert(0, first);
    all.iter().for_each(prepare);
    all
}

#[test]
fn what_a_source_says_of_its_lines_stays_what_it_says() {
    for line in ["#line 5 \"{}/gen.y\"", "# 5 \"{}/gen.y\"", "#define G \"{}/gen.y\"\n#line 5 G"] {
        let first = Project::with(&[]);
        let line = line.replace("{}", &shown(&first.root));
        first.write("a.c", &format!("{line}\nint f(int x) {{ int u; return x; }}\n"));
        let second = first.copy("another-checkout");
        for flags in ["-g", "-Wall", "-g -Wall"] {
            for project in [&first, &first, &second, &second] {
                project.check(&format!("gcc {flags} -c a.c"));
            }
        }
    }
}

#[test]
fn other_formats_of_debug_information_stay_in_their_folder() {
    for flag in ["-gbtf", "-g3", "-gz", "-gdwarf-4", "-gsplit-dwarf", "-g -Wa,-g"] {
        let projects = in_many(&[("a.c", "int f(int x) { return x; }\n")], |_| ());
        for project in projects.iter().chain(&projects) {
            project.check(&format!("gcc {flag} -c {}/a.c", shown(&project.root)));
        }
    }
}

#[test]
fn headers_that_a_compiler_calls_by_the_shorter_of_two_names_are_those_of_a_place() {
    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().canonicalize().unwrap().join("usr/include/python3.11");
    std::fs::create_dir_all(&real).unwrap();
    std::fs::write(real.join("P.h"), "static inline int p(int x) { return x; }\n").unwrap();
    let source = ("a.c", "#include <py/P.h>\nint f(int x) { return p(x); }\n");
    for way in ["inc", "a/much/longer/folder/than/that/of/the/header/itself/inc"] {
        let projects = in_many(&[source], |project| {
            project.write(&format!("{way}/other.h"), "");
            project.turn(&format!("{way}/py"), &shown(&real));
        });
        for flags in ["-g", "-MD -MF a.d"] {
            for project in projects.iter().chain(&projects) {
                let line = format!("gcc {flags} -isystem {}/{way} -c a.c", shown(&project.root));
                let depfile = || std::fs::read(project.root.join("a.d")).unwrap_or_default();
                assert!(project.plain(&format!("{line} -o cached.o")).status.success());
                let plain = depfile();
                assert!(project.cached(&format!("{line} -o cached.o")).status.success());
                assert_eq!(text(&depfile()), text(&plain), "{line}");
                project.check(&line);
            }
        }
    }
}

#[test]
fn dependency_files_in_folders_whose_names_are_escaped_are_right() {
    let first = Project::with(&[("a.c", "int x;\n")]);
    for name in ["plain", "with a blank", "with#a$sign"] {
        let project = first.copy(name);
        for program in [vec!["gcc"], vec![castwork(), "gcc"], vec![castwork(), "gcc"]] {
            let mut command = project.command(program[0]);
            command.args(&program[1..]).args(["-MD", "-MF", "a.d", "-o", "a.o", "-c"]);
            assert!(command.arg(project.root.join("a.c")).status().unwrap().success());
            let said = std::fs::read(project.root.join("a.d")).unwrap();
            if program.len() == 1 {
                project.write("plain.d", &text(&said));
            }
            assert_eq!(text(&said), text(&std::fs::read(project.root.join("plain.d")).unwrap()), "{name}");
        }
    }
}
