//! The namespaces of a slot: users, mounts and the network; each action gets the others afresh.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, sethostname, setresgid, setresuid};

use super::step::{At, Failed};

/// User and group of the command as it sees itself, the same on every worker.
const INNER_ID: u32 = 1000;

/// Every sandbox is on a host of this name.
const HOST_NAME: &str = "castwork";

/// Becomes the user that actions run as. The worker's own is not to be found in the namespaces.
pub(super) fn become_user(id: Option<(u32, u32)>) -> Result<(), Failed> {
    umask(Mode::from_bits_truncate(0o022));
    if let Some((uid, gid)) = id {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).at("drop supplementary groups")?;
        setresgid(gid, gid, gid).at("change the group")?;
        setresuid(uid, uid, uid).at("change the user")?;
    }
    // A change of user makes a process undumpable, and that makes its `/proc/self` root's.
    prctl::set_dumpable(true).at("stay dumpable")
}

/// Makes the slot's namespaces, and forbids any further user namespace in them: one of its own would
/// give a command every capability there, and with it much of the kernel to play with.
pub(super) fn enter() -> Result<(), Failed> {
    let (uid, gid) = (geteuid(), getegid());
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(all).at("make namespaces (user, mount, uts)")?;
    // Without this an unprivileged process may not write a group map.
    std::fs::write("/proc/self/setgroups", "deny").at("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{INNER_ID} {uid} 1")).at("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{INNER_ID} {gid} 1")).at("map the group")?;
    sethostname(HOST_NAME).at("set the host's name")?;
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").at("forbid further namespaces")
}

/// What the kernel counts in a network namespace, and the one thing that can be left there without anything being
/// sent, as text.
const COUNTERS: [&str; 4] =
    ["/proc/self/net/dev", "/proc/self/net/snmp", "/proc/self/net/snmp6", "/proc/self/net/ip6_flowlabel"];

/// A network namespace that has only loopback. It is by far the most expensive of all to make, and
/// few actions use it, so the next one gets it if the last one didn't.
#[derive(Debug)]
pub(super) struct Network {
    unused: Vec<u8>,
}

impl Network {
    /// Makes one, of the calling process.
    pub(super) fn raise() -> Result<Self, Failed> {
        unshare(CloneFlags::CLONE_NEWNET).at("make a namespace (net)")?;
        raise_loopback().at("raise the loopback interface")?;
        Ok(Self { unused: counters() })
    }

    /// Makes another if anything has happened in this one.
    pub(super) fn renew_if_used(&mut self) -> Result<(), Failed> {
        if counters() != self.unused {
            *self = Self::raise()?;
        }
        Ok(())
    }
}

/// Room for all of it: a file of `/proc` says that it is empty, and would be read in ever so many small pieces.
const COUNTERS_BYTES: usize = 64 << 10;

fn counters() -> Vec<u8> {
    let mut all = Vec::with_capacity(COUNTERS_BYTES);
    for mut file in COUNTERS.iter().filter_map(|path| File::open(path).ok()) {
        // What can't be read is not the same as before.
        let _ = file.read_to_end(&mut all);
    }
    all
}

/// Raises `lo`, alone in its network namespace, because tests talk to themselves.
#[allow(unsafe_code, reason = "interface flags are set by ioctl")]
fn raise_loopback() -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // SAFETY: all zeros is a valid value of this structure of numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = libc::c_char::try_from(*byte).expect("ASCII");
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a small flag");
    // glibc and musl have the numbers of requests in different types.
    let number = libc::SIOCSIFFLAGS as libc::Ioctl;
    // SAFETY: this request reads the structure, which lives until the call is over.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw const request) };
    Errno::result(done).map(drop)
}
