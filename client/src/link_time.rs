//! Link-time optimisation: objects of gcc's that code is made of when all is linked.
//!
//! Such an object says of everything in which file it stands, compressed. That gets into messages of the linking, into files about
//! the compile that the linking is asked for (`-fstack-usage`), and into debug information or checks of a sanitizer that the linking,
//! or another object of it, has; and nowhere else: what is linked is the same, byte by byte. Who says that this is all right (`CASTWORK_SHARE_LTO`) has objects shared in which nothing else tells their folder; whether
//! that is so, the text decides, as it does for other objects.
//!
//! The names of its sections end in a number by chance, so that no two compiles give the same object.

use object::Endianness;
use object::elf::{FileHeader64, SHN_COMMON, SHT_SYMTAB};
use object::read::elf::{FileHeader, Sym};

use crate::command_line::{Argument, Compile};
use crate::debug_names::is_for_linux;
use crate::debug_names::parts::Parts;
use crate::dependencies::position;
use crate::paths::Place;
use crate::reason::Reason;
use crate::toolchain::{Family, Toolchain};

/// Why such objects are right in one folder only, unless they are shared.
pub const STAYS: Reason = Reason::new("link-time optimisation");

/// Why those with debug information are: it names the folder, compressed.
const WITH_DEBUG: Reason = Reason::new("link-time optimisation with debug information");

/// Fewest bytes in the name of a folder that is looked for in objects: shorter ones are there by chance.
const NAME_BYTES_MIN: usize = 4;

/// The first version whose objects may be shared.
const MAJOR_MIN: u32 = 10;

/// Words with which objects are of a form that is not taken apart here, or are ordinary ones after all.
const STAYING: [&str; 3] = ["-m32", "-mx32", "-fno-lto"];

/// The symbol by which linkers know an object without code.
const SLIM: &[u8] = b"__gnu_lto_slim";

/// How the name of a section begins that each such object has, and that the number by chance ends.
const DECLARATIONS: &str = ".gnu.lto_.decls.";

/// How the name of the section begins that says how the object was made, and where in it there is a 1 if it has no code.
const MAKING: &str = ".gnu.lto_.lto.";
const SLIM_AT: usize = 4;

/// The section that holds the words that decide how code is made.
const WORDS: &str = ".gnu.lto_.opts";

/// Debug information, to be put together when all is linked.
const DEBUG: &str = ".gnu.debuglto_";

/// How the names of sections begin that hold what is compiled when all is linked, with where it stands.
const COMPRESSED: &str = ".gnu.lto_";

/// Those of them that are not compressed, and say nothing of that.
const OPEN: [&str; 4] = [WORDS, MAKING, ".gnu.lto_.symtab.", ".gnu.lto_.ext_symtab."];

/// Takes it that the object of a compile is shared among folders, if nothing but link-time optimisation binds it to its own; else
/// says what does.
pub fn share(compile: &mut Compile, toolchain: &Toolchain) {
    if compile.place_matters.as_ref() == Some(&STAYS) {
        compile.place_matters = why_not(compile, toolchain);
    }
}

/// What beside link-time optimisation binds an object to its folder.
fn why_not(compile: &Compile, toolchain: &Toolchain) -> Option<Reason> {
    let is_known = toolchain.family == Family::Gcc
        && toolchain.major >= MAJOR_MIN
        && toolchain.mode.is_none()
        && is_for_linux(&toolchain.frontend);
    if !is_known {
        return Some("link-time optimisation of this compiler".into());
    }
    if compile.has_debug {
        return Some(WITH_DEBUG);
    }
    compile.arguments.iter().find_map(|argument| match argument {
        Argument::Words(words) => {
            let word = words.iter().find(|word| !is_plain_word(word) || STAYING.contains(&word.as_str()))?;
            Some(Reason::of(format!("link-time optimisation with `{word}`")))
        }
        Argument::PrefixMap { .. } => Some("link-time optimisation with a map of paths".into()),
        Argument::SearchDir { .. } | Argument::IncludeFile { .. } | Argument::LinkOnly(_) => None,
    })
}

/// Whether a word, if it is about link-time optimisation, is known to name no file.
fn is_plain_word(word: &str) -> bool {
    let Some(rest) = word.strip_prefix("-flto") else { return true };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match rest.split_once('=') {
        None => rest.is_empty(),
        Some(("", value)) => matches!(value, "auto" | "jobserver") || is_number(value),
        Some(("-compression-level", value)) => is_number(value),
        Some(("-partition", value)) => {
            value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        }
        Some(_) => false,
    }
}

/// Whether the object that came of a compile has no code beside what the linker is to make code of: then the assembler has been
/// given none.
pub fn is_slim(compile: &Compile, object: &[u8]) -> bool {
    let asks_for_code = |argument: &Argument| match argument {
        Argument::Words(words) => words.iter().any(|word| word == "-ffat-lto-objects"),
        _ => false,
    };
    !compile.arguments.iter().any(asks_for_code)
        && has_symbol(object, SLIM).unwrap_or_default()
        && says_that_it_is_slim(object)
}

/// Whether the compiler says so; the symbol alone may be one of the program's.
fn says_that_it_is_slim(object: &[u8]) -> bool {
    Parts::of(object).is_some_and(|parts| {
        let mut made = parts.sections.iter().filter(|section| section.name.starts_with(MAKING));
        made.any(|section| section.contents.get(SLIM_AT) == Some(&1))
    })
}

/// Whether an object says that it has such a symbol, without a place for it.
fn has_symbol(object: &[u8], name: &[u8]) -> Option<bool> {
    let header = FileHeader64::<Endianness>::parse(object).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, object).ok()?;
    let symbols = sections.symbols(endian, object, SHT_SYMTAB).ok()?;
    let is_it = |symbol: &object::elf::Sym64<Endianness>| {
        symbol.st_shndx(endian) == SHN_COMMON
            && symbol.name(endian, symbols.strings()).is_ok_and(|known| known == name)
    };
    Some(symbols.iter().any(is_it))
}

/// Checks an object that is to be shared: it must not have debug information, nor show the names of this place, unless it
/// `may_name` them as far as is known.
///
/// # Errors
/// Why it is not shared.
pub fn check(object: &[u8], place: &Place, may_name: bool) -> Result<(), Reason> {
    let parts =
        Parts::of(object).ok_or(Reason::new("link-time optimisation in an object of an unusual form"))?;
    if parts.sections.iter().any(|section| section.name.starts_with(DEBUG)) {
        return Err(WITH_DEBUG);
    }
    let mut names = place.names().filter(|name| !may_name && name.len() >= NAME_BYTES_MIN);
    if names.any(|name| is_shown_in(&parts, name)) {
        return Err("object that names its folder".into());
    }
    Ok(())
}

/// Whether an object holds a name beside where it says in which file everything stands; `true` if that can't be told.
pub fn shows(object: &[u8], name: &str) -> bool {
    Parts::of(object).is_none_or(|parts| is_shown_in(&parts, name))
}

fn is_shown_in(parts: &Parts<'_>, name: &str) -> bool {
    // What is compressed is in part as it was, if it is short.
    let is_compressed =
        |section: &str| section.starts_with(COMPRESSED) && !OPEN.iter().any(|open| section.starts_with(open));
    let mut open = parts.sections.iter().filter(|section| !is_compressed(section.name));
    open.any(|section| position(section.contents, name.as_bytes()).is_some())
}

/// The number by chance that an object's sections are named by, in the word that has gcc take it again; `None` if there is none.
pub fn seed_of(object: &[u8]) -> Option<String> {
    let parts = Parts::of(object)?;
    let seed = parts.sections.iter().find_map(|section| section.name.strip_prefix(DECLARATIONS))?;
    let is_number = !seed.is_empty() && seed.len() <= 16 && seed.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| format!("-frandom-seed=0x{seed}"))
}

/// Whether an object is what another one would be, had that not been told this word.
pub fn is_same_without(word: &str, object: &[u8], told: &[u8]) -> bool {
    let without = || {
        let parts = Parts::of(told)?;
        let at = parts.sections.iter().position(|section| section.name == WORDS)?;
        let words = parts.sections[at].contents;
        let said = format!(" '{word}'");
        let from = position(words, said.as_bytes())?;
        let left = [&words[..from], &words[from + said.len()..]].concat();
        parts.with([(at, left)])
    };
    without().is_some_and(|without| without == object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_may_name_files_are_not_plain() {
        for word in
            ["-flto", "-flto=auto", "-flto=jobserver", "-flto=8", "-flto-partition=1to1", "-O2", "-fno-lto"]
        {
            assert!(is_plain_word(word), "{word}");
        }
        for word in ["-flto=thin", "-flto=/a/b", "-flto-incremental=/a", "-flto-report", "-flto-partition=/a"]
        {
            assert!(!is_plain_word(word), "{word}");
        }
    }

    #[test]
    fn what_is_no_object_has_neither_code_nor_number() {
        for bytes in [&b""[..], b"\x7fELF", b"__gnu_lto_slim", &[0; 200]] {
            assert_eq!(has_symbol(bytes, SLIM), None);
            assert_eq!(seed_of(bytes), None);
            assert!(!is_same_without("-frandom-seed=0x1", bytes, bytes));
        }
    }
}
