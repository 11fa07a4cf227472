//! The queue's numbers, in Prometheus' text format and as what an autoscaler asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::operators::Overview;
use crate::queue::{Histogram, Needs, View};

/// What waits and what there is for it, of the actions that need the same.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Platform {
    /// What a worker must offer, as `name=value` with commas between.
    #[serde(rename = "platform")]
    name: String,
    /// Actions that wait.
    queued: u64,
    /// For how long the first of them has waited, in seconds.
    waiting_s: u64,
    /// Slots that run something.
    slots_busy: u64,
    /// Slots there are.
    slots: u64,
    /// Slots that would have everything run at once.
    slots_wanted: u64,
    /// Workers there are.
    workers: u64,
    /// Workers that there would have to be for that, if they were like those there are.
    workers_wanted: u64,
}

/// What an autoscaler asks: for each platform what there is, and what there would have to be for nothing to
/// wait. A platform that has workers and nothing to do is there too, so that it can shrink.
pub(crate) fn wanted(view: &View) -> Vec<Platform> {
    let mut by_platform: BTreeMap<String, Platform> = BTreeMap::new();
    for class in &view.classes {
        let entry = entry(&mut by_platform, platform(&class.needs));
        entry.queued += class.waiting as u64;
        entry.slots_wanted += class.slots_wanted;
        entry.waiting_s = entry.waiting_s.max(view.now.saturating_sub(class.since).as_secs());
    }
    for worker in view.workers.iter().filter(|worker| worker.state.connected && !worker.state.draining) {
        let own = class_of(worker);
        let able = view.classes.iter().filter(|class| worker.offer.can_run(&class.needs));
        let mut platforms: Vec<_> = able.map(|class| platform(&class.needs)).collect();
        platforms.sort();
        platforms.dedup();
        if platforms.is_empty() {
            platforms.push(own);
        }
        for platform in platforms {
            let entry = entry(&mut by_platform, platform);
            entry.workers += 1;
            entry.slots += u64::from(worker.state.slots);
            entry.slots_busy += u64::from(worker.used.0);
        }
    }
    by_platform.into_values().map(Platform::completed).collect()
}

/// What a worker counts for as long as nothing waits that it could run.
fn class_of(worker: &crate::queue::WorkerView) -> String {
    let properties = worker.offer.properties.pairs().iter();
    let basic = properties.filter(|(name, _)| name == "ISA" || name == "OSFamily");
    joined(basic)
}

fn entry(all: &mut BTreeMap<String, Platform>, platform: String) -> &mut Platform {
    let empty = Platform {
        name: platform.clone(),
        queued: 0,
        waiting_s: 0,
        slots_busy: 0,
        slots: 0,
        slots_wanted: 0,
        workers: 0,
        workers_wanted: 0,
    };
    all.entry(platform).or_insert(empty)
}

impl Platform {
    fn completed(mut self) -> Self {
        self.slots_wanted += self.slots_busy;
        let each = self.slots.checked_div(self.workers).unwrap_or(1).max(1);
        self.workers_wanted = self.slots_wanted.div_ceil(each);
        self
    }
}

fn platform(needs: &Needs) -> String {
    joined(needs.properties.pairs().iter())
}

fn joined<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

/// Appends what only the queue knows; plain gauges are elsewhere.
pub(crate) fn write_to(text: &mut String, overview: &Overview) {
    let tally = &overview.tally;
    counter(text, "castwork_leases_granted_total", "Actions that were given to workers.", tally.granted);
    counter(
        text,
        "castwork_leases_warm_total",
        "Of these, given to a worker that was thought to have some of the inputs.",
        tally.granted_warm,
    );
    counter(text, "castwork_leases_adopted_total", "Leases of an earlier life that went on.", tally.adopted);
    counter(text, "castwork_requests_shared_total", "Requests that shared an action.", tally.shared);
    counter(text, "castwork_quarantines_total", "Workers left out for a while.", tally.quarantines);
    counter(text, "castwork_hedges_total", "Second attempts at actions that took too long.", tally.hedges);
    counter(text, "castwork_hedges_first_total", "Of these, done before the first.", tally.hedges_first);
    let rechecks = tally.rechecks;
    let outcomes = [
        ("same", rechecks.same),
        ("not_repeatable", rechecks.not_repeatable),
        ("suspect", rechecks.suspect),
        ("disagreement", rechecks.disagreement),
    ];
    let help = "Results that were compared with those of another run, by what came of it.";
    heading(text, "castwork_rechecks_total", help, "counter");
    for (outcome, count) in outcomes {
        line(text, "castwork_rechecks_total", &[("outcome", outcome)], count);
    }
    heading(text, "castwork_retries_total", "Actions that were tried again, by cause.", "counter");
    for (cause, count) in &tally.retries {
        line(text, "castwork_retries_total", &[("cause", &cause.to_string())], *count);
    }
    histogram(text, "castwork_queue_wait_seconds", "From getting in line to a worker.", &tally.waited);
    histogram(text, "castwork_action_seconds", "From being given to a worker to the outcome.", &tally.ran);
    write_wanted(text, &wanted(&overview.view));
}

fn write_wanted(text: &mut String, wanted: &[Platform]) {
    type Value = fn(&Platform) -> u64;
    let rows: [(&str, &str, Value); 6] = [
        ("castwork_platform_queued", "Actions that wait, by platform.", |it| it.queued),
        ("castwork_platform_waiting_seconds", "How long the first has waited.", |it| it.waiting_s),
        ("castwork_platform_slots", "Slots that could run them.", |it| it.slots),
        ("castwork_platform_slots_busy", "Of these, taken.", |it| it.slots_busy),
        ("castwork_platform_workers", "Workers that could run them.", |it| it.workers),
        ("castwork_platform_workers_wanted", "Workers that would have everything run at once.", |it| {
            it.workers_wanted
        }),
    ];
    for (name, help, value) in rows {
        heading(text, name, help, "gauge");
        for platform in wanted {
            line(text, name, &[("platform", &platform.name)], value(platform));
        }
    }
}

fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    heading(text, name, help, "counter");
    line(text, name, &[], value);
}

fn histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    heading(text, name, help, "histogram");
    let bucket = format!("{name}_bucket");
    for (bound_ms, count) in histogram.cumulative() {
        line(text, &bucket, &[("le", &seconds(bound_ms))], count);
    }
    let (count, sum) = histogram.total();
    line(text, &bucket, &[("le", "+Inf")], count);
    writeln!(text, "{name}_sum {}", sum.as_secs_f64()).expect("writing to a string does not fail");
    line(text, &format!("{name}_count"), &[], count);
}

fn seconds(millis: u64) -> String {
    std::time::Duration::from_millis(millis).as_secs_f64().to_string()
}

fn heading(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a string does not fail");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    writeln!(text, "{name}{labels} {value}").expect("writing to a string does not fail");
}

/// As the text format has it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_can_not_end_a_line_or_a_label() {
        let mut text = String::new();
        line(&mut text, "x", &[("platform", "a\"b\\c\nd")], 1);
        assert_eq!(text, "x{platform=\"a\\\"b\\\\c\\nd\"} 1\n");
    }

    #[test]
    fn workers_wanted_are_as_large_as_those_there_are() {
        let mut all = BTreeMap::new();
        let one = entry(&mut all, "OSFamily=linux".to_owned());
        (one.workers, one.slots, one.slots_busy, one.slots_wanted) = (2, 8, 8, 5);
        let done = all.into_values().next().unwrap().completed();
        assert_eq!((done.slots_wanted, done.workers_wanted), (13, 4));
    }
}
