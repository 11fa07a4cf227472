//! What is done around an action: fetch, lay out, run, collect, upload, with the time of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use castwork_cas::merkle::FlatTree;
use castwork_cas::remote::Remote;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi::{self, ActionResult, ExecutedActionMetadata};
use castwork_proto::rpc;
use castwork_proto::worker::{ExecutionFacts, Lease, progress::Stage};
use castwork_trace::Tracer;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::CheckedAction;
use crate::blocking::blocking;
use crate::data_dir::{DataDir, Scratch};
use crate::failure::Failure;
use crate::host_files::HostFiles;
use crate::inputs::{Stage as InputStage, Staged, Tally};
use crate::local::Local;
use crate::outputs::{Collected, collect, upload};
use crate::remotes::Remotes;
use crate::sandbox::{Bound, Captured, End, Ended, Layout, Root, RunSpec, Sandbox, Usage};

/// What siso knows an action's own timeout by; other deadlines it tries again.
const TIMED_OUT: &str = "execution timeout exceeded";

/// Exit code of a command killed by signal `n`, as a shell has it: this and `n`.
const SIGNALED: i32 = 128;

/// The signal that ends what has to end.
const SIGKILL: i32 = 9;

/// Everything that actions of one worker share.
pub(crate) struct Workshop {
    /// For people; goes into results.
    pub name: String,
    /// Runs commands.
    pub sandbox: Arc<dyn Sandbox>,
    /// Whether actions that ask for the network get it.
    pub allows_network: bool,
    /// Blobs that are here.
    pub local: Local,
    /// Brings inputs and lays them out.
    pub inputs: InputStage,
    /// Knows the worker's own files.
    pub host_files: Arc<HostFiles>,
    /// Where scratch folders are made.
    pub data_dir: DataDir,
    /// The server's CAS.
    pub remotes: Remotes,
    /// A command runs only while it has one of these. Inputs of further actions are fetched and laid out meanwhile.
    pub turns: Semaphore,
    /// How many actions are taken beyond those that can run.
    pub ahead: usize,
    /// Takes what was done when.
    pub tracer: Tracer,
}

/// How an action that was run came out.
#[derive(Debug)]
pub(crate) struct Executed {
    /// OK if the command ran to its end.
    pub status: rpc::Status,
    /// Every blob it names is in the server's CAS.
    pub result: ActionResult,
    /// What the command used.
    pub usage: Usage,
    /// Whether it was killed because that was more memory than it may use.
    pub out_of_memory: bool,
}

impl Workshop {
    /// Executes the action of a lease. `progress` hears of each stage as it begins.
    ///
    /// Not cancel-safe; `cancel` ends it early, with everything killed.
    pub(crate) async fn execute(
        &self,
        lease: &Lease,
        progress: impl Fn(Stage),
        cancel: &CancellationToken,
    ) -> Result<Executed, Failure> {
        let mut times = Times { queued: unix_nanos(lease.queued_unix_nanos), ..Times::default() };
        times.worker_start = now();
        progress(Stage::FetchingInputs);
        let action = CheckedAction::from_lease(lease)?;
        if action.network && !self.allows_network {
            return Err(Failure::Precondition(
                "this worker gives no action the network\nhint: start it with `--allow-network`, or ask for `network=off`"
                    .to_owned(),
            ));
        }
        let action = Arc::new(action);
        let function = action.input_root.function();
        let remote =
            self.remotes.for_lease(lease, function).map_err(Failure::store("reach the CAS of the lease"))?;
        self.check(&action).await?;
        times.fetch = (now(), None);
        let ready = unless_cancelled(cancel, self.prepare(&remote, &action)).await?;
        times.fetch.1 = now();

        let turn = unless_cancelled(cancel, self.turn()).await?;
        progress(Stage::Executing);
        times.run = (now(), None);
        let started = Instant::now();
        let ended =
            self.sandbox.run(&spec(&action, &ready, lease), cancel).await.map_err(Failure::sandbox)?;
        times.run.1 = now();
        let took = started.elapsed();
        drop(turn);
        // A compiler that was replaced while it ran is not the client's either.
        self.check(&action).await?;

        progress(Stage::UploadingOutputs);
        times.upload = (now(), None);
        let (usage, out_of_memory) = (ended.usage, ended.end == End::Over(Bound::Memory));
        let (mut result, blobs, failure) = self.gather(ended, &action, function).await?;
        let uploaded = unless_cancelled(cancel, upload(&remote, &self.local, &blobs)).await?;
        times.upload.1 = now();
        let facts = ready.facts(self.sandbox.level(), usage, uploaded);
        result.execution_metadata = Some(times.metadata(&self.name, took, &facts));
        Ok(Executed { status: failure, result, usage, out_of_memory })
    }

    /// Waits until a command may run. Who is ready first, is first.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        Ok(self.turns.acquire().await.expect("nobody closes it"))
    }

    /// What has to hold before, and still after, the run.
    async fn check(&self, action: &Arc<CheckedAction>) -> Result<(), Failure> {
        if action.host_files.is_empty() {
            return Ok(());
        }
        let (files, sandbox, action) = (self.host_files.clone(), self.sandbox.clone(), action.clone());
        blocking(move || files.check(&action.host_files, &*sandbox)).await
    }

    /// Fetches the inputs and lays them out in a new folder.
    async fn prepare(&self, remote: &Remote, action: &Arc<CheckedAction>) -> Result<Ready, Failure> {
        let tally = Tally::default();
        let tree = self.inputs.tree(remote, &action.input_root, &tally).await?;
        let root = self.root_of(action, &tree)?;
        let layout = self.sandbox.layout();
        // Where inputs are linked, a layer lies over them, and the command sees no more than that.
        let scratch = self.data_dir.scratch(layout == Layout::Links).await;
        let scratch = Arc::new(scratch.map_err(Failure::disk("make a folder for the action"))?);
        let staged = self.inputs.lay_out(remote, &tree, action, layout, &scratch, &tally).await?;
        Ok(Ready { scratch, root, staged, tally })
    }

    /// What is to be `/`. The scheduler decides in the same way who may run the action.
    fn root_of(&self, action: &CheckedAction, tree: &FlatTree) -> Result<Root, Failure> {
        let shown = if tree.is_file_system() { Root::Inputs } else { Root::Worker };
        let root = action.root.unwrap_or(shown);
        if self.sandbox.roots().contains(&root) {
            Ok(root)
        } else {
            Err(Failure::Precondition(format!("this worker does not offer {root:?} as root")))
        }
    }

    /// Turns what the command left into a result whose blobs are in the local CAS. A timeout and
    /// an output that is none leave what was said.
    async fn gather(
        &self,
        ended: Ended,
        action: &Arc<CheckedAction>,
        function: DigestFunction,
    ) -> Result<(ActionResult, BTreeSet<Digest>, rpc::Status), Failure> {
        let (local, action) = (self.local.clone(), action.clone());
        let is_quick = action.outputs.paths.is_empty() && !ended.stdout.is_any() && !ended.stderr.is_any();
        let gather = move || {
            let mut result = ActionResult { exit_code: exit_code(ended.end), ..Default::default() };
            let mut status = status_of(ended.end);
            let mut collected = Collected::default();
            if ended.end != End::TimedOut {
                match collect(&ended.root, &ended.own_names, &action, function, &local) {
                    Ok(all) => collected = all,
                    Err(failure @ Failure::Precondition(_)) => status = failure.to_status(),
                    Err(failure) => return Err(failure),
                }
            }
            let stdout = keep_captured(&ended.stdout, function, &local)?;
            let stderr = keep_captured(&ended.stderr, function, &local)?;
            let mut blobs = std::mem::take(&mut collected.blobs);
            blobs.extend([stdout, stderr]);
            result.stdout_digest = Some(stdout.to_proto());
            result.stderr_digest = Some(stderr.to_proto());
            collected.add_to(&mut result, &action);
            Ok((result, blobs, status))
        };
        // Nothing has to be read then, and another thread need not be woken.
        if is_quick { gather() } else { blocking(gather).await }
    }
}

/// All that a command needs to be started.
struct Ready {
    scratch: Arc<Scratch>,
    root: Root,
    staged: Staged,
    tally: Tally,
}

impl Ready {
    /// What REAPI has no fields for.
    fn facts(&self, sandbox: &str, usage: Usage, uploaded: (u64, u64)) -> ExecutionFacts {
        let duration = |time: Duration| prost_types::Duration::try_from(time).ok();
        let (fetched_blobs, fetched_bytes) = self.tally.read();
        ExecutionFacts {
            sandbox: sandbox.to_owned(),
            user_time: duration(usage.user),
            system_time: duration(usage.system),
            memory_bytes_max: usage.memory_bytes_max,
            input_entries: self.staged.entries,
            input_entries_made: self.staged.entries_made,
            layout_time: duration(self.staged.took),
            fetched_blobs,
            fetched_bytes,
            uploaded_blobs: uploaded.0,
            uploaded_bytes: uploaded.1,
        }
    }
}

fn spec(action: &CheckedAction, ready: &Ready, lease: &Lease) -> RunSpec {
    let timeout = lease.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
    RunSpec {
        scratch: ready.scratch.path().to_owned(),
        base: ready.staged.base.as_ref().map(|base| Scratch::way_to_base(base.name())),
        root: ready.root,
        network: action.network,
        arguments: action.arguments.clone(),
        environment: action.environment.clone(),
        working_directory: action.working_directory.clone(),
        // Always set, says the protocol; and nothing runs without end.
        timeout: timeout.unwrap_or_default(),
        memory_bytes: lease.memory_bytes,
    }
}

fn exit_code(end: End) -> i32 {
    match end {
        End::Exited(code) => code,
        End::Signaled(signal) => SIGNALED + signal,
        End::TimedOut | End::Over(_) => SIGNALED + SIGKILL,
    }
}

fn status_of(end: End) -> rpc::Status {
    let (code, message) = match end {
        End::Exited(_) => (rpc::Code::Ok, String::new()),
        End::Signaled(signal) => (rpc::Code::Ok, format!("the command was killed by signal {signal}")),
        End::TimedOut => (rpc::Code::DeadlineExceeded, TIMED_OUT.to_owned()),
        End::Over(Bound::Memory) => {
            (rpc::Code::Ok, "the command was killed: it used too much memory".to_owned())
        }
        End::Over(Bound::Disk) => (rpc::Code::Ok, "the command was killed: it wrote too much".to_owned()),
    };
    rpc::Status { code: code as i32, message, details: Vec::new() }
}

fn keep_captured(captured: &Captured, function: DigestFunction, local: &Local) -> Result<Digest, Failure> {
    let Some(path) = &captured.path else { return Ok(Digest::empty(function)) };
    let file = std::fs::File::open(path).map_err(Failure::disk("open what the command wrote"))?;
    local.keep_file(function, file).map_err(Failure::store("keep what the command wrote"))
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => Err(Failure::Cancelled),
    }
}

/// When each stage began and ended.
#[derive(Default)]
struct Times {
    queued: Option<SystemTime>,
    worker_start: Option<SystemTime>,
    fetch: (Option<SystemTime>, Option<SystemTime>),
    run: (Option<SystemTime>, Option<SystemTime>),
    upload: (Option<SystemTime>, Option<SystemTime>),
}

impl Times {
    /// `took` is by the clock that the timeout was measured with, as REAPI wants it.
    fn metadata(self, worker: &str, took: Duration, facts: &ExecutionFacts) -> ExecutedActionMetadata {
        let stamp = |time: Option<SystemTime>| time.map(prost_types::Timestamp::from);
        reapi::ExecutedActionMetadata {
            worker: worker.to_owned(),
            queued_timestamp: stamp(self.queued),
            worker_start_timestamp: stamp(self.worker_start),
            worker_completed_timestamp: stamp(now()),
            input_fetch_start_timestamp: stamp(self.fetch.0),
            input_fetch_completed_timestamp: stamp(self.fetch.1),
            execution_start_timestamp: stamp(self.run.0),
            execution_completed_timestamp: stamp(self.run.1),
            virtual_execution_duration: prost_types::Duration::try_from(took).ok(),
            output_upload_start_timestamp: stamp(self.upload.0),
            output_upload_completed_timestamp: stamp(self.upload.1),
            auxiliary_metadata: prost_types::Any::from_msg(facts).into_iter().collect(),
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is a value of the optional fields above")]
fn now() -> Option<SystemTime> {
    Some(SystemTime::now())
}

fn unix_nanos(nanos: i64) -> Option<SystemTime> {
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
}
