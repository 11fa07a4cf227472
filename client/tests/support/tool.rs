//! Calls of tools that rules are for: what the plain tool leaves and says is the oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use super::{Project, program, skip, text};

/// What a call left and said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The files by their names; `None` for what is not there.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// Which of them may be run.
    pub executable: Vec<String>,
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Left {
    fn of(project: &Project, outputs: &[&str], output: &Output) -> Self {
        let read = |name: &&str| {
            ((*name).to_owned(), std::fs::read(project.root.join(name)).ok().map(without_number))
        };
        Self {
            files: outputs.iter().map(read).collect(),
            executable: outputs
                .iter()
                .filter(|name| is_executable(&project.root.join(name)))
                .map(|name| (*name).to_owned())
                .collect(),
            stdout: text(&without_number(output.stdout.clone())),
            stderr: text(&without_number(output.stderr.clone())),
            code: output.status.code(),
        }
    }

    /// A file as text.
    pub fn text(&self, name: &str) -> String {
        text(self.files[name].as_ref().unwrap_or_else(|| panic!("no `{name}`: {}", self.stderr)))
    }
}

/// The same without the number of the process that nvcc names its temporary files by, and then whatever holds these names.
fn without_number(mut bytes: Vec<u8>) -> Vec<u8> {
    const BEGIN: &[u8] = b"tmpxft_";
    for at in memchr::memmem::find_iter(&bytes.clone(), BEGIN) {
        let number = bytes[at + BEGIN.len()..].iter_mut().take(8).take_while(|byte| byte.is_ascii_hexdigit());
        number.for_each(|digit| *digit = b'0');
    }
    bytes
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Makes a call through us and without, each time with no outputs there, and checks that nothing differs.
pub fn check(project: &Project, line: &str, outputs: &[&str]) -> Left {
    check_run(project, "", line, outputs)
}

/// The same with words of ours before the tool.
pub fn check_run(project: &Project, ours: &str, line: &str, outputs: &[&str]) -> Left {
    let remove = || {
        for name in outputs {
            let _ = std::fs::remove_file(project.root.join(name));
        }
    };
    remove();
    let plain = Left::of(project, outputs, &project.plain(line));
    remove();
    let cached = Left::of(project, outputs, &project.cached(&format!("{ours} {line}")));
    // Programs say what they were called; ours are called by their paths.
    assert_eq!(cached.files.keys().collect::<Vec<_>>(), plain.files.keys().collect::<Vec<_>>());
    for (name, data) in &plain.files {
        let other = &cached.files[name];
        assert_eq!(
            other.is_some(),
            data.is_some(),
            "{line}: {name} is there, or not\n{}{}",
            cached.stderr,
            plain.stderr
        );
        assert!(other == data, "{line}: {name} differs");
    }
    assert_eq!(cached.executable, plain.executable, "{line}");
    assert_eq!(cached.code, plain.code, "{line}\n{}", cached.stderr);
    assert_eq!(cached.stdout, plain.stdout, "{line}");
    if plain.code == Some(0) {
        assert_eq!(cached.stderr, plain.stderr, "{line}");
    }
    cached
}

/// Checks a call until it has to be a hit. The first run may have made folders, which the next one finds.
pub fn check_hit(project: &Project, ours: &str, line: &str, outputs: &[&str]) -> Left {
    check_run(project, ours, line, outputs);
    check_run(project, ours, line, outputs);
    let before = project.counters();
    let left = check_run(project, ours, line, outputs);
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 1, "{line}: no hit\n{}\nbefore: {}", counters.0, before.0);
    left
}

/// Checks a call before and after a change that has to show: twice each, and before it the second is a hit.
pub fn check_change(project: &Project, ours: &str, line: &str, outputs: &[&str], change: impl FnOnce()) {
    let before = check_hit(project, ours, line, outputs);
    change();
    let after = check_run(project, ours, line, outputs);
    let again = check_run(project, ours, line, outputs);
    assert!(after == again, "{line}");
    assert!(before != after, "{line}: the change doesn't show, so this tests nothing");
    project.counters();
}

/// Whether a tool is here; otherwise the test is skipped.
pub fn has(test: &str, tool: &str) -> bool {
    let is_here = program(tool).is_some();
    if !is_here {
        skip(test, &format!("{tool} is not installed"));
    }
    is_here
}
