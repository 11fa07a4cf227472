//! Workers that say what real ones say and run nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use castwork_proto::worker::workers_client::WorkersClient;
use castwork_proto::worker::{
    Heartbeat, Hello, Outcome, WorkerMessage, scheduler_message::Message as Heard, worker_message::Message,
};
use castwork_proto::{reapi, rpc};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// What the workers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Hold on to their leases.
    Hold,
    /// Answer each after that time.
    Answer { after: Duration },
    /// End.
    End,
}

pub(crate) async fn connect(address: &str) -> Result<Channel, String> {
    let url = address.replacen("grpc://", "http://", 1);
    let endpoint = Endpoint::from_shared(url).map_err(|error| format!("address `{address}`: {error}"))?;
    endpoint.tcp_nodelay(true).connect().await.map_err(|error| format!("connect to `{address}`: {error}"))
}

/// A worker that runs nothing. Holds its leases until it may answer, and then answers each when it is due. Returns how
/// long it had to wait for another each time.
pub(crate) async fn work(
    address: String,
    number: usize,
    slots: usize,
    mut gate: watch::Receiver<Phase>,
) -> Result<Vec<Duration>, String> {
    let failed = |status: tonic::Status| format!("worker: {status}");
    let (says, said) = mpsc::channel(1_024);
    let hello = Hello {
        worker_id: format!("{number:032x}"),
        name: format!("simulated-{number}"),
        slots: u32::try_from(slots).map_err(|error| error.to_string())?,
        ..Hello::default()
    };
    say(&says, Message::Hello(hello)).await?;
    let mut client = WorkersClient::new(connect(&address).await?);
    let mut hears = client.attach(ReceiverStream::new(said)).await.map_err(failed)?.into_inner();
    let mut held = VecDeque::new();
    let (mut asked, mut pauses) = (VecDeque::new(), Vec::new());
    let mut beats = tokio::time::interval(Duration::from_secs(2));
    loop {
        let due = due(*gate.borrow(), held.front());
        tokio::select! {
            heard = hears.message() => match heard.map_err(failed)?.and_then(|heard| heard.message) {
                Some(Heard::Lease(lease)) => {
                    held.push_back((Instant::now(), lease.lease_id));
                    pauses.extend(asked.pop_front().map(|since: Instant| since.elapsed()));
                }
                Some(_) => {}
                None => return Ok(pauses),
            },
            _ = beats.tick() => say(&says, Message::Heartbeat(Heartbeat {})).await?,
            () = until(due) => {}
            opened = gate.changed() => opened.map_err(|error| error.to_string())?,
        }
        let phase = *gate.borrow();
        if phase == Phase::End {
            return Ok(pauses);
        }
        while self::due(phase, held.front()).is_some_and(|due| due <= Instant::now()) {
            let Some((_, lease_id)) = held.pop_front() else { break };
            let (status, result) = (Some(rpc::Status::default()), Some(reapi::ActionResult::default()));
            asked.push_back(Instant::now());
            say(&says, Message::Outcome(Outcome { lease_id, status, result, ..Outcome::default() })).await?;
        }
    }
}

/// When the oldest lease is to be answered.
fn due(phase: Phase, oldest: Option<&(Instant, String)>) -> Option<Instant> {
    match (phase, oldest) {
        (Phase::Answer { after }, Some((since, _))) => Some(*since + after),
        _ => None,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn say(says: &mpsc::Sender<WorkerMessage>, message: Message) -> Result<(), String> {
    let said = says.send(WorkerMessage { message: Some(message) }).await;
    said.map_err(|_| "the scheduler has ended a worker's stream".to_owned())
}
