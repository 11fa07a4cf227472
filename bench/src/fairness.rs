//! A small run that comes when a large one is queued, against the same alone on half of the slots; over real connections,
//! with workers that run nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::sync::{Barrier, watch};

use crate::queue::{CALLS_MAX, build, until_queued, upload};
use crate::simulated::{Phase, connect, work};
use crate::spread::{Spread, milliseconds};
use crate::table;

/// Slots of each worker.
const SLOTS: usize = 4;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Actions of the large run.
    pub large: usize,
    /// Actions of the small one.
    pub small: usize,
    /// Simulated workers of four slots; an even number.
    pub workers: usize,
    /// How long an action takes.
    pub each: Duration,
    /// How often the small run comes.
    pub rounds: usize,
}

/// Measures on a server without workers, and returns a Markdown table.
///
/// # Errors
/// What could not be reached, or did not end as it has to.
pub async fn run(address: &str, load: Load) -> Result<String, String> {
    let (go, gate) = watch::channel(Phase::Answer { after: load.each });
    let workers = |numbers: std::ops::Range<usize>| -> Vec<_> {
        let one = |number| tokio::spawn(work(address.to_owned(), number, SLOTS, gate.clone()));
        numbers.map(one).collect()
    };
    let mut all = workers(0..load.workers / 2);
    let alone = small_runs(address, load, "alone").await?;
    all.extend(workers(load.workers / 2..load.workers));
    let large = large_run(address, load).await?;
    let beside = small_runs(address, load, "beside").await?;
    let was_beside = large.iter().any(|part| !part.is_finished());
    large.iter().for_each(tokio::task::JoinHandle::abort);
    go.send_replace(Phase::End);
    for worker in all {
        worker.await.map_err(|error| error.to_string())??;
    }
    if !was_beside {
        return Err("the large run had ended before the small ones; make it larger".to_owned());
    }
    Ok(rows(load, &alone, &beside))
}

/// Asks for the actions of the large run, and returns when they are queued.
async fn large_run(
    address: &str,
    load: Load,
) -> Result<Vec<tokio::task::JoinHandle<Result<(), String>>>, String> {
    let channel = connect(address).await?;
    let digests = upload(channel.clone(), "large", load.large).await?;
    let asked = Arc::new(Barrier::new(load.large.div_ceil(CALLS_MAX) + 1));
    let part = |digests: &[_]| {
        let (address, asked) = (address.to_owned(), Arc::clone(&asked));
        tokio::spawn(build(address, "large".to_owned(), digests.to_vec(), asked))
    };
    let parts = digests.chunks(CALLS_MAX).map(part).collect();
    asked.wait().await;
    until_queued(channel, (load.large / 2) as u64).await?;
    Ok(parts)
}

/// Has a small run come and end, again and again; how long each took.
async fn small_runs(address: &str, load: Load, name: &str) -> Result<Spread, String> {
    let mut took = Vec::new();
    for round in 0..load.rounds {
        let name = format!("{name}-{round}");
        let digests = upload(connect(address).await?, &name, load.small).await?;
        let asked = Arc::new(Barrier::new(1));
        let begin = Instant::now();
        try_join_all([build(address.to_owned(), name, digests, asked)]).await?;
        took.push(begin.elapsed());
    }
    Ok(Spread::new(took))
}

fn rows(load: Load, alone: &Spread, beside: &Spread) -> String {
    let slots = load.workers * SLOTS;
    let row = |what: String, spread: &Spread| {
        vec![
            what,
            milliseconds(spread.median()),
            milliseconds(spread.percentile(99)),
            format!("{:.2}", spread.ratio_to(alone)),
        ]
    };
    let heading = format!("a run of {} actions of {} each", load.small, milliseconds(load.each));
    table::markdown(
        &[&heading, "p50", "worst", "to alone"],
        &[
            row(format!("alone, on {} slots", slots / 2), alone),
            row(format!("beside a run of {} on {slots} slots", load.large), beside),
        ],
    )
}
