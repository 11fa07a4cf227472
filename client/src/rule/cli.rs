//! `castwork run`: a tool by a rule that is said on the command line.

use std::ffi::OsString;

use super::{Book, Rule};
use crate::config::Config;
use crate::run::complain;
use crate::wrapper::{self, Call};

/// What `castwork run` is told.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The rule to go by, instead of the one for the tool's name
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Files that it reads, beside those that its arguments name
    #[arg(long, value_name = "GLOB")]
    input: Vec<String>,
    /// Files that it writes; a hit restores them all
    #[arg(long, value_name = "GLOB")]
    output: Vec<String>,
    /// The file in which it lists, as compilers do for make, what it has read
    #[arg(long, value_name = "FILE")]
    depfile: Option<String>,
    /// How it is told where to search, e.g. `-I{}`
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    search: Vec<String>,
    /// Files that belong to the tool itself
    #[arg(long, value_name = "GLOB")]
    tool: Vec<String>,
    /// Variables that it reads
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// The tool, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Runs a tool, or answers for it, and returns its exit code.
pub fn run(config: Config, flags: &Flags) -> u8 {
    let Some((name, arguments)) = flags.words.split_first() else {
        complain("no tool; write `castwork run --output OUT -- TOOL ARGUMENT...`");
        return 2;
    };
    let Some(name) = name.to_str().map(str::to_owned) else {
        complain("the tool's name is not Unicode");
        return 2;
    };
    let call = Call { name, arguments: arguments.to_vec() };
    match rule(&config, flags, &call.name) {
        Ok(rule) => wrapper::wrap_by(Ok(config), &call, Some(&rule)),
        Err(what) => {
            complain(&what);
            2
        }
    }
}

/// The rule that the flags amount to.
fn rule(config: &Config, flags: &Flags, program: &str) -> Result<Rule, String> {
    let book = Book::open(super::root(config).as_deref()).map_err(|error| error.to_string())?;
    let mut rule = match &flags.rule {
        Some(name) => book.named(name).map_err(|error| error.to_string())?.clone(),
        None => book.for_program(program).cloned().unwrap_or_default(),
    };
    rule.inputs.extend(flags.input.iter().cloned());
    rule.leaves.extend(flags.output.iter().cloned());
    rule.search.extend(flags.search.iter().cloned());
    rule.tool.extend(flags.tool.iter().cloned());
    rule.variables.extend(flags.env.iter().cloned());
    rule.depfile_at = flags.depfile.clone().or(rule.depfile_at);
    let leaves_nothing = rule.outputs.is_empty() && rule.leaves.is_empty() && !rule.depfile_names_outputs;
    if leaves_nothing {
        return Err(format!("no rule says what `{program}` writes; say it: --output FILE"));
    }
    rule.check().map(|()| rule)
}
