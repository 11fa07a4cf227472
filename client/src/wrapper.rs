//! A call of a compiler: answered if it is understood, and otherwise the compiler's own.

use std::ffi::OsString;
use std::path::Path;

use crate::answering::{self, Answered, Source};
use crate::config::{Config, Wrong};
use crate::counters::{Configuration, Counters, Tag};
use crate::direct::Hashes;
use crate::invocation::is_compiler;
use crate::local::{Called, Platform};
use crate::prepare::Understood;
use crate::reason::Reason;
use crate::rules::{self, Rule, asked::started, file::Rules};
use crate::run;
use crate::rustc::{self, asked::Asked};
use crate::spans;
use crate::toolchain::resolve::{self, Found};
use crate::why::Last;

/// A compiler that someone calls.
pub struct Call {
    /// Its name or path, as it was called.
    pub name: String,
    /// The words after that.
    pub arguments: Vec<OsString>,
}

/// Answers a call as the compiler would, and returns the exit code to end with.
///
/// Calls that are passed through are taken over by the compiler, in this process where the system can.
pub fn wrap(config: Result<Config, Wrong>, call: &Call) -> u8 {
    wrap_by(config, call, None)
}

/// The same for a tool that is called with a rule.
pub fn wrap_by(config: Result<Config, Wrong>, call: &Call, rule: Option<Rule>) -> u8 {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folder = std::env::current_dir().unwrap_or_default();
    let Some(Found { program, compiler }) = resolve::find(&call.name, &search, &folder) else {
        let kind = if rule.is_some() { "program" } else { "compiler" };
        run::complain(&format!("no {kind} `{}` on PATH", call.name));
        return 127;
    };
    let rule = rule.map_or_else(|| rule_of(call, &folder), |rule| Ok(Some(rule)));
    let is_tool = !matches!(rule, Ok(None));
    if std::env::var_os("CASTWORK_DISABLE").is_some_and(|value| !value.is_empty() && value != "0") {
        return pass_through(&program, call, &folder, is_tool);
    }
    let dir = config.as_ref().map_or_else(|wrong| wrong.dir.clone(), |config| config.dir.clone());
    let mut configuration = config.as_ref().map(Configuration::of).unwrap_or_default();
    let run = config.as_ref().ok().and_then(|config| config.run_id.clone());
    spans::begin();
    let answered =
        config.map_err(|_| Reason::new("configuration is wrong; see `castwork config`")).and_then(|config| {
            if let Some(rule) = rule? {
                return answer_by_rule(&config, &rule, &program, call, &mut configuration);
            }
            let compiler = compiler?;
            if rustc::is_rustc(&call.name) {
                return answer_for_rustc(&config, &compiler, call, &mut configuration);
            }
            let understood = Understood::new(&config, &compiler, &call.arguments)?;
            configuration.understood(&understood);
            answering::answer(&config, &compiler, &call.arguments, understood, &configuration)
        });
    let tag = run.map(|run| Tag { run, configuration });
    match answered {
        Ok(answered) => {
            if let Some(reason) = &answered.refused {
                note(&dir, call, reason);
            }
            say_what_came(&answered, tag.as_ref());
            spans::end(&dir);
            count(&dir, tag, |counters| count_answer(counters, &answered));
            if let Some(status) = answered.died {
                Platform::end_like(status);
            }
            answered.code
        }
        Err(reason) => {
            tracing::debug!(%reason, "passed through");
            note(&dir, call, &reason);
            count(&dir, tag, |counters| {
                counters.passed_through += 1;
                counters.count(&reason);
            });
            pass_through(&program, call, &folder, is_tool)
        }
    }
}

/// Becomes the program: a tool by the name that it was called by, and a compiler by its path.
fn pass_through(program: &Path, call: &Call, folder: &Path, is_tool: bool) -> u8 {
    if !is_tool {
        return run::pass_through(program, &call.arguments);
    }
    let path = started(&call.name, program, folder);
    run::pass_through_called(&Called {
        path: &path,
        name: call.name.as_ref(),
        words: &call.arguments,
        search: None,
    })
}

/// The rule for a program that is no compiler, if there is one.
fn rule_of(call: &Call, folder: &Path) -> Result<Option<Rule>, Reason> {
    if is_compiler(call.name.as_ref()) || rustc::is_rustc(&call.name) {
        return Ok(None);
    }
    let rules = Rules::of(folder).map_err(|wrong| {
        run::complain(&format!("{wrong}; the tool is run as it is"));
        Reason::new("`castwork.toml` is wrong")
    })?;
    Ok(rules.find(&call.name))
}

/// Answers a call of a tool that a rule is for.
fn answer_by_rule(
    config: &Config,
    rule: &Rule,
    program: &Path,
    call: &Call,
    configuration: &mut Configuration,
) -> Result<Answered, Reason> {
    let mut hashes = Hashes::new(&config.dir.join("memo"));
    let asked = rules::asked::Asked::new(config, rule, program, call, &mut hashes)?;
    configuration.toolchain.clone_from(&rule.name);
    rules::answering::answer(config, &asked, hashes, configuration)
}

/// Answers a call of rustc.
fn answer_for_rustc(
    config: &Config,
    compiler: &Path,
    call: &Call,
    configuration: &mut Configuration,
) -> Result<Answered, Reason> {
    let mut hashes = Hashes::new(&config.dir.join("memo"));
    let asked = Asked::new(config, compiler, &call.arguments, &mut hashes)?;
    configuration.toolchain = asked.toolchain();
    rustc::answering::answer(config, &asked, hashes, configuration)
}

/// Says to who traces us what came of a compile.
fn say_what_came(answered: &Answered, tag: Option<&Tag>) {
    spans::say("castwork.source", || answered.source.name().into());
    spans::say("castwork.exit_code", || i32::from(answered.code).into());
    if let Some(Tag { run, configuration: Configuration { project, toolchain, .. } }) = tag {
        spans::say("castwork.run", || run.as_str().into());
        spans::say("castwork.project", || project.as_str().into());
        spans::say("castwork.toolchain", || toolchain.as_str().into());
    }
    let reasons = answered.refused.iter().chain(&answered.reasons);
    spans::say("castwork.reasons", || reasons.map(Reason::as_str).collect::<Vec<_>>().join("; ").into());
}

/// Notes, for `castwork why --last`, that a call was no hit.
fn note(dir: &Path, call: &Call, reason: &Reason) {
    let words = call.arguments.iter().map(|word| word.to_string_lossy().into_owned());
    let words = std::iter::once(call.name.clone()).chain(words).collect();
    Last::Passed { words, reason: reason.to_string() }.note(dir);
}

fn count(dir: &Path, tag: Option<Tag>, change: impl FnOnce(&mut Counters)) {
    if let Err(error) = Counters::add(dir, tag, change) {
        tracing::debug!(%error, "a call isn't counted");
    }
}

fn count_answer(counters: &mut Counters, answered: &Answered) {
    if let Some(reason) = &answered.refused {
        tracing::debug!(%reason, "nothing is kept");
        counters.passed_through += 1;
        counters.count(reason);
        return;
    }
    let Answered { source, reasons, has_fallen_back, is_preprocessed, .. } = answered;
    tracing::debug!(?source, "answered");
    counters.compiles += 1;
    *match source {
        Source::LocalHit => &mut counters.local_hits,
        Source::RemoteHit => &mut counters.remote_hits,
        Source::RemoteRun => &mut counters.remote_runs,
        Source::LocalRun => &mut counters.local_runs,
    } += 1;
    counters.fallbacks += u64::from(*has_fallen_back && *source == Source::LocalRun);
    counters.preprocessed += u64::from(*is_preprocessed);
    for reason in reasons {
        counters.count(reason);
    }
}
