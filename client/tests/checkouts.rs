//! A real project of `CMake`'s in two checkouts, with debug information: the second compiles nothing, objects are the
//! compiler's own, and a debugger and warnings show each its own sources.
//!
//! `tests/isolated` installs what this needs, and runs it; without that, it is left out.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Project, castwork, program, shown, skip, text};

/// The project, as `tests/isolated` has it from crates.io.
const SOURCES: &str = "leveldb/vendor/leveldb-sys/deps/leveldb-1.22";
/// Functions of it, and the files that they are in.
const FUNCTIONS: [(&str, &str); 2] =
    [("leveldb::Arena::AllocateFallback", "util/arena.cc"), ("leveldb::DumpFile", "db/dumpfile.cc")];

/// A checkout, and the folder that it is built in.
struct Checkout<'a> {
    installed: &'a Path,
    project: &'a Project,
    sources: PathBuf,
    build: PathBuf,
}

/// What a build left: its objects and programs, each by its name, and what was said of the sources.
type Built = (BTreeMap<String, Vec<u8>>, Vec<String>);

impl Checkout<'_> {
    fn run(&self, name: &str, words: &[&str], is_plain: bool) -> String {
        let mut command = self.project.command(self.installed.join("bin").join(name));
        command.env_remove("CASTWORK_PROJECT_ROOT").current_dir("/").env("PWD", "/");
        if is_plain {
            command.env("CASTWORK_DISABLE", "1");
        }
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn configure(&self) {
        let launcher = format!("-DCMAKE_CXX_COMPILER_LAUNCHER={}", castwork());
        let (sources, build) = (shown(&self.sources), shown(&self.build));
        let words =
            ["-S", &sources, "-B", &build, "-G", "Ninja", &launcher, "-DCMAKE_BUILD_TYPE=RelWithDebInfo"];
        let make = format!("-DCMAKE_MAKE_PROGRAM={}", shown(&self.installed.join("bin/ninja")));
        let more = [
            make.as_str(),
            "-DLEVELDB_BUILD_TESTS=OFF",
            "-DLEVELDB_BUILD_BENCHMARKS=OFF",
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wshadow",
        ];
        self.run("cmake", &[&words[..], &more].concat(), true);
        // Whatever CMake tried out is none of what is counted.
        let _ = self.project.counters();
    }

    /// Builds all of it anew.
    fn build(&self, is_plain: bool) -> Built {
        let build = shown(&self.build);
        self.run("ninja", &["-C", &build, "-t", "clean"], true);
        let said = self.run("ninja", &["-C", &build], is_plain);
        let found =
            Command::new("find").args([&build, "-name", "*.o", "-o", "-name", "leveldbutil"]).output();
        let read = |path: &str| (path[build.len()..].to_owned(), std::fs::read(path).unwrap());
        let files = text(&found.unwrap().stdout).lines().map(read).collect();
        let mut warnings: Vec<String> =
            said.lines().filter(|line| line.contains("warning:")).map(str::to_owned).collect();
        warnings.sort();
        (files, warnings)
    }

    /// What gdb shows has to be this checkout's.
    fn debug(&self) {
        let util = shown(&self.build.join("leveldbutil"));
        for (function, file) in FUNCTIONS {
            let (line, list) = (format!("info line {function}"), format!("list {function}"));
            let mut command = Command::new("gdb");
            command.args(["-nx", "-batch", "-ex", &line, "-ex", &list, "-ex", "info source", &util]);
            let told = text(&command.output().unwrap().stdout);
            let source = shown(&self.sources.join(file));
            assert!(told.contains(&format!("of \"{source}\" starts at")), "{source}:\n{told}");
            assert!(told.contains(&format!("Located in {source}\n")), "{source}:\n{told}");
            assert!(told.contains(&format!("Compilation directory is {}\n", shown(&self.build))), "{told}");
            let name = function.rsplit("::").next().unwrap();
            assert!(told.lines().any(|line| line.contains(&format!("{name}("))), "{told}");
            let text = std::fs::read_to_string(&source).unwrap();
            let listed = told.lines().filter_map(|line| line.split_once('\t')).map(|(_, line)| line);
            let listed: Vec<&str> = listed.filter(|line| !line.is_empty()).collect();
            assert!(listed.len() > 5 && listed.iter().all(|line| text.contains(line)), "{told}");
        }
    }
}

#[test]
fn a_second_checkout_of_a_real_project_compiles_nothing_and_is_debugged_as_its_own() {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-env/isolated");
    if !installed.join(SOURCES).exists() {
        return skip("two checkouts", "the project is not installed (tests/isolated)");
    }
    if program("gdb").is_none() {
        return skip("two checkouts", "there is no gdb");
    }
    let project = Project::new();
    let base = project.root.clone();
    let mut first: Option<Built> = None;
    for (sources, build) in [
        ("one/leveldb", "one/leveldb/build"),
        ("two/of/them", "two/of/out-of-the-sources"),
        ("third-checkout", "third-checkout/cmake-build-relwithdebinfo"),
    ] {
        let checkout = Checkout {
            installed: &installed,
            project: &project,
            sources: base.join(sources),
            build: base.join(build),
        };
        std::fs::create_dir_all(checkout.sources.parent().unwrap()).unwrap();
        let copied =
            Command::new("cp").arg("-r").arg(installed.join(SOURCES)).arg(&checkout.sources).status();
        assert!(copied.unwrap().success());
        checkout.configure();
        let built = checkout.build(false);
        let [compiles, hits, runs, passed] = project.counters().local();
        eprintln!("{build}: {hits} hits of {compiles}, {} warnings", built.1.len());
        assert_eq!((runs, passed), if first.is_some() { (0, 0) } else { (compiles, 0) }, "{build}");
        assert!(compiles > 30 && hits + runs == compiles, "{build}");
        checkout.debug();
        assert!(built.1.iter().all(|line| line.starts_with(&shown(&checkout.sources))), "{:?}", built.1);
        let Some(first) = &first else {
            assert!(built.1.len() > 10, "{:?}", built.1);
            first = Some(built);
            continue;
        };
        assert_eq!(built.1.len(), first.1.len());
        assert!(
            built.0.keys().eq(first.0.keys()) && built.0 != first.0,
            "debug information names the checkout"
        );
        let plain = checkout.build(true);
        assert_eq!(project.counters().number("compiles"), 0);
        assert!(built.0 == plain.0, "{build}: objects or programs are not the compiler's");
        assert_eq!(built.1, plain.1, "{build}");
    }
}
