//! What operators of a farm ask and do: `castwork status`, `workers`, `runs`, `action`, `drain`, `undrain`, `cancel`.

pub(crate) mod call;
mod json;
mod page;
mod watch;

use clap::{Args, Subcommand};

use crate::commands::print;
use crate::config::Config;
use crate::run::complain;
use call::{Farm, OperatorError};

/// Exit code if there is nothing of what was asked for.
const NOTHING_FOUND: u8 = 3;

/// Where the answer comes from and how it is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// The server to ask, instead of the first of the setting `remote`.
    #[arg(long, value_name = "grpc://HOST:PORT")]
    server: Option<String>,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Operate {
    /// Says what waits on the farm and why, which runs there are, and how the workers are.
    ///
    /// Exit code 0, or 1 if the server can't be asked.
    Status {
        #[command(flatten)]
        output: Output,
        /// Draws it anew every second (or as often as you say) until you press Ctrl-C.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
        watch: Option<f64>,
    },
    /// Lists the workers with what they offer and run.
    ///
    /// Exit code 0, or 1 if the server can't be asked.
    Workers {
        #[command(flatten)]
        output: Output,
    },
    /// Lists the runs that have something waiting or running, with their shares.
    ///
    /// Exit code 0, or 1 if the server can't be asked.
    Runs {
        #[command(flatten)]
        output: Output,
    },
    /// Says where an action has got to and why it waits, and what became of it the last times: hit, miss and why.
    ///
    /// Exit code 0, 1 if the server can't be asked, or 3 if no such action waits or runs, or is remembered.
    Action {
        #[command(flatten)]
        output: Output,
        /// Digest of the action, its hash, or the start of that.
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
    /// Has workers finish what they run and take nothing new, now and when they come back.
    ///
    /// Exit code 0, or 1 if the server can't be asked. That no such worker is here yet is no error.
    Drain {
        #[command(flatten)]
        output: Output,
        /// Name or id of a worker; `*` stands for any letters, `?` for one.
        #[arg(value_name = "PATTERN")]
        pattern: String,
        /// Why; shown to everybody who asks.
        #[arg(long, default_value = "maintenance")]
        reason: String,
        /// Waits until nothing runs there any more.
        #[arg(long)]
        wait: bool,
    },
    /// Lets workers take actions again.
    ///
    /// Exit code 0, or 1 if the server can't be asked.
    Undrain {
        #[command(flatten)]
        output: Output,
        /// As it was drained; `*` takes all drains back.
        #[arg(value_name = "PATTERN")]
        pattern: String,
    },
    /// Ends actions, for everybody who waits for them; what runs is killed.
    ///
    /// Exit code 0, 1 if the server can't be asked, or 3 if nothing was there to be ended.
    Cancel {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        which: Which,
        /// Why; their clients are told.
        #[arg(long, default_value = "no reason was given")]
        reason: String,
    },
}

/// Which actions are meant.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Which {
    /// Digest of an action, its hash, or the start of that (eight digits or more).
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    /// All actions of a run.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The one that an operation waits for; that operation alone is ended.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

impl Operate {
    fn output(&self) -> &Output {
        match self {
            Self::Status { output, .. }
            | Self::Workers { output }
            | Self::Runs { output }
            | Self::Action { output, .. }
            | Self::Drain { output, .. }
            | Self::Undrain { output, .. }
            | Self::Cancel { output, .. } => output,
        }
    }
}

/// Does what is asked, and returns the exit code.
pub(crate) fn run(config: &Config, operate: &Operate) -> u8 {
    let done = Farm::connect(config, operate.output().server.as_deref())
        .and_then(|farm| farm.block_on(answer(&farm, operate)));
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&error.to_string());
            if let Some(hint) = error.hint() {
                complain(&format!("hint: {hint}"));
            }
            1
        }
    }
}

/// Prints how many jobs are of use to a build, and returns the exit code.
pub(crate) fn jobs(config: &Config) -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = match Farm::connect(config, None).and_then(|farm| farm.block_on(farm.status())) {
        Ok(status) => status
            .workers
            .iter()
            .filter(|worker| page::state_of(worker) == "ok")
            .map(|worker| worker.slots)
            .sum(),
        Err(OperatorError::NoServer) => 0,
        Err(error) => {
            complain(&format!("{error}; what is printed are the cores of this machine"));
            0
        }
    };
    print(&format!("{}\n", u64::from(slots) + cores as u64));
    0
}

async fn answer(farm: &Farm, operate: &Operate) -> Result<u8, OperatorError> {
    let as_json = operate.output().json;
    match operate {
        Operate::Status { watch: Some(seconds), .. } => watch::watch(farm, *seconds, as_json).await,
        Operate::Status { .. } => {
            let status = farm.status().await?;
            tell(as_json, || json::status(&status), || page::status(&status));
            Ok(0)
        }
        Operate::Workers { .. } => {
            let status = farm.status().await?;
            tell(as_json, || json::workers(&status.workers), || page::workers(&status.workers));
            Ok(0)
        }
        Operate::Runs { .. } => {
            let status = farm.status().await?;
            tell(as_json, || json::runs(&status.runs), || page::runs(&status.runs));
            Ok(0)
        }
        Operate::Action { digest, .. } => {
            let found = farm.find(digest).await?;
            tell(as_json, || json::actions(&found), || page::actions(&found));
            let is_nothing = found.actions.is_empty() && found.findings.is_empty() && found.ended.is_empty();
            Ok(if is_nothing { NOTHING_FOUND } else { 0 })
        }
        Operate::Drain { pattern, reason, wait, .. } => {
            let mut drained = farm.drain(pattern, reason).await?;
            while *wait && drained.workers.iter().any(|worker| !worker.running.is_empty()) {
                tokio::time::sleep(watch::LOOK_EVERY).await;
                drained = farm.drain(pattern, reason).await?;
            }
            tell(as_json, || json::drained(&drained), || page::drained(&drained, pattern));
            Ok(0)
        }
        Operate::Undrain { pattern, .. } => {
            let drained = farm.undrain(pattern).await?;
            tell(as_json, || json::drained(&drained), || page::drained(&drained, pattern));
            Ok(0)
        }
        Operate::Cancel { which, reason, .. } => {
            let ended = farm.cancel(which, reason).await?;
            tell(
                as_json,
                || serde_json::json!({ "operations": ended }),
                || format!("{ended} operations were ended\n"),
            );
            Ok(if ended == 0 { NOTHING_FOUND } else { 0 })
        }
    }
}

fn tell(as_json: bool, json: impl Fn() -> serde_json::Value, text: impl Fn() -> String) {
    print(&if as_json { format!("{:#}\n", json()) } else { text() });
}
