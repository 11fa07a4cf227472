//! [`Slot`]: the worker's side of a keeper, and [`Slots`], those that wait for their next action.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use tokio::process::{Child, Command};

use super::cgroups::{Cgroup, Cgroups};
use super::keeper;
use super::wire::{self, Handed, Setup};
use crate::sandbox::Bounds;

/// How many actions a slot serves before it is built anew: whatever might add up in it, ends with it.
const RUNS_MAX: u32 = 1000;

/// How many slots have to wait for one to be taken. The last action's namespaces may still be taken
/// down in one, and with another nobody waits for that.
const IDLE_LEAST: usize = 2;

/// How often, and how many times, a killed keeper is looked after where nothing can be awaited.
const ENDED_EVERY: Duration = Duration::from_millis(1);
const ENDED_MAX: usize = 2000;

/// A place where one action after the other runs.
#[derive(Debug)]
pub(super) struct Slot {
    keeper: Child,
    socket: OwnedFd,
    /// Whether its actions have the machine's network.
    network: bool,
    runs: u32,
    memory_kills: u64,
    /// What its group bounds memory to at the moment, in bytes.
    memory_bytes: u64,
    /// What bounds it, if control groups can.
    cgroup: Option<Cgroup>,
}

/// What the worker keeps of what it hands over.
pub(super) struct Ends {
    pub control: UnixStream,
    pub stdout: tokio::net::unix::pipe::Receiver,
    pub stderr: tokio::net::unix::pipe::Receiver,
    /// Whether the order is on its way.
    pub is_sent: bool,
}

impl Slot {
    fn start(program: &PathBuf, setup: &Setup, cgroup: Option<Cgroup>) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let keeper = Command::new(program)
            .arg0(keeper::NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(cgroup), Some(pid)) = (&cgroup, keeper.id()) {
            cgroup.add(pid)?;
        }
        wire::send_setup(socket.as_fd(), setup)?;
        let (network, memory_bytes) = (setup.network, setup.bounds.memory_bytes);
        Ok(Self { keeper, socket, network, runs: 0, memory_kills: 0, memory_bytes, cgroup })
    }

    /// Has the next action's memory be bounded by what is its own.
    pub(super) fn bound_memory(&mut self, bounds: &Bounds) -> io::Result<()> {
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| bounds.memory_bytes != self.memory_bytes) {
            cgroup.bound_memory(bounds)?;
            self.memory_bytes = bounds.memory_bytes;
        }
        Ok(())
    }

    /// Has an action started. If its order is too long to be sent along, it is read from the socket.
    pub(super) fn begin(&mut self, order: &[u8]) -> io::Result<Ends> {
        self.runs += 1;
        let (ours, theirs) = UnixStream::pair()?;
        let (stdout, theirs_out) = io::pipe()?;
        let (stderr, theirs_err) = io::pipe()?;
        let handed = Handed { control: theirs.into(), stdout: theirs_out.into(), stderr: theirs_err.into() };
        let is_sent = wire::hand_over(self.socket.as_fd(), &handed, order)?;
        let receiver = |pipe: io::PipeReader| {
            let fd = OwnedFd::from(pipe);
            nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
            tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(fd)
        };
        Ok(Ends { control: ours, stdout: receiver(stdout)?, stderr: receiver(stderr)?, is_sent })
    }

    /// Whether the kernel has killed any of its processes for want of memory since this was last asked.
    pub(super) fn ran_out_of_memory(&mut self) -> bool {
        let kills = self.cgroup.as_ref().map_or(0, Cgroup::memory_kills);
        std::mem::replace(&mut self.memory_kills, kills) < kills
    }

    /// The process that all of its actions' processes come from; 0 if there is none any more.
    pub(super) fn keeper(&self) -> u32 {
        self.keeper.id().unwrap_or(0)
    }

    /// Whether nobody has killed its keeper.
    fn is_alive(&mut self) -> bool {
        matches!(self.keeper.try_wait(), Ok(None))
    }

    /// Waits for the keeper's end, which is not its habit; how it ended.
    pub(super) async fn lost(&mut self) -> String {
        self.keeper.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Kills the keeper, and with it whatever it had started, and waits for its end.
    async fn end(mut self) {
        let _ = self.keeper.kill().await;
        // A process that it had just forked, and that has not yet asked to die with it, waits for the next action.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(cgroup) = self.cgroup.take() {
            let _ = tokio::task::spawn_blocking(|| drop(cgroup)).await;
        }
    }
}

impl Drop for Slot {
    /// The same, if nobody waits for it: at the end of the worker. Its group can be removed only then.
    fn drop(&mut self) {
        let _ = self.keeper.start_kill();
        for _ in 0..ENDED_MAX {
            if !matches!(self.keeper.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(ENDED_EVERY);
        }
    }
}

/// Slots without an action.
#[derive(Debug)]
pub(super) struct Slots {
    program: PathBuf,
    setup: Setup,
    cgroups: Option<Cgroups>,
    /// Those without the network, and those with it.
    idle: [Mutex<VecDeque<Slot>>; 2],
}

impl Slots {
    pub(super) fn new(program: PathBuf, setup: Setup, cgroups: Option<Cgroups>) -> Self {
        Self { program, setup, cgroups, idle: Default::default() }
    }

    /// The one that has waited longest, or a new one.
    pub(super) fn take(&self, network: bool) -> io::Result<Slot> {
        {
            let mut idle = self.idle(network);
            idle.retain_mut(Slot::is_alive);
            if idle.len() >= IDLE_LEAST {
                return Ok(idle.pop_front().expect("there are some"));
            }
        }
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.make(&self.setup.bounds)).transpose()?;
        Slot::start(&self.program, &Setup { network, ..self.setup.clone() }, cgroup)
    }

    /// Takes back one whose action ended by itself, with nothing wrong about it.
    pub(super) async fn put_back(&self, slot: Slot) {
        if slot.runs >= RUNS_MAX {
            return slot.end().await;
        }
        self.idle(slot.network).push_back(slot);
    }

    fn idle(&self, network: bool) -> MutexGuard<'_, VecDeque<Slot>> {
        self.idle[usize::from(network)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has no other action run in a slot.
    pub(super) async fn give_up(&self, slot: Slot) {
        slot.end().await;
    }
}
