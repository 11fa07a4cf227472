//! What `castwork SUBCOMMAND` prints.

use std::ffi::OsString;
use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;

use crate::config::{self, Config, KEYS, Wrong};
use crate::counters::Counters;
use crate::doctor;
use crate::launch::{self, For};
use crate::operator::{self, Operate};
use crate::report::{self, ReportFlags};
use crate::rules;
use crate::run::complain;
use crate::tiers::FolderTier;
use crate::toolchain::{self, command::Question};
use crate::upload;
use crate::why::{self, Which};

/// What this program does.
const ABOUT: &str =
    "Compiles each thing once: a compiler wrapper that answers from caches and from workers elsewhere.";

/// What is printed for `--help`.
pub const HELP: &str = "\
Compiles each thing once: a compiler wrapper that answers from caches and from workers elsewhere.

Usage: castwork [SETTINGS] COMPILER [ARGUMENT]...
       castwork [SETTINGS] stats [--json] [--zero]
       castwork [SETTINGS] why [--json] FILE|--last
       castwork [SETTINGS] report [--run ID] [--markdown|--json] [--require-hit-rate PERCENT [--grace-first-run]]
       castwork [SETTINGS] config [--json]
       castwork [SETTINGS] doctor [--json]
       castwork [SETTINGS] upload                      (sends what still waits to be sent to `gha:`, as the last step of a job)
       castwork [SETTINGS] run [--input PATTERN]... [--output PATTERN]... [--depfile FILE] [--env NAME]... -- TOOL [ARGUMENT]...
       castwork rules [--json]                     (which tools are known; these can stand in place of COMPILER)
       castwork [SETTINGS] toolchain show|pack|check ...   (what goes along with a compiler's compiles)
       castwork [SETTINGS] exec -- COMMAND [ARGUMENT]...
       castwork [SETTINGS] jobs                        (how many are of use: `make -j$(castwork jobs)`)
       castwork [SETTINGS] env [--cmake|--make|--cargo|--github|--gitlab|--cibuildwheel]
       castwork completions SHELL
       castwork man
       castwork [SETTINGS] status|workers|runs|action|drain|undrain|cancel ...   (a farm, for its operators)

A link to this program, or a copy, that is named like a compiler (gcc, clang++, clang-cl, ...) stands for
that compiler: the next one of the name on PATH. For cargo, RUSTC_WRAPPER=castwork (`castwork env --cargo`).

Settings, also as CASTWORK_... in the environment and in ~/.config/castwork/config.toml:
";

/// What comes after the settings.
pub const HELP_END: &str = "
CASTWORK_DISABLE=1 hands every call to the compiler as it is.

Exit code: the compiler's; of subcommands 0, 1 if something is wrong, 2 for a wrong call, 3 if there is
nothing of what was asked for, and of `report` 4 if too little came from a cache. `castwork SUBCOMMAND --help`
says more.
";

/// The subcommands.
#[derive(Debug, Parser)]
#[command(name = "castwork", bin_name = "castwork", no_binary_name = true, disable_help_subcommand = true)]
struct Commands {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says how often calls were answered from where, and why not.
    ///
    /// Exit code 0, or 1 if the counters can't be written.
    Stats {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Begins a new count, after printing the old one.
        #[arg(long)]
        zero: bool,
    },
    /// Says what made a compile a miss, against the nearest earlier one: `castwork why src/a.c`.
    ///
    /// Exit code 0, or 1 if no such compile is known.
    Why {
        #[command(flatten)]
        which: Which,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says what became of a run: hits, misses and why, runs, fallbacks, bytes, time saved.
    ///
    /// A run is what `CASTWORK_RUN_ID` or the CI system names. The server tells what it saw of it, and of this machine
    /// what it is told now; without a server there are the local counters.
    ///
    /// Exit code 0; 1 if the server can't be asked and nothing is counted here; 2 for a wrong call; 3 if nothing is
    /// known of the run, or nothing was compiled in it; 4 if fewer compiles were hits than --require-hit-rate asks for.
    Report(ReportFlags),
    /// Says what is set, and where.
    ///
    /// Exit code 0, or 1 if something in it is wrong.
    Config {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tries everything out: local cache, compiler, servers, a compile on a worker.
    ///
    /// Exit code 0 if all is well, 1 if not.
    Doctor {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says what goes along with the compiles of a compiler, writes it out, or checks that it is enough.
    Toolchain {
        #[command(subcommand)]
        question: Question,
    },
    /// Answers a call of any tool from a cache, or runs it: `castwork run --output a.txt -- ./generate a.def`.
    ///
    /// What the tool reads, looks for and makes is seen while it runs (Linux). What can't be seen is said here, or in
    /// `[[rule]]` of `castwork.toml`.
    ///
    /// Exit code: the tool's; 127 if it can't be started, 2 for a wrong call.
    Run(rules::command::RunFlags),
    /// Lists the tools for which there are rules: shipped ones, and those of the nearest `castwork.toml`.
    ///
    /// Exit code 0, or 1 if `castwork.toml` is wrong.
    Rules {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs a command in which every compiler on PATH is called through us: `castwork exec -- make -j8`.
    ///
    /// Exit code: the command's; 127 if it can't be started.
    Exec {
        /// The command, with its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Prints how many jobs of a build are of use: the slots of a farm's workers, and the cores here; `make -j$(castwork jobs)`.
    ///
    /// Exit code 0. If no server can be asked, which is said, there are the cores.
    Jobs,
    /// Sends what still waits to be sent: the rest of a job's results, where GitHub's cache is used (`gha:`).
    ///
    /// Exit code 0, or 1 if something could not be sent.
    Upload,
    /// Prints what to set so that compilers are called through us; for a shell to `eval`, unless told otherwise.
    ///
    /// Exit code 0, or 1 if links to compilers can't be made.
    Env(EnvFlags),
    /// Prints completions for a shell.
    ///
    /// Exit code 0.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints a manual page.
    ///
    /// Exit code 0.
    Man,
    #[command(flatten)]
    Operate(Operate),
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "at most one of them is set")]
struct EnvFlags {
    /// Words for `CMake`'s command line.
    #[arg(long)]
    cmake: bool,
    /// Words for the command line of Make, or of Autotools' `configure`.
    #[arg(long)]
    make: bool,
    /// Variables for cargo, one a line: it calls rustc through us.
    #[arg(long)]
    cargo: bool,
    /// Lines for the file $`GITHUB_ENV`.
    #[arg(long)]
    github: bool,
    /// Variables of a GitLab job.
    #[arg(long)]
    gitlab: bool,
    /// What to set for cibuildwheel, for a shell to `eval`; with `CASTWORK_REMOTE` and the run's name as they are set here.
    #[arg(long)]
    cibuildwheel: bool,
}

impl EnvFlags {
    const fn whom(&self) -> For {
        match self {
            Self { cmake: true, .. } => For::CMake,
            Self { make: true, .. } => For::Make,
            Self { cargo: true, .. } => For::Cargo,
            Self { github: true, .. } => For::GitHub,
            Self { gitlab: true, .. } => For::GitLab,
            Self { cibuildwheel: true, .. } => For::CiBuildWheel,
            _ => For::Shell,
        }
    }
}

/// The whole command line, settings and subcommands, as it is described to shells and readers.
fn whole() -> clap::Command {
    let settings = KEYS.iter().map(|key| (key.name, key.about));
    let settings = settings.chain([("config", "another configuration file")]);
    let settings = settings.map(|(name, about)| {
        clap::Arg::new(name).long(name.replace('_', "-")).value_name("VALUE").help(about)
    });
    Commands::command().version(env!("CARGO_PKG_VERSION")).about(ABOUT).args(settings)
}

fn complete(shell: clap_complete::Shell) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut whole(), "castwork", &mut text);
    print(&String::from_utf8_lossy(&text));
    0
}

fn manual() -> u8 {
    let mut text = Vec::new();
    if let Err(error) = clap_mangen::Man::new(whole()).render(&mut text) {
        complain(&format!("can't make the manual page: {error}"));
        return 1;
    }
    print(&String::from_utf8_lossy(&text));
    0
}

/// Does what a subcommand says, and returns the exit code.
pub fn run(config: Result<Config, Wrong>, words: Vec<OsString>) -> u8 {
    let command = match Commands::try_parse_from(words) {
        Ok(commands) => commands.command,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    match &command {
        Command::Config { json } => return show_config(config, *json),
        Command::Completions { shell } => return complete(*shell),
        Command::Man => return manual(),
        Command::Rules { json } => return rules::command::list(*json),
        _ => {}
    }
    let command = match command {
        Command::Run(flags) => return rules::command::run(config, flags),
        other => other,
    };
    let config = match config {
        Ok(config) => config,
        Err(wrong) => {
            complain_all(&wrong);
            return 1;
        }
    };
    match command {
        Command::Stats { json, zero } => stats(&config, json, zero),
        Command::Why { which, json } => why::run(&config, &which, json),
        Command::Report(flags) => report::run(&config, &flags),
        Command::Doctor { json } => doctor::run(&config, json),
        Command::Toolchain { question } => toolchain::command::run(&config, &question),
        Command::Exec { words } => launch::exec(&config, &words),
        Command::Jobs => operator::jobs(&config),
        Command::Upload => upload::run(&config),
        Command::Env(flags) => launch::env(&config, flags.whom()),
        Command::Operate(operate) => operator::run(&config, &operate),
        Command::Config { .. }
        | Command::Completions { .. }
        | Command::Man
        | Command::Rules { .. }
        | Command::Run(_) => unreachable!("done above"),
    }
}

/// Prints to standard output; whoever closed it has read enough.
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain_all(wrong: &Wrong) {
    for complaint in &wrong.complaints {
        complain(&complaint.to_string());
    }
    complain("hint: correct what is named above; until then calls are passed through to the compiler");
}

fn stats(config: &Config, json: bool, zero: bool) -> u8 {
    let counters = Counters::read(&config.dir);
    let usage_bytes = FolderTier::open(&config.dir.join("cache"), config.max_size_bytes)
        .map_or(0, |tier| tier.usage_bytes());
    print(&if json {
        stats_json(&counters, config, usage_bytes)
    } else {
        stats_table(&counters, config, usage_bytes)
    });
    if zero && let Err(error) = Counters::update(&config.dir, |counters| *counters = Counters::default()) {
        complain(&format!("can't begin a new count in `{}`: {error}", config.dir.display()));
        return 1;
    }
    0
}

fn stats_json(counters: &Counters, config: &Config, usage_bytes: u64) -> String {
    let mut value = serde_json::to_value(counters).unwrap_or_default();
    value["cache_bytes"] = json!(usage_bytes);
    value["cache_bytes_max"] = json!(config.max_size_bytes);
    value["cache_dir"] = json!(config.dir);
    format!("{value:#}\n")
}

fn stats_table(counters: &Counters, config: &Config, usage_bytes: u64) -> String {
    let share = |number: u64| match counters.compiles {
        0 => String::new(),
        whole => format!("  {:>6.2} %", 100.0 * to_float(number) / to_float(whole)),
    };
    let of_compiles = |name: &str, number: u64| format!("{name:<28}{number:>10}{}", share(number));
    let mut lines = vec![
        format!("{:<28}{:>10}", "compiles", counters.compiles),
        of_compiles("  hits, local", counters.local_hits),
        of_compiles("  hits, remote", counters.remote_hits),
        of_compiles("  runs, remote", counters.remote_runs),
        of_compiles("  runs, local", counters.local_runs),
        of_compiles("    of these fallbacks", counters.fallbacks),
        of_compiles("  preprocessed", counters.preprocessed),
        format!("{:<28}{:>10}", "passed through", counters.passed_through),
    ];
    let (usage, most) = (to_float(usage_bytes) / 1e9, to_float(config.max_size_bytes) / 1e9);
    let folder = config.dir.display();
    lines.push(format!("{:<28}{usage:>10.3}  of {most:.1}, in {folder}", "cache size (GB)"));
    if !counters.reasons.is_empty() {
        lines.push("reasons".to_owned());
        let mut reasons: Vec<_> = counters.reasons.iter().collect();
        reasons.sort_by_key(|(name, number)| (std::cmp::Reverse(**number), *name));
        lines.extend(reasons.iter().map(|(name, number)| format!("{number:>8}  {name}")));
    }
    lines.join("\n") + "\n"
}

/// The number as a float, for percentages and sizes that people read.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
pub fn to_float(number: u64) -> f64 {
    number as f64
}

fn show_config(config: Result<Config, Wrong>, json: bool) -> u8 {
    let config = match config {
        Ok(config) => config,
        Err(wrong) if json => {
            let complaints: Vec<_> = wrong.complaints.iter().map(ToString::to_string).collect();
            print(&format!("{:#}\n", json!({ "complaints": complaints })));
            return 1;
        }
        Err(wrong) => {
            complain_all(&wrong);
            return 1;
        }
    };
    let shown = |name: &str| {
        let (text, origin) = &config.origins[name];
        // A token is nobody's business who looks over a shoulder or reads a log.
        let text = match name {
            "token" if !text.is_empty() => "(set)".to_owned(),
            "remote" => config::without_passwords(text),
            _ => text.clone(),
        };
        (text, origin.to_string())
    };
    if json {
        let settings: serde_json::Map<String, serde_json::Value> = KEYS
            .iter()
            .map(|key| {
                let (text, origin) = shown(key.name);
                (key.name.to_owned(), json!({ "value": text, "origin": origin }))
            })
            .collect();
        print(&format!("{:#}\n", serde_json::Value::Object(settings)));
        return 0;
    }
    for key in KEYS {
        let (text, origin) = shown(key.name);
        print(&format!("{:<13} = {:<40} ({origin})\n", key.name, format!("{text:?}")));
    }
    0
}

/// What can be said instead of a compiler, but for help.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    Commands::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}
