//! Crates through the wrapper and a server: what one machine has compiled, another one takes, with all its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use castwork_tests::{Farm, binary, have};
use serde_json::Value;

/// A machine: a project, and a local cache of its own.
struct Machine<'a> {
    folder: &'a Path,
    cache: PathBuf,
    remote: String,
}

impl Machine<'_> {
    fn castwork(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary("castwork"));
        command.args(words).current_dir(self.folder).env("CASTWORK_DIR", &self.cache);
        command.env("CASTWORK_REMOTE", &self.remote).env_remove("CASTWORK_CONFIG");
        let output = command.output().expect("start castwork");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Compiles a source to a program or a library, and returns what that left.
    fn compile(&self, rustc: &str, source: &str, kind: &str) -> BTreeMap<String, Vec<u8>> {
        let out = self.folder.join("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).expect("make a folder");
        let out_dir = out.to_str().expect("a folder in Unicode");
        let name = ["--crate-name", "a", "--edition=2021", "--crate-type", kind];
        let emitted = if kind == "bin" { "dep-info,link" } else { "dep-info,metadata,link" };
        let rest = [source, "--error-format=json", "--emit", emitted, "--out-dir", out_dir];
        self.castwork(&[&[rustc][..], &name, &rest].concat());
        let entries = out.read_dir().expect("read a folder").map(|entry| entry.expect("a file").path());
        entries
            .map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, fs::read(path).expect("read what was made"))
            })
            .collect()
    }

    fn count(&self, name: &str) -> u64 {
        let stats: Value = serde_json::from_slice(&self.castwork(&["stats", "--json"]).stdout).expect("JSON");
        stats[name].as_u64().expect("a number")
    }
}

#[test]
fn a_crate_and_a_program_come_back_from_a_server_whole() {
    if !have("crates from a server", "rustc") {
        return;
    }
    let farm = Farm::start(1, 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("lib.rs"), "pub fn f() -> i32 { 1 }\n").expect("write a source");
    fs::write(folder.path().join("main.rs"), "fn main() { println!(\"hello\"); }\n").expect("write a source");
    let said = Command::new("rustc").args(["--print", "sysroot"]).output().expect("start rustc");
    let rustc = format!("{}/bin/rustc", String::from_utf8_lossy(&said.stdout).trim());
    let machine = |name: &str| Machine {
        folder: folder.path(),
        cache: folder.path().join(name),
        remote: farm.address(),
    };
    let (first, second) = (machine("first"), machine("second"));
    for (source, kind) in [("lib.rs", "lib"), ("main.rs", "bin")] {
        let made = first.compile(&rustc, source, kind);
        assert_eq!(second.compile(&rustc, source, kind), made, "{kind}");
    }
    let ran = Command::new(folder.path().join("out/a")).output().expect("start what was linked");
    assert_eq!(ran.stdout, b"hello\n");
    assert_eq!(["local_runs", "remote_hits"].map(|name| first.count(name)), [2, 0]);
    assert_eq!(["local_runs", "remote_hits"].map(|name| second.count(name)), [0, 2]);
}
