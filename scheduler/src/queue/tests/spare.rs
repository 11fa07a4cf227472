//! Second runs: of stragglers, of what has failed, and of a sample.

use castwork_proto::reapi::{ActionResult, OutputFile};

use super::*;

fn of_a_kind() -> Spec {
    Spec { kind: Some(1), ..spec(&[]) }
}

/// Two workers of one slot, and an action of a known kind, which takes ten seconds, at the first of them.
fn straggling() -> (Bench, OperationId) {
    let mut bench = Bench::new();
    bench.attach(1, 1, &[]);
    bench.open("before", |_| ());
    bench.check_as(&of_a_kind());
    bench.pass(SECOND * 10);
    bench.finish_newest();
    let operation = bench.open("a", |_| ());
    bench.check_as(&of_a_kind());
    bench.attach(2, 1, &[]);
    (bench, operation)
}

/// Lets time pass with everybody alive.
fn live(bench: &mut Bench, seconds: u32) {
    for _ in 0..seconds {
        for worker in bench.sessions.keys().copied().collect::<Vec<_>>() {
            bench.say(worker, Saying::Heartbeat);
        }
        bench.pass(SECOND);
    }
}

fn outcome(lease: LeaseId, response: Response) -> Saying {
    Saying::Outcome { lease, report: Report::Final(response), memory_bytes: 0 }
}

#[test]
fn a_straggler_is_given_to_a_second_worker_and_the_first_answer_counts() {
    let (mut bench, operation) = straggling();
    live(&mut bench, 29);
    assert_eq!(bench.granted.len(), 2, "three times as long as expected is thirty seconds");
    live(&mut bench, 1);
    let (second, lease, action) = bench.granted[2].clone();
    assert_eq!((second, action), (WorkerId(2), key("a")));
    bench.say(second, outcome(lease, response()));
    bench.publish();
    assert!(bench.is_answered(operation));
    assert_eq!(bench.revoked, [bench.granted[1].1], "nobody waits for the first any more");
    assert_eq!((bench.queue.tally().hedges, bench.queue.tally().hedges_first), (1, 1));
}

#[test]
fn a_second_worker_that_cannot_run_the_action_does_not_end_the_first_that_can() {
    let (mut bench, operation) = straggling();
    live(&mut bench, 30);
    let (first, second) = (bench.granted[1].clone(), bench.granted[2].clone());
    let refusal = || Arc::new(reapi::ExecuteResponse::default());
    bench.say(second.0, outcome(second.1, refusal()));
    assert_eq!((bench.kept.last(), bench.revoked.len(), bench.publications.len()), (Some(&second.1), 0, 0));
    bench.say(first.0, outcome(first.1, response()));
    bench.publish();
    assert!(bench.is_answered(operation));
    assert_eq!(bench.queue.tally().hedges_first, 0);
}

#[test]
fn what_the_last_attempt_says_counts_whatever_it_is() {
    let (mut bench, operation) = straggling();
    live(&mut bench, 30);
    for (worker, lease, _) in bench.granted.clone().into_iter().skip(1) {
        assert!(!bench.is_answered(operation));
        bench.say(worker, outcome(lease, Arc::new(reapi::ExecuteResponse::default())));
        bench.publish();
    }
    assert!(bench.is_answered(operation));
}

#[test]
fn a_worker_whose_actions_others_end_sooner_again_and_again_is_left_out() {
    let (mut bench, _) = straggling();
    for round in 0..3 {
        let (slow, first, _) = bench.granted.last().unwrap().clone();
        assert_eq!(slow, WorkerId(1), "round {round}");
        live(&mut bench, 40);
        let (fast, lease, _) = bench.granted.last().unwrap().clone();
        assert_eq!(fast, WorkerId(2), "round {round}");
        bench.say(fast, outcome(lease, response()));
        bench.publish();
        assert!(bench.revoked.contains(&first));
        // The one that was not first is freest, as it was attached first.
        bench.open(&format!("round {round}"), |_| ());
        bench.check_as(&of_a_kind());
    }
    assert_eq!(bench.granted.last().unwrap().0, WorkerId(2));
    let view = bench.queue.view();
    let remark = view.workers[0].remark.as_deref().unwrap();
    assert!(remark.starts_with("3 of its actions were ended sooner by others that began later"), "{remark}");
}

#[test]
fn what_is_of_no_known_kind_or_must_not_be_cached_is_no_straggler() {
    let mut bench = Bench::new();
    bench.attach(1, 2, &[]);
    bench.submit("unknown", |_| ());
    bench.open("alone", |_| ());
    bench.check_as(&Spec { mergeable: false, ..of_a_kind() });
    bench.attach(2, 2, &[]);
    live(&mut bench, 600);
    assert_eq!(bench.granted.len(), 2);
}

#[test]
fn a_second_attempt_gives_way_to_what_waits() {
    let (mut bench, _) = straggling();
    live(&mut bench, 30);
    let second = bench.granted[2].1;
    bench.submit("b", |_| ());
    assert_eq!(bench.revoked, [second]);
    assert_eq!(bench.granted[3].2, key("b"));
}

#[test]
fn a_second_attempt_goes_on_if_the_first_is_lost() {
    let (mut bench, operation) = straggling();
    live(&mut bench, 30);
    let (second, lease, _) = bench.granted[2].clone();
    bench.detach(WorkerId(1));
    bench.pass(SECOND * 5);
    assert_eq!(bench.granted.len(), 3, "it is with somebody already");
    bench.say(second, outcome(lease, response()));
    bench.publish();
    assert!(bench.is_answered(operation));
}

#[test]
fn what_fails_where_it_has_failed_waits_longer_each_time() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    bench.submit("a", |_| ());
    for (least, most) in [(500, 1_500), (1_000, 3_000), (2_000, 6_000)] {
        let lease = bench.granted.last().unwrap().1;
        let report = Report::Retry("the disk is full".to_owned());
        bench.say(worker, Saying::Outcome { lease, report, memory_bytes: 0 });
        let (before, began) = (bench.granted.len(), bench.now);
        while bench.granted.len() == before {
            bench.pass(Duration::from_millis(100));
            assert!(
                bench.now.saturating_sub(began) <= Duration::from_millis(most + 100),
                "it waits for too long"
            );
        }
        assert!(bench.now.saturating_sub(began) >= Duration::from_millis(least), "it came back at once");
    }
}

#[test]
fn who_cancels_what_waits_to_be_tried_again_is_answered_at_once() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let operation = bench.submit("a", |_| ());
    let lease = bench.granted[0].1;
    let report = Report::Retry("no".to_owned());
    bench.say(worker, Saying::Outcome { lease, report, memory_bytes: 0 });
    assert_eq!(bench.queue.counts().queued, 1);
    bench.apply(Event::Cancelled(operation));
    assert_eq!(*bench.refusal(operation), Refusal::Cancelled);
    bench.pass(SECOND * 10);
    assert_eq!(bench.granted.len(), 1);
}

/// A result with one output, which is that.
fn made(output: &str) -> Response {
    let file = OutputFile {
        path: "a.o".to_owned(),
        digest: Some(Digest::of(DigestFunction::Sha256, output.as_bytes()).to_proto()),
        ..OutputFile::default()
    };
    let result = ActionResult { output_files: vec![file], ..ActionResult::default() };
    Arc::new(reapi::ExecuteResponse { result: Some(result), ..reapi::ExecuteResponse::default() })
}

/// Workers of one slot each that make of an action what is listed; runs one action and everything that follows.
fn sampled(outputs: &[&str]) -> Bench {
    let mut bench = Bench::with(Limits { recheck_per_million: 1_000_000, ..Limits::default() });
    for number in 0..outputs.len() {
        bench.attach(number as u64, 1, &[]);
    }
    bench.submit("a", |_| ());
    let mut seen = 0;
    while seen < bench.granted.len() {
        let (worker, lease, _) = bench.granted[seen].clone();
        // One worker alone is asked twice, and says something else the second time.
        let output = if outputs.len() == 1 { format!("{}{seen}", outputs[0]) } else { String::new() };
        let output = if output.is_empty() { outputs[worker.0 as usize] } else { &output };
        bench.say(worker, outcome(lease, made(output)));
        bench.publish();
        live(&mut bench, 2);
        seen += 1;
    }
    bench
}

fn verdicts(bench: &Bench) -> Vec<Verdict> {
    bench.queue.findings().map(|finding| finding.verdict.clone()).collect()
}

#[test]
fn a_result_that_another_worker_gets_too_is_no_finding() {
    let bench = sampled(&["x", "x", "x"]);
    assert_eq!(verdicts(&bench), []);
    assert_eq!((bench.granted.len(), bench.queue.tally().rechecks.same), (2, 1));
}

#[test]
fn a_worker_whose_result_two_others_do_not_get_is_suspected_and_its_result_replaced() {
    let bench = sampled(&["lie", "x", "x"]);
    assert_eq!(verdicts(&bench), [Verdict::Suspect("w0".into())]);
    assert_eq!(bench.corrected, [key("a")]);
    let finding = bench.queue.findings().next().unwrap();
    assert_eq!((&finding.key, &finding.differences[..]), (&key("a"), &["a.o".to_owned()][..]));
    assert_eq!(verdicts(&sampled(&["x", "lie", "x"])), [Verdict::Suspect("w1".into())]);
}

#[test]
fn an_action_that_has_another_result_each_time_is_told_from_a_worker_that_lies() {
    assert_eq!(verdicts(&sampled(&["x", "y", "z"])), [Verdict::NotRepeatable]);
    assert_eq!(verdicts(&sampled(&["x"])), [Verdict::NotRepeatable], "also with one worker");
    let names = ["w0", "w1"].map(Arc::from);
    assert_eq!(verdicts(&sampled(&["x", "y"])), [Verdict::Disagreement(names)]);
}

#[test]
fn what_another_worker_says_of_a_run_for_comparison_counts_for_nothing() {
    let mut bench = Bench::with(Limits { recheck_per_million: 1_000_000, ..Limits::default() });
    let [first, second, stranger] = [1, 2, 3].map(|number| bench.attach(number, 1, &[]));
    bench.submit("a", |_| ());
    let (holder, lease, _) = bench.granted[0].clone();
    assert_eq!(holder, first);
    bench.say(first, outcome(lease, made("x")));
    bench.publish();
    live(&mut bench, 1);
    let (holder, lease, _) = bench.granted[1].clone();
    let other = if holder == second { stranger } else { second };
    bench.say(other, outcome(lease, made("lie")));
    live(&mut bench, 1);
    assert_eq!((bench.granted.len(), bench.queue.tally().rechecks), (2, RecheckTally::default()));
    bench.say(holder, outcome(lease, made("x")));
    assert_eq!(bench.queue.tally().rechecks.same, 1);
}

/// A farm of a good worker and of one that was left out, had its time, and has just been given what is to be compared.
fn on_trial() -> (Bench, WorkerId) {
    let mut bench = Bench::with(Limits { recheck_per_million: 1_000_000, ..Limits::default() });
    bench.attach(1, 2, &[]);
    let doubtful = bench.attach(2, 1, &[("kind", "doubtful")]);
    for action in ["x", "y", "z"] {
        let operation = bench.open(action, |_| ());
        bench.check(&[("kind", "doubtful")], true);
        let (_, lease, _) = bench.granted.last().unwrap().clone();
        let report = Report::Retry("its disk fails".to_owned());
        bench.say(doubtful, Saying::Outcome { lease, report, memory_bytes: 0 });
        bench.apply(Event::Cancelled(operation));
    }
    assert!(remark(&bench).is_some_and(|remark| remark.contains("failed 3 actions in a row")));
    live(&mut bench, 40);
    bench.submit("a", |_| ());
    let (holder, lease, _) = bench.granted.last().unwrap().clone();
    assert_eq!(holder, WorkerId(1));
    bench.say(holder, outcome(lease, made("x")));
    bench.publish();
    live(&mut bench, 1);
    let (holder, _, action) = bench.granted.last().unwrap().clone();
    assert_eq!((holder, action), (doubtful, key("a")));
    (bench, doubtful)
}

/// What is said of the second worker.
fn remark(bench: &Bench) -> Option<String> {
    bench.queue.view().workers[1].remark.clone()
}

#[test]
fn a_worker_that_is_tried_again_is_tried_with_what_nobody_waits_for() {
    let (mut bench, doubtful) = on_trial();
    let lease = bench.granted.last().unwrap().1;
    bench.say(doubtful, outcome(lease, made("x")));
    assert_eq!((bench.queue.tally().rechecks.same, remark(&bench)), (1, None), "and is trusted");
}

#[test]
fn a_worker_that_fails_its_trial_is_left_out_again_and_the_comparison_is_made_later() {
    let (mut bench, doubtful) = on_trial();
    let lease = bench.granted.last().unwrap().1;
    let report = Report::Retry("its disk fails still".to_owned());
    bench.say(doubtful, Saying::Outcome { lease, report, memory_bytes: 0 });
    let said = remark(&bench).unwrap();
    assert!(said.contains("failed when it was tried again, because its disk fails still"), "{said}");
    let before = bench.granted.len();
    // The other can't tell more than whether it gets the same result twice.
    live(&mut bench, 2);
    let (holder, lease, action) = bench.granted[before].clone();
    assert_eq!((holder, action, bench.granted.len()), (WorkerId(1), key("a"), before + 1));
    bench.say(holder, outcome(lease, made("x")));
    assert_eq!(bench.queue.tally().rechecks.same, 1);
    live(&mut bench, 5);
    assert_eq!(bench.granted.len(), before + 1, "there is nothing left to be compared");
}

#[test]
fn what_workers_can_not_run_again_is_let_be_after_some_tries() {
    let mut bench = Bench::with(Limits { recheck_per_million: 1_000_000, ..Limits::default() });
    bench.attach(1, 1, &[]);
    bench.attach(2, 1, &[]);
    bench.submit("a", |_| ());
    let (holder, lease, _) = bench.granted[0].clone();
    bench.say(holder, outcome(lease, made("x")));
    bench.publish();
    for _ in 0..10 {
        live(&mut bench, 1);
        let Some((holder, lease, _)) = bench.granted.get(1..).and_then(|later| later.last().cloned()) else {
            continue;
        };
        let report = Report::Retry("no".to_owned());
        bench.say(holder, Saying::Outcome { lease, report, memory_bytes: 0 });
    }
    assert_eq!(bench.granted.len(), 1 + 3);
    assert_eq!(remark(&bench), None, "one action says nothing of a worker that is trusted");
}
