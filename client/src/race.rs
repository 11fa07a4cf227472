//! Compiles here what a server takes long over, while it goes on: whoever is first has made the object.
//!
//! A server that has too few workers for a build keeps it waiting while cores are idle here. So after a while, and if one
//! is free, the compiler is started here too, with an output of its own: nothing of the user's is touched before one of
//! both has won, and then the other is ended.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::local::{Forwarding, Platform};
use crate::run::{Ran, tee};
use crate::slots::Slots;

/// How long is waited before it is looked again whether a core is free.
const LOOK: Duration = Duration::from_millis(100);

/// A call that can be run with outputs of its own.
pub trait Contender {
    /// What comes of it.
    type Made;

    /// The command that leaves all that it makes in this folder, and nothing elsewhere.
    fn command_into(&self, folder: &Path) -> Command;

    /// Reads what it has left there when it has succeeded.
    ///
    /// # Errors
    /// If that can't be read.
    fn made_in(&self, folder: &Path) -> io::Result<Self::Made>;

    /// Whether messages show how it was called: that is not how the user called it.
    fn is_shown_in(&self, messages: &[u8]) -> bool;
}

/// A compile that was done here first.
pub struct Won<T> {
    /// How the compiler ended: by itself, and maybe with an error of the source's.
    pub ran: Ran,
    /// What it made, if it succeeded.
    pub made: Option<T>,
}

/// A compile that may be done here too.
pub struct Race<'a, C> {
    call: &'a C,
    /// The folder that the processes of this user share.
    dir: &'a Path,
    after: Option<Duration>,
    is_running: Cell<bool>,
}

impl<'a, C: Contender> Race<'a, C> {
    /// The race of a call against a server that has it for a while to itself; `None` for as long as it takes.
    pub const fn new(call: &'a C, dir: &'a Path, after: Option<Duration>) -> Self {
        Self { call, dir, after, is_running: Cell::new(false) }
    }

    /// Whether the compiler runs here now.
    pub const fn is_running(&self) -> bool {
        self.is_running.get()
    }

    /// Compiles here when its time has come and a core is idle, or at once if it has no time to wait for; inside a runtime. `None` if that can't be. Given up at any time, it ends the
    /// compiler and leaves nothing.
    pub async fn run(&self) -> Option<Won<C::Made>> {
        let after = self.after?;
        tokio::time::sleep(after).await;
        let slots = Slots::new(self.dir);
        let _slot = loop {
            // In this order: who only waits for a core must not keep a slot from who needs it.
            if (after.is_zero() || !Platform::is_busy())
                && let Some(slot) = slots.try_take().ok()?
            {
                break slot;
            }
            tokio::time::sleep(LOOK).await;
        };
        tracing::debug!("the server takes long: compiled here too");
        self.is_running.set(true);
        let won = self.compile().await;
        self.is_running.set(false);
        won.inspect_err(|error| tracing::debug!(%error, "not compiled beside the server")).ok()
    }

    async fn compile(&self) -> io::Result<Won<C::Made>> {
        let begun = Instant::now();
        // The cache's cleaning takes away what a killed process leaves there.
        let folder = tempfile::Builder::new().prefix("race-").tempdir_in(self.dir.join("cache/tmp"))?;
        let mut command = self.call.command_into(folder.path());
        Platform::lead_a_group(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Signals are not held back before: the compiler would inherit that, and nobody could end it.
        let child = command.spawn()?;
        let mut running = Running::new(child)?;
        let (status, stdout, stderr) = running.ended().await?;
        let made = if status.success() { Some(self.call.made_in(folder.path())?) } else { None };
        // Before this process may end as the compiler did.
        drop(folder);
        running.end(status);
        if status.code().is_none() || stderr.as_ref().is_none_or(|text| self.call.is_shown_in(text)) {
            return Err(io::Error::other("the compiler was ended, or speaks of itself"));
        }
        Ok(Won { ran: Ran { status, stdout, stderr, took: begun.elapsed() }, made })
    }
}

type Ended = (ExitStatus, Option<Vec<u8>>, Option<Vec<u8>>);

/// A compiler that runs, with all that it has started; ended when this is dropped.
struct Running {
    /// Its process, until that has ended.
    leader: Option<u32>,
    /// Signals to us are passed on while it runs.
    forwarding: Option<Forwarding>,
    ended: oneshot::Receiver<io::Result<Ended>>,
}

impl Running {
    fn new(mut child: Child) -> io::Result<Self> {
        let leader = Some(child.id());
        let forwarding = Some(Forwarding::to_group(&child));
        let (tell, ended) = oneshot::channel();
        let running = Self { leader, forwarding, ended };
        let wait = move || {
            let kept = |from: Option<_>| from.and_then(|from| tee(from, &mut io::sink()));
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let (stdout, stderr) = std::thread::scope(|scope| {
                let stderr = scope.spawn(|| stderr.and_then(|from| tee(from, &mut io::sink())));
                (kept(stdout), stderr.join().unwrap_or_default())
            });
            // Whoever has given up doesn't listen.
            let _ = tell.send(child.wait().map(|status| (status, stdout, stderr)));
        };
        std::thread::Builder::new().name("race".to_owned()).spawn(wait)?;
        Ok(running)
    }

    async fn ended(&mut self) -> io::Result<Ended> {
        let ended = (&mut self.ended).await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        self.leader = None;
        ended
    }

    /// Ends this process too, if it was told to.
    fn end(mut self, status: ExitStatus) {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.end(status);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(forwarding) = self.forwarding.take() else { return };
        if let Some(leader) = self.leader.filter(|_| self.ended.try_recv().is_err()) {
            Platform::end_group(leader);
        }
        forwarding.end_early();
    }
}
