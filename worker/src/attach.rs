//! [`Attendance`]: being a worker to a scheduler, through losses of connection, to the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::remote::Remote;
use castwork_proto::rpc;
use castwork_proto::worker::scheduler_message::Message as Heard;
use castwork_proto::worker::worker_message::Message as Said;
use castwork_proto::worker::{Condition, Draining, Hello, Lease, Outcome, Progress};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::Stop;
use crate::execute::Workshop;
use crate::lease::{self, Event};
use crate::ledger::{Granted, Ledger};
use crate::session::{Session, SessionError, WELCOME_WAIT};

/// First and longest wait before connecting again, on average.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Thousandths of that between which chance decides, lest all come at once.
const SPREAD: (u32, u32) = (500, 1_500);

/// How long a worker may take, once there is a scheduler again, to be back: it is at an attempt that comes to nothing,
/// and then waits.
pub const RETURN_WAIT_MAX: Duration =
    Duration::from_secs(WELCOME_WAIT.as_secs() + BACK_OFF.1.as_secs() * SPREAD.1 as u64 / 1_000);

/// How long what was killed may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// How long, when all else is done, to wait for the scheduler to confirm outcomes.
const CONFIRM_WAIT: Duration = Duration::from_secs(10);

/// A worker's side of the protocol.
pub(crate) struct Attendance {
    workshop: Arc<Workshop>,
    remote: Remote,
    hello: Hello,
    ready_file: Option<PathBuf>,
    drain_wait: Duration,
    stop: Stop,
    ledger: Ledger,
    tasks: JoinSet<()>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// How the worker itself is.
    condition: watch::Receiver<Condition>,
    /// When a drain that was asked for ends at the latest.
    drain_until: Option<Instant>,
    /// When to stop waiting for confirmations; set once nothing runs any more.
    confirm_until: Option<Instant>,
}

/// Why waiting ended.
enum Woken<T> {
    /// What was waited for.
    Done(T),
    /// The end: there is nothing left to do, or no time to do it in.
    End,
}

impl Attendance {
    /// A worker that says `hello` (whose running leases are filled in here).
    pub(crate) fn new(
        workshop: Arc<Workshop>,
        remote: Remote,
        mut hello: Hello,
        condition: watch::Receiver<Condition>,
        ready_file: Option<PathBuf>,
        drain_wait: Duration,
        stop: Stop,
    ) -> Self {
        // The scheduler gives it so many, and needs not know that some of them wait for others.
        let ahead = u32::try_from(workshop.ahead).unwrap_or(u32::MAX);
        hello.slots = hello.slots.saturating_add(ahead);
        let slots = hello.slots as usize;
        Self {
            workshop,
            remote,
            hello,
            ready_file,
            drain_wait,
            stop,
            ledger: Ledger::new(slots),
            tasks: JoinSet::new(),
            // What all slots can say while nobody listens.
            events: mpsc::channel(slots * 8),
            condition,
            drain_until: None,
            confirm_until: None,
        }
    }

    /// Attends until told to stop; then nothing runs any more.
    pub(crate) async fn attend(mut self) {
        let mut back_off = BACK_OFF.0;
        while let Woken::Done(lost) = self.attend_once(&mut back_off).await {
            let wait = back_off * rand::rng().random_range(SPREAD.0..=SPREAD.1) / 1_000;
            back_off = (back_off * 2).min(BACK_OFF.1);
            warn!(reason = %lost, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "no scheduler; trying again");
            if matches!(self.meanwhile(tokio::time::sleep(wait)).await, Woken::End) {
                break;
            }
        }
        self.end().await;
    }

    /// One connection, from its attempt to its loss.
    async fn attend_once(&mut self, back_off: &mut Duration) -> Woken<SessionError> {
        let remote = self.remote.clone();
        let hello = Hello {
            running: self.ledger.running(),
            draining: self.drain_until.is_some(),
            condition: Some(self.condition.borrow().clone()),
            ..self.hello.clone()
        };
        // What is on the way to the ledger belongs to leases that the hello names as running.
        match self.meanwhile(Session::begin(&remote, hello)).await {
            Woken::End => Woken::End,
            Woken::Done(Err(error)) => Woken::Done(error),
            Woken::Done(Ok(session)) => {
                *back_off = BACK_OFF.0;
                info!(scheduler = %self.remote.address(), worker = self.hello.worker_id, "attached");
                self.note_ready();
                self.serve(session).await
            }
        }
    }

    async fn serve(&mut self, mut session: Session) -> Woken<SessionError> {
        match self.greet(&mut session) {
            Ok(()) => {}
            Err(error) => return Woken::Done(error),
        }
        loop {
            if self.is_over() {
                return Woken::End;
            }
            let deadline = self.deadline();
            let done = tokio::select! {
                heard = session.hear() => heard.and_then(|heard| self.hear(heard, &mut session)),
                event = self.events.1.recv() => {
                    let event = event.expect("this holds a sender itself");
                    self.note(event).map_or(Ok(()), |message| session.say(message))
                }
                Some(_) = self.tasks.join_next() => Ok(()),
                Ok(()) = self.condition.changed() => session.say(self.current_condition()),
                () = self.stop.drain.cancelled(), if self.drain_until.is_none() => self.drain(&mut session),
                () = self.stop.now.cancelled() => return Woken::End,
                () = until(deadline) => Ok(()),
            };
            if let Err(error) = done {
                return Woken::Done(error);
            }
        }
    }

    /// Catches up on what the scheduler has missed.
    fn greet(&mut self, session: &mut Session) -> Result<(), SessionError> {
        session.say(self.current_condition())?;
        // It bounds commands by that.
        for progress in self.ledger.stages() {
            session.say(Said::Progress(progress))?;
        }
        for outcome in self.ledger.unconfirmed() {
            session.say(Said::Outcome(outcome.clone()))?;
        }
        if self.drain_until.is_some() { self.drain(session) } else { Ok(()) }
    }

    fn current_condition(&mut self) -> Said {
        Said::Condition(self.condition.borrow_and_update().clone())
    }

    fn drain(&mut self, session: &mut Session) -> Result<(), SessionError> {
        self.begin_drain();
        session.say(Said::Draining(Draining { reason: "the worker was asked to stop".to_owned() }))
    }

    fn begin_drain(&mut self) {
        if self.drain_until.is_none() {
            info!(running = self.ledger.running_count(), "draining");
            self.drain_until = Some(Instant::now() + self.drain_wait);
        }
    }

    fn hear(&mut self, heard: Heard, session: &mut Session) -> Result<(), SessionError> {
        match heard {
            Heard::Lease(lease) => return self.take(lease, session),
            Heard::CancelLease(cancel) => {
                debug!(lease = cancel.lease_id, reason = cancel.reason, "lease cancelled");
                self.ledger.cancel(&cancel.lease_id);
            }
            Heard::OutcomeKept(kept) => self.ledger.kept(&kept.lease_id),
            Heard::Welcome(_) => return Err(SessionError::Protocol("said welcome twice")),
        }
        Ok(())
    }

    fn take(&mut self, lease: Lease, session: &mut Session) -> Result<(), SessionError> {
        if self.drain_until.is_some() {
            return session.say(Said::Outcome(refusal(lease, "the worker is draining")));
        }
        match self.ledger.grant(&lease) {
            Granted::Run(cancel) => {
                self.tasks.spawn(lease::run(self.workshop.clone(), lease, self.events.0.clone(), cancel));
                Ok(())
            }
            Granted::Known => Ok(()),
            Granted::Full => session.say(Said::Outcome(refusal(lease, "every slot of the worker is taken"))),
        }
    }

    /// Takes note of what a lease said; what the scheduler is to hear of it.
    fn note(&mut self, event: Event) -> Option<Said> {
        match event {
            Event::Progress(lease_id, stage) => {
                let is_ours = self.ledger.reach(&lease_id, stage);
                is_ours.then(|| Said::Progress(Progress { lease_id, stage: stage as i32 }))
            }
            Event::Ended(outcome) => self.ledger.end(*outcome).cloned().map(Said::Outcome),
        }
    }

    /// Waits for something while there is no session; leases go on.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Woken<T> {
        let mut work = std::pin::pin!(work);
        loop {
            if self.is_over() {
                return Woken::End;
            }
            let deadline = self.deadline();
            tokio::select! {
                done = &mut work => return Woken::Done(done),
                event = self.events.1.recv() => {
                    // It will be told when there is somebody to tell.
                    let _ = self.note(event.expect("this holds a sender itself"));
                }
                Some(_) = self.tasks.join_next() => {}
                () = self.stop.drain.cancelled(), if self.drain_until.is_none() => self.begin_drain(),
                () = self.stop.now.cancelled() => return Woken::End,
                () = until(deadline) => {}
            }
        }
    }

    /// Whether a drain has come to its end, one way or the other.
    fn is_over(&mut self) -> bool {
        let Some(drain_until) = self.drain_until else { return false };
        let now = Instant::now();
        if self.ledger.running_count() > 0 {
            return now >= drain_until;
        }
        let confirm_until = *self.confirm_until.get_or_insert(now + CONFIRM_WAIT);
        self.ledger.is_empty() || now >= confirm_until
    }

    fn deadline(&self) -> Option<Instant> {
        self.confirm_until.or(self.drain_until)
    }

    /// Kills what is left, and waits until it is gone.
    async fn end(mut self) {
        let running = self.ledger.running_count();
        if running > 0 {
            warn!(running, "ending with actions that still run; they will run elsewhere");
        }
        self.ledger.cancel_all();
        // Leases that end say so, and must not wait for somebody to hear it.
        self.events.1.close();
        let gone = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(KILL_WAIT, gone).await.is_err() {
            warn!("something that was killed is not gone");
        }
    }

    fn note_ready(&mut self) {
        if let Some(path) = self.ready_file.take()
            && let Err(error) = write_ready(&path, &self.hello.worker_id)
        {
            warn!(path = %path.display(), %error, "can't write the ready file");
        }
    }
}

fn refusal(lease: Lease, reason: &str) -> Outcome {
    let status =
        rpc::Status { code: rpc::Code::Unavailable as i32, message: reason.to_owned(), details: Vec::new() };
    Outcome { lease_id: lease.lease_id, status: Some(status), ..Outcome::default() }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// By rename, so that whoever waits for the file finds it whole.
fn write_ready(path: &Path, worker_id: &str) -> std::io::Result<()> {
    let text = serde_json::json!({ "worker": worker_id, "pid": std::process::id() }).to_string();
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)
}
