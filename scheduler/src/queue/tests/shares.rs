//! Shares: who gets how much, and that nobody gets nothing.

use super::super::simulation::Broken;
use super::*;

/// Actions that each take `each`, from the runs of `queued`, at `slots` slots. Returns when each run's last one
/// ended, in steps of a tenth of a second.
fn play(slots: u32, each: Duration, queued: &[Queued<'_>]) -> BTreeMap<String, Duration> {
    play_with(None, slots, each, queued)
}

/// A run with its priority, how many actions it has, and when they come.
type Queued<'a> = (&'a str, i32, usize, Duration);

fn play_with(
    broken: Option<Broken>,
    slots: u32,
    each: Duration,
    queued: &[Queued<'_>],
) -> BTreeMap<String, Duration> {
    let mut bench = Bench::with(Limits { silence_max: SECOND * 1_000_000, ..Limits::default() });
    bench.queue.broken = broken;
    let worker = bench.attach(1, slots, &[]);
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    let mut run_of = BTreeMap::new();
    let mut ended = BTreeMap::new();
    let mut due: std::collections::VecDeque<(Moment, usize)> = std::collections::VecDeque::new();
    let mut seen = 0;
    let step = Duration::from_millis(100);
    while ended.len() < queued.len() {
        let now = bench.now;
        for (run, priority, count, at) in queued.iter().filter(|(.., at)| *at == now) {
            left.insert((*run).to_owned(), *count);
            for number in 0..*count {
                let name = format!("{run}{number}");
                run_of.insert(key(&name), ((*run).to_owned(), *at));
                bench.submit_unaudited(&name, |request| {
                    request.run = (*run).into();
                    request.priority = *priority;
                });
            }
        }
        while let Some((_, index)) = due.front().filter(|(at, _)| *at <= bench.now).copied() {
            due.pop_front();
            let (_, lease, action) = bench.granted[index].clone();
            let report = Report::Final(response());
            bench.say_unaudited(worker, Saying::Outcome { lease, report, memory_bytes: 0 });
            bench.publish();
            let (run, begun) = &run_of[&action];
            let count = left.get_mut(run).unwrap();
            *count -= 1;
            if *count == 0 {
                ended.insert(run.clone(), bench.now.saturating_sub(*begun));
            }
        }
        due.extend((seen..bench.granted.len()).map(|index| (bench.now + each, index)));
        seen = bench.granted.len();
        bench.now += step;
        if bench.now.subsec_millis() == 0 {
            bench.apply_unaudited(Event::Tick);
        }
    }
    ended
}

#[test]
fn a_run_of_ten_that_comes_behind_ten_thousand_ends_as_soon_as_its_share_allows() {
    let (slots, each) = (16, SECOND * 5);
    let queued = [("large", 0, 10_000, Duration::ZERO), ("small", 0, 10, SECOND * 60)];
    let together = play(slots, each, &queued)["small"];
    let alone = play(slots / 2, each, &[("small", 0, 10, Duration::ZERO)])["small"];
    assert!(together <= alone * 2, "{together:?}, and {alone:?} alone on half the slots");
    let in_order = play_with(Some(Broken::ServesInOrder), slots, each, &queued)["small"];
    assert!(in_order > alone * 2, "a queue that serves in order of arrival would be noticed");
}

#[test]
fn a_hundred_of_priority_is_twice_the_share_even_on_one_slot() {
    let queued = [("urgent", -100, 40, Duration::ZERO), ("usual", 0, 40, Duration::ZERO)];
    let ended = play(1, SECOND, &queued);
    let ratio = ended["urgent"].as_secs_f64() / ended["usual"].as_secs_f64();
    assert!((0.7..0.8).contains(&ratio), "{ended:?}: 60 of 80 were run when the 40 urgent ones were");
}

#[test]
fn however_urgent_others_are_everybody_gets_there() {
    let queued = [("urgent", -600, 2_000, Duration::ZERO), ("patient", 0, 1, Duration::ZERO)];
    let ended = play(1, SECOND, &queued);
    assert!(ended["patient"] < SECOND * 130, "{ended:?}");
}

#[test]
fn instances_and_principals_share_by_weight_whatever_each_has_queued() {
    let weights = Weights { principals: [("ci".to_owned(), 300)].into(), ..Weights::default() };
    let mut bench = Bench::with(Limits { weights, ..Limits::default() });
    for number in 0..40 {
        for principal in ["ci", "people"] {
            bench.submit(&format!("{principal}{number}"), |request| {
                request.principal = principal.into();
                request.run = format!("{principal}{}", number % 7).into();
            });
        }
    }
    bench.attach(1, 40, &[]);
    let ours: Vec<_> = (0..40).map(|number| key(&format!("ci{number}"))).collect();
    assert_eq!(bench.order().iter().filter(|key| ours.contains(key)).count(), 30);
}

#[test]
fn who_comes_anew_begins_where_the_others_are() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    for number in 0..30 {
        bench.submit(&format!("a{number}"), |request| request.run = "a".into());
    }
    for _ in 0..10 {
        bench.pass(SECOND);
        bench.say(worker, Saying::Heartbeat);
        bench.finish_newest();
    }
    for number in 0..20 {
        bench.submit(&format!("b{number}"), |request| request.run = "b".into());
    }
    for _ in 0..10 {
        bench.pass(SECOND);
        bench.say(worker, Saying::Heartbeat);
        bench.finish_newest();
    }
    let later = &bench.order()[11..];
    let theirs: Vec<_> = (0..30).map(|number| key(&format!("a{number}"))).collect();
    assert_eq!(later.iter().filter(|key| theirs.contains(key)).count(), 5, "it takes turns from then on");
}

#[test]
fn within_a_run_the_longest_comes_first_as_far_as_is_known() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    for (kind, seconds) in [(1, 2), (2, 9), (3, 4)] {
        bench.open(&format!("before{kind}"), |_| ());
        bench.check_as(&Spec { kind: Some(kind), ..spec(&[]) });
        bench.pass(SECOND * seconds);
        bench.say(worker, Saying::Heartbeat);
        bench.finish_newest();
    }
    bench.submit("busy", |_| ());
    for kind in 1..=3 {
        bench.open(&format!("again{kind}"), |_| ());
        bench.check_as(&Spec { kind: Some(kind), ..spec(&[]) });
    }
    for _ in 0..4 {
        bench.finish_newest();
    }
    assert_eq!(bench.order()[4..], ["again2", "again3", "again1"].map(key));
}
