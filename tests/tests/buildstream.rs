//! `BuildStream`, unmodified, executes its elements on a farm of ours.
//!
//! Its actions bring their whole file system along, here a busybox: the input root is their `/`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Farm, Finished, environment, finish, have, progress, skip};
use tempfile::TempDir;

/// Far above what it takes.
const COMMAND_MAX: Duration = Duration::from_secs(5 * 60);

/// What `BuildStream` says when it has an action executed, and when it need not.
const EXECUTED: &str = "SUCCESS Waiting for the remote build to complete";
const FOUND: &str = "Action result found in action cache";

#[test]
fn elements_are_built_remotely_and_found_in_the_cache_by_the_next_client() {
    let Some(project) = Project::new("BuildStream, remote execution") else { return };
    let farm = Farm::start(1, 2);

    progress("a first client, two elements of which one needs the other");
    let first = Client::new(&project, &farm, "first");
    let built = first.bst(&["build", "count.bst"]);
    built.must_succeed("bst build");
    assert_eq!((said(&built, EXECUTED), said(&built, FOUND)), (2, 0), "{}", built.stderr);
    first.check_out("count.bst", "count");
    assert_eq!(fs::read_to_string(first.folder.join("count/made/count")).unwrap().trim(), "9");
    first.check_out("words.bst", "words");
    check_words(&first.folder.join("words/made"));

    progress("a second client, which has nothing yet");
    let second = Client::new(&project, &farm, "second");
    let built = second.bst(&["build", "count.bst"]);
    built.must_succeed("bst build");
    assert_eq!((said(&built, EXECUTED), said(&built, FOUND)), (0, 2), "{}", built.stderr);
    second.check_out("words.bst", "words");
    check_words(&second.folder.join("words/made"));
}

#[test]
fn a_command_that_fails_is_told_with_what_it_said() {
    let Some(project) = Project::new("BuildStream, a failing command") else { return };
    let farm = Farm::start(1, 2);
    let client = Client::new(&project, &farm, "client");
    let built = client.bst(&["build", "fails.bst"]);
    assert!(!built.status.success());
    assert_eq!(said(&built, EXECUTED), 1, "{}", built.stderr);
    assert!(said(&built, "this is meant to fail") > 0, "{}", built.stderr);
    assert!(said(&built, "failed with exitcode 7") > 0, "{}", built.stderr);
}

/// How many lines have it.
fn said(finished: &Finished, what: &str) -> usize {
    // The log of a failed element is repeated at the end.
    let once = finished.stderr.split("Failure Summary").next().unwrap_or_default();
    once.lines().filter(|line| line.contains(what)).count()
}

/// A file, a link and a program came back as what they are.
fn check_words(made: &Path) {
    let words = fs::read_to_string(made.join("words")).unwrap();
    assert_eq!(words, "The\nbrown\ndog\nfox\njumps\nlazy\nover\nquick\nthe\n");
    assert_eq!(fs::read_link(made.join("link")).unwrap(), Path::new("words"));
    let tool = finish(Command::new(made.join("busybox")), COMMAND_MAX);
    tool.must_succeed("the copied busybox");
}

/// The project, with what a sandbox is made of.
struct Project {
    folder: TempDir,
    program: PathBuf,
}

impl Project {
    /// Lays it out. `None` if something is not here; the test is skipped then.
    fn new(test: &str) -> Option<Self> {
        let Some(python) = environment("buildstream") else {
            skip(test, "BuildStream is not installed (`tests/run` does that)");
            return None;
        };
        // BuildStream asks for bubblewrap even where it runs nothing itself.
        if !have(test, "bwrap") || !have(test, "busybox") {
            return None;
        }
        let busybox = busybox();
        if is_dynamic(&busybox) {
            skip(test, &format!("`{}` needs libraries, and is to run without any", busybox.display()));
            return None;
        }
        let folder = tempfile::Builder::new().prefix("castwork-bst-").tempdir().unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/buildstream/."));
        copy.arg(folder.path());
        finish(copy, COMMAND_MAX).must_succeed("copy the project");
        lay_out_base(&folder.path().join("files"), &busybox);
        Some(Self { folder, program: python.join("bin/bst") })
    }
}

/// The one that is found first.
fn busybox() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("busybox")).find(|file| file.is_file());
    found.expect("looked for before")
}

fn is_dynamic(program: &Path) -> bool {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    finish(ldd, COMMAND_MAX).status.success()
}

/// A file system of nothing but busybox and a text.
fn lay_out_base(base: &Path, busybox: &Path) {
    fs::create_dir_all(base.join("bin")).unwrap();
    fs::create_dir_all(base.join("data")).unwrap();
    fs::copy(busybox, base.join("bin/busybox")).unwrap();
    for applet in ["cp", "ln", "mkdir", "sh", "sort", "tr", "wc"] {
        let mut link = Command::new("ln");
        link.args(["-s", "busybox"]).arg(base.join("bin").join(applet));
        finish(link, COMMAND_MAX).must_succeed("link a program of busybox's");
    }
    fs::write(base.join("data/text"), "The quick brown fox jumps over the lazy dog\n").unwrap();
}

/// Somebody who uses `BuildStream`, with an own cache.
struct Client<'a> {
    project: &'a Project,
    folder: PathBuf,
}

impl<'a> Client<'a> {
    fn new(project: &'a Project, farm: &Farm, name: &str) -> Self {
        let folder = project.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let own = folder.display();
        let url = farm.address().replace("grpc://", "http://");
        // It wants a twentieth of the disk left free unless told, and calls its cache full on a machine that has less.
        let config = format!(
            "cachedir: {own}/cache\nsourcedir: {own}/sources\nworkspacedir: {own}/workspaces\nlogdir: {own}/logs\n\
             cache:\n  quota: 1G\n  reserved-disk-space: 10M\n\
             remote-execution:\n  execution-service:\n    url: {url}\n  storage-service:\n    url: {url}\n  \
             action-cache-service:\n    url: {url}\n"
        );
        fs::write(folder.join("bst.conf"), config).unwrap();
        Self { project, folder }
    }

    /// Runs `BuildStream` in the project.
    fn bst(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.project.program);
        command.current_dir(self.project.folder.path()).arg("--config").arg(self.folder.join("bst.conf"));
        command.args(["--no-interactive", "--no-colors"]).args(arguments);
        finish(command, COMMAND_MAX)
    }

    fn check_out(&self, element: &str, into: &str) {
        let into = self.folder.join(into);
        let into = into.to_str().unwrap();
        self.bst(&["artifact", "checkout", element, "--deps", "none", "--directory", into])
            .must_succeed("bst artifact checkout");
    }
}
