//! [`Processes`]: what the kernel tells of an action's processes in `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// How the names of mapped files that are no files of a disk begin.
const NOT_ON_DISK: [&str; 5] = ["/memfd:", "/SYSV", "/dev/", "/tmp/", "/["];

/// An open `/proc`. It can be one that has no name any more.
#[derive(Debug)]
pub(super) struct Processes(OwnedFd);

impl Processes {
    /// Opens it.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map(Self)
    }

    /// All that a process has started, and what those have.
    pub(super) fn below(&self, top: u32) -> Vec<u32> {
        let parents: HashMap<u32, u32> =
            self.all().into_iter().filter_map(|pid| Some((pid, self.parent_of(pid)?))).collect();
        let is_below = |pid: &u32| {
            let above = std::iter::successors(parents.get(pid), |parent| parents.get(*parent));
            above.take(parents.len()).any(|above| *above == top)
        };
        parents.keys().copied().filter(is_below).collect()
    }

    /// Memory of a process that is no file's, in bytes: its own, what it shares with others, and what lies in swap.
    pub(super) fn memory_of(&self, pid: u32) -> u64 {
        let text = self.read(pid, "status").unwrap_or_default();
        let kib = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
        };
        ["RssAnon:", "RssShmem:", "VmSwap:"].into_iter().map(kib).sum::<u64>() * 1024
    }

    fn all(&self) -> Vec<u32> {
        let Ok(own) =
            openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        else {
            return Vec::new();
        };
        let Ok(mut folder) = Dir::from_fd(own) else { return Vec::new() };
        let names = folder.iter().filter_map(Result::ok);
        names.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
    }

    fn parent_of(&self, pid: u32) -> Option<u32> {
        // The name before it may hold anything, a bracket too.
        self.read(pid, "stat")?.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    fn read(&self, pid: u32, name: &str) -> Option<String> {
        let path = format!("{pid}/{name}");
        let file = openat(self.0.as_fd(), path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut text = Vec::new();
        File::from(file.ok()?).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// What files without a name take of the disk, which no walk through folders finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nameless {
    pub bytes: u64,
    pub files: u64,
}

/// Those that the processes below one hold open or mapped.
pub(super) fn nameless_below(top: u32) -> Nameless {
    let Ok(processes) = Processes::open(Path::new("/proc")) else { return Nameless::default() };
    let (mut open, mut mapped) = (HashMap::new(), HashMap::<(String, String), u64>::new());
    for pid in processes.below(top) {
        open.extend(open_and_nameless(pid));
        let maps = processes.read(pid, "maps").unwrap_or_default();
        for (file, bytes) in maps.lines().filter_map(mapped_and_nameless) {
            let most = mapped.entry(file).or_default();
            *most = bytes.max(*most);
        }
    }
    // A file may be both.
    let [open_files, mapped_files] = [open.len() as u64, mapped.len() as u64];
    Nameless {
        bytes: open.values().sum::<u64>().max(mapped.values().sum()),
        files: open_files.max(mapped_files),
    }
}

/// Device, inode and bytes on disk of files that a process has open and that have no name.
fn open_and_nameless(pid: u32) -> HashSet<((u64, u64), u64)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let nameless = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        let is_it = metadata.is_file() && metadata.nlink() == 0;
        let is_memory = is_it && statfs(path).ok()?.filesystem_type() == TMPFS_MAGIC;
        (is_it && !is_memory).then(|| ((metadata.dev(), metadata.ino()), metadata.blocks() * 512))
    };
    entries.filter_map(|entry| nameless(&entry.ok()?.path())).collect()
}

/// Which file a line of `maps` is about, and how much of it is mapped, if it has no name: what of it is on the disk is
/// not more than that.
fn mapped_and_nameless(line: &str) -> Option<((String, String), u64)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let (device, inode) = (words.nth(2)?, words.next()?);
    let path = words.next()?;
    if !line.ends_with(" (deleted)") || NOT_ON_DISK.iter().any(|begin| path.starts_with(begin)) {
        return None;
    }
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some(((device.to_owned(), inode.to_owned()), address(to)? - address(from)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of_machine() -> Processes {
        Processes::open(Path::new("/proc")).unwrap()
    }

    #[test]
    fn a_child_is_below_and_uses_some_memory() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let processes = of_machine();
        assert!(processes.below(std::process::id()).contains(&child.id()));
        // It may not have taken any yet.
        while processes.memory_of(child.id()) == 0 {}
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_file_without_a_name_is_found_where_it_is_open() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut file = tempfile::tempfile_in(folder.path()).unwrap();
        file.write_all(&vec![1; 100_000]).unwrap();
        file.sync_all().unwrap();
        let metadata = file.metadata().unwrap();
        let found = open_and_nameless(std::process::id());
        let is_memory = statfs(folder.path()).unwrap().filesystem_type() == TMPFS_MAGIC;
        let is_found = found.contains(&((metadata.dev(), metadata.ino()), metadata.blocks() * 512));
        assert_eq!(is_found, !is_memory);
    }

    #[test]
    fn a_mapped_file_without_a_name_is_told_from_others() {
        let line =
            "7f0000000000-7f0000100000 rw-s 00000000 00:2d 77                     /build/x y (deleted)";
        let found = (("00:2d".to_owned(), "77".to_owned()), 1 << 20);
        assert_eq!(mapped_and_nameless(line), Some(found));
        for other in ["/build/x", "/memfd:x (deleted)", "/dev/zero (deleted)", "/SYSV0 (deleted)"] {
            let line = format!("7f0000000000-7f0000100000 rw-s 00000000 00:2d 77 {other}");
            assert_eq!(mapped_and_nameless(&line), None, "{other}");
        }
        assert_eq!(mapped_and_nameless("7f00-7f10 rw-p 00000000 00:00 0"), None);
    }
}
