//! [`Failed`]: which step of setting up a sandbox failed, and how.

use nix::errno::Errno;

use super::wire::Report;

/// A step that failed. Travels to the worker as numbers and text.
#[derive(Debug)]
pub(super) struct Failed {
    /// What was tried: `mount the overlay`, …
    pub step: String,
    /// What the system said.
    pub errno: Errno,
}

impl Failed {
    /// What the worker is told.
    pub(super) fn report(&self) -> Report {
        Report::Failed { step: self.step.clone(), errno: self.errno as i32 }
    }

    /// The same once more.
    pub(super) fn again(&self) -> Self {
        Self { step: self.step.clone(), errno: self.errno }
    }
}

/// Names the step when something fails.
pub(super) trait At<T> {
    fn at(self, step: &str) -> Result<T, Failed>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: &str) -> Result<T, Failed> {
        self.map_err(|errno| Failed { step: step.to_owned(), errno })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: &str) -> Result<T, Failed> {
        self.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Failed { step: step.to_owned(), errno }
        })
    }
}
