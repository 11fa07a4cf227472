//! [`Watch`]: what a client sees of an operation, and how it is known that somebody looks.

use castwork_cas::ActionKey;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use uuid::Uuid;

use crate::queue::{Ending, OperationId, Stage};

/// Stages that are remembered, at most. Every attempt adds two, and attempts are bounded.
pub(super) const STAGES_MAX: usize = 64;

/// What became of an operation so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every stage it was in, so that no client misses one that was short.
    pub(crate) stages: Vec<Stage>,
    /// Set once, at the end.
    pub(crate) ending: Option<Ending>,
}

impl State {
    pub(super) fn enter(&mut self, stage: Stage) -> bool {
        let news = self.stages.last() != Some(&stage) && self.stages.len() < STAGES_MAX;
        if news {
            self.stages.push(stage);
        }
        news
    }
}

/// A look at one operation.
pub(crate) struct Watch {
    /// The operation's name, as clients write it.
    pub(crate) name: String,
    /// The operation.
    pub(crate) operation: OperationId,
    /// The action.
    pub(crate) key: ActionKey,
    /// What becomes of it. Closed without an ending if the scheduler stops.
    pub(crate) state: watch::Receiver<State>,
    /// Counts as waiting as long as it lives, if this is a wait and not a glance.
    pub(super) _waiter: Option<Waiter>,
}

/// One who waits. The operation goes on for a while when the last of them is dropped.
pub(super) struct Waiter {
    pub(super) operation: OperationId,
    /// Unbounded, as `drop` can't wait; there is one message a waiter, and waiters are bounded.
    pub(super) leaves: mpsc::UnboundedSender<OperationId>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // An error means that the scheduler stops, and then nobody counts.
        let _ = self.leaves.send(self.operation);
    }
}

/// The name of an operation, as clients write it.
pub(crate) fn operation_name(instance: &str, operation: OperationId) -> String {
    let id = Uuid::from_u128(operation.0);
    if instance.is_empty() { format!("operations/{id}") } else { format!("{instance}/operations/{id}") }
}

/// Reads the name of an operation into its instance and id; `None` if no operation is named so.
pub(crate) fn parse_operation_name(name: &str) -> Option<(&str, OperationId)> {
    let (rest, id) = name.rsplit_once('/')?;
    let instance = match rest.strip_suffix("operations")? {
        "" => "",
        prefix => prefix.strip_suffix('/')?,
    };
    let id = Uuid::try_parse(id).ok()?;
    // Only one of the ways to write an id is a name.
    let operation = OperationId(id.as_u128());
    (operation_name(instance, operation) == name).then_some((instance, operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_a_name() {
        let operation = OperationId(7);
        for instance in ["", "main", "a/operations/b"] {
            let name = operation_name(instance, operation);
            assert_eq!(parse_operation_name(&name), Some((instance, operation)), "{name}");
        }
        let id = Uuid::from_u128(7);
        for name in
            ["", "operations", "operations/", "operations/x", &id.to_string(), &format!("/operations/{id}")]
        {
            assert_eq!(parse_operation_name(name), None, "{name}");
        }
        assert_eq!(parse_operation_name(&format!("xoperations/{id}")), None);
        assert_eq!(parse_operation_name(&format!("operations/{}", id.simple())), None);
    }
}
