//! [`Confined`] on Linux: namespaces.
//!
//! For each command the program starts itself anew (`enter`), single-threaded and small, and that
//! process makes user, mount, pid, ipc, uts, net and cgroup namespaces, forks process 1 of them
//! (`init`), which builds a root (`mounts`), gives up every privilege (`privileges`) and starts
//! the command (`exec`). The worker's side of it is here and in `conversation`.

mod conversation;
mod descriptors;
mod enter;
mod exec;
mod filter;
mod identity;
mod init;
mod mounts;
mod privileges;
mod step;
mod walls;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use self::conversation::Conversation;
use self::wire::Order;
use super::capture::Capture;
use super::{Bounds, End, Ended, INPUTS, Layout, Owner, Root, RunSpec, Sandbox, SandboxError, Surroundings};
pub use enter::enter_if_asked;

/// This very program, even if its file was replaced since it started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// How long setting up may take before the machine is held for broken.
const SETUP_WAIT: Duration = Duration::from_secs(60);

/// How long a killed namespace may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(20);

const HINT: &str = "run the worker as root, or allow unprivileged user namespaces \
    (kernel 5.12 or newer; on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`; in a container \
    `--privileged`), or do without confinement by saying `--sandbox none`";

/// Commands in namespaces.
#[derive(Debug)]
pub struct Confined {
    program: PathBuf,
    become_id: Option<(u32, u32)>,
    layout: Layout,
    hidden: Vec<PathBuf>,
    bounds: Bounds,
}

impl Confined {
    /// Finds out by a real run how far commands can be confined here.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`], with the reason, where they can't.
    pub async fn probe(surroundings: &Surroundings) -> Result<Self, SandboxError> {
        let become_id =
            identity::for_actions().map_err(|reason| SandboxError::Unavailable { reason, hint: HINT })?;
        let program = surroundings.program.clone().unwrap_or_else(|| PathBuf::from(OWN_PROGRAM));
        let hidden = surroundings.hidden.clone();
        let bounds = surroundings.bounds;
        let mut confined = Self { program, become_id, layout: Layout::Links, hidden, bounds };
        let Err(overlay) = confined.try_out(&surroundings.data_dir).await else { return Ok(confined) };
        confined.layout = Layout::Copies;
        match confined.try_out(&surroundings.data_dir).await {
            Ok(()) => {
                tracing::warn!(reason = chain(&overlay), "no overlay here; inputs are copied");
                Ok(confined)
            }
            Err(error) => Err(SandboxError::Unavailable { reason: chain(&error), hint: HINT }),
        }
    }

    async fn try_out(&self, data_dir: &Path) -> Result<(), SandboxError> {
        let scratch = data_dir.join("probe");
        let fresh = || {
            super::remove_tree(&scratch)?;
            std::fs::create_dir_all(scratch.join(INPUTS))?;
            self.owner().take(&scratch.join(INPUTS))
        };
        fresh().map_err(SandboxError::at("make a folder for a trial run"))?;
        let spec = RunSpec {
            scratch: scratch.clone(),
            root: Root::Worker,
            arguments: vec!["true".to_owned()],
            environment: Vec::new(),
            working_directory: String::new(),
            timeout: SETUP_WAIT,
        };
        let ended = self.run(&spec, &CancellationToken::new()).await?;
        // A host without the program is no obstacle: all but the last step has worked.
        if !matches!(ended.end, End::Exited(0 | 127)) {
            return Err(SandboxError::Lost { status: format!("{:?}", ended.end) });
        }
        ended.root.names(1).map_err(SandboxError::at("look into the folder of the trial run"))?;
        drop(ended);
        super::remove_tree(&scratch).map_err(SandboxError::at("remove the folder of the trial run"))
    }

    fn order(&self, spec: &RunSpec) -> Order {
        Order {
            scratch: spec.scratch.clone(),
            become_id: self.become_id,
            layout: self.layout,
            root: spec.root,
            working_directory: spec.working_directory.clone(),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone(),
            hidden: self.hidden.clone(),
            bounds: self.bounds,
        }
    }

    /// Makes what the mounts need, belonging to whom they need it to; returns the names that will be
    /// in the input root because of them.
    fn prepare(&self, spec: &RunSpec) -> io::Result<Vec<&'static str>> {
        self.owner().take(&spec.scratch)?;
        for name in [mounts::ROOT, mounts::UPPER, mounts::WORK] {
            std::fs::create_dir(spec.scratch.join(name))?;
            self.owner().take(&spec.scratch.join(name))?;
        }
        let inputs = spec.scratch.join(INPUTS);
        let is_own = |name: &&str| std::fs::symlink_metadata(inputs.join(name)).is_err();
        Ok(match spec.root {
            Root::Worker => Vec::new(),
            Root::Inputs => mounts::OWN_FOLDERS.into_iter().filter(is_own).collect(),
        })
    }

    fn spawn(&self, socket: UnixStream) -> io::Result<Child> {
        Command::new(&self.program)
            .arg0(enter::NAME)
            .env_clear()
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the end of the command, or brings it about; says whether its time was up.
    async fn see_through(
        spec: &RunSpec,
        talk: &mut Conversation,
        cancel: &CancellationToken,
    ) -> Result<bool, SandboxError> {
        let has_ended = async {
            let ready = tokio::time::timeout(SETUP_WAIT, talk.hear(Conversation::is_ready)).await;
            ready.map_err(|_| SandboxError::Lost { status: "setting up took too long".to_owned() })??;
            // The command's time begins here: setting up is not its doing.
            match tokio::time::timeout(spec.timeout, talk.hear(Conversation::is_gone)).await {
                Ok(heard) => heard.map(|()| true),
                Err(_) => Ok(false),
            }
        };
        let has_ended = tokio::select! {
            has_ended = has_ended => Some(has_ended?),
            () = cancel.cancelled() => None,
        };
        if has_ended != Some(true) {
            talk.ask_to_die().await;
            if tokio::time::timeout(KILL_WAIT, talk.hear(Conversation::is_gone)).await.is_err() {
                return Err(SandboxError::Lost { status: "killed, but not gone".to_owned() });
            }
        }
        has_ended.map(|has_ended| !has_ended).ok_or(SandboxError::Cancelled)
    }
}

#[async_trait]
impl Sandbox for Confined {
    fn level(&self) -> &'static str {
        "namespaces"
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn roots(&self) -> &'static [Root] {
        &[Root::Worker, Root::Inputs]
    }

    fn owner(&self) -> Owner {
        self.become_id.map_or(Owner::of_this_process(), |(uid, gid)| Owner::user(uid, gid))
    }

    fn shows(&self, path: &Path) -> bool {
        mounts::shows(path) && !self.hidden.iter().any(|hidden| path.starts_with(hidden))
    }

    async fn run(&self, spec: &RunSpec, cancel: &CancellationToken) -> Result<Ended, SandboxError> {
        let own_names = self.prepare(spec).map_err(SandboxError::at("prepare the action's folder"))?;
        let (ours, theirs) = UnixStream::pair().map_err(SandboxError::at("make a socket"))?;
        let mut child = self.spawn(theirs).map_err(SandboxError::at("start the sandbox"))?;
        let stdout = child.stdout.take().expect("stdout was piped");
        let stderr = child.stderr.take().expect("stderr was piped");
        let stdout = Capture::start(stdout, spec.scratch.join("stdout"), self.bounds.output_bytes);
        let stderr = Capture::start(stderr, spec.scratch.join("stderr"), self.bounds.output_bytes);
        let mut talk = Conversation::begin(ours, &self.order(spec)).await?;
        let is_late = Self::see_through(spec, &mut talk, cancel).await?;
        let status = child.wait().await.map_err(SandboxError::at("wait for the sandbox"))?;
        let stdout = stdout.finish().await.map_err(SandboxError::at("keep stdout"))?;
        let stderr = stderr.finish().await.map_err(SandboxError::at("keep stderr"))?;
        let heard = talk.finish(status)?;
        let end = if is_late { Some(End::TimedOut) } else { heard.end };
        let end = end.ok_or_else(|| SandboxError::Lost { status: status.to_string() })?;
        Ok(Ended { end, usage: heard.usage, stdout, stderr, root: heard.root, own_names })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
