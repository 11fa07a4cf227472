//! [`Counters`]: what the server has done since it started, for `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use castwork_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number as it stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// Name in the manner of Prometheus, with `castwork_` in front and the unit last.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// The number.
    pub value: u64,
}

/// gRPC calls by their method.
#[derive(Debug)]
pub struct Calls {
    /// By package, service and name. All that there are, as callers may make up more.
    known: BTreeMap<String, Counter>,
    other: Counter,
}

impl Default for Calls {
    fn default() -> Self {
        let described = FileDescriptorSet::decode(DESCRIPTORS).expect("the build made it");
        let names = described.file.iter().flat_map(|file| {
            file.service.iter().flat_map(move |service| {
                service
                    .method
                    .iter()
                    .map(move |method| format!("{}.{}/{}", file.package(), service.name(), method.name()))
            })
        });
        Self { known: names.map(|name| (name, Counter::default())).collect(), other: Counter::default() }
    }
}

impl Calls {
    /// Counts a call by the path that it arrived at.
    pub fn add(&self, path: &str) {
        self.known.get(path.trim_start_matches('/')).unwrap_or(&self.other).add(1);
    }

    fn write_to(&self, text: &mut String) {
        let name = "castwork_calls_total";
        writeln!(text, "# HELP {name} gRPC calls that arrived, by method.\n# TYPE {name} counter")
            .expect("writing to a string does not fail");
        let known = self.known.iter().map(|(method, counter)| (method.as_str(), counter));
        for (method, counter) in known.chain([("other", &self.other)]) {
            if counter.value() > 0 {
                writeln!(text, "{name}{{method=\"{method}\"}} {}", counter.value())
                    .expect("writing to a string does not fail");
            }
        }
    }
}

/// Every counter of the server.
#[derive(Debug, Default)]
pub struct Counters {
    /// gRPC calls that arrived, whatever their answer.
    pub requests: Counter,
    /// The same by method.
    pub calls: Calls,
    /// Blobs that were stored, not counting those that were there already.
    pub blobs_stored: Counter,
    /// Bytes of those blobs.
    pub blob_bytes_stored: Counter,
    /// Blobs that were opened for reading.
    pub blobs_read: Counter,
    /// Bytes of blobs that were handed out.
    pub blob_bytes_read: Counter,
    /// Results that were stored.
    pub results_stored: Counter,
    /// Results that were taken back.
    pub results_revoked: Counter,
    /// Lookups of results that found one.
    pub result_hits: Counter,
    /// Lookups of results that found none, or an incomplete one.
    pub result_misses: Counter,
    /// Files evicted to stay within the bound.
    pub evictions: Counter,
    /// Bytes of those files.
    pub evicted_bytes: Counter,
    /// Files whose bytes were not what their name says; they were dropped.
    pub corrupt: Counter,
    /// Writes refused because there was no room.
    pub refused_full: Counter,
    /// Bytes that were read to verify what is kept.
    pub verified_bytes: Counter,
    /// Times that all that is kept was read for that.
    pub verifications: Counter,
    /// Blobs that the store lacked and the tier has.
    pub tier_blob_hits: Counter,
    /// Results that the store lacked and the tier has.
    pub tier_result_hits: Counter,
    /// Blobs that were copied from the tier.
    pub tier_fetched: Counter,
    /// Bytes of those blobs.
    pub tier_fetched_bytes: Counter,
    /// Blobs that were written to the tier.
    pub tier_written_blobs: Counter,
    /// Bytes of those blobs, before compression.
    pub tier_written_bytes: Counter,
    /// Results that were written to the tier.
    pub tier_written_results: Counter,
    /// Blobs and results that were to be written to the tier and were not.
    pub tier_dropped: Counter,
    /// Calls of the tier that failed, or took too long.
    pub tier_failures: Counter,
}

impl Counters {
    /// Appends all counters in Prometheus' text format.
    pub fn write_to(&self, text: &mut String) {
        let rows: [(&str, &str, &Counter); 15] = [
            ("castwork_requests_total", "gRPC calls that arrived.", &self.requests),
            ("castwork_blobs_stored_total", "Blobs that were stored.", &self.blobs_stored),
            ("castwork_blob_stored_bytes_total", "Bytes of stored blobs.", &self.blob_bytes_stored),
            ("castwork_blobs_read_total", "Blobs that were opened for reading.", &self.blobs_read),
            ("castwork_blob_read_bytes_total", "Bytes of blobs that were handed out.", &self.blob_bytes_read),
            ("castwork_results_stored_total", "Results that were stored.", &self.results_stored),
            ("castwork_results_revoked_total", "Results that were taken back.", &self.results_revoked),
            ("castwork_result_hits_total", "Lookups of results that found one.", &self.result_hits),
            ("castwork_result_misses_total", "Lookups of results that found none.", &self.result_misses),
            ("castwork_evictions_total", "Files evicted to stay within the bound.", &self.evictions),
            ("castwork_evicted_bytes_total", "Bytes of evicted files.", &self.evicted_bytes),
            ("castwork_corrupt_total", "Files dropped because their bytes were wrong.", &self.corrupt),
            ("castwork_refused_full_total", "Writes refused for lack of room.", &self.refused_full),
            ("castwork_verified_bytes_total", "Bytes read to verify what is kept.", &self.verified_bytes),
            ("castwork_verifications_total", "Times that all was read for that.", &self.verifications),
        ];
        let tier: [(&str, &str, &Counter); 9] = [
            ("castwork_tier_blob_hits_total", "Blobs that only the tier had.", &self.tier_blob_hits),
            ("castwork_tier_result_hits_total", "Results that only the tier had.", &self.tier_result_hits),
            ("castwork_tier_fetched_total", "Blobs copied from the tier.", &self.tier_fetched),
            ("castwork_tier_fetched_bytes_total", "Bytes of those.", &self.tier_fetched_bytes),
            ("castwork_tier_written_blobs_total", "Blobs written to the tier.", &self.tier_written_blobs),
            ("castwork_tier_written_bytes_total", "Bytes of those.", &self.tier_written_bytes),
            ("castwork_tier_written_results_total", "Results written to it.", &self.tier_written_results),
            (
                "castwork_tier_dropped_total",
                "What should have been written to it, but was not.",
                &self.tier_dropped,
            ),
            ("castwork_tier_failures_total", "Calls of the tier that failed.", &self.tier_failures),
        ];
        for (name, help, counter) in rows.into_iter().chain(tier) {
            write_metric(text, name, help, "counter", counter.value());
        }
        self.calls.write_to(text);
    }
}

/// Appends gauges in Prometheus' text format.
pub fn write_gauges(text: &mut String, gauges: &[Gauge]) {
    for gauge in gauges {
        write_metric(text, gauge.name, gauge.help, "gauge", gauge.value);
    }
}

fn write_metric(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
        .expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_what_is_made_up_is_one() {
        let counters = Counters::default();
        let find = "build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
        for path in [find, find, "made/Up", "Made/Up"] {
            counters.calls.add(&format!("/{path}"));
        }
        let mut text = String::new();
        counters.write_to(&mut text);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("castwork_calls_total")).collect();
        let found = format!("castwork_calls_total{{method=\"{find}\"}} 2");
        assert_eq!(rows, [found.as_str(), "castwork_calls_total{method=\"other\"} 2"]);
    }

    #[test]
    fn a_counter_is_written_with_its_help_and_its_type() {
        let counters = Counters::default();
        counters.evictions.add(3);
        let mut text = String::new();
        counters.write_to(&mut text);
        write_gauges(&mut text, &[Gauge { name: "castwork_queued", help: "Actions that wait.", value: 7 }]);
        assert!(text.contains("# TYPE castwork_evictions_total counter\ncastwork_evictions_total 3\n"));
        assert!(text.contains(
            "# HELP castwork_queued Actions that wait.\n# TYPE castwork_queued gauge\ncastwork_queued 7\n"
        ));
    }
}
