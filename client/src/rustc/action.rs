//! [`Action`]: a call of rustc as the Remote Execution API has it. The sources lie at the paths that they have here, in a root
//! that holds nothing else, so that what comes of it names no other folders than it would here. Where crates lie doesn't show in
//! what uses them, so they have a folder of the action's.
//!
//! What rustc will read is not known before it runs. So all files of the package are there, with what its build script made
//! and all crates in play. If something is missing, or was asked for that is not sent, rustc runs here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use castwork_cas::merkle::TreeBuilder;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;

use super::asked::{self, Asked};
use super::behind::CAPITALS_MIN;
use super::has_ending;
use super::package::{self, Below};
use super::situation;
use crate::action::{messages_of, platform_of_inputs};
use crate::direct::Hashes;
use crate::direct::memo::Hash;
use crate::environment;
use crate::local::Platform;
use crate::reason::Reason;
use crate::tiers::Inputs;
use crate::toolchain::{self, Luggage};

/// Where it leaves what it makes, below its working folder.
pub const OUT: &str = "castwork-out";

/// Where the crates are that it uses.
pub const CRATES: &str = "/build/crates";

/// Raised when actions of an older client must not be taken for those of this one.
const SALT: &[u8] = b"castwork rustc 2";

/// Variables that the standard library names in each program, or that are a part of such a name.
const OF_STD: [&str; 7] =
    ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_MIN_STACK", "LANG"];

/// Most bytes of a package that are sent.
const PACKAGE_BYTES_MAX: u64 = 256 << 20;

/// The flag that says where outputs go.
const OUT_DIR_FLAG: &str = "--out-dir";

/// A call to have run elsewhere.
pub struct Action {
    /// Its key.
    pub digest: Digest,
    /// What it consists of.
    pub inputs: Inputs,
}

impl Action {
    /// Makes the action of a call.
    ///
    /// # Errors
    /// The reason to run it here.
    pub fn make(asked: &Asked, hashes: &mut Hashes) -> Result<Self, Reason> {
        check(asked)?;
        let mut files = Files { hashes, found: BTreeMap::new(), folders: Vec::new() };
        let program = toolchain(asked, &mut files)?;
        let travels = std::mem::take(&mut files.found);
        files.add_package(asked)?;
        let mut tree = TreeBuilder::new();
        let below_root = |path: &str| path.trim_start_matches('/').to_owned();
        let taken = |_| Reason::new("folder in the way of the compiler's");
        program.add_to(&mut tree).map_err(taken)?;
        let folder = &asked.here.place.folder;
        for folder in files.folders.iter().chain([folder]) {
            tree.add_directory(&below_root(folder)).map_err(taken)?;
        }
        for (path, digest) in &files.found {
            toolchain::check_place(Path::new(path)).map_err(|_| Reason::new(OWN_FOLDER))?;
            tree.add_file(&below_root(path), *digest, false).map_err(taken)?;
        }
        let crates = crates(asked)?;
        for (path, digest) in &crates {
            tree.add_file(&below_root(&moved(path)), *digest, false)
                .map_err(|_| Reason::new("two crates of a name"))?;
        }
        let tree = tree.build(DigestFunction::Sha256);
        let command = reapi::Command {
            arguments: arguments(asked)?,
            environment_variables: variables(program.library_path.as_deref())?,
            output_paths: outputs(asked),
            working_directory: below_root(folder),
            ..reapi::Command::default()
        };
        let platform = platform_of_inputs(std::env::consts::ARCH);
        let (digest, messages) = messages_of(command, tree, platform, SALT);
        let on_disk = travels.into_iter().chain(files.found).chain(crates);
        let on_disk = on_disk.map(|(path, digest)| (digest, PathBuf::from(path))).collect();
        Ok(Self { digest, inputs: Inputs { messages, files: Vec::new(), toolchain: on_disk } })
    }

    /// The files that it consists of.
    pub fn files(&self) -> HashSet<&Path> {
        self.inputs.toolchain.iter().map(|(_, path)| path.as_path()).collect()
    }
}

/// Why what lies there stays here.
const OWN_FOLDER: &str = "crate in a folder that each action has of its own";

/// Refuses what would not come out the same, or not at all.
fn check(asked: &Asked) -> Result<(), Reason> {
    let Asked { compile, here, behind, .. } = asked;
    if !Platform::HAS_ELF_LOADER {
        return Err("rustc of this operating system".into());
    }
    if asked.linker.is_some() {
        return Err("a crate that is linked".into());
    }
    if compile.search.iter().any(|(kind, _)| kind != "dependency" && kind != "native" && kind != "all") {
        return Err("frameworks".into());
    }
    let Some(package) = environment::of_process("CARGO_MANIFEST_DIR").filter(|path| path.starts_with('/'))
    else {
        return Err("a crate of no package".into());
    };
    // They may read what is not sent and do without it if it isn't there, and nobody would know.
    if behind.has_programs && !situation::is_published(&package) {
        return Err("macros in a package of no registry".into());
    }
    // When a file was changed would show, for one.
    if behind.may_look {
        return Err("macros that may look at files".into());
    }
    check_variables_of_macros(&behind.capitals)?;
    if compile.folder.contains(['"', '\\']) {
        return Err("outputs in a folder with an unusual name".into());
    }
    if Path::new(&here.place.folder).join(OUT).exists() {
        return Err(Reason::of(format!("a folder `{OUT}`")));
    }
    toolchain::check_place(Path::new(&here.place.folder)).map_err(|_| Reason::new(OWN_FOLDER))
}

/// Refuses macros in which the name of a variable stands that is set here, and is not sent.
fn check_variables_of_macros(capitals: &str) -> Result<(), Reason> {
    if capitals.is_empty() {
        return Ok(());
    }
    let of_script = package::variables_of_script()?;
    let is_sent = |name: &String| asked::is_said_by_cargo(name) || of_script.contains(name);
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let asked_for = |name: &String| {
        name.len() >= CAPITALS_MIN && !OF_STD.contains(&name.as_str()) && capitals.contains(name.as_str())
    };
    match set.filter(|name| !is_sent(name)).find(asked_for) {
        Some(name) => Err(Reason::of(format!("macros that may ask for `{name}`"))),
        None => Ok(()),
    }
}

/// The compiler with what it runs with.
fn toolchain(asked: &Asked, files: &mut Files<'_>) -> Result<Luggage, Reason> {
    let unusual = Reason::new("compiler with an unusual name");
    for file in asked.compiler.files_for(asked.compile.target.as_deref()) {
        files.add(file.to_str().ok_or(unusual.clone())?)?;
    }
    if let Some(folder) = asked.compiler.sources() {
        let below = Below::look(folder.to_str().ok_or(unusual)?, &asked.here, false)?;
        for file in &below.files {
            files.add(file)?;
        }
    }
    let packed: Vec<(PathBuf, Digest)> =
        files.found.iter().map(|(path, digest)| (PathBuf::from(path), *digest)).collect();
    let luggage = Luggage::of_program(&asked.compiler.program, &packed);
    let luggage = luggage.map_err(|why| {
        tracing::debug!(why, "this rustc doesn't travel");
        Reason::new("rustc that does not travel")
    })?;
    let names: BTreeSet<&str> = packed.iter().filter_map(|(path, _)| path.file_name()?.to_str()).collect();
    // Macros are loaded by that rustc, and find what it has.
    let macros = asked.inputs.iter().filter(|input| has_ending(&input.path, "so"));
    for library in macros {
        let needed = toolchain::needed_by(Path::new(&library.path)).unwrap_or_default();
        if needed.iter().any(|name| !names.contains(name.as_str())) {
            return Err("macros with libraries of their own".into());
        }
    }
    Ok(luggage)
}

/// Files by the paths that they have here.
struct Files<'a> {
    hashes: &'a mut Hashes,
    found: BTreeMap<String, Digest>,
    folders: Vec<String>,
}

impl Files<'_> {
    fn add(&mut self, path: &str) -> Result<u64, Reason> {
        let unread = Reason::new("file that can't be read");
        let hash = self.hashes.of(path).ok_or(unread.clone())?;
        let size_bytes = Path::new(path).metadata().map_err(|_| unread)?.len();
        self.found.insert(path.to_owned(), digest_of(&hash, size_bytes)?);
        Ok(size_bytes)
    }

    /// The package's own files, and those that its build script made.
    fn add_package(&mut self, asked: &Asked) -> Result<(), Reason> {
        let folders = ["CARGO_MANIFEST_DIR", "OUT_DIR"].map(environment::of_process);
        let mut bytes = 0;
        for folder in folders.iter().flatten() {
            // Of what is public, nothing has to stay here.
            let below = Below::look(folder, &asked.here, situation::is_published(folder))?;
            if below.has_more && asked.behind.has_programs {
                return Err("macros in a package of more than files".into());
            }
            for path in &below.files {
                bytes += self.add(path)?;
                if bytes > PACKAGE_BYTES_MAX {
                    return Err("package of too many bytes".into());
                }
            }
            self.folders.extend(below.folders);
        }
        Ok(())
    }
}

fn digest_of(hash: &Hash, size_bytes: u64) -> Result<Digest, Reason> {
    Digest::from_hex(DigestFunction::Sha256, &hex::encode(hash), size_bytes)
        .map_err(|_| Reason::new("file that is too large"))
}

/// The crates that are in play.
fn crates(asked: &Asked) -> Result<BTreeMap<String, Digest>, Reason> {
    let crates = asked.inputs.iter().filter(|input| input.name != asked::MANIFEST);
    crates.map(|input| Ok((input.path.clone(), digest_of(&input.hash, input.stamp.size_bytes)?))).collect()
}

/// Where a crate is in the action.
fn moved(path: &str) -> String {
    format!("{CRATES}/{}", path.rsplit('/').next().unwrap_or_default())
}

/// The words of the command, with outputs and crates in folders of the action's.
fn arguments(asked: &Asked) -> Result<Vec<String>, Reason> {
    let Asked { compile, compiler, here, .. } = asked;
    let program = compiler.program.to_str().ok_or(Reason::new("compiler with an unusual name"))?;
    let mut words = vec![program.to_owned()];
    words.extend(compile.words.iter().cloned());
    words.push(compile.source.clone());
    for named in &compile.externs {
        let in_file = |path: &String| format!("{}={}", named.name, moved(path));
        words.push("--extern".to_owned());
        words.push(named.path.as_ref().map_or_else(|| named.name.clone(), in_file));
    }
    words.extend(["-L".to_owned(), format!("dependency={CRATES}")]);
    for (kind, folder) in &compile.search {
        words.extend(["-L".to_owned(), format!("{kind}={folder}")]);
    }
    let maps = compile.maps.iter().chain(&here.own_maps);
    words.extend(maps.map(|(old, new)| format!("--remap-path-prefix={old}={new}")));
    words.extend(compile.width.iter().map(|width| format!("--diagnostic-width={width}")));
    words.extend([OUT_DIR_FLAG.to_owned(), OUT.to_owned()]);
    Ok(words)
}

/// The words of a call with its outputs in another folder.
pub fn words_into(asked: &Asked, folder: &str) -> Vec<std::ffi::OsString> {
    let mut words = Vec::new();
    let mut given = asked.words().into_iter();
    while let Some(word) = given.next() {
        if word == OUT_DIR_FLAG {
            given.next();
        } else if !word.as_encoded_bytes().starts_with(b"--out-dir=") {
            words.push(word);
        }
    }
    words.extend([OUT_DIR_FLAG.into(), folder.into()]);
    words
}

/// What it may leave.
fn outputs(asked: &Asked) -> Vec<String> {
    let mut paths = asked.compile.outputs().map(|name| format!("{OUT}/{name}")).to_vec();
    paths.sort();
    paths
}

/// The variables that a crate may ask for: what cargo says, and what the build script has set. No others leave this machine.
fn variables(library_path: Option<&str>) -> Result<Vec<reapi::command::EnvironmentVariable>, Reason> {
    let of_process = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: BTreeSet<String> = of_process.filter(|name| asked::is_said_by_cargo(name)).collect();
    names.extend(package::variables_of_script()?);
    let given = names.into_iter().filter_map(|name| Some((environment::of_process(&name)?, name)));
    let mut variables: BTreeMap<String, String> = given.map(|(value, name)| (name, value)).collect();
    variables.extend(library_path.map(|path| ("LD_LIBRARY_PATH".to_owned(), path.to_owned())));
    let message = |(name, value)| reapi::command::EnvironmentVariable { name, value };
    Ok(variables.into_iter().map(message).collect())
}
