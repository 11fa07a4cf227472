//! What a run is seen to ask for, in ways that are easily overlooked: each was a wrong answer once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::process::{Output, Stdio};

use support::tool::{check_run, has};
use support::{Project, castwork, text};

const OURS: &str = "run --output out.txt --";

/// A change to a project.
type Change = fn(&Project);

/// A project with a generator: what it does is in `gen.sh`.
fn project(script: &str) -> Project {
    Project::with(&[("gen.sh", script), ("in.txt", "one\n"), ("castwork.toml", "")])
}

fn out(project: &Project) -> String {
    std::fs::read_to_string(project.root.join("out.txt")).unwrap()
}

/// Makes the call through us with a standard input.
fn with_input(project: &Project, line: &str, input: impl Into<Stdio>) -> Output {
    let mut command = project.command(castwork());
    command.args(line.split_whitespace()).stdin(input).output().unwrap()
}

/// Checks that nothing is kept of two calls, for a reason.
fn check_not_kept(project: &Project, line: &str, reason: &str) {
    for _ in 0..2 {
        let ran = project.cached(&format!("{OURS} {line}"));
        assert!(ran.status.success(), "{line}: {}", text(&ran.stderr));
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{line}: {}", counters.0);
    assert_eq!(counters.reason(reason), 2, "{line}: {}", counters.0);
}

/// Builds a program of C; `false` if there is no compiler, or it doesn't build.
fn build(project: &Project, name: &str, code: &str, flags: &str) -> bool {
    if !has(name, "cc") {
        return false;
    }
    project.write(&format!("{name}.c"), code);
    let built = project.plain(&format!("cc {flags} {name}.c -o {name}"));
    project.write("tick", "");
    if !built.status.success() {
        support::skip(name, &text(&built.stderr));
    }
    built.status.success()
}

#[test]
fn an_empty_standard_input_is_another_than_a_full_one() {
    let project = project("cat > out.txt");
    let line = format!("{OURS} sh gen.sh");
    for hits in [0, 1] {
        assert!(with_input(&project, &line, Stdio::null()).status.success());
        assert_eq!(out(&project), "");
        assert_eq!(project.counters().number("local_hits"), hits);
    }
    let file = || File::open(project.root.join("in.txt")).unwrap();
    assert!(with_input(&project, &line, file()).status.success());
    assert_eq!(out(&project), "one\n");
    // Some tools look what it is before they read it, or don't.
    if has("python3", "/usr/bin/python3") {
        let code = "import os, stat\nopen('out.txt', 'w').write(str(stat.S_ISREG(os.fstat(0).st_mode)))\n";
        project.write("gen.py", code);
        let line = format!("{OURS} /usr/bin/python3 -I -S -B gen.py");
        for _ in 0..2 {
            assert!(with_input(&project, &line, Stdio::null()).status.success());
            assert_eq!(out(&project), "False");
            assert!(with_input(&project, &line, file()).status.success());
            assert_eq!(out(&project), "True");
        }
        assert_eq!(project.counters().number("local_hits"), 2);
    }
    if !has("as", "as") {
        return;
    }
    project.write("in.txt", ".globl x\nx: ret\n");
    assert!(with_input(&project, "as -o a.o", Stdio::null()).status.success());
    let empty = std::fs::read(project.root.join("a.o")).unwrap();
    assert!(with_input(&project, "as -o a.o", file()).status.success());
    assert_ne!(std::fs::read(project.root.join("a.o")).unwrap(), empty);
    project.counters();
}

#[test]
fn what_is_added_to_a_file_is_added_each_time() {
    for (script, expected) in [("echo x >> out.txt", "x\nx\n"), ("printf AB 1<> out.txt", "ABx")] {
        let project = project(script);
        let line = format!("{OURS} sh gen.sh");
        assert!(project.cached(&line).status.success());
        if expected == "ABx" {
            project.write("out.txt", "zzx");
        }
        assert!(project.cached(&line).status.success());
        assert_eq!(out(&project), expected);
        // Where nothing is, as before, it is a hit.
        let was = project.counters();
        assert_eq!(was.number("local_hits"), 0, "{}", was.0);
        for _ in 0..2 {
            std::fs::remove_file(project.root.join("out.txt")).unwrap();
            assert!(project.cached(&line).status.success());
            assert_eq!(out(&project), if expected == "ABx" { "AB" } else { "x\n" });
        }
        assert_eq!(project.counters().number("local_hits"), 2);
    }
    // What is empty is another thing than what is not there, and nothing is made in place of it.
    let project = project("echo x >> out.txt");
    for was in ["", "a\n", ""] {
        project.write("out.txt", was);
        assert!(project.cached(&format!("{OURS} sh gen.sh")).status.success());
        assert_eq!(out(&project), format!("{was}x\n"));
    }
    project.counters();
}

#[test]
fn what_was_there_and_was_removed_counts_as_having_been_there() {
    let project =
        project("if [ -e out.txt ]; then rm out.txt; echo had > out.txt; else echo new > out.txt; fi");
    let line = format!("{OURS} sh gen.sh");
    project.write("out.txt", "old\n");
    assert!(project.cached(&line).status.success());
    assert_eq!(out(&project), "had\n");
    std::fs::remove_file(project.root.join("out.txt")).unwrap();
    assert!(project.cached(&line).status.success());
    assert_eq!(out(&project), "new\n");
    project.counters();
}

#[test]
fn files_of_the_kernel_are_not_overlooked() {
    let by_name = "program that looks at its standard input or output by name";
    let unknown = "program that reads what the kernel says";
    for (script, reason) in [
        ("[ -e /proc/self/cwd/opt ]; echo $? > out.txt", unknown),
        ("[ -e /proc/$$/cwd/opt ]; echo $? > out.txt", unknown),
        ("cat /proc/self/cwd/opt 2> /dev/null; echo $? > out.txt", unknown),
        ("[ -e //proc/./self/root/opt ]; echo $? > out.txt", unknown),
        ("readlink /proc/$PPID/exe > /dev/null; echo $? > out.txt", unknown),
        ("[ -e /proc/1 ]; echo $? > out.txt", unknown),
        ("[ -p /dev/stdin ]; echo $? > out.txt", by_name),
        ("readlink /proc/self/fd/0 > /dev/null; echo $? > out.txt", by_name),
        ("readlink /dev/fd/0 > /dev/null; echo $? > out.txt", by_name),
        ("ls /proc > /dev/null; echo x > out.txt", "program that lists what the kernel says"),
        ("cat /proc/$PPID/status > /dev/null; echo x > out.txt", unknown),
        ("cat /proc/self/mountinfo > /dev/null; echo x > out.txt", unknown),
    ] {
        eprintln!("{script}");
        check_not_kept(&project(script), "sh gen.sh", reason);
    }
    // By a link, too.
    let linked = project("[ -e link/opt ]; echo x > out.txt");
    linked.turn("link", "/proc/self/cwd");
    check_not_kept(&linked, "sh gen.sh", "path that leads through a process");
    // What each tool may ask of itself.
    let project = project(
        "ls /proc/self/fd > /dev/null; readlink /proc/self/exe > out.txt; [ -e /sys/fs/none ]; readlink /proc/self/fd/7 7< in.txt >> out.txt",
    );
    support::tool::check_hit(&project, OURS, "sh gen.sh", &["out.txt"]);
}

#[test]
fn a_server_that_does_not_answer_counts() {
    if !has("connect", "/usr/bin/python3") {
        return;
    }
    // A port that nobody listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let code = "import socket, sys\ns = socket.socket(socket.AF_INET if ADDRESS[0] != 's' else socket.AF_UNIX)\ntry: s.connect(ADDRESS); said = 'on'\nexcept OSError: said = 'off'\nopen('out.txt', 'w').write(said)\n";
    let project = project("");
    project.write("gen.py", &code.replace("ADDRESS", &format!("('127.0.0.1', {port})")));
    check_not_kept(&project, "/usr/bin/python3 -I -S -B gen.py", "program that talks to another");
    // A socket in a folder is a file that is not there.
    project.write("gen.py", &code.replace("ADDRESS", "'server'"));
    let line = "/usr/bin/python3 -I -S -B gen.py";
    support::tool::check_hit(&project, OURS, line, &["out.txt"]);
    assert_eq!(out(&project), "off");
    let _server = std::os::unix::net::UnixListener::bind(project.root.join("server")).unwrap();
    assert!(project.cached(&format!("{OURS} {line}")).status.success());
    assert_eq!(out(&project), "on");
    assert_eq!(project.counters().number("local_hits"), 0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_the_32_bit_kind_are_not_taken_for_others() {
    let project = project("");
    let code = "#include <string.h>\n#include <stdio.h>\n#include <sys/mman.h>\nstatic long sc(long n, long a, long b, long c) { long r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(n), \"b\"(a), \"c\"(b), \"d\"(c) : \"memory\", \"r8\", \"r9\", \"r10\", \"r11\"); return r; }\nint main() { char *m = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0); strcpy(m, \"in.txt\"); long fd = sc(5, (long)m, 0, 0); long n = fd < 0 ? 0 : sc(3, fd, (long)(m + 100), 100); FILE *f = fopen(\"out.txt\", \"w\"); fwrite(m + 100, 1, n > 0 ? n : 0, f); fclose(f); return 0; }\n";
    if build(&project, "old", code, "") {
        check_not_kept(&project, "./old", "program that makes system call -1");
    }
}

#[test]
fn what_a_device_is_asked_for_is_known() {
    let project = project("");
    let code = "#include <stdio.h>\n#include <sys/ioctl.h>\n#include <net/if.h>\n#include <sys/socket.h>\nint main() { struct ifconf c; char b[4096]; c.ifc_len = sizeof b; c.ifc_buf = b; ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCGIFCONF, &c); FILE *f = fopen(\"out.txt\", \"w\"); fprintf(f, \"%d\", c.ifc_len); fclose(f); }\n";
    if build(&project, "asks", code, "") {
        check_not_kept(&project, "./asks", "program that asks a device for 0x8912");
    }
    // A terminal is another thing than a pipe, and a call in one makes no answer for the other.
    let project = self::project("if [ -t 0 ]; then echo yes; else echo no; fi > out.txt");
    if !has("terminal", "script") {
        return;
    }
    project.write("call.sh", &format!("{} {OURS} sh gen.sh\n", castwork()));
    for _ in 0..2 {
        let mut command = project.command("script");
        assert!(command.args(["-qec", "sh call.sh", "/dev/null"]).output().unwrap().status.success());
        assert_eq!(out(&project), "yes\n");
        assert!(with_input(&project, &format!("{OURS} sh gen.sh"), Stdio::null()).status.success());
        assert_eq!(out(&project), "no\n");
    }
    project.counters();
}

#[test]
fn a_tool_with_sanitizers_runs_as_it_does() {
    let project = project("");
    let code = "#include <stdio.h>\nint main() { FILE *f = fopen(\"out.txt\", \"w\"); fputs(\"x\", f); fclose(f); return 0; }\n";
    if build(&project, "checked", code, "-fsanitize=address") {
        for _ in 0..2 {
            let left = check_run(&project, OURS, "./checked", &["out.txt"]);
            assert_eq!(left.code, Some(0), "{}", left.stderr);
        }
    }
    // Below another program, and with other threads at the end of it.
    project.write("gen.sh", "./checked\n");
    for _ in 0..2 {
        check_run(&project, OURS, "sh gen.sh", &["out.txt"]);
    }
    let threads = code
        .replace(
            "#include",
            "#include <pthread.h>\n#include <unistd.h>\nvoid *f(void *x) { pause(); return x; }\n#include",
        )
        .replace("FILE", "pthread_t t; pthread_create(&t, 0, f, 0); FILE");
    if build(&project, "threads", &threads, "-fsanitize=address -pthread") {
        check_run(&project, OURS, "./threads", &["out.txt"]);
    }
    assert_eq!(project.counters().number("local_hits"), 0);
    // One that finds a fault says so once.
    let leaks = code.replace("fputs", "volatile char *p = __builtin_malloc(7); p[0] = 1; p = 0; fputs");
    if build(&project, "leaks", &leaks, "-fsanitize=address") {
        assert!(project.plain("strip leaks").status.success());
        let plain = project.plain("./leaks");
        let cached = project.cached(&format!("{OURS} ./leaks"));
        assert_eq!(plain.status.code(), cached.status.code());
        let faults = |output: &Output| text(&output.stderr).matches("SUMMARY").count();
        assert_eq!(faults(&cached), faults(&plain), "{}", text(&cached.stderr));
    }
    project.counters();
}

#[test]
fn a_tool_that_is_stopped_stays_stopped() {
    let project = project("echo $$ > pid; kill -STOP $$; echo x > out.txt");
    let mut child = project.command(castwork()).args(format!("{OURS} sh gen.sh").split(' ')).spawn().unwrap();
    let state = || {
        let pid = std::fs::read_to_string(project.root.join("pid")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim().parse::<u32>().ok()?)).ok()?;
        stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0])
    };
    // Stopped by the signal, and not for us (`t`).
    while state() != Some(b'T') {
        assert!(child.try_wait().unwrap().is_none(), "it went on");
    }
    assert!(!project.root.join("out.txt").exists());
    let pid = std::fs::read_to_string(project.root.join("pid")).unwrap();
    assert!(project.plain(&format!("kill -CONT {}", pid.trim())).status.success());
    assert!(child.wait().unwrap().success());
    assert_eq!(out(&project), "x\n");
    assert_eq!(project.counters().reason("program that is stopped"), 1);
}

#[test]
fn what_another_changes_while_the_tool_runs() {
    // It waits for a signal: a file to wait for would itself be one that changes.
    let wait = "trap go=1 USR1; echo $$ > pid; while [ -z \"$go\" ]; do :; done; rm pid";
    let cases: [(&str, Change); 4] = [
        ("if [ -e opt ]; then echo yes > out.txt; else echo no > out.txt; fi", |it| {
            std::fs::remove_file(it.root.join("opt")).unwrap();
        }),
        ("if [ -e new ]; then echo yes > out.txt; else echo no > out.txt; fi", |it| {
            std::fs::rename(it.root.join("spare"), it.root.join("new")).unwrap();
        }),
        ("cat inc/h > out.txt", |it| {
            std::fs::rename(it.root.join("inc"), it.root.join("inc.old")).unwrap();
            std::fs::rename(it.root.join("inc2"), it.root.join("inc")).unwrap();
        }),
        ("if [ -s inc/h ]; then echo full > out.txt; else echo empty > out.txt; fi", |it| {
            std::fs::rename(it.root.join("inc"), it.root.join("inc.old")).unwrap();
            std::fs::rename(it.root.join("inc3"), it.root.join("inc")).unwrap();
        }),
    ];
    for (script, change) in cases {
        eprintln!("{script}");
        let project = project(&format!("{script}; {wait}"));
        for (name, data) in
            [("opt", "x"), ("spare/x", "x"), ("inc/h", "old\n"), ("inc2/h", "new\n"), ("inc3/h", "")]
        {
            project.write(name, data);
        }
        project.write("tick", "");
        let line = "run --env PATH -- sh gen.sh";
        let mut child = project.command(castwork()).args(line.split(' ')).spawn().unwrap();
        let pid = || std::fs::read_to_string(project.root.join("pid")).unwrap_or_default();
        while !pid().ends_with('\n') {
            assert!(child.try_wait().unwrap().is_none());
        }
        change(&project);
        assert!(project.plain(&format!("kill -USR1 {}", pid().trim())).status.success());
        assert!(child.wait().unwrap().success());
        let counters = project.counters();
        assert_eq!(counters.number("passed_through"), 1, "{script}: {}", counters.0);
        assert_eq!(counters.reason("file changed while the tool ran"), 1, "{script}: {}", counters.0);
    }
}
