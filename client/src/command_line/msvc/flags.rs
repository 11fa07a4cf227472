//! The table of flags of MSVC's `cl`, as `clang-cl` takes them: each without its `/` or `-`.
//!
//! A word is looked up by the longest spelling that fits. What no row fits is passed through, and so is what clang-cl
//! only says that it ignores: its words about that hold the command. A row that changes the key has its test in
//! `tests/msvc_key.rs`.

use crate::command_line::Language;

/// How a flag's value hangs on its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// No value.
    Exact,
    /// The value follows at once.
    Joined,
    /// The value follows at once, or is the next word.
    Either,
    /// Everything that begins so; the word is taken whole.
    Family,
}

/// What a flag means to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Changes the object or the messages, or may: in the key as it stands.
    Key,
    /// Nothing to an object.
    Nothing,
    /// Not something this version is sure of; the text is the reason to count.
    Refuse(&'static str),
    /// `/c`.
    Compile,
    /// `/Fo` and `-o`.
    Output,
    /// `/TC` and `/TP`: all sources are of this language.
    Language(Language),
    /// `/Tc` and `/Tp`: a source, and its language.
    Source(Language),
    /// `/D`.
    Define,
    /// `/U`.
    Undefine,
    /// `/I`.
    SearchDir,
    /// `/external:I`: a folder of the system's headers.
    ExternalDir,
    /// `/imsvc`: a folder of the system's headers, in the midst of the compiler's own.
    OwnDir,
    /// `/FI`: a file that is included first.
    IncludeFile,
    /// `/Z7`: debug information, in the object.
    Debug,
    /// `/Zi`: the same to clang-cl; to cl, debug information in a file of many compiles.
    DebugFile,
    /// `/winsysroot` and the like: a folder in which clang-cl chooses folders of headers by what is in it.
    Root,
    /// `/clang:`: a word for clang as it is without this table.
    Clang,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// How it begins, behind `/` or `-`.
    pub spelling: &'static str,
    /// Where its value is.
    pub attach: Attach,
    /// What it means.
    pub meaning: Meaning,
}

use Attach::{Either, Exact, Family, Joined};
use Meaning::{Key, Nothing, Refuse};

const fn row(spelling: &'static str, attach: Attach, meaning: Meaning) -> Flag {
    Flag { spelling, attach, meaning }
}

const LISTING: Meaning = Refuse("listing of assembler (`/FA`)");
const LINKING: Meaning = Refuse("linking");
const OTHER_OUTPUT: Meaning = Refuse("writes further files");
const PRECOMPILED: Meaning = Refuse("precompiled header");
const PREPROCESSING: Meaning = Refuse("preprocessing only");
const QUESTION: Meaning = Refuse("asks about the compiler");

/// Every flag that is known.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    // What is done.
    row("c", Exact, Meaning::Compile),
    row("Fo", Joined, Meaning::Output),
    row("o", Either, Meaning::Output),
    row("TC", Exact, Meaning::Language(Language::C)),
    row("TP", Exact, Meaning::Language(Language::Cxx)),
    row("Tc", Either, Meaning::Source(Language::C)),
    row("Tp", Either, Meaning::Source(Language::Cxx)),
    row("nologo", Exact, Nothing),
    row("showIncludes", Exact, Key),
    row("showIncludes:user", Exact, Key),
    row("E", Exact, PREPROCESSING),
    row("EP", Exact, PREPROCESSING),
    row("P", Exact, PREPROCESSING),
    row("Fi", Family, PREPROCESSING),
    row("Zs", Exact, Refuse("checking only")),
    row("?", Exact, QUESTION),
    row("help", Exact, QUESTION),
    row("HELP", Exact, QUESTION),
    row("v", Exact, QUESTION),
    row("###", Exact, QUESTION),
    row("-version", Exact, QUESTION),
    row("link", Exact, LINKING),
    row("LD", Exact, LINKING),
    row("LDd", Exact, LINKING),
    row("Fe", Family, LINKING),
    row("Fm", Family, LINKING),
    row("MP", Family, Refuse("several compiles at once (`/MP`)")),
    row("FA", Family, LISTING),
    row("Fa", Family, LISTING),
    row("FR", Family, OTHER_OUTPUT),
    row("Fr", Family, OTHER_OUTPUT),
    row("sourceDependencies", Family, OTHER_OUTPUT),
    row("doc", Family, OTHER_OUTPUT),
    row("Yc", Family, PRECOMPILED),
    row("Yu", Family, PRECOMPILED),
    row("Fp", Family, PRECOMPILED),
    row("Y-", Exact, Key),
    row("GL", Exact, Refuse("link-time optimisation")),
    row("clr", Family, Refuse("code for .NET")),
    row("ZW", Family, Refuse("code for .NET")),
    row("Zg", Exact, Refuse("checking only")),

    // The preprocessor. The order of `/imsvc` among the compiler's own folders is kept by asking with it.
    row("D", Either, Meaning::Define),
    row("U", Either, Meaning::Undefine),
    row("u", Exact, Refuse("unknown flag `/u`")),
    row("I", Either, Meaning::SearchDir),
    row("external:I", Either, Meaning::ExternalDir),
    row("imsvc", Either, Meaning::OwnDir),
    row("FI", Either, Meaning::IncludeFile),
    row("X", Exact, Key),
    row("winsysroot", Either, Meaning::Root),
    row("winsdkdir", Either, Meaning::Root),
    row("winsdkversion", Either, Key),
    row("vctoolsdir", Either, Meaning::Root),
    row("vctoolsversion", Either, Key),
    row("source-charset:utf-8", Exact, Key),
    row("execution-charset:utf-8", Exact, Key),
    row("utf-8", Exact, Key),
    row("validate-charset", Family, Key),

    // The language, messages.
    row("std:", Family, Key),
    row("permissive", Exact, Key),
    row("permissive-", Exact, Key),
    row("Zc:", Family, Key),
    row("J", Exact, Key),
    row("FC", Exact, Key),
    row("FS", Exact, Nothing),
    row("Fd", Joined, Nothing),
    row("diagnostics:", Family, Key),
    row("errorReport:", Family, Key),
    row("analyze-", Exact, Key),
    row("W0", Exact, Key),
    row("W1", Exact, Key),
    row("W2", Exact, Key),
    row("W3", Exact, Key),
    row("W4", Exact, Key),
    row("Wall", Exact, Key),
    row("WX", Exact, Key),
    row("WX-", Exact, Key),
    row("w", Exact, Key),
    row("wd", Joined, Key),
    row("we", Joined, Key),
    row("wo", Joined, Key),
    row("w1", Joined, Key),
    row("w2", Joined, Key),
    row("w3", Joined, Key),
    row("w4", Joined, Key),

    // Code.
    row("O1", Exact, Key),
    row("O2", Exact, Key),
    row("Ob0", Exact, Key),
    row("Ob1", Exact, Key),
    row("Ob2", Exact, Key),
    row("Od", Exact, Key),
    row("Og", Exact, Key),
    row("Oi", Exact, Key),
    row("Oi-", Exact, Key),
    row("Os", Exact, Key),
    row("Ot", Exact, Key),
    row("Ox", Exact, Key),
    row("Oy", Exact, Key),
    row("Oy-", Exact, Key),
    row("MD", Exact, Key),
    row("MDd", Exact, Key),
    row("MT", Exact, Key),
    row("MTd", Exact, Key),
    row("EH", Family, Key),
    row("GR", Exact, Key),
    row("GR-", Exact, Key),
    row("GS", Exact, Key),
    row("GS-", Exact, Key),
    row("Gs", Family, Key),
    row("GF", Exact, Key),
    row("GF-", Exact, Key),
    row("GX", Exact, Key),
    row("GX-", Exact, Key),
    row("Gd", Exact, Key),
    row("Gr", Exact, Key),
    row("Gv", Exact, Key),
    row("Gz", Exact, Key),
    row("Gw", Exact, Key),
    row("Gw-", Exact, Key),
    row("Gy", Exact, Key),
    row("Gy-", Exact, Key),
    row("guard:", Family, Key),
    row("RTC", Family, Key),
    row("sdl", Exact, Key),
    row("sdl-", Exact, Key),
    row("fp:", Family, Key),
    row("arch:", Family, Key),
    row("volatile:iso", Exact, Key),
    row("volatile:ms", Exact, Key),
    row("vd", Joined, Key),
    row("vmb", Exact, Key),
    row("vmg", Exact, Key),
    row("vmm", Exact, Key),
    row("vms", Exact, Key),
    row("vmv", Exact, Key),
    row("Zl", Exact, Key),
    row("Zm", Family, Key),
    row("Zp", Family, Key),
    row("bigobj", Exact, Key),
    row("Brepro", Exact, Key),
    row("Brepro-", Exact, Key),
    row("cgthreads", Joined, Key),
    row("hotpatch", Exact, Key),
    row("kernel-", Exact, Key),
    row("QIntel-jcc-erratum", Exact, Key),
    row("openmp", Family, Refuse("OpenMP (`/openmp`)")),
    row("fsanitize", Family, Refuse("sanitizers of clang")),

    // Debug information.
    row("Z7", Exact, Meaning::Debug),
    row("Zi", Exact, Meaning::DebugFile),
    row("ZI", Exact, Refuse("debug information for editing while running (`/ZI`)")),
    row("Zo", Exact, Key),
    row("Zo-", Exact, Key),
    row("JMC", Exact, Refuse("names of files in symbols (`/JMC`)")),

    row("clang:", Joined, Meaning::Clang),
];

/// Returns the row for a word without its first sign, if one is known.
pub fn find(word: &str) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .filter(|flag| match flag.attach {
            Attach::Exact => word == flag.spelling,
            Attach::Joined => word.len() > flag.spelling.len() && word.starts_with(flag.spelling),
            Attach::Either | Attach::Family => word.starts_with(flag.spelling),
        })
        .max_by_key(|flag| (flag.spelling.len(), flag.attach == Attach::Exact))
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
    fn the_longest_spelling_wins_and_letters_count() {
        assert_eq!(find("MDd").unwrap().spelling, "MDd");
        assert_eq!(find("FIx.h").unwrap().meaning, Meaning::IncludeFile);
        assert_eq!(find("Fix").unwrap().meaning, PREPROCESSING);
        assert_eq!(find("wd4996").unwrap().spelling, "wd");
        for word in ["md", "Wv:18", "O3", "Wno-x", "Zd", "Ge", "home/me/a.cc", "Fo", ""] {
            assert!(find(word).is_none(), "`{word}` is taken for {:?}", find(word));
        }
    }
}
