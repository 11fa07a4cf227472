//! What the command sees: its root. Most of it is built once for a slot. Each action adds, in a mount
//! namespace of its own, what is its alone; that too is there before the action is, but for its inputs.
//!
//! While a slot is built the current folder is the stage, the folder that scratch folders are in; the
//! way to it may be closed to the user that this process has become. While inputs are added it is
//! the action's scratch folder.

use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::NixPath as _;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, stat};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::processes::Processes;
use super::step::{At, Failed};
use super::wire::{Order, Setup};
use crate::sandbox::{Bounds, INPUTS, Layout, Root, STAGE};

/// Where the inputs are with `root=worker`: the same on every worker, because compilers write
/// the name of their folder into what they make.
pub(super) const BUILD: &str = "/build";

/// Folders in scratch, the first in the stage too: the new root, and the overlay's two.
pub(super) const ROOT: &str = "root";
pub(super) const UPPER: &str = "upper";
pub(super) const WORK: &str = "work";

/// The worker's folders that a command sees with `root=worker`.
const SYSTEM_FOLDERS: [&str; 9] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt"];

/// What every command has of its own, and no one else: made in the root where it lacks them.
pub(super) const OWN_FOLDERS: [&str; 3] = [PROC, DEV, TMP];
const PROC: &str = "proc";
const DEV: &str = "dev";
const TMP: &str = "tmp";

/// The devices there are.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Links that programs expect in `/dev`.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// How often to look whether the old root is gone: minutes, of which microseconds are needed.
const OLD_ROOT_LOOKS_MAX: u32 = 100_000_000;

/// Bounds of file systems that hold only names: a skeleton is all that is in them.
const SKELETON: &str = "size=1m,nr_inodes=1k,mode=0755";

/// Flags of everything that is mounted.
const GUARDED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Builds what all actions of a slot share, and moves into it; the worker's own root is out of reach
/// afterwards.
///
/// It is the root that actions with `root=worker` see, but that the stage is in `/tmp` and `/proc` is the
/// worker's: without one that can be seen, the kernel allows nobody to mount another. An action covers
/// both, for good.
pub(super) fn build(setup: &Setup) -> Result<(), Failed> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).at("make mounts private")?;
    let root = Path::new(ROOT);
    mount_tmpfs(root, SKELETON)?;
    bind_system_folders(root)?;
    hide(root, &setup.hidden)?;
    for name in ["build", PROC, DEV, TMP, "var"] {
        make_folder(&root.join(name))?;
    }
    symlink("/tmp", root.join("var/tmp")).at("link `/var/tmp`")?;
    mount_devices(&root.join(DEV))?;
    bind(Path::new("/proc"), &root.join(PROC))?;
    // Not recursive: the root itself is mounted in there.
    let stage = root.join(TMP).join(STAGE);
    make_folder(&stage)?;
    mount(Some("."), &stage, NONE, MsFlags::MS_BIND, NONE).at("bind the folder of actions")?;
    restrict(&stage, false)?;
    close_skeleton(root)?;
    move_into(root)?;
    let_go_of_old_root()
}

/// The folder of actions, whose place will be covered. Not it itself: then no `..` would lead to it.
pub(super) fn stage() -> Result<OwnedFd, Failed> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&Path::new("/").join(TMP).join(STAGE), flags, Mode::empty()).at("open the folder of actions")
}

/// A `/proc` that shows all processes of an action, those too that hide from each other. Its place is about to be covered.
pub(super) fn processes() -> Result<Processes, Failed> {
    let place = Path::new("/").join(PROC);
    mount(Some("proc"), &place, Some("proc"), GUARDED | MsFlags::MS_NOEXEC, Some("subset=pid"))
        .at("mount a `/proc` to watch memory by")?;
    Processes::open(&place).at("open the `/proc` to watch memory by")
}

/// Mounts what every action has of its own, whichever it is: `/proc`, `/dev/shm` and `/tmp`.
pub(super) fn add_own(bounds: &Bounds) -> Result<(), Failed> {
    let flags = GUARDED | MsFlags::MS_NOEXEC;
    let root = Path::new("/");
    mount(Some("proc"), &root.join(PROC), Some("proc"), flags, Some("subset=pid,hidepid=invisible"))
        .at("mount `/proc`")?;
    mount_tmpfs(&root.join("dev/shm"), &writable(bounds))?;
    mount_tmpfs(&root.join(TMP), &writable(bounds))
}

/// Mounts the inputs of an action, whose folder is in `stage`. With `root=inputs` the old root still has to be let
/// go of.
pub(super) fn add_inputs(setup: &Setup, order: &Order, stage: &OwnedFd) -> Result<(), Failed> {
    fchdir(stage).and_then(|()| chdir(&order.scratch)).at("enter the action's folder")?;
    for name in [UPPER, WORK] {
        make_folder(Path::new(name))?;
    }
    match order.root {
        Root::Worker => mount_inputs(setup.layout, order, Path::new(BUILD)),
        Root::Inputs => {
            let root = Path::new(ROOT);
            make_folder(root)?;
            mount_inputs(setup.layout, order, root)?;
            for name in OWN_FOLDERS {
                own_folder(root, name)?;
                bind(&Path::new("/").join(name), &root.join(name))?;
            }
            move_into(root)
        }
    }
}

/// Changes the root, for all processes of the mount namespace. The old one lies over it, and is the current folder.
fn move_into(root: &Path) -> Result<(), Failed> {
    chdir(root).at("enter the new root")?;
    pivot_root(".", ".").at("change the root")
}

/// Unmounts the old root. It is gone at once, but the kernel takes its time until it says so.
pub(super) fn let_go_of_old_root() -> Result<(), Failed> {
    umount2(".", MntFlags::MNT_DETACH).at("let go of the old root")?;
    chdir("/").at("enter the root")
}

/// Returns when nothing lies over the root any more, so that there is no way out of it.
pub(super) fn wait_for_end_of_old_root() -> Result<(), Failed> {
    for _ in 0..OLD_ROOT_LOOKS_MAX {
        let (root, above) = (stat("/").at("look at the root")?, stat("/..").at("look above the root")?);
        if (root.st_dev, root.st_ino) == (above.st_dev, above.st_ino) {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(Failed { step: "see the end of the old root".to_owned(), errno: Errno::ETIMEDOUT })
}

/// The mount at a path once more, detached, and without the mounts that lie in it.
#[allow(unsafe_code, reason = "nix has no `open_tree`")]
pub(super) fn without_those_below(path: &Path) -> Result<OwnedFd, Failed> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let opened = path.with_nix_path(|path| {
        // SAFETY: the path ends in a NUL and outlives the call, and no other argument is a pointer.
        Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
    });
    let number = opened.and_then(|opened| opened).at("part a mount from those in it")?;
    let number = i32::try_from(number).expect("descriptors are small");
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether an absolute path of the worker's is there, under its own name, with `root=worker`.
pub(super) fn shows(path: &Path) -> bool {
    system_folders().any(|folder| path.starts_with(folder))
}

/// The worker's folders that a command may see.
pub(super) fn system_folders() -> impl Iterator<Item = PathBuf> {
    SYSTEM_FOLDERS.iter().map(|name| Path::new("/").join(name))
}

/// The devices that a command may use.
pub(super) fn devices() -> Vec<PathBuf> {
    DEVICES.iter().map(|name| Path::new("/dev").join(name)).collect()
}

const NONE: Option<&str> = None;

/// The inputs, such that no write gets through to the laid-out files.
fn mount_inputs(layout: Layout, order: &Order, target: &Path) -> Result<(), Failed> {
    match layout {
        Layout::Links => {
            // Upper layers first.
            let base = order.base.as_ref().map(|base| format!(":{}", base.display())).unwrap_or_default();
            // `volatile`: nothing of this layer outlives the action, so nothing is ever synced.
            let options =
                format!("lowerdir={INPUTS}{base},upperdir={UPPER},workdir={WORK},userxattr,volatile");
            mount(Some("overlay"), target, Some("overlay"), GUARDED, Some(options.as_str()))
                .at("mount the overlay over the inputs")
        }
        Layout::Copies => {
            bind(Path::new(INPUTS), target)?;
            restrict(target, false)
        }
    }
}

fn bind_system_folders(root: &Path) -> Result<(), Failed> {
    for name in SYSTEM_FOLDERS {
        let (source, target) = (Path::new("/").join(name), root.join(name));
        let Ok(metadata) = fs::symlink_metadata(&source) else { continue };
        if metadata.is_symlink() {
            let points_to = fs::read_link(&source).at("read a link of the system")?;
            symlink(points_to, &target).at("repeat a link of the system")?;
        } else if metadata.is_dir() {
            make_folder(&target)?;
            bind(&source, &target)?;
            restrict(&target, true)?;
        }
    }
    Ok(())
}

/// Covers what the worker keeps for itself inside of a system folder.
fn hide(root: &Path, hidden: &[PathBuf]) -> Result<(), Failed> {
    for path in hidden {
        let Ok(relative) = path.strip_prefix("/") else { continue };
        let covered = root.join(relative);
        match fs::symlink_metadata(&covered) {
            Ok(metadata) if metadata.is_dir() => {
                mount_tmpfs(&covered, "size=4k,nr_inodes=2,mode=0555")?;
                restrict(&covered, true)?;
            }
            Ok(_) => bind(Path::new("/dev/null"), &covered)?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn writable(bounds: &Bounds) -> String {
    format!("size={},nr_inodes={},mode=1777", bounds.tmp_bytes, bounds.files)
}

/// A folder to mount on, which the inputs may already have, but not as something else.
fn own_folder(root: &Path, name: &str) -> Result<(), Failed> {
    let path = root.join(name);
    if fs::symlink_metadata(&path).is_err() {
        make_folder(&path)?;
    }
    let metadata = fs::symlink_metadata(&path).at("look at a folder to mount on")?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(Failed {
        step: format!("mount on `/{name}`, which is no folder in the inputs"),
        errno: Errno::ENOTDIR,
    })
}

fn mount_devices(folder: &Path) -> Result<(), Failed> {
    mount_tmpfs(folder, SKELETON)?;
    for name in DEVICES {
        let target = folder.join(name);
        fs::write(&target, "").at("make a place for a device")?;
        bind(&Path::new("/dev").join(name), &target)?;
    }
    for (name, points_to) in DEVICE_LINKS {
        symlink(points_to, folder.join(name)).at("link a device")?;
    }
    make_folder(&folder.join("shm"))?;
    close_skeleton(folder)
}

fn make_folder(path: &Path) -> Result<(), Failed> {
    fs::create_dir(path).at(&format!("make the folder `{}`", path.display()))
}

fn mount_tmpfs(target: &Path, options: &str) -> Result<(), Failed> {
    mount(Some("tmpfs"), target, Some("tmpfs"), GUARDED, Some(options))
        .at(&format!("mount a tmpfs on `{}`", target.display()))
}

fn close_skeleton(target: &Path) -> Result<(), Failed> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | GUARDED;
    mount(NONE, target, NONE, flags, NONE).at(&format!("make `{}` read-only", target.display()))
}

/// Recursive, because in a user namespace a folder can't be parted from what is mounted in it.
fn bind(source: &Path, target: &Path) -> Result<(), Failed> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .at(&format!("bind `{}`", source.display()))
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const ATTRIBUTE_READ_ONLY: u64 = 1;
const ATTRIBUTE_NO_SUID: u64 = 2;
const ATTRIBUTE_NO_DEVICES: u64 = 4;

/// Makes a mount and all below it nosuid, nodev and, if asked, read-only.
#[allow(unsafe_code, reason = "nix has no mount_setattr")]
fn restrict(target: &Path, is_read_only: bool) -> Result<(), Failed> {
    let read_only = if is_read_only { ATTRIBUTE_READ_ONLY } else { 0 };
    let set = read_only | ATTRIBUTE_NO_SUID | ATTRIBUTE_NO_DEVICES;
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let step = format!("restrict `{}`", target.display());
    let path =
        std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).expect("no path of ours has a NUL");
    // SAFETY: path and attributes live until the call is over, and the size is theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(done).map(drop).at(&step)
}
