//! Cargo builds through the wrapper: what was built before is built of hits, here and elsewhere, and its tests pass.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::rust::snapshot;
use support::{Project, castwork, shown, skip, text};

const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", "[workspace]\nmembers = [\"core\", \"app\"]\nresolver = \"2\"\n"),
    (
        "core/Cargo.toml",
        "[package]\nname = \"core-part\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
            [dependencies]\nserde = { version = \"1\", features = [\"derive\"] }\nitoa = \"1\"\n",
    ),
    (
        "core/build.rs",
        "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
            std::fs::write(format!(\"{out}/n.rs\"), \"pub const N: i32 = 7;\").unwrap();\n    \
            println!(\"cargo:rerun-if-changed=build.rs\");\n}\n",
    ),
    (
        "core/src/lib.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\"));\n#[derive(serde::Serialize)]\npub struct S { pub n: i32 }\n\
            pub fn text() -> String { let unused = 1; itoa::Buffer::new().format(N).to_owned() }\n\
            #[test]\nfn it_is_seven() { assert_eq!(text(), \"7\"); }\n",
    ),
    (
        "app/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncore-part = { path = \"../core\" }\n",
    ),
    ("app/src/main.rs", "fn main() { println!(\"{}\", core_part::text()); }\n"),
    (
        "app/tests/it.rs",
        "#[test]\nfn it_says_seven() {\n    let ran = std::process::Command::new(env!(\"CARGO_BIN_EXE_app\")).output().unwrap();\n    assert_eq!(ran.stdout, b\"7\\n\");\n}\n",
    ),
];

/// A workspace with crates that this project uses as well: they are here already, and nobody has to be asked for them.
fn workspace() -> Option<Project> {
    let mut project = Project::with(&FILES);
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.lock");
    project.write("Cargo.lock", &std::fs::read_to_string(lock).unwrap());
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Ok(value) = std::env::var(name) {
            project.set(name, &value);
        }
    }
    if std::env::var_os("CARGO_HOME").is_none() {
        project.set("CARGO_HOME", &format!("{}/.cargo", std::env::var("HOME").unwrap()));
    }
    project.set("CARGO_NET_OFFLINE", "true");
    project.set("CARGO_INCREMENTAL", "0");
    let fetched = project.command(cargo()).args(["fetch"]).output().unwrap();
    if !fetched.status.success() {
        skip("cargo", &format!("crates are not at hand: {}", text(&fetched.stderr)));
        return None;
    }
    Some(project)
}

fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), Into::into)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// Builds anew with the wrapper, and returns compiles, hits, local runs and calls that were passed through.
fn build(project: &Project) -> [u64; 4] {
    let _ = std::fs::remove_dir_all(project.root.join("target"));
    run(project.command(cargo()).arg("build").env("RUSTC_WRAPPER", castwork()));
    let ran = project.plain(&shown(&project.root.join("target/debug/app")));
    assert_eq!(text(&ran.stdout), "7\n");
    project.counters().local()
}

#[test]
fn a_second_build_is_all_hits_and_what_it_leaves_is_what_cargo_leaves_without_us() {
    let Some(project) = workspace() else { return };
    let parts = ["deps", "."].map(|part| project.root.join("target/debug").join(part));
    let plain = run(project.command(cargo()).arg("build"));
    let expected = parts.each_ref().map(|part| snapshot(part));
    let [compiles, hits, runs, _] = build(&project);
    assert!(compiles > 8 && hits == 0 && runs == compiles, "{compiles} {hits} {runs}");
    let _ = std::fs::remove_dir_all(project.root.join("target"));
    let cached = run(project.command(cargo()).arg("build").env("RUSTC_WRAPPER", castwork()));
    // A crate of the registry tries out what rustc can do, and that fails each time.
    let [compiles, hits, ..] = project.counters().local();
    assert!(hits + 1 >= compiles, "{compiles} compiles, {hits} hits");
    for (part, expected) in parts.iter().zip(expected) {
        let made = snapshot(part);
        assert_eq!(made.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, file) in &made {
            assert!(file == &expected[name], "another {name}");
        }
    }
    let warning = "unused variable: `unused`";
    assert!(text(&plain.stderr).contains(warning) && text(&cached.stderr).contains(warning));
    // Cargo finds all of it as it should be.
    let again = run(project.command(cargo()).args(["build", "-v"]).env("RUSTC_WRAPPER", castwork()));
    assert!(!text(&again.stderr).contains("Running"), "{}", text(&again.stderr));
    for _ in 0..2 {
        run(project.command(cargo()).arg("test").env("RUSTC_WRAPPER", castwork()));
    }
}

#[test]
fn another_folder_is_all_hits_with_fixed_names_and_else_those_that_show_no_folder() {
    let Some(mut project) = workspace() else { return };
    for (remap, misses_max) in [("yes", 1), ("no", 7)] {
        project.set("CASTWORK_REMAP", remap);
        build(&project);
        let _ = std::fs::remove_dir_all(project.root.join("target"));
        let mut other = project.copy(&format!("elsewhere-{remap}"));
        other.variables.clone_from(&project.variables);
        let [compiles, hits, ..] = build(&other);
        assert!(
            compiles > 8 && hits + misses_max >= compiles,
            "remap {remap}: {compiles} compiles, {hits} hits"
        );
        run(other.command(cargo()).arg("test").env("RUSTC_WRAPPER", castwork()));
        other.counters();
    }
}

#[test]
fn exec_and_env_put_the_wrapper_before_cargos_rustc() {
    let Some(mut project) = workspace() else { return };
    let us = castwork();
    let said = text(&project.cached("env --cargo").stdout);
    assert_eq!(said, format!("RUSTC_WRAPPER={us}\nCARGO_INCREMENTAL=0\n"));
    project.variables.retain(|(name, _)| name != "CARGO_INCREMENTAL");
    let cargo = shown(&cargo());
    for at_least in [0, 8] {
        let _ = std::fs::remove_dir_all(project.root.join("target"));
        let built = project.cached(&format!("exec -- {cargo} build"));
        assert!(built.status.success(), "{}", text(&built.stderr));
        assert!(project.counters().number("local_hits") >= at_least);
    }
    let _ = std::fs::remove_dir_all(project.root.join("target"));
    run(project.command(&cargo).arg("build").env("RUSTC_WRAPPER", us));
    assert_eq!(
        project.counters().reason("incremental compilation"),
        3,
        "of the crates of the workspace, and of its build script"
    );
}
