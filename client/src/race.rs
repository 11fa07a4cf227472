//! Compiles here what a server takes long over, while it goes on: whoever is first has made the object.
//!
//! A server that has too few workers for a build keeps it waiting while cores are idle here. So after a while, and if one
//! is free, the compiler is started here too, with an output of its own: nothing of the user's is touched before one of
//! both has won, and then the other is ended.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::local::{Forwarding, Platform};
use crate::messages;
use crate::prepare::Understood;
use crate::run::{Ran, tee};
use crate::slots::Slots;

/// How long is waited before it is looked again whether a core is free.
const LOOK: Duration = Duration::from_millis(100);

/// A compile that was done here first.
pub struct Won {
    /// How the compiler ended: by itself, and maybe with an error of the source's.
    pub ran: Ran,
    /// The object, if it succeeded.
    pub object: Option<Vec<u8>>,
}

/// A compile that may be done here too.
pub struct Race<'a> {
    call: &'a Understood,
    /// The folder that the processes of this user share.
    dir: &'a Path,
    after: Option<Duration>,
    is_running: Cell<bool>,
}

impl<'a> Race<'a> {
    /// The race of a call against a server that has it for a while to itself; `None` for as long as it takes.
    pub const fn new(call: &'a Understood, dir: &'a Path, after: Option<Duration>) -> Self {
        Self { call, dir, after, is_running: Cell::new(false) }
    }

    /// Whether the compiler runs here now.
    pub const fn is_running(&self) -> bool {
        self.is_running.get()
    }

    /// Compiles here when its time has come and a core is idle, or at once if it has no time to wait for; inside a runtime. `None` if that can't be. Given up at any time, it ends the
    /// compiler and leaves nothing.
    pub async fn run(&self) -> Option<Won> {
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

    async fn compile(&self) -> io::Result<Won> {
        let begun = Instant::now();
        // The cache's cleaning takes away what a killed process leaves there.
        let folder = tempfile::Builder::new().prefix("race-").tempdir_in(self.dir.join("cache/tmp"))?;
        let output = folder.path().join("object.o");
        // The dependency file is written already.
        let color = self.call.has_to_be_told_of_color().then_some("-fdiagnostics-color=always");
        let mut command = self.call.command_to(&output, color);
        Platform::lead_a_group(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What ends us from here on waits until it can be passed on.
        Forwarding::not_to_this_thread();
        let child = command.spawn().inspect_err(|_| Forwarding::to_this_thread_again())?;
        let mut running = Running::new(child)?;
        let (status, stdout, stderr) = running.ended().await?;
        let object = if status.success() { Some(std::fs::read(output)?) } else { None };
        // Before this process may end as the compiler did.
        drop(folder);
        running.end(status);
        let driver = self.call.toolchain().driver.file_name().unwrap_or_default().to_string_lossy();
        // How it was called is not how the user called it.
        if status.code().is_none()
            || stderr.as_ref().is_none_or(|text| messages::names_program(text, &driver))
        {
            return Err(io::Error::other("the compiler was ended, or speaks of itself"));
        }
        Ok(Won { ran: Ran { status, stdout, stderr, took: begun.elapsed() }, object })
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
