//! [`Asked`]: a call of rustc with all that is known of it before it is made, and the key of that.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::arguments::Compile;
use super::behind::{Behind, SHARED};
use super::identity::Compiler;
use super::linking::Linker;
use super::package;
use super::situation::Situation;
use crate::config::Config;
use crate::direct::Hashes;
use crate::direct::hashes::hash_of;
use crate::direct::key::{ManifestKey, Said};
use crate::direct::memo::Hash;
use crate::environment;
use crate::local::{Platform, Stamp};
use crate::reason::Reason;
use crate::toolchain;

/// Raised when what an older client kept must not be read by this one.
const FORMAT: &str = "castwork rustc 3";

/// Variables with which rustc does what is not understood.
const REFUSED: [&str; 4] = ["RUST_TARGET_PATH", "RUSTC_LOG", "RUSTC_OVERRIDE_VERSION_STRING", "RUSTC_ICE"];

/// Variables that count as they are. Those that a crate asks for while it is compiled, dep-info tells; macros that run in
/// the compiler can ask without telling, so what cargo says of the package counts always.
const VERBATIM: [&str; 9] = [
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_MANIFEST_LINKS",
    "RUSTC_BOOTSTRAP",
    "RUSTC_FORCE_RUSTC_VERSION",
    "SOURCE_DATE_EPOCH",
    "SDKROOT",
    "MACOSX_DEPLOYMENT_TARGET",
];

/// Variables that count if messages are not JSON, in which rustc is told how they look.
const COLORS: [&str; 3] = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"];

/// What the package's manifest is called among the files that are known beforehand; the others are crates.
pub const MANIFEST: &str = "manifest";

/// The section of a shared library in which a crate's metadata is.
const METADATA: &str = ".rustc";

/// The beginning of what cargo says of a package.
const PACKAGE: &str = "CARGO_PKG_";

/// Variables that are paths.
const PATHS: [&str; 4] = ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_TARGET_TMPDIR", "OUT_DIR"];

/// The beginning of those that are paths of a package's programs, for its tests.
const PROGRAM: &str = "CARGO_BIN_EXE_";

/// Whether a variable is one of those that cargo sets for rustc, or that rustc goes by.
pub fn is_said_by_cargo(name: &str) -> bool {
    name == "CARGO"
        || name.starts_with(PACKAGE)
        || name.starts_with(PROGRAM)
        || VERBATIM.contains(&name)
        || COLORS.contains(&name)
        || PATHS.contains(&name)
}

/// A call of rustc.
pub struct Asked {
    /// What to run.
    pub program: PathBuf,
    /// The words that it is called with.
    pub arguments: Vec<OsString>,
    /// What they ask for.
    pub compile: Compile,
    /// Where.
    pub here: Situation,
    /// Of which rustc.
    pub compiler: Compiler,
    /// What it links with, if it does.
    pub linker: Option<Linker>,
    /// The files that are known beforehand, with what they hold.
    pub inputs: Vec<Input>,
    /// The crates behind those that are named, which are among them.
    pub behind: Behind,
    /// What else of the package may be read.
    pub package: Hash,
    /// What the crate's first source holds.
    pub source: Hash,
    /// The key of all this.
    pub key: ManifestKey,
}

/// A file that is known to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// How it is called in the key.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What it holds.
    pub hash: Hash,
    /// What the file system said of it before it was read.
    pub stamp: Stamp,
}

impl Asked {
    /// Understands a call.
    ///
    /// # Errors
    /// The reason to pass it through.
    pub fn new(
        config: &Config,
        program: &Path,
        arguments: &[OsString],
        hashes: &mut Hashes,
    ) -> Result<Self, Reason> {
        let words: Option<Vec<String>> =
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        let words = words.ok_or(Reason::new("word that is not Unicode"))?;
        let folder = std::env::current_dir().map_err(|_| Reason::new("folder with an unusual name"))?;
        let compile = Compile::parse(&words, &folder)?;
        if let Some(name) = REFUSED.iter().find(|name| std::env::var_os(name).is_some()) {
            return Err(Reason::of(format!("`{name}` is set")));
        }
        let has_terminal = || {
            let output = std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
            output || std::io::stdin().is_terminal()
        };
        if (!compile.is_json && std::io::stderr().is_terminal())
            || (compile.width.is_none() && has_terminal())
        {
            return Err("messages for a terminal".into());
        }
        let here = Situation::find(&compile, config.remaps)?;
        check_search(&compile, &here)?;
        let compiler = Compiler::find(program, &config.dir, hashes)?;
        let linker = compile.links().then(|| Linker::find(&compile, hashes)).transpose()?;
        let mut inputs = inputs(&compile, &here, hashes)?;
        let behind = behind(config, &compile, &here, &mut inputs, hashes)?;
        let unread = Reason::new("source that can't be read");
        let source = hashes.of(&here.place.absolute(&compile.source)).ok_or(unread)?;
        let package = package::digest(&here, behind.has_programs, hashes)?;
        let mut said = Said::default();
        said.all(&[FORMAT, env!("CARGO_PKG_VERSION"), &hex::encode(compiler.digest), &hex::encode(source)]);
        of_place(&mut said, &compile, &here);
        of_inputs(&mut said, &compile, &inputs);
        of_linker(&mut said, linker.as_ref());
        said.all(&["package", &hex::encode(package)]);
        of_environment(&mut said, &compile, &here);
        let key = ManifestKey::of_kind(FORMAT, &said.0);
        let (program, arguments) = (program.to_owned(), arguments.to_vec());
        Ok(Self { program, arguments, compile, here, compiler, linker, inputs, behind, package, source, key })
    }

    /// What tells this compiler from another, for reports.
    pub fn toolchain(&self) -> String {
        format!("rustc-{}", hex::encode(&self.compiler.digest[..4]))
    }

    /// Whether nothing that was known beforehand has changed since.
    pub fn is_current(&self) -> bool {
        self.inputs.iter().all(|input| stamp_of(&input.path) == Some(input.stamp))
    }

    /// Checks that nothing of the package has changed since either.
    ///
    /// # Errors
    /// The reason to keep nothing.
    pub fn check_package(&self, hashes: &mut Hashes) -> Result<(), Reason> {
        if package::digest(&self.here, self.behind.has_programs, hashes)? == self.package {
            return Ok(());
        }
        Err("file changed while compiling".into())
    }

    /// The words to run rustc with.
    pub fn words(&self) -> Vec<OsString> {
        let maps = self.here.own_maps.iter();
        let maps = maps.map(|(old, new)| format!("--remap-path-prefix={old}={new}").into());
        self.arguments.iter().cloned().chain(maps).collect()
    }
}

/// Checks that no crate is found by its name alone: nothing would tell which.
fn check_search(compile: &Compile, here: &Situation) -> Result<(), Reason> {
    for (kind, folder) in &compile.search {
        let is_crate = |path: PathBuf| {
            let is = |ending: &str| path.extension().is_some_and(|found| found == ending);
            // What can't be understood may be one.
            let is_shared = || SHARED.iter().any(|ending| is(ending));
            is("rlib")
                || is("rmeta")
                || (is_shared() && toolchain::has_section(&path, METADATA) != Some(false))
        };
        let entries = Path::new(&here.place.absolute(folder)).read_dir();
        let has_crates = || entries.into_iter().flatten().flatten().any(|entry| is_crate(entry.path()));
        if kind == "crate" || (kind == "all" && has_crates()) {
            return Err("crates that are searched for".into());
        }
    }
    Ok(())
}

fn stamp_of(path: &str) -> Option<Stamp> {
    Path::new(path).metadata().ok().map(|metadata| Platform::stamp(&metadata))
}

/// The crates that are named, and the package's manifest: macros read it, to see what crates are called.
fn inputs(compile: &Compile, here: &Situation, hashes: &mut Hashes) -> Result<Vec<Input>, Reason> {
    let mut inputs = Vec::new();
    let mut add = |name: String, path: String, unread: &'static str| {
        let stamp = stamp_of(&path).ok_or(Reason::new(unread))?;
        let hash = hashes.of(&path).ok_or(Reason::new(unread))?;
        inputs.push(Input { name, path, hash, stamp });
        Ok::<(), Reason>(())
    };
    for named in &compile.externs {
        if let Some(path) = &named.path {
            let file = path.rsplit('/').next().unwrap_or_default();
            let name = format!("{}={file}", named.name);
            add(name, here.place.absolute(path), "crate that can't be read")?;
        }
    }
    let manifest = environment::of_process("CARGO_MANIFEST_PATH").or_else(|| {
        environment::of_process("CARGO_MANIFEST_DIR").map(|folder| format!("{folder}/Cargo.toml"))
    });
    if let Some(manifest) = manifest.filter(|path| path.starts_with('/') && Path::new(path).is_file()) {
        add(MANIFEST.to_owned(), manifest, "manifest that can't be read")?;
    }
    Ok(inputs)
}

/// Adds the crates behind those that are named.
fn behind(
    config: &Config,
    compile: &Compile,
    here: &Situation,
    inputs: &mut Vec<Input>,
    hashes: &mut Hashes,
) -> Result<Behind, Reason> {
    let absolute = |path: &String| here.place.absolute(path);
    let named: Vec<String> =
        compile.externs.iter().filter_map(|named| named.path.as_ref()).map(absolute).collect();
    let folders: Vec<String> = compile.dependencies.iter().map(absolute).collect();
    let behind = Behind::find(&named, &folders, &compile.outputs(), &config.dir.join("rustc"), hashes)?;
    for path in &behind.files {
        let unread = Reason::new("crate that can't be read");
        let stamp = stamp_of(path).ok_or(unread.clone())?;
        let hash = hashes.of(path).ok_or(unread)?;
        let name = format!("behind {}", path.rsplit('/').next().unwrap_or_default());
        inputs.push(Input { name, path: path.clone(), hash, stamp });
    }
    Ok(behind)
}

fn of_place(said: &mut Said, compile: &Compile, here: &Situation) {
    said.all(&[
        &here.place.alias(&here.place.folder),
        &here.place.alias(&here.outputs),
        &here.alias(&compile.source),
        &format!("{} {}", here.is_folder_mapped, here.is_build_mapped),
    ]);
    said.list("words", &compile.words);
    for (old, new) in compile.maps.iter().chain(&here.own_maps) {
        said.all(&["map", &here.alias(old), new]);
    }
    for (kind, folder) in &compile.search {
        said.all(&["search", kind, &here.alias(folder)]);
    }
}

fn of_inputs(said: &mut Said, compile: &Compile, inputs: &[Input]) {
    for named in compile.externs.iter().filter(|named| named.path.is_none()) {
        said.all(&["crate", &named.name]);
    }
    for input in inputs {
        said.all(&["file", &input.name, &hex::encode(input.hash)]);
    }
}

fn of_linker(said: &mut Said, linker: Option<&Linker>) {
    if let Some(Linker { name, real, hash, on_path }) = linker {
        for (name, hash) in on_path {
            said.all(&["on the search path", name, &hash.map(hex::encode).unwrap_or_default()]);
        }
        said.all(&["linker", name, &real.to_string_lossy(), &hex::encode(hash)]);
    }
}

fn of_environment(said: &mut Said, compile: &Compile, here: &Situation) {
    let of_package = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = of_package.filter(|name| name.starts_with(PACKAGE)).collect();
    names.extend(VERBATIM.map(str::to_owned));
    names.extend(COLORS.map(str::to_owned).into_iter().filter(|_| !compile.is_json));
    names.sort_unstable();
    for name in names {
        if let Some(value) = environment::of_process(&name) {
            said.all(&[&name, &value]);
        }
    }
    let of_tests = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut paths: Vec<String> = of_tests.filter(|name| name.starts_with(PROGRAM)).collect();
    paths.extend(PATHS.map(str::to_owned));
    paths.sort_unstable();
    for name in paths {
        if let Some(value) = environment::of_process(&name) {
            said.all(&[&name, &here.alias(&value)]);
        }
    }
    // Hints in messages differ if cargo is there to be told something.
    said.part(&format!("cargo: {}", std::env::var_os("CARGO").is_some()));
}

/// The key of what came of a call that read this.
pub fn result_key(asked: &ManifestKey, read: &crate::direct::call::Call) -> ManifestKey {
    use prost::Message as _;
    let read = hex::encode(hash_of(&read.encode_to_vec()));
    ManifestKey::of_kind("castwork rustc result 1", &format!("{}\n{read}", asked.digest))
}
