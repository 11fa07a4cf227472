//! [`Action`]: a compile as the Remote Execution API has it, with its paths virtual.

use std::collections::BTreeMap;

use bytes::Bytes;
use castwork_cas::merkle::{BuiltTree, TreeBuilder};
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;
use prost::Message;

use crate::command_line::flags::Maps;
use crate::command_line::{Argument, Compile, Dialect, map_flag, msvc, search_flag};
use crate::dependencies::Closure;
use crate::environment;
use crate::link_time;
use crate::local::Platform;
use crate::paths::{ABSOLUTE, INPUT_ROOT, PROJECT, Place};
use crate::reason::Reason;
use crate::toolchain::{Family, Messages, Toolchain, Travel};

/// Where an action leaves the object, below its working folder.
pub const OBJECT: &str = "castwork-out/object.o";

/// Raised when actions of an older client must not be taken for those of this one.
const SALT: &[u8] = b"castwork compile 1";

/// Everything that decides what an action is.
pub struct Making<'a> {
    /// The compile.
    pub compile: &'a Compile,
    /// The compiler.
    pub toolchain: &'a Toolchain,
    /// What it reads besides the compiler.
    pub closure: &'a Closure,
    /// Where we are.
    pub place: &'a Place,
    /// How messages look here.
    pub messages: &'a Messages,
    /// Whether messages are coloured.
    pub is_colored: bool,
    /// Whether debug information may move.
    pub may_move_debug: bool,
}

/// A compile to look up, or to have run elsewhere.
#[derive(Debug)]
pub struct Action {
    /// Its key.
    pub digest: Digest,
    /// The messages: the action, its command, and the directories of its inputs. The files are in the closure and
    /// in the toolchain.
    pub messages: Vec<(Digest, Bytes)>,
    /// Whether the name of the project's folder is in it, so that elsewhere it is another action.
    pub is_of_place: bool,
    /// Whether paths in debug information are virtual in the object as it is kept.
    pub moves_debug: bool,
    /// Set if it would not come out the same on a worker: then it is run here, though its key is good.
    pub is_bound_here: Option<Reason>,
}

impl Action {
    /// Makes the action of a compile.
    ///
    /// # Errors
    /// The reason to pass through.
    pub fn make(making: &Making<'_>) -> Result<Self, Reason> {
        let mut is_bound_here = bound_here(making);
        // With the project's name in it, it is right in one folder anyway.
        let moves_debug = making.may_move_debug && !making.closure.holds_place && !making.closure.names_lines;
        let maps = Mapping::new(making, moves_debug, &mut is_bound_here);
        let place = place_in_key(making, is_bound_here.is_some());
        let is_place_in_key = place.is_some();
        let shares_link_time = making.compile.shares_link_time();
        if shares_link_time {
            // A worker's folders would be named by what the linker says.
            is_bound_here.get_or_insert(link_time::STAYS);
        }
        let reader = environment::Reader {
            toolchain: making.toolchain,
            messages: making.messages,
            is_colored: making.is_colored,
            holds_date: making.closure.holds_date,
            place: place.as_deref(),
            shares_link_time,
        };
        let variables = environment::of_action(&reader, environment::of_process)?;
        let tree = tree(making)?;
        let command = reapi::Command {
            arguments: arguments(making, &maps)?,
            environment_variables: environment_message(variables),
            output_paths: vec![OBJECT.to_owned()],
            working_directory: below_inputs(making.toolchain, &making.place.virtual_folder()),
            ..reapi::Command::default()
        };
        let (digest, messages) = messages_of(command, tree, platform(making.toolchain), SALT);
        let is_mapped =
            making.compile.arguments.iter().any(|argument| matches!(argument, Argument::PrefixMap { .. }));
        let has_debug_of_place = making.compile.has_debug && !moves_debug;
        let is_of_place = is_place_in_key || is_mapped || has_debug_of_place || making.closure.holds_place;
        Ok(Self { digest, messages, is_of_place, moves_debug, is_bound_here })
    }
}

/// The messages of an action, in order: itself, its command, and the directories of its inputs. The first is its digest.
pub fn messages_of(
    command: reapi::Command,
    tree: BuiltTree,
    platform: reapi::Platform,
    salt: &'static [u8],
) -> (Digest, Vec<(Digest, Bytes)>) {
    let blob = |data: Vec<u8>| (Digest::of(DigestFunction::Sha256, &data), Bytes::from(data));
    #[expect(deprecated, reason = "servers of REAPI before 2.2 read the platform there")]
    let command = reapi::Command { platform: Some(platform.clone()), ..command };
    let command = blob(command.encode_to_vec());
    let action = reapi::Action {
        command_digest: Some(command.0.to_proto()),
        input_root_digest: Some(tree.root.to_proto()),
        salt: Bytes::from_static(salt),
        platform: Some(platform),
        ..reapi::Action::default()
    };
    let action = blob(action.encode_to_vec());
    (action.0, [action, command].into_iter().chain(tree.directories).collect())
}

/// What is said in the key of where the compile happens, if it matters.
fn place_in_key(making: &Making<'_>, is_bound_here: bool) -> Option<String> {
    let Making { compile, closure, place, .. } = making;
    match compile.dialect {
        Dialect::Gnu => {
            let matters = is_bound_here || compile.place_matters.is_some();
            matters.then(|| place.root.clone().unwrap_or_default())
        }
        // No map of names is in its words to tell one folder from another.
        Dialect::Msvc => {
            let matters = compile.place_matters.is_some() || closure.holds_place || closure.names_lines;
            matters.then(|| place.names().collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Why an action would not come out the same on a worker, if it would not.
fn bound_here(making: &Making<'_>) -> Option<Reason> {
    let toolchain = making.toolchain;
    if making.compile.dialect == Dialect::Msvc {
        return Some("clang-cl is not run elsewhere yet".into());
    }
    if let Some(reason) = &making.compile.place_matters {
        return Some(reason.clone());
    }
    if let (Travel::Stays(_), Some(reason)) = (&toolchain.travel, &toolchain.is_bound_here) {
        return Some(Reason::of(reason.clone()));
    }
    if matches!(making.messages, Messages::Translated(_)) {
        return Some("messages in another language than English".into());
    }
    if let (Travel::Along(luggage), Messages::Utf8) = (&toolchain.travel, making.messages)
        && !luggage.has_utf8
    {
        return Some("messages in a locale that doesn't travel".into());
    }
    if making.closure.is_predefined_shadowed {
        return Some("a `stdc-predef.h` of the project's own".into());
    }
    if !toolchain.has_macro_prefix_map() {
        return Some("compiler without `-fmacro-prefix-map`".into());
    }
    // gcc before DWARF 5 lists a source with a mapped name twice.
    let version = making.compile.dwarf_version.unwrap_or(toolchain.default_dwarf_version());
    if toolchain.family == Family::Gcc
        && making.compile.has_debug
        && version < 5
        && making.compile.source.starts_with('/')
    {
        return Some("DWARF 4 with an absolute source".into());
    }
    None
}

/// The words of the command.
fn arguments(making: &Making<'_>, maps: &Mapping) -> Result<Vec<String>, Reason> {
    let Making { compile, toolchain, closure, place, .. } = making;
    if compile.dialect == Dialect::Msvc {
        return arguments_of_msvc(making);
    }
    let driver = toolchain.driver.to_str().ok_or(Reason::new("compiler with an unusual name"))?;
    let mut words = vec![driver.to_owned()];
    words.extend(toolchain.mode.map(|mode| mode.word().to_owned()));
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    // `-nostdinc` keeps gcc from including this by itself.
    if closure.has_predefined {
        add(&["-include", "stdc-predef.h"]);
    }
    for argument in &compile.arguments {
        match argument {
            Argument::Words(words) => add(&words.iter().map(String::as_str).collect::<Vec<_>>()),
            Argument::SearchDir { search, folder } => {
                add(&[search_flag(*search), &place.spelled_in_action(folder)]);
            }
            Argument::IncludeFile { flag, file } => add(&[flag, &place.spelled_in_action(file)]),
            Argument::LinkOnly(words) if toolchain.family == Family::Clang => {
                add(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Argument::LinkOnly(_) | Argument::PrefixMap { .. } => {}
        }
    }
    if toolchain.mode.is_some() && compile.dependency_file.with_system_headers.is_some() {
        // zig links what it has compiled into another object, unless it is to write of the headers as well.
        add(&["-MD", "-MF", "/tmp/headers.d"]);
    }
    // One of many tools names its own folders whatever is said. They are not there, and these come before them.
    let has_others = toolchain.mode.is_none();
    if has_others {
        add(&["-nostdinc"]);
    }
    if has_others && compile.language_for(toolchain.is_cxx_driver) == crate::command_line::Language::Cxx {
        add(&["-nostdinc++"]);
    }
    for folder in &closure.own_folders.folders {
        add(&["-isystem", &place.spelled_in_action(folder)]);
    }
    for folder in &closure.own_folders.frameworks {
        add(&["-iframework", &place.spelled_in_action(folder)]);
    }
    for flag in &maps.flags {
        add(&[flag]);
    }
    add(&[if making.is_colored { "-fdiagnostics-color=always" } else { "-fdiagnostics-color=never" }]);
    if compile.is_language_explicit {
        add(&["-x", compile.language.name()]);
    }
    add(&["-c", &place.spelled_in_action(&compile.source), "-o", OBJECT]);
    Ok(words)
}

/// The words of a command of clang-cl. Nobody runs them: they decide the key.
fn arguments_of_msvc(making: &Making<'_>) -> Result<Vec<String>, Reason> {
    let Making { compile, toolchain, closure, place, .. } = making;
    let driver = toolchain.driver.to_str().ok_or(Reason::new("compiler with an unusual name"))?;
    let mut words = vec![driver.to_owned()];
    for argument in &compile.arguments {
        let argument = match argument {
            Argument::SearchDir { search, folder } => {
                Argument::SearchDir { search: *search, folder: place.spelled_in_action(folder) }
            }
            Argument::IncludeFile { flag, file } => {
                Argument::IncludeFile { flag, file: place.spelled_in_action(file) }
            }
            argument => argument.clone(),
        };
        words.extend(msvc::words(&argument));
    }
    for folder in &closure.own_folders.folders {
        words.extend(["-imsvc".to_owned(), place.spelled_in_action(folder)]);
    }
    words.push(if making.is_colored { "-fcolor-diagnostics" } else { "-fno-color-diagnostics" }.to_owned());
    // Debug information names the object.
    let object = if compile.has_debug { place.absolute(&compile.output) } else { OBJECT.to_owned() };
    words.extend(["-c", msvc::language_flag(compile.language)].map(str::to_owned));
    words.extend([format!("-Fo{object}"), "--".to_owned(), place.spelled_in_action(&compile.source)]);
    Ok(words)
}

/// The flags that give paths in the object the names that they have here.
struct Mapping {
    flags: Vec<String>,
}

impl Mapping {
    fn new(making: &Making<'_>, moves_debug: bool, is_bound_here: &mut Option<Reason>) -> Self {
        let Making { compile, toolchain, closure, place, .. } = making;
        let has_own = compile.arguments.iter().any(|argument| matches!(argument, Argument::PrefixMap { .. }));
        if has_own && toolchain.family == Family::Clang {
            // Which of several maps clang applies depends on its version.
            is_bound_here.get_or_insert(Reason::new("clang with prefix maps of the user's own"));
        }
        let mut flags = Vec::new();
        let project = format!("{INPUT_ROOT}/{PROJECT}");
        let absolute = format!("{INPUT_ROOT}/{ABSOLUTE}");
        for maps in [Maps::Debug, Maps::Macro] {
            let is_needed = match maps {
                Maps::Debug => compile.has_debug,
                _ => closure.holds_place,
            };
            if maps == Maps::Debug && !is_needed || maps == Maps::Macro && !toolchain.has_macro_prefix_map() {
                continue;
            }
            flags.push(format!("{}{absolute}=", map_flag(maps)));
            let is_named = is_needed && !(maps == Maps::Debug && moves_debug);
            // The last comes first: a folder before the one that it is in.
            for mount in place.mounts().iter().rev().filter(|_| is_named) {
                if !is_mapped_by_user(compile, maps, &mount.real) {
                    flags.push(format!("{}{INPUT_ROOT}/{}={}", map_flag(maps), mount.name, mount.real));
                }
            }
        }
        // Both compilers let later maps come first, so the user's, translated, come last.
        for argument in &compile.arguments {
            let Argument::PrefixMap { maps, old, new } = argument else { continue };
            for (virtual_name, real) in
                [(&absolute, ""), (&project, place.root.as_deref().unwrap_or_default())]
            {
                flags.extend(translated(*maps, old, new, virtual_name, real, place));
            }
            if !old.starts_with('/') {
                flags.push(format!("{}{old}={new}", map_flag(*maps)));
            }
        }
        Self { flags }
    }
}

/// Whether a map of the user's renames the whole project, so that its real name doesn't show.
fn is_mapped_by_user(compile: &Compile, wanted: Maps, root: &str) -> bool {
    compile.arguments.iter().any(|argument| match argument {
        Argument::PrefixMap { maps, old, .. } => {
            (*maps == wanted || *maps == Maps::File) && old.starts_with('/') && root.starts_with(old.as_str())
        }
        _ => false,
    })
}

/// A map of real names as one of virtual names, for what is called `virtual_name` and lies at `real`.
fn translated(
    maps: Maps,
    old: &str,
    new: &str,
    virtual_name: &str,
    real: &str,
    place: &Place,
) -> Option<String> {
    if !old.starts_with('/') || (real.is_empty() && virtual_name.ends_with(PROJECT)) {
        return None;
    }
    // Maps compare letters, not folders: `/home/me/x` maps `/home/me/xy` as well.
    if let Some(rest) = real.strip_prefix(old) {
        return Some(format!("{}{virtual_name}={new}{rest}", map_flag(maps)));
    }
    let rest = old.strip_prefix(real).filter(|rest| rest.starts_with('/'))?;
    let is_in_project = place
        .root
        .as_deref()
        .and_then(|root| old.strip_prefix(root))
        .is_some_and(|rest| rest.starts_with('/'));
    // What is in the project is never called by the other name.
    let is_moot = virtual_name.ends_with(ABSOLUTE) && (is_in_project || place.root.as_deref() == Some(old));
    (!is_moot).then(|| format!("{}{virtual_name}{rest}={new}", map_flag(maps)))
}

fn environment_message(variables: BTreeMap<String, String>) -> Vec<reapi::command::EnvironmentVariable> {
    variables.into_iter().map(|(name, value)| reapi::command::EnvironmentVariable { name, value }).collect()
}

/// The instruction set of a machine that Rust calls by this name, as platforms name it.
pub fn isa(machine: &str) -> &str {
    match machine {
        "x86_64" => "x86-64",
        "aarch64" => "arm-a64",
        other => other,
    }
}

/// What a worker has to be, and to have.
fn platform(toolchain: &Toolchain) -> reapi::Platform {
    match &toolchain.travel {
        Travel::Along(_) => platform_with("inputs", &toolchain.machine, Vec::new()),
        Travel::Stays(_) => {
            let files = toolchain.tools.iter().map(|tool| format!("{}={}", tool.path.display(), tool.digest));
            platform_with("worker", &toolchain.machine, files.collect())
        }
    }
}

/// What a worker has to be for a program that goes along, for the machine that Rust calls by this name.
pub fn platform_of_inputs(machine: &str) -> reapi::Platform {
    platform_with("inputs", machine, Vec::new())
}

fn platform_with(root: &str, machine: &str, host_files: Vec<String>) -> reapi::Platform {
    let property = |name: &str, value: String| reapi::platform::Property { name: name.to_owned(), value };
    let mut properties = vec![
        property("ISA", isa(machine).to_owned()),
        property("OSFamily", Platform::OS_FAMILY.to_owned()),
        property("root", root.to_owned()),
    ];
    properties.extend(host_files.into_iter().map(|file| property("host-file", file)));
    properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    reapi::Platform { properties }
}

/// Where something of the input root at `/build` is in the tree that is sent: workers put that tree there, unless it
/// is their `/`.
fn below_inputs(toolchain: &Toolchain, name: &str) -> String {
    match toolchain.travel {
        Travel::Along(_) => format!("{}/{name}", INPUT_ROOT.trim_start_matches('/')),
        Travel::Stays(_) => name.to_owned(),
    }
}

fn tree(making: &Making<'_>) -> Result<BuiltTree, Reason> {
    let Making { toolchain, closure, .. } = making;
    let unusual = |_| Reason::new("file with an unusual name");
    let mut tree = TreeBuilder::new();
    for folder in &closure.folders {
        tree.add_directory(&below_inputs(toolchain, folder)).map_err(unusual)?;
    }
    for (name, input) in &closure.inputs {
        tree.add_file(&below_inputs(toolchain, name), input.digest, false).map_err(unusual)?;
    }
    for (name, link) in &closure.links {
        let target = format!("{}{}", "../".repeat(name.matches('/').count()), link.to);
        tree.add_symlink(&below_inputs(toolchain, name), &target).map_err(unusual)?;
    }
    if let Travel::Along(luggage) = &toolchain.travel {
        luggage.add_to(&mut tree).map_err(unusual)?;
    }
    Ok(tree.build(DigestFunction::Sha256))
}
