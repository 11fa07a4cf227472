//! A process that is watched: its registers, its memory, its files.

use std::fs::Metadata;
use std::io::IoSliceMut;
use std::os::unix::fs::FileTypeExt;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::inherited::is_nothing;

/// What stands for the working folder where that of an open file is asked for: `AT_FDCWD`, in the lower half.
pub(super) const HERE: u64 = libc::AT_FDCWD.cast_unsigned() as u64;

/// Longest path, as the system has it.
const PATH_BYTES_MAX: usize = 4096;

/// Longest address of a socket with a path.
const SOCKET_BYTES_MAX: usize = 110;

/// Bytes that surely are in memory if the first of them is.
const PAGE_BYTES: usize = 4096;

/// A system call as it stands in the registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    /// Its number; -1 if it is one of another kind of machine, whose numbers mean something else.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// What it returned, once it has.
    pub returned: i64,
}

/// A thread that has stopped for us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(pub Pid);

/// Segment of code of 64 bits.
#[cfg(target_arch = "x86_64")]
const CODE_64: u64 = 0x33;

/// The instruction by which such code calls the system: by others, numbers mean something else.
#[cfg(target_arch = "x86_64")]
const CALL_64: [u8; 2] = [0x0f, 0x05];

#[cfg(target_arch = "x86_64")]
impl Registers {
    fn of(registers: &libc::user_regs_struct) -> Self {
        Self {
            number: registers.orig_rax.cast_signed(),
            arguments: [
                registers.rdi,
                registers.rsi,
                registers.rdx,
                registers.r10,
                registers.r8,
                registers.r9,
            ],
            returned: registers.rax.cast_signed(),
        }
    }
}

impl Process {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn registers(self) -> Option<Registers> {
        ptrace::getregs(self.0).ok().map(|registers| Registers::of(&registers))
    }

    /// The registers of a call that begins.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn call(self) -> Option<Registers> {
        let registers = ptrace::getregs(self.0).ok()?;
        let mut instruction = CALL_64;
        let before = registers.rip.checked_sub(instruction.len() as u64)?;
        let is_read = self.read(before, &mut instruction)? == instruction.len();
        let is_known = is_read && registers.cs == CODE_64 && instruction == CALL_64;
        let call = Registers::of(&registers);
        Some(if is_known { call } else { Registers { number: -1, ..call } })
    }

    /// The registers of a call that begins.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn call(self) -> Option<Registers> {
        self.registers()
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn registers(self) -> Option<Registers> {
        let registers = ptrace::getregs(self.0).ok()?;
        let mut arguments = [0; 6];
        arguments.copy_from_slice(&registers.regs[..6]);
        let number = registers.regs[8].cast_signed();
        Some(Registers { number, arguments, returned: registers.regs[0].cast_signed() })
    }

    fn read(self, address: u64, room: &mut [u8]) -> Option<usize> {
        let length = room.len();
        let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: length };
        process_vm_readv(self.0, &mut [IoSliceMut::new(room)], &[remote]).ok()
    }

    /// The text at an address, to its NUL. `None` if it can't be read, is too long, or is no Unicode.
    pub(super) fn text(self, address: u64) -> Option<String> {
        let mut bytes = Vec::new();
        while bytes.len() < PATH_BYTES_MAX {
            let from = address.checked_add(bytes.len() as u64)?;
            let mut piece = vec![0; PAGE_BYTES - usize::try_from(from).ok()? % PAGE_BYTES];
            let read = self.read(from, &mut piece).filter(|read| *read > 0)?;
            if let Some(end) = piece[..read].iter().position(|byte| *byte == 0) {
                bytes.extend_from_slice(&piece[..end]);
                return String::from_utf8(bytes).ok();
            }
            bytes.extend_from_slice(&piece[..read]);
        }
        None
    }

    /// The word at an address.
    pub(super) fn word(self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(address, &mut bytes)? == bytes.len()).then(|| u64::from_ne_bytes(bytes))
    }

    /// Where one of its open files lies; `None` if that has no path.
    pub(super) fn path_of(self, descriptor: u64) -> Option<String> {
        self.link(&format!("fd/{descriptor}"))
    }

    fn link(self, name: &str) -> Option<String> {
        let link = std::fs::read_link(format!("/proc/{}/{name}", self.0)).ok()?;
        let path = link.into_os_string().into_string().ok()?;
        (path.starts_with('/') && !path.ends_with(" (deleted)")).then_some(path)
    }

    /// Whether one of its open files is a terminal, or another device that is asked in this way.
    pub(super) fn is_terminal(self, descriptor: u64) -> bool {
        self.metadata(descriptor).is_some_and(|it| it.file_type().is_char_device() && !is_nothing(&it))
    }

    /// How many threads it has.
    pub(super) fn threads(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.0)).map_or(0, Iterator::count)
    }

    /// Where the socket lies whose address is at a place in memory, if it is one that lies in a folder.
    pub(super) fn socket_path(self, address: u64, length: u64) -> Option<String> {
        let mut bytes = [0; SOCKET_BYTES_MAX];
        let length = usize::try_from(length).ok().filter(|length| (3..=SOCKET_BYTES_MAX).contains(length))?;
        let is_read = self.read(address, &mut bytes[..length])? == length;
        let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let name = bytes[2..length].split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
        let name = str::from_utf8(name).ok().filter(|_| is_read && family == libc::AF_UNIX)?;
        self.absolute(HERE, name)
    }

    /// What one of its open files is.
    pub(super) fn metadata(self, descriptor: u64) -> Option<Metadata> {
        std::fs::metadata(format!("/proc/{}/fd/{descriptor}", self.0)).ok()
    }

    /// A path that it spells from a folder that is open, or its working folder; made absolute by its letters alone.
    pub(super) fn absolute(self, folder: u64, spelled: &str) -> Option<String> {
        if spelled.starts_with('/') {
            return Some(spelled.to_owned());
        }
        let is_working_folder = folder & u64::from(u32::MAX) == HERE;
        let base = if is_working_folder { self.link("cwd")? } else { self.path_of(folder)? };
        let base = base.trim_end_matches('/');
        Some(if spelled.is_empty() { base.to_owned() } else { format!("{base}/{spelled}") })
    }

    /// The numbers of its open files.
    pub(super) fn descriptors(self) -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.0)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}
