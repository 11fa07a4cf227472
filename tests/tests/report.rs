//! `castwork report` and its gate: what a client, a scheduler and a worker together know of a run.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use castwork_tests::{Farm, binary, have};
use serde_json::Value;
use tempfile::TempDir;

/// A machine that compiles: sources, and a local cache of its own.
struct Machine {
    folder: TempDir,
    remote: String,
}

impl Machine {
    fn new(remote: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["a", "b"] {
            let source = format!("int {name}(void) {{ return NUMBER; }}\n");
            fs::write(folder.path().join(name).with_extension("c"), source).expect("write a source");
        }
        Self { folder, remote: remote.to_owned() }
    }

    fn castwork(&self, run: &str, words: &[&str]) -> Output {
        let mut command = Command::new(binary("castwork"));
        command.args(words).current_dir(self.folder.path()).env("CASTWORK_DIR", self.dir());
        command.env("CASTWORK_REMOTE", &self.remote).env("CASTWORK_PROJECT", "demo");
        command.env("CASTWORK_RACE_AFTER", "never");
        command.env("CASTWORK_RUN_ID", run).env("CASTWORK_PROJECT_ROOT", self.folder.path());
        command.env_remove("CASTWORK_CONFIG").env("HOME", self.folder.path());
        // Messages in another language or alphabet are another compile's.
        command.env("LC_ALL", "C.UTF-8").output().expect("start castwork")
    }

    /// What the server says of each action that it knows singly, as far as the beginnings of their digests tell them apart.
    fn single_actions(&self) -> Vec<String> {
        let said = (0..16).map(|digit| self.castwork("", &["action", &format!("{digit:x}")]));
        said.filter(|said| said.status.success())
            .map(|said| String::from_utf8_lossy(&said.stdout).into_owned())
            .collect()
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Compiles both files, each with a macro of this value, and hands over what is no compile.
    fn build(&self, run: &str, number: u32) {
        let define = format!("-DNUMBER={number}");
        for source in ["a.c", "b.c"] {
            let output = self.castwork(run, &["gcc", "-c", &define, source]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(self.castwork(run, &["gcc", "--version"]).status.success());
    }

    fn report(&self, run: &str, flags: &[&str]) -> (Option<i32>, String) {
        let words: Vec<&str> = std::iter::once("report").chain(flags.iter().copied()).collect();
        let output = self.castwork(run, &words);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn json(&self, run: &str) -> Value {
        let (code, said) = self.report(run, &["--json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).expect("JSON")
    }
}

/// The gate of those who want to notice a cache that does not work at all.
const ANY: [&str; 3] = ["--require-hit-rate", "1", "--grace-first-run"];

/// Runs the rest of its words in a root of its own, as a container does: the machine's system, its own folder for what is
/// temporary, and the folder `$1` at `/project`.
const CONTAINER: [&str; 16] = [
    "bwrap",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
];

impl Machine {
    /// Runs `castwork` in a container that has this machine's folder as its project.
    fn contained(&self, run: &str, words: &[&str]) -> Output {
        let program = binary("castwork");
        let mut command = Command::new(CONTAINER[0]);
        command.args(&CONTAINER[1..]).args(["/dev", "--tmpfs", "/tmp", "--bind"]).arg(self.folder.path());
        command.arg("/project").arg("--ro-bind").arg(program).args([
            "/castwork",
            "--chdir",
            "/project",
            "--",
        ]);
        command.arg("/castwork").args(words).env_clear().env("PATH", "/usr/bin").env("HOME", "/project");
        command.envs([("CASTWORK_REMOTE", self.remote.as_str()), ("CASTWORK_PROJECT", "demo")]);
        command.envs([("CASTWORK_RUN_ID", run), ("CASTWORK_DIR", "/project/cache")]);
        command
            .env("LC_ALL", "C.UTF-8")
            .env("CASTWORK_PROJECT_ROOT", "/project")
            .output()
            .expect("start bwrap")
    }

    /// Compiles both files in a container.
    fn build_contained(&self, run: &str, number: u32) {
        let define = format!("-DNUMBER={number}");
        for source in ["a.c", "b.c"] {
            let output = self.contained(run, &["gcc", "-c", &define, source]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

const GATE: [&str; 2] = ["--require-hit-rate", "90"];
const GRACE: [&str; 3] = ["--require-hit-rate", "90", "--grace-first-run"];

#[test]
fn the_server_knows_what_became_of_a_run_and_which_was_the_first() {
    if !have("the report of a run", "gcc") {
        return;
    }
    let mut farm = Farm::start(1, 2);
    let first = Machine::new(&farm.address());
    first.build("r1", 1);
    let report = first.json("r1");
    assert_eq!(
        (&report["source"], &report["tool"]),
        (&"server".into(), &"castwork 0.1.0".into()),
        "{report}"
    );
    assert_eq!((&report["asked"], &report["hits"]), (&2.into(), &0.into()), "{report}");
    let (seen, told) = (&report["seen"], &report["told"]);
    assert_eq!((&seen["misses"]["never_seen"], &seen["remote_runs"]), (&2.into(), &2.into()), "{report}");
    assert_eq!((&told["remote_runs"], &told["passed_through"]), (&2.into(), &1.into()), "{report}");
    assert!(seen["bytes_uploaded"].as_u64() > Some(1_000), "{report}");
    let configuration = &report["parts"].as_array().expect("parts").iter().find(|part| part["asked"] == 2);
    let configuration = configuration.unwrap_or_else(|| panic!("no part has both: {report}"));
    assert_eq!((&configuration["project"], &configuration["is_first"]), (&"demo".into(), &true.into()));
    assert_eq!(first.report("r1", &GRACE).0, Some(0), "there was nothing to be found");
    assert_eq!(first.report("r1", &GATE).0, Some(4), "and nobody said that this does not count");

    // Another machine: nothing is known locally.
    let second = Machine::new(&farm.address());
    second.build("r2", 1);
    let report = second.json("r2");
    assert_eq!(
        (&report["asked"], &report["hits"], &report["seen"]["hits"]),
        (&2.into(), &2.into(), &2.into())
    );
    assert!(report["seen"]["time_saved_s"].as_f64() > Some(0.0), "{report}");
    let (code, said) = second.report("r2", &GRACE);
    assert!(code == Some(0) && said.contains("passed: 100.0 % were hits (2 of 2)"), "{said}");

    // And a local hit counts too, though the server does not see it.
    second.build("r2", 1);
    assert_eq!(second.json("r2")["told"]["local_hits"], 2);
    second.build("r3", 3);
    let (code, said) = second.report("r3", &GRACE);
    assert!(code == Some(4) && said.contains("failed: only 0.0 % were hits (0 of 2)"), "{said}");
    assert!(said.contains("because: 2 × the server has never had a result of it"), "{said}");
    // What was first is known by the server: a machine that has no folder yet is not excused.
    let third = Machine::new(&farm.address());
    third.build("r5", 5);
    let (code, said) = third.report("r5", &GRACE);
    assert!(code == Some(4) && said.contains("because: 2 × the server has never had"), "{said}");

    farm.scheduler().kill();
    farm.restart_scheduler();
    assert_eq!(second.report("r3", &GRACE).0, Some(4), "a restart changes nothing");
    assert_eq!(first.report("r1", &GRACE).0, Some(0));
    let (code, table) = second.report("r3", &["--markdown", "--require-hit-rate=90"]);
    assert_eq!(code, Some(4));
    assert!(
        table.starts_with("### Castwork: run r3 (castwork 0.1.0)\n")
            && table.contains("| hit rate | 0.0 % |")
    );

    let known = first.single_actions();
    // But for the last: a worker that has not heard that it was taken brings it along.
    assert!(known.len() <= 1, "the next life of the server does not know single actions: {known:?}");
    first.build("r4", 4);
    let pages: Vec<String> = first.single_actions().into_iter().filter(|page| page.contains("r4")).collect();
    assert_eq!(pages.concat().matches("ran").count(), 2, "{pages:?}");
    assert!(pages.concat().contains("never_seen"), "{pages:?}");
}

/// What is done before the gate is asked: runs are of other machines each, which know nothing of each other.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// The server is started anew.
    Restart,
}

#[test]
fn the_gate_lets_a_first_run_pass_and_no_later_one_without_hits() {
    if !have("the gate", "gcc") || !have("the gate", "bwrap") {
        return;
    }
    for is_first_contained in [false, true] {
        let mut farm = Farm::start(1, 2);
        // Run, the value of a macro (another one is never found), whether in a container, and what comes of it.
        let first = is_first_contained;
        for (run, number, is_contained, hits, before, expected) in [
            ("first", 1, first, 0, Before::Nothing, Some(0)),
            ("second, all new", 2, first, 0, Before::Nothing, Some(4)),
            ("third, found", 1, first, 2, Before::Nothing, Some(0)),
            ("fourth, from the other side, all new", 3, !first, 0, Before::Nothing, Some(4)),
            ("fifth, from the other side, found", 1, !first, 2, Before::Nothing, Some(0)),
            ("sixth, all new", 4, first, 0, Before::Restart, Some(4)),
            ("seventh, from the other side, found", 4, !first, 2, Before::Restart, Some(0)),
        ] {
            if matches!(before, Before::Restart) {
                farm.scheduler().kill();
                farm.restart_scheduler();
            }
            let machine = Machine::new(&farm.address());
            let words = [&["report"][..], &ANY].concat();
            let (output, elsewhere) = if is_contained {
                machine.build_contained(run, number);
                (machine.contained(run, &words), Machine::new(&farm.address()).report(run, &ANY))
            } else {
                machine.build(run, number);
                let other = Machine::new(&farm.address()).contained(run, &words);
                let said = String::from_utf8_lossy(&[other.stdout, other.stderr].concat()).into_owned();
                (machine.castwork(run, &words), (other.status.code(), said))
            };
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), expected, "{run}: {said}");
            // The server knows, so whoever asks from the other side, with nothing of this build, is told the same.
            assert_eq!(elsewhere.0, expected, "{run}, from elsewhere: {}", elsewhere.1);
            let counted = format!("({hits} of 2)");
            assert!(said.contains(&counted) || run == "first", "{run}: {said}");
            let reason = "because: 2 × the server has never had a result of it";
            assert_eq!(said.contains(reason), expected == Some(4), "{run}: {said}");
        }
    }
}

#[test]
fn a_fallback_is_told_to_the_server_when_it_is_back() {
    if !have("the report of a fallback", "gcc") {
        return;
    }
    let mut farm = Farm::start(0, 1);
    let machine = Machine::new(&farm.address());
    farm.scheduler().kill();
    machine.build("r1", 1);
    let (code, said) = machine.report("r1", &["--json"]);
    assert!(code == Some(0) && said.contains("so this is what was counted on this machine"), "{said}");
    farm.restart_scheduler();
    let report = machine.json("r1");
    assert_eq!(report["source"], "server");
    assert_eq!(
        (&report["told"]["fallbacks"], &report["told"]["local_runs"]),
        (&2.into(), &2.into()),
        "{report}"
    );
    assert!(report["told"]["reasons"].as_object().is_some_and(|reasons| reasons.len() >= 2), "{report}");
    // Whoever asks from elsewhere is told the same.
    let elsewhere = Machine::new(&farm.address());
    assert_eq!(elsewhere.json("r1")["told"]["fallbacks"], 2);
}

#[test]
fn without_a_server_the_local_counters_decide_with_the_same_exit_codes() {
    if !have("the report without a server", "gcc") {
        return;
    }
    let machine = Machine::new("");
    machine.build("r1", 1);
    let report = machine.json("r1");
    assert_eq!(
        (&report["source"], &report["asked"], &report["seen"]),
        (&"local".into(), &2.into(), &Value::Null)
    );
    assert_eq!(machine.report("r1", &GRACE).0, Some(0));
    assert_eq!(machine.report("r1", &GATE).0, Some(4));
    machine.build("r2", 1);
    assert_eq!(machine.report("r2", &GRACE).0, Some(0));
    assert_eq!(machine.json("r2")["hits"], 2);
    machine.build("r3", 2);
    assert_eq!(machine.report("r3", &GRACE).0, Some(4), "it is not the first");

    assert_eq!(machine.report("nobody", &[]).0, Some(3));
    assert_eq!(machine.report("nobody", &GRACE).0, Some(3), "a build that never came here is no success");
    assert_eq!(machine.report("", &[]).0, Some(0), "without a run it is everything");
    assert_eq!(machine.report("", &GRACE).0, Some(2));
    assert_eq!(machine.report("r1", &["--grace-first-run"]).0, Some(2), "of what?");
    assert_eq!(machine.report("r1", &["--require-hit-rate", "101"]).0, Some(2));
    let unreachable = ["--server", "grpc://127.0.0.1:1"];
    assert_eq!(machine.report("nobody", &unreachable).0, Some(1));
    assert_eq!(machine.report("r2", &[&unreachable[..], &GRACE].concat()).0, Some(0), "the counters know");
}
