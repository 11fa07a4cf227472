//! [`Record`]: what is kept of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use castwork_proto::runs;
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::asker::{Configuration, clip};
use super::cause::Cause;

/// Different reasons that one teller may give, at most.
const REASONS_MAX: usize = 256;

/// Bytes that it takes to keep what a client says, and one reason, besides the texts.
const TOLD_BYTES_MIN: usize = 512;
const REASON_BYTES_MIN: usize = 64;

/// What is kept of a run. Everything in it has a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) instance: String,
    pub(crate) run: String,
    /// Name and version of the client.
    pub(crate) tool: String,
    /// Since the epoch of Unix.
    pub(crate) begun_ms: u64,
    pub(crate) last_seen_ms: u64,
    pub(crate) parts: Vec<PartRecord>,
}

/// What was built in one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) configuration: Configuration,
    pub(crate) seen: Seen,
    /// By teller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) told: BTreeMap<String, Told>,
}

/// What the server saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    pub(crate) hits: u64,
    pub(crate) misses: BTreeMap<Cause, u64>,
    pub(crate) remote_runs: u64,
    pub(crate) shared: u64,
    pub(crate) failed: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) stored: u64,
    pub(crate) bytes_uploaded: u64,
    pub(crate) bytes_downloaded: u64,
    pub(crate) saved_ms: u64,
    pub(crate) ran_ms: u64,
}

/// What a client said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Told {
    compiles: u64,
    local_hits: u64,
    remote_hits: u64,
    remote_runs: u64,
    local_runs: u64,
    passed_through: u64,
    fallbacks: u64,
    reasons: BTreeMap<String, u64>,
}

impl Told {
    pub(crate) fn from_proto(told: runs::Told) -> Self {
        let reasons = told.reasons.into_iter().take(REASONS_MAX);
        Self {
            compiles: told.compiles,
            local_hits: told.local_hits,
            remote_hits: told.remote_hits,
            remote_runs: told.remote_runs,
            local_runs: told.local_runs,
            passed_through: told.passed_through,
            fallbacks: told.fallbacks,
            reasons: reasons.map(|(reason, count)| (clip(reason), count)).collect(),
        }
    }

    /// About how much memory that takes, with its teller.
    pub(crate) fn bytes(&self) -> usize {
        TOLD_BYTES_MIN + self.reasons.keys().map(|reason| REASON_BYTES_MIN + reason.len()).sum::<usize>()
    }

    fn add_to(&self, sum: &mut runs::Told) {
        let numbers = [
            (&mut sum.compiles, self.compiles),
            (&mut sum.local_hits, self.local_hits),
            (&mut sum.remote_hits, self.remote_hits),
            (&mut sum.remote_runs, self.remote_runs),
            (&mut sum.local_runs, self.local_runs),
            (&mut sum.passed_through, self.passed_through),
            (&mut sum.fallbacks, self.fallbacks),
        ];
        for (sum, number) in numbers {
            *sum = sum.saturating_add(number);
        }
        for (reason, count) in &self.reasons {
            let sum = sum.reasons.entry(reason.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

impl Record {
    /// About how much memory that takes which clients said.
    pub(crate) fn told_bytes(&self) -> usize {
        self.parts.iter().flat_map(|part| part.told.values()).map(Told::bytes).sum()
    }

    /// The run as it is told; `is_first` knows which configurations had no run before.
    pub(crate) fn to_proto(&self, is_first: impl Fn(&Configuration) -> bool) -> runs::Report {
        runs::Report {
            instance_name: self.instance.clone(),
            run: self.run.clone(),
            tool: self.tool.clone(),
            begun: Some(timestamp(self.begun_ms)),
            last_seen: Some(timestamp(self.last_seen_ms)),
            parts: self.parts.iter().map(|part| part.to_proto(&is_first)).collect(),
        }
    }
}

impl PartRecord {
    fn to_proto(&self, is_first: impl Fn(&Configuration) -> bool) -> runs::Part {
        let Configuration { project, toolchain, platform } = self.configuration.clone();
        let told = (!self.told.is_empty()).then(|| {
            let mut sum = runs::Told::default();
            self.told.values().for_each(|told| told.add_to(&mut sum));
            sum
        });
        runs::Part {
            configuration: Some(runs::Configuration { project, toolchain, platform }),
            is_first: is_first(&self.configuration),
            seen: Some(self.seen.to_proto()),
            told,
        }
    }
}

impl Seen {
    fn to_proto(&self) -> runs::Seen {
        let misses = self.misses.iter().map(|(cause, count)| (cause.name().to_owned(), *count));
        runs::Seen {
            hits: self.hits,
            misses: misses.collect(),
            remote_runs: self.remote_runs,
            shared: self.shared,
            failed: self.failed,
            refused: self.refused.clone(),
            stored: self.stored,
            bytes_uploaded: self.bytes_uploaded,
            bytes_downloaded: self.bytes_downloaded,
            time_saved: prost_types::Duration::try_from(Duration::from_millis(self.saved_ms)).ok(),
            run_time: prost_types::Duration::try_from(Duration::from_millis(self.ran_ms)).ok(),
        }
    }
}

pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    let nanos = i32::try_from(unix_ms % 1_000 * 1_000_000).expect("less than a second");
    Timestamp { seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX), nanos }
}
