//! Requests: what is shared, in which order, for how long.

use std::sync::Arc;

use super::*;

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
    bench.say(worker, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes: 0 });
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
        principal: "".into(),
        lookup: true,
        origin: Arc::default(),
    };
    let effects = bench.queue.apply(bench.now, Event::Opened(request));
    assert!(
        matches!(effects[..], [Effect::Refuse(OperationId(99), Refusal::Full { max: 3, .. })]),
        "{effects:?}"
    );
    bench.attach(1, 1, &[]);
    let offer = Offer { name: "w2".into(), properties: properties(&[]), slots: 1, ..Offer::default() };
    let event = Event::Attached {
        worker: WorkerId(2),
        session: SessionId(99),
        offer,
        held: Vec::new(),
        readiness: Readiness::default(),
    };
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
            principal: "".into(),
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

#[test]
fn who_got_what_was_run_for_another_is_told_from_that_one() {
    let mut bench = Bench::new();
    bench.attach(1, 4, &[]);
    bench.submit("a", |_| ());
    let second = bench.submit("a", |_| ());
    bench.finish_newest();
    assert_eq!(bench.shared, [second]);
    // What must not be shared is run for each, though they were together at first.
    bench.open("b", |_| ());
    bench.open("b", |_| ());
    bench.check(&[], false);
    for (worker, lease, _) in bench.granted.clone().into_iter().skip(1) {
        bench.say(worker, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes: 0 });
    }
    bench.publish();
    assert_eq!((bench.ended.len(), &bench.shared[..]), (4, &[second][..]));
}
