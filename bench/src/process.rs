//! What processes have used, from Linux's `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A hundredth of a second, on every Linux there is.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used.
pub(crate) struct Process {
    pub(crate) cpu: Duration,
    pub(crate) memory_bytes: u64,
}

impl Process {
    /// Looks at a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let status = read(pid, "status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let cpu = ticks(&fields(pid)?, OWN);
        Ok(Self { cpu, memory_bytes: kilobytes.unwrap_or(0) * 1024 })
    }
}

/// What processes have used, and all that they have started, be it over or not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trees {
    /// The processes themselves.
    pub(crate) own: Duration,
    /// What they have started, and what that has.
    pub(crate) below: Duration,
}

impl Trees {
    /// Looks at processes that run.
    pub(crate) fn of(pids: &[u32]) -> Result<Self, String> {
        let folders = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
        let running = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        // What has ended meanwhile counts with its parent.
        let all: BTreeMap<u32, Vec<String>> =
            running.filter_map(|pid| Some((pid, fields(pid).ok()?))).collect();
        let parent = |pid: &u32| all.get(pid)?.get(1)?.parse::<u32>().ok();
        let is_meant = |pid: u32| std::iter::successors(Some(pid), parent).any(|pid| pids.contains(&pid));
        let mut trees = Self::default();
        for (pid, fields) in all.iter().filter(|(pid, _)| is_meant(**pid)) {
            let own = ticks(fields, OWN);
            if pids.contains(pid) {
                trees.own += own;
            } else {
                trees.below += own;
            }
            trees.below += ticks(fields, CHILDREN);
        }
        Ok(trees)
    }

    /// What was used since an earlier look, for each of `count`.
    pub(crate) fn each_since(self, before: Self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let each = |now: Duration, before: Duration| now.saturating_sub(before) / count;
        Self { own: each(self.own, before.own), below: each(self.below, before.below) }
    }

    pub(crate) fn all(self) -> Duration {
        self.own + self.below
    }
}

/// Where user and system time are in what [`fields`] returns, of a process and of those that it has waited for.
const OWN: [usize; 2] = [11, 12];
const CHILDREN: [usize; 2] = [13, 14];

/// The fields of `stat` after the name, which may hold anything.
fn fields(pid: u32) -> Result<Vec<String>, String> {
    let stat = read(pid, "stat")?;
    Ok(stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], places: [usize; 2]) -> Duration {
    let ticks = places.map(|at| fields.get(at).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0));
    TICK * ticks.iter().sum()
}

fn read(pid: u32, name: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| format!("/proc: {error}"))
}
