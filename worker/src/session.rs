//! [`Session`]: one stream to the scheduler, from `Hello` to its loss.

use std::time::Duration;

use castwork_cas::remote::Remote;
use castwork_proto::worker::scheduler_message::Message as Heard;
use castwork_proto::worker::worker_message::Message as Said;
use castwork_proto::worker::workers_client::WorkersClient;
use castwork_proto::worker::{Heartbeat, Hello, SchedulerMessage, WorkerMessage};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages that may wait for the network, beside what is said on every connect. More means that it is stuck.
const WAITING_MAX: usize = 1024;

/// How long the scheduler may take to answer a `Hello`.
pub(crate) const WELCOME_WAIT: Duration = Duration::from_secs(10);

/// Largest message, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Why there is no session, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The scheduler ended the stream, or can't be reached.
    #[error("{0}")]
    Lost(Box<Status>),
    /// It doesn't speak the protocol.
    #[error("the scheduler {0}")]
    Protocol(&'static str),
    /// It takes nothing any more.
    #[error("more than {WAITING_MAX} messages wait for the scheduler")]
    Stuck,
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        Self::Lost(Box::new(status))
    }
}

/// A stream that the scheduler has welcomed.
pub(crate) struct Session {
    said: mpsc::Sender<WorkerMessage>,
    heard: Streaming<SchedulerMessage>,
    heartbeat: Interval,
    has_spoken: bool,
}

impl Session {
    /// Connects, states who this is, and waits for the welcome.
    pub(crate) async fn begin(remote: &Remote, hello: Hello) -> Result<Self, SessionError> {
        // Of each of these the worker has at most a stage and an outcome to say at once.
        let (said, messages) = mpsc::channel(WAITING_MAX + 2 * hello.running.len());
        said.try_send(WorkerMessage { message: Some(Said::Hello(hello)) })
            .map_err(|_| SessionError::Stuck)?;
        let mut client = WorkersClient::new(remote.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let request = remote.with_metadata(ReceiverStream::new(messages));
        let welcome = async {
            let mut heard = client.attach(request).await?.into_inner();
            match heard.message().await? {
                Some(SchedulerMessage { message: Some(Heard::Welcome(welcome)) }) => Ok((heard, welcome)),
                _ => Err(SessionError::Protocol("did not begin with a welcome")),
            }
        };
        let (heard, welcome) = tokio::time::timeout(WELCOME_WAIT, welcome)
            .await
            .map_err(|_| SessionError::Protocol("does not answer"))??;
        let every = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
        let every = every.filter(|every| !every.is_zero());
        let every = every.ok_or(SessionError::Protocol("wants no heartbeat"))?;
        let mut heartbeat = tokio::time::interval(every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Ok(Self { said, heard, heartbeat, has_spoken: true })
    }

    /// Says something.
    pub(crate) fn say(&mut self, message: Said) -> Result<(), SessionError> {
        self.has_spoken = true;
        self.said.try_send(WorkerMessage { message: Some(message) }).map_err(|_| SessionError::Stuck)
    }

    /// Waits for the scheduler to say something, with heartbeats meanwhile. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Result<Heard, SessionError> {
        loop {
            tokio::select! {
                message = self.heard.message() => match message? {
                    Some(SchedulerMessage { message: Some(message) }) => return Ok(message),
                    // From a later version, which has more to say.
                    Some(SchedulerMessage { message: None }) => {}
                    None => return Err(SessionError::Protocol("ended the stream")),
                },
                _ = self.heartbeat.tick() => self.beat()?,
            }
        }
    }

    /// Speaks up if nothing else was said since the last time.
    fn beat(&mut self) -> Result<(), SessionError> {
        if !self.has_spoken {
            self.say(Said::Heartbeat(Heartbeat {}))?;
        }
        self.has_spoken = false;
        Ok(())
    }
}
