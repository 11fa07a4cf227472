//! Crates that are compiled on workers which have no rustc: what comes of it has to be what rustc makes here, byte for byte.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use castwork_tests::{Farm, Options, binary, finish, have};
use tempfile::TempDir;

/// Far above what one compile takes, uploading the compiler included.
const COMPILE_MAX: Duration = Duration::from_secs(10 * 60);

/// How cargo asks for a library.
const LIB: &str = "--edition=2021 --error-format=json --json=diagnostic-rendered-ansi,artifacts --crate-type lib \
    --emit=dep-info,metadata,link -C opt-level=1 -C metadata=1f -C extra-filename=-1f";

/// A package below a folder that is none of an action's own.
struct Package {
    folder: TempDir,
    /// Where it lies in that.
    below: &'static str,
    remote: String,
    variables: BTreeMap<&'static str, String>,
    rustc: String,
}

impl Package {
    fn new(farm: &Farm, below: &'static str) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut package =
            Self { folder, below, remote: farm.address(), variables: BTreeMap::new(), rustc: rustc() };
        package.write("Cargo.toml", "[package]\nname = \"a\"\n");
        fs::create_dir_all(package.out()).unwrap();
        fs::write(package.target().join("CACHEDIR.TAG"), "").unwrap();
        package.variables.insert("CARGO_MANIFEST_DIR", package.root().display().to_string());
        package.variables.insert("CARGO_PKG_NAME", "a".to_owned());
        package
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join(self.below)
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn out(&self) -> PathBuf {
        self.target().join("deps")
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        // Not taken for a file that changes.
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(&path).unwrap().set_modified(earlier).unwrap();
        path.display().to_string()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("CASTWORK_REMOTE", &self.remote).env("CASTWORK_DIR", self.folder.path().join("cache"));
        command.env("CASTWORK_RACE_AFTER", "never").env("CASTWORK_CONFIG", "/dev/null");
        command.envs(&self.variables);
        command
    }

    /// Compiles without the wrapper and through it: files, messages and exit code have to be the same. Returns that code.
    fn check(&self, line: &str) -> i32 {
        let compile = |mut command: Command| {
            command.args(line.split_whitespace()).arg("--out-dir").arg(self.out());
            command.arg("-L").arg(format!("dependency={}", self.out().display()));
            let done = finish(command, COMPILE_MAX);
            let name = line.split_whitespace().skip_while(|word| *word != "--crate-name").nth(1).unwrap();
            let made = left(&self.out(), name);
            // On a machine that is slow, an upload says how far it is.
            let is_ours = |line: &&str| !line.starts_with("castwork: uploaded ");
            let said: String = done.stderr.split_inclusive('\n').filter(is_ours).collect();
            (done.status.code().unwrap(), made, done.stdout, said)
        };
        let (code, made, stdout, said) = compile(self.command(&self.rustc));
        let mut wrapped = self.command(binary("castwork"));
        wrapped.arg(&self.rustc);
        let ours = compile(wrapped);
        assert_eq!((ours.0, &ours.2, &ours.3), (code, &stdout, &said), "{line}");
        assert_eq!(ours.1.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>(), "{line}");
        for (name, bytes) in &made {
            assert!(ours.1[name] == *bytes, "{line}: another {name}");
        }
        code
    }

    /// Compiles, runs on workers, and compiles here because something failed.
    fn counts(&self) -> [u64; 3] {
        let stats = self.stats();
        ["compiles", "remote_runs", "fallbacks"].map(|key| stats[key].as_u64().unwrap())
    }

    fn reason(&self, reason: &str) -> u64 {
        self.stats()["reasons"][reason].as_u64().unwrap_or(0)
    }

    fn stats(&self) -> serde_json::Value {
        let mut stats = self.command(binary("castwork"));
        stats.args(["stats", "--json"]);
        serde_json::from_str(&finish(stats, COMPILE_MAX).stdout).unwrap()
    }
}

/// Takes away the files of a crate, and returns what they held.
fn left(out: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in out.read_dir().unwrap().flatten() {
        let file = entry.file_name().into_string().unwrap();
        if file.trim_start_matches("lib").starts_with(&format!("{name}-")) {
            files.insert(file, fs::read(entry.path()).unwrap());
            fs::remove_file(entry.path()).unwrap();
        }
    }
    files
}

/// The compiler itself, behind rustup.
fn rustc() -> String {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    format!("{}/bin/rustc", String::from_utf8(said.stdout).unwrap().trim())
}

#[test]
fn a_worker_without_rustc_compiles_crates_with_the_clients() {
    let test = "a worker without rustc";
    if !have(test, "rustc") || !have(test, "unshare") || !have(test, "busybox") {
        return;
    }
    let farm = Farm::with(Options { workers: 0, ..Options::default() });
    let Some(_worker) = farm.bare_worker(test) else { return };
    let mut package = Package::new(&farm, "own");
    package.write("src/b.rs", "pub fn b<T: std::fmt::Debug>(t: T) -> String { format!(\"{t:?}\") }\n");
    package.write("src/m/mod.rs", "pub const TEXT: &str = include_str!(\"../text.txt\");\n");
    package.write("src/text.txt", "text");
    let out = package.target().join("build/a/out");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("made.rs"), "pub const MADE: &str = env!(\"BY_SCRIPT\");\n").unwrap();
    fs::write(
        out.with_file_name("output"),
        "cargo:rustc-env=BY_SCRIPT=x\ncargo::rerun-if-changed=build.rs\n",
    )
    .unwrap();
    package.variables.insert("OUT_DIR", out.display().to_string());
    package.variables.insert("BY_SCRIPT", "said".to_owned());
    let source = "pub mod m;\ninclude!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n\
        pub fn a() -> String { let unused = 1; assert!(b::b(m::TEXT) != env!(\"CARGO_PKG_NAME\"), \"here\"); b::b(file!()) }\n";
    package.write("src/lib.rs", source);
    let absolute = package.root().join("src/lib.rs");
    assert_eq!(package.check(&format!("--crate-name b {LIB} src/b.rs")), 0);
    assert_eq!(package.counts(), [1, 1, 0], "{}", package.stats());
    let mut named = package.command(rustc());
    named
        .args(format!("--crate-name b {LIB} src/b.rs").split_whitespace())
        .arg("--out-dir")
        .arg(package.out());
    finish(named, COMPILE_MAX).must_succeed("the crate that is named");
    let named = format!("--extern b={}", package.out().join("libb-1f.rmeta").display());
    for (at, line) in [
        format!("--crate-name a {LIB} src/lib.rs {named}"),
        format!("--crate-name a {LIB} {} {named}", absolute.display()),
        format!("--crate-name a {LIB} src/lib.rs {named} -g"),
        format!("--crate-name a {LIB} src/lib.rs {named} -C linker-plugin-lto -C prefer-dynamic"),
        format!(
            "--crate-name a {LIB} src/lib.rs {named} -g --remap-path-prefix={}=/x",
            package.root().display()
        ),
        format!("--crate-name a {} src/lib.rs {named}", LIB.replace(",link", "")),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(package.check(&line), 0);
        let number = at as u64 + 2;
        assert_eq!(package.counts(), [number, number, 0], "{line}: {}", package.stats());
    }
    // A hit now, and nobody is asked.
    assert_eq!(package.check(&format!("--crate-name a {LIB} src/lib.rs {named}")), 0);
    assert_eq!(package.counts(), [8, 7, 0]);
}

#[test]
fn crates_lie_where_they_like() {
    let test = "crates in `/tmp`";
    if !have(test, "rustc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let package = Package::new(&farm, "own");
    package.write("src/b.rs", "#[inline] pub fn b() -> i32 { 7 }\n");
    package.write("src/lib.rs", "pub fn a() -> i32 { let unused = 1; b::b() }\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut made = package.command(rustc());
    made.args(format!("--crate-name b {LIB} src/b.rs").split_whitespace())
        .arg("--out-dir")
        .arg(elsewhere.path());
    finish(made, COMPILE_MAX).must_succeed("the crate that is named");
    let named = elsewhere.path().join("libb-1f.rmeta");
    let words = tempfile::NamedTempFile::new_in(package.root()).unwrap();
    fs::write(words.path(), format!("--extern\nb={}\n", named.display())).unwrap();
    for (at, more) in [format!("--extern b={} -g", named.display()), format!("@{}", words.path().display())]
        .iter()
        .enumerate()
    {
        assert_eq!(package.check(&format!("--crate-name a {LIB} src/lib.rs {more}")), 0);
        let number = at as u64 + 1;
        assert_eq!(package.counts(), [number, number, 0], "{more}: {}", package.stats());
    }
}

#[test]
fn what_a_worker_can_not_see_is_compiled_here() {
    let test = "what a worker of crates can't see";
    if !have(test, "rustc") || !have(test, "cc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let mut package = Package::new(&farm, "own");
    package.variables.insert("MINE", "mine".to_owned());
    fs::write(package.folder.path().join("outside.txt"), "outside").unwrap();
    let line = format!("--crate-name a {LIB} src/lib.rs");
    let mut failed = 0;
    for text in [
        "pub const A: &str = include_str!(\"../../outside.txt\");\n",
        "pub const A: &str = env!(\"MINE\");\n",
        "pub const A: Option<&str> = option_env!(\"MINE\");\n",
    ] {
        package.write("src/lib.rs", text);
        assert_eq!(package.check(&line), 0);
        failed += 1;
        assert_eq!(package.counts(), [failed, 0, failed], "{text}: {}", package.stats());
    }
    assert_eq!(package.reason("variable that is another on a worker"), 1);
    // What can't be compiled anywhere is said as rustc says it here.
    package.write("src/lib.rs", "pub fn f() -> i32 { \"no\" }\n");
    assert_eq!(package.check(&line), 1);
    // Nobody is asked for what can't be run there.
    package.write("src/main.rs", "fn main() {}\n");
    let program = line.replace("lib.rs", "main.rs").replace("type lib", "type bin").replace("metadata,", "");
    assert_eq!(package.check(&program), 0);
    assert_eq!(package.reason("run here: a crate that is linked"), 1);
}

#[test]
fn macros_run_on_workers_for_packages_of_a_registry_alone() {
    let test = "macros on a worker";
    if !have(test, "rustc") || !have(test, "cc") {
        return;
    }
    let farm = Farm::start(1, 2);
    // The last one asks where its package is, and may list what is there.
    let cases = [
        ("own", "", "macros in a package of no registry"),
        ("registry/src/mine", "", "macros in a package of no registry"),
        ("cargo/registry/src/index/a-1.0.0", "", ""),
        (
            "cargo/registry/src/index/b-1.0.0",
            "std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();",
            "macros that may look at files",
        ),
        (
            "cargo/registry/src/index/c-1.0.0",
            "let _ = std::env::var(\"MINE_ALONE\");",
            "macros that may ask for `MINE_ALONE`",
        ),
    ];
    for (below, looks, reason) in cases {
        let mut package = Package::new(&farm, below);
        package.variables.insert("MINE_ALONE", "1".to_owned());
        if below.contains("index") {
            // cargo's word for it that this was published.
            package.write(".cargo-ok", "{\"v\":1}");
        }
        package.write(
            "src/macros.rs",
            &format!(
                "extern crate proc_macro;\n#[proc_macro]\npub fn m(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{\n\
                 {looks} std::fs::read_to_string(\".said.txt\").unwrap().parse().unwrap() }}\n"
            ),
        );
        package.write(".said.txt", "7");
        package.write("src/lib.rs", "pub const A: i32 = macros::m!();\n");
        let mut made = package.command(rustc());
        let line = LIB.replace("type lib", "type proc-macro --extern proc_macro").replace("metadata,", "");
        made.args(format!("--crate-name macros {line} src/macros.rs").split_whitespace());
        finish(
            {
                made.arg("--out-dir").arg(package.out());
                made
            },
            COMPILE_MAX,
        )
        .must_succeed("macros");
        let named = package.out().join("libmacros-1f.so");
        assert_eq!(
            package.check(&format!("--crate-name a {LIB} src/lib.rs --extern macros={}", named.display())),
            0
        );
        let remote = u64::from(reason.is_empty());
        assert_eq!(package.counts(), [1, remote, 0], "{below}: {}", package.stats());
        assert_eq!(
            package.reason(&format!("run here: {reason}")),
            1 - remote,
            "{below}: {}",
            package.stats()
        );
    }
}

#[test]
fn what_lies_behind_links_and_what_is_one_too_many_is_seen_here_alone() {
    let test = "links of a package";
    if !have(test, "rustc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let package = Package::new(&farm, "own");
    let line = format!("--crate-name a {LIB} src/lib.rs");
    // Two packages with the same sources: `src/..` leads to the other's folder.
    let common = package.folder.path().join("common/src");
    fs::create_dir_all(&common).unwrap();
    fs::write(common.join("lib.rs"), "pub const A: &str = include_str!(\"../README.md\");\n").unwrap();
    fs::write(package.folder.path().join("common/README.md"), "common").unwrap();
    package.write("README.md", "own");
    std::os::unix::fs::symlink(&common, package.root().join("src")).unwrap();
    assert_eq!(package.check(&line), 0);
    assert_eq!(package.counts(), [1, 0, 1], "{}", package.stats());
    fs::remove_file(package.root().join("src")).unwrap();
    package.write("src/real/deep/lib.rs", "pub const A: &str = include_str!(\"../text.txt\");\n");
    package.write("src/real/text.txt", "real");
    package.write("src/text.txt", "read");
    std::os::unix::fs::symlink("real/deep", package.root().join("src/link")).unwrap();
    assert_eq!(package.check(&line.replace("src/lib.rs", "src/link/lib.rs")), 0);
    assert_eq!(package.counts(), [2, 0, 2], "{}", package.stats());
    // A module with two places, one of which is an empty folder.
    package.write("src/lib.rs", "pub mod x;\n");
    package.write("src/x/mod.rs", "pub fn x() {}\n");
    assert_eq!(package.check(&line), 0);
    assert_eq!(package.counts(), [3, 1, 2], "{}", package.stats());
    fs::create_dir(package.root().join("src/x.rs")).unwrap();
    assert_eq!(package.check(&line), 1);
}

#[test]
fn what_stands_in_for_rustc_sets_variables_of_its_own() {
    let test = "rustup's stand-in";
    if !have(test, "rustc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let mut package = Package::new(&farm, "own");
    package.rustc = "rustc".to_owned();
    for name in ["HOME", "RUSTUP_HOME", "CARGO_HOME"] {
        package.variables.extend(std::env::var(name).map(|value| (name, value)));
    }
    package.write("src/lib.rs", "pub const A: Option<&str> = option_env!(\"RUSTUP_TOOLCHAIN\");\n");
    assert_eq!(package.check(&format!("--crate-name a {LIB} src/lib.rs")), 0);
}

#[test]
fn the_sources_of_the_standard_library_travel_where_they_are_at_hand() {
    let test = "sources of the standard library";
    if !have(test, "rustc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let mut package = Package::new(&farm, "own");
    let other = package.folder.path().join("toolchain");
    let real = PathBuf::from(rustc());
    let real = real.parent().unwrap().parent().unwrap();
    let link = |how: &str| Command::new("cp").arg(how).arg(real).arg(&other).status().unwrap().success();
    assert!(link("-al") || (fs::remove_dir_all(&other).is_ok() && link("-a")), "copy {}", real.display());
    let sources = other.join("lib/rustlib/src/rust/library");
    for file in ["std/src/lib.rs", "core/src/lib.rs", "alloc/src/vec/mod.rs"] {
        fs::create_dir_all(sources.join(file).parent().unwrap()).unwrap();
        fs::write(sources.join(file), "// not what it was compiled from\n").unwrap();
    }
    package.rustc = other.join("bin/rustc").display().to_string();
    package.write(
        "src/lib.rs",
        "pub fn f(mut v: Vec<String>) -> Vec<String> { v.sort(); v.dedup(); v.retain(|t| t.len() > 1); v }\n",
    );
    assert_eq!(package.check(&format!("--crate-name a {LIB} src/lib.rs -g")), 0);
    assert_eq!(package.counts(), [1, 1, 0], "{}", package.stats());
    // What is said names them, if anything does.
    package.write("src/lib.rs", "pub fn f() { std::thread::spawn(|| std::rc::Rc::new(1)); }\n");
    assert_eq!(package.check(&format!("--crate-name a {LIB} src/lib.rs")), 1);
}

#[test]
fn a_static_library_is_the_one_that_is_found_first_here() {
    let test = "a static library that was not sent";
    if !have(test, "rustc") || !have(test, "cc") {
        return;
    }
    let farm = Farm::start(1, 2);
    let mut package = Package::new(&farm, "own");
    let out = package.target().join("build/a/out");
    let first = package.folder.path().join("first");
    for (folder, number) in [(&out, 1), (&first, 2)] {
        fs::create_dir_all(folder).unwrap();
        let source = package.write("c.c", &format!("int seven(void) {{ return {number}; }}\n"));
        for line in [
            format!("cc -c {source} -o {0}/c.o", folder.display()),
            format!("ar rcsD {0}/libc7.a {0}/c.o", folder.display()),
        ] {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().unwrap());
            command.args(words);
            finish(command, COMPILE_MAX).must_succeed(&line);
        }
    }
    package.variables.insert("OUT_DIR", out.display().to_string());
    package.write("src/lib.rs", "extern \"C\" { pub fn seven() -> i32; }\n");
    let line = format!("--crate-name a {LIB} src/lib.rs -l static=c7");
    let made_by_script = format!("-L native={}", out.display());
    assert_eq!(package.check(&format!("{line} {made_by_script}")), 0);
    assert_eq!(package.counts(), [1, 1, 0], "{}", package.stats());
    assert_eq!(package.check(&format!("{line} -L native={} {made_by_script}", first.display())), 0);
    assert_eq!(package.counts(), [2, 1, 1], "{}", package.stats());
    assert_eq!(package.reason("static library that was not sent"), 1);
}

#[test]
fn what_a_worker_takes_long_over_is_compiled_here_too() {
    let test = "a race for a crate";
    if !have(test, "rustc") {
        return;
    }
    let mut farm = Farm::start(1, 1);
    let mut package = Package::new(&farm, "own");
    let line = format!("--crate-name a {LIB} src/lib.rs");
    package.write("src/lib.rs", "");
    assert_eq!(package.check(&line), 0);
    assert_eq!(package.counts(), [1, 1, 0], "{}", package.stats());
    farm.worker(0).signal("STOP");
    package.variables.insert("CASTWORK_RACE_AFTER", "0".to_owned());
    package.write("src/lib.rs", "pub fn f() { let unused = 1; }\n");
    assert_eq!(package.check(&line), 0);
    assert_eq!(package.counts(), [2, 1, 0], "{}", package.stats());
    assert_eq!(package.reason("compiled here while the server was at it"), 1);
    assert_eq!(package.check(&line), 0);
    assert_eq!(package.stats()["local_hits"].as_u64(), Some(1));
    package.write("src/lib.rs", "pub fn f() -> i32 { \"no\" }\n");
    assert_eq!(package.check(&line), 1);
    farm.worker(0).signal("CONT");
}
