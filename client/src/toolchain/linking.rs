//! What a compiler links with: found by asking it, and by following its linker.
//!
//! A compile needs none of it. So it neither goes along with compiles nor is in their keys; it is packed where someone
//! wants a compiler that links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::loader::{self, Under};
use super::probe::{library_of, program_named, said};
use super::{Family, Roles, Toolchain};
use crate::command_line::Language;

/// Programs that gcc links with, and what each is.
const GCC_PROGRAMS: [(&str, &str); 4] = [
    ("collect2", "starts the linker"),
    ("ld", "linker"),
    ("lto-wrapper", "starts link-time optimisation"),
    ("lto1", "link-time optimiser"),
];

/// What the linker loads to read objects for link-time optimisation.
const GCC_PLUGIN: &str = "liblto_plugin.so";

/// A compiler's files for linking.
pub(super) struct Linking {
    /// Programs, each of which has to load what it loads here.
    pub programs: Roles,
    /// All else: their libraries, and what is linked into programs.
    pub files: Roles,
}

/// Finds what a compiler links an ordinary program with.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn find(toolchain: &Toolchain, language: Language) -> Result<Linking, String> {
    let named: &[(&str, &str)] = match toolchain.family {
        Family::Gcc => &GCC_PROGRAMS,
        Family::Clang => &GCC_PROGRAMS[1..2],
    };
    let programs: Roles = named
        .iter()
        .filter_map(|(name, role)| Some((program_named(&toolchain.driver, name)?.0, (*role).to_owned())))
        .collect();
    let mut files = Roles::new();
    if toolchain.family == Family::Gcc
        && let Ok(plugin) = said(&toolchain.driver, &[&format!("-print-file-name={GCC_PLUGIN}")])
        && Path::new(plugin.trim()).is_absolute()
    {
        files.insert(plugin.trim().into(), "lets the linker optimise".to_owned());
    }
    let mut libraries = BTreeMap::<PathBuf, BTreeSet<String>>::new();
    for (program, role) in &programs {
        let loaded = loader::listed(program, Under::LibraryPath).map_err(|reason| reason.to_string())?;
        for library in loaded {
            libraries.entry(library).or_default().insert(role.clone());
        }
    }
    files.extend(libraries.into_iter().map(|(path, roles)| (path, library_of(roles))));
    for path in linked(toolchain, language)? {
        files.entry(path).or_insert_with(|| "linked into programs".to_owned());
    }
    Ok(Linking { programs, files })
}

/// The files that the linker opens for a program that does nothing.
fn linked(toolchain: &Toolchain, language: Language) -> Result<BTreeSet<PathBuf>, String> {
    let broken = |error: std::io::Error| format!("can't try to link: {error}");
    let folder = tempfile::tempdir().map_err(broken)?;
    std::fs::write(folder.path().join("program"), "int main() { return 0; }\n").map_err(broken)?;
    let output = toolchain
        .command()
        .args(["-x", language.name(), "program", "-o", "linked", "-Wl,--verbose"])
        .current_dir(folder.path())
        .env("LC_ALL", "C")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(broken)?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("it doesn't link here: {last}"));
    }
    let own = folder.path();
    Ok(opened(&said).map(PathBuf::from).filter(|path| path.is_absolute() && !path.starts_with(own)).collect())
}

/// The files that GNU's linkers say under `--verbose` that they have opened.
fn opened(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let tried = line.strip_prefix("attempt to open ").and_then(|rest| rest.strip_suffix(" succeeded"));
        tried.or_else(|| line.strip_prefix("opened script file "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_linker_opened_is_told_from_what_it_tried() {
        let said = "GNU ld\nattempt to open /a/crt1.o failed\nattempt to open /b/crt1.o succeeded\n/b/crt1.o\n\
            opened script file /b/libc.so\n";
        assert_eq!(opened(said).collect::<Vec<_>>(), ["/b/crt1.o", "/b/libc.so"]);
    }
}
