//! Calls on what is open: files, standard input and output, sockets and devices.

use nix::libc;

use super::calls::{Asking, Pending};
use super::harmless::{self, Control};
use super::inherited::Kind;
use crate::reason::Reason;

impl Asking<'_> {
    /// Calls that read what is open, or write it.
    pub(super) fn transfer(&mut self, first: u64, second: u64, third: u64) -> Option<Pending> {
        let arguments = self.registers.arguments;
        Some(match self.registers.number {
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_pread64
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg => self.read_from(first),
            libc::SYS_mmap if arguments[3] & libc::MAP_ANONYMOUS as u64 == 0 => self.read_from(arguments[4]),
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_pwrite64
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_ftruncate
            | libc::SYS_fallocate => self.write_to(first),
            libc::SYS_sendfile => {
                self.write_to(first);
                self.read_from(second)
            }
            libc::SYS_copy_file_range => {
                self.read_from(first);
                self.write_to(third)
            }
            libc::SYS_sendto if arguments[4] == 0 => self.write_to(first),
            libc::SYS_sendmsg if self.process.word(second) == Some(0) => self.write_to(first),
            _ => return None,
        })
    }

    /// Notes a look at an open file. What standard input is counts: some tools read it if it is a pipe.
    pub(super) fn look_at(&mut self, descriptor: u64) -> Pending {
        let kind = self.inherited.kind(self.process, descriptor);
        self.deeds.asked_input |= matches!(kind, Some(Kind::Nothing | Kind::Other));
        Pending::Nothing
    }

    fn read_from(&mut self, descriptor: u64) -> Pending {
        match self.inherited.kind(self.process, descriptor) {
            None => {}
            // Nothing is to be read from it now, but another time it may be something else.
            Some(Kind::Nothing) => self.deeds.asked_input = true,
            Some(Kind::Output | Kind::Other) => self.deeds.refuse("program that reads its standard input"),
        }
        Pending::Nothing
    }

    fn write_to(&mut self, descriptor: u64) -> Pending {
        match self.inherited.kind(self.process, descriptor) {
            Some(Kind::Output) => self.deeds.said = true,
            Some(Kind::Other) => self.deeds.refuse("program that writes where it was started"),
            Some(Kind::Nothing) => {}
            None if self.deeds.made.is_empty() => {}
            None => {
                let made = self.process.path_of(descriptor).filter(|path| self.deeds.made.contains(path));
                return made.map_or(Pending::Nothing, Pending::Close);
            }
        }
        Pending::Nothing
    }

    /// Whoever answers, or doesn't, may do otherwise the next time.
    pub(super) fn connect(&mut self, address: u64, length: u64) -> Pending {
        match self.process.socket_path(address, length) {
            Some(path) => {
                self.looked(path);
            }
            None => self.deeds.refuse("program that talks to another"),
        }
        Pending::Connect
    }

    pub(super) fn ioctl(&mut self, (descriptor, asked): (u64, i32), argument: u64) -> Pending {
        match harmless::control(asked) {
            Control::Harmless => {}
            Control::Terminal => {
                self.deeds.asked_terminals |=
                    descriptor <= 2 || self.inherited.kind(self.process, descriptor).is_some();
                if !harmless::IS_TERMINAL.contains(&asked) && self.process.is_terminal(descriptor) {
                    self.deeds.refuse("program that asks how its terminal is");
                }
            }
            Control::Clone => {
                self.read_from(argument);
                return self.write_to(descriptor);
            }
            Control::Unknown => {
                self.deeds.refuse(Reason::of(format!("program that asks a device for {asked:#x}")));
            }
        }
        Pending::Nothing
    }
}
