//! What the queue promises, one event at a time.

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
    sessions: BTreeMap<WorkerId, SessionId>,
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
            sessions: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        for effect in self.queue.apply(self.now, event) {
            match effect {
                Effect::Finish(operation, ending) => {
                    assert_eq!(self.ended.insert(operation, ending), None, "ended twice");
                }
                Effect::Grant { worker, lease, key, .. } => self.granted.push((worker, lease, key)),
                Effect::Revoke(_, lease, _) => self.revoked.push(lease),
                Effect::Keep(_, lease) => self.kept.push(lease),
                Effect::Check { task, lookup, .. } => self.checks.push((task, lookup)),
                Effect::Publish { task, response, .. } => self.publications.push((task, response)),
                _ => {}
            }
        }
        self.queue.audit().unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.apply(Event::Tick);
    }

    /// Opens an operation and leaves its check undone.
    fn open(&mut self, action: &str, change: impl FnOnce(&mut Request)) -> OperationId {
        self.made += 1;
        let operation = OperationId(self.made.into());
        let mut request = Request {
            operation,
            key: key(action),
            priority: 0,
            run: "".into(),
            lookup: true,
            origin: Arc::default(),
        };
        change(&mut request);
        self.apply(Event::Opened(request));
        operation
    }

    /// Ends all checks that are undone: the actions are fit, and require those properties.
    fn check(&mut self, required: &[(&str, &str)], mergeable: bool) {
        for (task, _) in std::mem::take(&mut self.checks) {
            let spec = Spec { requirements: properties(required), timeout: SECOND * 60, mergeable };
            self.apply(Event::Checked { task, verdict: Checked::Ready(spec) });
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
        self.made += 1;
        let (worker, session) = (WorkerId(number.into()), SessionId(self.made));
        let offer = Offer { name: format!("w{number}").into(), properties: properties(offered), slots };
        self.sessions.insert(worker, session);
        self.apply(Event::Attached { worker, session, offer, held });
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

    /// Has the worker of the newest lease end it well.
    fn finish_newest(&mut self) {
        let (worker, lease, _) = self.granted.last().unwrap().clone();
        self.say(worker, Saying::Outcome { lease, report: Report::Final(response()) });
        self.publish();
    }

    fn publish(&mut self) {
        for (task, response) in std::mem::take(&mut self.publications) {
            self.apply(Event::Published { task, result: Ok(response) });
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

fn response() -> Response {
    Arc::new(reapi::ExecuteResponse::default())
}

fn held(lease: LeaseId, action: &str) -> Held {
    Held { lease, key: key(action), origin: Arc::default() }
}

#[test]
fn equal_requests_are_checked_and_run_once() {
    let mut bench = Bench::new();
    bench.attach(1, 2, &[]);
    let first = bench.open("a", |_| ());
    let second = bench.open("a", |_| ());
    assert_eq!(bench.checks.len(), 1);
    bench.check(&[], true);
    let third = bench.submit("a", |_| ());
    assert_eq!(bench.granted.len(), 1);
    bench.finish_newest();
    assert!([first, second, third].into_iter().all(|operation| bench.is_answered(operation)));
}

#[test]
fn requests_that_turn_out_not_to_be_shareable_get_a_run_each() {
    let mut bench = Bench::new();
    bench.attach(1, 9, &[]);
    for _ in 0..3 {
        bench.open("a", |_| ());
    }
    bench.check(&[], false);
    assert_eq!(bench.granted.len(), 3);
}

#[test]
fn who_skips_the_lookup_does_not_share_what_may_come_from_the_cache() {
    let mut bench = Bench::new();
    bench.open("a", |_| ());
    bench.open("a", |request| request.lookup = false);
    let lookups: Vec<_> = bench.checks.iter().map(|(_, lookup)| *lookup).collect();
    assert_eq!(lookups, [true, false]);
    bench.check(&[], true);
    assert_eq!(bench.queue.counts().tasks, 1, "once both are to be run, they are one");
}

#[test]
fn who_skips_the_lookup_does_not_share_a_result_that_others_may_see_already() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    let (worker, lease, _) = bench.granted[0].clone();
    bench.say(worker, Saying::Outcome { lease, report: Report::Final(response()) });
    bench.open("a", |_| ());
    assert!(bench.checks.is_empty(), "who takes any result shares it");
    bench.open("a", |request| request.lookup = false);
    assert_eq!(bench.checks.len(), 1);
}

#[test]
fn lower_priorities_come_first_and_then_the_older() {
    let mut bench = Bench::new();
    for (action, priority) in [("a", 0), ("b", 1), ("c", -1), ("d", 0)] {
        bench.submit(action, |request| request.priority = priority);
    }
    bench.attach(1, 9, &[]);
    assert_eq!(bench.order(), ["c", "a", "d", "b"].map(key));
}

#[test]
fn somebody_urgent_who_joins_hastens_an_action() {
    let mut bench = Bench::new();
    bench.submit("a", |_| ());
    bench.submit("b", |_| ());
    bench.submit("b", |request| request.priority = -1);
    bench.attach(1, 9, &[]);
    assert_eq!(bench.order(), ["b", "a"].map(key));
}

#[test]
fn runs_take_turns_however_much_each_has_queued() {
    let mut bench = Bench::new();
    for action in ["a1", "a2", "a3", "a4"] {
        bench.submit(action, |request| request.run = "a".into());
    }
    for action in ["b1", "b2"] {
        bench.submit(action, |request| request.run = "b".into());
    }
    bench.attach(1, 9, &[]);
    assert_eq!(bench.order(), ["a1", "b1", "a2", "b2", "a3", "a4"].map(key));
}

#[test]
fn a_run_with_fewer_actions_at_workers_comes_first() {
    let mut bench = Bench::new();
    bench.attach(1, 2, &[]);
    for action in ["a1", "a2", "a3"] {
        bench.submit(action, |request| request.run = "a".into());
    }
    bench.submit("b1", |request| request.run = "b".into());
    bench.finish_newest();
    assert_eq!(bench.order().last(), Some(&key("b1")));
}

#[test]
fn actions_go_to_the_worker_with_the_most_free_slots_that_fits() {
    let mut bench = Bench::new();
    bench.attach(1, 9, &[("ISA", "arm-a64")]);
    let small = bench.attach(2, 1, &[("ISA", "x86-64")]);
    let large = bench.attach(3, 3, &[("ISA", "x86-64")]);
    for action in ["a", "b", "c", "d", "e"] {
        bench.open(action, |_| ());
        bench.check(&[("ISA", "x86-64")], true);
    }
    let workers: Vec<_> = bench.granted.iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(workers, [large, large, large, small], "and the fifth waits");
}

#[test]
fn nobody_is_refused_before_workers_had_time_to_come() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[("ISA", "x86-64")]);
    let operation = bench.open("a", |_| ());
    bench.check(&[("ISA", "arm-a64")], true);
    bench.pass(SECOND * 9);
    assert!(!bench.ended.contains_key(&operation));
    bench.pass(SECOND);
    let expected = "no worker offers ISA=arm-a64; nearest is `w1`, which has ISA=x86-64";
    assert_eq!(bench.refusal(operation).to_string(), expected);
    let later = bench.open("a", |_| ());
    bench.check(&[("ISA", "arm-a64")], true);
    assert_eq!(bench.refusal(later).to_string(), expected, "and then at once");
}

#[test]
fn without_any_worker_an_action_waits_the_grace_whenever_it_comes() {
    let mut bench = Bench::new();
    bench.pass(SECOND * 3_600);
    let operation = bench.submit("a", |_| ());
    bench.pass(SECOND * 9);
    assert!(!bench.ended.contains_key(&operation));
    bench.pass(SECOND);
    assert_eq!(*bench.refusal(operation), Refusal::NoWorker);
}

#[test]
fn what_a_lost_worker_offered_counts_for_a_while() {
    let mut bench = Bench::new();
    bench.now = SECOND * 3_600;
    bench.attach(1, 1, &[("ISA", "x86-64")]);
    let lost = bench.attach(2, 1, &[("ISA", "arm-a64")]);
    bench.detach(lost);
    bench.pass(SECOND * 5);
    let operation = bench.open("a", |_| ());
    bench.check(&[("ISA", "arm-a64")], true);
    bench.pass(SECOND * 59);
    assert!(!bench.ended.contains_key(&operation));
    bench.say(WorkerId(1), Saying::Heartbeat);
    bench.pass(SECOND);
    assert!(matches!(bench.refusal(operation), Refusal::NoMatch(_)));
}

#[test]
fn a_worker_has_a_moment_to_reconnect_before_others_get_its_actions() {
    let mut bench = Bench::new();
    let lost = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    bench.attach(2, 1, &[]);
    bench.detach(lost);
    bench.pass(SECOND * 4);
    assert_eq!(bench.granted.len(), 1);
    bench.pass(SECOND);
    assert_eq!(bench.granted.len(), 2);
    assert_eq!(bench.granted[1].0, WorkerId(2));
}

#[test]
fn a_silent_worker_is_lost_as_well() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    bench.pass(SECOND * 14);
    bench.attach(2, 1, &[]);
    bench.pass(SECOND * 2);
    bench.pass(SECOND * 5);
    assert_eq!(bench.granted.last().unwrap().0, WorkerId(2));
}

#[test]
fn a_late_outcome_ends_the_action_and_the_newer_lease() {
    let mut bench = Bench::new();
    let first = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    let late = bench.granted[0].1;
    bench.attach(2, 1, &[]);
    bench.detach(first);
    bench.pass(SECOND * 5);
    let newer = bench.granted[1].1;
    bench.attach_with(1, 1, &[], vec![held(late, "a")]);
    assert_eq!(bench.revoked, [late], "it runs elsewhere, so it need not go on");
    bench.say(first, Saying::Outcome { lease: late, report: Report::Final(response()) });
    bench.publish();
    assert!(bench.is_answered(operation));
    assert_eq!(bench.revoked, [late, newer]);
    assert_eq!(bench.kept, [late]);
}

#[test]
fn attempts_are_counted_and_bounded() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    for _ in 0..4 {
        let lease = bench.granted.last().unwrap().1;
        bench.say(worker, Saying::Outcome { lease, report: Report::Retry("the disk is full".to_owned()) });
    }
    assert_eq!(bench.granted.len(), 4);
    assert_eq!(bench.refusal(operation).to_string(), "given up after 4 attempts: the disk is full");
}

#[test]
fn a_failed_action_goes_elsewhere_while_there_is_an_elsewhere() {
    let mut bench = Bench::new();
    let bad = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    let good = bench.attach(2, 1, &[]);
    bench.submit("b", |_| ());
    let lease = bench.granted[0].1;
    bench.say(bad, Saying::Outcome { lease, report: Report::Retry("no".to_owned()) });
    assert_eq!(bench.granted.len(), 2, "the other is busy, but it will have time");
    bench.finish_newest();
    assert_eq!(bench.granted[2].0, good);
}

#[test]
fn an_operation_that_nobody_waits_for_goes_on_for_a_while() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    bench.apply(Event::WaiterLeft(operation));
    for _ in 0..119 {
        bench.say(worker, Saying::Heartbeat);
        bench.pass(SECOND);
    }
    bench.apply(Event::WaiterJoined(operation));
    bench.say(worker, Saying::Heartbeat);
    bench.pass(SECOND * 10);
    assert!(bench.ended.is_empty(), "somebody came back");
    bench.apply(Event::WaiterLeft(operation));
    bench.pass(SECOND * 120);
    assert_eq!(*bench.refusal(operation), Refusal::Abandoned);
}

#[test]
fn a_cancelled_action_is_taken_from_its_worker_and_its_slot_is_free() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    let first = bench.submit("a", |_| ());
    bench.submit("b", |_| ());
    bench.apply(Event::Cancelled(first));
    assert_eq!(*bench.refusal(first), Refusal::Cancelled);
    assert_eq!(bench.revoked, [bench.granted[0].1]);
    assert_eq!(bench.order(), ["a", "b"].map(key));
    bench.apply(Event::Cancelled(first));
}

#[test]
fn a_draining_worker_finishes_what_it_runs_and_is_no_reason_to_refuse() {
    let mut bench = Bench::new();
    bench.now = SECOND * 3_600;
    let worker = bench.attach(1, 2, &[]);
    let running = bench.submit("a", |_| ());
    bench.say(worker, Saying::Draining);
    let waiting = bench.submit("b", |_| ());
    bench.finish_newest();
    assert!(bench.is_answered(running));
    bench.detach(worker);
    bench.pass(SECOND * 59);
    assert!(!bench.ended.contains_key(&waiting), "its successor may be on its way");
    bench.attach(2, 1, &[]);
    assert_eq!(bench.order(), ["a", "b"].map(key));
}

#[test]
fn a_lease_of_an_earlier_life_is_adopted_and_joined() {
    let mut bench = Bench::new();
    let foreign = LeaseId::new(6, 1);
    let worker = bench.attach_with(1, 1, &[], vec![held(foreign, "a")]);
    let operation = bench.open("a", |_| ());
    bench.check(&[], true);
    assert!(bench.granted.is_empty());
    bench.say(worker, Saying::Outcome { lease: foreign, report: Report::Final(response()) });
    bench.publish();
    assert!(bench.is_answered(operation));
    assert_eq!(bench.kept, [foreign]);
}

#[test]
fn an_adopted_lease_that_nobody_asks_for_is_cancelled_after_a_while() {
    let mut bench = Bench::new();
    let foreign = LeaseId::new(6, 1);
    let worker = bench.attach_with(1, 1, &[], vec![held(foreign, "a")]);
    bench.now += SECOND * 119;
    bench.say(worker, Saying::Heartbeat);
    bench.pass(Duration::ZERO);
    assert!(bench.revoked.is_empty());
    bench.pass(SECOND);
    assert_eq!(bench.revoked, [foreign]);
}

#[test]
fn a_lease_of_our_own_that_has_ended_is_not_taken_back() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    bench.finish_newest();
    let ended = bench.granted[0].1;
    bench.attach_with(1, 1, &[], vec![held(ended, "a")]);
    assert_eq!(bench.revoked, [ended]);
}

#[test]
fn a_command_that_outlives_its_timeout_by_far_is_tried_elsewhere() {
    let mut bench = Bench::new();
    let hung = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    let lease = bench.granted[0].1;
    bench.say(hung, Saying::Progress { lease, commanding: true });
    let other = bench.attach(2, 1, &[]);
    for _ in 0..120 {
        assert_eq!(bench.granted.len(), 1);
        bench.say(hung, Saying::Heartbeat);
        bench.say(other, Saying::Heartbeat);
        bench.pass(SECOND);
    }
    assert_eq!((bench.revoked.clone(), bench.granted[1].0), (vec![lease], other));
}

#[test]
fn every_limit_is_held_and_named() {
    let limits =
        Limits { queued_max: 1, classes_max: 1, operations_max: 3, workers_max: 1, ..Limits::default() };
    let mut bench = Bench::with(limits);
    bench.submit("a", |_| ());
    let second = bench.submit("b", |_| ());
    assert_eq!(bench.refusal(second).to_string(), "no more than 1 actions in the queue");
    bench.submit("a", |_| ());
    bench.submit("a", |_| ());
    let request = Request {
        operation: OperationId(99),
        key: key("a"),
        priority: 0,
        run: "".into(),
        lookup: true,
        origin: Arc::default(),
    };
    let effects = bench.queue.apply(bench.now, Event::Opened(request));
    assert!(
        matches!(effects[..], [Effect::Refuse(OperationId(99), Refusal::Full { max: 3, .. })]),
        "{effects:?}"
    );
    bench.attach(1, 1, &[]);
    let offer = Offer { name: "w2".into(), properties: properties(&[]), slots: 1 };
    let event = Event::Attached { worker: WorkerId(2), session: SessionId(99), offer, held: Vec::new() };
    let effects = bench.queue.apply(bench.now, event);
    assert!(matches!(effects[..], [Effect::Disconnect(WorkerId(2), _, Refusal::Full { max: 1, .. })]));
}

#[test]
fn ended_operations_are_forgotten_when_they_are_old_or_too_large_together() {
    let limits = Limits { finished_bytes_max: 100, ..Limits::default() };
    let mut queue = Queue::new(limits, 1);
    let mut forgotten = Vec::new();
    for number in 1..=3_u128 {
        let request = Request {
            operation: OperationId(number),
            key: key(&number.to_string()),
            priority: 0,
            run: "".into(),
            lookup: true,
            origin: Arc::default(),
        };
        let effects = queue.apply(SECOND, Event::Opened(request));
        let task = effects.iter().find_map(|effect| match effect {
            Effect::Check { task, .. } => Some(*task),
            _ => None,
        });
        let response = reapi::ExecuteResponse { message: "x".repeat(40), ..Default::default() };
        let verdict = Checked::Answered(Arc::new(response));
        let effects = queue.apply(SECOND, Event::Checked { task: task.unwrap(), verdict });
        forgotten.extend(effects.into_iter().filter(|effect| matches!(effect, Effect::Forget(_))));
    }
    assert_eq!(forgotten, [Effect::Forget(OperationId(1))]);
    let effects = queue.apply(SECOND * 301, Event::Tick);
    assert_eq!(effects, [Effect::Forget(OperationId(2)), Effect::Forget(OperationId(3))]);
}
