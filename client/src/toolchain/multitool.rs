//! [`Mode`]: programs of many tools, which are a compiler if their first word says so: `zig cc`, `zig c++`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command_line::{Argument, Compile};
use crate::reason::Reason;

/// The name of such a program, whatever follows a `-` in it.
const ZIG: &str = "zig";

/// The file by which zig recognises its own folder; without it, it does nothing.
const MARK: &str = "std/std.zig";

/// Where zig keeps what it has made before; it does nothing without a folder for that.
pub const CACHES: [&str; 2] = ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"];

/// How the names of all variables begin that zig reads.
const VARIABLES: &str = "ZIG_";

/// As which compiler such a program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// `zig cc`.
    C,
    /// `zig c++`.
    Cxx,
}

impl Mode {
    /// The word that says so.
    pub const fn word(self) -> &'static str {
        match self {
            Self::C => "cc",
            Self::Cxx => "c++",
        }
    }

    /// Takes the mode off the words of a call; `None` if the program is a compiler and nothing else, by the name that it is
    /// called by and by its own.
    ///
    /// # Errors
    /// The reason to pass through, if it is called as something else.
    pub fn take<'a>(
        names: [&Path; 2],
        words: &'a [OsString],
    ) -> Result<(Option<Self>, &'a [OsString]), Reason> {
        if !names.into_iter().any(is_multitool) {
            return Ok((None, words));
        }
        let first = words.first().and_then(|word| word.to_str()).unwrap_or_default();
        let mode = [Self::C, Self::Cxx].into_iter().find(|mode| mode.word() == first);
        let mode = mode.ok_or(Reason::new("program of many tools that is not called as a compiler"))?;
        Ok((Some(mode), &words[1..]))
    }

    /// Checks that a compile does not depend on the machine that it runs on, and notes what is asked for by itself.
    ///
    /// # Errors
    /// The reason to pass through.
    pub fn check(compile: &mut Compile) -> Result<(), Reason> {
        compile.has_debug = true;
        if let Some((name, _)) = std::env::vars_os().find(|(name, _)| is_told_by(&name.to_string_lossy())) {
            return Err(Reason::of(format!("`{}` is set", name.to_string_lossy())));
        }
        // It looks for libraries, and links what it has compiled once more.
        if compile.arguments.iter().any(|argument| matches!(argument, Argument::LinkOnly(_))) {
            return Err("`zig` with words for the linker".into());
        }
        let words: Vec<String> = compile.arguments.iter().flat_map(Argument::words).collect();
        let separate = words.windows(2).filter(|pair| pair[0] == "-target").map(|pair| pair[1].as_str());
        let joined = words.iter().filter_map(|word| word.strip_prefix("--target="));
        let targets: Vec<&str> = separate.chain(joined).collect();
        // Without one, zig takes the processor, the kernel and the C library that it finds.
        let is_elsewhere = |target: &&str| target.split('-').count() > 1 && !target.contains("native");
        if targets.is_empty() || !targets.iter().all(is_elsewhere) {
            return Err("`zig` without a `-target`: code for this very machine".into());
        }
        if words.iter().any(|word| word.starts_with("-mcpu=native") || word.starts_with("-march=native")) {
            return Err("code for this very processor (`native`)".into());
        }
        if checks_itself(&words) {
            // The checks name the files that they are in, and no map of names reaches them.
            compile.place_matters.get_or_insert(Reason::new("checks that `zig` adds without optimisation"));
        }
        Ok(())
    }
}

/// Whether zig adds `-fsanitize=undefined`, as it does unless there is to be some optimisation.
fn checks_itself(words: &[String]) -> bool {
    let level = words.iter().filter_map(|word| word.strip_prefix("-O")).next_back().unwrap_or_default();
    let is_told_not_to = |word: &String| {
        word.strip_prefix("-fno-sanitize=")
            .is_some_and(|list| list.split(',').any(|name| matches!(name, "undefined" | "all")))
    };
    !matches!(level, "1" | "2" | "3" | "s" | "z" | "fast") && !words.iter().any(is_told_not_to)
}

/// Whether a variable makes zig take its files from elsewhere, or say more than it would.
fn is_told_by(name: &str) -> bool {
    name.starts_with(VARIABLES) && !CACHES.contains(&name)
}

/// Whether a program is one of many tools, by its name.
fn is_multitool(program: &Path) -> bool {
    let name = program.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('-').next() == Some(ZIG)
}

/// The file by which such a program finds its own folder, looked for as it looks; and those that would come before it.
pub(super) fn mark(program: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
    let real = program.canonicalize().ok()?;
    let candidates =
        real.ancestors().skip(1).flat_map(|folder| ["lib/zig", "lib"].map(|lib| folder.join(lib).join(MARK)));
    let mut absent = Vec::new();
    for path in candidates {
        if path.is_file() {
            return Some((path, absent));
        }
        absent.push(path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(program: &str, words: &[&str]) -> Result<(Option<Mode>, usize), Reason> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        Mode::take([Path::new(program); 2], &words).map(|(mode, rest)| (mode, rest.len()))
    }

    #[test]
    fn a_compiler_is_told_from_what_else_such_a_program_does() {
        assert_eq!(taken("/opt/zig/zig", &["c++", "-c", "a.cc"]).unwrap(), (Some(Mode::Cxx), 2));
        assert_eq!(taken("zig-0.13", &["cc"]).unwrap(), (Some(Mode::C), 0));
        assert_eq!(taken("/usr/bin/gcc", &["cc", "-c"]).unwrap(), (None, 2));
        for words in [&["build"][..], &["cc1"], &[]] {
            assert!(taken("zig", words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn only_what_is_for_a_named_target_is_the_same_everywhere() {
        let checked = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            Mode::check(&mut Compile::parse(&words, Path::new("/")).unwrap())
        };
        for line in ["-target x86_64-linux-gnu.2.17 -c a.c", "--target=aarch64-linux-musl -O2 -c a.c"] {
            assert!(checked(line).is_ok(), "{line}");
        }
        assert!(checked("-target x86_64-linux-gnu -c a.c -lm").is_err(), "words for the linker");
        for line in ["-O2 -c a.c", "-target native -c a.c", "-target native-linux-gnu.2.17 -c a.c"] {
            assert!(checked(line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_its_caches_may_be_told() {
        for name in ["ZIG_LIB_DIR", "ZIG_LIBC", "ZIG_VERBOSE_CC"] {
            assert!(is_told_by(name), "{name}");
        }
        for name in ["ZIG_LOCAL_CACHE_DIR", "ZIGZAG", "PATH"] {
            assert!(!is_told_by(name), "{name}");
        }
    }

    #[test]
    fn its_folder_is_the_nearest_with_the_mark() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let [bin, lib] = ["prefix/bin", "prefix/lib/zig/std"].map(|name| base.join(name));
        for made in [&bin, &lib] {
            std::fs::create_dir_all(made).unwrap();
        }
        for made in [bin.join("zig"), lib.join("std.zig")] {
            std::fs::write(made, "").unwrap();
        }
        let before = ["lib/zig", "lib"].map(|name| bin.join(name).join(MARK)).to_vec();
        assert_eq!(mark(&bin.join("zig")), Some((lib.join("std.zig"), before)));
    }

    #[test]
    fn checks_that_name_files_stay_where_the_files_are() {
        let is_of_place = |flags: &str| {
            let words: Vec<String> = format!("-target aarch64-linux-gnu {flags} -c a.c")
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            let mut compile = Compile::parse(&words, Path::new("/")).unwrap();
            Mode::check(&mut compile).unwrap();
            compile.place_matters.is_some()
        };
        for flags in ["", "-g", "-O0", "-Og", "-O", "-O2 -O0"] {
            assert!(is_of_place(flags), "{flags}");
        }
        for flags in
            ["-O1", "-g -O3", "-Os", "-O0 -Ofast", "-fno-sanitize=undefined", "-fno-sanitize=alignment,all"]
        {
            assert!(!is_of_place(flags), "{flags}");
        }
    }
}
