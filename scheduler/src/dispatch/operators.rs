//! What operators ask the queue, and what they tell it.

use std::ops::Bound;
use std::sync::Arc;

use castwork_cas::ActionKey;
use tonic::Status;
use tracing::info;

use super::message::Message;
use super::owner::Owner;
use super::{Dispatch, Watch};
use crate::queue::{Counts, Event, Finding, OperationId, Tally, TaskView, View};

/// Which actions are meant; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Start of the hash of an action, in hexadecimal.
    pub(crate) hash_start: Option<String>,
    /// Name of a run.
    pub(crate) run: Option<String>,
    /// An operation that waits for the action.
    pub(crate) operation: Option<OperationId>,
}

impl Selector {
    pub(super) fn picks(&self, key: &ActionKey, run: &str, operations: &[OperationId]) -> bool {
        self.hash_start.as_ref().is_none_or(|start| begins_with(key.action.hash(), start))
            && self.run.as_ref().is_none_or(|wanted| wanted == run)
            && self.operation.is_none_or(|operation| operations.contains(&operation))
    }
}

/// Whether a hash begins with these hexadecimal digits. Is asked of each action there is, so it makes no text of it.
fn begins_with(hash: &[u8], digits: &str) -> bool {
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(u32::from);
    let mut pairs = nibbles.map(Some).chain(std::iter::repeat(None)).zip(digits.chars());
    pairs.all(|(nibble, digit)| nibble.and_then(|nibble| char::from_digit(nibble, 16)) == Some(digit))
}

/// Everything at one moment.
pub(crate) struct Overview {
    pub(crate) counts: Counts,
    pub(crate) view: View,
    pub(crate) tally: Tally,
}

impl Dispatch {
    /// Everything at this moment but single actions.
    pub(crate) async fn overview(&self) -> Result<Overview, Status> {
        self.ask(Message::View).await
    }

    /// The actions that are meant, the oldest first, at most `max`; and what running them again has shown.
    pub(crate) async fn find(
        &self,
        selector: Selector,
        max: usize,
    ) -> Result<(Vec<TaskView>, Vec<Finding>), Status> {
        self.ask(|reply| Message::Find { selector, max, reply }).await
    }

    /// Ends every operation that waits for one of the actions that are meant, or the one that is named; says
    /// how many.
    pub(crate) async fn stop(&self, selector: Selector, reason: Arc<str>) -> Result<usize, Status> {
        self.ask(|reply| Message::Stop { selector, reason, reply }).await
    }

    /// Has workers take no new actions.
    pub(crate) async fn drain(&self, pattern: Arc<str>, reason: Arc<str>) -> Result<(), Status> {
        self.ask(|reply| Message::Drain { pattern, reason, reply }).await
    }

    /// Takes that back.
    pub(crate) async fn undrain(&self, pattern: Arc<str>) -> Result<(), Status> {
        self.ask(|reply| Message::Undrain { pattern, reply }).await
    }

    /// Operations behind `after`, by their ids, those included that ended a while ago; at most `max`.
    pub(crate) async fn list(&self, after: Option<OperationId>, max: usize) -> Result<Vec<Watch>, Status> {
        self.ask(|reply| Message::List { after, max, reply }).await
    }
}

impl Owner {
    /// Answers what only operators ask.
    pub(super) fn take_from_operator(&mut self, message: Message) {
        // Who asked and is gone by now misses nothing.
        match message {
            Message::View(reply) => {
                let (counts, view, tally) =
                    (self.queue.counts(), self.queue.view(), self.queue.tally().clone());
                let _ = reply.send(Overview { counts, view, tally });
            }
            Message::Find { selector, max, reply } => {
                let picks = |key: &_, run: &_, operations: &_| selector.picks(key, run, operations);
                let by_action = selector.run.is_none() && selector.operation.is_none();
                let findings =
                    self.queue.findings().filter(|it| by_action && selector.picks(&it.key, "", &[]));
                let _ = reply.send((self.queue.find(picks, max), findings.cloned().collect()));
            }
            Message::Stop { selector, reason, reply } => {
                let _ = reply.send(self.stop(&selector, &reason));
            }
            Message::Drain { pattern, reason, reply } => {
                info!(pattern = &*pattern, reason = &*reason, "workers drained");
                if let Some(journal) = &self.journal {
                    journal.drained(&pattern, &reason);
                }
                self.apply(Event::Drained(pattern, reason));
                let _ = reply.send(());
            }
            Message::Undrain { pattern, reply } => {
                info!(pattern = &*pattern, "drain taken back");
                if let Some(journal) = &self.journal {
                    journal.undrained(&pattern);
                }
                self.apply(Event::Undrained(pattern));
                let _ = reply.send(());
            }
            Message::List { after, max, reply } => {
                let after = after.map_or(Bound::Unbounded, Bound::Excluded);
                let names = self.operations.range((after, Bound::Unbounded)).take(max);
                let _ = reply.send(names.filter_map(|(name, _)| self.watch(*name, None)).collect());
            }
            _ => debug_assert!(false, "the owner itself takes all other messages"),
        }
    }

    fn stop(&mut self, selector: &Selector, reason: &Arc<str>) -> usize {
        let picked = self.queue.operations_of(|key, run, all| selector.picks(key, run, all));
        let meant = picked.into_iter().filter(|name| selector.operation.is_none_or(|only| only == *name));
        let meant: Vec<_> = meant.collect();
        for operation in &meant {
            self.apply(Event::Stopped(*operation, Arc::clone(reason)));
        }
        info!(operations = meant.len(), reason = &**reason, "stopped by an operator");
        meant.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_found_by_each_of_its_beginnings_and_by_nothing_else() {
        let (hash, text) = ([0x0f, 0xa1], "0fa1");
        assert!((0..=4).all(|length| begins_with(&hash, &text[..length])));
        assert!(["0F", "1", "0fa2", "0fa10", "g"].iter().all(|other| !begins_with(&hash, other)));
    }
}
