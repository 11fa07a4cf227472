//! [`WorkerConfig`]: everything a worker has to be told, checked.

use std::path::PathBuf;
use std::time::Duration;

use castwork_proto::reapi::platform::Property;

use crate::sandbox::{Bounds, Level};

/// Size of the local CAS unless told otherwise, in bytes.
pub const BYTES_MAX_DEFAULT: u64 = 10_000_000_000;

/// The property that says how much memory there is for all actions together.
const MEMORY: &str = "memory";

/// How long a worker that was asked to stop lets its actions run, unless told otherwise.
pub const DRAIN_WAIT_DEFAULT: Duration = Duration::from_secs(300);

/// How often a worker tries its disk and its sandbox, unless told otherwise.
pub const TRIAL_EVERY_DEFAULT: Duration = Duration::from_secs(60);

/// Whether commands are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxChoice {
    /// As well as the platform can, but not without namespaces; where it can't, the worker refuses to
    /// start. So it does for the others, which are meant as they are said.
    #[default]
    Auto,
    /// [`Level::Full`]
    Full,
    /// [`Level::Namespaces`]
    Namespaces,
    /// [`Level::Filters`]
    Filters,
    /// Not at all.
    None,
}

impl SandboxChoice {
    /// The level that was asked for by name.
    pub(crate) const fn level(self) -> Option<Level> {
        match self {
            Self::Auto => None,
            Self::Full => Some(Level::Full),
            Self::Namespaces => Some(Level::Namespaces),
            Self::Filters => Some(Level::Filters),
            Self::None => Some(Level::None),
        }
    }
}

/// What a worker is and does.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// `grpc://HOST:PORT`
    pub scheduler: String,
    /// The worker's own folder.
    pub data_dir: PathBuf,
    /// How many actions it runs at once; above zero.
    pub slots: usize,
    /// How many more it takes, to fetch and lay out their inputs while others run.
    pub ahead: usize,
    /// Platform properties beside, or instead of, those that it knows of itself: name and value.
    pub properties: Vec<(String, String)>,
    /// Whether commands are confined.
    pub sandbox: SandboxChoice,
    /// For people; the host's name if empty.
    pub name: String,
    /// Bound of the local CAS, in bytes.
    pub bytes_max: u64,
    /// Written when the scheduler has accepted the worker.
    pub ready_file: Option<PathBuf>,
    /// How long actions may still run after the worker was asked to stop.
    pub drain_wait: Duration,
    /// Absolute paths that no action may see, such as a configuration with a token. The data folder
    /// is always one.
    pub hidden: Vec<PathBuf>,
    /// What one action may use; `None` for what suits the machine.
    pub bounds: Option<Bounds>,
    /// Whether actions that ask for the network, by the property `network=on`, get the machine's.
    pub allows_network: bool,
    /// The program that commands are confined by, which has to call
    /// [`enter_sandbox_if_asked`](crate::enter_sandbox_if_asked) first thing; `None` for the current one.
    pub sandbox_program: Option<PathBuf>,
    /// How often it tries its disk and its sandbox by itself, as long as they work.
    pub trial_every: Duration,
    /// Where spans of what it does go.
    pub traces: Option<castwork_trace::Settings>,
}

impl WorkerConfig {
    /// A worker with as many slots as the machine has processors, and defaults for the rest.
    pub fn new(scheduler: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            scheduler: scheduler.into(),
            data_dir: data_dir.into(),
            slots: slots_default(),
            ahead: 0,
            properties: Vec::new(),
            sandbox: SandboxChoice::Auto,
            name: String::new(),
            bytes_max: BYTES_MAX_DEFAULT,
            ready_file: None,
            drain_wait: DRAIN_WAIT_DEFAULT,
            hidden: Vec::new(),
            bounds: None,
            allows_network: false,
            sandbox_program: None,
            trial_every: TRIAL_EVERY_DEFAULT,
            traces: None,
        }
    }
}

/// One for each processor that this process may use.
pub fn slots_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the worker offers: what it knows of itself, with each name that is configured replaced.
/// Sorted by name, then value, each once.
pub fn properties(configured: &[(String, String)], roots: &[&str], allows_network: bool) -> Vec<Property> {
    let isa = match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        "aarch64" => "arm-a64",
        other => other,
    };
    let own = [("OSFamily", std::env::consts::OS), ("ISA", isa), ("network", "off")];
    let own = own.into_iter().chain(roots.iter().map(|root| ("root", *root)));
    let own = own.chain(allows_network.then_some(("network", "on")));
    let own = own.filter(|(name, _)| configured.iter().all(|(configured, _)| configured != name));
    let mut all: Vec<(&str, &str)> = own.collect();
    all.extend(configured.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    all.sort_unstable();
    all.dedup();
    let property = |(name, value): (&str, &str)| Property { name: name.to_owned(), value: value.to_owned() };
    all.into_iter().map(property).collect()
}

/// The same, with the machine's memory unless they say how much there is. A tenth is left for the worker itself.
pub fn with_memory(mut properties: Vec<Property>) -> Vec<Property> {
    let is_said = properties.iter().any(|own| own.name == MEMORY);
    if let Some(bytes) = memory_of_this_machine().filter(|_| !is_said) {
        properties.push(Property { name: MEMORY.to_owned(), value: (bytes / 10 * 9).to_string() });
        properties.sort_unstable_by(|one, other| (&one.name, &one.value).cmp(&(&other.name, &other.value)));
    }
    properties
}

/// What the machine has, or what the container has of it, where the system says so in files: on Linux.
fn memory_of_this_machine() -> Option<u64> {
    let information = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total =
        information.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let total = total?.parse::<u64>().ok()?.checked_mul(1024)?;
    let bounds = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let bounds = bounds.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    Some(bounds.fold(total, u64::min)).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_configured_counts_more_than_the_machines() {
        let said = vec![Property { name: MEMORY.to_owned(), value: "1GB".to_owned() }];
        assert_eq!(with_memory(said.clone()), said);
        let other = vec![Property { name: "pool".to_owned(), value: "a".to_owned() }];
        let all = with_memory(other);
        assert!(all.iter().all(|own| own.name != MEMORY || own.value.parse::<u64>().is_ok_and(|it| it > 0)));
        assert!(all.is_sorted_by_key(|own| own.name.clone()), "the server wants them sorted");
    }

    #[test]
    fn properties_are_sorted_and_configured_names_replace_the_workers_own() {
        let configured = [("pool", "b"), ("pool", "a"), ("root", "worker"), ("pool", "a")];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = properties(&configured, &["worker", "inputs"], true);
        let all: Vec<_> =
            all.iter().map(|property| (property.name.as_str(), property.value.as_str())).collect();
        let rest = [("network", "off"), ("network", "on"), ("pool", "a"), ("pool", "b"), ("root", "worker")];
        assert_eq!(all[2..], rest);
        assert_eq!((all[0].0, all[1].0), ("ISA", "OSFamily"));
    }
}
