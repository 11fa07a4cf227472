//! Taking away: capabilities, limits, and the few doors that namespaces leave open.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

use super::step::{At, Failed};
use crate::sandbox::Bounds;

/// Open files of one process.
const FILES_MAX: rlim_t = 4096;

/// More than there are; the kernel says where they end.
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// Version of the structures below that has two words of capabilities.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every privilege, for good.
pub(super) fn drop_all() -> Result<(), Failed> {
    prctl::set_no_new_privs().at("give up new privileges")?;
    leave_keyring().at("leave the session's keyring")?;
    drop_bounding_set().at("drop the bounding set")?;
    drop_capabilities().at("drop capabilities")
}

#[allow(unsafe_code, reason = "nix has no such prctl")]
fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: takes numbers and touches no memory of ours.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(done) {
            Ok(_) => {}
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "nix has no capset")]
fn drop_capabilities() -> Result<(), Errno> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, process: 0 };
    let words = [CapabilityWord { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: the header is of the version that goes with two words; both live until the end.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
    Errno::result(done).map(drop)
}

#[allow(unsafe_code, reason = "nix has no keyctl")]
fn leave_keyring() -> Result<(), Errno> {
    let name: *const libc::c_char = std::ptr::null();
    // SAFETY: no name asks for a new anonymous keyring; no memory of ours is touched.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) };
    match Errno::result(done) {
        // Without keyrings, or where a container forbids the call, there is none to leave.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Sets the limits of the command; it can lower them further, not raise them.
pub(super) fn set_limits(bounds: &Bounds) -> Result<(), Errno> {
    limit(Resource::RLIMIT_NOFILE, FILES_MAX)?;
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_FSIZE, bounds.disk_bytes)?;
    limit(Resource::RLIMIT_NPROC, bounds.processes)
}

fn limit(resource: Resource, most: rlim_t) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    setrlimit(resource, most.min(hard), most.min(hard))
}

/// No namespaces in namespaces: a user namespace of its own would give the command every
/// capability there, and with it much of the kernel to play with.
pub(super) fn forbid_namespaces() -> std::io::Result<()> {
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
}

/// Raises `lo`, alone in its network namespace, because tests talk to themselves.
#[allow(unsafe_code, reason = "interface flags are set by ioctl")]
pub(super) fn raise_loopback() -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // SAFETY: all zeros is a valid value of this structure of numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = libc::c_char::try_from(*byte).expect("ASCII");
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("a small flag");
    // SAFETY: this request reads the structure, which lives until the call is over.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(done).map(drop)
}
