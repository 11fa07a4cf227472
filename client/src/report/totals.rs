//! [`Totals`]: the sums of a run's parts, and the rows that a reader sees.

use std::collections::BTreeMap;
use std::time::Duration;

use castwork_proto::runs::{Report, Seen, Told};

use super::gate::Rate;

/// The sums of a run's parts.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) rate: Rate,
    /// What clients said, if any did.
    pub(super) told: Option<Told>,
    /// What the server saw, if one was asked.
    pub(super) seen: Option<Seen>,
    pub(super) saved: Duration,
    pub(super) ran: Duration,
}

impl Totals {
    pub(super) fn of(report: &Report) -> Self {
        let mut totals = Self { rate: Rate::of_all(report.parts.iter()), ..Self::default() };
        for part in &report.parts {
            if let Some(told) = &part.told {
                totals.add_told(told);
            }
            if let Some(seen) = &part.seen {
                totals.add_seen(seen);
            }
        }
        totals
    }

    fn add_told(&mut self, told: &Told) {
        let sum = self.told.get_or_insert_default();
        let numbers = [
            (&mut sum.compiles, told.compiles),
            (&mut sum.local_hits, told.local_hits),
            (&mut sum.remote_hits, told.remote_hits),
            (&mut sum.remote_runs, told.remote_runs),
            (&mut sum.local_runs, told.local_runs),
            (&mut sum.passed_through, told.passed_through),
            (&mut sum.fallbacks, told.fallbacks),
        ];
        for (sum, number) in numbers {
            *sum += number;
        }
        add(&mut sum.reasons, &told.reasons);
    }

    fn add_seen(&mut self, seen: &Seen) {
        let time = |time: Option<&prost_types::Duration>| {
            time.and_then(|time| Duration::try_from(*time).ok()).unwrap_or_default()
        };
        self.saved += time(seen.time_saved.as_ref());
        self.ran += time(seen.run_time.as_ref());
        let sum = self.seen.get_or_insert_default();
        let numbers = [
            (&mut sum.hits, seen.hits),
            (&mut sum.remote_runs, seen.remote_runs),
            (&mut sum.shared, seen.shared),
            (&mut sum.failed, seen.failed),
            (&mut sum.stored, seen.stored),
            (&mut sum.bytes_uploaded, seen.bytes_uploaded),
            (&mut sum.bytes_downloaded, seen.bytes_downloaded),
        ];
        for (sum, number) in numbers {
            *sum += number;
        }
        add(&mut sum.misses, &seen.misses);
        add(&mut sum.refused, &seen.refused);
    }

    /// What there is to say, in order: name, value, and how deep below the one before.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::new(
            0,
            "hit rate",
            format!("{:.1} %", self.rate.percent()),
            format!("{} of {}", self.rate.hits, self.rate.asked),
        )];
        if let Some(told) = &self.told {
            rows.push(Row::count(1, "hits, local", told.local_hits));
            rows.push(Row::count(1, "hits, remote", told.remote_hits));
            rows.push(Row::count(0, "runs, remote", told.remote_runs));
            rows.push(Row::count(0, "runs, local", told.local_runs));
            rows.push(Row::count(1, "of these fallbacks", told.fallbacks));
            rows.push(Row::count(0, "passed through", told.passed_through));
        }
        if let Some(seen) = &self.seen {
            self.add_rows_of(seen, &mut rows);
        }
        if let Some(told) = self.told.as_ref().filter(|told| !told.reasons.is_empty()) {
            rows.push(Row::new(0, "reasons", String::new(), String::new()));
            let mut reasons: Vec<_> = told.reasons.iter().collect();
            reasons.sort_by_key(|(name, number)| (std::cmp::Reverse(**number), *name));
            rows.extend(reasons.into_iter().map(|(name, number)| Row::count(1, name, *number)));
        }
        rows
    }

    fn add_rows_of(&self, seen: &Seen, rows: &mut Vec<Row>) {
        rows.push(Row::count(0, "the server's cache: hits", seen.hits));
        rows.push(Row::count(0, "the server's cache: misses", seen.misses.values().sum()));
        rows.extend(seen.misses.iter().map(|(cause, number)| Row::count(1, cause, *number)));
        rows.push(Row::count(0, "run by workers", seen.remote_runs));
        for (name, number) in [
            ("answered by another's run", seen.shared),
            ("with another exit code than 0", seen.failed),
            ("results kept for others", seen.stored),
        ] {
            if number > 0 {
                rows.push(Row::count(1, name, number));
            }
        }
        rows.extend(
            seen.refused.iter().map(|(code, number)| Row::count(1, &format!("ended with {code}"), *number)),
        );
        rows.push(Row::new(0, "uploaded", megabytes(seen.bytes_uploaded), String::new()));
        rows.push(Row::new(0, "downloaded", megabytes(seen.bytes_downloaded), String::new()));
        let saved = format!("{:.1} s", self.saved.as_secs_f64());
        let ran = format!("run now: {:.1} s", self.ran.as_secs_f64());
        rows.push(Row::new(0, "time saved by these hits", saved, ran));
    }
}

/// A line of a report.
pub(super) struct Row {
    pub(super) depth: usize,
    pub(super) name: String,
    pub(super) value: String,
    pub(super) remark: String,
}

impl Row {
    fn new(depth: usize, name: &str, value: String, remark: String) -> Self {
        Self { depth, name: name.to_owned(), value, remark }
    }

    fn count(depth: usize, name: &str, count: u64) -> Self {
        Self::new(depth, name, count.to_string(), String::new())
    }
}

fn add(sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, number) in more {
        *sums.entry(name.clone()).or_default() += number;
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", crate::commands::to_float(bytes) / 1e6)
}
