//! [`Confined`] on Linux: namespaces, filters, and bounds by control groups where those can be had.
//!
//! A `slot` is where one action after the other runs. Its `keeper` is a fresh start of this program,
//! single-threaded and small, that gives up the worker's user, makes what is expensive and the same
//! for all actions (`namespaces`, most of the `mounts`), and then forks process 1 of each action
//! (`init`), which adds what is that action's alone. That forks the process which becomes the command
//! (`command`): it gives up every privilege (`privileges`), closes files (`walls`) and system calls
//! (`filter`) and starts the program (`exec`). Both wait for their action with all done that can be.
//! The worker's side is here, in `slot`, `conversation`, `cgroups` and `disk`.

mod cgroups;
mod command;
mod conversation;
mod descriptors;
mod disk;
mod exec;
mod filter;
mod identity;
mod init;
mod keeper;
mod mounts;
mod namespaces;
mod privileges;
mod processes;
mod slot;
mod spread;
mod step;
mod walls;
mod wire;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use castwork_cas::{Digest, DigestFunction};
use tokio_util::sync::CancellationToken;

use self::cgroups::Cgroups;
use self::conversation::{Conversation, Heard};
use self::disk::Disk;
use self::filter::Around;
use self::slot::{Ends, Slot, Slots};
use self::wire::{Order, Setup};
use super::capture::{self, Capture};
use super::{
    ACTIONS, Bound, Bounds, End, Ended, INPUTS, Layout, Level, Owner, Root, RunSpec, STAGE, Sandbox,
    SandboxError, Surroundings,
};
pub use keeper::enter_if_asked;

/// This very program, even if its file was replaced since it started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// How long setting up may take before the machine is held for broken.
const SETUP_WAIT: Duration = Duration::from_secs(60);

/// How long a killed namespace may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(20);

/// How often the disk is looked at while a command runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const HINT: &str = "run the worker as root, or allow unprivileged user namespaces \
    (kernel 5.12 or newer; on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`; in a container \
    `--privileged`), or do without confinement by saying `--sandbox none`";

const HINT_FULL: &str = "run the worker as root, or as a systemd service with `Delegate=yes`, or do without \
    control groups by saying `--sandbox namespaces`";

const HINT_NETWORK: &str = "leave out `--allow-network`, or use `--sandbox namespaces`";

const HINT_CPU: &str =
    "only control groups bound processor time: use `--sandbox full`, or leave out `--action-cpus`";

const HINT_FILTERS: &str = "`--sandbox filters` needs Linux 6.12 or newer with Landlock, and the worker's files \
    outside of the folders that actions see, such as `/etc` and `/opt`";

/// Commands in slots.
#[derive(Debug)]
pub struct Confined {
    level: Level,
    become_id: Option<(u32, u32)>,
    layout: Layout,
    hidden: Vec<PathBuf>,
    bounds: Bounds,
    stage: PathBuf,
    slots: Slots,
}

/// What brought a command to its end.
enum Cause {
    Itself,
    Time,
    Cancel,
    Disk,
}

impl Confined {
    /// Finds out by a real run how far commands can be confined here.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`], with the reason, where they can't be as far as they have to.
    pub async fn probe(surroundings: &Surroundings) -> Result<Self, SandboxError> {
        let become_id =
            identity::for_actions().map_err(|reason| SandboxError::Unavailable { reason, hint: HINT })?;
        if let Err(error) = spread::apart(&surroundings.data_dir.join(STAGE).join(ACTIONS)) {
            tracing::debug!(%error, "the disk keeps the folders of actions together");
        }
        if surroundings.level == Some(Level::Filters) {
            if surroundings.allows_network {
                let reason = "the network can't be given to some actions only".to_owned();
                return Err(SandboxError::Unavailable { reason, hint: HINT_NETWORK });
            }
            let confined = Self::at(surroundings, become_id, Layout::Copies)?;
            confined.open_the_way(&surroundings.data_dir)?;
            return match confined.try_out().await {
                Ok(()) => Ok(confined),
                Err(error) => Err(SandboxError::Unavailable { reason: chain(&error), hint: HINT_FILTERS }),
            };
        }
        let confined = Self::at(surroundings, become_id, Layout::Links)?;
        let Err(overlay) = confined.try_out().await else { return Ok(confined) };
        drop(confined);
        let confined = Self::at(surroundings, become_id, Layout::Copies)?;
        match confined.try_out().await {
            Ok(()) => {
                tracing::warn!(reason = chain(&overlay), "no overlay here; inputs are copied");
                Ok(confined)
            }
            Err(error) => Err(SandboxError::Unavailable { reason: chain(&error), hint: HINT }),
        }
    }

    fn at(
        surroundings: &Surroundings,
        become_id: Option<(u32, u32)>,
        layout: Layout,
    ) -> Result<Self, SandboxError> {
        let cgroups = match surroundings.level {
            Some(Level::Namespaces | Level::Filters) => None,
            wanted => match Cgroups::find(&name_of(&surroundings.data_dir), &surroundings.bounds) {
                Ok(cgroups) => Some(cgroups),
                Err(reason) if wanted == Some(Level::Full) => {
                    return Err(SandboxError::Unavailable { reason, hint: HINT_FULL });
                }
                Err(reason) => {
                    tracing::info!(reason, "no control groups here; memory is watched instead");
                    None
                }
            },
        };
        if surroundings.bounds.cpu_percent.is_some() && cgroups.is_none() {
            let reason = "an action's processor time can't be bounded".to_owned();
            return Err(SandboxError::Unavailable { reason, hint: HINT_CPU });
        }
        let level = match surroundings.level {
            Some(level) => level,
            None if cgroups.is_some() => Level::Full,
            None => Level::Namespaces,
        };
        let around = if level == Level::Filters { Around::Nothing } else { Around::Namespaces };
        let program = surroundings.program.clone().unwrap_or_else(|| PathBuf::from(OWN_PROGRAM));
        let stage = surroundings.data_dir.join(STAGE);
        let (hidden, bounds) = (surroundings.hidden.clone(), surroundings.bounds);
        let setup = Setup {
            stage: stage.clone(),
            become_id,
            around,
            layout,
            hidden: hidden.clone(),
            bounds,
            watch_memory: cgroups.is_none(),
            network: false,
        };
        let slots = Slots::new(program, setup, cgroups);
        Ok(Self { level, become_id, layout, hidden, bounds, stage, slots })
    }

    /// Without namespaces nothing covers a folder, so what is hidden must not lie in one that is shown;
    /// and who actions run as has to be able to walk to theirs.
    fn open_the_way(&self, data_dir: &Path) -> Result<(), SandboxError> {
        if let Some(hidden) = self.hidden.iter().find(|hidden| mounts::shows(hidden)) {
            let reason = format!("nothing can hide `{}` from actions there", hidden.display());
            return Err(SandboxError::Unavailable { reason, hint: HINT_FILTERS });
        }
        if self.become_id.is_none() {
            return Ok(());
        }
        let open = || {
            for closed in ["cas", "programs"].map(|name| data_dir.join(name)) {
                std::fs::create_dir_all(&closed)?;
                super::set_mode(&closed, 0o700)?;
            }
            super::set_mode(data_dir, 0o711)
        };
        open().map_err(SandboxError::at("let actions walk to their folders"))
    }

    async fn try_out(&self) -> Result<(), SandboxError> {
        let scratch = self.stage.join("probe");
        let fresh = || {
            std::fs::create_dir_all(self.stage.join(mounts::ROOT))?;
            super::set_mode(&self.stage, 0o711)?;
            super::remove_tree(&scratch)?;
            std::fs::create_dir_all(scratch.join(INPUTS))?;
            self.owner().take(&scratch.join(INPUTS))
        };
        fresh().map_err(SandboxError::at("make a folder for a trial run"))?;
        let spec = RunSpec {
            scratch: scratch.clone(),
            base: None,
            root: Root::Worker,
            network: false,
            arguments: vec!["true".to_owned()],
            environment: Vec::new(),
            working_directory: String::new(),
            timeout: SETUP_WAIT,
            memory_bytes: 0,
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

    fn order(&self, spec: &RunSpec, bounds: &Bounds) -> Order {
        let scratch = spec.scratch.strip_prefix(&self.stage).expect("scratch folders are in the stage");
        Order {
            scratch: scratch.to_owned(),
            base: spec.base.clone(),
            root: spec.root,
            working_directory: spec.working_directory.clone(),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone(),
            memory_bytes: bounds.memory_bytes,
        }
    }

    /// Gives the folder to whom the mounts need it to belong to; returns the names that will be in the
    /// input root because of them.
    fn prepare(&self, spec: &RunSpec) -> io::Result<Vec<&'static str>> {
        self.owner().take(&spec.scratch)?;
        let is_own = |name: &&str| !has_input(spec, name);
        Ok(match spec.root {
            Root::Worker => Vec::new(),
            Root::Inputs => mounts::OWN_FOLDERS.into_iter().filter(is_own).collect(),
        })
    }

    /// Waits for the end of the command, or brings it about.
    async fn see_through(
        &self,
        spec: &RunSpec,
        talk: &mut Conversation,
        slot: &mut Slot,
        disk: Disk,
        cancel: &CancellationToken,
    ) -> Result<Cause, SandboxError> {
        let by_itself = async {
            let ready = tokio::time::timeout(SETUP_WAIT, talk.hear(Conversation::is_ready)).await;
            ready.map_err(|_| SandboxError::Lost { status: "setting up took too long".to_owned() })??;
            // The command's time begins here: setting up is not its doing.
            match tokio::time::timeout(spec.timeout, talk.hear(Conversation::is_gone)).await {
                Ok(heard) => heard.map(|()| Cause::Itself),
                Err(_) => Ok(Cause::Time),
            }
        };
        let cause = tokio::select! {
            cause = by_itself => Some(cause?),
            () = cancel.cancelled() => Some(Cause::Cancel),
            () = until_exceeded(disk, self.bounds) => Some(Cause::Disk),
            _ = slot.lost() => None,
        };
        if !matches!(cause, Some(Cause::Itself)) {
            talk.ask_to_die().await;
            if tokio::time::timeout(KILL_WAIT, talk.hear(Conversation::is_gone)).await.is_err() {
                return Err(SandboxError::Lost { status: "killed, but not gone".to_owned() });
            }
        }
        Ok(cause.unwrap_or(Cause::Itself))
    }

    /// Runs a command in a slot up to the point where nothing of it is left.
    async fn run_in(
        &self,
        slot: &mut Slot,
        spec: &RunSpec,
        cancel: &CancellationToken,
    ) -> Result<Ended, SandboxError> {
        let own_names = self.prepare(spec).map_err(SandboxError::at("prepare the action's folder"))?;
        let bounds = self.bounds.with_memory(spec.memory_bytes);
        let order =
            wire::line(&self.order(spec, &bounds)).map_err(SandboxError::at("write down the order"))?;
        slot.bound_memory(&bounds).map_err(SandboxError::at("bound the slot's memory"))?;
        // Before it can have taken anything.
        let disk = Disk::at(spec.scratch.clone(), slot.keeper());
        let Ends { control, stdout, stderr, is_sent } =
            slot.begin(&order).map_err(SandboxError::at("start in the slot"))?;
        let stdout = Capture::start(stdout, spec.scratch.join("stdout"), bounds.output_bytes);
        let stderr_path = spec.scratch.join("stderr");
        let stderr = Capture::start(stderr, stderr_path.clone(), bounds.output_bytes);
        let rest = if is_sent { &[][..] } else { &order };
        let mut talk = Conversation::begin(control, rest).await?;
        let cause = self.see_through(spec, &mut talk, slot, disk, cancel).await?;
        let stdout = stdout.finish().await.map_err(SandboxError::at("keep stdout"))?;
        let mut stderr = stderr.finish().await.map_err(SandboxError::at("keep stderr"))?;
        let Heard { end, usage, root } = talk.finish()?;
        let out_of_memory = slot.ran_out_of_memory() || end == Some(End::Over(Bound::Memory));
        let end = match cause {
            Cause::Time => End::TimedOut,
            Cause::Cancel => return Err(SandboxError::Cancelled),
            Cause::Disk => End::Over(Bound::Disk),
            Cause::Itself if out_of_memory => End::Over(Bound::Memory),
            Cause::Itself => {
                end.ok_or_else(|| SandboxError::Lost { status: "no end was told".to_owned() })?
            }
        };
        if let End::Over(bound) = end {
            let line = format!("castwork: {}", bound.complaint(&bounds));
            let added = capture::add_line(&mut stderr, &stderr_path, &line).await;
            added.map_err(SandboxError::at("keep stderr"))?;
        }
        Ok(Ended { end, usage, stdout, stderr, root, own_names })
    }
}

#[async_trait]
impl Sandbox for Confined {
    fn level(&self) -> &'static str {
        self.level.name()
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn roots(&self) -> &'static [Root] {
        if self.level == Level::Filters { &[Root::Worker] } else { &[Root::Worker, Root::Inputs] }
    }

    fn owner(&self) -> Owner {
        self.become_id.map_or(Owner::of_this_process(), |(uid, gid)| Owner::user(uid, gid))
    }

    fn shows(&self, path: &Path) -> bool {
        mounts::shows(path) && !self.hidden.iter().any(|hidden| path.starts_with(hidden))
    }

    async fn run(&self, spec: &RunSpec, cancel: &CancellationToken) -> Result<Ended, SandboxError> {
        let mut slot = self.slots.take(spec.network).map_err(SandboxError::at("make a slot"))?;
        let ended = self.run_in(&mut slot, spec, cancel).await;
        match &ended {
            Ok(Ended { end: End::Exited(_), .. }) => self.slots.put_back(slot).await,
            _ => self.slots.give_up(slot).await,
        }
        ended
    }
}

/// Returns when the command has taken more of the disk than it may.
async fn until_exceeded(mut disk: Disk, bounds: Bounds) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = tokio::task::spawn_blocking(move || (disk.is_exceeded(&bounds), disk)).await;
        let Ok((false, same)) = looked else { return };
        disk = same;
    }
}

/// A name for the worker of that data folder, which no two workers of a machine share.
fn name_of(data_dir: &Path) -> String {
    let digest = Digest::of(DigestFunction::Sha256, data_dir.as_os_str().as_encoded_bytes());
    digest.hash_hex()[..12].to_owned()
}

/// Whether the inputs have that name in their root.
fn has_input(spec: &RunSpec, name: &str) -> bool {
    match std::fs::symlink_metadata(spec.scratch.join(INPUTS).join(name)) {
        // Only a whiteout is one: no input is a device.
        Ok(metadata) => !metadata.file_type().is_char_device(),
        Err(_) => spec
            .base
            .as_ref()
            .is_some_and(|base| std::fs::symlink_metadata(spec.scratch.join(base).join(name)).is_ok()),
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
