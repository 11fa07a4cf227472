//! Compilers of Python wheels travel to workers: zig, if it compiles for a target that is named, and clang.
//!
//! `tests/wheels` installs them, and runs this. It lies here so that it is built with all tests, and run only by its name.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../tests/no_compiler/client.rs"]
mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_tests::{Farm, binary, environment, finish, progress, skip};
use client::{COMPILE_MAX, Client, SOURCE, ZIG_CACHES, copy};

#[test]
fn clang_of_a_wheel_travels_with_the_libraries_beside_it() {
    let test = "a wheel's clang";
    let Some(installed) = environment("wheels") else {
        return skip(test, "there is no clang from PyPI");
    };
    // Away from what each action has of its own, wherever the sources are; and as a virtual environment has it.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let place = folder.path().join("venv");
    let is_of_clang = |name: &str| {
        ["bin/clang", "bin/clang++", "bin/clang-23", "include"].contains(&name)
            || name.starts_with("lib/") && !name.starts_with("lib/python")
    };
    for sub in ["bin", "lib", "."] {
        fs::create_dir_all(place.join(sub)).unwrap();
        for entry in fs::read_dir(installed.join(sub)).unwrap() {
            let name = Path::new(sub).join(entry.unwrap().file_name());
            let name = name.strip_prefix(".").unwrap_or(&name);
            if is_of_clang(name.to_str().unwrap()) {
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(installed.join(name)).arg(place.join(sub));
                assert!(copy.status().unwrap().success(), "copy {}", name.display());
            }
        }
    }
    let farm = Farm::start(1, 1);
    let mut project = Client::new(&farm, "a.cc");
    project.write(SOURCE);
    let compiler = place.join("bin/clang++");
    let compiler = compiler.to_str().unwrap();
    for flags in ["-O2 -Wall", "-g -O0 -fPIC", "-std=c++20 -O1 -MMD"] {
        project.check(compiler, flags);
    }
    assert_eq!(project.counts(), [3, 3, 0], "compiles, remote runs, fallbacks");
    check(&project, compiler);
    // The same, as it is when the environment is active.
    project.first_on_path = Some(place.join("bin"));
    project.check("clang++", "-O3 -Wall");
    assert_eq!(project.counts(), [4, 4, 0], "compiles, remote runs, fallbacks");
}

#[test]
fn zigs_compilers_travel_for_a_target_and_stay_for_this_machine() {
    let test = "zig's compilers";
    let Some(wheel) = environment("wheels").and_then(|place| in_python(&place, "ziglang")) else {
        return skip(test, "there is no `ziglang` from PyPI");
    };
    // Away from what each action has of its own, wherever the sources are; and not the hundreds of systems besides.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let packages = folder.path().join("site-packages/ziglang");
    let systems =
        ["x86-linux-gnu", "aarch64-linux-gnu", "generic-glibc", "x86-linux-any", "aarch64-linux-any"];
    let systems = systems.iter().chain(&["any-linux-any"]).map(|system| format!("lib/libc/include/{system}"));
    let parts = ["zig", "lib/std/std.zig", "lib/include", "lib/libcxx", "lib/libcxxabi", "lib/libunwind"];
    for part in parts.into_iter().map(str::to_owned).chain(systems) {
        if wheel.join(&part).exists() {
            copy(&wheel.join(&part), &packages.join(&part));
        }
    }
    let zig = packages.join("zig");
    let farm = Farm::start(1, 1);
    let mut project = Client::new(&farm, "a.cc");
    project.write(SOURCE);
    project.mode = Some("c++");
    let compiler = zig.to_str().unwrap();
    project.check(compiler, "-target x86_64-linux-gnu.2.17 -O1 -Wall");
    project.check(compiler, "-target x86_64-linux-gnu.2.17 -O2 -MMD");
    project.check(compiler, "-target aarch64-linux-gnu.2.28 -g -O2 -Wall");
    assert_eq!(project.counts(), [3, 3, 0], "compiles, remote runs, fallbacks");
    check(&project, &format!("{compiler} c++"));
    project.check(compiler, "-target aarch64-linux-gnu.2.28 -g -Wall");
    assert_eq!(project.counts(), [4, 3, 0], "checks that name files are compiled where these are");
    project.check(compiler, "-target aarch64-linux-gnu.2.28 -fno-sanitize=undefined -Wall");
    assert_eq!(project.counts(), [5, 4, 0], "unless they are left out");
    project.check(compiler, "-O1 -Wall");
    assert_eq!(project.counts(), [5, 4, 0], "what is for this very machine is passed through");
}

/// Has the compiler compile in an empty root and on the worker.
fn check(project: &Client, compiler: &str) {
    let mut checking = project.command(binary("castwork"));
    let caches = tempfile::tempdir().unwrap();
    checking.envs(ZIG_CACHES.map(|name| (name, caches.path())));
    checking.args(["toolchain", "check", compiler]);
    let done = finish(checking, COMPILE_MAX);
    done.must_succeed(compiler);
    progress(&done.stdout);
    assert!(done.stdout.contains("an empty root here: the object is the same"), "{}", done.stdout);
    assert!(done.stdout.contains("a compile "), "{}", done.stdout);
}

/// Where a Python environment has a package.
fn in_python(environment: &Path, package: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(environment.join("lib")).ok()?;
    let places = versions.map(|version| version.unwrap().path().join("site-packages").join(package));
    places.into_iter().find(|place| place.is_dir())
}
