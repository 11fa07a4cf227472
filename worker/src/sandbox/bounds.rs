//! [`Bounds`]: how much of the machine one action may take.

/// Least and most that an action's `/tmp` may hold unless told otherwise, in bytes. It is memory.
const TMP_BYTES: (u64, u64) = (256 << 20, 4 << 30);

/// Least memory that an action gets unless told otherwise, in bytes.
const MEMORY_BYTES_LEAST: u64 = 512 << 20;

/// How much of each of stdout and stderr is kept unless told otherwise, in bytes.
pub(super) const OUTPUT_BYTES: u64 = 16 << 20;

/// The most that one action may use at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// Memory of all its processes, in bytes, unless more is set aside for it.
    pub memory_bytes: u64,
    /// The most that it may use if so much is set aside for it.
    pub memory_bytes_max: u64,
    /// Processes and threads.
    pub processes: u64,
    /// What it writes to the worker's disk, in bytes.
    pub disk_bytes: u64,
    /// Processor time, in percent of one processor: 150 is one and a half. `None` for as much as there is;
    /// actions that run at once have equal shares of it.
    pub cpu_percent: Option<u64>,
    /// Files and folders that it makes on the worker's disk, and again in `/tmp` and in `/dev/shm`.
    pub files: u64,
    /// Size of `/tmp`, and of `/dev/shm`, in bytes.
    pub tmp_bytes: u64,
    /// How much of each of stdout and stderr is kept, in bytes. What comes after is counted and
    /// dropped, and the command goes on.
    pub output_bytes: u64,
}

/// One of them that an action was killed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// [`Bounds::memory_bytes`]
    Memory,
    /// [`Bounds::disk_bytes`] or [`Bounds::files`]
    Disk,
}

impl Bound {
    /// What people are told.
    pub fn complaint(self, bounds: &Bounds) -> String {
        match self {
            Self::Memory => format!(
                "the command was killed: it used more memory than the {} MiB it may",
                bounds.memory_bytes >> 20
            ),
            Self::Disk => format!(
                "the command was killed: it wrote more to the disk than the {} MiB or {} files it may",
                bounds.disk_bytes >> 20,
                bounds.files
            ),
        }
    }
}

impl Bounds {
    /// The same for an action that so much memory is set aside for; 0 if nobody has said.
    #[must_use]
    pub fn with_memory(self, set_aside: u64) -> Self {
        let most = self.memory_bytes_max.max(self.memory_bytes);
        Self { memory_bytes: set_aside.clamp(self.memory_bytes, most), ..self }
    }

    /// What suits this machine, if so many actions run on it at once.
    pub fn for_this_machine(slots: usize) -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let total_kib: u64 = total.and_then(|total| total.parse().ok()).unwrap_or(0);
        Self::for_machine(total_kib * 1024, slots)
    }

    /// What suits a machine with that much memory, of which so many actions run at once.
    ///
    /// A single action may take twice its share: few are large, and seldom all at once. One that is known to need more
    /// gets more.
    fn for_machine(memory_bytes: u64, slots: usize) -> Self {
        let share = memory_bytes / (slots as u64).max(1);
        let most = (memory_bytes / 10 * 9).max(MEMORY_BYTES_LEAST);
        Self {
            memory_bytes: share.saturating_mul(2).clamp(MEMORY_BYTES_LEAST, most),
            memory_bytes_max: most,
            processes: 1024,
            cpu_percent: None,
            disk_bytes: 16 << 30,
            files: 200_000,
            tmp_bytes: (share / 2).clamp(TMP_BYTES.0, TMP_BYTES.1),
            output_bytes: OUTPUT_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_action_gets_twice_its_share_but_never_the_whole_machine() {
        let memory = |machine: u64, slots| Bounds::for_machine(machine << 30, slots).memory_bytes;
        assert_eq!(memory(64, 8), 16 << 30);
        assert!(memory(8, 1) < 8 << 30);
        assert_eq!(memory(0, 1), MEMORY_BYTES_LEAST);
    }

    #[test]
    fn what_is_set_aside_for_an_action_it_may_use_and_never_less_than_others() {
        let bounds = Bounds::for_machine(64 << 30, 8);
        let memory = |set_aside: u64| bounds.with_memory(set_aside << 30).memory_bytes;
        assert_eq!([0, 1, 16, 32].map(memory), [16, 16, 16, 32].map(|gib| gib << 30));
        assert!((57 << 30..58 << 30).contains(&memory(64)), "a tenth is left for the machine");
        let fixed = Bounds { memory_bytes: 1 << 30, memory_bytes_max: 1 << 30, ..bounds };
        assert_eq!(fixed.with_memory(2 << 30).memory_bytes, 1 << 30);
    }
}
