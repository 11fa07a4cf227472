use super::*;

const NOW: u64 = 1_700_000_000_000;

fn asker(run: &str, toolchain: &str) -> Asker {
    Asker {
        run: run.to_owned(),
        tool: "castwork 1".to_owned(),
        configuration: Configuration {
            project: "zlib".to_owned(),
            toolchain: toolchain.to_owned(),
            platform: "linux-x86-64".to_owned(),
        },
        is_for_action: true,
    }
}

fn report(book: &mut Book, run: &str) -> castwork_proto::runs::Report {
    let key = RunKey { instance: "main".to_owned(), run: run.to_owned() };
    book.report(&key, "", "").expect("the run is known")
}

fn seen(book: &mut Book, run: &str) -> castwork_proto::runs::Seen {
    report(book, run).parts[0].seen.clone().expect("what was seen")
}

const RAN: Execution =
    Execution::Ran { cause: Cause::NeverSeen, is_shared: false, has_failed: false, took_ms: 50 };

#[test]
fn an_action_counts_once_however_often_a_client_asks() {
    let (mut book, one) = (Book::default(), asker("r", "gcc"));
    // Bazel looks it up, is told that there is none, has it run, and may ask again.
    book.looked_up(NOW, "main", &one, 1, Answer::Miss(Cause::Evicted));
    book.executed(
        NOW,
        "main",
        &one,
        1,
        Execution::Ran { cause: Cause::NeverSeen, is_shared: false, has_failed: true, took_ms: 50 },
    );
    book.looked_up(NOW, "main", &one, 1, Answer::Hit { saved_ms: 9 });
    book.looked_up(NOW, "main", &one, 2, Answer::Hit { saved_ms: 70 });
    let seen = seen(&mut book, "r");
    assert_eq!((seen.hits, &seen.misses), (1, &[("evicted".to_owned(), 1)].into()));
    assert_eq!((seen.remote_runs, seen.failed), (1, 1));
    assert_eq!(seen.time_saved.map(|time| time.nanos), Some(70_000_000));
    assert_eq!(seen.run_time.map(|time| time.nanos), Some(50_000_000));
}

#[test]
fn a_miss_that_another_run_has_filled_meanwhile_is_a_hit() {
    let (mut book, one) = (Book::default(), asker("r", "gcc"));
    book.looked_up(NOW, "main", &one, 1, Answer::Miss(Cause::NeverSeen));
    book.executed(NOW, "main", &one, 1, Execution::Cached { saved_ms: 5 });
    let seen = seen(&mut book, "r");
    assert_eq!((seen.hits, seen.misses.len(), seen.remote_runs), (1, 0, 0));
}

#[test]
fn a_miss_that_the_run_itself_has_filled_stays_one() {
    let (mut book, one) = (Book::default(), asker("r", "gcc"));
    book.executed(NOW, "main", &one, 1, RAN);
    book.executed(NOW, "main", &one, 1, Execution::Cached { saved_ms: 5 });
    let seen = seen(&mut book, "r");
    assert_eq!((seen.hits, seen.misses.len(), seen.remote_runs), (0, 1, 1));
}

#[test]
fn times_that_clients_make_up_are_no_reason_to_fail() {
    let (mut book, one) = (Book::default(), asker("r", "gcc"));
    for action in 0..3 {
        book.looked_up(NOW, "main", &one, action, Answer::Hit { saved_ms: u64::MAX });
    }
    assert_eq!(seen(&mut book, "r").hits, 3);
}

#[test]
fn the_first_run_is_known_for_each_project_toolchain_and_platform() {
    let mut book = Book::default();
    for (run, toolchain) in [("r1", "gcc"), ("r2", "gcc"), ("r2", "clang"), ("r1", "clang")] {
        book.executed(NOW, "main", &asker(run, toolchain), 1, RAN);
    }
    let first = |report: castwork_proto::runs::Report| {
        let of = |part: castwork_proto::runs::Part| (part.configuration.unwrap().toolchain, part.is_first);
        report.parts.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(first(report(&mut book, "r1")), [("gcc".to_owned(), true), ("clang".to_owned(), false)]);
    assert_eq!(first(report(&mut book, "r2")), [("gcc".to_owned(), false), ("clang".to_owned(), true)]);
    book.executed(NOW, "other", &asker("r9", "gcc"), 1, RAN);
    let other = RunKey { instance: "other".to_owned(), run: "r9".to_owned() };
    assert!(book.report(&other, "", "").unwrap().parts[0].is_first, "instances share nothing");
}

#[test]
fn a_project_may_be_named_when_the_report_is_made() {
    let mut book = Book::default();
    let bazel = |run: &str| Asker {
        configuration: Configuration { toolchain: "bazel".to_owned(), ..Configuration::default() },
        ..asker(run, "")
    };
    for run in ["r1", "r2"] {
        book.executed(NOW, "main", &bazel(run), 1, RAN);
        let key = RunKey { instance: "main".to_owned(), run: run.to_owned() };
        let part = book.report(&key, "abseil", "linux-x86-64").unwrap().parts.remove(0);
        assert_eq!((part.configuration.unwrap().project.as_str(), part.is_first), ("abseil", run == "r1"));
        // And what comes after belongs to the same.
        book.executed(NOW, "main", &bazel(run), 2, RAN);
        assert_eq!(report(&mut book, run).parts.len(), 1);
    }
}

#[test]
fn what_a_client_says_replaces_what_it_said_and_adds_to_what_others_say() {
    let (mut book, one) = (Book::default(), asker("r", "gcc"));
    let told = |compiles, fallbacks| {
        let reasons = [("server down".to_owned(), fallbacks)].into();
        Told::from_proto(castwork_proto::runs::Told { compiles, fallbacks, reasons, ..Default::default() })
    };
    assert!(book.told(NOW, "main", &one, "a", told(3, 1)));
    assert!(book.told(NOW, "main", &one, "a", told(5, 2)));
    assert!(book.told(NOW, "main", &one, "b", told(10, 0)));
    let sum = report(&mut book, "r").parts[0].told.clone().unwrap();
    assert_eq!((sum.compiles, sum.fallbacks, sum.reasons["server down"]), (15, 2, 2));
}

#[test]
fn everything_is_bounded() {
    let limits = Limits {
        runs_max: 10,
        firsts_max: 5,
        parts_max: 2,
        tellers_max: 1,
        actions_max: 3,
        ..Limits::default()
    };
    let mut book = Book::new(limits);
    for number in 0..30 {
        for toolchain in ["a", "b", "c"] {
            let one = asker(&format!("r{number}"), &format!("{toolchain}{number}"));
            book.executed(NOW + number, "main", &one, number, RAN);
        }
    }
    assert!(book.runs.len() <= 10 && book.firsts.len() <= 8, "{} {}", book.runs.len(), book.firsts.len());
    assert!(
        book.actions <= 3 && book.runs.values().map(|run| run.actions.len()).sum::<usize>() == book.actions
    );
    assert_eq!(report(&mut book, "r29").parts.len(), 2);
    assert!(book.told(NOW, "main", &asker("r29", "a29"), "x", Told::default()));
    assert!(!book.told(NOW, "main", &asker("r29", "a29"), "y", Told::default()));
    let late = NOW + 31 * 24 * 60 * 60 * 1_000;
    book.executed(late, "main", &asker("new", "a"), 1, RAN);
    assert_eq!(book.runs.len(), 1, "the others are too old");
}

#[test]
fn all_that_clients_say_together_is_bounded() {
    let bytes = Told::default().bytes();
    let limits = Limits { run_told_bytes_max: 3 * bytes, told_bytes_max: 10 * bytes, ..Limits::default() };
    let mut book = Book::new(limits);
    for number in 0..30 {
        let one = asker(&format!("r{number}"), "gcc");
        for teller in ["a", "b", "c"] {
            assert!(book.told(NOW + number, "main", &one, teller, Told::default()));
            assert!(book.told(NOW + number, "main", &one, teller, Told::default()), "it takes no more room");
        }
        assert!(!book.told(NOW + number, "main", &one, "d", Told::default()));
        assert!(book.told_bytes <= 10 * bytes);
    }
    assert_eq!(book.runs.len(), 3, "the last ones");
    let mut after = Book::new(book.limits.clone());
    book.all().into_iter().chain(book.all()).for_each(|line| after.restore(line));
    assert_eq!(after.told_bytes, book.told_bytes);
}

#[test]
fn a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs");
    let mut book = Book::default();
    let mut file = crate::runs::file::RunsFile::open(&path, |_| panic!("there is nothing yet")).unwrap();
    for number in 0..20_000 {
        let run = if number < 5 { "r1" } else { "r2" };
        book.executed(NOW, "main", &asker(run, "gcc"), number, RAN);
        if number % 3 == 0 {
            file.write(&book.take_changes(), || book.all()).unwrap();
        }
    }
    file.write(&book.take_changes(), || book.all()).unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes}");
    // A line that was cut short costs nothing but itself.
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"{\"run\":{\"inst");
    std::fs::write(&path, text).unwrap();
    for _ in 0..2 {
        let mut again = Book::default();
        crate::runs::file::RunsFile::open(&path, |line| again.restore(line)).unwrap();
        for run in ["r1", "r2"] {
            assert_eq!(report(&mut again, run), report(&mut book, run));
        }
    }
}
