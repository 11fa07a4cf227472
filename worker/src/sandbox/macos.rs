//! [`Confined`] on macOS: not yet. Commands run there with `--sandbox none`, in a process group.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Ended, Layout, Owner, Root, RunSpec, Sandbox, SandboxError, Surroundings};

/// Confinement that this version does not have here; so there is no value of it.
#[derive(Debug)]
pub enum Confined {}

impl Confined {
    /// Refuses.
    ///
    /// # Errors
    /// Always [`SandboxError::Unavailable`].
    #[allow(clippy::unused_async, reason = "it is asynchronous where there is something to find out")]
    pub async fn probe(_: &Surroundings) -> Result<Self, SandboxError> {
        Err(SandboxError::Unavailable {
            reason: "this version has no sandbox for macOS".to_owned(),
            hint: "on a machine that runs only what you trust, say `--sandbox none`",
        })
    }
}

#[async_trait]
impl Sandbox for Confined {
    fn level(&self) -> &'static str {
        match *self {}
    }

    fn layout(&self) -> Layout {
        match *self {}
    }

    fn roots(&self) -> &'static [Root] {
        match *self {}
    }

    fn owner(&self) -> Owner {
        match *self {}
    }

    fn shows(&self, _: &std::path::Path) -> bool {
        match *self {}
    }

    async fn run(&self, _: &RunSpec, _: &CancellationToken) -> Result<Ended, SandboxError> {
        match *self {}
    }
}

/// Nothing is asked of a fresh start of the program here.
pub fn enter_if_asked() {}
