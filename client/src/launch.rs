//! `castwork exec` and `castwork env`: have other tools call compilers through us.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cibuildwheel;
use crate::commands::print;
use crate::config::Config;
use crate::invocation::is_compiler;
use crate::local::Platform;
use crate::run::complain;
use crate::upload;

/// Most links that are made.
const LINKS_MAX: usize = 200;

/// For whom `castwork env` prints settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A shell: lines to `eval`.
    Shell,
    /// `CMake`: words of its command line.
    CMake,
    /// Make, and Autotools' `configure`: words of their command lines.
    Make,
    /// GitHub Actions: lines for the file `$GITHUB_ENV`.
    GitHub,
    /// GitLab: `variables:` of a job.
    GitLab,
    /// cibuildwheel: lines to `eval` before it is started.
    CiBuildWheel,
    /// Cargo: variables, for `env` or a file of them.
    Cargo,
}

/// Runs a command in which every compiler on `PATH` is called through us, and returns its exit code.
pub fn exec(config: &Config, words: &[OsString]) -> u8 {
    let Some((program, arguments)) = words.split_first() else {
        complain("no command; write `castwork exec -- make -j8`");
        return 2;
    };
    let links = match make_links(config) {
        Ok(links) => links,
        Err(error) => {
            complain(&format!("can't make links to compilers, so they are called as they are: {error}"));
            return run(Command::new(program).args(arguments), program);
        }
    };
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path_with(&links));
    if let Ok(us) = std::env::current_exe() {
        for (name, value) in for_cargo(&us).into_iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            command.env(name, value);
        }
    }
    let code = run(&mut command, program);
    // That the rest could not be sent is no fault of the command's.
    upload::run(config);
    code
}

fn run(command: &mut Command, program: &OsStr) -> u8 {
    match command.status() {
        Ok(status) => Platform::exit_code(status),
        Err(error) => {
            complain(&format!("can't start `{}`: {error}", program.display()));
            127
        }
    }
}

/// Prints what to set, and returns the exit code.
pub fn env(config: &Config, whom: For) -> u8 {
    let ourselves = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => {
            complain(&format!("can't tell where this program is: {error}"));
            return 1;
        }
    };
    let us = ourselves.display();
    let launchers = ["C", "CXX"].map(|language| format!("CMAKE_{language}_COMPILER_LAUNCHER"));
    let text = match whom {
        For::Shell => match make_links(config) {
            Ok(links) => format!("export PATH={}:\"$PATH\"\n", quoted(&links.to_string_lossy())),
            Err(error) => {
                complain(&format!("can't make links to compilers: {error}"));
                return 1;
            }
        },
        For::CMake => {
            let words = launchers.map(|launcher| quoted(&format!("-D{launcher}={us}")));
            format!("{}\n", words.join(" "))
        }
        For::Make => {
            let words = [("CC", "gcc"), ("CXX", "g++")]
                .map(|(name, compiler)| format!("{name}={}", quoted(&format!("{us} {compiler}"))));
            format!("{}\n", words.join(" "))
        }
        For::Cargo => for_cargo(&ourselves)
            .map(|(name, value)| format!("{name}={}\n", quoted(&value.to_string_lossy())))
            .concat(),
        For::GitHub => launchers.map(|launcher| format!("{launcher}={us}\n")).concat(),
        For::GitLab => {
            let lines = launchers.map(|launcher| format!("  {launcher}: \"{us}\"\n"));
            format!("variables:\n{}", lines.concat())
        }
        For::CiBuildWheel => cibuildwheel::settings(config),
    };
    print(&text);
    0
}

/// What has cargo call rustc through us, and not keep to itself what it compiles.
fn for_cargo(us: &Path) -> [(&'static str, OsString); 2] {
    [("RUSTC_WRAPPER", us.into()), ("CARGO_INCREMENTAL", "0".into())]
}

/// The text as one word for a shell.
pub fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Makes a folder of links to ourselves, one for each compiler on `PATH`, and returns it.
fn make_links(config: &Config) -> io::Result<PathBuf> {
    let ourselves = std::env::current_exe()?;
    let folder = config.dir.join("links");
    std::fs::create_dir_all(&folder)?;
    let search = std::env::var_os("PATH").unwrap_or_default();
    for name in compilers_on(&search, &folder) {
        let link = folder.join(name);
        if std::fs::read_link(&link).is_ok_and(|target| target == ourselves) {
            continue;
        }
        // Another process may be making the same links: each is moved into its place.
        let temporary = folder.join(format!(".{}", uuid::Uuid::new_v4()));
        Platform::make_link(&ourselves, &temporary)?;
        std::fs::rename(&temporary, &link)?;
    }
    Ok(folder)
}

/// The names of the compilers on a `PATH`, but for those in a folder.
fn compilers_on(search: &OsStr, but_in: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = Vec::new();
    let folders = Platform::split_path(search);
    for entry in folders.iter().filter(|folder| *folder != but_in).filter_map(|folder| folder.read_dir().ok())
    {
        let found = entry.flatten().map(|entry| entry.path()).filter(|path| Platform::is_program(path));
        names.extend(
            found.filter_map(|path| path.file_name().filter(|name| is_compiler(name)).map(Into::into)),
        );
    }
    names.sort();
    names.dedup();
    names.truncate(LINKS_MAX);
    names
}

/// `PATH` with a folder before all others.
fn path_with(folder: &Path) -> OsString {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let rest = Platform::split_path(&search).into_iter().filter(|other| other != folder);
    std::env::join_paths(std::iter::once(folder.to_owned()).chain(rest)).unwrap_or(search)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_word_to_a_shell() {
        assert_eq!(quoted("-DX=/usr/bin/y"), "-DX=/usr/bin/y");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
