//! `castwork-bench`: prints Markdown tables for `docs/benchmarks.md`; `bench/run` sets up what it needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use castwork_bench::{decisions, execute, fairness, layout, peers, queue, sandbox, store, wrapper};
use castwork_tests::{Farm, binary};
use clap::Parser;

/// Measures Castwork against its peers, side by side.
#[derive(Parser)]
#[command(version, about)]
enum Bench {
    /// A hit through the wrapper against `ccache` and against the compiler
    Wrapper {
        /// The ccache to compare with; left out of the table if not given
        #[arg(long)]
        ccache: Option<PathBuf>,
        /// Counted rounds; every contestant takes one turn in each
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// What confining a command costs, against `bwrap` and against none
    Sandbox {
        /// Counted rounds; every contestant takes one turn in each
        #[arg(long, default_value_t = 1000)]
        rounds: usize,
        /// The peer; from 0.11 on it can make overlays, as we do
        #[arg(long, default_value = "bwrap")]
        bwrap: PathBuf,
    },
    /// The round trip of an action against starting the process
    Execute {
        /// Counted rounds
        #[arg(long, default_value_t = 200)]
        rounds: usize,
        /// How many call at once where many do
        #[arg(long, default_value_t = 64)]
        callers: usize,
    },
    /// What inputs cost on a worker: a large tree, and a compiler that travels
    Layout {
        /// Actions after the first of each kind
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// Durable batches against the disk's own sync, lookups, and what many small blobs cost
    Store {
        /// The server's program; the one beside this, if not given
        #[arg(long)]
        scheduler: Option<PathBuf>,
        /// Counted rounds of what is short
        #[arg(long, default_value_t = 40)]
        rounds: usize,
        /// How many small blobs are stored; they take about 700 bytes each on disk
        #[arg(long, default_value_t = 2_000_000)]
        many: u64,
    },
    /// The store against `buildbox-casd`, and both against what the machine can do at all
    Peers {
        /// The server's program; the one beside this, if not given
        #[arg(long)]
        scheduler: Option<PathBuf>,
        /// `buildbox-casd`; left out of the table if not given
        #[arg(long)]
        casd: Option<PathBuf>,
        /// Counted rounds of what is short
        #[arg(long, default_value_t = 40)]
        rounds: usize,
    },
    /// What the scheduler alone costs: many actions, queued and then run by workers that run nothing
    Queue {
        /// Actions of all runs together
        #[arg(long, default_value_t = 100_000)]
        actions: usize,
        /// Runs that they come from
        #[arg(long, default_value_t = 50)]
        runs: usize,
        /// Simulated workers
        #[arg(long, default_value_t = 64)]
        workers: usize,
        /// Slots of each
        #[arg(long, default_value_t = 4)]
        slots: usize,
    },
    /// What one decision of the queue costs, without connections
    Decisions {
        /// Actions of all runs together
        #[arg(long, default_value_t = 100_000)]
        actions: usize,
        /// Runs that they come from
        #[arg(long, default_value_t = 50)]
        runs: usize,
        /// Workers
        #[arg(long, default_value_t = 64)]
        workers: usize,
        /// Slots of each
        #[arg(long, default_value_t = 4)]
        slots: usize,
    },
    /// What a large run costs a small one that comes when it is queued
    Fairness {
        /// Actions of the large run
        #[arg(long, default_value_t = 10_000)]
        large: usize,
        /// Actions of the small one
        #[arg(long, default_value_t = 10)]
        small: usize,
        /// Simulated workers, of four slots
        #[arg(long, default_value_t = 8)]
        workers: usize,
        /// Milliseconds that an action takes
        #[arg(long, default_value_t = 500)]
        each_ms: u64,
        /// How often the small run comes
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let table = match Bench::parse() {
        Bench::Wrapper { ccache, rounds } => {
            let castwork = binary("castwork");
            tokio::task::spawn_blocking(move || wrapper::run(&castwork, ccache.as_deref(), rounds))
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
        }
        Bench::Sandbox { rounds, bwrap } => sandbox::run(&binary("castwork-worker"), &bwrap, rounds).await,
        Bench::Execute { rounds, callers } => {
            let mut farm = Farm::start(1, 2);
            let pids = [farm.scheduler().pid(), farm.worker(0).pid()];
            execute::run(&farm.address(), &pids, execute::Load { rounds, callers }).await
        }
        Bench::Layout { rounds } => {
            let farm = Farm::start(1, 2);
            layout::run(&farm.address(), rounds).await
        }
        Bench::Store { scheduler, rounds, many } => {
            let scheduler = scheduler.unwrap_or_else(|| binary("castwork-scheduler"));
            store::run(&store::Options { scheduler, rounds, many }).await
        }
        Bench::Peers { scheduler, casd, rounds } => {
            let scheduler = scheduler.unwrap_or_else(|| binary("castwork-scheduler"));
            peers::run(&peers::Options { scheduler, casd, rounds }).await
        }
        Bench::Queue { actions, runs, workers, slots } => {
            let mut farm = Farm::start(0, 1);
            let (address, pid) = (farm.address(), farm.scheduler().pid());
            queue::run(&address, pid, queue::Load { actions, runs, workers, slots }).await
        }
        Bench::Decisions { actions, runs, workers, slots } => {
            decisions::run(queue::Load { actions, runs, workers, slots })
        }
        Bench::Fairness { large, small, workers, each_ms, rounds } => {
            let farm = Farm::start(0, 1);
            let each = Duration::from_millis(each_ms);
            fairness::run(&farm.address(), fairness::Load { large, small, workers, each, rounds }).await
        }
    };
    match table {
        Ok(table) => {
            #[allow(clippy::print_stdout, reason = "the table is what the program is for")]
            {
                println!("{table}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("castwork-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
