//! [`Parts`]: an object file taken apart into its sections, and put together again with other contents.

use object::elf::{
    EM_AARCH64, EM_X86_64, ET_REL, SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS, SHT_NULL, SHT_REL, SHT_SYMTAB_SHNDX,
};

const HEADER_BYTES: usize = 64;
const SECTION_BYTES: usize = 64;

/// Longest name of a section, which templates make long.
const NAME_BYTES_MAX: usize = 16 << 10;

/// Where things are in the header of the file, and of a section.
const SECTIONS_AT: usize = 40;
const OFFSET_AT: usize = 24;
const SIZE_AT: usize = 32;

/// The sections that debug information of gcc's version 5 is in.
const DEBUG: [&str; 9] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_loclists",
    ".debug_aranges",
    ".debug_rnglists",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_frame",
];

/// An object file of ELF, 64 bits, little-endian, with addends in its relocations, laid out as GNU's assembler does.
pub(crate) struct Parts<'a> {
    object: &'a [u8],
    /// Whose code it is.
    pub machine: u16,
    /// Its sections by their numbers; the first is none.
    pub sections: Vec<Section<'a>>,
}

/// A section of an object file.
pub(crate) struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// `SHT_…`.
    pub kind: u32,
    /// `SHF_…`.
    pub flags: u64,
    /// What it is about: of relocations the section that they are in.
    pub info: u32,
    /// What is in it; nothing if that is not in the file.
    pub contents: &'a [u8],
    offset: usize,
    alignment: usize,
}

impl<'a> Parts<'a> {
    /// Takes an object apart. `None` if it is of another kind, or could not be put together as it was.
    pub(crate) fn of(object: &'a [u8]) -> Option<Self> {
        // 64 bits, little-endian, the only version there is.
        if !object.starts_with(b"\x7fELF\x02\x01\x01") || object.len() < HEADER_BYTES {
            return None;
        }
        let machine = u16_at(object, 18)?;
        let is_usual = u16_at(object, 16)? == ET_REL
            && [EM_X86_64, EM_AARCH64].contains(&machine)
            && u16_at(object, 52)? == 64
            && u16_at(object, 56)? == 0
            && u16_at(object, 58)? == 64;
        // No number of sections stands for one that has no room there.
        let (count, names) = (u16_at(object, 60)?, u16_at(object, 62)?);
        if !is_usual || count == 0 || names >= count {
            return None;
        }
        let from = usize_at(object, SECTIONS_AT)?;
        let header = |at: u16| {
            let begin = from.checked_add(usize::from(at) * SECTION_BYTES)?;
            object.get(begin..begin.checked_add(SECTION_BYTES)?)
        };
        let names = contents(object, header(names)?)?;
        let sections = (0..count).map(|at| Section::of(object, header(at)?, names));
        let parts = Self { object, machine, sections: sections.collect::<Option<_>>()? };
        // No two lie over each other, so that what is put together is no larger.
        let bytes = parts.sections.iter().try_fold(0_usize, |sum, it| sum.checked_add(it.contents.len()))?;
        let is_understood = bytes <= object.len() && parts.sections.iter().all(Section::is_understood);
        (is_understood && parts.with(None)? == object).then_some(parts)
    }

    /// The sections that no program has in memory, by their names: the others are the code's own.
    pub(super) fn unloaded(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let is_unloaded = |section: &&Section<'_>| section.flags & u64::from(SHF_ALLOC) == 0;
        self.sections.iter().filter(is_unloaded).map(|section| (section.name, section.contents))
    }

    /// The sections of debug information, by their names.
    pub(super) fn debug(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let is_debug = |section: &&Section<'_>| section.name.starts_with(".debug");
        self.sections.iter().filter(is_debug).map(|section| (section.name, section.contents))
    }

    /// Puts the object together, with other contents in some of its sections.
    pub(crate) fn with(&self, changed: impl IntoIterator<Item = (usize, Vec<u8>)>) -> Option<Vec<u8>> {
        let changed: std::collections::BTreeMap<usize, Vec<u8>> = changed.into_iter().collect();
        let mut order: Vec<usize> = (1..self.sections.len()).collect();
        order.sort_by_key(|at| (self.sections[*at].offset, *at));
        let headers = usize_at(self.object, SECTIONS_AT)?;
        let mut headers =
            self.object.get(headers..headers.checked_add(self.sections.len() * SECTION_BYTES)?)?.to_vec();
        let mut made = Vec::with_capacity(self.object.len() + changed.values().map(Vec::len).sum::<usize>());
        made.extend_from_slice(self.object.get(..HEADER_BYTES)?);
        for at in order {
            let section = &self.sections[at];
            fill(&mut made, section.alignment);
            let header = at * SECTION_BYTES;
            put(&mut headers, header + OFFSET_AT, made.len());
            if let Some(contents) = changed.get(&at) {
                put(&mut headers, header + SIZE_AT, contents.len());
                made.extend_from_slice(contents);
            } else {
                made.extend_from_slice(section.contents);
            }
        }
        fill(&mut made, 8);
        let from = made.len();
        put(&mut made, SECTIONS_AT, from);
        made.extend_from_slice(&headers);
        Some(made)
    }
}

impl<'a> Section<'a> {
    fn of(object: &'a [u8], header: &'a [u8], names: &'a [u8]) -> Option<Self> {
        let kind = u32_at(header, 4)?;
        let name = names.get(u32_at(header, 0)? as usize..)?;
        let name = name.get(..name.iter().take(NAME_BYTES_MAX).position(|byte| *byte == 0)?)?;
        let alignment = usize_at(header, 48)?.max(1);
        let is_sane = alignment.is_power_of_two() && alignment <= 1 << 16;
        is_sane.then_some(())?;
        Some(Self {
            name: std::str::from_utf8(name).ok()?,
            kind,
            flags: u64_at(header, 8)?,
            info: u32_at(header, 44)?,
            contents: if matches!(kind, SHT_NULL | SHT_NOBITS) { &[] } else { contents(object, header)? },
            offset: usize_at(header, OFFSET_AT)?,
            alignment,
        })
    }

    fn is_understood(&self) -> bool {
        let is_debug = [".debug", ".zdebug", ".gnu.debug"].iter().any(|begin| self.name.starts_with(begin));
        let is_plain = self.flags & u64::from(SHF_COMPRESSED) == 0 && DEBUG.contains(&self.name);
        !matches!(self.kind, SHT_REL | SHT_SYMTAB_SHNDX) && (!is_debug || is_plain)
    }
}

fn contents<'a>(object: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let from = usize_at(header, OFFSET_AT)?;
    object.get(from..from.checked_add(usize_at(header, SIZE_AT)?)?)
}

fn fill(made: &mut Vec<u8>, alignment: usize) {
    made.resize(made.len().next_multiple_of(alignment), 0);
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A number of 32 bits.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A number of 64 bits.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    u64_at(bytes, at)?.try_into().ok()
}
