//! `castwork report`: what became of a run, and whether enough of it came from a cache.
//!
//! The server knows what it saw of the run; what this machine did by itself it is told first. Without a server
//! there are the local counters, and the same exit codes.

mod because;
mod gate;
mod page;
mod totals;

use std::path::Path;

use castwork_proto::runs::{self, Part, Report, Told, ToldPart};
use clap::Args;

use crate::commands::print;
use crate::config::{Address, Config};
use crate::counters::{self, Counters, LocalRun, LocalRuns, platform};
use crate::files;
use crate::operator::call::{Farm, OperatorError};
use crate::run::complain;
use gate::{Gate, Rate, Verdict};

/// Exit code if nothing is known of the run, or nothing was compiled in it.
const NOTHING_KNOWN: u8 = 3;

/// Exit code if too little came from a cache.
const GATE_FAILED: u8 = 4;

/// In the folder of the local cache: by what servers tell its counters from others'.
const TELLER: &str = "teller";

/// What is to be told, and how.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct ReportFlags {
    /// The run; the setting `run-id` if this is not given.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Prints JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Prints a table in Markdown, for the summary of a CI job.
    #[arg(long)]
    markdown: bool,
    /// Ends with 4 if less than so many of a hundred compiles were hits.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    require_hit_rate: Option<f64>,
    /// Does not count what was built for the first time: the first run of a project with a compiler on a platform.
    #[arg(long, requires = "require_hit_rate")]
    grace_first_run: bool,
    /// Asks no server: prints what is counted on this machine.
    #[arg(long, conflicts_with = "server")]
    local: bool,
    /// The server to ask, instead of the first of the setting `remote`.
    #[arg(long, value_name = "grpc://HOST:PORT")]
    server: Option<String>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "is no number".to_owned())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("is not between 0 and 100".to_owned()) }
}

/// Does what is asked, and returns the exit code.
pub(crate) fn run(config: &Config, flags: &ReportFlags) -> u8 {
    let run = flags.run.clone().or_else(|| config.run_id.clone());
    if run.is_none() && flags.grace_first_run {
        complain("no run is named, so nobody can know whether it is the first");
        complain("hint: set CASTWORK_RUN_ID before compiling, to something that each build has for itself");
        return 2;
    }
    let (all, runs) = Counters::read_with_runs(&config.dir);
    let found = match &run {
        None => Some((local_total(&all), "local")),
        Some(run) => match gather(config, flags, run, &runs) {
            Ok(found) => found,
            Err(code) => return code,
        },
    };
    let Some((report, source)) = found.filter(|(report, _)| is_about_something(report)) else {
        let run = run.as_deref().unwrap_or_default();
        complain(&format!("nothing is known of a run `{run}`: no compile went through castwork in it"));
        complain(
            "hint: see `castwork doctor` and `castwork config` for whether compilers are called through us",
        );
        return NOTHING_KNOWN;
    };
    let gate =
        flags.require_hit_rate.map(|percent_min| Gate { percent_min, graces_first: flags.grace_first_run });
    if gate.is_some() && Rate::of_all(report.parts.iter()).asked == 0 {
        complain("nothing was compiled in this run, so there is nothing to judge");
        return NOTHING_KNOWN;
    }
    let judged = gate.map(|gate| {
        let (verdict, rate) = gate.judge(&report);
        (gate, verdict, rate)
    });
    print(&if flags.json {
        format!("{:#}\n", page::json(&report, source, &judged))
    } else if flags.markdown {
        page::markdown(&report, &judged)
    } else {
        page::text(&report, &judged)
    });
    if matches!(judged, Some((_, Verdict::Fallen, _))) { GATE_FAILED } else { 0 }
}

fn is_about_something(report: &Report) -> bool {
    report.run.is_empty() || !report.parts.is_empty()
}

/// What is known of a run, and by whom; the exit code if nobody could be asked.
fn gather(
    config: &Config,
    flags: &ReportFlags,
    run: &str,
    runs: &LocalRuns,
) -> Result<Option<(Report, &'static str)>, u8> {
    let local = runs.get(run);
    let of_here = || local.map(|local| (local_report(local, runs), "local"));
    let has_server = flags.server.is_some()
        || config.remotes.iter().any(|entry| matches!(entry.address, Address::Server { .. }));
    if flags.local || !has_server {
        return Ok(of_here());
    }
    match ask(config, flags.server.as_deref(), run, local) {
        Ok(report) => Ok(report.map(|report| (report, "server")).or_else(of_here)),
        Err(error) => {
            complain(&error.to_string());
            let found = of_here();
            if found.is_some() {
                complain("so this is what was counted on this machine");
                return Ok(found);
            }
            if let Some(hint) = error.hint() {
                complain(&format!("hint: {hint}"));
            }
            Err(1)
        }
    }
}

/// Tells the server what is known here, and asks it for everything.
fn ask(
    config: &Config,
    server: Option<&str>,
    run: &str,
    local: Option<&LocalRun>,
) -> Result<Option<Report>, OperatorError> {
    let farm = Farm::connect(config, server)?;
    let project = config.project.clone().unwrap_or_default();
    farm.block_on(async {
        if let Some(local) = local {
            farm.tell_run(run, teller(&config.dir), told(local)).await?;
        }
        farm.report(run, project, platform()).await
    })
}

/// What this machine's counters are called; made up once, and kept beside them.
fn teller(dir: &Path) -> String {
    let path = dir.join(TELLER);
    let known = std::fs::read_to_string(&path).ok().filter(|name| !name.is_empty() && name.len() <= 64);
    known.unwrap_or_else(|| {
        let name = uuid::Uuid::new_v4().to_string();
        // If it can't be kept, the next report counts for another machine's: then counts add up wrongly.
        if let Err(error) = files::write_whole(&path, name.as_bytes()) {
            tracing::debug!(%error, "the name of the counters is not kept");
        }
        name
    })
}

fn told(local: &LocalRun) -> Vec<ToldPart> {
    let part = |part: &counters::Part| ToldPart {
        configuration: Some(configuration(&part.configuration)),
        told: Some(told_of(&part.counters)),
    };
    local.parts.iter().map(part).collect()
}

fn local_report(local: &LocalRun, runs: &LocalRuns) -> Report {
    let part = |part: &counters::Part| Part {
        configuration: Some(configuration(&part.configuration)),
        is_first: runs.is_first(&local.run, &part.configuration),
        seen: None,
        told: Some(told_of(&part.counters)),
    };
    let parts = local.parts.iter().map(part).collect();
    Report { run: local.run.clone(), parts, ..Report::default() }
}

/// All that is counted here, for who has no runs.
fn local_total(all: &Counters) -> Report {
    let part = Part { told: Some(told_of(all)), ..Part::default() };
    Report { parts: vec![part], ..Report::default() }
}

fn configuration(of: &counters::Configuration) -> runs::Configuration {
    let counters::Configuration { project, toolchain, platform } = of.clone();
    runs::Configuration { project, toolchain, platform }
}

fn told_of(counters: &Counters) -> Told {
    Told {
        compiles: counters.compiles,
        local_hits: counters.local_hits,
        remote_hits: counters.remote_hits,
        remote_runs: counters.remote_runs,
        local_runs: counters.local_runs,
        passed_through: counters.passed_through,
        fallbacks: counters.fallbacks,
        reasons: counters.reasons.clone(),
    }
}
