//! [`LocalRuns`]: the counts of each run of late, for its report.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Counters;
use crate::config::Config;
use crate::local::Platform;
use crate::prepare::Understood;

/// Runs that are kept, at most; the one that was not counted in for longest makes room.
const RUNS_MAX: usize = 100;

/// Configurations of one run, at most; what is beyond counts to the last.
const PARTS_MAX: usize = 16;

/// Configurations of which it is known that there was a run, at most.
const FIRSTS_MAX: usize = 1_000;

/// What is built, by what, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Configuration {
    /// Name of the project; may be empty.
    pub project: String,
    /// Whatever tells one compiler from another; empty for calls that were not understood.
    pub toolchain: String,
    /// `linux-x86-64` and the like.
    pub platform: String,
}

impl Configuration {
    /// What a call builds that is not understood yet.
    pub fn of(config: &Config) -> Self {
        let project = config.project.clone().unwrap_or_default();
        Self { project, toolchain: String::new(), platform: platform() }
    }

    /// Says of it what is known when a call is understood.
    pub fn understood(&mut self, call: &Understood) {
        self.toolchain = call.toolchain().name();
        if self.project.is_empty()
            && let Some(root) = call.place.root.as_deref().map(Path::new)
            // There the names are anybody's guess.
            && !root.starts_with(std::env::temp_dir())
        {
            self.project =
                root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        }
    }
}

/// The platform of this machine.
pub fn platform() -> String {
    format!("{}-{}", Platform::OS_FAMILY, crate::action::isa(std::env::consts::ARCH))
}

/// In which run something is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The run.
    pub run: String,
    /// What is built in it.
    pub configuration: Configuration,
}

/// The counts of one configuration of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What was built.
    pub configuration: Configuration,
    /// How often each thing happened.
    pub counters: Counters,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRun {
    /// Its name.
    pub run: String,
    /// What was built.
    pub parts: Vec<Part>,
}

/// The runs of late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalRuns {
    /// The one that was counted in last is the last.
    runs: Vec<LocalRun>,
    /// Configurations, each with the run that was its first; the newest is the last.
    firsts: Vec<(Configuration, String)>,
}

impl LocalRuns {
    /// The counts of a run.
    pub fn get(&self, run: &str) -> Option<&LocalRun> {
        self.runs.iter().find(|known| known.run == run)
    }

    /// Whether no run before this one is known in a configuration.
    pub fn is_first(&self, run: &str, configuration: &Configuration) -> bool {
        let first = self.firsts.iter().find(|(known, _)| known == configuration);
        first.is_none_or(|(_, first)| first == run)
    }

    /// Counts to a run.
    pub(super) fn add(&mut self, tag: Tag, change: impl FnOnce(&mut Counters)) {
        let Tag { run, configuration } = tag;
        if !self.firsts.iter().any(|(known, _)| *known == configuration) {
            self.firsts.push((configuration.clone(), run.clone()));
            keep_last(&mut self.firsts, FIRSTS_MAX);
        }
        let known = self.runs.iter().position(|known| known.run == run);
        let mut entry = known.map_or_else(|| LocalRun { run, parts: Vec::new() }, |at| self.runs.remove(at));
        let at = entry.parts.iter().position(|part| part.configuration == configuration);
        let at = at.unwrap_or_else(|| {
            if entry.parts.len() < PARTS_MAX {
                entry.parts.push(Part { configuration, ..Part::default() });
            }
            entry.parts.len() - 1
        });
        change(&mut entry.parts[at].counters);
        self.runs.push(entry);
        keep_last(&mut self.runs, RUNS_MAX);
    }
}

/// The counts of a run, whatever was built in it.
impl LocalRun {
    /// All reasons, with how often each was given.
    pub fn reasons(&self) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for (reason, count) in self.parts.iter().flat_map(|part| &part.counters.reasons) {
            *sums.entry(reason.as_str()).or_default() += count;
        }
        sums
    }
}

fn keep_last<T>(all: &mut Vec<T>, max: usize) {
    if all.len() > max {
        all.drain(..all.len() - max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(run: &str, toolchain: &str) -> Tag {
        let toolchain = toolchain.to_owned();
        let configuration = Configuration { toolchain, ..Configuration::default() };
        Tag { run: run.to_owned(), configuration }
    }

    #[test]
    fn a_run_is_counted_by_what_it_builds() {
        let mut runs = LocalRuns::default();
        for (run, toolchain) in [("a", "gcc"), ("a", "gcc"), ("a", "clang"), ("b", "gcc")] {
            runs.add(tag(run, toolchain), |counters| counters.compiles += 1);
        }
        let compiles = |run: &str| {
            runs.get(run).unwrap().parts.iter().map(|part| part.counters.compiles).collect::<Vec<_>>()
        };
        assert_eq!((compiles("a"), compiles("b")), (vec![2, 1], vec![1]));
        let gcc = tag("", "gcc").configuration;
        assert!(runs.is_first("a", &gcc) && !runs.is_first("b", &gcc));
    }

    #[test]
    fn runs_are_bounded_and_the_one_of_today_stays() {
        let mut runs = LocalRuns::default();
        for number in 0..2_000 {
            runs.add(tag(&number.to_string(), &number.to_string()), |_| {});
            runs.add(tag("today", &number.to_string()), |counters| counters.compiles += 1);
        }
        assert_eq!((runs.runs.len(), runs.firsts.len()), (RUNS_MAX, FIRSTS_MAX));
        let today = runs.get("today").unwrap();
        assert_eq!(today.parts.len(), PARTS_MAX);
        assert_eq!(today.parts.iter().map(|part| part.counters.compiles).sum::<u64>(), 2_000);
    }
}
