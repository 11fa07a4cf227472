//! `castwork exec` and `castwork env` put the wrapper in front of whoever calls a compiler; shells and readers are told of
//! every flag.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::{Project, castwork, program, shown, text};

const MAKEFILE: &str = "all: a.o b.o\n%.o: %.c\n\t$(CC) -O1 -c $< -o $@\n%.o: %.cc\n\t$(CXX) -O1 -c $< -o $@\nclean:\n\trm -f *.o\n";

fn project() -> Project {
    Project::with(&[("Makefile", MAKEFILE), ("a.c", "int a;\n"), ("b.cc", "int b;\n")])
}

#[test]
fn make_compiles_through_the_wrapper_and_its_exit_code_is_ours() {
    if program("make").is_none() {
        return support::skip("make", "it is not installed");
    }
    let project = project();
    for expected in [[2, 0, 2, 0], [2, 2, 0, 0]] {
        let made = project.cached("exec -- make -B -j2 all");
        assert!(made.status.success(), "{}", text(&made.stderr));
        assert_eq!(project.counters().local(), expected);
    }
    // A compiler that is named by its path is not ours to replace; the command goes on all the same.
    assert!(project.cached("exec -- make clean all CC=/usr/bin/gcc").status.success());
    assert_eq!(project.cached("exec sh -c no-such-word").status.code(), Some(127));
    assert_eq!(project.cached("exec no-such-command").status.code(), Some(127));
    assert_eq!(project.cached("exec").status.code(), Some(2));
}

#[test]
fn exec_in_exec_is_no_circle() {
    let project = project();
    let ran = project.cached(&format!("exec {} exec gcc -c a.c -o out.o", castwork()));
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert_eq!(project.counters().local(), [1, 0, 1, 0]);
}

#[test]
fn a_shell_and_make_take_what_env_prints() {
    let project = project();
    let run = |script: &str| {
        let ran = project.command("sh").args(["-c", script]).output().unwrap();
        assert!(ran.status.success(), "{script}: {}", text(&ran.stderr));
    };
    let us = castwork();
    run(&format!("eval \"$({us} env)\" && gcc -c a.c -o out.o"));
    assert_eq!(project.counters().local(), [1, 0, 1, 0]);
    if program("make").is_some() {
        run(&format!("eval make clean all $({us} env --make)"));
        assert_eq!(project.counters().local()[0], 2);
    }
    let printed = |line: &str| text(&project.cached(line).stdout);
    assert_eq!(
        printed("env --cmake"),
        format!("-DCMAKE_C_COMPILER_LAUNCHER={us} -DCMAKE_CXX_COMPILER_LAUNCHER={us}\n")
    );
    assert_eq!(
        printed("env --github"),
        format!("CMAKE_C_COMPILER_LAUNCHER={us}\nCMAKE_CXX_COMPILER_LAUNCHER={us}\n")
    );
    assert!(printed("env --gitlab").starts_with("variables:\n  CMAKE_C_COMPILER_LAUNCHER: \""));
    assert_eq!(project.cached("env --cmake --make").status.code(), Some(2));
    let wheels = printed("env --cibuildwheel");
    for line in wheels.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("export CIBW_"), "{line}");
    }
}

#[test]
fn wheels_share_objects_for_link_time_optimisation_unless_told_otherwise() {
    let mut project = Project::new();
    let shares = |project: &Project| {
        text(&project.cached("env --cibuildwheel").stdout).contains("CASTWORK_SHARE_LTO=yes")
    };
    assert!(shares(&project));
    project.set("CASTWORK_SHARE_LTO", "no");
    assert!(!shares(&project));
    project.set("CASTWORK_SHARE_LTO", "yes");
    assert!(shares(&project));
    project.set("CASTWORK_SHARE_LTO", "perhaps");
    let said = project.cached("config");
    assert!(text(&said.stderr).contains("share_lto") && !said.status.success(), "{}", text(&said.stderr));
}

#[test]
fn completions_and_the_manual_know_every_setting_and_subcommand() {
    let project = Project::new();
    let words = ["--remote", "--max-size", "--project-root", "stats", "exec", "doctor", "--zero"];
    for line in ["completions bash", "completions zsh", "completions fish"] {
        let ran = project.cached(line);
        assert!(ran.status.success());
        for word in words {
            let word = if line.ends_with("fish") { word.trim_start_matches("--") } else { word };
            assert!(text(&ran.stdout).contains(word), "{line}: {word}");
        }
    }
    let bash = project.root.join("completions");
    std::fs::write(&bash, project.cached("completions bash").stdout).unwrap();
    let sourced = Command::new("bash").args(["-n", &shown(&bash)]).status().unwrap();
    assert!(sourced.success());
    let manual = text(&project.cached("man").stdout);
    for word in ["max\\-size", "castwork\\-stats", "castwork\\-exec"] {
        assert!(manual.contains(word), "{word}: {manual}");
    }
    let help = text(&project.cached("--help").stdout);
    for word in ["exec -- COMMAND", "env [--cmake", "completions SHELL", "castwork man"] {
        assert!(help.contains(word), "{word}");
    }
}
