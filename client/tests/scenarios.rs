//! Situations in which caches of compilers have handed out what the compiler would not have made. Each is played with the
//! wrapper, and object, dependency file, messages and whatever else the compiler leaves have to be the compiler's.
//!
//! `tests/scenarios FOLDER` plays them with other caches too, whose programs are in a folder, and prints who was right.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use support::castwork;

/// A situation: its name, and how it is played.
type Scenario = (&'static str, fn(&mut Scene<'_>));

const SCENARIOS: &[Scenario] = &[
    ("a file that the assembler includes changes", |scene| {
        scene.write("a.c", "asm(\".include \\\"x.s\\\"\");\nint f(void) { return 1; }\n");
        for number in [1, 1, 2] {
            scene.write("x.s", &format!(".globl x\n.set x, {number}\n"));
            scene.compile("gcc -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("clang's options are overridden by a variable that is set later", |scene| {
        scene.write("a.c", "int x = X;\n");
        for options in ["", "", "+-DX=2"] {
            scene.set("CCC_OVERRIDE_OPTIONS", options);
            scene.compile("clang -DX=1 -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("clang's configuration file changes", |scene| {
        scene.write("a.c", "int x = X;\n");
        for number in [1, 1, 2] {
            scene.write("own.cfg", &format!("-DX={number}\n"));
            scene.compile("clang --config ./own.cfg -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("a date whose macro is pasted together, at another date", |scene| {
        scene.write("a.c", "#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nconst char *d = Q(__DA, TE__);\n");
        for date in ["0", "0", "900000000"] {
            scene.set("SOURCE_DATE_EPOCH", date);
            scene.compile("gcc -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("a file on which a pragma says that this one depends becomes younger", |scene| {
        scene.write("a.c", "#pragma GCC dependency \"parse.y\"\nint x;\n");
        scene.write("parse.y", "grammar\n");
        scene.age("parse.y", 9000);
        for age in [9000, 9000, 10] {
            scene.age("parse.y", age);
            scene.compile("gcc -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("a graph of calls was asked for, and is gone", |scene| {
        scene.write("a.c", "int f(void) { return 1; }\n");
        for _ in 0..2 {
            scene.compile("gcc -fcallgraph-info -c a.c -o a.o", &["a.o", "a.ci"]);
        }
    }),
    ("the dependency file is to have another target", |scene| {
        scene.write("h.h", "#define X 1\n");
        scene.write("a.c", "#include \"h.h\"\nint x = X;\n");
        for target in ["one", "one", "two"] {
            scene.compile(&format!("gcc -MD -MF a.d -MT {target} -c a.c -o a.o"), &["a.o", "a.d"]);
        }
    }),
    ("with -g, in a folder that is reached by another name", |scene| {
        scene.write("real/a.c", "int f(void) { return 1; }\n");
        for name in ["one", "two"] {
            symlink(scene.path("real"), scene.path(name)).unwrap();
        }
        for name in ["one", "one", "two"] {
            scene.enter(name);
            scene.compile("gcc -g -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("warnings in another locale's quotes", |scene| {
        scene.write("a.c", "int f(void) { int unused; return 1; }\n");
        for locale in ["C", "C", "C.UTF-8"] {
            scene.set("LC_ALL", locale);
            scene.compile("gcc -Wall -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("an assembler behind a variable is replaced", |scene| {
        scene.write("a.c", "int f(void) { return 1; }\n");
        scene.set("COMPILER_PATH", &scene.path("tools").display().to_string());
        for number in [1, 1, 2] {
            let text = format!("#!/bin/sh\nexec /usr/bin/as --defsym extra={number} \"$@\"\n");
            scene.write("tools/as", &text);
            fs::set_permissions(scene.path("tools/as"), fs::Permissions::from_mode(0o755)).unwrap();
            scene.compile("gcc -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("a map of files that are elsewhere changes", |scene| {
        for number in [1, 2] {
            scene.write(&format!("real{number}.h"), &format!("#define X {number}\n"));
        }
        scene.write("a.c", "#include \"mapped.h\"\nint x = X;\n");
        for number in [1, 1, 2] {
            let root = scene.path("").display().to_string();
            let root = root.trim_end_matches('/');
            let entry = format!(
                "{{'version': 0, 'roots': [{{'name': '{root}', 'type': 'directory', 'contents': [\
                 {{'name': 'mapped.h', 'type': 'file', 'external-contents': '{root}/real{number}.h'}}]}}]}}"
            );
            scene.write("map.yaml", &entry);
            scene.compile("clang -ivfsoverlay map.yaml -c a.c -o a.o", &["a.o"]);
        }
    }),
    ("a folder on the path of headers comes into being", |scene| {
        scene.write("second/h.h", "#define X 1\n");
        scene.write("a.c", "#include <h.h>\nint x = X;\n");
        for _ in 0..2 {
            scene.compile("gcc -Ifirst -Isecond -c a.c -o a.o", &["a.o"]);
        }
        scene.write("first/h.h", "#define X 2\n");
        scene.compile("gcc -Ifirst -Isecond -c a.c -o a.o", &["a.o"]);
    }),
    ("a file that is included first appears in the working folder", |scene| {
        scene.write("include/first.h", "#define X 1\n");
        scene.write("a.c", "int x = X;\n");
        for _ in 0..2 {
            scene.compile("gcc -Iinclude -include first.h -c a.c -o a.o", &["a.o"]);
        }
        scene.write("first.h", "#define X 2\n");
        scene.compile("gcc -Iinclude -include first.h -c a.c -o a.o", &["a.o"]);
    }),
    ("the assembler's listing was asked for, and is gone", |scene| {
        scene.write("a.c", "int f(void) { return 1; }\n");
        for _ in 0..2 {
            scene.compile("gcc -Wa,-aln=a.lst -c a.c -o a.o", &["a.o", "a.lst"]);
        }
    }),
    ("a report of the optimizer was asked for, and is gone", |scene| {
        scene.write("a.c", "void f(int *a) { for (int i = 0; i < 64; i++) a[i] += 1; }\n");
        for _ in 0..2 {
            scene.compile("gcc -O3 -fopt-info-vec=a.txt -c a.c -o a.o", &["a.o", "a.txt"]);
        }
    }),
    ("a file that the assembler includes appears earlier on its path", |scene| {
        scene.write("a.c", "asm(\".include \\\"y.s\\\"\");\nint f(void) { return 1; }\n");
        scene.write("one/y.s", ".globl y\n.set y, 1\n");
        scene.write("two/y.s", ".globl y\n.set y, 2\n");
        for _ in 0..2 {
            scene.compile("gcc -Wa,-Inone -Wa,-Itwo -c a.c -o a.o", &["a.o"]);
        }
        scene.write("none/y.s", ".globl y\n.set y, 3\n");
        scene.compile("gcc -Wa,-Inone -Wa,-Itwo -c a.c -o a.o", &["a.o"]);
    }),
];

/// A cache that stands before a compiler.
struct Tool {
    name: String,
    program: PathBuf,
    /// How the folder of its cache is set.
    variable: &'static str,
    /// Words that end its process beside, if it has one.
    stop: &'static [&'static str],
}

/// A folder in which a situation is played.
struct Scene<'a> {
    folder: tempfile::TempDir,
    cwd: PathBuf,
    tool: &'a Tool,
    variables: BTreeMap<String, String>,
    differs: bool,
}

impl<'a> Scene<'a> {
    fn new(tool: &'a Tool) -> Self {
        let folder = tempfile::Builder::new().prefix("scene-").tempdir().unwrap();
        let cwd = folder.path().join("project");
        fs::create_dir(&cwd).unwrap();
        let variables = BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]);
        Self { folder, cwd, tool, variables, differs: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("project").join(name)
    }

    /// Writes a file that seems to have been there for long.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.age(name, 600);
    }

    fn age(&self, name: &str, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
        self.variables.retain(|_, value| !value.is_empty());
    }

    fn enter(&mut self, name: &str) {
        self.cwd = self.path(name);
    }

    /// Compiles plainly and then through the tool, and looks whether they leave and say the same.
    fn compile(&mut self, line: &str, outputs: &[&str]) {
        let ran = |tool: Option<&Tool>| {
            for output in outputs {
                let _ = fs::remove_file(self.cwd.join(output));
            }
            let mut command = Command::new(tool.map_or(Path::new("env"), |tool| &tool.program));
            command.args(line.split(' ')).current_dir(&self.cwd).env_clear().envs(&self.variables);
            command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
            command.env("PWD", &self.cwd).stdin(Stdio::null());
            if let Some(tool) = tool {
                self.prepare(tool, &mut command);
            }
            let ended = command.output().unwrap();
            let left: Vec<_> = outputs.iter().map(|output| fs::read(self.cwd.join(output)).ok()).collect();
            (ended.status.code(), ended.stdout, ended.stderr, left)
        };
        let (plain, cached) = (ran(None), ran(Some(self.tool)));
        assert_eq!(plain.0, Some(0), "{line}: {}", String::from_utf8_lossy(&plain.2));
        self.differs |= plain != cached;
    }

    fn prepare(&self, tool: &Tool, command: &mut Command) {
        command.env(tool.variable, self.folder.path().join("cache"));
        command.env("CASTWORK_PROJECT_ROOT", self.path(""));
        command.env("SCCACHE_SERVER_UDS", self.folder.path().join("socket"));
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if let Some((first, rest)) = self.tool.stop.split_first() {
            let mut command = Command::new(&self.tool.program);
            command.arg(first).args(rest).stdout(Stdio::null()).stderr(Stdio::null());
            self.prepare(self.tool, &mut command);
            let _ = command.status();
        }
    }
}

/// Plays a situation; whether all was as the compiler makes it.
fn is_right(tool: &Tool, play: fn(&mut Scene<'_>)) -> bool {
    let mut scene = Scene::new(tool);
    play(&mut scene);
    !scene.differs
}

#[test]
fn the_wrapper_is_right_in_all_of_them() {
    let tool =
        Tool { name: "castwork".to_owned(), program: castwork().into(), variable: "CASTWORK_DIR", stop: &[] };
    let has_clang = Command::new("clang").arg("--version").output().is_ok();
    let peers =
        std::env::var_os("CASTWORK_TESTS_PEERS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let others = [
        ("ccache", "CCACHE_DIR", &[][..]),
        ("sccache", "SCCACHE_DIR", &["--stop-server"][..]),
        ("zccache", "ZCCACHE_CACHE_DIR", &["stop"][..]),
    ];
    let others: Vec<Tool> = peers
        .iter()
        .flat_map(|folder| {
            others.map(|(name, variable, stop)| Tool {
                name: name.to_owned(),
                program: folder.join(name),
                variable,
                stop,
            })
        })
        .filter(|tool| tool.program.exists())
        .collect();
    let mut wrong = Vec::new();
    for (name, play) in SCENARIOS {
        let needs_clang = name.contains("clang") || name.contains("map of files");
        if needs_clang && !has_clang {
            eprintln!("SKIP scenarios: {name}: there is no clang");
            continue;
        }
        let verdicts: Vec<String> = std::iter::once(&tool)
            .chain(&others)
            .map(|tool| format!("{} {}", tool.name, if is_right(tool, *play) { "right" } else { "WRONG" }))
            .collect();
        eprintln!("{name}: {}", verdicts.join(", "));
        if verdicts[0].ends_with("WRONG") {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "wrong: {wrong:#?}");
}
