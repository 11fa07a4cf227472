//! The table of compiler flags: how each is spelled, how its value hangs on, and what it means to a cache.
//!
//! A word is looked up by the longest spelling that fits, so a row inside a family (`-fplugin` in `-f`) takes
//! precedence. What no row fits is passed through. A row that changes the key has its test in
//! `tests/key.rs`; a row that claims the object to be the same elsewhere, in `tests/identity.rs`.

/// How a flag's value hangs on its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// No value.
    Exact,
    /// The value is the next word.
    Separate,
    /// The value follows at once, or is the next word.
    Either,
    /// Everything that begins so; the word is taken whole.
    Family,
}

/// Where in the order of searching a folder of headers stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Search {
    /// `-iquote`: for `#include "…"` only, first.
    Quote,
    /// `-I`.
    User,
    /// `-isystem`.
    System,
    /// `-idirafter`: after the compiler's own.
    After,
}

/// What names a prefix map applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maps {
    /// `-fdebug-prefix-map`.
    Debug,
    /// `-fmacro-prefix-map`.
    Macro,
    /// `-ffile-prefix-map`: both.
    File,
}

/// What a flag asks for in the matter of dependency files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// `-MD`: all headers.
    All,
    /// `-MMD`: all but system headers.
    User,
    /// `-MF`: into this file.
    File,
    /// `-MT`: under this target, as it stands.
    Target,
    /// `-MQ`: under this target, quoted for Make.
    QuotedTarget,
    /// `-MP`: with an empty rule for each header.
    Phony,
}

/// What a flag means to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Changes the object, or may: goes into the action as it stands.
    Key,
    /// Changes the object and puts the folder's name into it: in the key with the folder, never run elsewhere.
    Place(&'static str),
    /// Link-time optimisation: as `Place`, unless [`crate::link_time`] finds otherwise.
    LinkTime,
    /// As `Place` with gcc; clang reads further files, so it is passed through.
    Sanitizer,
    /// Matters to the linker alone.
    LinkOnly,
    /// Not something this version is sure of; the text is the reason to count.
    Refuse(&'static str),
    /// A folder of headers.
    SearchDir(Search),
    /// A file that is included first (`-include`, `-imacros`).
    IncludeFile,
    /// `-D` and `-U`.
    Define,
    /// `-x`.
    Language,
    /// `-c`.
    Compile,
    /// `-o`.
    Output,
    /// The `-M` family.
    Dependency(Dependency),
    /// Debug information.
    Debug,
    /// Whether messages are coloured: `None` asks to decide by the terminal.
    Color(Option<bool>),
    /// Renames paths in the object.
    PrefixMap(Maps),
    /// `-arch`: fine once.
    Architecture,
    /// `-Wp,…`: words for the preprocessor.
    ForPreprocessor,
    /// `-Wa,…`: words for the assembler.
    ForAssembler,
}

/// Whether a word that only its beginning tells to be harmless (`-fLATER=VALUE`) has a value that may be a file's name: what a
/// compiler of tomorrow reads from there would not be in the key.
pub fn may_name_file(flag: &Flag, word: &str) -> bool {
    let Some((_, value)) = word.split_once('=').filter(|_| matches!(flag.spelling, "-f" | "-m")) else {
        return false;
    };
    let is_version = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let has_ending = flag.spelling == "-f" && value.contains('.') && !is_version;
    value.contains(['/', '\\']) || has_ending || std::path::Path::new(value).is_file()
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// How it begins.
    pub spelling: &'static str,
    /// Where its value is.
    pub attach: Attach,
    /// What it means.
    pub meaning: Meaning,
}

use Attach::{Either, Exact, Family, Separate};
use Meaning::{Key, LinkOnly, PrefixMap, Refuse};

const fn row(spelling: &'static str, attach: Attach, meaning: Meaning) -> Flag {
    Flag { spelling, attach, meaning }
}

const COVERAGE: Meaning = Refuse("profiling or coverage");
const DUMPS: Meaning = Refuse("dumps of the compiler's insides");
const MODULES: Meaning = Refuse("modules");
const NATIVE: Meaning = Refuse("code for this very processor (`native`)");
const PLUGIN: Meaning = Refuse("compiler plug-in");
const QUESTION: Meaning = Refuse("asks about the compiler");
const OTHER_DEVICE: Meaning = Refuse("code for several devices");
const OTHER_OUTPUT: Meaning = Refuse("writes further files");
const SUBPROGRAM: Meaning = Refuse("words for a sub-program");
const SYSROOT: Meaning = Refuse("another system root");
const LISTS: Meaning = Refuse("reads a list from a file");
const CHARSET: Meaning = Refuse("another character set");
const RECORDS: Meaning = Refuse("records the command line in the object");

/// Every flag that is known.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    // What is done.
    row("-c", Exact, Meaning::Compile),
    row("-o", Either, Meaning::Output),
    row("-E", Exact, Refuse("preprocessing only")),
    row("-S", Exact, Refuse("compiling to assembler only")),
    row("-M", Exact, Refuse("dependencies only")),
    row("-MM", Exact, Refuse("dependencies only")),
    row("-MG", Exact, Refuse("headers that are yet to be made (`-MG`)")),
    row("-MJ", Family, OTHER_OUTPUT),
    row("-fsyntax-only", Exact, Refuse("checking only")),
    row("-x", Either, Meaning::Language),
    row("-v", Exact, QUESTION),
    row("-H", Exact, QUESTION),
    row("-###", Exact, QUESTION),
    row("--version", Family, QUESTION),
    row("--help", Family, QUESTION),
    row("-print-", Family, QUESTION),
    row("--print-", Family, QUESTION),
    row("-d", Family, DUMPS),
    row("-dumpmachine", Exact, QUESTION),
    row("-dumpversion", Exact, QUESTION),
    row("-dumpfullversion", Exact, QUESTION),
    row("-save-temps", Family, OTHER_OUTPUT),
    row("--save-temps", Family, OTHER_OUTPUT),
    row("--coverage", Exact, COVERAGE),
    row("-coverage", Exact, COVERAGE),

    // Dependency files: made when the headers are looked for, so no part of the action.
    row("-MD", Exact, Meaning::Dependency(Dependency::All)),
    row("-MMD", Exact, Meaning::Dependency(Dependency::User)),
    row("-MF", Either, Meaning::Dependency(Dependency::File)),
    row("-MT", Either, Meaning::Dependency(Dependency::Target)),
    row("-MQ", Either, Meaning::Dependency(Dependency::QuotedTarget)),
    row("-MP", Exact, Meaning::Dependency(Dependency::Phony)),

    // The preprocessor.
    row("-D", Either, Meaning::Define),
    row("-U", Either, Meaning::Define),
    row("-undef", Exact, Key),
    row("-trigraphs", Exact, Key),
    row("-I", Either, Meaning::SearchDir(Search::User)),
    row("-I-", Exact, Refuse("`-I-`")),
    row("-iquote", Either, Meaning::SearchDir(Search::Quote)),
    row("-isystem", Either, Meaning::SearchDir(Search::System)),
    row("-isystem-after", Family, Refuse("unknown flag `-isystem-after`")),
    row("-idirafter", Either, Meaning::SearchDir(Search::After)),
    row("-include", Either, Meaning::IncludeFile),
    row("-include-pch", Family, Refuse("precompiled header")),
    row("-imacros", Either, Meaning::IncludeFile),
    row("-nostdinc", Exact, Key),
    row("-nostdinc++", Exact, Key),
    row("-Wp,", Family, Meaning::ForPreprocessor),
    row("-Xpreprocessor", Separate, SUBPROGRAM),

    // The language, warnings, optimisation.
    row("-std=", Family, Key),
    row("-stdlib=", Family, Key),
    row("-ansi", Exact, Key),
    row("-pedantic", Exact, Key),
    row("-pedantic-errors", Exact, Key),
    row("-w", Exact, Key),
    row("-W", Family, Key),
    row("-O", Family, Key),
    row("-Obj", Family, Refuse("Objective-C")),
    row("--param", Separate, Key),
    row("--param=", Family, Key),
    row("-pipe", Exact, Key),
    row("-pthread", Exact, Key),
    row("-p", Exact, Key),
    row("-pg", Exact, Key),
    row("-Xclang", Separate, SUBPROGRAM),
    row("-mllvm", Separate, SUBPROGRAM),
    row("-module", Family, MODULES),

    // The machine.
    row("-m", Family, Key),
    row("-march=native", Family, NATIVE),
    row("-mcpu=native", Family, NATIVE),
    row("-mtune=native", Family, NATIVE),
    row("--target=", Family, Key),
    row("-target", Separate, Key),
    row("-arch", Separate, Meaning::Architecture),
    row("-Xarch", Family, SUBPROGRAM),

    // Code generation and messages: all of `-f`, but for what reads or writes further files.
    row("-f", Family, Key),
    row("-framework", Family, Refuse("frameworks")),
    row("-force_load", Family, Refuse("unknown flag `-force_load`")),
    row("-filelist", Family, LISTS),
    row("-funique-internal-linkage-names", Exact, Meaning::Place("symbols with the name of the source")),
    row("-fplugin", Family, PLUGIN),
    row("-fpass-plugin", Family, PLUGIN),
    row("-fprofile", Family, COVERAGE),
    row("-fno-profile", Family, Key),
    row("-fcs-profile", Family, COVERAGE),
    row("-fauto-profile", Family, COVERAGE),
    row("-fbranch-probabilities", Exact, COVERAGE),
    row("-ftest-coverage", Exact, COVERAGE),
    row("-fcoverage", Family, COVERAGE),
    row("-fcondition-coverage", Exact, COVERAGE),
    row("-fpath-coverage", Family, COVERAGE),
    row("-fdump-", Family, DUMPS),
    row("-fcompare-debug", Family, DUMPS),
    row("-fopt-info", Family, DUMPS),
    row("-fsched-verbose", Family, DUMPS),
    row("-ftime-", Family, DUMPS),
    row("-fmem-report", Family, DUMPS),
    row("-fpre-ipa-mem-report", Exact, DUMPS),
    row("-fpost-ipa-mem-report", Exact, DUMPS),
    row("-fproc-stat-report", Family, DUMPS),
    row("-fself-test", Family, DUMPS),
    row("-fcallgraph-info", Family, OTHER_OUTPUT),
    row("-fstack-usage", Exact, OTHER_OUTPUT),
    row("-fsave-optimization-record", Family, OTHER_OUTPUT),
    row("-foptimization-record", Family, OTHER_OUTPUT),
    row("-fdiagnostics-format=", Family, OTHER_OUTPUT),
    row("-fdiagnostics-format=text", Exact, Key),
    row("-fdiagnostics-add-output=", Family, OTHER_OUTPUT),
    row("-fdiagnostics-set-output=", Family, OTHER_OUTPUT),
    row("-fdeps-", Family, OTHER_OUTPUT),
    row("-fdepfile-entry", Family, OTHER_OUTPUT),
    row("-findex-", Family, OTHER_OUTPUT),
    row("-fcrash-diagnostics", Family, OTHER_OUTPUT),
    row("-fmodule", Family, MODULES),
    row("-fno-module", Family, Key),
    row("-fcxx-modules", Exact, MODULES),
    row("-fimplicit-module", Family, MODULES),
    row("-fprebuilt-", Family, MODULES),
    row("-fbuild-session", Family, MODULES),
    row("-fapinotes", Family, MODULES),
    row("-fpch", Family, Refuse("precompiled header")),
    row("-fpreprocessed", Exact, Refuse("preprocessed source")),
    row("-fdirectives-only", Exact, Refuse("preprocessed source")),
    row("-fembed-", Family, RECORDS),
    row("-frecord-gcc-switches", Exact, RECORDS),
    row("-frecord-command-line", Exact, RECORDS),
    row("-fdebug-compilation-dir", Family, Refuse("another compilation folder")),
    row("-ffile-compilation-dir", Family, Refuse("another compilation folder")),
    row("-fxray-", Family, LISTS),
    row("-fbasic-block-sections=", Family, LISTS),
    row("-finstrument-functions-exclude-file-list", Family, LISTS),
    row("-fthinlto-index", Family, LISTS),
    row("-frewrite-map-file", Family, LISTS),
    row("-fthin-link", Family, OTHER_OUTPUT),
    row("-fno-integrated-as", Exact, Refuse("another assembler")),
    row("-no-integrated-as", Exact, Refuse("another assembler")),
    row("-integrated-as", Exact, Key),
    row("-foffload", Family, OTHER_DEVICE),
    row("-fopenmp-targets", Family, OTHER_DEVICE),
    row("-fcuda", Family, OTHER_DEVICE),
    row("-fgpu", Family, OTHER_DEVICE),
    row("-fsycl", Family, OTHER_DEVICE),
    row("-fuse-ld", Family, LinkOnly),
    row("-finput-charset=", Family, CHARSET),
    row("-finput-charset=UTF-8", Exact, Key),
    row("-finput-charset=utf-8", Exact, Key),
    row("-fexec-charset=", Family, CHARSET),
    row("-fexec-charset=UTF-8", Exact, Key),
    row("-fexec-charset=utf-8", Exact, Key),
    row("-fwide-exec-charset=", Family, CHARSET),
    row("-flto", Family, Meaning::LinkTime),
    row("-fsanitize=", Family, Meaning::Sanitizer),
    row("-fsanitize-", Family, LISTS),
    row("-fsanitize-recover", Family, Meaning::Sanitizer),
    row("-fsanitize-undefined-trap-on-error", Exact, Meaning::Sanitizer),
    row("-fsanitize-address-use-after-scope", Exact, Meaning::Sanitizer),
    row("-fdebug-prefix-map=", Family, PrefixMap(Maps::Debug)),
    row("-fmacro-prefix-map=", Family, PrefixMap(Maps::Macro)),
    row("-ffile-prefix-map=", Family, PrefixMap(Maps::File)),
    row("-fdiagnostics-color", Exact, Meaning::Color(Some(true))),
    row("-fdiagnostics-color=always", Exact, Meaning::Color(Some(true))),
    row("-fdiagnostics-color=never", Exact, Meaning::Color(Some(false))),
    row("-fdiagnostics-color=auto", Exact, Meaning::Color(None)),
    row("-fno-diagnostics-color", Exact, Meaning::Color(Some(false))),
    row("-fcolor-diagnostics", Exact, Meaning::Color(Some(true))),
    row("-fno-color-diagnostics", Exact, Meaning::Color(Some(false))),

    // Debug information.
    row("-g", Family, Meaning::Debug),
    row("-gsplit-dwarf", Family, OTHER_OUTPUT),
    row("-gno-split-dwarf", Exact, Key),
    row("-gmodules", Exact, MODULES),
    row("-gtoggle", Exact, Refuse("`-gtoggle`")),
    row("-gstabs", Family, Refuse("debug information other than DWARF")),
    row("-gxcoff", Family, Refuse("debug information other than DWARF")),
    row("-gvms", Family, Refuse("debug information other than DWARF")),
    row("-gcodeview", Family, Refuse("debug information other than DWARF")),
    row("-gcc-toolchain", Family, Refuse("another toolchain")),
    row("--gcc-toolchain", Family, Refuse("another toolchain")),
    row("-grecord-command-line", Exact, RECORDS),

    // The assembler and the linker.
    row("-Wa,", Family, Meaning::ForAssembler),
    row("-Xassembler", Separate, SUBPROGRAM),
    row("-Wl,", Family, LinkOnly),
    row("-Xlinker", Separate, SUBPROGRAM),
    row("-L", Either, LinkOnly),
    row("-l", Either, LinkOnly),
    row("-s", Exact, Key),
    row("-pie", Exact, Key),
    row("-no-pie", Exact, Key),
    row("-static", Exact, Key),
    row("-static-pie", Exact, Key),
    row("-static-libgcc", Exact, Key),
    row("-static-libstdc++", Exact, Key),
    row("-shared", Exact, Key),
    row("-shared-libgcc", Exact, Key),
    row("-rdynamic", Exact, Key),
    row("-nostdlib", Exact, Key),
    row("-nostdlib++", Exact, Key),
    row("-nodefaultlibs", Exact, Key),
    row("-nostartfiles", Exact, Key),

    // Where the compiler's own parts are.
    row("-B", Either, Refuse("another place for the compiler's parts (`-B`)")),
    row("-specs", Family, Refuse("specs from a file")),
    row("--specs", Family, Refuse("specs from a file")),
    row("--sysroot", Family, SYSROOT),
    row("-isysroot", Family, SYSROOT),
    row("-wrapper", Separate, SUBPROGRAM),
    row("-no-integrated-cpp", Exact, SUBPROGRAM),
    row("-resource-dir", Family, Refuse("another place for the compiler's parts")),
    row("--config", Family, Refuse("configuration from a file")),
];

/// Returns the row for a word that begins with `-`, if one is known.
pub fn find(word: &str) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .filter(|flag| match flag.attach {
            Attach::Exact | Attach::Separate => word == flag.spelling,
            Attach::Either | Attach::Family => word.starts_with(flag.spelling),
        })
        .max_by_key(|flag| (flag.spelling.len(), matches!(flag.attach, Attach::Exact | Attach::Separate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_is_there_once() {
        for (at, flag) in FLAGS.iter().enumerate() {
            let twin = FLAGS[at + 1..].iter().find(|other| other.spelling == flag.spelling);
            assert!(twin.is_none(), "`{}` has two rows", flag.spelling);
        }
    }

    #[test]
    fn the_longest_spelling_wins() {
        assert_eq!(find("-fplugin=x.so").unwrap().meaning, PLUGIN);
        assert_eq!(find("-fpic").unwrap().meaning, Key);
        assert_eq!(find("-march=native").unwrap().meaning, NATIVE);
        assert_eq!(find("-march=x86-64-v3").unwrap().meaning, Key);
        assert_eq!(find("-I-").unwrap().meaning, Refuse("`-I-`"));
        assert_eq!(find("-MD").unwrap().meaning, Meaning::Dependency(Dependency::All));
        assert_eq!(find("-fdiagnostics-format=json").unwrap().meaning, OTHER_OUTPUT);
    }

    #[test]
    fn what_nobody_has_described_is_not_known() {
        for word in ["-Z", "--foo", "-q", "-Fframeworks", "-emit-llvm", "-ccc-print", "-nothing", "-"] {
            let known = find(word).map(|flag| flag.spelling);
            assert!(known.is_none(), "`{word}` is taken for `{known:?}`");
        }
    }
}
