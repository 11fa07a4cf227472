//! Many small commands at once, as `make -j` starts them, with a signal on the way.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Something to do once, while the others work.
pub struct Event<'a> {
    /// How many items have to be done before.
    pub after: usize,
    /// What is done then, while the other items go on.
    pub then: &'a mut (dyn FnMut() + Send),
}

/// Calls `work` with every item, `jobs` at a time, and the event's `then` beside it once enough are done.
///
/// # Panics
/// If a call panics; and if the event's time never came or came only when all was done, because then nothing
/// happened in the middle.
pub fn each<T: Sync>(items: &[T], jobs: usize, work: impl Fn(&T) + Sync, event: Option<Event<'_>>) {
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (report, reports) = mpsc::channel();
    thread::scope(|threads| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                let (report, next, finished, work) = (report.clone(), &next, &finished, &work);
                threads.spawn(move || {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        work(item);
                        finished.fetch_add(1, Ordering::Relaxed);
                        // Nobody listens after the event.
                        let _ = report.send(());
                    }
                })
            })
            .collect();
        drop(report);
        if let Some(event) = event {
            let seen = reports.iter().take(event.after).count();
            assert!(seen == event.after, "only {seen} of {} were done, and the rest failed", items.len());
            assert!(
                finished.load(Ordering::Relaxed) < items.len(),
                "all were done before anything could happen in the middle"
            );
            (event.then)();
        }
        for worker in workers {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_item_is_done_once_and_the_event_comes_on_the_way() {
        let (done, mut happened) = (Mutex::new(Vec::new()), 0);
        let (go, going) = mpsc::channel::<()>();
        let going = Mutex::new(Some(going));
        let items: Vec<usize> = (0..40).collect();
        let work = |item: &usize| {
            // The last item waits for the event, so that the event can't come too late.
            if *item == 39 {
                let event = going.lock().unwrap().take().unwrap();
                event.recv().unwrap();
            }
            done.lock().unwrap().push(*item);
        };
        let mut then = || {
            happened += 1;
            go.send(()).unwrap();
        };
        each(&items, 4, work, Some(Event { after: 10, then: &mut then }));
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!((done, happened), (items, 1));
    }

    #[test]
    #[should_panic(expected = "item 3 is wrong")]
    fn a_failed_item_fails_the_whole() {
        each(&[1, 2, 3, 4], 2, |item| assert!(*item != 3, "item 3 is wrong"), None);
    }
}
