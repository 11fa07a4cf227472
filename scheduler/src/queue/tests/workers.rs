//! Workers: who gets what, and what becomes of it when they fail.

use super::*;

#[test]
fn a_run_with_fewer_actions_at_workers_comes_first() {
    let mut bench = Bench::new();
    bench.attach(1, 2, &[]);
    for action in ["a1", "a2", "a3"] {
        bench.submit(action, |request| request.run = "a".into());
    }
    bench.submit("b1", |request| request.run = "b".into());
    bench.pass(SECOND);
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
    assert_eq!(workers, [large, large, small, large], "and the fifth waits");
}

#[test]
fn nobody_is_refused_before_workers_had_time_to_come() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[("ISA", "x86-64")]);
    let operation = bench.open("a", |_| ());
    bench.check(&[("ISA", "arm-a64")], true);
    for _ in 0..29 {
        bench.say(WorkerId(1), Saying::Heartbeat);
        bench.pass(SECOND);
        assert!(!bench.ended.contains_key(&operation));
    }
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
    bench.say(first, Saying::Outcome { lease: late, report: Report::Final(response()), memory_bytes: 0 });
    bench.publish();
    assert!(bench.is_answered(operation));
    assert_eq!(bench.revoked, [late, newer]);
    assert_eq!(bench.kept, [late]);
}

#[test]
fn a_late_refusal_ends_neither_the_action_nor_the_newer_lease() {
    let mut bench = Bench::new();
    let first = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    let late = bench.granted[0].1;
    bench.attach(2, 1, &[]);
    bench.detach(first);
    bench.pass(SECOND * 5);
    bench.attach_with(1, 1, &[], vec![held(late, "a")]);
    let refusal = Report::Final(Arc::new(reapi::ExecuteResponse::default()));
    bench.say(first, Saying::Outcome { lease: late, report: refusal, memory_bytes: 0 });
    assert_eq!((&bench.kept[..], &bench.revoked[..]), (&[late][..], &[late][..]));
    bench.finish_newest();
    assert!(bench.is_answered(operation));
}

#[test]
fn attempts_are_counted_and_bounded() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    for _ in 0..4 {
        let lease = bench.granted.last().unwrap().1;
        bench.say(
            worker,
            Saying::Outcome { lease, report: Report::Retry("the disk is full".to_owned()), memory_bytes: 0 },
        );
        bench.pass(SECOND * 7);
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
    bench.say(bad, Saying::Outcome { lease, report: Report::Retry("no".to_owned()), memory_bytes: 0 });
    assert_eq!(bench.granted.len(), 2, "the other is busy, but it will have time");
    bench.finish_newest();
    assert_eq!(bench.granted[2].0, good);
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
    bench.say(worker, Saying::Outcome { lease: foreign, report: Report::Final(response()), memory_bytes: 0 });
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

/// Two workers say that all is well, for so many seconds; then the first has to give back its only lease.
fn is_tried_elsewhere_after(seconds: u32, bench: &mut Bench, hung: WorkerId, lease: LeaseId) {
    let other = bench.attach(2, 1, &[]);
    for _ in 0..seconds {
        assert_eq!(bench.granted.len(), 1);
        bench.say(hung, Saying::Heartbeat);
        bench.say(other, Saying::Heartbeat);
        bench.pass(SECOND);
    }
    assert_eq!((bench.revoked.clone(), bench.granted[1].0), (vec![lease], other));
}

#[test]
fn a_command_that_outlives_its_timeout_by_far_is_tried_elsewhere() {
    let mut bench = Bench::new();
    let hung = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    let lease = bench.granted[0].1;
    bench.say(hung, Saying::Progress { lease, commanding: true });
    is_tried_elsewhere_after(120, &mut bench, hung, lease);
}

#[test]
fn a_worker_that_says_it_is_not_fit_gets_nothing_until_it_is_be_it_the_last() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let say = |bench: &mut Bench, unfit: Option<&str>| {
        let condition = Condition { unfit: unfit.map(Into::into), ..Condition::default() };
        bench.say(worker, Saying::Condition(condition));
    };
    say(&mut bench, Some("its disk fails"));
    bench.submit("a", |_| ());
    assert!(bench.granted.is_empty());
    let view = bench.queue.view();
    let remark = view.workers[0].remark.as_deref().unwrap();
    assert!(view.workers[0].state.quarantined && remark.contains("its disk fails"), "{remark}");
    assert!(view.classes[0].reason.contains("is in quarantine"), "{}", view.classes[0].reason);
    assert_eq!(bench.queue.tally().quarantines, 1);
    say(&mut bench, None);
    assert_eq!(bench.order(), ["a"].map(key));
}

#[test]
fn a_worker_that_comes_back_is_given_nothing_if_it_drains_or_is_not_fit() {
    let mut bench = Bench::new();
    bench.submit("a", |_| ());
    let unfit = Condition { unfit: Some("its disk fails".into()), ..Condition::default() };
    bench.readiness = Readiness { draining: true, condition: None };
    bench.attach(1, 1, &[]);
    bench.readiness = Readiness { draining: false, condition: Some(unfit) };
    bench.attach(2, 1, &[]);
    bench.readiness = Readiness::default();
    bench.attach(2, 1, &[]);
    assert!(bench.granted.is_empty(), "nor if it does not say that it is fit again");
    bench.readiness.condition = Some(Condition::default());
    let fit = bench.attach(2, 1, &[]);
    assert_eq!(bench.granted[0].0, fit);
}

#[test]
fn what_a_worker_that_drains_gives_back_has_lost_no_attempt_and_nobody_is_blamed() {
    let mut bench = Bench::new();
    let going = bench.attach(1, 4, &[]);
    for action in ["a", "b", "c", "d"] {
        bench.submit(action, |_| ());
    }
    bench.attach(2, 4, &[]);
    bench.say(going, Saying::Draining);
    for (_, lease, _) in bench.granted.clone() {
        let report = Report::Retry("the worker is draining".to_owned());
        bench.say(going, Saying::Outcome { lease, report, memory_bytes: 0 });
    }
    assert_eq!(bench.order()[4..], ["a", "b", "c", "d"].map(key));
    assert!(bench.queue.find(|_, _, _| true, 9).iter().all(|task| task.attempts == 0));
    assert!(!bench.queue.view().workers[0].state.quarantined);
}

#[test]
fn what_hangs_at_a_worker_that_is_not_fit_is_tried_elsewhere() {
    let mut bench = Bench::new();
    let hung = bench.attach(1, 1, &[]);
    bench.open("a", |_| ());
    bench.check(&[], false);
    let lease = bench.granted[0].1;
    let unfit = Some("a trial takes more than 60 s".into());
    bench.say(hung, Saying::Condition(Condition { unfit, ..Condition::default() }));
    is_tried_elsewhere_after(300, &mut bench, hung, lease);
}

#[test]
fn a_lease_of_what_must_not_be_shared_goes_on_for_the_request_that_it_was_for() {
    let mut bench = Bench::new();
    let request = bench.request("a", |_| ());
    let operation = request.operation;
    bench.apply(Event::Restored { request, was_running: false });
    bench.check(&[], false);
    let foreign = LeaseId::new(6, 1);
    let worker = bench.attach_with(1, 2, &[], vec![held(foreign, "a")]);
    assert!(bench.granted.is_empty(), "it is not run twice at once");
    bench.say(worker, Saying::Outcome { lease: foreign, report: Report::Final(response()), memory_bytes: 0 });
    bench.publish();
    assert!(bench.is_answered(operation));
}

#[test]
fn a_second_lease_of_what_must_not_be_shared_ends_if_nobody_waits_for_it() {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.open("a", |_| ());
    bench.check(&[], false);
    let foreign = LeaseId::new(6, 1);
    bench.attach_with(2, 1, &[], vec![held(foreign, "a")]);
    assert_eq!(bench.revoked, [foreign]);
}

#[test]
fn a_scheduler_that_stood_still_gives_nobody_up_for_it() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    let lease = bench.granted[0].1;
    bench.attach(2, 1, &[]);
    bench.now += SECOND * 60;
    bench.apply(Event::StoodStill);
    bench.pass(Duration::ZERO);
    bench.detach(worker);
    for _ in 0..25 {
        bench.pass(SECOND);
    }
    bench.attach_with(1, 1, &[], vec![held(lease, "a")]);
    assert!(bench.revoked.is_empty());
    assert_eq!(bench.order(), ["a"].map(key));
    bench.pass(SECOND * 30);
    assert_eq!(bench.granted.len(), 1, "who has said nothing for long enough is not lost at once");
    bench.pass(SECOND * 5);
    assert!(bench.queue.counts().workers.is_empty(), "and lost in the end");
}
