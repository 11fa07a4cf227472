//! A report as text, as a table in Markdown, and as JSON.

use castwork_proto::runs::{Configuration, Report};
use serde_json::{Value, json};

use super::because::because;
use super::gate::{Gate, Rate, Verdict};
use super::totals::Totals;

/// What the gate came to, if there is one.
pub(super) type Judged = Option<(Gate, Verdict, Rate)>;

/// In one line, for people.
fn sentence(gate: Gate, verdict: Verdict, rate: Rate) -> String {
    let Rate { hits, asked } = rate;
    let percent = rate.percent();
    let min = gate.percent_min;
    match verdict {
        Verdict::FirstRun => "passed: this is the first run of its project, compiler and platform".to_owned(),
        Verdict::Held => {
            format!("passed: {percent:.1} % were hits ({hits} of {asked}), {min} % are required")
        }
        Verdict::Fallen => {
            format!("failed: only {percent:.1} % were hits ({hits} of {asked}), {min} % are required")
        }
    }
}

/// What the report is about.
fn title(report: &Report) -> String {
    let run = if report.run.is_empty() {
        "all calls that are counted here".to_owned()
    } else {
        format!("run {}", clean(&report.run))
    };
    let tool = if report.tool.is_empty() { String::new() } else { format!(" ({})", clean(&report.tool)) };
    format!("{run}{tool}")
}

fn configurations(report: &Report) -> Vec<String> {
    let of = |part: &castwork_proto::runs::Part| {
        let Configuration { project, toolchain, platform } = part.configuration.clone().unwrap_or_default();
        let names: Vec<_> = [project, platform, toolchain]
            .iter()
            .filter(|name| !name.is_empty())
            .map(|it| clean(it))
            .collect();
        let first = if part.is_first { ", for the first time" } else { "" };
        let Rate { hits, asked } = Rate::of(part);
        format!("{}: {hits} of {asked}{first}", names.join(", "))
    };
    report.parts.iter().filter(|part| Rate::of(part).asked > 0).map(of).collect()
}

pub(super) fn text(report: &Report, judged: &Judged) -> String {
    let mut lines = vec![title(report)];
    for row in Totals::of(report).rows() {
        let name = format!("{}{}", "  ".repeat(row.depth), clean(&row.name));
        lines.push(format!("{name:<32}{:>12}  {}", row.value, row.remark).trim_end().to_owned());
    }
    let configurations = configurations(report);
    if !configurations.is_empty() {
        lines.push("built".to_owned());
        lines.extend(configurations.iter().map(|line| format!("  {line}")));
    }
    if let Some((gate, verdict, rate)) = *judged {
        lines.push(sentence(gate, verdict, rate));
        if verdict == Verdict::Fallen {
            lines.extend(because(report).iter().map(|cause| format!("  because: {cause}")));
        }
    }
    lines.join("\n") + "\n"
}

pub(super) fn markdown(report: &Report, judged: &Judged) -> String {
    let mut lines = vec![format!("### Castwork: {}", escaped(&title(report))), String::new()];
    if let Some((gate, verdict, rate)) = *judged {
        lines.push(format!("**{}**", sentence(gate, verdict, rate)));
        lines.push(String::new());
        if verdict == Verdict::Fallen {
            lines.extend(because(report).iter().map(|cause| format!("- because: {cause}")));
            lines.push(String::new());
        }
    }
    lines.push("| | | |".to_owned());
    lines.push("|:--|--:|:--|".to_owned());
    for row in Totals::of(report).rows() {
        let indent = "&emsp;".repeat(row.depth);
        lines.push(format!("| {indent}{} | {} | {} |", escaped(&clean(&row.name)), row.value, row.remark));
    }
    lines.push(String::new());
    lines.extend(configurations(report).iter().map(|line| format!("- {}", escaped(line))));
    lines.join("\n") + "\n"
}

/// What strangers wrote, without what a terminal would obey or what ends a line.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// The same, without what Markdown would obey.
fn escaped(text: &str) -> String {
    let special = |letter| matches!(letter, '\\' | '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '#' | '&');
    let mut escaped = String::new();
    for letter in text.chars() {
        if special(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// For programs; names that are here stay.
pub(super) fn json(report: &Report, source: &str, judged: &Judged) -> Value {
    let totals = Totals::of(report);
    let seconds = |time: Option<&prost_types::Timestamp>| time.map(|time| time.seconds);
    let told = totals.told.as_ref().map(|told| {
        json!({
            "compiles": told.compiles,
            "local_hits": told.local_hits,
            "remote_hits": told.remote_hits,
            "remote_runs": told.remote_runs,
            "local_runs": told.local_runs,
            "passed_through": told.passed_through,
            "fallbacks": told.fallbacks,
            "reasons": told.reasons,
        })
    });
    let seen = totals.seen.as_ref().map(|seen| {
        json!({
            "hits": seen.hits,
            "misses": seen.misses,
            "remote_runs": seen.remote_runs,
            "shared": seen.shared,
            "failed": seen.failed,
            "refused": seen.refused,
            "stored": seen.stored,
            "bytes_uploaded": seen.bytes_uploaded,
            "bytes_downloaded": seen.bytes_downloaded,
            "time_saved_s": totals.saved.as_secs_f64(),
            "run_time_s": totals.ran.as_secs_f64(),
        })
    });
    let gate = judged.as_ref().map(|(gate, verdict, rate)| {
        json!({
            "hit_rate_percent_required": gate.percent_min,
            "hits": rate.hits,
            "asked": rate.asked,
            "verdict": match verdict {
                Verdict::Held => "passed",
                Verdict::FirstRun => "first_run",
                Verdict::Fallen => "failed",
            },
            "because": if *verdict == Verdict::Fallen { because(report) } else { Vec::new() },
        })
    });
    let parts: Vec<_> = report.parts.iter().map(part_json).collect();
    json!({
        "run": report.run,
        "instance": report.instance_name,
        "tool": report.tool,
        "source": source,
        "begun_unix_s": seconds(report.begun.as_ref()),
        "last_seen_unix_s": seconds(report.last_seen.as_ref()),
        "hits": totals.rate.hits,
        "asked": totals.rate.asked,
        "hit_rate_percent": totals.rate.percent(),
        "told": told,
        "seen": seen,
        "parts": parts,
        "gate": gate,
    })
}

fn part_json(part: &castwork_proto::runs::Part) -> Value {
    let Configuration { project, toolchain, platform } = part.configuration.clone().unwrap_or_default();
    let Rate { hits, asked } = Rate::of(part);
    json!({
        "project": project,
        "toolchain": toolchain,
        "platform": platform,
        "is_first": part.is_first,
        "hits": hits,
        "asked": asked,
    })
}

#[cfg(test)]
mod tests {
    use castwork_proto::runs::{Part, Told};

    use super::*;

    #[test]
    fn what_strangers_wrote_stays_in_its_cell_and_off_the_terminal() {
        let told =
            Told { compiles: 1, reasons: [("a|b\n\u{1b}[2J`x`".to_owned(), 1)].into(), ..Told::default() };
        let parts = vec![Part { told: Some(told), ..Part::default() }];
        let report = Report { run: "r\u{7}|*x*".to_owned(), parts, ..Report::default() };
        let table = markdown(&report, &None);
        assert!(table.contains("a\\|b??\\[2J\\`x\\`"), "{table}");
        assert!(table.contains("run r?\\|\\*x\\*"), "{table}");
        assert!(!text(&report, &None).contains(['\u{1b}', '\u{7}']));
    }
}
