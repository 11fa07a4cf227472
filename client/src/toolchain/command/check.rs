//! `castwork toolchain check`: proves that what is packed is enough, by compiling where nothing else is.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use castwork_cas::{BlobStore, Digest};

use super::pack::Contents;
use super::show::megabytes;
use super::subject::Subject;
use crate::command_line::Language;
use crate::commands::print;
use crate::config::Config;
use crate::dependencies::prerequisites;
use crate::doctor;
use crate::environment::DATE;
use crate::tiers::Server;
use crate::toolchain::{ACTION_PATH, CACHES, Family, Mode, Toolchain, probe};

/// Where programs that ask where they lie, and loaders that look beside them, learn it.
const PROC: &str = "proc";

/// What is compiled: a system header, a computation for the optimiser, a literal.
const C: &str = "\
#include <stdio.h>
#include <limits.h>
int main(void) { return printf(\"%d\", INT_MAX) < 0; }
";
const CXX: &str = "\
#include <map>
#include <string>
int main() { std::map<std::string, int> words; ++words[__FILE__]; return words.size() != 1; }
";

/// What it becomes; compilers for Windows would add the end to a program's name.
const MADE: &str = "checked.exe";

/// What came of a try.
enum Tried {
    /// It came out the same; in words.
    Same(String),
    /// It could not be tried, for this reason.
    Not(String),
    /// It came out wrong.
    Wrong(String),
}

/// Tries a compiler out wherever that can be done, and says what came of it; whether all is well.
pub(super) fn check(config: &Config, subject: &Subject) -> bool {
    let name = &subject.name;
    let mut tries = vec![("what is remembered of it".to_owned(), remembered(subject))];
    tries.push(("an empty root here".to_owned(), in_empty_root(subject)));
    for server in config.remotes.iter().filter_map(|entry| Server::new(&entry.address, config)) {
        tries.push((server.address.clone(), at_server(config, &server, subject)));
    }
    let mut is_well = true;
    for (about, tried) in &tries {
        let (mark, text) = match tried {
            Tried::Same(text) => ("ok   ", text),
            Tried::Not(text) => ("-    ", text),
            Tried::Wrong(text) => ("FAIL ", text),
        };
        is_well &= !matches!(tried, Tried::Wrong(_));
        print(&format!("{mark} {name}: {about}: {text}\n"));
    }
    // The first compares what we know with what we know.
    is_well && tries[1..].iter().any(|(_, tried)| matches!(tried, Tried::Same(_)))
}

/// Looks at the compiler anew.
fn remembered(subject: &Subject) -> Tried {
    let anew = match probe::identify(&subject.compiler, subject.toolchain.mode, subject.language) {
        Ok(anew) => anew,
        Err(reason) => return Tried::Wrong(format!("it is not understood any more: {reason}")),
    };
    let Toolchain { tools, travel, .. } = &subject.toolchain;
    if (&anew.tools, &anew.travel) == (tools, travel) {
        Tried::Same("found to be so again".to_owned())
    } else {
        Tried::Wrong("it was found to be another now; was it replaced just now?".to_owned())
    }
}

/// Compiles where there is nothing but what is packed, and compares.
fn in_empty_root(subject: &Subject) -> Tried {
    let not_made = |error: std::io::Error| Tried::Not(format!("no root could be made: {error}"));
    match tempfile::tempdir() {
        Ok(folder) => {
            compile_in(&folder.path().join("root"), folder.path(), subject).unwrap_or_else(not_made)
        }
        Err(error) => not_made(error),
    }
}

fn compile_in(root: &Path, here: &Path, subject: &Subject) -> io::Result<Tried> {
    let (source, text) = match subject.language {
        Language::C => ("check.c", C),
        Language::Cxx => ("check.cc", CXX),
    };
    fs::write(here.join(source), text)?;
    let mut listing = outside(subject, here);
    if subject.toolchain.family == Family::Gcc {
        // Headers as they are opened, and not by shorter names.
        listing.arg("-fno-canonical-system-headers");
    }
    let rules = run(listing.args(["-O2", "-M", source]))?;
    let Ok(rules) = rules else { return Ok(Tried::Wrong("it can't compile here".to_owned())) };
    let headers: Vec<_> =
        prerequisites(&rules).into_iter().map(PathBuf::from).filter(|path| path.is_absolute()).collect();
    match Contents::of_compile(subject, &headers) {
        Ok(contents) => contents.write_folder(root)?,
        Err(what) => return Ok(Tried::Wrong(what)),
    }
    fs::write(root.join(source), text)?;
    fs::create_dir_all(root.join(PROC))?;
    let Some(way) = ways(root).into_iter().find(|way| is_open(way, root, subject)) else {
        return Ok(Tried::Not(
            "it does not start there, or neither `chroot` nor user namespaces can be used".to_owned(),
        ));
    };
    let words: &[&str] = if subject.links { &["-O2"] } else { &["-O2", "-c"] };
    for mut command in [outside(subject, here), inside(&way, root, subject)] {
        command.args(words).args([source, "-o", MADE]);
        if let Err(what) = run(&mut command)? {
            return Ok(Tried::Wrong(what));
        }
    }
    let (made_outside, made_inside) = (fs::read(here.join(MADE))?, fs::read(root.join(MADE))?);
    let what = if subject.links { "the program" } else { "the object" };
    Ok(if made_outside == made_inside {
        Tried::Same(format!("{what} is the same, {} bytes", made_inside.len()))
    } else {
        Tried::Wrong(format!("{what} is another than outside"))
    })
}

/// Runs a compiler; what it prints, or what is wrong.
fn run(command: &mut Command) -> io::Result<Result<String, String>> {
    // Some linkers write the time into programs.
    let done = command.env("LC_ALL", "C").env(DATE, "1").stdin(Stdio::null()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if done.status.success() {
        Ok(text(&done.stdout))
    } else {
        Err(format!("{}: {}", done.status, text(&done.stderr)))
    })
}

/// Ways into another root, for root and for others; those first that make `/proc` what it is to an action.
fn ways(root: &Path) -> [Vec<OsString>; 4] {
    let mut mount = OsString::from("--mount-proc=");
    mount.push(root.join(PROC));
    let with_proc = [OsStr::new("--pid"), OsStr::new("--fork"), &mount];
    let as_user = ["--user", "--map-root-user"].map(OsStr::new);
    let words = |words: &[&[&OsStr]]| words.concat().into_iter().map(OsStr::to_owned).collect();
    let [unshare, chroot] = ["unshare", "chroot"].map(OsStr::new);
    [
        words(&[&[unshare], &with_proc, &[chroot]]),
        words(&[&[unshare], &as_user, &with_proc, &[chroot]]),
        words(&[&[chroot]]),
        words(&[&[unshare], &as_user, &[chroot]]),
    ]
}

/// The compiler's driver here, with what it needs to be the same everywhere.
fn outside(subject: &Subject, here: &Path) -> Command {
    let mut command = subject.toolchain.command();
    command.args(plainly(subject)).current_dir(here);
    command
}

/// The compiler's driver, in a root; its working folder is `/`.
fn inside(way: &[OsString], root: &Path, subject: &Subject) -> Command {
    let mut command = Command::new(&way[0]);
    command.args(&way[1..]).arg(root).arg(&subject.toolchain.driver);
    command.args(subject.toolchain.mode.map(Mode::word)).args(plainly(subject));
    let library_path = subject.luggage.as_ref().ok().and_then(|luggage| luggage.library_path.as_deref());
    command.env_clear().env("PATH", search_path(subject));
    command.envs(library_path.map(|folders| ("LD_LIBRARY_PATH", folders)));
    if subject.toolchain.mode.is_some() {
        command.envs(CACHES.map(|name| (name, "/tmp/cache")));
    }
    command
}

/// For those of many tools: the target is named, and there is no debug information, which names the folder.
fn plainly(subject: &Subject) -> Vec<String> {
    subject.toolchain.mode.map_or_else(Vec::new, |_| vec![doctor::own_target(), "-g0".to_owned()])
}

/// Where `chroot` is found outside and the assembler inside.
fn search_path(subject: &Subject) -> String {
    let folder = subject.toolchain.assembler_folder.as_deref().map(Path::as_os_str);
    let folder = folder.map_or_else(String::new, |folder: &OsStr| format!("{}:", folder.to_string_lossy()));
    format!("{folder}{ACTION_PATH}:/usr/sbin:/sbin")
}

fn is_open(way: &[OsString], root: &Path, subject: &Subject) -> bool {
    let version = inside(way, root, subject).arg("--version").stdin(Stdio::null()).output();
    version.is_ok_and(|done| done.status.success())
}

/// Says what a server lacks, and has it compile.
fn at_server(config: &Config, server: &Server, subject: &Subject) -> Tried {
    let files: Vec<Digest> =
        subject.toolchain.traveling_files().into_iter().map(|(digest, _)| digest).collect();
    let lacked = match lacking(server, &files) {
        Ok(lacked) => lacked,
        Err(what) => return Tried::Not(what),
    };
    let size: u64 = lacked.iter().map(Digest::size_bytes).sum();
    let lacked = match lacked.len() {
        0 => "it had all files".to_owned(),
        count => format!("it lacked {count} of {} files, {}", files.len(), megabytes(size)),
    };
    match doctor::compile_there(config, server, &subject.compiler, subject.toolchain.mode) {
        Ok(text) => Tried::Same(format!("{lacked}; a compile {text}")),
        Err((what, hint)) => Tried::Wrong(format!("{lacked}; {what}\n      hint: {hint}")),
    }
}

/// What a server lacks of these.
fn lacking(server: &Server, files: &[Digest]) -> Result<Vec<Digest>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime
        .block_on(async { server.connect()?.find_missing(files).await })
        .map_err(|error| format!("it can't be asked: {error}"))
}
