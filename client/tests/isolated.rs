//! Wheels that pip builds in isolation, each time in other folders: the second build compiles nothing.
//!
//! `tests/isolated` installs what these builds need, and runs all of this; without that, it is left out.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Project, castwork, program, shown, skip, text};

/// Where `tests/isolated` has installed pip, and the packages that it installs; `None` if it has not.
fn installed(test: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-env/isolated");
    if place.join("wheels/done").exists() {
        return Some(place);
    }
    skip(test, "what isolated builds need is not installed (tests/isolated)");
    None
}

/// Builds of one project, with a cache of their own.
struct Builds {
    installed: PathBuf,
    project: Project,
    folders: Vec<tempfile::TempDir>,
}

/// What a build left: its extension modules, each by its name.
type Modules = Vec<(String, Vec<u8>)>;

impl Builds {
    fn new(installed: PathBuf, files: &[(&str, &str)]) -> Self {
        Self { installed, project: Project::with(files), folders: Vec::new() }
    }

    /// A copy of the project in a folder with a random name.
    fn checkout(&mut self) -> PathBuf {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("a-checkout");
        let copied = Command::new("cp").arg("-r").arg(&self.project.root).arg(&root).status().unwrap();
        assert!(copied.success());
        self.folders.push(folder);
        root
    }

    /// Builds a wheel from a folder, and returns its modules.
    fn wheel(&mut self, from: &Path, variables: &[(&str, &str)]) -> Modules {
        let folder = tempfile::tempdir().unwrap();
        let mut command = self.project.command(self.installed.join("bin/pip"));
        let bin = self.installed.join("bin");
        command.env("PATH", format!("{}:{}", shown(&bin), std::env::var("PATH").unwrap()));
        command.env_remove("CASTWORK_PROJECT_ROOT").current_dir(from).env("PWD", from);
        command.envs([("PIP_NO_INDEX", "1"), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")]);
        command.env("PIP_FIND_LINKS", self.installed.join("wheels")).envs(variables.iter().copied());
        command.args(["wheel", "--no-deps", "-v", "-w"]).arg(folder.path()).arg(".");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        let unpack = "import glob, sys, zipfile; [zipfile.ZipFile(w).extractall(sys.argv[1]) for w in glob.glob(sys.argv[1] + '/*.whl')]";
        let python = self.installed.join("bin/python");
        let unpacked = Command::new(python).args(["-c", unpack]).arg(folder.path()).status().unwrap();
        assert!(unpacked.success());
        let found = Command::new("find").arg(folder.path()).args(["-name", "*.so"]).output().unwrap();
        let mut modules: Modules = text(&found.stdout)
            .lines()
            .map(|path| (path.rsplit('/').next().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect();
        modules.sort();
        assert!(!modules.is_empty(), "no extension module");
        self.folders.push(folder);
        modules
    }
}

/// A project with six sources of its own, and two that include pybind11; `without` says what pybind11 is to leave out.
fn pybind11_project(without: &str) -> Vec<(String, String)> {
    let mut files = vec![
        (
            "pyproject.toml".to_owned(),
            "[build-system]\nrequires = [\"scikit-build-core\", \"pybind11\"]\nbuild-backend = \"scikit_build_core.build\"\n\
             [project]\nname = \"eight\"\nversion = \"1.0\"\n[tool.scikit-build]\ncmake.version = \">=3.18\"\ninstall.strip = false\n"
                .to_owned(),
        ),
        (
            "CMakeLists.txt".to_owned(),
            format!(
                "cmake_minimum_required(VERSION 3.18)\nproject(eight LANGUAGES CXX)\nset(CMAKE_CXX_STANDARD 17)\n\
                 find_package(pybind11 CONFIG REQUIRED)\nfile(GLOB sources src/*.cpp)\n\
                 pybind11_add_module(_core {without} ${{sources}})\ninstall(TARGETS _core DESTINATION eight)\n"
            ),
        ),
        (
            "src/bind0.cpp".to_owned(),
            "#include <pybind11/pybind11.h>\n#include \"units.h\"\nvoid more(pybind11::module_ &m);\n\
             PYBIND11_MODULE(_core, m) { m.def(\"u1\", &u1); more(m); }\n"
                .to_owned(),
        ),
        (
            "src/bind1.cpp".to_owned(),
            "#include <pybind11/pybind11.h>\n#include \"units.h\"\nvoid more(pybind11::module_ &m) { m.def(\"u2\", &u2); }\n"
                .to_owned(),
        ),
        ("src/units.h".to_owned(), (1..=6).map(|n| ["int u", &n.to_string(), "(int);\n"].concat()).collect()),
    ];
    for n in 1..=6 {
        let text = format!(
            "#include <string>\n#include <vector>\n#include \"units.h\"\nint u{n}(int x) {{\n  \
             std::vector<std::string> v(x, \"{n}\");\n  int sum = 0;\n  for (auto &s : v) sum += s.size() * {n};\n  \
             return sum;\n}}\n"
        );
        files.push((format!("src/u{n}.cpp"), text));
    }
    files
}

/// Builds twice, each time in folders of other names, and says how often the second build hit, and what else it did.
fn two_builds(is_random: bool, flags: &str) {
    let Some(installed) = installed("isolated") else { return };
    let files = pybind11_project("NO_EXTRAS");
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut builds = Builds::new(installed, &files);
    let plain = if flags.is_empty() {
        let from = builds.checkout();
        Some(builds.wheel(&from, &[]))
    } else {
        None
    };
    let fixed = builds.checkout();
    let launcher = [("CMAKE_CXX_COMPILER_LAUNCHER", castwork()), ("CXXFLAGS", flags)];
    let mut hits = Vec::new();
    for _ in 0..2 {
        let from = if is_random { builds.checkout() } else { fixed.clone() };
        let modules = builds.wheel(&from, &launcher);
        let counters = builds.project.counters();
        eprintln!("random {is_random}, {flags:?}: {}", counters.0);
        hits.push(counters.number("local_hits"));
        if let Some(plain) = &plain {
            assert!(modules == *plain, "another extension module");
        } else {
            check_debug_information(&builds, &modules[0].1, &from);
        }
        // pybind11 has CMake try link-time optimisation, which knows its folder, and CMake asks compilers about themselves.
        assert!(
            counters.number("compiles") - counters.number("local_hits")
                <= if hits.len() == 1 { 9 } else { 1 }
        );
    }
    assert_eq!(hits, [0, 8], "random {is_random}, {flags:?}");
}

#[test]
fn a_module_with_what_pybind11_adds_unless_told_otherwise_compiles_nothing_twice() {
    let Some(installed) = installed("link-time optimisation") else { return };
    let files = pybind11_project("");
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut builds = Builds::new(installed, &files);
    let from = builds.checkout();
    let plain = builds.wheel(&from, &[]);
    let launcher = [("CMAKE_CXX_COMPILER_LAUNCHER", castwork()), ("CASTWORK_SHARE_LTO", "yes")];
    let mut hits = Vec::new();
    for _ in 0..2 {
        let from = builds.checkout();
        let modules = builds.wheel(&from, &launcher);
        let counters = builds.project.counters();
        eprintln!("link-time optimisation: {}", counters.0);
        assert!(modules == plain, "another extension module");
        hits.push(counters.number("local_hits"));
    }
    assert_eq!(hits[0], 0);
    assert!(hits[1] >= 8, "{hits:?}");
}

/// The sources that a module names have to be those of its own build.
fn check_debug_information(builds: &Builds, module: &[u8], from: &Path) {
    let file = builds.project.root.join("module.so");
    std::fs::write(&file, module).unwrap();
    let told = Command::new("readelf").args(["--debug-dump=info,line", "-W"]).arg(&file).output().unwrap();
    let told = text(&told.stdout);
    for n in 1..=6 {
        let source = format!("{}/src/u{n}.cpp", shown(from));
        assert!(told.contains(&source), "{source} is not named");
        assert!(Path::new(&source).exists());
    }
    assert!(!told.contains("/build/p") && !told.contains("/build/b") && !told.contains("/build/e"));
    let mut folders: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("pip-build-env-"))
        .map(|(_, rest)| rest.split('/').next().unwrap())
        .collect();
    folders.sort_unstable();
    folders.dedup();
    assert_eq!(folders.len(), 1, "more than the isolation of one build is named: {folders:?}");
    if program("gdb").is_none() {
        return skip("a debugger for a wheel", "there is no gdb");
    }
    for n in 1..=6 {
        // By its file: where a function begins may be a line of what is inlined into it.
        let (line, list) = (format!("info line u{n}.cpp:7"), format!("list u{n}.cpp:4,7"));
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch", "-ex", &line, "-ex", &list, "-ex", "info source"]).arg(&file);
        let told = text(&command.output().unwrap().stdout);
        let source = format!("{}/src/u{n}.cpp", shown(from));
        assert!(told.contains(&format!("Located in {source}\n")), "{told}");
        assert!(told.contains(&format!("\tint u{n}(int x) {{\n")), "it lists the source: {told}");
    }
}

#[test]
fn a_wheel_from_a_random_folder_compiles_nothing_twice() {
    two_builds(true, "-g");
}

#[test]
fn wheels_in_isolation_compile_nothing_twice() {
    if std::env::var_os("CASTWORK_TESTS_ISOLATED").is_none() {
        return;
    }
    two_builds(true, "");
    two_builds(false, "");
    two_builds(false, "-g");
}

/// A project of Meson's: a library of two sources and a module, with a header that the build makes.
const MESON: [(&str, &str); 7] = [
    (
        "pyproject.toml",
        "[build-system]\nrequires = [\"meson-python\"]\nbuild-backend = \"mesonpy\"\n[project]\nname = \"four\"\nversion = \"1.0\"\n",
    ),
    (
        "meson.build",
        "project('four', 'c', version: '1.0')\npy = import('python').find_installation(pure: false)\n\
         configure_file(output: 'made.h', configuration: {'MADE': 4})\nsubdir('src')\n",
    ),
    (
        "src/meson.build",
        "inc = include_directories('../include')\nlib = static_library('parts', 'a.c', 'b.c', include_directories: inc, pic: true)\n\
         py.extension_module('four', 'module.c', link_with: lib, include_directories: [inc, include_directories('..')], \
         dependencies: py.dependency(), install: true)\n",
    ),
    ("src/a.c", "#include \"parts.h\"\nint a(int x) { return x + A; }\n"),
    ("src/b.c", "#include <stdio.h>\n#include \"parts.h\"\nint b(int x) { return printf(\"%d\", x); }\n"),
    (
        "src/module.c",
        "#include <Python.h>\n#include \"parts.h\"\n#include \"made.h\"\nstatic struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, \"four\", 0, -1, 0};\n\
         PyMODINIT_FUNC PyInit_four(void) { return a(MADE) ? PyModule_Create(&definition) : 0; }\n",
    ),
    ("include/parts.h", "#define A 1\nint a(int);\nint b(int);\n"),
];

#[test]
fn meson_below_pip_compiles_nothing_twice() {
    let Some(installed) = installed("meson") else { return };
    for flags in ["", "-g0"] {
        let mut builds = Builds::new(installed.clone(), &MESON);
        let compiler = format!("{} gcc", castwork());
        let plain = builds.checkout();
        let plain = builds.wheel(&plain, &[("CFLAGS", flags)]);
        let mut hits = Vec::new();
        for _ in 0..2 {
            let from = builds.checkout();
            let modules = builds.wheel(&from, &[("CC", &compiler), ("CFLAGS", flags)]);
            let counters = builds.project.counters();
            eprintln!("meson, {flags:?}: {}", counters.0);
            assert_eq!(counters.reason("path that leads out of the project and back"), 0);
            hits.push(counters.number("local_hits"));
            assert!(modules == plain, "another extension module");
            if hits.len() == 2 {
                assert_eq!(counters.number("local_runs"), 0, "{}", counters.0);
            }
        }
        assert!(hits[1] >= 3, "{hits:?}");
    }
}

#[test]
fn what_is_printed_for_cibuildwheel_lets_setuptools_compile_nothing_twice() {
    let Some(installed) = installed("cibuildwheel") else { return };
    let setup = "from setuptools import setup, Extension\n\
                 setup(name='three', version='1', ext_modules=[Extension('three', ['a.c', 'b.c', 'module.c'])])\n";
    let module = "#include <Python.h>\nint a(int);\nstatic struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, \"three\", 0, -1, 0};\n\
                  PyMODINIT_FUNC PyInit_three(void) { return a(3) ? PyModule_Create(&definition) : 0; }\n";
    let files = [
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n",
        ),
        ("setup.py", setup),
        ("a.c", "int b(int);\nint a(int x) { return b(x) + 1; }\n"),
        ("b.c", "#include <stdio.h>\nint b(int x) { return printf(\"%d\", x); }\n"),
        ("module.c", module),
    ];
    let mut builds = Builds::new(installed, &files);
    let mut command = builds.project.command(castwork());
    command.envs([
        ("CASTWORK_REMOTE", "file:///a/cache"),
        ("CASTWORK_RUN_ID", "run 7"),
        ("CASTWORK_PROJECT", "me/it"),
    ]);
    let printed = text(&command.args(["env", "--cibuildwheel"]).output().unwrap().stdout);
    // The container's own folder, and the package, are the container's matter; all else is done as it is printed.
    let links = tempfile::tempdir().unwrap();
    let here = printed
        .replace("/opt/castwork", &shown(links.path()))
        .replace("pip install --find-links {project}/wheels castwork", "true");
    let program = Path::new(castwork()).parent().unwrap();
    let path = format!(
        "{}:{}:{}",
        shown(&builds.installed.join("bin")),
        shown(program),
        std::env::var("PATH").unwrap()
    );
    let script = format!(
        "set -e\n{here}\neval \"$CIBW_BEFORE_ALL_LINUX\"\neval export \"$CIBW_ENVIRONMENT_LINUX\"\nenv -0\n"
    );
    let told = builds.project.command("bash").env("PATH", &path).args(["-c", &script]).output().unwrap();
    assert!(told.status.success(), "{}", text(&told.stderr));
    let told = text(&told.stdout);
    let of = |name: &str| {
        told.split('\0')
            .find_map(|line| line.strip_prefix(&format!("{name}=")))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        (of("CASTWORK_REMOTE").as_str(), of("CASTWORK_PROJECT").as_str()),
        ("file:///host/a/cache", "me/it")
    );
    assert_eq!(of("CASTWORK_PROJECT_ROOT"), "/project");
    assert!(of("CASTWORK_RUN_ID").starts_with("run 7-cpython-"), "{}", of("CASTWORK_RUN_ID"));
    assert!(of("PATH").starts_with(&shown(links.path())));
    let (path, plain) = (of("PATH"), builds.checkout());
    let plain = builds.wheel(&plain, &[("CFLAGS", "-O2 -DNDEBUG -g0")]);
    let mut hits = Vec::new();
    for _ in 0..2 {
        let from = builds.checkout();
        let modules = builds.wheel(&from, &[("PATH", &path), ("CFLAGS", "-O2 -DNDEBUG -g0")]);
        assert!(modules == plain, "another extension module");
        hits.push(builds.project.counters().number("local_hits"));
    }
    assert_eq!(hits, [0, 3]);
}
