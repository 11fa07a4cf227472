//! What an ELF file says about how it is loaded.

use std::fs::File;
use std::path::Path;

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef, StringTable};
use object::{Endianness, FileKind};

/// The part of an ELF file that its loader goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// Which machine's code it is, and of which width: libraries of another are passed over.
    pub machine: (u16, bool),
    /// The loader that the system starts for it; `None` for libraries and for what is static.
    pub interpreter: Option<String>,
    /// Names of the libraries that it needs, in order.
    pub needed: Vec<String>,
    /// `DT_RPATH`: searched before `LD_LIBRARY_PATH`, for what its libraries need too.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`: searched after that, for itself alone; if it is there, `DT_RPATH` counts for nothing.
    pub runpath: Vec<String>,
    /// Whether it is built with a sanitizer that looks for leaks at its end.
    pub finds_leaks: bool,
}

/// How names begin in the symbols of what is built with such a sanitizer, whose runtime may be a library or not.
const LEAK_FINDERS: [&[u8]; 3] = [b"__asan_", b"__lsan_", b"__hwasan_"];

/// Reads a file; `None` if it is not ELF, or broken.
pub(super) fn read(path: &Path) -> Option<Elf> {
    let file = ReadCache::new(File::open(path).ok()?);
    match FileKind::parse(&file).ok()? {
        FileKind::Elf32 => parse::<FileHeader32<Endianness>, _>(&file),
        FileKind::Elf64 => parse::<FileHeader64<Endianness>, _>(&file),
        _ => None,
    }
}

/// Whether a file has a section of this name; `None` if it is not ELF, or broken.
pub(super) fn has_section(path: &Path, name: &[u8]) -> Option<bool> {
    let file = ReadCache::new(File::open(path).ok()?);
    match FileKind::parse(&file).ok()? {
        FileKind::Elf32 => section::<FileHeader32<Endianness>, _>(&file, name),
        FileKind::Elf64 => section::<FileHeader64<Endianness>, _>(&file, name),
        _ => None,
    }
}

fn section<'data, H, R>(data: R, name: &[u8]) -> Option<bool>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    Some(sections.section_by_name(endian, name).is_some())
}

fn parse<'data, H, R>(data: R) -> Option<Elf>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut elf = Elf { machine: (header.e_machine(endian), header.is_type_64()), ..Elf::default() };
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data).ok()? {
            elf.interpreter = Some(text(interpreter)?);
        }
        let Some(entries) = segment.dynamic(endian, data).ok()? else { continue };
        let value = |tag: u32| {
            entries
                .iter()
                .find(|entry| entry.tag32(endian) == Some(tag))
                .map(|entry| entry.d_val(endian).into())
        };
        let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else { continue };
        let offset = segments.iter().find_map(|segment| offset_of::<H>(segment, endian, address))?;
        let strings = StringTable::new(data, offset, offset.checked_add(size)?);
        let names = data.read_bytes_at(offset, size).ok()?;
        elf.finds_leaks = LEAK_FINDERS.iter().any(|name| memchr::memmem::find(names, name).is_some());
        for entry in entries {
            let Some(tag) = entry.tag32(endian) else { continue };
            if !matches!(tag, DT_NEEDED | DT_RPATH | DT_RUNPATH) {
                continue;
            }
            let string = text(strings.get(u32::try_from(entry.d_val(endian).into()).ok()?).ok()?)?;
            match tag {
                DT_NEEDED => elf.needed.push(string),
                DT_RPATH => elf.rpath = folders(&string),
                _ => elf.runpath = folders(&string),
            }
        }
    }
    Some(elf)
}

/// Where in the file the byte of an address is, if a loaded segment holds it.
fn offset_of<H>(segment: &H::ProgramHeader, endian: Endianness, address: u64) -> Option<u64>
where
    H: FileHeader<Endian = Endianness>,
{
    if segment.p_type(endian) != object::elf::PT_LOAD {
        return None;
    }
    let begin: u64 = segment.p_vaddr(endian).into();
    let within = address.checked_sub(begin).filter(|within| *within < segment.p_filesz(endian).into())?;
    let offset: u64 = segment.p_offset(endian).into();
    offset.checked_add(within)
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn folders(list: &str) -> Vec<String> {
    list.split(':').filter(|folder| !folder.is_empty()).map(str::to_owned).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_loader_and_its_libraries() {
        let own = std::env::current_exe().unwrap();
        let elf = read(&own).unwrap();
        assert!(elf.interpreter.is_some_and(|loader| loader.starts_with('/')));
        assert!(elf.needed.iter().any(|name| name.starts_with("libc.")), "{:?}", elf.needed);
        assert!(elf.machine.0 != 0);
    }

    #[test]
    fn what_is_no_elf_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("empty", &b""[..]), ("script", b"#!/bin/sh\n"), ("torn", b"\x7fELF\x02\x01\x01")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path), None, "{name}");
        }
    }
}
