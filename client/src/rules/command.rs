//! `castwork run` and `castwork rules`: any tool, by a rule that is given, and what rules there are.

use std::ffi::OsString;

use serde_json::json;

use super::file::Rules;
use super::rule::Rule;
use super::shipped;
use crate::commands::print;
use crate::config::{Config, Wrong};
use crate::run::complain;
use crate::wrapper::{self, Call};

/// What is said of a tool on the command line.
#[derive(Debug, clap::Args)]
pub struct RunFlags {
    /// Files that count as read, whether they are or not: a path, or a pattern with `*`, `?` and `**`.
    #[arg(long = "input", value_name = "PATTERN")]
    inputs: Vec<String>,
    /// What has to be made: a path or pattern. With any, nothing else may be made.
    #[arg(long = "output", value_name = "PATTERN")]
    outputs: Vec<String>,
    /// A file, in Make's format, in which the tool says what it read; all of that counts.
    #[arg(long, value_name = "FILE")]
    depfile: Option<String>,
    /// A variable that counts, or a pattern for such. With any, no others do but those of the locale, the loader and
    /// PATH; without, all do.
    #[arg(long = "env", value_name = "NAME")]
    environment: Vec<String>,
    /// The rule to go by, instead of the one that is for the program.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// The tool, with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "TOOL")]
    words: Vec<OsString>,
}

/// Answers a call of any tool, and returns the exit code.
pub fn run(config: Result<Config, Wrong>, flags: RunFlags) -> u8 {
    let RunFlags { inputs, outputs, depfile, environment, rule: named, mut words } = flags;
    let arguments = words.split_off(1);
    let Some(name) = words.pop().and_then(|word| word.into_string().ok()) else {
        complain("the tool's name is not Unicode; write another");
        return 2;
    };
    let folder = std::env::current_dir().unwrap_or_default();
    let rules = Rules::of(&folder).unwrap_or_else(|wrong| {
        complain(&format!("{wrong}; its rules don't hold until it is corrected"));
        Rules::default()
    });
    let known = named.as_ref().map_or_else(|| rules.find(&name), |named| rules.named(named));
    if let (Some(named), None) = (&named, &known) {
        complain(&format!("no rule `{named}`; `castwork rules` lists those that there are"));
        return 2;
    }
    let unknown =
        || Rule { name: name.clone(), tools: vec![name.clone()], may_be_script: true, ..Rule::default() };
    let mut rule = known.unwrap_or_else(unknown);
    rule.inputs.extend(inputs);
    rule.outputs.extend(outputs);
    rule.depfile = depfile.or(rule.depfile);
    if !environment.is_empty() {
        rule.environment.get_or_insert_default().extend(shipped::with_common(environment));
    }
    wrapper::wrap_by(config, &Call { name, arguments }, Some(rule))
}

/// Prints the rules that hold here, and returns the exit code.
pub fn list(json: bool) -> u8 {
    let folder = std::env::current_dir().unwrap_or_default();
    let (rules, code) = match Rules::of(&folder) {
        Ok(rules) => (rules, 0),
        Err(wrong) => {
            complain(&format!("{wrong}; its rules don't hold until it is corrected"));
            (Rules::default(), 1)
        }
    };
    let from = rules.file.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let all = rules.own.iter().map(|rule| (rule.clone(), from.as_str()));
    let all: Vec<(Rule, &str)> =
        all.chain(shipped::all().into_iter().map(|rule| (rule, "shipped"))).collect();
    if json {
        let values: Vec<_> = all.iter().map(|(rule, from)| value_of(rule, from)).collect();
        print(&format!("{:#}\n", serde_json::Value::Array(values)));
    } else {
        for (rule, from) in &all {
            print(&format!("{:<12} {:<40} {from}\n", rule.name, rule.tools.join(" ")));
        }
    }
    code
}

fn value_of(rule: &Rule, from: &str) -> serde_json::Value {
    json!({
        "name": rule.name,
        "from": from,
        "tools": rule.tools,
        "inputs": rule.inputs,
        "outputs": rule.outputs,
        "depfile": rule.depfile,
        "environment": rule.environment,
        "programs": rule.programs,
        "refused": rule.refused,
    })
}
