//! The process that becomes the command. It waits for its action behind most of its walls.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdout, setsid};

use super::exec::Program;
use super::filter::{Around, Filter};
use super::init::Place;
use super::keeper::exit_now;
use super::step::{At, Failed};
use super::walls::{Grants, Wall};
use super::wire::{self, Handed, Setup};
use super::{descriptors, mounts, privileges};

/// The last of the signals.
const SIGNALS_MAX: i32 = 64;

/// Waits for the action that comes over `socket`, and becomes its command, unless that never comes.
pub(super) fn become_one(setup: &Setup, socket: &OwnedFd) -> ! {
    let waiting = wait_behind_walls(setup, socket);
    let Ok(Some((handed, line))) = wire::take_over(socket.as_fd()) else { exit_now(0) };
    let started = waiting.and_then(|wall| start(setup, socket, &handed, &line, wall));
    let Err(failed) = started;
    wire::send(handed.control.as_fd(), &failed.report(), None);
    exit_now(0)
}

/// All that can be done before there is an action.
fn wait_behind_walls(setup: &Setup, socket: &OwnedFd) -> Result<Wall, Failed> {
    descriptors::close_others(socket).at("close descriptors")?;
    privileges::drop_all()?;
    setsid().at("leave the session")?;
    default_signals().at("reset signals")?;
    // Not the keeper's: flags and locks of that would stay for the next action.
    descriptors::take_nothing_as_stdin().at("open `/dev/null`")?;
    privileges::set_limits(&setup.bounds).at("set limits")?;
    let wall = Wall::new()?.with(&granted_to_all(setup.around))?;
    Filter::new(setup.around).install().at("filter system calls")?;
    Ok(wall)
}

/// Returns only if something fails.
fn start(
    setup: &Setup,
    socket: &OwnedFd,
    handed: &Handed,
    line: &[u8],
    wall: Wall,
) -> Result<std::convert::Infallible, Failed> {
    let order = wire::order_of(line).at("read the order")?;
    let Place { inputs, temporary } = Place::of(setup, &order);
    let more = temporary.as_ref().map(|path| ("TMPDIR".to_owned(), path.to_string_lossy().into_owned()));
    let program = Program::of(&order, more.as_ref());
    dup2_stdout(&handed.stdout).at("take stdout")?;
    dup2_stderr(&handed.stderr).at("take stderr")?;
    if !wire::hear_go(socket.as_fd()) {
        exit_now(0);
    }
    if setup.around == Around::Namespaces {
        mounts::wait_for_end_of_old_root()?;
    }
    let wall = wall.with(&granted_to_one(setup.around, &inputs, temporary))?;
    chdir(&inputs.join(&order.working_directory)).at("enter the working directory")?;
    wall.raise()?;
    program.become_it()
}

/// What any action may do where.
fn granted_to_all(around: Around) -> Grants {
    let use_as_is = mounts::devices();
    match around {
        Around::Namespaces => {
            Grants { change: vec!["/tmp".into(), "/dev/shm".into()], use_as_is, ..Grants::default() }
        }
        // The machine's own files are all there, and only what is granted can be had.
        Around::Nothing => {
            let read = mounts::system_folders().chain([PathBuf::from("/proc")]).collect();
            Grants { read, use_as_is, ..Grants::default() }
        }
    }
}

/// What one may besides: with namespaces, what the mounts allow as well, which is to read all that there is.
fn granted_to_one(around: Around, inputs: &Path, temporary: Option<PathBuf>) -> Grants {
    let read = if around == Around::Namespaces { vec!["/".into()] } else { Vec::new() };
    let change = temporary.into_iter().chain([inputs.to_owned()]).collect();
    Grants { read, change, ..Grants::default() }
}

/// Ignoring is inherited: of `SIGPIPE` from the standard library, of others from who started the worker.
#[allow(
    unsafe_code,
    reason = "the C library keeps two signals to itself, and has no names for most of the others"
)]
fn default_signals() -> Result<(), Errno> {
    // Handler, flags, restorer and mask as the kernel has them; the default handler is 0.
    let default = [0_u64; 4];
    for number in 1..=SIGNALS_MAX {
        // SAFETY: the structure lives until the call is over, and its mask is as long as is said. With the default,
        // no code of ours runs in a handler. The two signals that can't be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
