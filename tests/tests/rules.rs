//! Tools that are no compilers, each of them the real one, through its rule: what they leave is what they leave when they
//! are called alone, and is left again without them, here and in another folder, until something that they read changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use castwork_tests::{Farm, binary, environment, skip};
use serde_json::Value;
use tempfile::TempDir;

/// A tool on files.
struct Case {
    tool: &'static str,
    /// `ROOT` in it stands for the project's folder.
    line: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// A file that it finds by itself, with what changes its outputs.
    change: (&'static str, &'static str),
}

const CASES: &[Case] = &[
    Case {
        tool: "castxml",
        line: "--castxml-output=1 --castxml-cc-gnu ( g++ -std=c++17 ) -IROOT/inc -o out/a.xml ROOT/a.cc",
        files: &[
            ("a.cc", "#include <vector>\n#include \"h.h\"\nstruct A { std::vector<int> v; B b; };\n"),
            ("inc/h.h", "struct B { int x; };\n"),
        ],
        change: ("inc/h.h", "struct B { long x; };\n"),
    },
    Case {
        tool: "swig",
        line: "-python -c++ -Iinc -outdir out -o out/t_wrap.cxx t.i",
        files: &[("t.i", "%module thing\n%include \"t.h\"\n"), ("inc/t.h", "int add(int a, int b);\n")],
        change: ("inc/t.h", "int sub(int a, int b);\n"),
    },
    Case {
        tool: "protoc",
        line: "-I. --cpp_out=out m.proto",
        files: &[
            ("m.proto", "syntax = \"proto3\";\nimport \"inc/o.proto\";\nmessage M { O o = 1; }\n"),
            ("inc/o.proto", "syntax = \"proto3\";\nmessage O { int32 x = 1; }\n"),
        ],
        change: ("inc/o.proto", "syntax = \"proto3\";\nmessage O { int64 x = 1; }\n"),
    },
    Case {
        tool: "cython",
        line: "-3 -o out/c.c c.pyx",
        files: &[
            ("c.pyx", "from inc.z cimport q\ndef f(int x):\n    return x + q\n"),
            ("inc/__init__.py", ""),
            ("inc/z.pxd", "cdef enum:\n    q = 1\n"),
        ],
        change: ("inc/z.pxd", "cdef enum:\n    q = 2\n"),
    },
    Case {
        tool: "moc",
        line: "-I. -o out/moc_x.cpp x.h",
        files: &[
            ("x.h", "#include \"inc/slots.h\"\nclass X : public QObject { Q_OBJECT\nMY_SLOTS };\n"),
            ("inc/slots.h", "#define MY_SLOTS public slots: void one();\n"),
        ],
        change: ("inc/slots.h", "#define MY_SLOTS public slots: void two();\n"),
    },
    Case {
        tool: "as",
        line: "-o out/g.o g.s",
        files: &[("g.s", ".include \"inc/m.s\"\n.globl g\ng: ret\n"), ("inc/m.s", ".set q, 1\n")],
        change: ("inc/m.s", ".set q, 2\n.globl q\n"),
    },
];

/// A project in a folder, which shares its cache with others.
struct Project {
    folder: TempDir,
    root: PathBuf,
    cache: PathBuf,
    remote: Option<String>,
}

impl Project {
    fn new(cache: &Path, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("its path").join("p");
        let project = Self { folder, root, cache: cache.to_owned(), remote: None };
        fs::create_dir_all(project.root.join("out")).expect("a folder for outputs");
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    /// Writes a file, and waits until the clock of files has gone on: what was changed in the tick in which a tool starts
    /// is rightly not trusted.
    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        fs::write(&path, text).expect("a file");
        let changed =
            |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).expect("its time");
        let tick = self.folder.path().join("tick");
        while {
            fs::write(&tick, "x").expect("a tick");
            changed(&tick) <= changed(&path)
        } {}
    }

    fn run(&self, mut command: Command, line: &str) -> Output {
        let root = self.root.to_str().expect("a path");
        command.args(line.split(' ').map(|word| word.replace("ROOT", root))).current_dir(&self.root);
        command.env("CASTWORK_DIR", &self.cache).env("CASTWORK_PROJECT_ROOT", &self.root);
        command
            .env_remove("CASTWORK_CONFIG")
            .env_remove("CASTWORK_DISABLE")
            .env("HOME", self.folder.path())
            .env("PWD", &self.root);
        match &self.remote {
            Some(remote) => command.env("CASTWORK_REMOTE", remote),
            None => command.env_remove("CASTWORK_REMOTE"),
        };
        command.output().expect("start a tool")
    }

    /// Runs the tool alone, and takes away what it leaves.
    fn plain(&self, tool: &Path, line: &str) -> (Output, BTreeMap<String, Vec<u8>>) {
        let output = self.run(Command::new(tool), line);
        (output, self.take())
    }

    /// Runs it through us, checks that nothing differs, and returns local hits, remote hits, runs, and calls that were
    /// passed through.
    fn check(&self, tool: &Path, line: &str) -> [u64; 4] {
        let (plain, expected) = self.plain(tool, line);
        assert!(plain.status.success(), "{line}: {}", String::from_utf8_lossy(&plain.stderr));
        assert!(!expected.is_empty(), "{line} leaves nothing");
        let mut command = Command::new(binary("castwork"));
        command.arg(tool);
        let ours = self.run(command, line);
        let said = |output: &Output| {
            String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
        };
        assert_eq!((ours.status.code(), said(&ours)), (plain.status.code(), said(&plain)), "{line}");
        let left = self.take();
        assert_eq!(left.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{line}");
        for (name, bytes) in &expected {
            assert!(left[name] == *bytes, "{line}: {name} differs");
        }
        self.counts()
    }

    fn counts(&self) -> [u64; 4] {
        let stats = self.run(Command::new(binary("castwork")), "stats --json --zero");
        let stats: Value = serde_json::from_slice(&stats.stdout).expect("JSON");
        ["local_hits", "remote_hits", "local_runs", "passed_through"]
            .map(|name| stats[name].as_u64().expect("a number"))
    }

    /// Takes away all outputs.
    fn take(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in self.root.join("out").read_dir().expect("the folder of outputs") {
            let path = entry.expect("an output").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).expect("an output"));
            fs::remove_file(&path).expect("an output to go");
        }
        files
    }
}

const HIT: [u64; 4] = [1, 0, 0, 0];
const RUN: [u64; 4] = [0, 0, 1, 0];

/// Where a tool is: on `PATH`, where Debian has Qt's, or in the environment that `tests/run` makes.
fn tool(name: &str) -> Option<PathBuf> {
    let generators = environment("generators").map(|folder| folder.join("bin"));
    let more = ["/usr/lib/qt5/bin".into()].into_iter().chain(generators);
    let on_path: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    on_path.into_iter().chain(more).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[test]
fn each_tool_is_run_once_for_what_it_reads() {
    for Case { tool: name, line, files, change } in CASES {
        let Some(tool) = tool(name) else {
            skip(&format!("rule of {name}"), "it is not installed");
            continue;
        };
        let cache = tempfile::tempdir().expect("a cache");
        let here = Project::new(cache.path(), files);
        assert_eq!(here.check(&tool, line), RUN, "{name}: the first time");
        assert_eq!(here.check(&tool, line), HIT, "{name}: again");
        let there = Project::new(cache.path(), files);
        assert_eq!(there.check(&tool, line), HIT, "{name}: in another folder");
        there.write(change.0, change.1);
        assert_eq!(there.check(&tool, line), RUN, "{name}: with another {}", change.0);
        assert_eq!(here.check(&tool, line), HIT, "{name}: with the old one");
    }
}

#[test]
fn a_tool_that_fails_fails() {
    let Some(tool) = tool("castxml") else { return skip("castxml", "it is not installed") };
    let cache = tempfile::tempdir().expect("a cache");
    let project = Project::new(cache.path(), &[("a.cc", "struct {\n")]);
    for _ in 0..2 {
        let (plain, _) = project.plain(&tool, "--castxml-output=1 -o out/a.xml a.cc");
        let mut command = Command::new(binary("castwork"));
        command.arg(&tool);
        let ours = project.run(command, "--castxml-output=1 -o out/a.xml a.cc");
        assert_eq!((ours.status.code(), &ours.stderr), (plain.status.code(), &plain.stderr));
        assert_ne!(ours.status.code(), Some(0));
        project.take();
    }
    assert_eq!(project.counts(), [0, 0, 2, 0]);
}

/// What `CastXML` is to see is decided by the compiler that it is told to take for a model.
#[test]
fn another_emulated_compiler_is_another_call() {
    let Some(tool) = tool("castxml") else { return skip("castxml", "it is not installed") };
    let cache = tempfile::tempdir().expect("a cache");
    let script = "exec g++ $(cat value) \"$@\"\n";
    let files = [("a.cc", "enum { value = VALUE };\n"), ("value", "-DVALUE=2"), ("model", script)];
    let project = Project::new(cache.path(), &files);
    let line = "--castxml-output=1 --castxml-cc-gnu ( sh model ) -o out/a.xml a.cc";
    assert_eq!(project.check(&tool, line), RUN);
    assert_eq!(project.check(&tool, line), HIT);
    project.write("value", "-DVALUE=6");
    assert_eq!(project.check(&tool, line), RUN, "what the script adds comes from a file that nobody names");
    assert_eq!(project.check(&tool, line), HIT);
}

#[test]
fn a_comment_costs_the_preprocessor_and_no_more() {
    let Some(tool) = tool("castxml") else { return skip("castxml", "it is not installed") };
    let cache = tempfile::tempdir().expect("a cache");
    let project =
        Project::new(cache.path(), &[("a.cc", "#include \"h.h\"\nB b;\n"), ("h.h", "struct B {}; // one\n")]);
    let line = "--castxml-output=1 --castxml-cc-gnu g++ -o out/a.xml a.cc";
    assert_eq!(project.check(&tool, line), RUN);
    project.write("h.h", "struct B {}; // two\n");
    assert_eq!(project.check(&tool, line), HIT, "another comment");
    project.write("h.h", "\nstruct B {}; // two\n");
    assert_eq!(project.check(&tool, line), RUN, "another line, which is in the output");
    project.write("h.h", "struct B {}; // one\n");
    project.write("inc/h.h", "struct C {};\n");
    assert_eq!(project.check(&tool, line), HIT);
}

#[test]
fn a_file_that_comes_to_be_found_earlier_is_seen() {
    let Some(tool) = tool("castxml") else { return skip("castxml", "it is not installed") };
    let cache = tempfile::tempdir().expect("a cache");
    let files =
        [("a.cc", "#include <h.h>\nB b;\n"), ("late/h.h", "struct B { int x; };\n"), ("early/other.h", "")];
    let project = Project::new(cache.path(), &files);
    let line = "--castxml-output=1 --castxml-cc-gnu g++ -Iearly -Ilate -o out/a.xml a.cc";
    assert_eq!(project.check(&tool, line), RUN);
    assert_eq!(project.check(&tool, line), HIT);
    project.write("early/h.h", "struct B { long y; };\n");
    assert_eq!(project.check(&tool, line), RUN);
}

#[test]
fn any_tool_by_flags_or_by_the_projects_own_rule() {
    let cache = tempfile::tempdir().expect("a cache");
    let files = [
        ("gen", "#!/bin/sh\ncat \"$1\" parts/*.txt > out/all.txt\necho side > out/side.idx\necho made\n"),
        ("a.in", "a\n"),
        ("parts/b.txt", "b\n"),
    ];
    let project = Project::new(cache.path(), &files);
    let run = |line: &str| {
        let output = project.run(Command::new(binary("castwork")), line);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, b"made\n");
        (project.take(), project.counts())
    };
    let line = "run --input parts/*.txt --output out/all.txt --output out/side.idx -- sh gen a.in";
    let (first, counts) = run(line);
    assert_eq!(
        (first["all.txt"].as_slice(), first["side.idx"].as_slice(), counts),
        (&b"a\nb\n"[..], &b"side\n"[..], RUN)
    );
    assert_eq!(run(line), (first.clone(), HIT));
    project.write("parts/c.txt", "c\n");
    let (second, counts) = run(line);
    assert_eq!((second["all.txt"].as_slice(), counts), (&b"a\nb\nc\n"[..], RUN), "a glob finds another file");
    let rule = "[rule.gen]\nprograms = [\"sh\"]\ninputs = [\"parts/*.txt\"]\nleaves = [\"out/*\"]\n";
    project.write("castwork.toml", rule);
    assert_eq!(run("sh gen a.in"), (second.clone(), RUN));
    assert_eq!(run("sh gen a.in"), (second, HIT));
}

#[test]
fn an_output_that_is_not_there_is_not_kept() {
    let cache = tempfile::tempdir().expect("a cache");
    let project = Project::new(cache.path(), &[("a.in", "a\n")]);
    let line = "run --output out/b --output out/never -- cp a.in out/b";
    for _ in 0..2 {
        assert!(project.run(Command::new(binary("castwork")), line).status.success());
        assert_eq!(project.counts(), RUN);
    }
    let wrong = project.run(Command::new(binary("castwork")), "run -- cp a.in out/b");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--output"), "{wrong:?}");
}

#[test]
fn what_one_has_made_others_have() {
    let Some(tool) = tool("as") else { return skip("rules and a server", "as is not installed") };
    let farm = Farm::start(0, 1);
    let Case { line, files, .. } = CASES.iter().find(|case| case.tool == "as").expect("its case");
    let (cache, other) = (tempfile::tempdir().expect("a cache"), tempfile::tempdir().expect("a cache"));
    let shared = tempfile::tempdir().expect("a folder for all");
    for remote in [farm.address(), format!("file://{}", shared.path().display())] {
        let mut here = Project::new(&cache.path().join(remote.replace('/', "_")), files);
        here.remote = Some(remote.clone());
        assert_eq!(here.check(&tool, line), RUN);
        let mut there = Project::new(&other.path().join(remote.replace('/', "_")), files);
        there.remote = Some(remote + "?mode=ro");
        assert_eq!(there.check(&tool, line), [0, 1, 0, 0], "another machine");
        assert_eq!(there.check(&tool, line), HIT, "which has it now");
    }
}
