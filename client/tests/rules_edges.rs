//! Any tool by a rule: what was there before, permissions, ways of being started and of ending. What the plain tool
//! leaves and says is the oracle.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

use support::tool::{check_change, check_hit, check_run, has};
use support::{Project, castwork, text};

const OURS: &str = "run --output out.txt --";

fn project(script: &str) -> Project {
    Project::with(&[("gen.sh", script), ("in.txt", "one\n"), ("castwork.toml", "")])
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Runs a line of a shell, in which `CW` is us with the words of ours, in a project.
fn shell(project: &Project, line: &str) -> Output {
    let line = line.replace("CW", &format!("{} {OURS}", castwork()));
    project.command("bash").arg("-c").arg(line).stdin(Stdio::null()).output().unwrap()
}

/// Runs a call with an output in some state: plainly, and twice by us. All have to leave the same.
fn check_states(script: &str, states: &[&dyn Fn(&Path)]) {
    let project = project(script);
    let out = project.root.join("out.txt");
    let run = |state: &dyn Fn(&Path), line: &str| {
        let _ = std::fs::remove_file(&out);
        state(&out);
        project.write("tick", "");
        let ran = if line.starts_with("sh") { project.plain(line) } else { project.cached(line) };
        assert!(ran.status.success(), "{script}: {}", text(&ran.stderr));
        (std::fs::read_to_string(&out).unwrap(), mode(&out))
    };
    for _ in 0..2 {
        for (number, state) in states.iter().enumerate() {
            let plain = run(state, "sh gen.sh");
            assert_eq!(run(state, &format!("{OURS} sh gen.sh")), plain, "{script}: state {number}");
        }
    }
}

#[test]
fn what_an_output_was_before_counts() {
    let absent = |_: &Path| {};
    let empty = |path: &Path| std::fs::write(path, "").unwrap();
    let one = |path: &Path| std::fs::write(path, "old\n").unwrap();
    let two = |path: &Path| std::fs::write(path, "older\n").unwrap();
    let all: [&dyn Fn(&Path); 4] = [&absent, &empty, &one, &two];
    for script in [
        "echo x >> out.txt",
        "echo x 1<> out.txt >&1",
        "if [ -e out.txt ]; then rm out.txt; echo had > out.txt; else echo new > out.txt; fi",
        "if [ -s out.txt ]; then echo full > out.txt; else echo empty > out.txt; fi",
        "a=$(cat out.txt 2> /dev/null); rm -f out.txt; echo \"$a\" > out.txt",
        "rm -f out.txt; [ -e out.txt ] || echo x > out.txt",
        "wc -c < in.txt > tmp; mv tmp out.txt",
    ] {
        check_states(script, &all);
    }
    // What only adds to a file is no hit twice, if nobody removes it.
    let project = project("echo x >> out.txt");
    for lines in 1..4 {
        assert!(project.cached(&format!("{OURS} sh gen.sh")).status.success());
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), "x\n".repeat(lines));
    }
    // What is emptied without a look is a hit whatever it was.
    let project = self::project("cat in.txt > out.txt");
    project.cached(&format!("{OURS} sh gen.sh"));
    project.write("out.txt", "mine\n");
    project.cached(&format!("{OURS} sh gen.sh"));
    assert_eq!(project.counters().number("local_hits"), 1);
}

#[test]
fn files_that_a_tool_makes_and_removes_are_gone_as_without_us() {
    for script in ["cat in.txt > tmp; rm tmp; echo x > out.txt", "cat in.txt > tmp; mv tmp out.txt"] {
        let project = project(script);
        for is_there in [false, true, false, true] {
            if is_there {
                project.write("tmp", "mine\n");
            }
            assert!(project.cached(&format!("{OURS} sh gen.sh")).status.success());
            assert!(!project.root.join("tmp").exists(), "{script}");
            std::fs::remove_file(project.root.join("out.txt")).unwrap();
        }
        assert_eq!(project.counters().number("local_hits"), 1, "{script}");
    }
}

#[test]
fn permissions_of_an_output_that_is_there_stay() {
    let absent = |_: &Path| {};
    let with = |permissions: u32| {
        move |path: &Path| {
            std::fs::write(path, "old\n").unwrap();
            set_mode(path, permissions);
        }
    };
    let (private, program, usual) = (with(0o600), with(0o755), with(0o644));
    check_states("cat in.txt > out.txt", &[&absent, &private, &program, &usual, &absent]);
    check_states("cat in.txt > out.txt", &[&program, &absent, &usual]);
    check_states("cat in.txt > tmp; chmod +x tmp; mv tmp out.txt", &[&absent, &private, &program, &usual]);
    check_states("mkdir -m 700 d; echo > d/x; stat -c %a d > out.txt; rm d/x; rmdir d", &[&absent, &usual]);
    // Of a shipped rule: the assembler makes its output anew.
    if !has("permissions of an object", "as") {
        return;
    }
    let project = Project::with(&[("a.s", ".globl x\nx: ret\n")]);
    let object = project.root.join("a.o");
    for permissions in [0o644, 0o600, 0o755] {
        for line in ["", "as -o a.o a.s", "as -o a.o a.s"] {
            if !line.is_empty() {
                assert!(project.cached(line).status.success());
                let ours = (mode(&object), std::fs::read(&object).unwrap());
                set_mode(&object, permissions);
                assert!(project.plain(line).status.success());
                assert_eq!(ours, (mode(&object), std::fs::read(&object).unwrap()), "{permissions:o}");
                set_mode(&object, permissions);
            }
        }
    }
}

#[test]
fn permissions_of_folders_that_are_made_come_back() {
    let project = project("mkdir -m 700 made; echo x > made/out.txt");
    let line = "run --output made/out.txt -- sh gen.sh";
    for _ in 0..2 {
        assert!(project.cached(line).status.success());
        assert_eq!(mode(&project.root.join("made")), 0o700);
        std::fs::remove_dir_all(project.root.join("made")).unwrap();
    }
}

#[test]
fn permissions_of_what_is_read_count() {
    for (script, file) in [("cp in.txt out.txt", "in.txt"), ("stat -c %a in.txt d > out.txt", "d")] {
        let project = project(script);
        std::fs::create_dir(project.root.join("d")).unwrap();
        let check = |permissions: u32| {
            set_mode(&project.root.join(file), permissions);
            project.write("tick", "");
            for line in ["sh gen.sh".to_owned(), format!("{OURS} sh gen.sh"), format!("{OURS} sh gen.sh")] {
                let _ = std::fs::remove_file(project.root.join("out.txt"));
                let ran = if line.starts_with("sh") { project.plain(&line) } else { project.cached(&line) };
                assert!(ran.status.success());
                let out = project.root.join("out.txt");
                let left = (std::fs::read(&out).unwrap(), mode(&out));
                if line.starts_with("sh") {
                    std::fs::write(project.root.join("plain"), format!("{left:?}")).unwrap();
                }
                assert_eq!(
                    std::fs::read_to_string(project.root.join("plain")).unwrap(),
                    format!("{left:?}"),
                    "{script} {permissions:o}"
                );
            }
        };
        for permissions in [0o755, 0o700, 0o755, 0o750] {
            check(permissions);
        }
    }
}

#[test]
fn the_mask_of_permissions_counts() {
    let project = project("umask > out.txt");
    for mask in ["022", "027", "022"] {
        let ran = shell(&project, &format!("umask {mask}; CW sh gen.sh"));
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), format!("0{mask}\n"));
        std::fs::remove_file(project.root.join("out.txt")).unwrap();
    }
    assert_eq!(project.counters().number("local_hits"), 1);
}

#[test]
fn the_order_of_a_folder_counts() {
    // In memory a folder lists what was made last first.
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return support::skip("order of a folder", "no /dev/shm");
    };
    let script = format!("ls -U {} > out.txt", folder.path().display());
    let project = project(&script);
    let names = ["a", "b", "c", "d"];
    let fill = |names: &mut dyn Iterator<Item = &str>| {
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        project.write("tick", "");
    };
    fill(&mut names.into_iter());
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || {
        for name in names {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        fill(&mut names.into_iter().rev());
    });
}

#[test]
fn tools_are_started_as_they_were_called() {
    let mut project = project("");
    project.write("gen", "#!/bin/sh\necho \"$0\" > out.txt\n");
    project.write("bin/gen", "#!/bin/sh\necho \"$0\" > out.txt\n");
    for file in ["gen", "bin/gen"] {
        set_mode(&project.root.join(file), 0o755);
    }
    project.write("tick", "");
    project.set("PATH", &format!("bin:{}", std::env::var("PATH").unwrap()));
    let full = format!("{}/gen", project.root.display());
    for call in ["./gen", "gen", &full, "bin/../gen", "./gen"] {
        let said = |line: &str| {
            assert!(shell(&project, line).status.success(), "{line}");
            let said = std::fs::read_to_string(project.root.join("out.txt")).unwrap();
            std::fs::remove_file(project.root.join("out.txt")).unwrap();
            said
        };
        let plain = said(call);
        for line in ["CW", "CASTWORK_DISABLE=1 CW", "LD_DEBUG=none CW", "CW"] {
            assert_eq!(said(&format!("{line} {call}")), plain, "{line} {call}");
        }
    }
    let name = shell(&project, "CW bash -c 'echo $0; echo > out.txt'; CW bash -c 'echo $0; echo > out.txt'");
    assert_eq!(text(&name.stdout), "bash\nbash\n");
    assert!(project.counters().number("local_hits") >= 2);
}

#[test]
fn messages_to_one_place_keep_their_order() {
    let project = project("echo a; echo b >&2; echo c; echo d >&2; echo x > out.txt");
    for number in 0..3 {
        assert!(shell(&project, "CW sh gen.sh > log 2>&1").status.success());
        assert_eq!(std::fs::read_to_string(project.root.join("log")).unwrap(), "a\nb\nc\nd\n", "{number}");
        let apart = shell(&project, "CW sh gen.sh");
        assert_eq!(
            (text(&apart.stdout), text(&apart.stderr)),
            ("a\nc\n".into(), "b\nd\n".into()),
            "{number}"
        );
    }
    assert_eq!(project.counters().number("local_hits"), 4);
}

#[test]
fn who_stops_listening_ends_the_tool() {
    let project = project("echo x > out.txt; yes");
    let ran = shell(&project, "set -o pipefail; CW sh gen.sh | head -1");
    assert_eq!(text(&ran.stdout), "y\n");
    assert_eq!(ran.status.code(), Some(128 + 13));
}

#[test]
fn what_a_tool_leaves_running_is_not_waited_for() {
    let project = project("(while [ ! -e stop ]; do :; done; echo late) & echo early; echo x > out.txt");
    let mut child = project
        .command(castwork())
        .args(format!("{OURS} sh gen.sh").split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    assert!(child.wait().unwrap().success());
    // It has ended, and who was left says the rest, all the same.
    project.write("stop", "");
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "early\nlate\n");
    assert_eq!(project.counters().reason("program that leaves another running"), 1);
}

#[test]
fn a_tool_that_is_ended_by_a_signal_ends_us_by_it() {
    for signal in ["TERM", "KILL", "SEGV", "ABRT", "INT", "USR1"] {
        let project = project(&format!("ulimit -c 0; echo x > out.txt; kill -{signal} $$"));
        let plain = project.plain("sh gen.sh").status.signal();
        assert!(plain.is_some());
        assert_eq!(project.cached(&format!("{OURS} sh gen.sh")).status.signal(), plain, "{signal}");
        assert_eq!(project.counters().number("local_runs"), 1, "{signal}");
    }
}

#[test]
fn a_folder_whose_name_xml_writes_otherwise_gets_no_answer_of_another() {
    if !has("names in XML", "castxml") {
        return;
    }
    let project = Project::with(&[("s/a.cxx", "struct S { int x; };\n"), ("s/castwork.toml", "")]);
    let line = "castxml --castxml-gccxml -w -o s/a.xml s/a.cxx";
    let copies = ["plain", "a&b", "it's", "lt<x", "plainer"].map(|name| (name, project.copy(name)));
    let mut hits = 0;
    for (name, copy) in copies {
        check_run(&copy, "", line, &["s/a.xml"]);
        let counters = copy.counters();
        hits = counters.number("local_hits");
        assert!(hits == 0 || name == "plainer", "{name}: {}", counters.0);
    }
    assert_eq!(hits, 1, "an answer moves to a plain name");
}

#[test]
fn no_output_is_put_where_programs_are_run_from_or_over_what_was_read() {
    let project = project("mkdir -p .git/hooks; echo x > .git/hooks/pre-commit; echo y > out.txt");
    for _ in 0..2 {
        assert!(project.cached("run -- sh gen.sh").status.success());
        std::fs::remove_dir_all(project.root.join(".git")).unwrap();
    }
    assert_eq!(project.counters().reason("output among those of version control"), 2);
    // A link that appears on the way to an output is no way for an answer.
    let project = self::project("cat in.txt > d/out.txt");
    project.write("d/.keep", "");
    let line = "run --output d/out.txt -- sh gen.sh";
    let left = check_hit(&project, "run --output d/out.txt --", "sh gen.sh", &["d/out.txt"]);
    assert_eq!(left.text("d/out.txt"), "one\n");
    std::fs::rename(project.root.join("d"), project.root.join("e")).unwrap();
    project.turn("d", "e");
    assert!(project.cached(line).status.success());
    assert_eq!(std::fs::read_to_string(project.root.join("e/out.txt")).unwrap(), "one\n");
    assert_eq!(project.counters().number("local_hits"), 0);
}
