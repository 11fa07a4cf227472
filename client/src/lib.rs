//! The compiler wrapper and the command line of Castwork.
//!
//! `castwork g++ -c a.cc -o a.o` gives what `g++ -c a.cc -o a.o` gives: the same object, messages and exit code. Where
//! it comes from differs: a cache here, a cache elsewhere, a worker, or the compiler. The way of a call is in
//! [`wrapper`]; what it asks for is understood in [`command_line`], what it depends on is found by [`dependencies`]
//! and [`toolchain`], given names that don't tell where it lies by [`paths`], and made a key by [`action`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod action;
pub mod answering;
pub mod builds;
pub mod cibuildwheel;
pub mod clock;
pub mod coff;
pub mod command_line;
pub mod commands;
pub mod compile_first;
pub mod config;
pub mod counters;
pub mod crsh;
pub mod debug_names;
pub mod delivery;
pub mod dependencies;
pub mod direct;
pub mod doctor;
pub mod environment;
pub mod files;
pub mod independence;
pub mod invocation;
pub mod launch;
pub mod link_time;
pub mod local;
pub mod messages;
pub mod mounts;
mod operator;
pub mod paths;
pub mod prepare;
pub mod race;
pub mod reason;
mod report;
pub mod rules;
pub mod run;
pub mod rustc;
pub mod slots;
pub mod spans;
pub mod tiers;
pub mod toolchain;
pub mod upload;
pub mod why;
pub mod worker_names;
pub mod wrapper;

use std::ffi::OsString;

use config::{Config, KEYS};
use invocation::Invocation;

/// Does what the command line says, and returns the exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let (flags, invocation) = invocation::read(words);
    let config = || {
        let config = Config::load(&flags, environment::of_process);
        if let Some(filter) = config.as_ref().ok().and_then(|config| config.log.as_deref()) {
            log_to_stderr(filter);
        }
        config
    };
    match invocation {
        Invocation::Seen(words) => local::witness::be_seen(&words),
        Invocation::PassOn => local::witness::pass_on(),
        Invocation::Compiler(call) => wrapper::wrap(config(), &call),
        Invocation::Subcommand(words) => commands::run(config(), words),
        Invocation::Version => {
            commands::print(concat!("castwork ", env!("CARGO_PKG_VERSION"), "\n"));
            0
        }
        Invocation::Help { is_asked: true } => {
            commands::print(&help());
            0
        }
        Invocation::Help { is_asked: false } => {
            run::complain("no compiler and no subcommand; see `castwork --help`");
            2
        }
        Invocation::Wrong(what) => {
            run::complain(&format!("{what}; see `castwork --help`"));
            2
        }
    }
}

fn help() -> String {
    let settings = KEYS.iter().map(|key| (key.name.replace('_', "-"), key.about));
    let settings = settings.chain([("config".to_owned(), "another configuration file")]);
    let lines: Vec<String> = settings.map(|(name, about)| format!("  --{name:<13} {about}\n")).collect();
    format!("{}{}{}", commands::HELP, lines.concat(), commands::HELP_END)
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    // A second call is a test's.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
