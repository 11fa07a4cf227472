//! A worker whose machine has no compiler, and not even a shell, compiles with the client's.
//!
//! The worker runs in a root of its own that holds its program, the libraries of that, and nothing else. Objects have
//! to be those of the client's compiler, byte for byte.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "no_compiler/client.rs"]
mod client;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_tests::{Farm, Options, binary, finish, have, skip};
use client::{COMPILE_MAX, Client, SOURCE, copy, finish_line};
use tempfile::TempDir;

#[test]
fn a_worker_without_a_compiler_compiles_with_the_clients() {
    let test = "a worker without a compiler";
    if !have(test, "g++") || !have(test, "unshare") || !have(test, "busybox") {
        return;
    }
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let Some(_worker) = farm.bare_worker(test) else { return };
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
        ("a toolset that is enabled", Some(toolset.usr.join("bin")), PathBuf::from("g++")),
        ("a clang that was moved", None, clang),
    ];
    for (way, first, compiler) in ways {
        let mut project = Client::new(&farm, "a.cc");
        project.first_on_path = first;
        // As `scl enable` and the toolset's own `enable` do it.
        project.library_path = way.ends_with("is enabled").then(|| toolset.usr.join("lib64"));
        // The same compiler by another name has the same results.
        project.write(&format!("{SOURCE}// {way}\n"));
        project.check(compiler.to_str().unwrap(), "-O1 -g -Wall");
        assert_eq!(project.counts(), [1, 1, 0], "compiles, remote runs, fallbacks by {way}");
    }
}

#[test]
fn a_compiler_of_cxx_that_has_none_of_c_beside_it_travels() {
    let test = "a g++ without a gcc";
    if !have(test, "g++") {
        return;
    }
    let farm = Farm::start(1, 1);
    let toolset = Toolset::new();
    fs::remove_file(toolset.place(&part("gcc", "cc1"))).unwrap();
    let project = Client::new(&farm, "a.cc");
    project.write(SOURCE);
    // How its messages look is asked in the language that it has.
    project.check(toolset.usr.join("bin/g++").to_str().unwrap(), "-O1 -Wall");
    assert_eq!(project.counts(), [1, 1, 0], "compiles, remote runs, fallbacks");
}

#[test]
fn an_object_that_names_a_workers_folder_is_compiled_here() {
    let test = "an object that names a worker's folder";
    if !have(test, "clang++") || !have(test, "clang") {
        return;
    }
    let farm = Farm::start(1, 2);
    // No prefix map of clang's reaches these two names.
    let lambda =
        "template <class T> const char *f(T) { return __PRETTY_FUNCTION__; }\nconst char *s = f([] {});\n";
    let parallel = "void g(void);\nvoid f(void) {\n#pragma omp parallel\n    g();\n}\n";
    for (compiler, source, flags, text) in
        [("clang++", "a.cc", "-O1", lambda), ("clang", "a.c", "-g -fopenmp", parallel)]
    {
        let project = Client::new(&farm, source).by_its_absolute_name();
        project.write(text);
        project.check(compiler, flags);
        assert_eq!(project.counts(), [1, 0, 0], "{compiler}");
        assert_eq!(project.reason("object that names a worker's folders"), 1, "{compiler}");
        // What was compiled here has taken its place: the bytes are right for this folder.
        project.forget();
        project.check(compiler, flags);
        assert_eq!(project.counts(), [1, 0, 0], "{compiler}");
        assert_eq!(project.reason("object that names a worker's folders"), 0, "{compiler}");
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
        // One of the libraries that the machine has too: which of both it is, `LD_LIBRARY_PATH` says.
        let needed = finish_line(Command::new("ldd").arg(&own));
        let library =
            needed.split_whitespace().find(|word| word.starts_with('/') && word.contains("libmpfr"));
        let library = Path::new(library.unwrap());
        copy(library, &toolset.usr.join("lib64").join(library.file_name().unwrap()));
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
