//! What a worker holds of the machine: helpers and what those have started, control groups, files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// How deep control groups lie, at most.
const DEPTH_MAX: usize = 8;

/// Keepers that a process has started.
pub(crate) fn keepers_of(worker: u32) -> Vec<u32> {
    let is_keeper = |pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with("castwork-keep-slot")
    };
    below(worker).into_iter().filter(|pid| parent_of(*pid) == Some(worker)).filter(is_keeper).collect()
}

/// All processes that a process has started, and those have.
pub(crate) fn below(top: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: HashMap<u32, u32> = numbers.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let is_below = |pid: &u32| {
        let mut above = std::iter::successors(parents.get(pid), |parent| parents.get(*parent));
        above.any(|above| *above == top)
    };
    parents.keys().copied().filter(is_below).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Names of the groups that hold the groups of keepers: a worker's own, one in each hierarchy.
pub(crate) fn group_names(keepers: &[u32]) -> BTreeSet<String> {
    let own = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let texts: String = keepers.iter().map(own).collect();
    let names = texts.split(['/', '\n']).filter(|name| name.starts_with("castwork-"));
    names.map(str::to_owned).collect()
}

/// In how many hierarchies a keeper has a group.
pub(crate) fn hierarchies(keeper: u32) -> usize {
    let own = fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
    own.lines().filter(|line| line.contains("/castwork-")).count()
}

/// How many groups there are of those names and in them, with processes or without.
pub(crate) fn groups(names: &BTreeSet<String>) -> usize {
    groups_below(Path::new("/sys/fs/cgroup"), names, false, DEPTH_MAX)
}

fn groups_below(folder: &Path, names: &BTreeSet<String>, is_ours: bool, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let count = |entry: fs::DirEntry| {
        let is_ours = is_ours || entry.file_name().to_str().is_some_and(|name| names.contains(name));
        usize::from(is_ours) + groups_below(&entry.path(), names, is_ours, depth - 1)
    };
    folders.map(count).sum()
}

/// Files and folders in a folder.
pub(crate) fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let count = |entry: fs::DirEntry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        1 + if is_folder { files(&entry.path()) } else { 0 }
    };
    entries.map(count).sum()
}

/// Mounts of this process in which a path is named.
pub(crate) fn mounts(path: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(&*path.to_string_lossy())).count()
}
