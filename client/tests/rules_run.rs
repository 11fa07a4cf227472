//! Any tool, by what is said of it on the command line or in `castwork.toml`: each way in which an answer could be
//! another than the tool's own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use support::tool::{check_change, check_hit, check_run, has};
use support::{Project, castwork, text};

const OURS: &str = "run --output out.txt --";

/// A change to a project.
type Change = fn(&Project);

/// A project with a generator: what it does is in `gen.sh`.
fn project(script: &str) -> Project {
    Project::with(&[
        ("gen.sh", script),
        ("in.txt", "one\n"),
        ("d/a.def", "a\n"),
        ("early/.keep", ""),
        ("castwork.toml", ""),
    ])
}

/// Checks that nothing is kept of a call, for a reason.
fn check_not_kept(project: &Project, ours: &str, line: &str, outputs: &[&str], reason: &str) {
    for _ in 0..2 {
        check_run(project, ours, line, outputs);
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{line}: {}", counters.0);
    assert_eq!(counters.reason(reason), 2, "{line}: {}", counters.0);
}

#[test]
fn what_is_read_counts() {
    let changes: [(&str, &str, Change); 9] = [
        ("input", "cat in.txt > out.txt", |it| it.write("in.txt", "two\n")),
        ("script", "cat in.txt > out.txt", |it| it.write("gen.sh", "echo other > out.txt\n")),
        ("gone", "cat in.txt gone > out.txt 2> /dev/null || echo none > out.txt", |it| {
            it.write("gone", "x\n");
        }),
        ("listed", "echo d/*.def > out.txt", |it| it.write("d/b.def", "")),
        ("found", "if [ -e early/x ]; then echo y > out.txt; else echo n > out.txt; fi", |it| {
            it.write("early/x", "");
        }),
        ("mode", "if [ -x in.txt ]; then echo y > out.txt; else echo n > out.txt; fi", |it| {
            Command::new("chmod").arg("+x").arg(it.root.join("in.txt")).status().unwrap();
        }),
        ("same size", "cat in.txt > out.txt", |it| it.write("in.txt", "six\n")),
        ("another script", "sh d/sub.sh > out.txt", |it| it.write("d/sub.sh", "echo new\n")),
        ("deleted", "cat in.txt d/a.def > out.txt 2> /dev/null; true", |it| {
            std::fs::remove_file(it.root.join("d/a.def")).unwrap();
        }),
    ];
    for (name, script, change) in changes {
        eprintln!("{name}");
        let project = project(script);
        project.write("d/sub.sh", "echo old\n");
        check_change(&project, OURS, "sh gen.sh", &["out.txt"], || change(&project));
    }
}

#[test]
fn links_on_the_way_count() {
    let project = project("cat link/v > out.txt; readlink link >> out.txt");
    project.write("one/v", "1\n");
    project.write("two/v", "1\n");
    project.turn("link", "one");
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || project.turn("link", "two"));
    let project = self::project("cat one/v > out.txt; readlink -f one/v | sed 's,.*/,,' >> out.txt");
    project.write("one/v", "1\n");
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || {
        project.write("one/w", "1\n");
        project.turn("one/v", "w");
    });
}

#[test]
fn programs_and_their_search_count() {
    let mut project = project("gen-it > out.txt");
    let program = |project: &Project, name: &str, says: &str| {
        project.write(name, &format!("#!/bin/sh\necho {says}\n"));
        Command::new("chmod").arg("+x").arg(project.root.join(name)).status().unwrap();
    };
    program(&project, "late/gen-it", "late");
    let root = project.root.display().to_string();
    project.set("PATH", &format!("{root}/early:{root}/late:{}", std::env::var("PATH").unwrap()));
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || program(&project, "early/gen-it", "early"));
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || program(&project, "early/gen-it", "changed"));
    // The tool itself, and what starts it.
    program(&project, "tool", "one > out.txt");
    check_change(&project, OURS, "./tool", &["out.txt"], || program(&project, "tool", "two > out.txt"));
    std::fs::copy("/bin/sh", project.root.join("own-sh")).unwrap();
    project.write("tool", "#!./own-sh\necho x > out.txt\n");
    check_not_kept(
        &project,
        OURS,
        "./tool",
        &["out.txt"],
        "script whose interpreter is found by a relative path",
    );
}

#[test]
fn a_shared_library_that_is_replaced_counts() {
    if !has("shared library", "cc") {
        return;
    }
    let mut project = project("");
    project.write("lib.c", "int value(void) { return 1; }\n");
    project.write("main.c", "#include <stdio.h>\nint value(void);\nint main() { fprintf(fopen(\"out.txt\", \"w\"), \"%d\\n\", value()); }\n");
    let build = |line: &str| assert!(project.plain(line).status.success(), "{line}");
    project.write("lib/.keep", "");
    build("cc -shared -fPIC lib.c -o lib/libv.so");
    build("cc main.c -o main -Llib -lv");
    project.set("LD_LIBRARY_PATH", &format!("{root}/early:{root}/lib", root = project.root.display()));
    project.write("tick", "");
    let replace = |to: &str| {
        project.write("lib.c", "int value(void) { return 2; }\n");
        assert!(project.plain(&format!("cc -shared -fPIC lib.c -o {to}")).status.success());
        project.write("tick", "");
    };
    check_change(&project, OURS, "./main", &["out.txt"], || replace("early/libv.so"));
}

#[test]
fn variables_count_all_or_those_that_are_named() {
    let mut project = project("echo $GEN_MODE $OTHER > out.txt");
    project.set("GEN_MODE", "a");
    let first = check_hit(&project, OURS, "sh gen.sh", &["out.txt"]);
    project.set("GEN_MODE", "b");
    assert_ne!(check_run(&project, OURS, "sh gen.sh", &["out.txt"]), first);
    assert_eq!(project.counters().number("local_hits"), 0);
    let named = "run --env GEN_* --env PATH --output out.txt --";
    let first = check_hit(&project, named, "sh gen.sh", &["out.txt"]);
    project.set("UNRELATED", "x");
    assert_eq!(check_run(&project, named, "sh gen.sh", &["out.txt"]), first);
    assert_eq!(project.counters().number("local_hits"), 1);
    project.set("GEN_MODE", "c");
    assert_ne!(check_run(&project, named, "sh gen.sh", &["out.txt"]), first);
}

#[test]
fn every_output_comes_back_and_nothing_that_is_not_named() {
    let project = project(
        "mkdir -p sub/deep; echo 1 > out.txt; echo 2 > sub/deep/two.txt; echo '#!/bin/sh' > tool.sh; chmod +x tool.sh; echo said; echo warned >&2",
    );
    let outputs = ["out.txt", "sub/deep/two.txt", "tool.sh"];
    let ours = "run --output out.txt --output sub/**/*.txt --output tool.sh --";
    let left = check_hit(&project, ours, "sh gen.sh", &outputs);
    assert_eq!(
        (left.stdout.as_str(), left.stderr.as_str(), left.executable.len()),
        ("said\n", "warned\n", 1)
    );
    // One of them is gone, and then the folder with it.
    std::fs::remove_file(project.root.join("sub/deep/two.txt")).unwrap();
    assert!(project.cached(&format!("{ours} sh gen.sh")).status.success());
    assert_eq!(std::fs::read_to_string(project.root.join("sub/deep/two.txt")).unwrap(), "2\n");
    std::fs::remove_dir_all(project.root.join("sub")).unwrap();
    assert!(project.cached(&format!("{ours} sh gen.sh")).status.success());
    assert_eq!(std::fs::read_to_string(project.root.join("sub/deep/two.txt")).unwrap(), "2\n");
    project.counters();
    let project = self::project("echo 1 > out.txt; echo 2 > side.txt");
    check_not_kept(
        &project,
        OURS,
        "sh gen.sh",
        &["out.txt", "side.txt"],
        "output that the rule doesn't name",
    );
    let project = self::project("echo 1 > out.txt");
    let ours = "run --output out.txt --output missing.txt --";
    check_not_kept(&project, ours, "sh gen.sh", &["out.txt"], "output that the tool didn't make");
}

#[test]
fn what_was_there_before_counts_if_it_was_looked_at() {
    // As build tools do: nothing is made if it is there.
    let project = project("[ -f out.txt ] || cat in.txt > out.txt");
    let run = |line: &str| assert!(project.cached(line).status.success(), "{line}");
    let line = format!("{OURS} sh gen.sh");
    let text = || std::fs::read_to_string(project.root.join("out.txt")).unwrap();
    run(&line);
    std::fs::write(project.root.join("out.txt"), "mine\n").unwrap();
    run(&line);
    assert_eq!(text(), "mine\n", "the tool would have left it");
    std::fs::remove_file(project.root.join("out.txt")).unwrap();
    run(&line);
    assert_eq!(text(), "one\n");
    assert_eq!(project.counters().number("local_hits"), 1);
    // As TeX does: the second run reads what the first has left.
    let project =
        self::project("if [ -f aux ]; then echo again > out.txt; else echo first > out.txt; fi; echo > aux");
    let line = "run --output out.txt --output aux -- sh gen.sh";
    for expected in ["first\n", "again\n", "again\n"] {
        assert!(project.cached(line).status.success());
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), expected);
    }
    // As `mkdir` does, which fails if there is one.
    let project = self::project("mkdir made && echo x > made/out.txt");
    let line = "run --output made/out.txt -- sh gen.sh";
    assert!(project.cached(line).status.success());
    assert!(!project.cached(line).status.success());
    std::fs::remove_dir_all(project.root.join("made")).unwrap();
    assert!(project.cached(line).status.success());
    assert!(project.root.join("made/out.txt").exists());
    assert_eq!(project.counters().number("local_hits"), 1);
}

#[test]
fn kinds_of_what_is_listed_count() {
    let project = project("find d -type f > out.txt");
    project.write("d/b", "");
    check_change(&project, OURS, "sh gen.sh", &["out.txt"], || {
        std::fs::remove_file(project.root.join("d/b")).unwrap();
        std::fs::create_dir(project.root.join("d/b")).unwrap();
        project.write("tick", "");
    });
}

#[test]
fn what_is_said_to_be_read_counts_even_if_it_is_not() {
    let script = "cat in.txt > out.txt; echo 'out.txt: d/a.def' > out.d";
    let project = project(script);
    let ours = "run --output out.txt --output out.d --input d/*.def --";
    let outputs = ["out.txt", "out.d"];
    check_hit(&project, ours, "sh gen.sh", &outputs);
    for change in ["d/a.def", "d/new.def"] {
        project.write(change, "changed\n");
        check_run(&project, ours, "sh gen.sh", &outputs);
        assert_eq!(project.counters().number("local_hits"), 0, "{change}");
    }
    let ours = "run --output out.txt --depfile out.d --";
    check_hit(&project, ours, "sh gen.sh", &outputs);
    project.write("d/a.def", "again\n");
    check_run(&project, ours, "sh gen.sh", &outputs);
    assert_eq!(project.counters().number("local_hits"), 0);
    project.write("gen.sh", "echo > out.txt\n");
    check_not_kept(&project, ours, "sh gen.sh", &outputs, "output that the tool didn't make");
}

#[test]
fn runs_of_which_nothing_may_be_kept() {
    for (script, reason) in [
        ("echo x >> in.txt; cp in.txt out.txt; echo one > in.txt", "program that changes a file in place"),
        ("cat in.txt > out.txt; cat out.txt > in.txt", "tool that writes what it reads"),
        ("cat in.txt > out.txt; rm -f d/a.def; cp in.txt d/a.def", "output that the rule doesn't name"),
        ("echo x > out.txt; ln -s out.txt other; rm other", "program that makes system call 88"),
        ("mv in.txt x; mv x in.txt; echo x > out.txt", "program that moves files"),
        ("cat /proc/uptime > /dev/null; echo x > out.txt", "program that reads what the kernel says"),
        ("echo x > /dev/stdout; echo x > out.txt", "program that opens its standard input or output by name"),
        ("echo said", "tool that leaves no file"),
        ("chmod +x in.txt; chmod -x in.txt; echo x > out.txt", "program that changes permissions"),
        ("mkdir -p made; echo x > out.txt", "tool that leaves an empty folder"),
    ] {
        let project = project(script);
        for _ in 0..2 {
            project.write("in.txt", "one\n");
            let _ = std::fs::remove_dir(project.root.join("made"));
            assert!(project.cached(&format!("{OURS} sh gen.sh")).status.success());
        }
        let counters = project.counters();
        assert_eq!(counters.number("local_hits"), 0, "{script}: {}", counters.0);
        let is_about_links = reason.contains("system call");
        assert!(counters.reason(reason) == 2 || is_about_links, "{script}: {}", counters.0);
        assert_eq!(counters.number("passed_through"), 2, "{script}: {}", counters.0);
    }
    let failing = project("echo x > out.txt; echo why >&2; exit 3");
    for _ in 0..2 {
        assert_eq!(check_run(&failing, OURS, "sh gen.sh", &["out.txt"]).code, Some(3));
    }
    assert_eq!(failing.counters().number("local_hits"), 0);
}

#[test]
fn standard_input_is_not_taken_for_nothing() {
    use std::io::Write;
    use std::process::Stdio;

    let project = project("cat > out.txt");
    for said in ["one", "two"] {
        let mut command = project.command(castwork());
        let mut child =
            command.args(format!("{OURS} sh gen.sh").split(' ')).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), said);
        let file = std::fs::File::open(project.root.join("in.txt")).unwrap();
        assert!(
            project
                .command(castwork())
                .args(format!("{OURS} sh gen.sh").split(' '))
                .stdin(file)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), "one\n");
    }
    let counters = project.counters();
    assert_eq!(counters.reason("program that reads its standard input"), 4, "{}", counters.0);
}

#[test]
fn files_that_change_while_the_tool_runs() {
    let project = project("cat in.txt > out.txt; echo > started; while [ ! -e go ]; do :; done; rm started");
    let mut child =
        project.command(castwork()).args("run --env PATH -- sh gen.sh".split(' ')).spawn().unwrap();
    while !project.root.join("started").exists() {
        assert!(child.try_wait().unwrap().is_none());
    }
    project.write("in.txt", "two\n");
    project.write("go", "");
    assert!(child.wait().unwrap().success());
    let counters = project.counters();
    assert_eq!(counters.number("passed_through"), 1, "{}", counters.0);
    assert_eq!(counters.reason("file changed while the tool ran"), 1, "{}", counters.0);
}

#[test]
fn what_cannot_be_watched_runs_all_the_same() {
    if !has("strace", "strace") {
        return;
    }
    let project = project("echo x > out.txt");
    let traced = "strace -f -o log sh gen.sh";
    for _ in 0..2 {
        check_run(&project, OURS, traced, &["out.txt"]);
        assert!(std::fs::read_to_string(project.root.join("log")).unwrap().contains("execve"));
    }
    assert_eq!(project.counters().number("local_hits"), 0);
    // Below another that watches, nothing can be.
    let line = format!("strace -f -o log {} {OURS} sh gen.sh", castwork());
    for _ in 0..2 {
        assert!(project.plain(&line).status.success());
        assert_eq!(std::fs::read_to_string(project.root.join("out.txt")).unwrap(), "x\n");
    }
    assert_eq!(project.counters().number("local_hits"), 0);
}

#[test]
fn signals_and_processes_that_stay() {
    let project = project("echo x > out.txt; kill -TERM $$");
    let plain = project.plain("sh gen.sh");
    let cached = project.cached(&format!("{OURS} sh gen.sh"));
    assert_eq!(plain.status.signal(), Some(15));
    assert_eq!(cached.status.signal(), Some(15), "{}", text(&cached.stderr));
    // The one that stays holds no output, and ends when it is told to.
    project.write(
        "gen.sh",
        "(while [ ! -e stop ]; do :; done) < /dev/null > /dev/null 2>&1 &\necho x > out.txt\n",
    );
    let left = project.cached(&format!("{OURS} sh gen.sh"));
    project.write("stop", "");
    assert!(left.status.success());
    assert_eq!(project.counters().reason("program that leaves another running"), 1);
}

#[test]
fn rules_of_a_project() {
    let project = project("cat in.txt > \"$2\"");
    let rule =
        "[[rule]]\nname = \"gen\"\ntools = [\"gen.sh\"]\noutputs = [\"{-o}\"]\nenvironment = [\"PATH\"]\n";
    project.write("castwork.toml", rule);
    project.write("gen.sh", "#!/bin/sh\ncat in.txt > \"$2\"\n");
    Command::new("chmod").arg("+x").arg(project.root.join("gen.sh")).status().unwrap();
    check_change(&project, "", "./gen.sh -o out.txt", &["out.txt"], || project.write("in.txt", "two\n"));
    let listed = project.cached("rules --json");
    let rules: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(rules[0]["name"], "gen");
    assert!(text(&project.cached("rules").stdout).contains("castxml"));
    // A mistake is named, and the tool runs.
    project.write("castwork.toml", "[[rule]]\nname = \"gen\"\noutput = []\n");
    let ran = project.cached("./gen.sh -o out.txt");
    assert!(ran.status.success() && text(&ran.stderr).contains("output"), "{}", text(&ran.stderr));
    assert_eq!(project.counters().reason("`castwork.toml` is wrong"), 1);
    assert_eq!(project.cached("rules").status.code(), Some(1));
    assert_eq!(project.cached("run --rule nope -- sh gen.sh").status.code(), Some(2));
}
