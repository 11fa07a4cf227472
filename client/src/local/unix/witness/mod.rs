//! Watches a program, and all that it starts, by `ptrace`: what it looks for, reads, lists, makes and removes.
//!
//! What it asks of the system is looked at call by call ([`calls`]); a call that is not known makes the run one of which
//! nothing is kept. A process can be watched from its start only if it asks for it itself, so the program is
//! started by this program again ([`be_seen`]), which asks and then becomes it.

mod calls;
mod harmless;
mod inherited;
mod kernel;
mod open_files;
mod passing;
mod process;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::calls::Pending;
use self::inherited::Inherited;
use self::passing::Passing;
use self::process::Process;
use super::Forwarding;
use crate::invocation::SEEN;
use crate::local::{Called, Deeds, Platform};
use crate::run::{self, Ran};

pub use self::passing::pass_on;

/// Whether [`run`] can see what a program does.
pub const CAN_SEE: bool = true;

/// Signals that stop a program.
const STOPS: [Signal; 4] = [Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Runs a program with our standard input, and tells what it did; `None` if this system doesn't let it be seen.
///
/// Unless somebody is `told` what it says, that goes where ours does, and is not kept. If it is said whether standard
/// output and error are one, and they are, all is kept as the first.
///
/// # Errors
/// If it can't be started.
pub fn run(called: &Called<'_>, told: Option<bool>) -> io::Result<(Ran, Option<Deeds>)> {
    let begun = Instant::now();
    let mut command = Command::new("/proc/self/exe");
    command.arg(SEEN).arg(called.path).arg(called.name).args(called.words);
    command.envs(called.search.map(|search| ("PATH", search)));
    let passing = told.map(|is_one| Passing::of(&mut command, is_one)).transpose()?;
    let Ok(mut child) = command.spawn() else { return run::run_called(called).map(|ran| (ran, None)) };
    // It holds the ends of pipes that only the program is to hold.
    drop(command);
    let forwarding = Forwarding::to(&child);
    let passing = passing.map(Passing::begin);
    let watched = Watched::watch(&mut child);
    let [stdout, stderr] = passing.map_or([Some(Vec::new()), Some(Vec::new())], passing::Begun::end);
    let status = watched.as_ref().map_or_else(|_| ExitStatus::default(), |(status, _)| *status);
    forwarding.end(status);
    let (status, deeds) = watched?;
    Ok((Ran { status, stdout, stderr, took: begun.elapsed() }, deeds))
}

/// Becomes the program that the words name, seen by who started this. Returns only if that fails, with the exit code.
pub fn be_seen(words: &[OsString]) -> u8 {
    let [path, name, words @ ..] = words else { return 2 };
    // If it may not be, it runs all the same.
    if ptrace::traceme().is_ok() {
        let _ = raise(Signal::SIGSTOP);
    }
    let error = Platform::command(&Called { path: path.as_ref(), name, words, search: None }).exec();
    let _ = writeln!(io::stderr(), "castwork: can't start `{}`: {error}", path.display());
    127
}

/// What this system says that it is.
pub fn system() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| format!("{name:?}"))
}

/// Who runs this.
pub fn user() -> String {
    use nix::unistd::{getegid, geteuid, getgid, getuid};
    format!("{} {} {} {}", getuid(), geteuid(), getgid(), getegid())
}

/// What our standard input is: nothing, a device, a pipe, a file, or the like.
pub fn input() -> String {
    const NAMES: [(libc::mode_t, &str); 4] = [
        (libc::S_IFCHR, "device"),
        (libc::S_IFIFO, "pipe"),
        (libc::S_IFREG, "file"),
        (libc::S_IFSOCK, "socket"),
    ];
    let Ok(input) = nix::sys::stat::fstat(io::stdin()) else { return "closed".to_owned() };
    let kind = input.st_mode & libc::S_IFMT;
    let is_nothing = kind == libc::S_IFCHR && input.st_rdev == libc::makedev(1, 3);
    let name = NAMES.iter().find(|(known, _)| *known == kind).map_or("other", |(_, name)| *name);
    (if is_nothing { "nothing" } else { name }).to_owned()
}

/// Which of our standard input, output and error are terminals.
pub fn terminals() -> String {
    use std::io::IsTerminal as _;
    let are = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    are.map(|it| if it { "yes" } else { "no" }).join(" ")
}

/// Processes that are watched.
struct Watched {
    main: Pid,
    /// The threads, and what each is doing.
    threads: HashMap<Pid, Option<Pending>>,
    inherited: Option<Inherited>,
    deeds: Deeds,
}

impl Watched {
    /// Watches a child to its end.
    fn watch(child: &mut Child) -> io::Result<(ExitStatus, Option<Deeds>)> {
        let main = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        match wait(Some(main), WaitPidFlag::__WALL)? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            // It wasn't allowed to be seen, and has run like that.
            WaitStatus::Exited(_, code) => return Ok((exited(code), None)),
            WaitStatus::Signaled(_, signal, _) => return Ok((ExitStatus::from_raw(signal as i32), None)),
            _ => return child.wait().map(|status| (status, None)),
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEEXIT;
        if ptrace::setoptions(main, options).is_err() {
            ptrace::detach(main, None)?;
            return child.wait().map(|status| (status, None));
        }
        let mut watched =
            Self { main, threads: HashMap::from([(main, None)]), inherited: None, deeds: Deeds::default() };
        let _ = ptrace::syscall(main, None);
        let status = watched.follow()?;
        Ok((status, Some(watched.deeds)))
    }

    fn follow(&mut self) -> io::Result<ExitStatus> {
        let mut ended: Option<ExitStatus> = None;
        loop {
            let flags = match ended {
                None => WaitPidFlag::__WALL,
                Some(_) => WaitPidFlag::__WALL | WaitPidFlag::WNOHANG,
            };
            let event = match wait(None, flags) {
                Ok(event) => event,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    return ended.ok_or_else(|| io::Error::other("the program was lost sight of"));
                }
                Err(error) => return Err(error),
            };
            match event {
                WaitStatus::Exited(pid, code) => {
                    self.threads.remove(&pid);
                    if pid == self.main {
                        ended = Some(exited(code));
                        self.close_all();
                    }
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.threads.remove(&pid);
                    if pid == self.main {
                        ended = Some(ExitStatus::from_raw(signal as i32));
                    }
                }
                WaitStatus::StillAlive => {
                    // Who waits for a program waits for that, and not for what it leaves.
                    self.deeds.refuse("program that leaves another running");
                    if let Some(status) = ended {
                        return Ok(status);
                    }
                }
                WaitStatus::Stopped(pid, signal) => self.on_signal(pid, signal),
                WaitStatus::PtraceEvent(pid, _, event) => self.on_event(pid, event),
                WaitStatus::PtraceSyscall(pid) => self.on_call(pid),
                WaitStatus::Continued(_) => {}
            }
        }
    }

    /// Notes how the files are left that nobody closed.
    fn close_all(&mut self) {
        let open = self.deeds.made.iter().filter(|path| !self.deeds.closed.contains_key(*path)).cloned();
        for path in open.collect::<Vec<_>>() {
            calls::close(path, &mut self.deeds);
        }
    }

    /// Passes a signal on, but for the stop with which a new thread begins.
    fn on_signal(&mut self, pid: Pid, signal: Signal) {
        let is_new = !self.threads.contains_key(&pid);
        if is_new {
            self.threads.insert(pid, None);
        }
        // A thread that is stopped with all others of its process has no signal to be told of.
        let is_stop = ptrace::getsiginfo(pid).is_err();
        if !is_stop && !is_new && STOPS.contains(&signal) {
            // Under watch it would not stay stopped.
            self.deeds.is_let_go = true;
            self.deeds.refuse("program that is stopped");
        }
        let passed = if is_stop || (is_new && signal == Signal::SIGSTOP) { None } else { Some(signal) };
        self.go_on(pid, passed);
    }

    fn on_event(&mut self, pid: Pid, event: i32) {
        if event == Event::PTRACE_EVENT_EXIT as i32 {
            calls::on_exit(Process(pid), &mut self.deeds);
        } else if event == Event::PTRACE_EVENT_EXEC as i32 {
            if let Some(before) = ptrace::getevent(pid).ok().and_then(|before| i32::try_from(before).ok()) {
                let pending = self.threads.remove(&Pid::from_raw(before)).flatten();
                self.threads.insert(pid, pending);
            }
        } else if let Some(new) = ptrace::getevent(pid).ok().and_then(|new| i32::try_from(new).ok()) {
            // It may have stopped already.
            let new = Pid::from_raw(new);
            if !self.threads.contains_key(&new) {
                self.begin(new);
            }
        }
        self.go_on(pid, None);
    }

    /// Lets a thread go on: to its next call, or for good if it does what can't be done under watch.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        if self.deeds.is_disturbed || self.deeds.is_let_go {
            self.threads.remove(&pid);
            let _ = ptrace::detach(pid, signal);
        } else {
            let _ = ptrace::syscall(pid, signal);
        }
    }

    /// Waits for the stop with which a new thread begins.
    fn begin(&mut self, new: Pid) {
        match wait(Some(new), WaitPidFlag::__WALL) {
            Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => {
                self.threads.insert(new, None);
                self.go_on(new, None);
            }
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {}
            _ => self.deeds.refuse("program that begins in an unknown way"),
        }
    }

    fn on_call(&mut self, pid: Pid) {
        let process = Process(pid);
        let pending = self.threads.entry(pid).or_default().take();
        let after = match pending {
            None => {
                let inherited = self.inherited.get_or_insert_with(|| Inherited::of(process));
                let registers = process.call();
                if registers.is_none() {
                    self.deeds.refuse("program whose calls can't be seen");
                }
                Some(registers.map_or(Pending::Nothing, |registers| {
                    calls::on_begin((process, pid == self.main), &registers, inherited, &mut self.deeds)
                }))
            }
            Some(pending) => {
                calls::on_end(process, pending, &mut self.deeds);
                None
            }
        };
        self.threads.insert(pid, after);
        self.go_on(pid, None);
    }
}

fn exited(code: i32) -> ExitStatus {
    ExitStatus::from_raw((code & 0xff) << 8)
}

fn wait(pid: Option<Pid>, flags: WaitPidFlag) -> io::Result<WaitStatus> {
    loop {
        match waitpid(pid, Some(flags)) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
