//! What system calls mean for what a run depends on, and for what it changes.
//!
//! The lists name what is understood. Whatever is in none of them makes the run one of which nothing is kept.

use std::path::Path;

use nix::libc;
use std::os::unix::fs::MetadataExt;

use super::harmless;
use super::inherited::Inherited;
use super::kernel::{self, About};
use super::process::{HERE, Process, Registers};
use crate::dependencies::like_dates;
use crate::local::{Deeds, Platform};
use crate::toolchain::finds_leaks;

/// Files that any program may read: what is in them makes no other output, or another one each time.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Flags of a clone that put it into a world of its own, or out of our sight.
const APART: u64 = 0x7e02_0080 | CLONE_UNTRACED;
const CLONE_UNTRACED: u64 = 0x0080_0000;

/// An argument that is a number of 32 bits: what is above them counts for nothing.
fn low(argument: u64) -> i32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default().cast_signed()
}

/// A call that has begun, with what is to be known when it ends.
#[derive(Debug)]
pub(super) enum Pending {
    Nothing,
    /// At a path.
    Look(String),
    Open {
        spelled: String,
        flags: i32,
        was_there: bool,
    },
    Start(String),
    /// From where, and to where: as it is spelled, and by its true name, with whether there was something.
    Rename(String, ((String, String), bool)),
    Remove(String),
    RemoveFolder(String),
    /// As it is spelled, and by its true name.
    MakeFolder(String, String),
    Connect,
    Close(String),
}

/// What a program asks for with a call.
pub(super) struct Asking<'a> {
    pub process: Process,
    pub registers: &'a Registers,
    pub inherited: &'a Inherited,
    pub deeds: &'a mut Deeds,
    /// Whether it is the program itself that asks, not what it started.
    pub is_main: bool,
}

/// Notes a call that begins.
pub(super) fn on_begin(
    (process, is_main): (Process, bool),
    registers: &Registers,
    inherited: &Inherited,
    deeds: &mut Deeds,
) -> Pending {
    let mut asking = Asking { process, registers, inherited, deeds, is_main };
    let [first, second, third, ..] = registers.arguments;
    let pending = asking.transfer(first, second, third);
    let pending = pending.or_else(|| asking.modern(first, second, third));
    let pending = pending.or_else(|| asking.old(first, second));
    pending.unwrap_or_else(|| {
        if registers.number == libc::SYS_ptrace {
            asking.deeds.is_disturbed = true;
        }
        let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
        if registers.number == libc::SYS_socket
            && !known.iter().any(|family| u64::try_from(*family) == Ok(first))
        {
            asking.deeds.refuse("program that asks the kernel by a socket");
        }
        let is_harmless = harmless::is_harmless(registers.number);
        if !is_harmless {
            asking.deeds.refuse(crate::reason::Reason::of(format!(
                "program that makes system call {}",
                registers.number
            )));
        }
        Pending::Nothing
    })
}

/// Notes how a call ended.
pub(super) fn on_end(process: Process, pending: Pending, deeds: &mut Deeds) {
    if matches!(pending, Pending::Nothing) {
        return;
    }
    let Some(Registers { returned, .. }) = process.registers() else {
        return deeds.refuse("program whose calls can't be seen");
    };
    if let (Pending::Connect, true) = (&pending, returned == 0 || returned == -i64::from(libc::EINPROGRESS)) {
        return deeds.refuse("program that talks to another");
    }
    if returned < 0 {
        return failed(pending, returned, deeds);
    }
    match pending {
        Pending::Nothing | Pending::Connect => {}
        Pending::Look(path) => saw(&path, deeds),
        Pending::Close(path) => close(path, deeds),
        Pending::Open { spelled, flags, was_there } => {
            let before = Before { spelled, flags, was_there };
            opened(process, returned.cast_unsigned(), &before, deeds);
        }
        Pending::Start(path) => {
            saw(&path, deeds);
            deeds.started.insert(path);
        }
        Pending::Rename(from, to) => {
            if !deeds.made.remove(&from) {
                return deeds.refuse("program that moves files");
            }
            // It may have been there, and been filled: then it is gone.
            if deeds.before.get(&from) == Some(&true) {
                deeds.removed.insert(from);
            }
            let (to, was_there) = to;
            deeds.filled.remove(&to.1);
            made(&to.0, &to.1, was_there, deeds);
            close(to.1, deeds);
        }
        Pending::Remove(path) => {
            deeds.filled.remove(&path);
            let is_own = deeds.made.remove(&path);
            if *deeds.before.entry(path.clone()).or_insert(true) || !is_own {
                deeds.removed.insert(path);
            }
        }
        Pending::RemoveFolder(path) => {
            if !deeds.made_folders.remove(&path) {
                deeds.refuse("program that removes folders");
            }
        }
        Pending::MakeFolder(spelled, path) => {
            made(&spelled, &path, false, deeds);
            deeds.made.remove(&path);
            deeds.made_folders.insert(path);
        }
    }
}

/// Notes what is at a path that was just looked at.
fn saw(path: &str, deeds: &mut Deeds) {
    if deeds.is_counted(path) {
        let path_of = Path::new(path);
        let metadata = path_of.metadata().or_else(|_| path_of.symlink_metadata());
        // If nothing is there any longer, it is gone at the end as well, or another.
        deeds.saw(path, Some(metadata.map_or((0, 0), |it| (it.dev(), it.ino()))));
    }
}

/// Notes what the file system says of a file that was made.
pub(super) fn close(path: String, deeds: &mut Deeds) {
    let metadata = Path::new(&path).symlink_metadata().ok();
    deeds.closed.insert(path, metadata.map(|metadata| Platform::stamp(&metadata)));
}

/// Notes how files are left that a process has open when it ends.
pub(super) fn on_exit(process: Process, deeds: &mut Deeds) {
    if deeds.made.is_empty() {
        return;
    }
    for path in process.descriptors().into_iter().filter_map(|descriptor| process.path_of(descriptor)) {
        if deeds.made.contains(&path) {
            close(path, deeds);
        }
    }
}

/// Notes what a call that failed has seen.
fn failed(pending: Pending, returned: i64, deeds: &mut Deeds) {
    if let Pending::Look(path) | Pending::Start(path) | Pending::Open { spelled: path, .. } = &pending {
        let is_missing = [libc::ENOENT, libc::ENOTDIR].iter().any(|error| returned == -i64::from(*error));
        // A link that leads nowhere is there, and missing, by how it is looked at.
        if is_missing && Path::new(path).is_symlink() {
            saw(path, deeds);
        } else if is_missing {
            deeds.saw(path, None);
        }
    }
    // What kept it from being opened or replaced counts, even if that would have been done without a look.
    if let Pending::Open { spelled, .. } | Pending::Rename(_, ((spelled, _), _)) = pending
        && !kernel::is_of_kernel(&spelled)
        && !deeds.spelled.contains(&spelled)
    {
        deeds.looked.insert(spelled);
    }
}

/// Notes that something was made, and whether what was there before has been asked for.
fn made(spelled: &str, path: &str, was_there: bool, deeds: &mut Deeds) {
    // What it removed itself was there, though it isn't now.
    deeds.before.entry(path.to_owned()).or_insert(was_there);
    deeds.spelled.insert(spelled.to_owned());
    deeds.ever_made.insert(path.to_owned());
    deeds.made.insert(path.to_owned());
}

/// A file before it was opened.
struct Before {
    spelled: String,
    flags: i32,
    was_there: bool,
}

/// Notes what was opened.
fn opened(process: Process, descriptor: u64, before: &Before, deeds: &mut Deeds) {
    let flags = before.flags;
    let Some((path, metadata)) = process.path_of(descriptor).zip(process.metadata(descriptor)) else {
        return deeds.refuse("program that opens what has no name");
    };
    if metadata.is_dir() || flags & libc::O_PATH != 0 {
        return saw(&before.spelled, deeds);
    }
    if path.starts_with("/proc/") || path.starts_with("/sys/") {
        if !kernel::may_be_read(process, &path) {
            deeds.refuse("program that reads what the kernel says");
        }
        return;
    }
    if !metadata.is_file() {
        if !DEVICES.contains(&path.as_str()) {
            deeds.refuse("program that opens a device");
        }
        return;
    }
    let is_written = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
    if !is_written {
        deeds.saw(&before.spelled, Some((metadata.dev(), metadata.ino())));
        if !deeds.ever_made.contains(&path) {
            deeds.saw_file(&path, (metadata.dev(), metadata.ino()));
            deeds.read.insert(path);
        }
    } else if !deeds.made.contains(&path) {
        if flags & libc::O_TRUNC == 0 {
            if before.was_there {
                return deeds.refuse("program that changes a file in place");
            }
            if flags & libc::O_EXCL == 0 {
                deeds.added_to.insert(path.clone());
            }
        } else if flags & libc::O_CREAT == 0 {
            deeds.added_to.insert(path.clone());
        }
        if before.was_there {
            deeds.filled.insert(path.clone());
        }
        if flags & (libc::O_TRUNC | libc::O_EXCL) == 0 && !deeds.before.contains_key(&path) {
            deeds.grown.insert(path.clone());
        }
        made(&before.spelled, &path, before.was_there, deeds);
    }
}

impl Asking<'_> {
    /// Calls that all machines have.
    fn modern(&mut self, first: u64, second: u64, third: u64) -> Option<Pending> {
        let arguments = self.registers.arguments;
        Some(match self.registers.number {
            libc::SYS_openat => self.open(first, second, third),
            libc::SYS_newfstatat
            | libc::SYS_statx
            | libc::SYS_faccessat
            | libc::SYS_faccessat2
            | libc::SYS_readlinkat => self.look(first, second),
            libc::SYS_fstat | libc::SYS_lseek => self.look_at(first),
            libc::SYS_chdir | libc::SYS_statfs => self.look(HERE, first),
            libc::SYS_execve => self.start(first),
            libc::SYS_getdents64 => self.list(first),
            libc::SYS_connect => self.connect(second, third),
            libc::SYS_ioctl => self.ioctl((first, low(second)), third),
            libc::SYS_close => {
                let path = if self.deeds.made.is_empty() { None } else { self.process.path_of(first) };
                let made = path.filter(|path| self.deeds.made.contains(path));
                made.map_or(Pending::Nothing, Pending::Close)
            }
            libc::SYS_mkdirat => self.make_folder(first, second),
            libc::SYS_unlinkat if third & libc::AT_REMOVEDIR as u64 != 0 => {
                self.at(first, second, Pending::RemoveFolder)
            }
            libc::SYS_unlinkat => self.remove(first, second),
            libc::SYS_renameat2 if arguments[4] & !u64::from(libc::RENAME_NOREPLACE) == 0 => {
                self.rename_as_told((first, second), (third, arguments[3]), arguments[4])
            }
            libc::SYS_fchmodat => self.mode(first, second),
            libc::SYS_fchmod => self.mode_of(first),
            libc::SYS_clone if first & APART == 0 => Pending::Nothing,
            // It is about to watch the process, as the leak check of a sanitizer does that wasn't seen in its program.
            libc::SYS_clone if first & CLONE_UNTRACED != 0 => {
                self.deeds.refuse("program that watches itself");
                self.deeds.is_let_go = true;
                self.deeds.is_disturbed |= self.process.threads() > 1;
                return None;
            }
            libc::SYS_clone3 if self.process.word(first).is_some_and(|flags| flags & APART == 0) => {
                Pending::Nothing
            }
            libc::SYS_uname => self.note(|deeds| deeds.asked_system = true),
            libc::SYS_getuid
            | libc::SYS_geteuid
            | libc::SYS_getgid
            | libc::SYS_getegid
            | libc::SYS_getresuid
            | libc::SYS_getresgid
            | libc::SYS_getgroups => self.note(|deeds| deeds.asked_user = true),
            _ => return None,
        })
    }

    /// Calls of x86 that have later ones beside them.
    #[cfg(target_arch = "x86_64")]
    fn old(&mut self, first: u64, second: u64) -> Option<Pending> {
        Some(match self.registers.number {
            libc::SYS_open => self.open(HERE, first, second),
            libc::SYS_creat => {
                self.open(HERE, first, (libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC) as u64)
            }
            libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => {
                self.look(HERE, first)
            }
            libc::SYS_mkdir => self.make_folder(HERE, first),
            libc::SYS_rmdir => self.at(HERE, first, Pending::RemoveFolder),
            libc::SYS_unlink => self.remove(HERE, first),
            libc::SYS_rename => self.rename((HERE, first), (HERE, second)),
            libc::SYS_renameat => {
                let [_, _, third, fourth, ..] = self.registers.arguments;
                self.rename((first, second), (third, fourth))
            }
            libc::SYS_chmod => self.mode(HERE, first),
            _ => return None,
        })
    }

    #[cfg(target_arch = "aarch64")]
    fn old(&mut self, first: u64, second: u64) -> Option<Pending> {
        if self.registers.number != libc::SYS_renameat {
            return None;
        }
        let [_, _, third, fourth, ..] = self.registers.arguments;
        Some(self.rename((first, second), (third, fourth)))
    }

    fn note(&mut self, note: impl FnOnce(&mut Deeds)) -> Pending {
        note(self.deeds);
        Pending::Nothing
    }

    /// The path that is asked for; empty if an open file is asked about.
    fn path(&mut self, folder: u64, address: u64) -> Option<String> {
        if address == 0 {
            return Some(String::new());
        }
        let spelled = self.process.text(address);
        let path = spelled.and_then(|spelled| {
            let is_open_file = spelled.is_empty() && folder & u64::from(u32::MAX) != HERE;
            if is_open_file { Some(String::new()) } else { self.process.absolute(folder, &spelled) }
        });
        if path.is_none() {
            self.deeds.refuse("program that names files in an unusual way");
        }
        path
    }

    fn look(&mut self, folder: u64, address: u64) -> Pending {
        match self.path(folder, address) {
            Some(path) if path.is_empty() => self.look_at(folder),
            Some(path) => {
                self.looked(path.clone());
                Pending::Look(path)
            }
            None => Pending::Nothing,
        }
    }

    /// Notes a look, but not at what the run has made, nor at what says nothing that counts.
    pub(super) fn looked(&mut self, path: String) {
        if kernel::is_of_kernel(&path) {
            match kernel::about(self.process, &path) {
                About::Nothing => return,
                About::File => {}
                About::Open(descriptor) if !self.inherited.has(self.process, descriptor) => return,
                About::Open(_) => {
                    return self.deeds.refuse("program that looks at its standard input or output by name");
                }
                About::Unknown => return self.deeds.refuse("program that reads what the kernel says"),
            }
        }
        if !self.deeds.spelled.contains(&path) && !self.deeds.ever_made.contains(&path) {
            self.deeds.looked.insert(path);
        }
    }

    fn open(&mut self, folder: u64, address: u64, flags: u64) -> Pending {
        let Some(path) = self.path(folder, address) else { return Pending::Nothing };
        let before = if kernel::is_of_kernel(&path) {
            if matches!(kernel::about(self.process, &path), About::Open(_)) {
                self.deeds.refuse("program that opens its standard input or output by name");
            }
            self.looked(path.clone());
            None
        } else {
            // What is made, or emptied, is so without a look at it; only the way to it counts. Without both it counts
            // whether there is something already: to that it may be added.
            let is_set = |flag: i32| low(flags) & flag != 0;
            let metadata = Path::new(&path).metadata().ok();
            if is_set(libc::O_TRUNC) && is_set(libc::O_CREAT) && !is_set(libc::O_EXCL) {
                let way = Path::new(&path).parent().and_then(Path::to_str).unwrap_or("/");
                self.looked(way.to_owned());
                // A link at its end leads on.
                if Path::new(&path).is_symlink() {
                    self.looked(path.clone());
                }
            } else {
                self.looked(path.clone());
            }
            metadata
        };
        Pending::Open { spelled: path, flags: low(flags), was_there: before.is_some() }
    }

    fn start(&mut self, address: u64) -> Pending {
        let Some(path) = self.path(HERE, address) else { return Pending::Nothing };
        if path.is_empty() || kernel::is_of_kernel(&path) {
            self.deeds.refuse("program that starts what has no name");
            return Pending::Nothing;
        }
        let gives_rights = Path::new(&path).metadata().is_ok_and(|metadata| {
            metadata.is_file() && metadata.mode() & (libc::S_ISUID | libc::S_ISGID) != 0
        });
        if gives_rights {
            self.deeds.is_let_go = true;
            self.deeds.refuse("program that starts another with more rights");
        }
        if finds_leaks(Path::new(&path)) {
            self.deeds.is_let_go = true;
            self.deeds.refuse("program that watches itself");
        }
        self.looked(path.clone());
        Pending::Start(path)
    }

    fn list(&mut self, descriptor: u64) -> Pending {
        match self.process.path_of(descriptor) {
            Some(path) if kernel::is_of_kernel(&path) => {
                if !kernel::may_be_listed(self.process, &path) {
                    self.deeds.refuse("program that lists what the kernel says");
                }
            }
            Some(path) if self.is_main => drop(self.deeds.listed_by_itself.insert(path)),
            Some(path) => drop(self.deeds.listed.insert(path)),
            None => self.deeds.refuse("program that lists what has no name"),
        }
        Pending::Nothing
    }

    /// A path by its true name, but for its last part.
    fn true_name(&mut self, folder: u64, address: u64) -> Option<String> {
        let path = self.path(folder, address)?;
        let path = Path::new(&path);
        let name = path.file_name().and_then(|name| name.to_str());
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        let parent = parent.and_then(|parent| parent.into_os_string().into_string().ok());
        // If the folder isn't there, the call fails.
        Some(format!("{}/{}", parent?.trim_end_matches('/'), name?))
    }

    fn at(&mut self, folder: u64, address: u64, pending: impl FnOnce(String) -> Pending) -> Pending {
        self.look(folder, address);
        self.true_name(folder, address).map_or(Pending::Nothing, pending)
    }

    fn remove(&mut self, folder: u64, address: u64) -> Pending {
        let pending = self.at(folder, address, Pending::Remove);
        if let Pending::Remove(path) = &pending
            && Deeds::is_preprocessed(path)
            && self.deeds.made.contains(path)
        {
            // In a moment it is gone, and what the sources came to is in nothing else that can be read.
            match std::fs::read(path) {
                Ok(text) => {
                    self.deeds.has_read_preprocessed = true;
                    self.deeds.dates.extend(like_dates(&text).map(<[u8]>::to_vec));
                }
                Err(_) => self.deeds.refuse("preprocessed text that can't be read"),
            }
        }
        pending
    }

    fn make_folder(&mut self, folder: u64, address: u64) -> Pending {
        self.look(folder, address);
        let names = self.path(folder, address).zip(self.true_name(folder, address));
        names.map_or(Pending::Nothing, |(spelled, name)| Pending::MakeFolder(spelled, name))
    }

    /// With any flag that is understood, what is there already isn't replaced.
    fn rename_as_told(&mut self, from: (u64, u64), to: (u64, u64), flags: u64) -> Pending {
        if flags != 0 {
            self.look(to.0, to.1);
        }
        self.rename(from, to)
    }

    /// What is there already is replaced without a look at it.
    fn rename(&mut self, from: (u64, u64), to: (u64, u64)) -> Pending {
        let spelled = self.path(to.0, to.1);
        let names = self.true_name(from.0, from.1).zip(spelled.zip(self.true_name(to.0, to.1)));
        let Some((from, to)) = names else { return Pending::Nothing };
        let way = Path::new(&to.0).parent().and_then(Path::to_str).unwrap_or("/");
        self.looked(way.to_owned());
        let was_there = Path::new(&to.1).symlink_metadata().is_ok();
        Pending::Rename(from, (to, was_there))
    }

    fn mode(&mut self, folder: u64, address: u64) -> Pending {
        let name = self.true_name(folder, address);
        self.check_mode(name)
    }

    fn mode_of(&mut self, descriptor: u64) -> Pending {
        let name = self.process.path_of(descriptor);
        self.check_mode(name)
    }

    fn check_mode(&mut self, name: Option<String>) -> Pending {
        let is_own = name
            .is_some_and(|name| self.deeds.made.contains(&name) || self.deeds.made_folders.contains(&name));
        if !is_own {
            self.deeds.refuse("program that changes permissions");
        }
        Pending::Nothing
    }
}
