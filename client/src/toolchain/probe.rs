//! What is asked of a compiler, once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{ACTION_PATH, Assembler, Family, Messages, Toolchain, identify_file, resolve};
use crate::command_line::Language;
use crate::local::Platform;
use crate::reason::Reason;

/// Variables with which the system's loader is told to take other libraries.
const LOADER_VARIABLES: [&str; 3] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"];

/// Files that the loader's choice of libraries goes by.
const LOADER_FILES: [&str; 3] = ["/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld-musl-x86_64.path"];

/// The compiler's own folders of headers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncludeDirs {
    /// Ordinary ones.
    pub folders: Vec<String>,
    /// Apple's frameworks.
    pub frameworks: Vec<String>,
}

/// Asks a compiler everything that its identity is made of.
///
/// # Errors
/// The reason to pass through, if it is not one that is understood.
pub(super) fn identify(compiler: &Path, language: Language) -> Result<Toolchain, Reason> {
    let version = said(compiler, &["--version"])?;
    let family = if version.contains("Free Software Foundation") {
        Family::Gcc
    } else if version.contains("clang version") {
        Family::Clang
    } else {
        return Err("compiler is neither gcc nor clang".into());
    };
    let real = compiler.canonicalize().map_err(|_| Reason::new("compiler can't be read"))?;
    // gcc finds itself whatever it is called, so `cc` and `gcc-12` are one; clang goes by its name.
    let driver = if family == Family::Gcc { real.clone() } else { compiler.to_owned() };
    let is_cxx_driver = driver.file_name().is_some_and(|name| name.to_string_lossy().contains("++"));
    let dumped = if family == Family::Gcc { "-dumpfullversion" } else { "-dumpversion" };
    let number = said(&driver, &[dumped]).or_else(|_| said(&driver, &["-dumpversion"]))?;
    let major = number.split('.').next().and_then(|major| major.trim().parse().ok());
    let mut toolchain = Toolchain {
        family,
        major: major.ok_or(Reason::new("compiler without a version"))?,
        is_cxx_driver,
        frontend: real.clone(),
        assembler: None,
        assembler_folder: None,
        tools: Vec::new(),
        watched: Vec::new(),
        is_bound_here: None,
        include_dirs: BTreeMap::new(),
        messages: BTreeMap::new(),
        driver,
    };
    let mut programs = BTreeSet::from([real]);
    match family {
        Family::Gcc => gcc_programs(&mut toolchain, language, &mut programs)?,
        Family::Clang => check_clang(&toolchain)?,
    }
    libraries(&mut toolchain, &mut programs)?;
    toolchain.tools = programs.iter().map(|path| identify_file(path)).collect::<Result<_, _>>()?;
    Ok(toolchain)
}

/// Finds the front end and the assembler, and what would come before them.
fn gcc_programs(
    toolchain: &mut Toolchain,
    language: Language,
    programs: &mut BTreeSet<PathBuf>,
) -> Result<(), Reason> {
    let about = complaints(&toolchain.driver, &["-v"])?;
    // A program that starts the real compiler is seen by its name here.
    let itself = about.lines().find_map(|line| line.strip_prefix("COLLECT_GCC="));
    if itself != toolchain.driver.to_str() {
        return Err("compiler is another wrapper".into());
    }
    if !about.starts_with("Using built-in specs.") {
        return Err("specs from a file".into());
    }
    let frontend = PathBuf::from(said(&toolchain.driver, &[frontend_question(language)])?.trim());
    if !frontend.is_absolute() || !frontend.is_file() {
        return Err("compiler without its parts".into());
    }
    let folders = program_folders(&said(&toolchain.driver, &["-print-search-dirs"])?);
    let assembler = assembler(toolchain).ok_or(Reason::new("compiler without an assembler"))?;
    if assembler.looked_up.is_some() && !is_on_action_path(&assembler.path) {
        toolchain.assembler_folder = assembler.path.parent().map(Path::to_owned);
    }
    for folder in folders {
        for name in ["as", frontend_name(language), "specs"] {
            let path = folder.join(name);
            if path != frontend && path != assembler.path && !path.exists() {
                toolchain.watched.push((path, None));
            }
        }
    }
    programs.insert(assembler.path.clone());
    programs.insert(frontend.clone());
    toolchain.assembler = Some(assembler);
    toolchain.frontend = frontend;
    Ok(())
}

const fn frontend_name(language: Language) -> &'static str {
    match language {
        Language::C => "cc1",
        Language::Cxx => "cc1plus",
    }
}

const fn frontend_question(language: Language) -> &'static str {
    match language {
        Language::C => "-print-prog-name=cc1",
        Language::Cxx => "-print-prog-name=cc1plus",
    }
}

/// The folders in which gcc looks for its programs before it looks on `PATH`.
fn program_folders(search_dirs: &str) -> BTreeSet<PathBuf> {
    let line = |name: &str| {
        search_dirs.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let mut folders: BTreeSet<PathBuf> =
        line("programs: =").split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    folders.insert(line("install: ").into());
    folders
}

/// The assembler that gcc would start now.
fn assembler(toolchain: &Toolchain) -> Option<Assembler> {
    let named = said(&toolchain.driver, &["-print-prog-name=as"]).ok()?.trim().to_owned();
    let path = PathBuf::from(&named);
    if path.is_absolute() {
        return path.is_file().then_some(Assembler { path, looked_up: None });
    }
    Some(Assembler { path: on_path(&named)?, looked_up: Some(named) })
}

/// The first program of that name on `PATH`.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH")?;
    resolve::candidates(OsStr::new(name), &search, &std::env::current_dir().ok()?).next()
}

fn is_on_action_path(program: &Path) -> bool {
    let Some(name) = program.file_name() else { return false };
    resolve::candidates(name, ACTION_PATH.as_ref(), Path::new("/")).next().as_deref() == Some(program)
}

/// Checks that clang is by itself: no configuration file, no other assembler.
fn check_clang(toolchain: &Toolchain) -> Result<(), Reason> {
    let about = complaints(&toolchain.driver, &["-###", "-c", "-x", "c", "/dev/null", "-o", "/dev/null"])?;
    if about.contains("Configuration file:") {
        return Err("configuration from a file".into());
    }
    let commands: Vec<_> = about.lines().filter(|line| line.starts_with(" \"")).collect();
    let first_word = commands.first().and_then(|line| line[2..].split('"').next());
    let is_itself = first_word
        .is_some_and(|word| Path::new(word).canonicalize().ok().as_ref() == Some(&toolchain.frontend));
    if commands.len() != 1 || !is_itself {
        return Err("compiler is another wrapper".into());
    }
    Ok(())
}

/// Adds the shared libraries of each program.
fn libraries(toolchain: &mut Toolchain, programs: &mut BTreeSet<PathBuf>) -> Result<(), Reason> {
    if !Platform::HAS_LDD {
        return Ok(());
    }
    let mut all = BTreeSet::new();
    for program in programs.iter() {
        let here = listed_libraries(program, false)?;
        if here != listed_libraries(program, true)? {
            toolchain.is_bound_here = Some("variables choose the compiler's libraries".to_owned());
        }
        all.extend(here);
    }
    programs.extend(all);
    for file in LOADER_FILES {
        let stamp = Path::new(file).metadata().ok().map(|metadata| Platform::stamp(&metadata));
        toolchain.watched.push((file.into(), stamp));
    }
    Ok(())
}

/// What `ldd` says that a program loads.
fn listed_libraries(program: &Path, is_plain: bool) -> Result<BTreeSet<PathBuf>, Reason> {
    let unknown = Reason::new("compiler's libraries are not known");
    let mut command = Command::new("ldd");
    command.arg(program).env("LC_ALL", "C").stdin(Stdio::null());
    if is_plain {
        for variable in LOADER_VARIABLES {
            command.env_remove(variable);
        }
    }
    let output = command.output().map_err(|_| unknown.clone())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("not a dynamic executable") || text.contains("statically linked") {
        return Ok(BTreeSet::new());
    }
    if !output.status.success() || text.contains("not found") {
        return Err(unknown);
    }
    let paths = text.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path).split(" (").next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

/// Asks for the compiler's own folders of headers, as these flags choose them.
pub(super) fn include_dirs(
    toolchain: &Toolchain,
    language: Language,
    flags: &[String],
) -> Result<IncludeDirs, Reason> {
    let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
    words.extend(["-E", "-v", "-x", language.name(), "/dev/null"]);
    let about = complaints(&toolchain.driver, &words)?;
    let mut dirs = IncludeDirs::default();
    for folder in search_list(&about) {
        match folder.strip_suffix(" (framework directory)") {
            Some(framework) => dirs.frameworks.push(framework.to_owned()),
            None => dirs.folders.push(folder.to_owned()),
        }
    }
    Ok(dirs)
}

/// The folders that `#include <…>` searches, in what a compiler says under `-v`.
pub fn search_list(about: &str) -> impl Iterator<Item = &str> {
    about
        .lines()
        .skip_while(|line| !line.starts_with("#include <...>"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(|line| line[1..].trim_end())
}

/// The variables that choose the language and the letters of messages.
pub(super) const LOCALE_VARIABLES: [&str; 5] = ["LC_ALL", "LC_MESSAGES", "LC_CTYPE", "LANG", "LANGUAGE"];

/// Sees how messages look under the user's locale.
pub(super) fn messages(toolchain: &Toolchain, locale: &str) -> Result<Messages, Reason> {
    let mut child = Command::new(&toolchain.driver)
        .args(["-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|_| Reason::new("compiler can't be started"))?;
    if let Some(mut input) = child.stdin.take() {
        // A compiler that ends early shows in what it said.
        let _ = input.write_all(b"int f(void) { return unheard_of; }\n");
    }
    let output = child.wait_with_output().map_err(|_| Reason::new("compiler can't be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_english = said.contains("undeclared") && said.contains("error:");
    Ok(match is_english {
        true if said.contains("\u{2018}unheard_of\u{2019}") => Messages::Utf8,
        true if said.contains("'unheard_of'") => Messages::Ascii,
        _ => Messages::Translated(locale.to_owned()),
    })
}

/// What a compiler prints when asked.
fn said(compiler: &Path, words: &[&str]) -> Result<String, Reason> {
    let output = ask(compiler, words)?;
    if !output.status.success() {
        return Err("compiler gives no answer".into());
    }
    String::from_utf8(output.stdout).map_err(|_| "compiler gives no answer".into())
}

/// What a compiler prints to standard error when asked.
fn complaints(compiler: &Path, words: &[&str]) -> Result<String, Reason> {
    let output = ask(compiler, words)?;
    if !output.status.success() {
        return Err("compiler gives no answer".into());
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn ask(compiler: &Path, words: &[&str]) -> Result<std::process::Output, Reason> {
    Command::new(compiler)
        .args(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|_| "compiler can't be started".into())
}
