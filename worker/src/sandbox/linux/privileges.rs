//! Taking away: capabilities, limits, and the few doors that namespaces leave open.

use std::{fs, io};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use super::step::{At, Failed};
use crate::sandbox::Bounds;

/// Open files of one process.
const FILES_MAX: rlim_t = 4096;

/// How much rather than others a process is ended when the machine is out of memory: from -1000 to 1000.
const OUT_OF_MEMORY: &str = "/proc/self/oom_score_adj";
const FIRST_TO_GO: i32 = 300;

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

/// Sees to it that there will be no more privileges than there are.
pub(super) fn take_no_more() -> Result<(), Failed> {
    prctl::set_no_new_privs().at("give up new privileges")?;
    leave_keyring().at("leave the session's keyring")?;
    drop_bounding_set().at("drop the bounding set")
}

/// Gives up those that there are, for good.
pub(super) fn drop_all() -> Result<(), Failed> {
    drop_capabilities().at("drop capabilities")
}

#[allow(unsafe_code, reason = "nix has no such prctl")]
fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: takes numbers and touches no memory of ours.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(done) {
            Ok(_) => {}
            // The last one; or there is no privilege at all, and with no new ones this set is nothing.
            Err(Errno::EINVAL | Errno::EPERM) => return Ok(()),
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
    // Whoever started the worker may run before others; an action may not.
    limit(Resource::RLIMIT_NICE, 0)?;
    limit(Resource::RLIMIT_RTPRIO, 0)?;
    limit(Resource::RLIMIT_NPROC, bounds.processes)
}

fn limit(resource: Resource, most: rlim_t) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    setrlimit(resource, most.min(hard), most.min(hard))
}

/// Has the kernel end an action, if the machine runs out of memory, before it ends what serves others.
pub(super) fn be_the_first_to_go() -> io::Result<()> {
    // It can be raised by everybody, and lowered by nobody else.
    let own = fs::read_to_string(OUT_OF_MEMORY)?;
    let own: i32 = own.trim().parse().map_err(io::Error::other)?;
    fs::write(OUT_OF_MEMORY, own.max(FIRST_TO_GO).to_string())
}
