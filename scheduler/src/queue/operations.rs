//! [`Operations`]: the requests of clients, from the first message until they are forgotten.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::{Moment, OperationId, TaskId};

/// One client's request that has not ended.
#[derive(Debug)]
pub(super) struct Operation {
    /// What it waits for. Always a task that knows this operation.
    pub(super) task: TaskId,
    waiters: u32,
    unwatched_since: Option<Moment>,
}

/// The requests of clients.
///
/// Invariant: `unwatched` holds exactly the live operations without waiters.
#[derive(Default)]
pub(super) struct Operations {
    live: HashMap<OperationId, Operation>,
    unwatched: BTreeSet<(Moment, OperationId)>,
    finished: VecDeque<Finished>,
    finished_bytes: usize,
}

struct Finished {
    at: Moment,
    operation: OperationId,
    bytes: usize,
}

impl Operations {
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn task(&self, operation: OperationId) -> Option<TaskId> {
        self.live.get(&operation).map(|live| live.task)
    }

    /// Adds an operation that one waiter waits for.
    pub(super) fn open(&mut self, operation: OperationId, task: TaskId) {
        let fresh = Operation { task, waiters: 1, unwatched_since: None };
        let previous = self.live.insert(operation, fresh);
        assert!(previous.is_none(), "names of operations are fresh");
    }

    /// Has an operation wait for another task.
    pub(super) fn move_to(&mut self, operation: OperationId, task: TaskId) {
        self.live.get_mut(&operation).expect("an operation of a task is live").task = task;
    }

    pub(super) fn waiter_joined(&mut self, operation: OperationId) {
        let Some(live) = self.live.get_mut(&operation) else { return };
        live.waiters += 1;
        if let Some(since) = live.unwatched_since.take() {
            self.unwatched.remove(&(since, operation));
        }
    }

    pub(super) fn waiter_left(&mut self, now: Moment, operation: OperationId) {
        let Some(live) = self.live.get_mut(&operation) else { return };
        live.waiters = live.waiters.saturating_sub(1);
        if live.waiters == 0 && live.unwatched_since.is_none() {
            live.unwatched_since = Some(now);
            self.unwatched.insert((now, operation));
        }
    }

    /// Ends an operation, which is from now on only remembered.
    pub(super) fn finish(&mut self, now: Moment, operation: OperationId, bytes: usize) {
        let live = self.live.remove(&operation).expect("an operation ends once");
        if let Some(since) = live.unwatched_since {
            self.unwatched.remove(&(since, operation));
        }
        self.finished.push_back(Finished { at: now, operation, bytes });
        self.finished_bytes += bytes;
    }

    /// Operations that nobody has waited for since `since` or earlier.
    pub(super) fn unwatched_since(&self, since: Moment) -> Vec<OperationId> {
        self.unwatched.iter().take_while(|(at, _)| *at <= since).map(|(_, operation)| *operation).collect()
    }

    /// Takes out the oldest ended operation, if it ended at least `kept` ago or there are more
    /// than `count_max`, or `bytes_max` in their responses.
    pub(super) fn forget_one(
        &mut self,
        now: Moment,
        kept: Duration,
        count_max: usize,
        bytes_max: usize,
    ) -> Option<OperationId> {
        let full = self.finished.len() > count_max || self.finished_bytes > bytes_max;
        let is_due = |oldest: &Finished| full || oldest.at + kept <= now;
        self.finished.front().filter(|oldest| is_due(oldest))?;
        let oldest = self.finished.pop_front()?;
        self.finished_bytes -= oldest.bytes;
        Some(oldest.operation)
    }
}
