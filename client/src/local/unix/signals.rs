//! Signals that end a build, passed on to the compiler: who ends us wants that to end, and to leave nothing behind.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::Pid;

/// Those that are passed on.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Whom they are passed on to.
#[derive(Clone, Copy, Debug)]
struct To {
    /// A process, or by a negative number its group.
    child: Option<Pid>,
    /// What was passed on last.
    signal: Option<Signal>,
}

static TO: Mutex<To> = Mutex::new(To { child: None, signal: None });
static LISTENER: Once = Once::new();

fn to() -> MutexGuard<'static, To> {
    TO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The passing on of signals to a child, from its start to its end. Threads that are started meanwhile leave signals alone.
///
/// What comes before the child is registered ends this process as always.
#[derive(Debug)]
pub struct Forwarding(());

impl Forwarding {
    /// Begins. If there can be no thread for it, signals do what they do without us.
    pub fn to(child: &Child) -> Self {
        Self::to_whom(i32::try_from(child.id()).ok())
    }

    /// The same, to all of a group that a child leads.
    pub fn to_group(leader: &Child) -> Self {
        Self::to_whom(i32::try_from(leader.id()).ok().map(i32::wrapping_neg))
    }

    /// Has signals go to other threads of this process than the one that calls.
    pub fn not_to_this_thread() {
        let all: SigSet = ENDING.into_iter().collect();
        let _ = all.thread_block();
    }

    /// Ends what [`Forwarding::not_to_this_thread`] began.
    pub fn to_this_thread_again() {
        let all: SigSet = ENDING.into_iter().collect();
        let _ = all.thread_unblock();
    }

    fn to_whom(child: Option<i32>) -> Self {
        let mut to = to();
        let all: SigSet = ENDING.into_iter().collect();
        if all.thread_block().is_ok() {
            LISTENER.call_once(|| {
                let thread = std::thread::Builder::new().name("signals".to_owned());
                if thread.spawn(move || listen(&all)).is_err() {
                    let _ = all.thread_unblock();
                }
            });
        }
        *to = To { child: child.map(Pid::from_raw), signal: None };
        Self(())
    }

    /// Ends, when the child has: if that was by a signal that was passed on, this process ends by the same.
    pub fn end(self, status: ExitStatus) {
        Self::end_if(status.signal().is_some());
    }

    /// Ends because the child is of no use any more: if a signal was passed on, this process ends by it.
    pub fn end_early(self) {
        Self::end_if(true);
    }

    fn end_if(may_die: bool) {
        let passed_on = {
            let mut to = to();
            to.child = None;
            to.signal.take()
        };
        if let Some(signal) = passed_on.filter(|_| may_die) {
            die(signal);
        }
        Self::to_this_thread_again();
    }
}

fn listen(all: &SigSet) {
    while let Ok(signal) = all.wait() {
        let mut to = to();
        to.signal = Some(signal);
        match to.child {
            // It may have ended a moment ago; its number is not given to another at once.
            Some(child) => drop(kill(child, signal)),
            None => die(signal),
        }
    }
}

/// Ends this process by a signal, unless it is one that this process was told to ignore.
pub(super) fn die(signal: Signal) {
    let only: SigSet = [signal].into_iter().collect();
    let _ = only.thread_unblock().and_then(|()| raise(signal));
    let _ = only.thread_block();
}
