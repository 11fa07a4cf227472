//! What a worker tries by itself now and then, so that one that is broken says so before it fails actions of others.
//!
//! A file is written to the disk and read back, and a command that does nothing is run in the sandbox, as if it were an
//! action. As long as either fails or takes too long, the scheduler gives the worker nothing.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use castwork_proto::worker::Condition;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::data_dir::Scratch;
use crate::execute::Workshop;
use crate::failure::Failure;
use crate::sandbox::{End, Root, RunSpec};

/// How much is written and read back.
const FILE_BYTES: usize = 1 << 20;

/// How long all of it may take. Generous: actions use disk and processors meanwhile.
const TRIAL_WAIT: Duration = Duration::from_secs(60);

/// While something is wrong, it is tried so many times as often.
const OFTENER: u32 = 6;

/// Exit codes of a command that has worked, or whose program is not there: all but the last step has worked then.
const WELL: [i32; 2] = [0, 127];

/// Tries again and again, and tells what came of it; without end.
pub(crate) async fn watch_over(workshop: Arc<Workshop>, every: Duration, told: watch::Sender<Condition>) {
    let tell = |unfit: String| {
        let was_unfit = !told.borrow().unfit.is_empty();
        if !unfit.is_empty() {
            tracing::warn!(unfit, "the worker is not fit to run actions");
        } else if was_unfit {
            tracing::info!("the worker is fit to run actions again");
        }
        told.send_replace(condition(&workshop, unfit));
    };
    loop {
        let is_fit = told.borrow().unfit.is_empty();
        tokio::time::sleep(if is_fit { every } else { every / OFTENER }).await;
        let mut trial = std::pin::pin!(try_out(&workshop));
        let tried = if let Ok(tried) = timeout(TRIAL_WAIT, &mut trial).await {
            tried
        } else {
            tell(format!("a trial takes more than {} s", TRIAL_WAIT.as_secs()));
            // One at a time: a disk that hangs holds a thread for as long.
            trial.await
        };
        tell(tried.err().unwrap_or_default());
    }
}

/// What is to be said of a worker.
pub(crate) fn condition(workshop: &Workshop, unfit: String) -> Condition {
    let (cache_bytes, cache_bytes_max) = workshop.local.usage();
    let horizon = workshop.local.horizon().and_then(|horizon| prost_types::Duration::try_from(horizon).ok());
    Condition { unfit, cache_bytes, cache_bytes_max, cache_horizon: horizon }
}

/// What is wrong, if anything is.
async fn try_out(workshop: &Workshop) -> Result<(), String> {
    let scratch =
        workshop.data_dir.scratch(false).await.map_err(|error| format!("its disk fails: {error}"))?;
    let path = scratch.path().join("trial");
    blocking(move || write_and_read(&path)).await.map_err(|error| format!("its disk fails: {error}"))?;
    run(workshop, &scratch).await
}

fn write_and_read(path: &Path) -> std::io::Result<()> {
    let written: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.write_all(&written)?;
    file.sync_data()?;
    file.rewind()?;
    let mut read = Vec::with_capacity(FILE_BYTES);
    file.read_to_end(&mut read)?;
    drop(file);
    std::fs::remove_file(path)?;
    if read == written { Ok(()) } else { Err(std::io::Error::other("what was written is not what is read")) }
}

async fn run(workshop: &Workshop, scratch: &Scratch) -> Result<(), String> {
    let spec = RunSpec {
        scratch: scratch.path().to_owned(),
        base: None,
        root: Root::Worker,
        network: false,
        arguments: vec!["true".to_owned()],
        environment: Vec::new(),
        working_directory: String::new(),
        timeout: TRIAL_WAIT,
        memory_bytes: 0,
    };
    let ended = workshop.sandbox.run(&spec, &CancellationToken::new()).await;
    let ended = ended.map_err(|error| Failure::sandbox(error).to_status().message)?;
    match ended.end {
        End::Exited(code) if WELL.contains(&code) => Ok(()),
        end => Err(format!("a command that does nothing ends with {end:?}")),
    }
}
