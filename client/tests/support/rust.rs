//! A crate that is compiled by rustc alone, as cargo would call it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::{Counters, Project, castwork, shown, text};

/// Where outputs go, below the project.
pub const OUT: &str = "target/deps";

/// A library, as cargo asks for it.
pub const LIB: &str = "--crate-name a --edition=2021 src/lib.rs --error-format=json \
    --json=diagnostic-rendered-ansi,artifacts --crate-type lib --emit=dep-info,metadata,link -C metadata=1f \
    -C extra-filename=-1f --out-dir target/deps -L dependency=target/deps";

/// What a compile leaves: each file with its permissions.
pub type Made = BTreeMap<String, (Vec<u8>, u32)>;

/// A crate.
pub struct Crate {
    /// Where it is.
    pub project: Project,
    /// The compiler.
    pub rustc: String,
}

impl Crate {
    /// A crate of these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        Self { project: Project::with(files), rustc: rustc() }
    }

    /// A copy in another folder, with the same cache and variables.
    pub fn another(&self) -> Self {
        let mut project = self.project.copy("another");
        project.variables.clone_from(&self.project.variables);
        Self { project, rustc: self.rustc.clone() }
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        self.project.write(name, text);
    }

    /// Runs rustc as it is.
    pub fn plain(&self, line: &str) -> Output {
        self.project.plain(&format!("{} {}", self.rustc, self.absolute(line)))
    }

    /// Runs it through the wrapper.
    pub fn run(&self, line: &str) -> Output {
        self.project
            .command(castwork())
            .arg(&self.rustc)
            .args(self.absolute(line).split_whitespace())
            .output()
            .unwrap()
    }

    /// A line with the folder of outputs as cargo names it.
    fn absolute(&self, line: &str) -> String {
        let out = shown(&self.project.root.join(OUT));
        let line = line.replace(&format!("--out-dir {OUT}"), &format!("--out-dir {out}"));
        line.replace(&format!("dependency={OUT}"), &format!("dependency={out}"))
    }

    /// Compiles with and without the wrapper, and checks that nothing differs. Returns what was left.
    pub fn check(&self, line: &str) -> Made {
        self.check_but_for(line, "nothing")
    }

    /// The same, while files of some name stay.
    pub fn check_but_for(&self, line: &str, stays: &str) -> Made {
        let (status, made) = self.compare(line, line, &self.project.root.join(OUT), stays);
        assert_eq!(status, Some(0), "{line}");
        made
    }

    /// The same for a compile that may fail.
    pub fn check_status(&self, line: &str) -> (Option<i32>, Made) {
        self.compare(line, line, &self.project.root.join(OUT), "nothing")
    }

    /// The same, with other words for plain rustc, and with outputs in a folder.
    pub fn check_as(&self, line: &str, plain: &str, out: &Path) -> Made {
        self.compare(line, plain, out, "nothing").1
    }

    fn compare(&self, line: &str, plain: &str, out: &Path, stays: &str) -> (Option<i32>, Made) {
        empty(out, stays);
        let plain = self.plain(plain);
        let expected = snapshot(out);
        empty(out, stays);
        let cached = self.run(line);
        assert_eq!(said(&cached), said(&plain), "{line}");
        assert_eq!(cached.stdout, plain.stdout, "{line}");
        assert_eq!(cached.status.code(), plain.status.code(), "{line}");
        let made = snapshot(out);
        assert_eq!(made.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{line}");
        for (name, file) in &made {
            assert!(file == &expected[name], "{line}: another {name}");
        }
        (cached.status.code(), made)
    }

    /// The counters, which begin anew.
    pub fn counters(&self) -> Counters {
        self.project.counters()
    }
}

/// What rustc said, but for the random name of the folder that it makes for the linker.
fn said(output: &Output) -> String {
    let text = text(&output.stderr);
    let mut parts = text.split("/deps/rustc");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |said, part| said + "/deps/rustc" + part.get(6..).unwrap_or_default())
}

/// The files in a folder.
pub fn snapshot(folder: &Path) -> Made {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file()).map(|entry| {
        let mode = entry.metadata().unwrap().permissions().mode();
        (entry.file_name().into_string().unwrap(), (std::fs::read(entry.path()).unwrap(), mode))
    });
    files.collect()
}

fn empty(folder: &Path, stays: &str) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in folder.read_dir().unwrap().flatten() {
        if entry.path().is_file() && !entry.file_name().to_string_lossy().contains(stays) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// The compiler itself, behind rustup.
pub fn rustc() -> String {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    format!("{}/bin/rustc", text(&said.stdout).trim())
}
