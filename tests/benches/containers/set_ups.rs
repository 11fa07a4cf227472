//! The set-ups of `docs/wheels.md` for those who have no server, as they stand there: what CI keeps between jobs is a folder.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use castwork_tests::{binary, environment, finish, progress};
use serde_json::Value;

use super::{SOURCES, TRIALS_MAX, WHEEL_MAX, copy, image, pack, stats, without_its_own_settings};

/// The folder that CI's cache is told to keep.
const KEPT: &str = ".castwork";

/// Stands for `pipx run PROGRAM`, which would fetch what is here already.
const PIPX: &str = "#!/bin/sh\nshift\nexec \"$@\"\n";

#[test]
fn the_set_ups_of_the_docs_find_all_in_the_folder_that_ci_keeps() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wheels.md");
    let set_ups = set_ups(&fs::read_to_string(docs).unwrap());
    let names: Vec<&str> = set_ups.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names[0].starts_with("GitHub Actions"), "{names:?}");
    assert_eq!(names[1..], ["GitLab", "Azure Pipelines"]);
    for (name, script) in &set_ups {
        let folder = tempfile::tempdir().unwrap();
        // Each job checks the project out elsewhere.
        let (first, second) =
            (folder.path().join("first/project"), folder.path().join("another/second/project"));
        let cold = job(&first, script);
        progress(&format!("{name}, first job: {cold}"));
        assert!(cold["local_runs"].as_u64().unwrap() >= SOURCES, "{name}: {cold}");
        copy(&first.join(KEPT), &second.join(KEPT));
        let warm = job(&second, script);
        progress(&format!("{name}, second job: {warm}"));
        let [hits, compiles] = ["remote_hits", "compiles"].map(|what| warm[what].as_u64().unwrap());
        assert!(hits >= SOURCES && hits + TRIALS_MAX >= compiles, "{name}: {warm}");
    }
}

/// A job of CI: a checkout in a folder where what was kept may be already. Returns what was counted in the container.
fn job(project: &Path, script: &str) -> Value {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/cibuildwheel/project");
    fs::create_dir_all(project).unwrap();
    copy(&from.join("."), project);
    without_its_own_settings(&project.join("pyproject.toml"));
    pack(&project.join("wheels"));
    let programs = project.with_file_name("programs");
    fs::create_dir_all(&programs).unwrap();
    symlink(binary("castwork"), programs.join("castwork")).unwrap();
    symlink(environment("cibuildwheel").unwrap().join("bin/cibuildwheel"), programs.join("cibuildwheel"))
        .unwrap();
    fs::write(programs.join("pipx"), PIPX).unwrap();
    fs::set_permissions(programs.join("pipx"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(project).env("PATH", path).env_remove("CASTWORK_REMOTE");
    command.envs([
        ("CIBW_PLATFORM", "linux"),
        ("CIBW_BUILD", "cp311-manylinux_x86_64"),
        ("CIBW_MANYLINUX_X86_64_IMAGE", &image()),
        ("CIBW_CONTAINER_ENGINE", "podman; create_args: --network=host"),
        ("CIBW_REPAIR_WHEEL_COMMAND_LINUX", "cp {wheel} {dest_dir}"),
        ("CIBW_TEST_COMMAND_LINUX", "echo \"stats $(castwork stats --json | tr -d '\\n')\""),
    ]);
    let done = finish(command, WHEEL_MAX);
    done.must_succeed(&format!("run\n{script}"));
    stats(&done.stdout)
}

/// The scripts in the blocks of YAML, each with what the block's first line says it is for.
fn set_ups(docs: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in docs.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        assert!(
            block.contains(&format!("path: {KEPT}")) || block.contains(&format!("paths: [{KEPT}]")),
            "{block}"
        );
        let mut lines = block.lines();
        let name = lines.next().unwrap().trim_start_matches("# ").to_owned();
        let head = lines
            .find(|line| ["run: |", "bash: |", "script:"].iter().any(|end| line.ends_with(end)))
            .unwrap();
        let depth = |line: &str| line.len() - line.trim_start().len();
        let script = lines.take_while(|line| depth(line) > depth(head)).map(|line| {
            let line = line.trim();
            line.strip_prefix("- ").unwrap_or(line)
        });
        found.push((name, script.collect::<Vec<_>>().join("\n")));
    }
    found
}
