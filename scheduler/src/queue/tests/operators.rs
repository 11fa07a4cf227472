//! What operators do, and workers that are left out.

use super::*;

#[test]
fn a_drained_worker_gets_nothing_even_when_it_comes_back_until_that_is_taken_back() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.apply(Event::Drained("w*".into(), "maintenance".into()));
    bench.submit("a", |_| ());
    bench.attach(1, 1, &[]);
    bench.attach(2, 1, &[]);
    assert!(bench.granted.is_empty());
    let view = bench.queue.view();
    assert_eq!(view.workers[1].remark.as_deref(), Some("drained by an operator: maintenance"));
    assert_eq!(&*view.drains[0].pattern, "w*");
    bench.apply(Event::Undrained("w*".into()));
    assert_eq!(bench.order(), ["a"].map(key));
}

#[test]
fn a_worker_is_drained_by_its_id_too() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    bench.apply(Event::Drained(worker.to_string().into(), "".into()));
    bench.submit("a", |_| ());
    assert!(bench.granted.is_empty());
    bench.apply(Event::Undrained("*".into()));
    assert_eq!(bench.granted.len(), 1);
}

#[test]
fn clients_learn_why_an_operator_stopped_their_action() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |request| request.run = "r".into());
    let other = bench.submit("b", |request| request.run = "s".into());
    let found = bench.queue.operations_of(|_, run, _| run == "r");
    assert_eq!(found, [operation]);
    bench.apply(Event::Stopped(operation, "it fills the disk".into()));
    assert_eq!(bench.refusal(operation).to_string(), "stopped by an operator: it fills the disk");
    assert_eq!(bench.revoked.len(), 1);
    bench.finish_newest();
    assert!(bench.is_answered(other));
}

fn fail(bench: &mut Bench, worker: WorkerId) {
    let lease = bench.granted.iter().rev().find(|(at, ..)| *at == worker).unwrap().1;
    let report = Report::Retry("the disk is full".to_owned());
    bench.say(worker, Saying::Outcome { lease, report, memory_bytes: 0 });
}

#[test]
fn a_worker_that_fails_action_after_action_is_left_out_and_tried_again() {
    let mut bench = Bench::new();
    let bad = bench.attach(1, 1, &[]);
    let good = bench.attach(2, 1, &[]);
    // The good one is busy all the time.
    bench.submit("long", |_| ());
    assert_eq!(bench.granted[0].0, bad);
    bench.submit("long too", |_| ());
    for action in ["a", "b"] {
        fail(&mut bench, bad);
        bench.submit(action, |_| ());
    }
    fail(&mut bench, bad);
    let view = bench.queue.view();
    assert!(view.workers[0].state.quarantined);
    let remark = view.workers[0].remark.clone().unwrap();
    assert!(remark.starts_with("failed 3 actions in a row, the last because the disk is full; it is tried"));
    let before = bench.granted.len();
    bench.submit("c", |_| ());
    assert_eq!(bench.granted.len(), before, "it waits for the good one");
    for _ in 0..30 {
        bench.say(good, Saying::Heartbeat);
        bench.say(bad, Saying::Heartbeat);
        bench.pass(SECOND);
    }
    assert_eq!(bench.granted.last().unwrap(), &(bad, bench.granted.last().unwrap().1, key("c")));
    bench.finish_newest();
    assert_eq!(bench.queue.view().workers[0].remark, None, "it has ended one well");
    assert_eq!(bench.queue.tally().quarantines, 1);
}

#[test]
fn the_only_worker_is_never_left_out() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    for action in ["a", "b", "c", "d"] {
        bench.submit(action, |_| ());
        for _ in 0..4 {
            fail(&mut bench, worker);
        }
    }
    assert!(!bench.queue.view().workers[0].state.quarantined);
}

#[test]
fn a_worker_that_dies_of_what_it_is_given_is_left_out() {
    let mut bench = Bench::new();
    bench.attach(2, 1, &[]);
    bench.submit("the other is busy", |_| ());
    for action in ["a", "b", "c"] {
        bench.attach(1, 2, &[]);
        bench.submit(action, |_| ());
    }
    assert!(!bench.queue.view().workers[0].state.quarantined);
    bench.attach(1, 2, &[]);
    let view = bench.queue.view();
    let remark = view.workers[0].remark.clone().unwrap_or_default();
    assert!(
        remark.starts_with("failed 3 actions in a row, the last because the worker came back"),
        "{remark}"
    );
}

#[test]
fn a_worker_is_left_out_still_when_it_comes_back() {
    let mut bench = Bench::new();
    let bad = bench.attach(1, 1, &[]);
    let good = bench.attach(2, 1, &[]);
    bench.submit("long", |_| ());
    bench.submit("long too", |_| ());
    for action in ["a", "b"] {
        fail(&mut bench, bad);
        bench.submit(action, |_| ());
    }
    fail(&mut bench, bad);
    bench.detach(bad);
    bench.say(good, Saying::Heartbeat);
    bench.pass(SECOND * 6);
    assert_eq!(bench.queue.view().workers.len(), 1);
    bench.attach(1, 1, &[]);
    assert!(bench.queue.view().workers[0].state.quarantined);
}

#[test]
fn nobody_is_blamed_for_a_store_that_fails() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 4, &[]);
    bench.attach(2, 1, &[]);
    for action in ["a", "b", "c", "d"] {
        bench.submit(action, |_| ());
    }
    for (at, lease, _) in bench.granted.clone() {
        bench.say(at, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes: 0 });
    }
    for (task, _) in std::mem::take(&mut bench.publications) {
        let result = Err(Unpublished::Failed("the disk fails".to_owned()));
        bench.apply(Event::Published { task, result });
    }
    assert!(bench.queue.view().workers.iter().all(|worker| !worker.state.quarantined));
    assert!(bench.granted.iter().filter(|(at, ..)| *at == worker).count() >= 3, "it had a part in it");
}
