//! The wrapper gives what the compiler gives: objects, dependency files, messages, exit codes.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use support::{Project, castwork, cxx_compilers, program, shown, text};

fn project() -> Project {
    Project::with(&[
        ("src/a.cc", "#include <vector>\n#include \"h.h\"\nint f() { int unused; return H; }\n"),
        ("i/h.h", "#define H 1\n"),
        ("src/wrong.cc", "int f() { return; }\nint g( {\n"),
    ])
}

#[test]
fn a_second_compile_is_a_hit_with_the_same_object_and_messages() {
    for compiler in cxx_compilers() {
        let project = project();
        for flags in ["", "-O2 -Wall -Wextra", "-g -Wall -fdiagnostics-color=always"] {
            let line = format!("{compiler} {flags} -Ii -c src/a.cc");
            project.check(&line);
            project.check(&line);
            assert_eq!(project.counters().local(), [2, 1, 1, 0], "{line}");
        }
    }
}

#[test]
fn dependency_files_are_the_compilers_own() {
    for compiler in cxx_compilers() {
        let project = project();
        std::fs::create_dir(project.root.join("out")).unwrap();
        for (flags, file) in [
            ("-MD -o out/a.o", "out/a.d"),
            ("-MMD -o out/a.o", "out/a.d"),
            ("-MD -MF deps -o out/a.o", "deps"),
            ("-MD -MT target -MP -MF deps -o out/a.o", "deps"),
            ("-MMD -MQ $x -MT y -MF deps", "deps"),
            ("-MD", "a.d"),
            ("-MD -o out/a.b.c", "out/a.b.d"),
        ] {
            let line = format!("{compiler} -Ii {flags} -c src/a.cc");
            assert!(project.plain(&line).status.success());
            let plain = std::fs::read_to_string(project.root.join(file)).unwrap();
            for _ in 0..2 {
                std::fs::remove_file(project.root.join(file)).unwrap();
                assert!(project.cached(&line).status.success());
                assert_eq!(std::fs::read_to_string(project.root.join(file)).unwrap(), plain, "{line}");
            }
        }
        assert_eq!(project.counters().local(), [14, 13, 1, 0], "{compiler}");
    }
}

#[test]
fn an_error_is_the_compilers_own_and_is_not_kept() {
    for compiler in cxx_compilers() {
        let project = project();
        for _ in 0..2 {
            project.check(&format!("{compiler} -c src/wrong.cc"));
            project.check(&format!("{compiler} -c src/absent.cc"));
            project.check(&format!("{compiler} -Werror -Wall -Ii -c src/a.cc"));
        }
        assert_eq!(project.counters().number("local_hits"), 0);
    }
}

#[test]
fn links_and_questions_are_passed_through_with_their_reason() {
    let project = project();
    project.check("g++ -Ii -c src/a.cc");
    project.write("main.cc", "int main() { return 3; }\n");
    assert!(project.cached("g++ main.cc -o main").status.success());
    assert_eq!(project.plain("./main").status.code(), Some(3));
    assert_eq!(project.cached("g++ --version").stdout, project.plain("g++ --version").stdout);
    assert_eq!(project.cached("g++ -E -Ii src/a.cc").stdout, project.plain("g++ -E -Ii src/a.cc").stdout);
    assert_eq!(project.cached("gcc -frobnicate -c main.cc").status.code(), Some(1));
    let counters = project.counters();
    assert_eq!(counters.local(), [2, 0, 2, 3]);
    for reason in ["linking", "asks about the compiler", "preprocessing only"] {
        assert_eq!(counters.reason(reason), 1, "{reason}: {}", counters.0);
    }
}

#[test]
fn a_link_to_the_wrapper_stands_for_the_compiler() {
    let mut project = project();
    let links = project.root.join("links");
    std::fs::create_dir(&links).unwrap();
    symlink(castwork(), links.join("g++")).unwrap();
    project.set("PATH", &format!("{}:{}", shown(&links), std::env::var("PATH").unwrap()));
    for _ in 0..2 {
        assert!(project.plain("g++ -Ii -c src/a.cc -o a.o").status.success());
    }
    assert_eq!(project.counters().local(), [2, 1, 1, 0]);
}

#[test]
fn a_switch_turns_it_off() {
    let mut project = project();
    project.set("CASTWORK_DISABLE", "1");
    project.check("g++ -Ii -c src/a.cc");
    project.set("CASTWORK_DISABLE", "");
    assert_eq!(project.counters().local(), [0, 0, 0, 0]);
}

#[test]
fn a_wrong_configuration_is_said_at_once_and_breaks_no_build() {
    let mut project = project();
    project.write("config.toml", "colour = 1\nmax_size = \"huge\"\n");
    let file = shown(&project.root.join("config.toml"));
    project.set("CASTWORK_CONFIG", &file);
    project.check("g++ -Ii -c src/a.cc");
    let said = project.cached("config");
    assert_eq!(said.status.code(), Some(1));
    let said = text(&said.stderr);
    assert!(said.contains("colour") && said.contains("max_size") && said.contains(&file), "{said}");
    project.set("CASTWORK_CONFIG", "/dev/null");
    assert_eq!(project.counters().reason("configuration is wrong; see `castwork config`"), 1);
}

#[test]
fn a_server_that_is_not_there_costs_little_and_breaks_nothing() {
    let mut project = project();
    // A port that nobody listens on: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    project.set("CASTWORK_REMOTE", &format!("grpc://127.0.0.1:{port}"));
    for flags in ["-O0", "-O1", "-O2"] {
        project.check(&format!("g++ {flags} -Ii -c src/a.cc"));
    }
    let counters = project.counters();
    assert_eq!(counters.local(), [3, 0, 3, 0]);
    assert_eq!(counters.number("fallbacks"), 3);
    assert_eq!(counters.reason("server that was down a moment ago"), 2, "{}", counters.0);
    let doctor = project.cached("doctor");
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).contains("FAIL") && text(&doctor.stdout).contains("hint:"));
}

#[test]
fn a_folder_is_a_remote_cache() {
    let mut here = project();
    let shared = here.root.parent().unwrap().join("shared");
    here.set("CASTWORK_REMOTE", &format!("file://{}", shown(&shared)));
    here.check("g++ -O2 -Ii -c src/a.cc");
    let mut there = here.copy("elsewhere");
    there.cache = there.root.join("own-cache");
    there.set("CASTWORK_REMOTE", &format!("file://{}?mode=ro", shown(&shared)));
    there.check("g++ -O2 -Ii -c src/a.cc");
    there.check("g++ -O2 -Ii -c src/a.cc");
    let counters = there.counters();
    assert_eq!((counters.number("remote_hits"), counters.number("local_hits")), (1, 1), "{}", counters.0);
    there.check("g++ -O1 -Ii -c src/a.cc");
    here.check("g++ -O1 -Ii -c src/a.cc");
    assert_eq!(here.counters().number("remote_hits"), 0, "a read-only remote was written to");
}

#[test]
fn a_folder_that_cannot_be_written_breaks_nothing() {
    let mut project = project();
    project.write("blocked", "a file where a folder should be");
    project.set("CASTWORK_DIR", &shown(&project.root.join("blocked/cache")));
    project.check("g++ -Ii -c src/a.cc");
    project.check("g++ -Ii -c src/a.cc");
}

#[test]
fn outputs_are_written_as_a_compiler_writes_them() {
    let project = project();
    project.check("g++ -Ii -c src/a.cc");
    let plain = project.root.join("plain.o").metadata().unwrap();
    project.check("g++ -Ii -c src/a.cc");
    assert_eq!(project.root.join("cached.o").metadata().unwrap().mode(), plain.mode());
    // Through a link, to where it leads.
    symlink("target.o", project.root.join("link.o")).unwrap();
    assert!(project.cached("g++ -Ii -c src/a.cc -o link.o").status.success());
    assert!(project.root.join("target.o").is_file());
    // A folder in the place of the object: the compiler says so.
    std::fs::create_dir(project.root.join("folder.o")).unwrap();
    let (plain, cached) =
        (project.plain("g++ -Ii -c src/a.cc -o folder.o"), project.cached("g++ -Ii -c src/a.cc -o folder.o"));
    assert_eq!(cached.status.code(), plain.status.code());
    assert!(!cached.status.success());
}

#[test]
fn fifty_at_once_share_one_cache() {
    let project = project();
    for number in 0..10 {
        project.write(&format!("n{number}.c"), &format!("int f{number}(void) {{ return {number}; }}\n"));
    }
    let children: Vec<_> = (0..50)
        .map(|at| {
            let line = format!("gcc -O1 -c n{}.c -o o{at}.o", at % 10);
            project.command(castwork()).args(line.split(' ')).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    }
    for at in 0..50 {
        assert!(project.plain(&format!("gcc -O1 -c n{}.c -o plain.o", at % 10)).status.success());
        let object = |name: &str| std::fs::read(project.root.join(name)).unwrap();
        assert_eq!(object(&format!("o{at}.o")), object("plain.o"), "o{at}.o");
    }
    let [compiles, hits, runs, passed] = project.counters().local();
    assert_eq!((compiles, hits + runs, passed), (50, 50, 0));
    assert!(runs >= 10);
    for number in 0..10 {
        project.check(&format!("gcc -O1 -c n{number}.c"));
    }
    assert_eq!(project.counters().local(), [10, 10, 0, 0]);
}

#[test]
fn messages_in_the_users_letters_are_kept_apart() {
    let mut project = project();
    project.set("LC_ALL", "C.UTF-8");
    project.check("g++ -Wall -Ii -c src/a.cc");
    project.check("g++ -Wall -Ii -c src/a.cc");
    project.set("LC_ALL", "C");
    project.check("g++ -Wall -Ii -c src/a.cc");
    assert_eq!(project.counters().local(), [3, 1, 2, 0]);
    // A locale that is not installed reads like none.
    project.set("LC_ALL", "xx_YY.UTF-8");
    project.check("g++ -Wall -Ii -c src/a.cc");
    assert_eq!(project.counters().local(), [1, 1, 0, 0]);
}

#[test]
fn no_compiler_of_that_name_is_said() {
    let project = project();
    assert!(program("no-such-cc").is_none());
    let output = project.cached("no-such-cc -c a.c");
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("no-such-cc"));
}
