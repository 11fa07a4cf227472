//! The table of paths, and all that says where in it something is.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{
    EM_X86_64, R_AARCH64_ABS32, R_X86_64_32, SHF_MERGE, SHF_STRINGS, SHT_RELA, SHT_SYMTAB, STT_SECTION,
};

use super::parts::{Parts, u32_at, u64_at};

/// Its name.
pub(super) const NAME: &str = ".debug_line_str";

/// Most bytes of a table.
const TABLE_BYTES_MAX: usize = 16 << 20;

const SYMBOL_BYTES: usize = 24;
const RELOCATION_BYTES: usize = 24;
const ADDEND_AT: usize = 16;

/// The sections that may name paths.
const NAMING: [&str; 2] = [".debug_info", ".debug_line"];

/// The slots of the table in which gcc keeps its own paths.
const SLOTS: u32 = 13;

/// The texts of the table, in order.
struct Table<'a> {
    /// Each with where it begins.
    texts: Vec<(usize, &'a str)>,
}

/// What says where in the table something is.
struct Reference {
    /// In which section of relocations.
    section: usize,
    /// Where the addend is in that.
    at: usize,
    /// What it says: the beginning of a text.
    to: usize,
    /// Whether it is of `.debug_info`.
    is_of_info: bool,
}

/// Replaces paths in an object's table. `None` if something about it is not understood.
pub(super) fn rename(parts: &Parts<'_>, rename: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    let mut found = (1..parts.sections.len()).filter(|at| parts.sections[*at].name == NAME);
    let Some(at) = found.next() else {
        // Nothing that had debug information to tell.
        return if parts.debug().next().is_none() { parts.with(None) } else { None };
    };
    let section = &parts.sections[at];
    let is_usual = section.flags == u64::from(SHF_MERGE | SHF_STRINGS);
    if found.next().is_some() || !is_usual {
        return None;
    }
    let table = Table::of(section.contents)?;
    let references = references(parts, at)?;
    let begins: BTreeSet<usize> = table.texts.iter().map(|(begin, _)| *begin).collect();
    // What nobody refers to is no path of the compiler's.
    let named: BTreeSet<usize> = references.iter().map(|reference| reference.to).collect();
    if named != begins {
        return None;
    }
    let renamed = table.texts.iter().map(|(begin, text)| {
        let name = if text.starts_with('/') { rename(text)? } else { (*text).to_owned() };
        Some((*begin, name))
    });
    let mut renamed: Vec<(usize, String)> = renamed.collect::<Option<_>>()?;
    order(&table, &mut renamed, &references);
    let mut contents = Vec::with_capacity(section.contents.len());
    let mut places = BTreeMap::new();
    for (begin, name) in &renamed {
        places.insert(*begin, contents.len());
        contents.extend_from_slice(name.as_bytes());
        contents.push(0);
        if contents.len() > TABLE_BYTES_MAX {
            return None;
        }
    }
    let mut changed: BTreeMap<usize, Vec<u8>> = BTreeMap::from([(at, contents)]);
    for reference in &references {
        let relocations = changed
            .entry(reference.section)
            .or_insert_with(|| parts.sections[reference.section].contents.to_vec());
        let to = u64::try_from(places[&reference.to]).ok()?;
        relocations[reference.at..reference.at + 8].copy_from_slice(&to.to_le_bytes());
    }
    parts.with(changed)
}

impl<'a> Table<'a> {
    fn of(contents: &'a [u8]) -> Option<Self> {
        let mut texts = Vec::new();
        let mut begin = 0;
        for text in contents.strip_suffix(b"\0")?.split(|byte| *byte == 0) {
            texts.push((begin, std::str::from_utf8(text).ok()?));
            begin += text.len() + 1;
        }
        Some(Self { texts })
    }
}

/// All that says where in the table something is.
fn references(parts: &Parts<'_>, table: usize) -> Option<Vec<Reference>> {
    let mut symbols = BTreeSet::new();
    for section in parts.sections.iter().filter(|section| section.kind == SHT_SYMTAB) {
        for (number, symbol) in section.contents.chunks_exact(SYMBOL_BYTES).enumerate() {
            let of = usize::from(u16::from_le_bytes(symbol[6..8].try_into().ok()?));
            if of != table {
                continue;
            }
            if symbol[4] & 0xf != STT_SECTION || u64_at(symbol, 8)? != 0 {
                return None;
            }
            symbols.insert(u32::try_from(number).ok()?);
        }
    }
    let kind = if parts.machine == EM_X86_64 { R_X86_64_32 } else { R_AARCH64_ABS32 };
    let mut references = Vec::new();
    for (section, relocations) in parts.sections.iter().enumerate() {
        if relocations.kind != SHT_RELA {
            continue;
        }
        let of = parts.sections.get(relocations.info as usize)?.name;
        for (number, relocation) in relocations.contents.chunks_exact(RELOCATION_BYTES).enumerate() {
            if !symbols.contains(&u32_at(relocation, 12)?) {
                continue;
            }
            if !NAMING.contains(&of) || u32_at(relocation, 8)? != kind {
                return None;
            }
            let to = usize::try_from(u64_at(relocation, ADDEND_AT)?).ok()?;
            let at = number * RELOCATION_BYTES + ADDEND_AT;
            references.push(Reference { section, at, to, is_of_info: of == NAMING[0] });
        }
    }
    Some(references)
}

/// Puts gcc's own two paths, the source and the working folder, into the order in which it would have written them.
///
/// They come before the assembler's, by where they are in a table that is hashed. If the old names don't stand in that
/// order, it is another gcc, and the order stays: to who reads them it is all one.
fn order(table: &Table<'_>, renamed: &mut [(usize, String)], references: &[Reference]) {
    let mut own: Vec<&Reference> = references.iter().filter(|reference| reference.is_of_info).collect();
    own.sort_by_key(|reference| reference.at);
    let [source, folder] = own[..] else { return };
    let (Some(first), Some(second)) = (table.texts.first(), table.texts.get(1)) else { return };
    let is_shared =
        references.iter().any(|other| !other.is_of_info && (other.to == first.0 || other.to == second.0));
    let is_source_first = (source.to, folder.to) == (first.0, second.0);
    let is_folder_first = (source.to, folder.to) == (second.0, first.0);
    if is_shared || !(is_source_first || is_folder_first) {
        return;
    }
    let (old, new) = if is_source_first {
        ([first.1, second.1], [&renamed[0].1, &renamed[1].1])
    } else {
        ([second.1, first.1], [&renamed[1].1, &renamed[0].1])
    };
    let is_by_hash = comes_first(old[0], old[1]) == is_source_first;
    if is_by_hash && comes_first(new[0], new[1]) != is_source_first {
        renamed.swap(0, 1);
    }
}

/// Whether the first of two texts, put in before the second, is in an earlier slot.
fn comes_first(first: &str, second: &str) -> bool {
    let hash = |text: &str| {
        text.bytes()
            .fold(0_u32, |hash, byte| hash.wrapping_mul(67).wrapping_add(byte.into()).wrapping_sub(113))
    };
    let (first, hashed) = (hash(first) % SLOTS, hash(second));
    let mut second = hashed % SLOTS;
    if second == first {
        // The next that is tried.
        second = (second + 1 + hashed % (SLOTS - 2)) % SLOTS;
    }
    first < second
}
