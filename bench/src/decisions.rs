//! What one decision of the queue costs: all that happens to many actions, told to the queue alone, without a
//! connection and without a clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castwork_cas::{ActionKey, Digest, DigestFunction};
use castwork_proto::reapi;
use castwork_scheduler::queue::{
    Checked, Effect, Event, LeaseId, Limits, Moment, Needs, Offer, OperationId, Origin, Queue, Readiness,
    Report, Request, Response, Saying, SessionId, Spec, TaskId, WorkerId,
};

use crate::queue::Load;
use crate::spread::Spread;
use crate::table;

/// How often the queue is told that time has passed, while everything waits.
const TICKS: u32 = 20;

/// Tells a queue of everything and returns a Markdown table.
///
/// # Errors
/// If an action is left at the end.
pub fn run(load: Load) -> Result<String, String> {
    let mut told = Told::new();
    for number in 0..load.workers {
        let offer = Offer {
            name: format!("worker-{number}").into(),
            slots: u32::try_from(load.slots).map_err(|error| error.to_string())?,
            ..Offer::default()
        };
        told.attach(number, offer);
    }
    let asked: Vec<_> =
        (0..load.actions).map(|number| told.timed(|told| told.ask(number, load.runs))).collect();
    let ticks: Vec<_> = (0..TICKS).map(|_| told.timed(Told::tick)).collect();
    let mut answered = Vec::with_capacity(load.actions);
    while let Some((worker, lease)) = told.granted.pop_front() {
        answered.push(told.timed(|told| told.answer(worker, lease)));
    }
    if told.ended != load.actions {
        return Err(format!("{} of {} actions have ended", told.ended, load.actions));
    }
    let row = |what: &str, times: Vec<Duration>| {
        let times = Spread::new(times);
        vec![what.to_owned(), micros(times.median()), micros(times.percentile(99))]
    };
    let heading = format!("{} actions of {} runs, {} workers", load.actions, load.runs, load.workers);
    Ok(table::markdown(
        &[&heading, "p50", "p99"],
        &[
            row("asked for, checked, in line", asked),
            row("time passes, with all of them in line", ticks),
            row("an outcome, its answer, and that worker's next action", answered),
        ],
    ))
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

/// A queue, and what it wants.
struct Told {
    queue: Queue,
    now: Moment,
    granted: VecDeque<(WorkerId, LeaseId)>,
    checks: Vec<TaskId>,
    publications: Vec<(TaskId, Response)>,
    ended: usize,
}

impl Told {
    fn new() -> Self {
        Self {
            queue: Queue::new(Limits::default(), 1),
            now: Moment::ZERO,
            granted: VecDeque::new(),
            checks: Vec::new(),
            publications: Vec::new(),
            ended: 0,
        }
    }

    fn timed(&mut self, act: impl FnOnce(&mut Self)) -> Duration {
        let begin = Instant::now();
        act(self);
        begin.elapsed()
    }

    fn apply(&mut self, event: Event) {
        self.now += Duration::from_micros(1);
        for effect in self.queue.apply(self.now, event) {
            match effect {
                Effect::Check { task, .. } => self.checks.push(task),
                Effect::Grant { worker, lease, .. } => self.granted.push_back((worker, lease)),
                Effect::Publish { task, response, .. } => self.publications.push((task, response)),
                Effect::Finish(..) => self.ended += 1,
                _ => {}
            }
        }
    }

    fn attach(&mut self, number: usize, offer: Offer) {
        let (worker, session) = (WorkerId(number as u128), SessionId(number as u64));
        self.apply(Event::Attached {
            worker,
            session,
            offer,
            held: Vec::new(),
            readiness: Readiness::default(),
        });
    }

    fn ask(&mut self, number: usize, runs: usize) {
        let action = Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
        self.apply(Event::Opened(Request {
            operation: OperationId(number as u128),
            key: ActionKey { instance: "".into(), action },
            priority: 0,
            run: format!("run-{}", number % runs).into(),
            principal: "".into(),
            lookup: true,
            origin: Arc::new(Origin::default()),
        }));
        let spec = Spec {
            needs: Needs::default(),
            kind: Some(number as u64),
            folders: Arc::new([]),
            timeout: Duration::from_secs(600),
            mergeable: true,
        };
        while let Some(task) = self.checks.pop() {
            self.apply(Event::Checked { task, verdict: Checked::Ready(spec.clone()) });
        }
    }

    fn answer(&mut self, worker: WorkerId, lease: LeaseId) {
        let result = Some(reapi::ActionResult::default());
        let response = Arc::new(reapi::ExecuteResponse { result, ..reapi::ExecuteResponse::default() });
        let saying = Saying::Outcome { lease, report: Report::Final(response), memory_bytes: 0 };
        let session = SessionId(u64::try_from(worker.0).unwrap_or_default());
        self.apply(Event::Said { worker, session, saying });
        while let Some((task, response)) = self.publications.pop() {
            self.apply(Event::Published { task, result: Ok(response) });
        }
    }

    fn tick(&mut self) {
        self.apply(Event::Tick);
    }
}
