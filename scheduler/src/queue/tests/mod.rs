//! What the queue promises, one event at a time.

mod clients;
mod matching;
mod operators;
mod shares;
mod spare;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use castwork_cas::{ActionKey, Digest, DigestFunction};
use castwork_proto::reapi;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A queue, and what it wanted so far.
struct Bench {
    queue: Queue,
    now: Moment,
    made: u64,
    /// How each operation ended.
    ended: BTreeMap<OperationId, Ending>,
    /// The leases granted, in order, and the actions they are for.
    granted: Vec<(WorkerId, LeaseId, ActionKey)>,
    revoked: Vec<LeaseId>,
    kept: Vec<LeaseId>,
    checks: Vec<(TaskId, bool)>,
    publications: Vec<(TaskId, Response)>,
    /// Actions whose results were replaced.
    corrected: Vec<ActionKey>,
    shared: Vec<OperationId>,
    sessions: BTreeMap<WorkerId, SessionId>,
    /// How workers are that attach.
    readiness: Readiness,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            queue: Queue::new(limits, 7),
            now: Moment::ZERO,
            made: 0,
            ended: BTreeMap::new(),
            granted: Vec::new(),
            revoked: Vec::new(),
            kept: Vec::new(),
            checks: Vec::new(),
            publications: Vec::new(),
            corrected: Vec::new(),
            shared: Vec::new(),
            sessions: BTreeMap::new(),
            readiness: Readiness::default(),
        }
    }

    fn apply(&mut self, event: Event) {
        self.apply_unaudited(event);
        self.queue.audit().unwrap();
    }

    /// For tests with so many actions that looking at each after each event takes too long.
    fn apply_unaudited(&mut self, event: Event) {
        for effect in self.queue.apply(self.now, event) {
            match effect {
                Effect::Finish(operation, ending) => {
                    assert_eq!(self.ended.insert(operation, ending), None, "ended twice");
                }
                Effect::Grant { worker, lease, key, .. } => self.granted.push((worker, lease, key)),
                Effect::Revoke(_, lease, _) => self.revoked.push(lease),
                Effect::Shared(operation) => self.shared.push(operation),
                Effect::Keep(_, lease) => self.kept.push(lease),
                Effect::Check { task, lookup, .. } => self.checks.push((task, lookup)),
                Effect::Correct { key, .. } => self.corrected.push(key),
                Effect::Publish { task, response, .. } => self.publications.push((task, response)),
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.apply(Event::Tick);
    }

    /// Opens an operation and leaves its check undone.
    fn open(&mut self, action: &str, change: impl FnOnce(&mut Request)) -> OperationId {
        let request = self.request(action, change);
        let operation = request.operation;
        self.apply(Event::Opened(request));
        operation
    }

    fn request(&mut self, action: &str, change: impl FnOnce(&mut Request)) -> Request {
        self.made += 1;
        let operation = OperationId(self.made.into());
        let mut request = Request {
            operation,
            key: key(action),
            priority: 0,
            run: "".into(),
            principal: "".into(),
            lookup: true,
            origin: Arc::default(),
        };
        change(&mut request);
        request
    }

    /// Ends all checks that are undone: the actions are fit, and require those properties.
    fn check(&mut self, required: &[(&str, &str)], mergeable: bool) {
        self.check_as(&Spec { mergeable, ..spec(required) });
    }

    fn check_as(&mut self, spec: &Spec) {
        for (task, _) in std::mem::take(&mut self.checks) {
            self.apply(Event::Checked { task, verdict: Checked::Ready(spec.clone()) });
        }
    }

    fn submit_unaudited(&mut self, action: &str, change: impl FnOnce(&mut Request)) {
        let request = self.request(action, change);
        self.apply_unaudited(Event::Opened(request));
        for (task, _) in std::mem::take(&mut self.checks) {
            self.apply_unaudited(Event::Checked { task, verdict: Checked::Ready(spec(&[])) });
        }
    }

    /// Has an action that any worker can run get in line.
    fn submit(&mut self, action: &str, change: impl FnOnce(&mut Request)) -> OperationId {
        let operation = self.open(action, change);
        self.check(&[], true);
        operation
    }

    fn attach(&mut self, number: u64, slots: u32, offered: &[(&str, &str)]) -> WorkerId {
        self.attach_with(number, slots, offered, Vec::new())
    }

    fn attach_with(
        &mut self,
        number: u64,
        slots: u32,
        offered: &[(&str, &str)],
        held: Vec<Held>,
    ) -> WorkerId {
        let offer = Offer {
            name: format!("w{number}").into(),
            properties: properties(offered),
            slots,
            ..Offer::default()
        };
        self.attach_as(number, offer, held)
    }

    fn attach_as(&mut self, number: u64, offer: Offer, held: Vec<Held>) -> WorkerId {
        self.made += 1;
        let (worker, session) = (WorkerId(number.into()), SessionId(self.made));
        self.sessions.insert(worker, session);
        self.apply(Event::Attached { worker, session, offer, held, readiness: self.readiness.clone() });
        worker
    }

    fn detach(&mut self, worker: WorkerId) {
        let session = self.sessions[&worker];
        self.apply(Event::Detached { worker, session });
    }

    fn say(&mut self, worker: WorkerId, saying: Saying) {
        let session = self.sessions[&worker];
        self.apply(Event::Said { worker, session, saying });
    }

    fn say_unaudited(&mut self, worker: WorkerId, saying: Saying) {
        let session = self.sessions[&worker];
        self.apply_unaudited(Event::Said { worker, session, saying });
    }

    /// Has the worker of the newest lease end it well.
    fn finish_newest(&mut self) {
        let (worker, lease, _) = self.granted.last().unwrap().clone();
        self.say(worker, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes: 0 });
        self.publish();
    }

    fn publish(&mut self) {
        for (task, response) in std::mem::take(&mut self.publications) {
            self.apply_unaudited(Event::Published { task, result: Ok(response) });
        }
    }

    /// The actions granted so far, in order.
    fn order(&self) -> Vec<ActionKey> {
        self.granted.iter().map(|(_, _, key)| key.clone()).collect()
    }

    fn refusal(&self, operation: OperationId) -> &Refusal {
        match self.ended.get(&operation) {
            Some(Ending::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn is_answered(&self, operation: OperationId) -> bool {
        matches!(self.ended.get(&operation), Some(Ending::Answered(_)))
    }
}

fn key(action: &str) -> ActionKey {
    ActionKey { instance: "".into(), action: Digest::of(DigestFunction::Sha256, action.as_bytes()) }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    Properties::new(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// What any worker can run that has those properties.
fn spec(required: &[(&str, &str)]) -> Spec {
    Spec {
        needs: Needs { properties: properties(required), ..Needs::default() },
        kind: None,
        folders: Arc::default(),
        timeout: SECOND * 60,
        mergeable: true,
    }
}

fn response() -> Response {
    let result = Some(reapi::ActionResult::default());
    Arc::new(reapi::ExecuteResponse { result, ..Default::default() })
}

fn held(lease: LeaseId, action: &str) -> Held {
    Held { lease, key: key(action), origin: Arc::default() }
}
