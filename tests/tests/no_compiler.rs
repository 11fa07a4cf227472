//! A worker whose machine has no compiler, and not even a shell, compiles with the client's.
//!
//! The worker runs in a root of its own that holds its program, the libraries of that, and nothing else. Objects have
//! to be those of the client's compiler, byte for byte.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Farm, Options, Program, binary, finish, have, skip};
use tempfile::TempDir;

/// Far above what one compile takes.
const COMPILE_MAX: Duration = Duration::from_secs(5 * 60);

/// Makes `$1` a root with the files in list `$2` and the folder `$3`, and runs the rest of the words in it.
///
/// Not by `chroot`: in such a one there are no user namespaces.
const ROOT: &str = r#"
set -e
root=$1 list=$2 work=$3
shift 3
mount --make-rprivate /
mount -t tmpfs none "$root"
mkdir -p "$root/dev" "$root/proc" "$root/old" "$root$work"
mount --rbind /proc "$root/proc"
for name in null zero full random urandom; do : >"$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mount --bind "$work" "$root$work"
while read -r file place; do mkdir -p "$root$(dirname "$place")"; cp -L "$file" "$root$place"; done <"$list"
cd "$root"
pivot_root . old
exec /busybox sh -c '/busybox umount -l /old && /busybox rmdir /old && exec "$@"' sh "$@"
"#;

/// Where the worker has something of the machine's.
const SOURCE: &str = "\
#include <map>
#include <regex>
#include <iostream>
int count(const char *text) {
    std::map<std::string, int> words;
    const std::regex word(\"[a-z]+\");
    for (std::cregex_iterator at(text, text + 5, word), end; at != end; ++at) ++words[at->str()];
    std::cout << __FILE__ << words.size();
    int unused;
    return (int)words.size();
}
";

#[test]
fn a_worker_without_a_compiler_compiles_with_the_clients() {
    let test = "a worker without a compiler";
    if !have(test, "g++") || !have(test, "unshare") || !have(test, "busybox") {
        return;
    }
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let Some(_worker) = worker_in_an_empty_root(&farm) else { return };
    for compiler in ["g++", "gcc", "clang++", "clang", "aarch64-linux-gnu-g++", "x86_64-w64-mingw32-g++"] {
        if !have(&format!("{test}: {compiler}"), compiler) {
            continue;
        }
        let is_c = !compiler.contains("++");
        let project = Client::new(&farm, if is_c { "a.c" } else { "a.cc" });
        let text = if is_c {
            "#include <stdio.h>\nint f(void) { int unused; return printf(__FILE__); }\n"
        } else {
            SOURCE
        };
        project.write(text);
        for flags in ["-O2 -Wall", "-g -O0 -fPIC"] {
            project.check(compiler, flags);
        }
        assert_eq!(project.counts(), [2, 2, 0], "compiles, remote runs, fallbacks of {compiler}");
    }
}

#[test]
fn a_compiler_travels_by_whatever_name_and_from_whatever_place() {
    let test = "a compiler by another name";
    if !have(test, "g++") || !have(test, "ccache") || !have(test, "clang++") {
        return;
    }
    let farm = Farm::start(1, 2);
    let toolset = Toolset::new();
    let links = toolset.links();
    let clang = toolset.clang();
    // As Debian's ccache does it: a folder of links in front of `PATH`.
    let behind_ccache = toolset.folder().join("ccache");
    fs::create_dir(&behind_ccache).unwrap();
    symlink(program("ccache"), behind_ccache.join("g++")).unwrap();
    let ways = [
        ("alternatives", None, PathBuf::from("c++")),
        ("a farm of links", None, links.join("tool-g++")),
        ("ccache's links", Some(behind_ccache), PathBuf::from("g++")),
        ("a toolset's own path", None, toolset.usr.join("bin/g++")),
        ("a toolset on PATH", Some(toolset.usr.join("bin")), PathBuf::from("g++")),
        ("a clang that was moved", None, clang),
    ];
    for (way, first, compiler) in ways {
        let mut project = Client::new(&farm, "a.cc");
        project.first_on_path = first;
        project.write(SOURCE);
        project.check(compiler.to_str().unwrap(), "-O1 -g -Wall");
        assert_eq!(project.counts(), [1, 1, 0], "compiles, remote runs, fallbacks by {way}");
    }
}

#[test]
fn a_packed_compiler_links_and_optimises_at_link_time() {
    let test = "a compiler that is packed";
    if !have(test, "gcc") || !have(test, "chroot") {
        return;
    }
    let farm = Farm::start(1, 1);
    let project = Client::new(&farm, "a.c");
    project.write("int main(void) { return 0; }\n");
    let root = farm.folder().join("packed");
    let mut pack = project.command(binary("castwork"));
    pack.args(["toolchain", "pack", "gcc", "--link", "--into"]).arg(&root);
    finish(pack, COMPILE_MAX).must_succeed("pack");
    fs::write(root.join("a.c"), "int main(void) { return 0; }\n").unwrap();
    let driver = fs::canonicalize(program("gcc")).unwrap();
    let inside = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(&root).args(words).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command
    };
    let tried = inside(&[driver.to_str().unwrap(), "--version"]).output();
    if !tried.is_ok_and(|done| done.status.success()) {
        return skip(test, "there is no way into another root");
    }
    let words = [driver.to_str().unwrap(), "-O2", "-flto", "a.c", "-o", "a"];
    finish(inside(&words), COMPILE_MAX).must_succeed("link with link-time optimisation");
    finish(inside(&["/a"]), COMPILE_MAX).must_succeed("what was linked");
}

#[test]
fn two_compilers_of_one_path_never_share_a_result() {
    let test = "two compilers of one path";
    if !have(test, "gcc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let toolset = Toolset::new();
    let driver = toolset.usr.join("bin/gcc");
    let compiler = driver.to_str().unwrap();
    let first = Client::new(&farm, "a.c");
    first.write("int f(void) { return 1; }\n");
    first.check(compiler, "-O1");
    assert_eq!(first.counts(), [1, 1, 0]);
    // Another client with the same compiler has it from the cache…
    let second = Client::new(&farm, "a.c");
    second.write("int f(void) { return 1; }\n");
    second.check(compiler, "-O1");
    assert_eq!(second.counts(), [1, 0, 0]);
    // … and one with a compiler that says the same of itself, at the same path, has not.
    let version = |what: &str| finish_line(Command::new(compiler).arg(what));
    let before = version("--version");
    let cc1 = toolset.place(&part("gcc", "cc1"));
    let mut other = fs::read(&cc1).unwrap();
    other.push(0);
    fs::remove_file(&cc1).unwrap();
    fs::write(&cc1, other).unwrap();
    fs::set_permissions(&cc1, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(version("--version"), before);
    let third = Client::new(&farm, "a.c");
    third.write("int f(void) { return 1; }\n");
    third.check(compiler, "-O1");
    assert_eq!(third.counts(), [1, 1, 0]);
}

fn finish_line(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Starts a worker of the farm in a root that holds nothing but what it is made of.
fn worker_in_an_empty_root(farm: &Farm) -> Option<Program> {
    let folder = farm.folder();
    let (root, data, list) = (folder.join("root"), folder.join("bare"), folder.join("files"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&data).unwrap();
    let worker = binary("castwork-worker");
    let listed = finish_line(Command::new("ldd").arg(&worker));
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let mut files: Vec<String> = libraries.map(|path| format!("{path} {path}\n")).collect();
    files.push(format!("{} /castwork-worker\n", worker.display()));
    let busybox = finish_line(Command::new("sh").args(["-c", "command -v busybox"]));
    files.push(format!("{} /busybox\n", busybox.trim()));
    fs::write(&list, files.concat()).unwrap();
    let is_root = finish_line(Command::new("id").arg("-u")).trim() == "0";
    let unshared = if is_root { "-m" } else { "-Urm" };
    let tried = Command::new("unshare").args([unshared, "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        skip("a worker without a compiler", "there are no mount namespaces");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args([unshared, "sh", "-c", ROOT, "sh"]).arg(&root).arg(&list).arg(folder);
    command.args(["/castwork-worker", "--slots", "2", "--scheduler"]).arg(farm.address());
    command.arg("--data-dir").arg(&data);
    let mut worker = Program::start(command, folder, "bare-worker");
    worker.ready();
    Some(worker)
}

/// A client of the farm with one source and a cache of its own.
struct Client {
    folder: TempDir,
    remote: String,
    source: &'static str,
    first_on_path: Option<PathBuf>,
}

impl Client {
    fn new(farm: &Farm, source: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), remote: farm.address(), source, first_on_path: None }
    }

    /// Long enough before the compile that it is not taken for a file that changes.
    fn write(&self, text: &str) {
        let path = self.folder.path().join(self.source);
        fs::write(&path, text).unwrap();
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_clear();
        let path = std::env::var_os("PATH").unwrap();
        let path = self.first_on_path.iter().cloned().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap()).env("LC_ALL", "C.UTF-8");
        command.env("CCACHE_DISABLE", "1");
        command.env("CASTWORK_REMOTE", &self.remote).env("CASTWORK_DIR", self.folder.path().join("cache"));
        command.env("CASTWORK_CONFIG", "/dev/null").env("CASTWORK_PROJECT_ROOT", self.folder.path());
        command
    }

    /// Compiles through the wrapper and without: object and messages have to be the same.
    fn check(&self, compiler: &str, flags: &str) {
        let compile = |mut command: Command, object: &str| {
            command.args(flags.split(' ')).args(["-c", self.source, "-o", object]);
            let done = finish(command, COMPILE_MAX);
            done.must_succeed(&format!("{compiler} {flags}"));
            (fs::read(self.folder.path().join(object)).unwrap(), done.stderr)
        };
        let (plain, said) = compile(self.command(compiler), "plain.o");
        let mut wrapped = self.command(binary("castwork"));
        wrapped.arg(compiler);
        let (ours, ours_said) = compile(wrapped, "ours.o");
        // On a machine that is slow, an upload says how far it is.
        let is_ours = |line: &&str| !line.starts_with("castwork: uploaded ");
        let ours_said: String = ours_said.split_inclusive('\n').filter(is_ours).collect();
        assert_eq!(ours_said, said, "{compiler} {flags}");
        assert!(ours == plain, "{compiler} {flags}: another object");
    }

    /// Compiles, runs on workers, and compiles here because something failed.
    fn counts(&self) -> [u64; 3] {
        let mut stats = self.command(binary("castwork"));
        stats.args(["stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_str(&finish(stats, COMPILE_MAX).stdout).unwrap();
        ["compiles", "remote_runs", "fallbacks"]
            .map(|key| stats[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {stats}")))
    }
}

/// Where a program is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap()
}

/// A part of a compiler, where the compiler says it is.
fn part(compiler: &str, name: &str) -> PathBuf {
    let said = finish_line(Command::new(compiler).arg(format!("-print-prog-name={name}")));
    let path = Path::new(said.trim());
    fs::canonicalize(if path.is_absolute() { path.to_owned() } else { program(name) }).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-RL").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "copy {}", from.display());
}

/// A copy of the machine's gcc in a place of its own, as `gcc-toolset-*` packages have it.
struct Toolset {
    usr: PathBuf,
    folder: TempDir,
}

impl Toolset {
    fn new() -> Self {
        // Not in `/tmp`, which every action has for itself.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let toolset = Self { usr: folder.path().join("opt/rh/gcc-toolset-12/root/usr"), folder };
        for driver in ["gcc", "g++"] {
            copy(&fs::canonicalize(program(driver)).unwrap(), &toolset.usr.join("bin").join(driver));
        }
        copy(&part("gcc", "as"), &toolset.usr.join("bin/as"));
        let own = part("gcc", "cc1");
        for name in ["cc1", "cc1plus", "include", "crtbegin.o"] {
            let from = own.with_file_name(name);
            copy(&from, &toolset.place(&from));
        }
        for folder in ["/usr/include/c++", "/usr/include/x86_64-linux-gnu/c++"] {
            if Path::new(folder).is_dir() {
                copy(Path::new(folder), &toolset.place(Path::new(folder)));
            }
        }
        toolset
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a file of `/usr` has its copy.
    fn place(&self, path: &Path) -> PathBuf {
        self.usr.join(path.strip_prefix("/usr").unwrap())
    }

    /// A folder of links, one of which leads to the toolset by two others.
    fn links(&self) -> PathBuf {
        let folder = self.folder().join("links");
        fs::create_dir_all(folder.join("deep")).unwrap();
        symlink("deep/g++", folder.join("tool-g++")).unwrap();
        symlink("../../links/real", folder.join("deep/g++")).unwrap();
        symlink(self.usr.join("bin/g++"), folder.join("real")).unwrap();
        folder
    }

    /// The machine's clang with its own headers, in a folder as wheels have them.
    fn clang(&self) -> PathBuf {
        let packages = self.folder().join("venv/lib/python3/site-packages/clang");
        let real = fs::canonicalize(program("clang++")).unwrap();
        let own = finish_line(Command::new(&real).arg("-print-resource-dir"));
        let own = Path::new(own.trim());
        let moved = packages.join("bin/clang++");
        copy(&real, &moved);
        copy(
            &own.join("include"),
            &packages.join("lib/clang").join(own.file_name().unwrap()).join("include"),
        );
        moved
    }
}
