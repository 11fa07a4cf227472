//! Matching: room, preference, warmth, reservation, and why something waits.

use super::*;

fn demand(slots: u32) -> Demand {
    Demand { slots, ..Demand::default() }
}

fn with_demand(demand: Demand) -> Spec {
    Spec { needs: Needs { demand, ..Needs::default() }, ..spec(&[]) }
}

fn amounts(name: &str, amount: u64) -> Amounts {
    Amounts::new([(name.to_owned(), amount)])
}

#[test]
fn actions_take_as_many_slots_as_they_say() {
    let mut bench = Bench::new();
    bench.attach(1, 4, &[]);
    for (action, slots) in [("a", 3), ("b", 2), ("c", 1)] {
        bench.open(action, |_| ());
        bench.check_as(&with_demand(demand(slots)));
    }
    assert_eq!(bench.order(), ["a", "c"].map(key), "two more do not fit beside three");
}

#[test]
fn what_is_consumed_bounds_how_many_run_at_once() {
    let mut bench = Bench::new();
    let offer = Offer { name: "w".into(), slots: 8, others: amounts("licence", 2), ..Offer::default() };
    bench.attach_as(1, offer, Vec::new());
    for action in ["a", "b", "c"] {
        bench.open(action, |_| ());
        bench.check_as(&with_demand(Demand { others: amounts("licence", 1), ..Demand::default() }));
    }
    assert_eq!(bench.granted.len(), 2);
    bench.finish_newest();
    assert_eq!(bench.granted.len(), 3);
}

#[test]
fn a_large_action_gets_its_room_though_small_ones_never_end_coming() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 2, &[]);
    let mut made = 0;
    let mut small = |bench: &mut Bench| {
        made += 1;
        bench.submit(&format!("small{made}"), |request| request.run = "small".into());
    };
    for _ in 0..4 {
        small(&mut bench);
    }
    let large = bench.open("large", |request| request.run = "large".into());
    bench.check_as(&with_demand(demand(2)));
    // One of the small ones ends each second, so there are never two slots free at once by themselves.
    let mut ended = 0;
    while !bench.order().contains(&key("large")) {
        small(&mut bench);
        let (_, lease, _) = bench.granted[ended].clone();
        bench.say(worker, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes: 0 });
        bench.publish();
        ended += 1;
        bench.pass(SECOND);
        assert!(bench.now < SECOND * 30, "the large one starves");
    }
    bench.finish_newest();
    assert!(bench.is_answered(large));
    assert!(bench.granted.len() > ended + 1, "and then the small ones go on");
}

#[test]
fn a_worker_that_has_the_inputs_is_the_better_choice() {
    let mut bench = Bench::new();
    let warm = |folder: u64| Spec { folders: [(folder, 1_000_000)].into(), ..spec(&[]) };
    let first = bench.attach(1, 1, &[]);
    bench.open("a", |_| ());
    bench.check_as(&warm(1));
    let second = bench.attach(2, 3, &[]);
    bench.finish_newest();
    bench.open("b", |_| ());
    bench.check_as(&warm(1));
    bench.open("c", |_| ());
    bench.check_as(&warm(2));
    let workers: Vec<_> = bench.granted.iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(workers, [first, first, second]);
}

#[test]
fn of_a_runs_actions_a_worker_gets_those_whose_inputs_it_has_but_the_first_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    let worker = bench.attach(1, 1, &[]);
    let warm = |folder: u64| Spec { folders: [(folder, 1_000_000)].into(), ..spec(&[]) };
    bench.open("a1", |_| ());
    bench.check_as(&warm(1));
    bench.open("b1", |_| ());
    bench.check_as(&warm(2));
    for action in ["a2", "a3", "a4"] {
        bench.open(action, |_| ());
        bench.check_as(&warm(1));
    }
    bench.finish_newest();
    assert_eq!(bench.order(), ["a1", "a2"].map(key));
    bench.pass(SECOND * 10);
    bench.say(worker, Saying::Heartbeat);
    bench.finish_newest();
    assert_eq!(bench.order().last(), Some(&key("b1")));
}

#[test]
fn what_is_preferred_decides_between_workers_and_never_against_an_action() {
    let mut bench = Bench::new();
    bench.attach(1, 9, &[]);
    let fast = bench.attach(2, 1, &[("disk", "fast")]);
    let wants = || {
        let needs = Needs { preferred: properties(&[("disk", "fast")]), ..Needs::default() };
        Spec { needs, ..spec(&[]) }
    };
    for action in ["a", "b"] {
        bench.open(action, |_| ());
        bench.check_as(&wants());
    }
    let workers: Vec<_> = bench.granted.iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(workers, [fast, WorkerId(1)]);
}

#[test]
fn an_action_that_ran_out_of_memory_is_tried_where_there_is_more_and_else_ends() {
    let mut bench = Bench::new();
    let with_memory = |name: &str, gib: u64| Offer {
        name: name.into(),
        slots: 2,
        memory_bytes: Some(gib << 30),
        ..Offer::default()
    };
    let small = bench.attach_as(1, with_memory("small", 2), Vec::new());
    let operation = bench.submit("a", |_| ());
    let large = bench.attach_as(2, with_memory("large", 8), Vec::new());
    let killed = |bench: &mut Bench, worker| {
        let lease = bench.granted.last().unwrap().1;
        let report = Report::OutOfMemory(response());
        bench.say(worker, Saying::Outcome { lease, report, memory_bytes: 3 << 30 });
        bench.publish();
    };
    killed(&mut bench, small);
    assert_eq!(bench.granted.last().unwrap().0, large, "6 GiB are set aside for it");
    assert_eq!(bench.queue.tally().retries[&Cause::OutOfMemory], 1);
    killed(&mut bench, large);
    assert_eq!(bench.granted.len(), 3, "nobody has 12 GiB, but 8");
    killed(&mut bench, large);
    assert!(bench.is_answered(operation), "nobody has more than those");
}

#[test]
fn an_action_that_was_killed_at_a_workers_bound_goes_to_one_with_a_larger_bound_or_nowhere() {
    let mut bench = Bench::new();
    let bounded = |name: &str, gib: u64| Offer {
        name: name.into(),
        slots: 1,
        memory_bytes: Some(64 << 30),
        action_memory_bytes: Some(gib << 30),
        ..Offer::default()
    };
    let small = bench.attach_as(1, bounded("small", 4), Vec::new());
    let operation = bench.submit("a", |_| ());
    bench.attach_as(2, bounded("as small", 4), Vec::new());
    let large = bench.attach_as(3, bounded("large", 8), Vec::new());
    for worker in [small, large] {
        let (holder, lease, _) = bench.granted.last().unwrap().clone();
        assert_eq!(holder, worker);
        let report = Report::OutOfMemory(response());
        bench.say(worker, Saying::Outcome { lease, report, memory_bytes: 1 << 30 });
    }
    bench.publish();
    assert!(bench.is_answered(operation), "there is no larger one");
    assert_eq!(bench.granted.len(), 2);
}

#[test]
fn an_action_that_was_killed_for_want_of_memory_gets_more_of_the_same_worker_and_fewer_neighbours() {
    let mut bench = Bench::new();
    let gib = |gib: u64| gib << 30;
    let offer = Offer {
        name: "w".into(),
        slots: 4,
        memory_bytes: Some(gib(12)),
        action_memory_bytes: Some(gib(4)),
        action_memory_bytes_max: Some(gib(10)),
        ..Offer::default()
    };
    let worker = bench.attach_as(1, offer, Vec::new());
    let asks = |action: &'static str, memory_bytes| {
        let demand = Demand { memory_bytes, ..Demand::default() };
        (action, Spec { kind: Some(1), needs: Needs { demand, ..Needs::default() }, ..spec(&[]) })
    };
    let ask = |bench: &mut Bench, (action, spec): (&str, Spec)| {
        let operation = bench.open(action, |_| ());
        bench.check_as(&spec);
        operation
    };
    let operation = ask(&mut bench, asks("large", 0));
    ask(&mut bench, asks("neighbour", gib(3)));
    let set_aside = |bench: &Bench| bench.queue.workers.get(worker).unwrap().used().memory_bytes;
    let end = |bench: &mut Bench, action: &str, report: Report| {
        let lease = bench.granted.iter().rev().find(|(_, _, other)| *other == key(action)).unwrap().1;
        bench.say(worker, Saying::Outcome { lease, report, memory_bytes: gib(1) });
        bench.publish();
    };
    end(&mut bench, "large", Report::OutOfMemory(response()));
    assert_eq!(set_aside(&bench), gib(3 + 8), "twice what it could use");
    ask(&mut bench, asks("another", gib(2)));
    assert_eq!(bench.order().last(), Some(&key("large")), "no room beside it");
    end(&mut bench, "large", Report::OutOfMemory(response()));
    end(&mut bench, "neighbour", Report::Final(response()));
    assert_eq!(set_aside(&bench), gib(10 + 2), "the most that there is");
    assert!(!bench.is_answered(operation));
    end(&mut bench, "large", Report::Final(response()));
    assert!(bench.is_answered(operation));
    end(&mut bench, "another", Report::Final(response()));
    ask(&mut bench, asks("like it", 0));
    assert_eq!(set_aside(&bench), gib(16), "the next of its kind begins with more than was too little");
}

#[test]
fn memory_that_earlier_runs_took_is_set_aside_for_later_ones() {
    let mut bench = Bench::new();
    let offer = Offer { name: "w".into(), slots: 8, memory_bytes: Some(8 << 30), ..Offer::default() };
    let worker = bench.attach_as(1, offer, Vec::new());
    let link = || Spec { kind: Some(1), ..spec(&[]) };
    bench.open("first", |_| ());
    bench.check_as(&link());
    let lease = bench.granted[0].1;
    let memory_bytes = 3 << 30;
    bench.say(worker, Saying::Outcome { lease, report: Report::Final(response()), memory_bytes });
    bench.publish();
    for action in ["a", "b", "c"] {
        bench.open(action, |_| ());
        bench.check_as(&link());
    }
    assert_eq!(bench.granted.len(), 1 + 2, "4 GiB each");
}

fn reason(bench: &Bench, action: &str) -> String {
    let wanted = key(action);
    let found = bench.queue.find(|key, _, _| *key == wanted, 2);
    assert_eq!(found.len(), 1);
    found[0].reason.clone()
}

#[test]
fn whatever_waits_can_say_why() {
    let mut bench = Bench::new();
    bench.now = SECOND * 3_600;
    bench.attach(1, 1, &[("ISA", "x86-64")]);
    let windows = bench.attach(2, 1, &[("OSFamily", "windows")]);
    for action in ["a", "b", "c"] {
        bench.open(action, |_| ());
        bench.check(&[("ISA", "x86-64")], true);
    }
    assert_eq!(reason(&bench, "a"), "runs at `w1`");
    let taken = "the only slot of the worker that could run it is taken";
    assert_eq!(reason(&bench, "b"), taken);
    assert_eq!(reason(&bench, "c"), format!("{taken}; 1 action of its run is ahead of it"));
    bench.open("other", |request| request.run = "other".into());
    bench.check(&[("ISA", "x86-64")], true);
    assert_eq!(reason(&bench, "other"), format!("{taken}; 1 other run waits for the same"));
    bench.apply(Event::Drained("w2".into(), "a new disk".into()));
    bench.open("d", |_| ());
    bench.check(&[("OSFamily", "windows")], true);
    assert_eq!(reason(&bench, "d"), "the worker that could run it takes no actions: `w2` is draining");
    bench.detach(windows);
    bench.pass(SECOND * 7);
    assert_eq!(reason(&bench, "d"), "waiting for OSFamily=windows, last seen 0 s ago at `w2`");
}

#[test]
fn what_waits_for_more_than_a_slot_says_for_what() {
    let mut bench = Bench::new();
    for number in 1..=2 {
        let offer = Offer {
            name: format!("w{number}").into(),
            slots: 4,
            memory_bytes: Some(4 << 30),
            others: amounts("licence", 1),
            ..Offer::default()
        };
        bench.attach_as(number, offer, Vec::new());
    }
    let large = || with_demand(Demand { memory_bytes: 3 << 30, ..Demand::default() });
    let licensed = || with_demand(Demand { others: amounts("licence", 1), ..Demand::default() });
    for (number, wants) in [large, licensed].into_iter().enumerate() {
        for copy in 0..3 {
            bench.open(&format!("{number} {copy}"), |_| ());
            bench.check_as(&wants());
        }
    }
    let memory = "of the 2 workers that could run it 2 have less than the 3072 MiB of memory left that are set aside for it";
    assert_eq!(reason(&bench, "0 2"), memory);
    assert_eq!(reason(&bench, "1 2"), "of the 2 workers that could run it 2 have too little `licence` left");
}

#[test]
fn a_look_at_many_actions_counts_for_the_first_of_them_only_what_is_ahead() {
    let mut bench = Bench::new();
    for number in 0..110 {
        bench.submit_unaudited(&number.to_string(), |_| ());
    }
    let found = bench.queue.find(|_, _, _| true, 1_000);
    let counted = found.iter().filter(|task| task.reason.contains("ahead of it")).count();
    // Nothing is ahead of the first.
    assert_eq!((found.len(), counted), (110, 99));
}
