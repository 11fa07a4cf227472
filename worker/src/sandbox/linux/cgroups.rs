//! Control groups, version 2 or 1: bounds on what all processes of a slot use together, and equal shares of
//! processor time for all slots.
//!
//! A slot's group holds its keeper, which is small, so every action is in it from its first moment
//! and none has to be moved. What is counted is compared before and after an action.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sandbox::Bounds;

/// The keeper and process 1, which are not the action's own.
const KEEPERS: u64 = 2;

/// Time in which a group may use its share of processor time, in microseconds.
const PERIOD_US: u64 = 100_000;

/// How often, and how many times, an emptied group is tried to be removed: the kernel takes a moment
/// to let go of the last process.
const REMOVE_EVERY: Duration = Duration::from_millis(2);
const REMOVALS_MAX: usize = 1000;

/// Which interface there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The folders that groups of slots are made in: one, or with version 1 one for each controller.
#[derive(Debug)]
pub(super) struct Cgroups {
    pub version: Version,
    places: Arc<Places>,
    /// Which of them is the one for processor time, if there is any.
    cpu: Option<usize>,
    next: AtomicU64,
}

impl Cgroups {
    /// Finds out whether this process may make groups that bound memory and processes, and processor time
    /// if that is to be bounded, and removes what a worker of that name left; else why not.
    pub(super) fn find(name: &str, bounds: &Bounds) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("`{path}`: {error}"));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let two = own_folder(&mounts, &own, None).ok_or_else(|| "no version 2 is mounted".to_owned());
        let two = two.and_then(|folder| enable(&folder).map(|controllers| (folder, controllers)));
        let (version, folders, cpu) = match &two {
            Ok((folder, controllers)) => (Version::Two, vec![folder.clone()], controllers.cpu().then_some(0)),
            Err(why_not) => {
                let folder = |name| own_folder(&mounts, &own, Some(name));
                let folders: Option<Vec<_>> = ["memory", "pids"].map(folder).into_iter().collect();
                let mut folders = folders.ok_or(format!("{why_not}, and no version 1 either"))?;
                folders.extend(folder("cpu").filter(|folder| may_make_in(folder)));
                let cpu = (folders.len() > 2).then_some(2);
                (Version::One, folders, cpu)
            }
        };
        if bounds.cpu_percent.is_some() && cpu.is_none() {
            return Err("nothing bounds processor time".to_owned());
        }
        let places: Vec<_> = folders.iter().map(|folder| folder.join(format!("castwork-{name}"))).collect();
        for place in &places {
            let at = |error| format!("`{}`: {error}", place.display());
            remove_leftovers(place).map_err(at)?;
            fs::create_dir(place).map_err(at)?;
            if let Ok((_, controllers)) = &two {
                fs::write(place.join("cgroup.subtree_control"), controllers.on()).map_err(at)?;
            }
        }
        let found = Self { version, places: Arc::new(Places(places)), cpu, next: AtomicU64::new(1) };
        match found.make(bounds) {
            Ok(_) => Ok(found),
            Err(error) => Err(format!("no group can be bounded: {error}")),
        }
    }

    /// A group for a slot.
    pub(super) fn make(&self, bounds: &Bounds) -> io::Result<Cgroup> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let folders = self.places.0.iter().map(|place| place.join(&name)).collect();
        let group = Cgroup {
            version: self.version,
            cpu: self.cpu,
            bounds_cpu: bounds.cpu_percent.is_some(),
            folders,
            _places: self.places.clone(),
        };
        group.folders.iter().try_for_each(fs::create_dir)?;
        group.bound(bounds)?;
        Ok(group)
    }
}

/// Folders that are the worker's own, removed when it and its groups are gone.
#[derive(Debug)]
struct Places(Vec<PathBuf>);

impl Drop for Places {
    fn drop(&mut self) {
        for place in &self.0 {
            let _ = fs::remove_dir(place);
        }
    }
}

/// A slot's group.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    cpu: Option<usize>,
    /// Whether it bounds processor time, and does not just share it.
    bounds_cpu: bool,
    folders: Vec<PathBuf>,
    /// Those are removed after the last group.
    _places: Arc<Places>,
}

impl Cgroup {
    fn bound(&self, bounds: &Bounds) -> io::Result<()> {
        self.bound_cpu(bounds)?;
        self.bound_memory(bounds)?;
        let folder = if self.version == Version::Two { &self.folders[0] } else { &self.folders[1] };
        fs::write(folder.join("pids.max"), (bounds.processes + KEEPERS).to_string())
    }

    /// Bounds memory, be it anew.
    pub(super) fn bound_memory(&self, bounds: &Bounds) -> io::Result<()> {
        let (folder, memory) = (&self.folders[0], bounds.memory_bytes.to_string());
        match self.version {
            Version::Two => {
                fs::write(folder.join("memory.max"), memory)?;
                // Swap is not there everywhere.
                let _ = fs::write(folder.join("memory.swap.max"), "0");
            }
            Version::One => {
                // With swap it can't be less than without, whichever of the two is changed first.
                let with_swap = || drop(fs::write(folder.join("memory.memsw.limit_in_bytes"), &memory));
                with_swap();
                fs::write(folder.join("memory.limit_in_bytes"), &memory)?;
                with_swap();
            }
        }
        Ok(())
    }

    fn bound_cpu(&self, bounds: &Bounds) -> io::Result<()> {
        let (Some(cpu), Some(percent)) = (self.cpu, bounds.cpu_percent) else { return Ok(()) };
        let quota_us = percent * (PERIOD_US / 100);
        match self.version {
            Version::Two => fs::write(self.folders[cpu].join("cpu.max"), format!("{quota_us} {PERIOD_US}")),
            Version::One => {
                fs::write(self.folders[cpu].join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(self.folders[cpu].join("cpu.cfs_quota_us"), quota_us.to_string())
            }
        }
    }

    /// Puts a process into it; what that starts later is in it as well.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        for (number, folder) in self.folders.iter().enumerate() {
            let added = fs::write(folder.join("cgroup.procs"), pid.to_string());
            // Equal shares are not for processes with real-time priority, which need no more than that.
            let has_equal_shares_only =
                self.version == Version::One && self.cpu == Some(number) && !self.bounds_cpu;
            if !has_equal_shares_only {
                added?;
            }
        }
        Ok(())
    }

    /// How many of its processes the kernel has killed for want of memory, ever.
    pub(super) fn memory_kills(&self) -> u64 {
        let name = if self.version == Version::Two { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folders[0].join(name)).unwrap_or_default();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    /// Removes it; its processes have been killed.
    fn drop(&mut self) {
        for folder in &self.folders {
            if let Err(error) = remove(folder) {
                tracing::warn!(folder = %folder.display(), %error, "a control group can't be removed");
            }
        }
    }
}

/// Removes an emptied group, of which the kernel may have to let go first.
fn remove(folder: &Path) -> io::Result<()> {
    for _ in 0..REMOVALS_MAX {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(REMOVE_EVERY);
            }
            done => return done,
        }
    }
    Err(nix::errno::Errno::EBUSY.into())
}

/// Removes a worker's folder with the groups in it. Their processes ended with that worker.
fn remove_leftovers(place: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    remove(place)
}

/// Where this process is in the hierarchy of a controller, or of version 2.
fn own_folder(mounts: &str, own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let (root, mount) = mounts.lines().find_map(|line| mount_of(line, controller))?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it =
            controller.map_or(controllers.is_empty(), |name| controllers.split(',').any(|own| own == name));
        is_it.then_some(path)
    })?;
    // In a container, what is mounted may be the container's part only.
    let inner = Path::new(path).strip_prefix(root).unwrap_or_else(|_| Path::new(""));
    Some(Path::new(mount).join(inner.strip_prefix("/").unwrap_or(inner)))
}

/// Root and place of a mount, if it is the one of that controller, or of version 2.
fn mount_of<'a>(line: &'a str, controller: Option<&str>) -> Option<(&'a str, &'a str)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    let mut fields = kind.split(' ');
    let (kind, _, options) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match controller {
        None => kind == "cgroup2",
        Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
    };
    is_it.then_some((root, mount))
}

/// Whether groups can be made in a folder. Not everybody who may bound memory may bound processor time.
fn may_make_in(folder: &Path) -> bool {
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Controllers of version 2, with a blank between each.
struct Controllers(String);

impl Controllers {
    fn has(&self, name: &str) -> bool {
        self.0.split_whitespace().any(|own| own == name)
    }

    fn cpu(&self) -> bool {
        self.has("cpu")
    }

    /// What has to be written to have them in the groups below.
    fn on(&self) -> &'static str {
        if self.cpu() { "+memory +pids +cpu" } else { "+memory +pids" }
    }
}

/// Has groups below `folder` bound memory and processes, and processor time where that can be had. Those
/// controllers can't be had while processes are in the folder itself, so a worker that is alone there moves one down.
fn enable(folder: &Path) -> Result<Controllers, String> {
    let at = |error: io::Error| format!("`{}`: {error}", folder.display());
    let there = Controllers(fs::read_to_string(folder.join("cgroup.controllers")).map_err(at)?);
    if !there.has("memory") || !there.has("pids") {
        return Err(format!("`{}` does not bound memory and processes", folder.display()));
    }
    let control = folder.join("cgroup.subtree_control");
    let on = there.on();
    match fs::write(&control, on) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
            let own = std::process::id().to_string();
            if fs::read_to_string(folder.join("cgroup.procs")).map_err(at)?.trim() != own {
                return Err(format!("`{}` holds other processes than the worker", folder.display()));
            }
            let leaf = folder.join("castwork-worker");
            fs::create_dir_all(&leaf).map_err(at)?;
            fs::write(leaf.join("cgroup.procs"), own).map_err(at)?;
            fs::write(&control, on).map_err(at)?;
        }
        done => done.map_err(at)?,
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        31 23 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn each_controller_has_its_own_place_in_version_1_and_all_the_same_in_version_2() {
        let own = "8:pids:/\n4:memory:/a/b\n0::/c\n";
        let place = |controller| own_folder(HYBRID, own, controller).unwrap();
        assert_eq!(place(Some("memory")), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(place(Some("pids")), Path::new("/sys/fs/cgroup/pids"));
        assert_eq!(place(None), Path::new("/sys/fs/cgroup/unified/c"));
        assert_eq!(own_folder(HYBRID, own, Some("cpu")), None);
    }

    #[test]
    fn a_container_that_sees_its_own_part_only_is_at_the_top_of_it() {
        let mounts = "32 23 0:28 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let place = |own| own_folder(mounts, own, None).unwrap();
        assert_eq!(place("0::/docker/x/y\n"), Path::new("/sys/fs/cgroup/y"));
        assert_eq!(place("0::/\n"), Path::new("/sys/fs/cgroup"));
    }
}
