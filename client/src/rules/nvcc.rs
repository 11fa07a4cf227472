//! What is known of `nvcc`: which of its calls are understood, and what in them depends on more than is seen.
//!
//! It writes commands and gives them to a shell, which replaces variables in them; it names its temporary files by the
//! number of its process, lists their folder to find those of its own that are left, and has its sources preprocessed into
//! files that it removes.

use std::collections::BTreeSet;
use std::path::Path;

use super::asked::Asked;
use super::castxml;
use super::globs::fits;
use super::keeping::read_begin;
use super::rule::Rule;
use super::survey::{joined, parent_of};
use crate::dependencies::{like_dates, reads_like_now};
use crate::local::Deeds;
use crate::reason::Reason;

/// Words with which a call ends before something is linked.
const PHASES: [&str; 16] = [
    "-c",
    "--compile",
    "-dc",
    "--device-c",
    "-dw",
    "--device-w",
    "-ptx",
    "--ptx",
    "-cubin",
    "--cubin",
    "-fatbin",
    "--fatbin",
    "-optix-ir",
    "--optix-ir",
    "-ltoir",
    "--ltoir",
];

/// Variables whose values it writes into the commands that it gives to a shell; the last are names of its profile.
pub const WRITTEN: [&str; 19] = [
    "NVCC_*",
    "TMPDIR",
    "compiler-bindir",
    "INCLUDES",
    "SYSTEM_INCLUDES",
    "LIBRARIES",
    "CUDAFE_FLAGS",
    "PTXAS_FLAGS",
    "OCG_FLAGS",
    "NVVM_FLAGS",
    "LLVMC_FLAGS",
    "LLVMDIS_FLAGS",
    "NVASM_FLAGS",
    "NVDISASM_FLAGS",
    "NVLINK_FLAGS",
    "CICC_PATH",
    "NVVMIR_LIBRARY_DIR",
    "TOP",
    "_*_",
];

/// Variables in which there are words for it.
const FLAGS: [&str; 2] = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

/// A variable by which clang replaces words of its call.
const CHANGES_WORDS: &str = "CCC_OVERRIDE_OPTIONS";

/// What has a shell put in what isn't seen, or run more than one command.
const FOR_SHELL: [char; 9] = ['$', '`', ';', '|', '&', '<', '>', '~', '\n'];

/// Beginnings of words for compilers that ask for what isn't seen: when files were changed, how long something took, the
/// code of others; or for files that are read when the sources are preprocessed already.
const UNSEEN: [&str; 10] = [
    // It reads any variable, and holds more words.
    "-specs",
    "-statistics",
    "-fmodules",
    "-fcxx-modules",
    "-ftime-report",
    "-fmem-report",
    "-ftime-trace",
    "-fplugin",
    "-include",
    "-imacros",
];

/// Its own flags that begin like such a word: what they name is read, or searched, when the sources are preprocessed.
const PRE_INCLUDE: &str = "-include";
const INCLUDE_PATH: &str = "--include-path";

/// A word for compilers with which they say how long they took.
const TALKS: &str = "-Q";

/// How words begin that are handed on to the assembler, whose listings hold the time.
const TO_ASSEMBLER: [&str; 2] = ["-Wa", "-Xassembler"];
const LISTING: &str = "-a";

/// Flags whose values are words for the compiler.
const TO_COMPILER: [&str; 2] = ["-Xcompiler", "--compiler-options"];

/// The folder of headers that are read when the sources are preprocessed already.
const LATE_HEADERS: &str = "/crt/";

/// The file beside the program that says where its parts are.
const PROFILE: &str = "nvcc.profile";

/// How its temporary files are called.
const TEMPORARY: &str = "tmpxft_*";

/// Endings of sources of which it makes an object each.
const SOURCES: [&str; 8] = [".cu", ".c", ".cc", ".cpp", ".cxx", ".c++", ".i", ".ii"];

/// Marks of a text in which words may hold blanks.
const QUOTES: [char; 3] = ['"', '\'', '\\'];

/// Checks that a call is one that is understood, before it is made in a folder.
///
/// # Errors
/// The reason to pass it through.
pub fn check_call(rule: &Rule, program: &Path, words: &[String], folder: &str) -> Result<(), Reason> {
    if !words.iter().any(|word| PHASES.contains(&word.as_str())) {
        return Err("nvcc without `-c` or the like".into());
    }
    if read_begin(program) == *b"#!" {
        return Err("nvcc that is a script".into());
    }
    if folder.contains(FOR_SHELL) {
        return Err("folder in whose name a shell would replace something".into());
    }
    if std::env::var_os(CHANGES_WORDS).is_some_and(|value| !value.is_empty()) {
        return Err(Reason::of(format!("`{CHANGES_WORDS}` is set")));
    }
    let is_written = |name: &str| WRITTEN.iter().any(|pattern| fits(pattern, name));
    for (name, value) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_written)) {
        let (name, value) = (name.display(), value.to_string_lossy());
        if value.contains(FOR_SHELL) {
            return Err(Reason::of(format!("`{name}` in which a shell would replace something")));
        }
        if !FLAGS.iter().any(|flags| name.to_string() == *flags) {
            check_words(rule, &parts(&value), false)?;
        } else if value.contains(QUOTES) {
            return Err(Reason::of(format!("`{name}` with quotes")));
        }
    }
    check_words(rule, &with_variables(words), true)
}

/// The words of a call, with those in variables.
fn with_variables(words: &[String]) -> Vec<String> {
    let of_variables = FLAGS.iter().filter_map(|name| std::env::var(name).ok());
    words.iter().cloned().chain(of_variables.flat_map(|text| parts(&text))).collect()
}

/// Checks that no word asks for what nobody sees: words for nvcc itself, or such as it hands on to others as they are.
fn check_words(rule: &Rule, words: &[String], are_its_own: bool) -> Result<(), Reason> {
    for (at, word) in words.iter().enumerate() {
        if word.contains(FOR_SHELL) {
            return Err("word in which a shell would replace something".into());
        }
        let word = word.replace(QUOTES, "");
        let is_refused = |word: &str| rule.refused.iter().any(|refused| word.starts_with(refused.as_str()));
        if is_refused(&word) {
            return Err(Reason::of(format!("`{word}`")));
        }
        let before = at.checked_sub(1).map(|at| words[at].as_str());
        let is_for_compiler = before.is_some_and(|before| TO_COMPILER.contains(&before));
        if word == PRE_INCLUDE && are_its_own && !is_for_compiler {
            continue;
        }
        let is_path = are_its_own && !is_for_compiler && word.split('=').next() == Some(INCLUDE_PATH);
        if !is_path {
            check_pieces(&word)?;
        }
    }
    let is_source = |word: &&String| SOURCES.iter().any(|ending| word.replace(QUOTES, "").ends_with(ending));
    if words.iter().filter(is_source).count() > 1 {
        return Err("more than one source".into());
    }
    Ok(())
}

/// Checks what a word holds for compilers, however it is handed on to them.
fn check_pieces(word: &str) -> Result<(), Reason> {
    let mut is_for_assembler = false;
    for piece in word.split([',', '=', ':', ' ', '\t']) {
        if piece == "native" {
            return Err("word that asks for what this machine is (`native`)".into());
        }
        if piece.starts_with('@') {
            return Err("file of words for the compiler".into());
        }
        // gcc takes many of its flags with two as well.
        let single = if piece.starts_with("--") { &piece[1..] } else { piece };
        let is_unseen = UNSEEN.iter().any(|begin| single.starts_with(begin))
            || piece == TALKS
            || (is_for_assembler && single.starts_with(LISTING));
        if is_unseen {
            return Err(Reason::of(format!("`{piece}`")));
        }
        is_for_assembler |= TO_ASSEMBLER.contains(&piece);
    }
    Ok(())
}

/// Checks a run that has ended, of which it is known between which instants it was made, in seconds since 1970.
///
/// # Errors
/// The reason to keep nothing.
pub fn check(asked: &Asked, deeds: &Deeds, seconds: (u64, u64)) -> Result<(), Reason> {
    if deeds.read.iter().any(|path| path.contains(FOR_SHELL)) {
        return Err("file in whose name a shell would replace something".into());
    }
    for path in deeds.read.iter().filter(|path| path.rsplit('/').next() == Some(PROFILE)) {
        let text = std::fs::read_to_string(path).map_err(|_| Reason::new("`nvcc.profile` can't be read"))?;
        check_profile(&asked.rule, &text)?;
    }
    let late = || deeds.read.iter().filter(|path| path.contains(LATE_HEADERS));
    // One of the project's that comes first may include anything.
    let folders: BTreeSet<&str> = late().filter_map(|path| path.split(LATE_HEADERS).next()).collect();
    if folders.len() > 1 {
        return Err("headers in a second folder `crt`".into());
    }
    for path in late() {
        let bytes = std::fs::read(path).map_err(|_| Reason::new("file that can't be read"))?;
        if castxml::may_hold_date(&bytes) {
            return Err("file that may ask for the date".into());
        }
    }
    check_all_words(asked)?;
    check_date(deeds, seconds)
}

/// Checks the words of a call, with those in variables and in files that these name.
fn check_all_words(asked: &Asked) -> Result<(), Reason> {
    let mut all = with_variables(&asked.words);
    for file in files_of_words(&all) {
        let text = std::fs::read_to_string(asked.place.absolute(&file));
        let text = text.map_err(|_| Reason::new("file of words that can't be read"))?;
        if text.contains(QUOTES) {
            return Err("file of words with quotes".into());
        }
        let more = parts(&text);
        if !files_of_words(&more).is_empty() {
            return Err("file of words that names another".into());
        }
        all.extend(more);
    }
    check_words(&asked.rule, &all, true)
}

/// The files of words that are named: `-optf FILE,FILE` and `--options-file=FILE`.
fn files_of_words(words: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    for (at, word) in words.iter().enumerate() {
        for flag in ["-optf", "--options-file"] {
            let list = match word.strip_prefix(flag) {
                Some("") => words.get(at + 1).map(String::as_str),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            files.extend(list.into_iter().flat_map(|list| list.split(',')).map(str::to_owned));
        }
    }
    files
}

/// Checks that the profile names no variable but those that count.
fn check_profile(rule: &Rule, text: &str) -> Result<(), Reason> {
    let unknown = |what: &str| Reason::of(format!("`{PROFILE}` with `{what}`"));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').ok_or_else(|| unknown(line))?;
        let name = name.trim_end_matches(['+', '?', ' ', '\t']);
        if !rule.reads(name) {
            return Err(unknown(name));
        }
        let mut plain = String::new();
        let mut rest = value;
        while let Some((before, behind)) = rest.split_once('$') {
            let (name, after) = behind
                .strip_prefix('(')
                .and_then(|inner| inner.split_once(')'))
                .ok_or_else(|| unknown(line))?;
            if !rule.reads(name) {
                return Err(unknown(name));
            }
            plain.push_str(before);
            rest = after;
        }
        plain.push_str(rest);
        check_words(rule, &parts(&plain), false)?;
    }
    Ok(())
}

/// Checks that what the sources came to is known, and doesn't hold the date or time of the run.
fn check_date(deeds: &Deeds, seconds: (u64, u64)) -> Result<(), Reason> {
    let mut is_known = deeds.has_read_preprocessed;
    let mut shows_now = deeds.dates.iter().any(|date| reads_like_now(date, seconds));
    for path in deeds.made.iter().filter(|path| Deeds::is_preprocessed(path)) {
        let text = std::fs::read(path).map_err(|_| Reason::new("output that can't be read"))?;
        shows_now |= like_dates(&text).any(|date| reads_like_now(date, seconds));
        is_known = true;
    }
    match () {
        () if shows_now => Err("source that may ask for the date".into()),
        () if !is_known => Err("nvcc that was not seen to preprocess".into()),
        () => Ok(()),
    }
}

/// Whether a folder was listed only to find temporary files that are left: nothing that is made comes of it.
pub fn looks_for_its_own(asked: &Asked, deeds: &Deeds, folder: &str) -> bool {
    let is_own = |path: &String| {
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        parent_of(path) == folder && fits(TEMPORARY, name) && joined(folder, name) == *path
    };
    asked.rule.is_nvcc
        && deeds.listed_by_itself.contains(folder)
        && !deeds.listed.contains(folder)
        && deeds.ever_made.iter().any(is_own)
}

fn parts(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::shipped;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn judged(line: &str) -> Option<String> {
        let rule = shipped::find("nvcc").unwrap();
        check_words(&rule, &words(line), true).err().map(|reason| reason.to_string())
    }

    #[test]
    fn words_are_judged_however_they_are_joined() {
        for line in [
            "-arch native",
            "--gpu-architecture=native",
            "-gencode arch=native,code=sm_80",
            "-Xcompiler -O2,-march=native",
            "-Xcompiler=-mtune='native'",
            "-DX=$Y",
            "-Xcompiler -DX=~",
            "-Xcompiler -include,x.h",
            "--compiler-options -include",
            "-Xcompiler=-includex.h",
            "-imacros x.h",
            "-time=x",
            "a.cu b.cu",
            "a.cu b.ii",
            "a.cu b.\"cpp\"",
            "--compiler-options -O2\t@x",
            "-Xcompiler \"@x\"",
            "-Xcompiler=@x",
            "-Xcompiler --include,x.h",
            "-Xcompiler --include=x.h",
            "-forward-unknown-to-host-compiler -Wp,--imacros,x.h",
            "-Xcompiler -specs=x",
            "-Xcompiler --specs=x",
            "-Xcompiler -Q",
            "-Xcompiler -Xassembler,-ag=x",
            "-Wa,-agn=x",
            "-Xcompiler -Wa\\\\,--statistics",
        ] {
            assert!(judged(line).is_some(), "{line}");
        }
        for line in [
            "-arch=sm_80 -c a.cu",
            "-include x.h -c a.cu",
            "--include-path include -c a.cu",
            "--include-path=include -c a.cu",
            "-gencode=arch=compute_80,code=[compute_80,sm_80] -c native.cu",
            "--compiler-options '-fPIC' -DX=\"y\" -I../native/x -t 4",
        ] {
            assert_eq!(judged(line), None, "{line}");
        }
    }

    #[test]
    fn files_of_words_are_found_however_they_are_named() {
        for line in ["-optf a,b", "-optf=a,b", "--options-file a,b", "--options-file=a,b"] {
            assert_eq!(files_of_words(&words(line)), ["a", "b"], "{line}");
        }
        assert!(files_of_words(&words("-o a@b -optfx")).is_empty());
    }

    #[test]
    fn a_profile_names_what_counts_and_nothing_else() {
        let rule = shipped::find("nvcc").unwrap();
        let is_known = |text: &str| check_profile(&rule, text).is_ok();
        // As NVIDIA writes it.
        assert!(is_known(
            "TOP              = $(_HERE_)/..\n\nPATH += $(CICC_PATH):$(_HERE_):\nLIBRARIES =+ $(_SPACE_) \"-L$(TOP)/$(_TARGET_DIR_)/lib$(_TARGET_SIZE_)/stubs\"\nCUDAFE_FLAGS    +=\n"
        ));
        for line in [
            "MINE = x",
            "INCLUDES += \"-I$(MINE)\"",
            "INCLUDES += \"-I$MINE\"",
            "INCLUDES += \"-I$(MINE\"",
            "INCLUDES += `id`",
            "INCLUDES += -march=native",
            "INCLUDES += -include x.h",
            "INCLUDES += @x",
            "anything",
        ] {
            assert!(!is_known(line), "{line}");
        }
    }
}
