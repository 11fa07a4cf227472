//! What is asked of a compiler, once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::appearing;
use super::elf;
use super::loader::{self, Under};
use super::{
    ACTION_PATH, Assembler, Family, Luggage, Messages, Mode, Roles, Toolchain, Travel, identify_files,
    multitool, resolve,
};
use crate::command_line::msvc::{self, Driver};
use crate::command_line::{Dialect, Language};
use crate::local::{Platform, Stamp};
use crate::reason::Reason;

/// Files that the loader's choice of libraries goes by.
const LOADER_FILES: [&str; 4] =
    ["/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path"];

/// Where glibc looks for the locale `C.UTF-8`.
const UTF8_LOCALES: [&str; 2] = ["/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8"];

/// The parts of a locale that compilers use.
const LOCALE_PARTS: [&str; 2] = ["LC_CTYPE", "LC_MESSAGES/SYS_LC_MESSAGES"];

/// The compiler's own folders of headers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncludeDirs {
    /// Ordinary ones.
    pub folders: Vec<String>,
    /// Apple's frameworks.
    pub frameworks: Vec<String>,
    /// Those that it would search if they were there, and that it leaves out because it knows them by another name.
    pub left_out: Vec<String>,
}

/// Asks a compiler everything that its identity is made of.
///
/// # Errors
/// The reason to pass through, if it is not one that is understood.
pub(super) fn identify(compiler: &Path, mode: Option<Mode>, language: Language) -> Result<Toolchain, Reason> {
    let ask_it = |driver: &Path, word: &str| {
        let words: Vec<&str> = mode.map(Mode::word).into_iter().chain([word]).collect();
        said(driver, &words)
    };
    let version = ask_it(compiler, "--version")?;
    let family = if version.contains("Free Software Foundation") {
        Family::Gcc
    } else if version.contains("clang version") {
        Family::Clang
    } else {
        return Err("compiler is neither gcc nor clang".into());
    };
    let real = resolve::real(compiler)?;
    // gcc finds itself whatever it is called, so `cc` and `gcc-12` are one; clang goes by its name.
    let driver = if family == Family::Gcc { real.clone() } else { compiler.to_owned() };
    let is_named_so = driver.file_name().is_some_and(|name| name.to_string_lossy().contains("++"));
    let is_cxx_driver = mode.map_or(is_named_so, |mode| mode == Mode::Cxx);
    let is_msvc = family == Family::Clang && Driver::named(&driver) == Some(Driver::ClangCl);
    let dialect = if is_msvc { Dialect::Msvc } else { Dialect::Gnu };
    let dumped = if family == Family::Gcc { "-dumpfullversion" } else { "-dumpversion" };
    let number = match dialect {
        Dialect::Gnu => ask_it(&driver, dumped).or_else(|_| ask_it(&driver, "-dumpversion"))?,
        Dialect::Msvc => number_in(&version).to_owned(),
    };
    // Some builds say how they were made behind it: `12-posix`.
    let major = number.trim().split(|letter: char| !letter.is_ascii_digit()).next();
    let major = major.and_then(|major| major.parse().ok());
    let mut toolchain = Toolchain {
        mode,
        dialect,
        machine: machine_of(&real),
        family,
        major: major.ok_or(Reason::new("compiler without a version"))?,
        is_cxx_driver,
        frontend: real.clone(),
        assembler: None,
        assembler_folder: None,
        tools: Vec::new(),
        specs: Vec::new(),
        watched: Vec::new(),
        is_bound_here: None,
        travel: Travel::Stays("this system's programs don't travel yet".to_owned()),
        include_dirs: BTreeMap::new(),
        messages: BTreeMap::new(),
        driver,
    };
    // A link that is called by its own name has to be there under that name.
    let mut programs =
        Roles::from([(real, "driver".to_owned()), (toolchain.driver.clone(), "driver".to_owned())]);
    match family {
        Family::Gcc => gcc_programs(&mut toolchain, language, &mut programs)?,
        Family::Clang => check_clang(&toolchain)?,
    }
    if Platform::HAS_ELF_LOADER {
        find_luggage(&mut toolchain, compiler, &programs)?;
    } else {
        toolchain.tools = identify_files(&programs)?;
    }
    if toolchain.dialect == Dialect::Msvc {
        toolchain.travel = Travel::Stays("compiles of clang-cl are not run elsewhere yet".to_owned());
    }
    toolchain.watched = fewest(toolchain.watched);
    Ok(toolchain)
}

/// The number in what clang says of its version.
fn number_in(version: &str) -> &str {
    version.split("clang version ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default()
}

/// The same watch with fewer looks: for what is not there, the first folder on the way to it that is not there.
fn fewest(watched: Vec<(PathBuf, Option<Stamp>)>) -> Vec<(PathBuf, Option<Stamp>)> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let first_missing = |path: PathBuf| {
        path.ancestors().take_while(is_missing).last().map_or_else(|| path.clone(), Path::to_owned)
    };
    let of = |(path, stamp): (PathBuf, Option<Stamp>)| match stamp {
        Some(_) => (path, stamp),
        None => (first_missing(path), None),
    };
    watched.into_iter().map(of).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Finds all that the programs need to run, and whether it can go along.
fn find_luggage(toolchain: &mut Toolchain, compiler: &Path, programs: &Roles) -> Result<(), Reason> {
    let mut files = programs.clone();
    let is_itself = libraries(toolchain, &mut files)?;
    if toolchain.mode.is_some() {
        let found = multitool::mark(compiler).ok_or(Reason::new("compiler without its parts"))?;
        let (mark, absent) = found;
        files.insert(mark, "mark of its own folder".to_owned());
        toolchain.watched.extend(absent.into_iter().map(|path| (path, None)));
    }
    files.extend(toolchain.specs.iter().map(|path| (path.clone(), "specs of the driver".to_owned())));
    let locale = utf8_locale(toolchain, &files);
    let role = || "locale of its messages".to_owned();
    files.extend(locale.iter().flatten().map(|path| (path.clone(), role())));
    toolchain.tools = identify_files(&files)?;
    let packed = if is_itself {
        Luggage::pack(&toolchain.tools).and_then(|mut luggage| {
            luggage.has_utf8 = locale.is_some();
            loader::settle(&mut luggage, programs).map(|()| luggage)
        })
    } else {
        Err("`LD_PRELOAD` or `LD_AUDIT` puts libraries into it".to_owned())
    };
    toolchain.travel = packed.map_or_else(Travel::Stays, Travel::Along);
    Ok(())
}

/// The machine that a program runs on, by its name in Rust.
fn machine_of(program: &Path) -> String {
    let named = elf::read(program).and_then(|elf| match elf.machine {
        (object::elf::EM_X86_64, true) => Some("x86_64"),
        (object::elf::EM_AARCH64, true) => Some("aarch64"),
        _ => None,
    });
    named.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// The files that a compiler needs to say what it says under `LC_ALL=C.UTF-8`; `None` if it won't say that there.
fn utf8_locale(toolchain: &Toolchain, files: &Roles) -> Option<Vec<PathBuf>> {
    let is_musl =
        |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-musl"));
    // clang keeps to ASCII, and musl needs no files for it.
    if toolchain.family == Family::Clang || files.keys().any(is_musl) {
        return Some(Vec::new());
    }
    let folder = UTF8_LOCALES.iter().map(Path::new).find(|folder| folder.is_dir())?;
    let parts = LOCALE_PARTS.iter().map(|part| folder.join(part));
    Some(parts.filter(|part| part.is_file()).collect())
}

/// Finds the front end and the assembler, and what would come before them.
fn gcc_programs(toolchain: &mut Toolchain, language: Language, programs: &mut Roles) -> Result<(), Reason> {
    let about = complaints(toolchain, &["-v"])?;
    // A program that starts the real compiler is seen by its name here.
    let itself = about.lines().find_map(|line| line.strip_prefix("COLLECT_GCC="));
    if itself != toolchain.driver.to_str() {
        return Err("compiler is another wrapper".into());
    }
    toolchain.specs = specs_read(&about).map(PathBuf::from).collect();
    let search_dirs = said(&toolchain.driver, &["-print-search-dirs"])?;
    let places = appearing::specs(&search_dirs, std::env::var_os("LIBRARY_PATH").as_deref());
    if toolchain.specs.iter().any(|specs| !specs.is_absolute() || places.named.contains(specs)) {
        return Err("specs from a file".into());
    }
    let absent = places.named.into_iter().chain(places.own).filter(|path| !path.exists());
    toolchain.watched.extend(absent.map(|path| (path, None)));
    let frontend = PathBuf::from(said(&toolchain.driver, &[frontend_question(language)])?.trim());
    if !frontend.is_absolute() || !frontend.is_file() {
        return Err("compiler without its parts".into());
    }
    let folders = program_folders(&search_dirs);
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
    programs.insert(assembler.path.clone(), "assembler".to_owned());
    programs.insert(frontend.clone(), "front end".to_owned());
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
    let (path, looked_up) = program_named(&toolchain.driver, "as")?;
    let is_gnu = said(&path, &["--version"]).is_ok_and(|version| version.contains("GNU assembler"));
    Some(Assembler { path, looked_up, is_gnu })
}

/// The program of that name that a compiler would start now, and the name that it would look up on `PATH` for it.
pub(super) fn program_named(driver: &Path, name: &str) -> Option<(PathBuf, Option<String>)> {
    let named = said(driver, &[&format!("-print-prog-name={name}")]).ok()?.trim().to_owned();
    let path = PathBuf::from(&named);
    if path.is_absolute() {
        return path.is_file().then_some((path, None));
    }
    Some((on_path(&named)?, Some(named)))
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
    let about = match toolchain.dialect {
        Dialect::Gnu => complaints(toolchain, &["-###", "-c", "-x", "c", "/dev/null", "-o", "/dev/null"])?,
        Dialect::Msvc => complaints(toolchain, &["-###", "-c", "-TC", "-Fo/dev/null", "--", "/dev/null"])?,
    };
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

/// The files that gcc says it reads its specs from.
fn specs_read(about: &str) -> impl Iterator<Item = &str> {
    about.lines().filter_map(|line| line.strip_prefix("Reading specs from "))
}

/// Adds the shared libraries of each program; whether nothing foreign is among them.
fn libraries(toolchain: &mut Toolchain, programs: &mut Roles) -> Result<bool, Reason> {
    let mut all = BTreeMap::<PathBuf, BTreeSet<String>>::new();
    let mut listed = Vec::new();
    let mut is_itself = true;
    for (program, role) in programs.iter() {
        let here = loader::listed(program, Under::Everything)?;
        listed.push((program.clone(), here.clone()));
        if here != loader::listed(program, Under::Nothing)? {
            toolchain.is_bound_here = Some("variables choose the compiler's libraries".to_owned());
        }
        is_itself = is_itself && here == loader::listed(program, Under::LibraryPath)?;
        for library in here {
            all.entry(library).or_default().insert(role.clone());
        }
    }
    programs.extend(all.into_iter().map(|(path, roles)| (path, library_of(roles))));
    let objects = programs.keys().cloned().collect();
    let library_path = std::env::var_os(loader::LIBRARY_PATH).unwrap_or_default();
    let appearing = appearing::libraries(&objects, &library_path)?;
    for file in LOADER_FILES.map(PathBuf::from).into_iter().chain(appearing) {
        let stamp = file.metadata().ok().map(|metadata| Platform::stamp(&metadata));
        toolchain.watched.push((file, stamp));
    }
    // What has appeared between the question and the look would be seen by neither.
    for (program, known) in listed {
        if loader::listed(&program, Under::Everything)? != known {
            return Err("compiler's libraries changed while it was looked at".into());
        }
    }
    Ok(is_itself)
}

/// What a library is there for that is loaded by programs with these roles.
pub(super) fn library_of(roles: BTreeSet<String>) -> String {
    format!("library of {}", roles.into_iter().collect::<Vec<_>>().join(", "))
}

/// Asks for the compiler's own folders of headers, as these flags choose them.
pub(super) fn include_dirs(
    toolchain: &Toolchain,
    language: Language,
    flags: &[String],
) -> Result<IncludeDirs, Reason> {
    let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
    match toolchain.dialect {
        Dialect::Gnu => words.extend(["-E", "-v", "-x", language.name(), "/dev/null"]),
        Dialect::Msvc => words.extend(["-E", "-v", msvc::language_flag(language), "--", "/dev/null"]),
    }
    let about = complaints(toolchain, &words)?;
    check_program(&about, toolchain)?;
    let left_out = ignored_folders(&about).map(str::to_owned).collect();
    let mut dirs = IncludeDirs { left_out, ..IncludeDirs::default() };
    for folder in search_list(&about) {
        match folder.strip_suffix(" (framework directory)") {
            Some(framework) => dirs.frameworks.push(framework.to_owned()),
            None => dirs.folders.push(folder.to_owned()),
        }
    }
    Ok(dirs)
}

/// Checks that the program that preprocessed is the one whose content is in the key, by what a compiler says under `-v`.
///
/// # Errors
/// The reason to pass through.
pub fn check_program(about: &str, toolchain: &Toolchain) -> Result<(), Reason> {
    let programs = about.lines().filter_map(|line| match toolchain.family {
        Family::Gcc => line.strip_prefix(' ')?.split(' ').next().filter(|word| word.contains("cc1")),
        Family::Clang => line.strip_prefix(" \"").filter(|line| line.contains("-cc1"))?.split('"').next(),
    });
    let are_known: Vec<bool> = programs
        .map(|program| Path::new(program).canonicalize().ok() == toolchain.frontend.canonicalize().ok())
        .collect();
    if are_known.is_empty() || are_known.contains(&false) {
        return Err("compiler that starts an unknown program".into());
    }
    let has_other_specs =
        specs_read(about).any(|specs| !toolchain.specs.iter().any(|known| known.as_os_str() == specs));
    if about.contains("Configuration file:") || has_other_specs {
        return Err("configuration from a file".into());
    }
    Ok(())
}

/// Folders that a compiler was to search and did not, by what it says under `-v`: missing, or known under another name.
pub fn ignored_folders(about: &str) -> impl Iterator<Item = &str> {
    about.lines().filter_map(|line| {
        let rest = line
            .strip_prefix("ignoring nonexistent directory \"")
            .or_else(|| line.strip_prefix("ignoring duplicate directory \""))?;
        rest.strip_suffix('"')
    })
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

/// Sees how messages look under the user's locale: in the language that it was identified for, as there may be no other.
pub(super) fn messages(toolchain: &Toolchain, language: Language, locale: &str) -> Result<Messages, Reason> {
    // clang has no other language and no other quotes; and to try it with zig would be to link, which takes minutes.
    if toolchain.family == Family::Clang {
        return Ok(Messages::Ascii);
    }
    let mut child = toolchain
        .command()
        .args(["-fsyntax-only", "-x", language.name(), "-"])
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
    let undeclared = match language {
        Language::C => "undeclared",
        Language::Cxx => "was not declared",
    };
    let is_english = said.contains(undeclared) && said.contains("error:");
    Ok(match is_english {
        true if said.contains("\u{2018}unheard_of\u{2019}") => Messages::Utf8,
        true if said.contains("'unheard_of'") => Messages::Ascii,
        _ => Messages::Translated(locale.to_owned()),
    })
}

/// What a compiler prints when asked.
pub(super) fn said(compiler: &Path, words: &[&str]) -> Result<String, Reason> {
    let output = ask(Command::new(compiler).args(words))?;
    if !output.status.success() {
        return Err("compiler gives no answer".into());
    }
    String::from_utf8(output.stdout).map_err(|_| "compiler gives no answer".into())
}

/// What a compiler prints to standard error when asked.
pub(super) fn complaints(toolchain: &Toolchain, words: &[&str]) -> Result<String, Reason> {
    let output = ask(toolchain.command().args(words))?;
    if !output.status.success() {
        return Err("compiler gives no answer".into());
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn ask(command: &mut Command) -> Result<std::process::Output, Reason> {
    command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|_| "compiler can't be started".into())
}
