//! What operators ask, for people: pages of plain text.

use std::fmt::Write as _;

use castwork_proto::admin::worker::State;
use castwork_proto::admin::{
    Action, DrainResponse, EndedAction, FindActionsResponse, Finding, Queue, Run, Status, Worker,
};
use castwork_proto::reapi::Digest;
use castwork_proto::reapi::execution_stage::Value as Stage;
use castwork_proto::reapi::platform::Property;

/// Letters of what strangers wrote that a line shows, at most.
const SHOWN_MAX: usize = 40;
/// Runs that the overview shows, at most.
const RUNS_MAX: usize = 12;
/// Cells of a bar.
const BAR: usize = 20;

pub(super) fn status(status: &Status) -> String {
    let slots: u32 = status.workers.iter().filter(|worker| is_here(worker)).map(|worker| worker.slots).sum();
    let here = status.workers.iter().filter(|worker| is_here(worker)).count();
    let uptime = span(seconds(status.uptime.as_ref()));
    let mut text = format!(
        "castwork-scheduler {}, up {uptime}: {} waiting, {} running on {slots} slots of {here} {}\n",
        status.version,
        status.queued,
        status.running,
        if here == 1 { "worker" } else { "workers" },
    );
    if !status.retries.is_empty() {
        let causes: Vec<_> = status.retries.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        line(&mut text, &format!("tried again: {}", causes.join(", ")));
    }
    for drain in &status.drains {
        let age = span(seconds(drain.age.as_ref()));
        line(&mut text, &format!("drained {age} ago: {} ({})", shown(&drain.pattern), shown(&drain.reason)));
    }
    if !status.queues.is_empty() {
        text.push_str("\nWAITING    FOR  NEEDS\n");
        for queue in &status.queues {
            queue_lines(&mut text, queue);
        }
    }
    if !status.runs.is_empty() {
        text.push('\n');
        text.push_str(&runs(&status.runs));
    }
    text.push('\n');
    text.push_str(&workers(&status.workers));
    text
}

fn queue_lines(text: &mut String, queue: &Queue) {
    let mut needs = pairs(&queue.properties);
    for (name, amount) in queue.amounts.iter().filter(|(name, amount)| *name != "cores" || **amount > 1) {
        let amount = if name == "memory" { bytes(*amount) } else { amount.to_string() };
        needs.push(format!("{}={amount}", shown(name)));
    }
    let needs = if needs.is_empty() { "any worker".to_owned() } else { needs.join(" ") };
    let waiting_for = span(seconds(queue.waiting_for.as_ref()));
    line(text, &format!("{:>7} {waiting_for:>6}  {needs}", queue.waiting));
    line(text, &format!("                because {}", printable(&queue.reason)));
}

pub(super) fn runs(runs: &[Run]) -> String {
    let mut sorted: Vec<_> = runs.iter().collect();
    sorted.sort_by_key(|run| std::cmp::Reverse((run.running, run.waiting)));
    let mut text = "SHARE                        RUNNING  WAITING     DONE    AGE  RUN\n".to_owned();
    for run in sorted.iter().take(RUNS_MAX) {
        let percent = run.share_basis_points / 100;
        let filled = (run.share_basis_points as usize * BAR).div_ceil(10_000).min(BAR);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled));
        let done = run.granted.saturating_sub(run.running);
        let age = span(seconds(run.age.as_ref()));
        let name = if run.run.is_empty() { "(no name)".to_owned() } else { shown(&run.run) };
        let owner = [&run.instance_name, &run.principal];
        let owner: Vec<_> = owner.iter().filter(|part| !part.is_empty()).map(|part| shown(part)).collect();
        let owner = if owner.is_empty() { String::new() } else { format!("  ({})", owner.join(", ")) };
        line(
            &mut text,
            &format!(
                "{bar} {percent:>3} % {:>8} {:>8} {done:>8} {age:>6}  {name}{owner}",
                run.running, run.waiting
            ),
        );
    }
    if sorted.len() > RUNS_MAX {
        line(&mut text, &format!("and {} more", sorted.len() - RUNS_MAX));
    }
    text
}

pub(super) fn workers(workers: &[Worker]) -> String {
    if workers.is_empty() {
        return "no worker is attached; start one with `castwork-worker --scheduler grpc://HOST:PORT`\n"
            .to_owned();
    }
    let width = workers.iter().map(|worker| shown(&worker.name).chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$}  STATE        SLOTS      MEMORY       CACHE  HORIZON     AGE  OFFERS\n",
        "WORKER"
    );
    for worker in workers {
        let slots = format!("{}/{}", worker.slots_used, worker.slots);
        let of = |used: u64, total: u64| match total {
            0 => "-".to_owned(),
            total => format!("{}/{}", bytes(used), bytes(total)),
        };
        let memory = of(worker.memory_bytes_used, worker.memory_bytes);
        let cache = of(worker.cache_bytes, worker.cache_bytes_max);
        let horizon = worker.cache_horizon.as_ref();
        let horizon = horizon.map_or_else(|| "-".to_owned(), |horizon| span(seconds(Some(horizon))));
        let mut offers = pairs(&worker.properties);
        offers.extend(worker.amounts.iter().map(|(name, amount)| format!("{}={amount}", shown(name))));
        let age = span(seconds(worker.age.as_ref()));
        line(
            &mut text,
            &format!(
                "{:<width$}  {:<11} {slots:>6} {memory:>11} {cache:>11} {horizon:>8} {age:>7}  {}",
                shown(&worker.name),
                state_of(worker),
                offers.join(" ")
            ),
        );
        if !worker.remark.is_empty() {
            line(&mut text, &format!("{:width$}  because {}", "", printable(&worker.remark)));
        }
    }
    text
}

pub(super) fn actions(found: &FindActionsResponse) -> String {
    if found.actions.is_empty() && found.findings.is_empty() && found.ended.is_empty() {
        return "no such action waits or runs, or is remembered\n".to_owned();
    }
    let mut text: String = found.actions.iter().map(action).collect();
    text.extend(found.findings.iter().map(finding));
    if found.is_cut {
        text.push_str("and more\n");
    }
    if !found.ended.is_empty() {
        text.push_str("ENDED                     WHAT         TOOK  WHY NOT FROM THE CACHE, BY WHOM, FOR WHOM, ACTION\n");
        for ended in &found.ended {
            line(&mut text, &ended_action(ended));
        }
    }
    text
}

fn ended_action(ended: &EndedAction) -> String {
    let at = ended.at.as_ref().map(ToString::to_string).unwrap_or_default();
    let took = match seconds(ended.took.as_ref()) {
        0.0 => "-".to_owned(),
        some => format!("{some:.2} s"),
    };
    let digest = digest_of(ended.action_digest.as_ref());
    let cause = if ended.miss_cause.is_empty() { "-" } else { &ended.miss_cause };
    let worker = if ended.worker.is_empty() { "-".to_owned() } else { shown(&ended.worker) };
    let run = if ended.run.is_empty() { "(no name)".to_owned() } else { shown(&ended.run) };
    format!("{at:<24}  {:<9} {took:>7}  {cause}, {worker}, {run}, {digest}", printable(&ended.outcome))
}

fn finding(finding: &Finding) -> String {
    let age = span(seconds(finding.age.as_ref()));
    let differences: Vec<_> = finding.differences.iter().map(|path| shown(path)).collect();
    let digest = digest_of(finding.action_digest.as_ref());
    let verdict = printable(&finding.verdict);
    format!(
        "{digest}\n  had another result when it was run again, {age} ago: {verdict}\n  differing: {}\n",
        differences.join(", ")
    )
}

fn digest_of(digest: Option<&Digest>) -> String {
    digest.map(|digest| format!("{}/{}", digest.hash, digest.size_bytes)).unwrap_or_default()
}

fn action(action: &Action) -> String {
    let digest = digest_of(action.action_digest.as_ref());
    let stage = match Stage::try_from(action.stage) {
        Ok(Stage::CacheCheck) => "is looked up",
        Ok(Stage::Queued) => "waits",
        Ok(Stage::Executing) => "runs",
        _ => "is somewhere",
    };
    let since = action
        .since
        .as_ref()
        .map_or_else(String::new, |since| format!(" for {}", span(seconds(Some(since)))));
    let expected = span(seconds(action.expected.as_ref()));
    let mut text = format!("{digest}\n  {stage}{since}: {}\n", printable(&action.reason));
    let run = if action.run.is_empty() { "(no name)".to_owned() } else { shown(&action.run) };
    let priority = action.priority;
    line(&mut text, &format!("  run {run}, priority {priority}, expected to take {expected}"));
    if action.failed_attempts > 0 {
        line(&mut text, &format!("  failed {} times by no fault of its own", action.failed_attempts));
    }
    for operation in &action.operations {
        line(&mut text, &format!("  {operation}"));
    }
    text
}

pub(super) fn drained(drained: &DrainResponse, pattern: &str) -> String {
    let mut text = String::new();
    for worker in &drained.workers {
        let running = match worker.running.len() {
            0 => "runs nothing".to_owned(),
            count => format!("still runs {count}"),
        };
        line(&mut text, &format!("{}: {}, {running}", shown(&worker.name), state_of(worker)));
    }
    if drained.workers.is_empty() {
        line(&mut text, &format!("no worker that is here is called `{}`", shown(pattern)));
    }
    let patterns: Vec<_> = drained.drains.iter().map(|drain| shown(&drain.pattern)).collect();
    if patterns.is_empty() {
        line(&mut text, "nothing is drained");
    } else {
        line(&mut text, &format!("drained: {}", patterns.join(", ")));
    }
    text
}

fn is_here(worker: &Worker) -> bool {
    matches!(worker.state(), State::Ok | State::Draining | State::Quarantined)
}

/// The state in one word.
pub(super) fn state_of(worker: &Worker) -> &'static str {
    match worker.state() {
        State::Ok => "ok",
        State::Draining => "draining",
        State::Quarantined => "quarantined",
        State::Away => "away",
        State::Unspecified => "?",
    }
}

/// A time on the wire, in seconds.
pub(super) fn seconds(time: Option<&prost_types::Duration>) -> f64 {
    time.map_or(0.0, |time| {
        let whole = i32::try_from(time.seconds).unwrap_or(i32::MAX);
        f64::from(whole) + f64::from(time.nanos) / 1e9
    })
}

/// A time as people say it, in at most six letters.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds, not negative")]
fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..100 => format!("{whole}s"),
        100..6_000 => format!("{}m{:02}s", whole / 60, whole % 60),
        6_000..360_000 => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d", whole / 86_400),
    }
}

/// Bytes as people say them.
fn bytes(count: u64) -> String {
    let units = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M")];
    let (unit, name) = units.into_iter().find(|(unit, _)| count >= *unit).unwrap_or((1 << 10, "K"));
    if count >= unit * 10 {
        format!("{}{name}", count / unit)
    } else {
        format!("{}.{}{name}", count / unit, count % unit * 10 / unit)
    }
}

fn pairs(properties: &[Property]) -> Vec<String> {
    properties.iter().map(|pair| format!("{}={}", shown(&pair.name), shown(&pair.value))).collect()
}

/// What a stranger wrote, short, and without what would move the cursor.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push('…');
    }
    printable(&short)
}

fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        Worker {
            name: "mac-7".to_owned(),
            state: State::Draining as i32,
            remark: "drained by an operator: a new\u{1b}[2J disk".to_owned(),
            slots: 8,
            slots_used: 3,
            memory_bytes: 16 << 30,
            cache_bytes: 9 << 30,
            cache_bytes_max: 10 << 30,
            cache_horizon: Some(prost_types::Duration { seconds: 7_260, nanos: 0 }),
            properties: vec![Property { name: "OSFamily".to_owned(), value: "macos".to_owned() }],
            ..Worker::default()
        }
    }

    #[test]
    fn a_page_says_what_waits_and_why_and_moves_no_cursor() {
        let queue = Queue {
            properties: vec![Property { name: "ISA".to_owned(), value: "x86-64".to_owned() }],
            amounts: [("cores".to_owned(), 4), ("memory".to_owned(), 3 << 29)].into(),
            waiting: 1_200,
            reason: "all 8 slots are taken".to_owned(),
            ..Queue::default()
        };
        let run = Run {
            run: "ci-17".to_owned(),
            running: 3,
            granted: 5,
            share_basis_points: 7_500,
            ..Run::default()
        };
        let status =
            Status { queues: vec![queue], runs: vec![run], workers: vec![worker()], ..Status::default() };
        let page = super::status(&status);
        for expected in [
            "   1200   0.0s  ISA=x86-64 cores=4 memory=1.5G\n",
            "because all 8 slots are taken\n",
            "###############.....  75 %        3        0        2   0.0s  ci-17\n",
            "mac-7   draining       3/8    0.0K/16G    9.0G/10G    2h01m    0.0s  OSFamily=macos\n",
            "because drained by an operator: a new?[2J disk\n",
        ] {
            assert!(page.contains(expected), "{expected:?} is not in\n{page}");
        }
    }

    #[test]
    fn times_and_sizes_are_short() {
        let spans = [0.25, 59.0, 100.0, 7_260.0, 900_000.0].map(span);
        assert_eq!(spans, ["0.2s", "59s", "1m40s", "2h01m", "10d"]);
        assert_eq!([0, 1_536, 5 << 20, 300 << 30].map(bytes), ["0.0K", "1.5K", "5.0M", "300G"]);
    }

    #[test]
    fn without_workers_it_says_how_to_start_one() {
        assert!(super::status(&Status::default()).contains("castwork-worker --scheduler"));
    }
}
