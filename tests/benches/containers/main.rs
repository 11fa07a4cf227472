//! Clients in containers build on a worker outside of them, with the compilers of the containers.
//!
//! `tests/containers` sets up what these tests need, and runs them. They lie here so that they are built with all tests,
//! and run only by their name: they take minutes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod set_ups;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use castwork_tests::{Farm, Options, binary, environment, finish, progress};
use serde_json::Value;

/// Far above what a wheel takes.
const WHEEL_MAX: Duration = Duration::from_secs(30 * 60);
/// Sources of the project.
const SOURCES: u64 = 4;
/// Those of them that never see Python, whose headers are in another folder each time.
const SOURCES_WITHOUT_PYTHON: u64 = 3;
/// Why what pybind11 tries out is compiled in the container. No source of the project is compiled like that.
const TRIAL: &str = "run here: link-time optimisation";
/// The compiler of the container, which is not the machine's.
const COMPILER: &str = "g++-11";

/// Makes a compiler of version `$1` the one of a toolset's path, compiles with it, and compares with what it gives here.
const TOOLSET: &str = r#"
usr=/opt/rh/gcc-toolset/root/usr
mkdir -p $usr/bin $usr/lib/gcc/x86_64-linux-gnu $usr/include/c++ $usr/include/x86_64-linux-gnu/c++
cp -L /usr/bin/x86_64-linux-gnu-g++-$1 $usr/bin/g++
cp -L /usr/bin/x86_64-linux-gnu-as $usr/bin/as
for folder in lib/gcc/x86_64-linux-gnu include/c++ include/x86_64-linux-gnu/c++; do
  cp -RL /usr/$folder/$1 $usr/$folder/
done
mkdir /source
cd /source
printf '#include <string>\n#include <vector>\nstd::vector<std::string> f() { return {__VERSION__}; }\n' >a.cc
touch -d '1 minute ago' a.cc
export CASTWORK_PROJECT_ROOT=/source
$usr/bin/g++ -O2 -c a.cc -o plain.o
castwork $usr/bin/g++ -O2 -c a.cc -o ours.o
cmp plain.o ours.o
echo "compiler $(strings -a ours.o 2>/dev/null | grep -m 1 '^GCC:' || true)"
echo "stats $(castwork stats --json | tr -d '\n')"
"#;

#[test]
fn a_wheel_is_compiled_outside_of_its_container_with_the_containers_compiler() {
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let Some(_worker) = farm.bare_worker("a wheel in a container") else { return };
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/cibuildwheel/project");
    let plain = Wheel::build(&farm, &project, "plain", "CASTWORK_DISABLE=1", "true");
    // What the container's compiler makes here and there is compared bit by bit, in the container.
    let check = format!("castwork toolchain check {COMPILER}");
    let cold = Wheel::build(&farm, &project, "cold", "", &check);
    let warm = Wheel::build(&farm, &project, "warm", "", "true");
    for wheel in [&plain, &cold, &warm] {
        progress(&format!("{}: {:.1} s, {}", wheel.name, wheel.seconds, wheel.stats));
        assert!(wheel.compiler.starts_with("11."), "{}: compiled by {}", wheel.name, wheel.compiler);
        assert!(wheel.extension == plain.extension, "{}: another extension", wheel.name);
    }
    assert_eq!(plain.of("compiles"), 0);
    assert_eq!(cold.of("remote_runs"), SOURCES, "{}", cold.stats);
    assert!(warm.of("remote_hits") >= SOURCES_WITHOUT_PYTHON, "{}", warm.stats);
    for wheel in [&cold, &warm] {
        let trials = wheel.stats["reasons"][TRIAL].as_u64().unwrap_or_default();
        let elsewhere = wheel.of("remote_runs") + wheel.of("remote_hits");
        assert_eq!([elsewhere, elsewhere + trials], [SOURCES, wheel.of("compiles")], "{}", wheel.stats);
        assert_eq!(wheel.of("fallbacks"), 0, "{}", wheel.stats);
    }
}

#[test]
fn containers_with_two_compilers_at_one_path_share_nothing() {
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let Some(_worker) = farm.bare_worker("two compilers in containers") else { return };
    // A container of each, and then another of the first.
    for (version, expected) in [("11", [1, 1, 0]), ("12", [1, 1, 0]), ("11", [1, 0, 1])] {
        let mut command = podman(&farm);
        command.args([&image(), "sh", "-euc", TOOLSET, "sh", version]);
        let done = finish(command, WHEEL_MAX);
        done.must_succeed(&format!("compile with version {version}"));
        let stats = stats(&done.stdout);
        let counts = ["compiles", "remote_runs", "remote_hits"].map(|name| stats[name].as_u64().unwrap());
        progress(&format!("version {version}: compiles, runs, hits {counts:?}"));
        assert_eq!(counts, expected, "version {version}: {stats}");
    }
}

/// Projects that are built as `castwork env --cibuildwheel` says: ours, with scikit-build-core and pybind11; and packages
/// as their authors publish them, with setuptools, and with `CMake` and link-time optimisation for every source.
/// With how many sources each has.
const AS_PRINTED: [(&str, u64); 3] = [("project", SOURCES), ("kiwisolver-1.5.1", 7), ("iminuit-2.33.0", 68)];

/// Compiles by which `CMake` tries whether link-time optimisation works: with debug information, they stay in their folder.
const TRIALS_MAX: u64 = 2;

#[test]
fn what_is_printed_for_cibuildwheel_is_enough_for_real_packages_in_fresh_containers() {
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/cibuildwheel");
    let downloaded = environment("cibuildwheel").expect("tests/containers installs it").join("sdists");
    for (name, sources) in AS_PRINTED {
        let from = if name == "project" { clients.join(name) } else { downloaded.join(name) };
        let project = farm.folder().join("projects").join(name);
        copy(&from, &project);
        without_its_own_settings(&project.join("pyproject.toml"));
        pack(&project.join("wheels"));
        let plain = as_printed(&farm, &project, "plain");
        let cold = as_printed(&farm, &project, "cold");
        let warm = as_printed(&farm, &project, "warm");
        for (run, (seconds, stats, _)) in [("plain", &plain), ("cold", &cold), ("warm", &warm)] {
            progress(&format!("{name}, {run}: {seconds:.1} s, {stats}"));
        }
        let of = |stats: &Value, what: &str| stats[what].as_u64().unwrap();
        assert_eq!(of(&plain.1, "compiles"), 0, "{name}");
        assert!(of(&cold.1, "local_runs") >= sources, "{name}: {}", cold.1);
        // Each container has a cache of its own, so all that is found comes from the server.
        let (hits, compiles) = (of(&warm.1, "remote_hits"), of(&warm.1, "compiles"));
        assert!(hits >= sources && hits + TRIALS_MAX >= compiles, "{name}: {}", warm.1);
        assert!(plain.2 == cold.2 && plain.2 == warm.2, "{name}: other extensions");
    }
}

/// Builds a wheel in a fresh container, set up by nothing but what `castwork env --cibuildwheel` prints. Returns the seconds of
/// its own build, what was counted, and its extensions.
fn as_printed(farm: &Farm, project: &Path, run: &str) -> (f64, Value, Vec<(String, Vec<u8>)>) {
    let name = project.file_name().unwrap().to_string_lossy().into_owned();
    let out = farm.folder().join(format!("out-{name}-{run}"));
    let mut command = Command::new("sh");
    command.args(["-euc", AS_IT_SAYS, "sh"]).arg(binary("castwork")).arg(run).arg(&out).current_dir(project);
    command.arg(environment("cibuildwheel").unwrap().join("bin/cibuildwheel"));
    command.envs([("CASTWORK_REMOTE", farm.address()), ("CASTWORK_PROJECT", format!("tests/{name}"))]);
    command.env("CASTWORK_RUN_ID", format!("{name}-{run}"));
    command.envs([
        ("CIBW_BUILD", "cp311-manylinux_x86_64"),
        ("CIBW_MANYLINUX_X86_64_IMAGE", &image()),
        ("CIBW_CONTAINER_ENGINE", "podman; create_args: --network=host"),
        ("CIBW_REPAIR_WHEEL_COMMAND_LINUX", "cp {wheel} {dest_dir}"),
    ]);
    let done = finish(command, WHEEL_MAX);
    done.must_succeed(&format!("{name}, {run}: cibuildwheel"));
    let took = done.stdout.lines().find_map(|line| line.split_once("manylinux_x86_64 finished in "));
    let seconds = took.unwrap_or_else(|| panic!("cibuildwheel says no time:\n{}", done.stdout)).1;
    let seconds = seconds.trim_end_matches('s').parse().unwrap();
    (seconds, stats(&done.stdout), without_debug_information(&out))
}

/// The extensions in a wheel, without what names the folders that each build has of its own: debug information, and the digest
/// that the linker makes of all.
fn without_debug_information(out: &Path) -> Vec<(String, Vec<u8>)> {
    let strip = |(name, bytes): (String, Vec<u8>)| {
        let file = out.join("stripped");
        fs::write(&file, bytes).unwrap();
        let mut command = Command::new("strip");
        command.args(["-g", "--remove-section=.note.gnu.build-id"]).arg(&file);
        finish(command, WHEEL_MAX).must_succeed("strip an extension");
        (name, fs::read(&file).unwrap())
    };
    extensions(out).into_iter().map(strip).collect()
}

/// The gate is part of it: a first run passes, and a later one that finds nothing would not.
const AS_IT_SAYS: &str = r#"
eval "$("$1" env --cibuildwheel)"
gate="castwork report --require-hit-rate 1 --grace-first-run"
if [ "$2" = plain ]; then export CIBW_ENVIRONMENT_LINUX="$CIBW_ENVIRONMENT_LINUX CASTWORK_DISABLE=1" gate=true; fi
export CIBW_TEST_COMMAND_LINUX="echo \"stats \$(castwork stats --json | tr -d '\n')\" && $gate"
exec "$4" --platform linux --output-dir "$3" .
"#;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let mut command = Command::new("cp");
    command.arg("-r").arg(from).arg(to);
    finish(command, WHEEL_MAX).must_succeed("copy a project");
}

/// Leaves out what a project says of its own CI: `[tool.cibuildwheel…]`.
fn without_its_own_settings(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let mut is_own = false;
    let kept = text.lines().filter(|line| {
        let table = line.trim_start_matches('[');
        if table.len() < line.len() {
            is_own = table.starts_with("tool.cibuildwheel");
        }
        !is_own
    });
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    fs::write(file, kept).unwrap();
}

/// Makes a wheel of the client, for containers to install as they would the published one.
fn pack(folder: &Path) {
    let layout = tempfile::tempdir().unwrap();
    let (scripts, about) = ("castwork-0.1.0.data/scripts", "castwork-0.1.0.dist-info");
    for part in [scripts, about] {
        fs::create_dir_all(layout.path().join(part)).unwrap();
    }
    fs::create_dir_all(folder).unwrap();
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(layout.path().join(scripts).join("castwork")).arg(client());
    finish(strip, WHEEL_MAX).must_succeed("strip the client");
    let tag = "py3-none-manylinux_2_17_x86_64";
    for (name, text) in [
        ("METADATA", "Metadata-Version: 2.1\nName: castwork\nVersion: 0.1.0\n".to_owned()),
        ("WHEEL", format!("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n")),
        ("RECORD", format!("{scripts}/castwork,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")),
    ] {
        fs::write(layout.path().join(about).join(name), text).unwrap();
    }
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-c"]).arg(folder.join(format!("castwork-0.1.0-{tag}.whl")));
    zip.args(["castwork-0.1.0.data", about]).current_dir(layout.path());
    finish(zip, WHEEL_MAX).must_succeed("make a wheel of the client");
}

/// A wheel that was built.
struct Wheel {
    name: &'static str,
    seconds: f64,
    stats: Value,
    /// What the extension says of the compiler that made it.
    compiler: String,
    extension: Vec<u8>,
}

impl Wheel {
    /// Builds a wheel in a fresh container.
    fn build(farm: &Farm, project: &Path, name: &'static str, settings: &str, before: &str) -> Self {
        let out = farm.folder().join(name);
        let builder = environment("cibuildwheel").expect("tests/containers installs it");
        let mount = format!("--volume={}:/usr/local/bin/castwork:ro", client().display());
        let variables = format!(
            "CC=gcc-11 CXX={COMPILER} CMAKE_CXX_COMPILER_LAUNCHER=castwork CASTWORK_REMOTE={} \
             CASTWORK_PROJECT_ROOT=/project CASTWORK_DIR=/var/tmp/castwork {settings}",
            farm.address()
        );
        let test = "python -c 'import words; print(\"compiler\", words.compiler())' && \
            echo \"stats $(castwork stats --json | tr -d '\\n')\"";
        let mut command = Command::new(builder.join("bin/cibuildwheel"));
        command.args(["--platform", "linux", "--output-dir"]).arg(&out).arg(project).current_dir(project);
        command.envs([
            ("CIBW_BUILD", "cp311-manylinux_x86_64"),
            ("CIBW_MANYLINUX_X86_64_IMAGE", &image()),
            ("CIBW_CONTAINER_ENGINE", &format!("podman; create_args: --network=host {mount}")),
            ("CIBW_ENVIRONMENT_LINUX", &variables),
            ("CIBW_BEFORE_ALL_LINUX", before),
            ("CIBW_REPAIR_WHEEL_COMMAND_LINUX", "cp {wheel} {dest_dir}"),
            ("CIBW_TEST_COMMAND_LINUX", test),
        ]);
        let begin = Instant::now();
        let done = finish(command, WHEEL_MAX);
        let seconds = begin.elapsed().as_secs_f64();
        done.must_succeed(&format!("{name}: cibuildwheel"));
        let compiler = after(&done.stdout, "compiler ").to_owned();
        Self { name, seconds, stats: stats(&done.stdout), compiler, extension: extension(&out) }
    }

    fn of(&self, name: &str) -> u64 {
        self.stats[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {}", self.stats))
    }
}

/// The client that runs in the container. One that needs a newer C library than that has can't be started there.
fn client() -> PathBuf {
    env::var_os("CASTWORK_TESTS_CLIENT").map_or_else(|| binary("castwork"), PathBuf::from)
}

fn image() -> String {
    env::var("CASTWORK_TESTS_IMAGE").expect("tests/containers names it")
}

/// A container that reaches the farm, and goes when what runs in it ends.
fn podman(farm: &Farm) -> Command {
    let mut command = Command::new("podman");
    command
        .args(["run", "--rm", "--network=host", "--env"])
        .arg(format!("CASTWORK_REMOTE={}", farm.address()));
    command.arg(format!("--volume={}:/usr/local/bin/castwork:ro", client().display()));
    command
}

/// The rest of the line that begins so.
fn after<'a>(said: &'a str, begin: &str) -> &'a str {
    let found = said.lines().find_map(|line| line.trim_start().strip_prefix(begin));
    found.unwrap_or_else(|| panic!("no line with `{begin}` in\n{said}"))
}

fn stats(said: &str) -> Value {
    serde_json::from_str(after(said, "stats ")).unwrap()
}

/// The extension module in the one wheel of a folder.
fn extension(folder: &Path) -> Vec<u8> {
    let found = extensions(folder);
    let [(_, one)] = found.as_slice() else { panic!("not one extension in {}", folder.display()) };
    one.clone()
}

/// The extension modules in the one wheel of a folder, each by its name.
fn extensions(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let wheel = only(folder, "whl");
    let unpacked = folder.join("unpacked");
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked);
    finish(unpack, WHEEL_MAX).must_succeed("unpack a wheel");
    let mut find = Command::new("find");
    find.arg(&unpacked).args(["-name", "*.so"]);
    let found = finish(find, WHEEL_MAX);
    let named = found.stdout.lines().map(|path| (path.to_owned(), fs::read(path).unwrap()));
    let mut all: Vec<(String, Vec<u8>)> =
        named.map(|(path, bytes)| (path[unpacked.to_string_lossy().len()..].to_owned(), bytes)).collect();
    all.sort();
    all
}

fn only(folder: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == extension)).collect();
    let [one] = found.as_slice() else { panic!("not one .{extension} in {}: {found:?}", folder.display()) };
    one.clone()
}
