//! [`Ledger`]: which leases the worker has, and what is still to be said about them.
//!
//! No I/O and no clock: `attach` feeds it and does what it answers.

use std::collections::BTreeMap;

use castwork_proto::reapi::execution_stage;
use castwork_proto::worker::progress::Stage;
use castwork_proto::worker::{Lease, Outcome, Progress, Running};
use tokio_util::sync::CancellationToken;

/// The leases of a worker: running, or ended and not yet confirmed.
#[derive(Debug)]
pub(crate) struct Ledger {
    slots: usize,
    leases: BTreeMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    /// As it is told on the next connect; holds no outcome.
    running: Running,
    /// Where it has got to.
    stage: Stage,
    cancel: CancellationToken,
    outcome: Option<Outcome>,
}

/// What to do about a lease that was granted.
#[derive(Debug)]
pub(crate) enum Granted {
    /// Run it, until this is cancelled.
    Run(CancellationToken),
    /// It is known: granted twice, after a reconnect say.
    Known,
    /// Every slot is taken; the scheduler miscounts.
    Full,
}

impl Ledger {
    /// No leases; at most `slots` run at once.
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, leases: BTreeMap::new() }
    }

    /// Takes a lease.
    pub(crate) fn grant(&mut self, lease: &Lease) -> Granted {
        if self.leases.contains_key(&lease.lease_id) {
            return Granted::Known;
        }
        if self.running_count() >= self.slots {
            return Granted::Full;
        }
        let cancel = CancellationToken::new();
        let running = Running {
            lease_id: lease.lease_id.clone(),
            instance_name: lease.instance_name.clone(),
            action_digest: lease.action_digest.clone(),
            digest_function: lease.digest_function,
            stage: execution_stage::Value::Executing as i32,
        };
        let held = Held { running, stage: Stage::Unspecified, cancel: cancel.clone(), outcome: None };
        self.leases.insert(lease.lease_id.clone(), held);
        Granted::Run(cancel)
    }

    /// Forgets a lease and has it killed; its outcome will be dropped.
    pub(crate) fn cancel(&mut self, lease_id: &str) {
        if let Some(held) = self.leases.remove(lease_id) {
            held.cancel.cancel();
        }
    }

    /// Notes where a lease has got to; `false` if it is none of ours, and nobody cares.
    pub(crate) fn reach(&mut self, lease_id: &str, stage: Stage) -> bool {
        self.leases.get_mut(lease_id).map(|held| held.stage = stage).is_some()
    }

    /// Where the leases have got to that have not ended.
    pub(crate) fn stages(&self) -> impl Iterator<Item = Progress> {
        let running = self.leases.values().filter(|held| held.outcome.is_none());
        let begun = running.filter(|held| held.stage != Stage::Unspecified);
        begun.map(|held| Progress { lease_id: held.running.lease_id.clone(), stage: held.stage as i32 })
    }

    /// Notes how a lease ended; what to tell, unless it was cancelled meanwhile.
    pub(crate) fn end(&mut self, outcome: Outcome) -> Option<&Outcome> {
        let held = self.leases.get_mut(&outcome.lease_id)?;
        Some(held.outcome.insert(outcome))
    }

    /// The scheduler has the outcome.
    pub(crate) fn kept(&mut self, lease_id: &str) {
        if self.leases.get(lease_id).is_some_and(|held| held.outcome.is_some()) {
            self.leases.remove(lease_id);
        }
    }

    /// What to state on connect: everything.
    pub(crate) fn running(&self) -> Vec<Running> {
        self.leases.values().map(|held| held.running.clone()).collect()
    }

    /// Outcomes to repeat after a connect.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = &Outcome> {
        self.leases.values().filter_map(|held| held.outcome.as_ref())
    }

    /// Whether there is nothing left to run or to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// How many leases have not ended.
    pub(crate) fn running_count(&self) -> usize {
        self.leases.values().filter(|held| held.outcome.is_none()).count()
    }

    /// Has everything killed that still runs, and forgets it.
    pub(crate) fn cancel_all(&mut self) {
        for held in self.leases.values() {
            held.cancel.cancel();
        }
        self.leases.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str) -> Lease {
        Lease { lease_id: id.to_owned(), ..Default::default() }
    }

    fn outcome(id: &str) -> Outcome {
        Outcome { lease_id: id.to_owned(), ..Default::default() }
    }

    #[test]
    fn an_outcome_is_repeated_until_it_is_kept_and_takes_no_slot_meanwhile() {
        let mut ledger = Ledger::new(1);
        assert!(matches!(ledger.grant(&lease("a")), Granted::Run(_)));
        assert!(matches!(ledger.grant(&lease("b")), Granted::Full));
        ledger.end(outcome("a")).unwrap();
        assert!(matches!(ledger.grant(&lease("b")), Granted::Run(_)));
        assert_eq!(ledger.running().len(), 2);
        assert_eq!(ledger.unconfirmed().count(), 1);
        ledger.kept("a");
        assert_eq!(ledger.unconfirmed().count(), 0);
        assert_eq!(ledger.running()[0].lease_id, "b");
    }

    #[test]
    fn where_a_lease_has_got_to_is_known_until_it_ends() {
        let mut ledger = Ledger::new(2);
        ledger.grant(&lease("a"));
        ledger.grant(&lease("b"));
        assert!(ledger.reach("a", Stage::Executing) && !ledger.reach("c", Stage::Executing));
        let stages: Vec<_> = ledger.stages().map(|it| (it.lease_id, it.stage)).collect();
        assert_eq!(stages, [("a".to_owned(), Stage::Executing as i32)]);
        ledger.end(outcome("a")).unwrap();
        assert_eq!(ledger.stages().count(), 0);
    }

    #[test]
    fn a_lease_granted_twice_runs_once() {
        let mut ledger = Ledger::new(2);
        assert!(matches!(ledger.grant(&lease("a")), Granted::Run(_)));
        assert!(matches!(ledger.grant(&lease("a")), Granted::Known));
    }

    #[test]
    fn of_a_cancelled_lease_nothing_is_said() {
        let mut ledger = Ledger::new(1);
        let Granted::Run(cancel) = ledger.grant(&lease("a")) else { panic!("a slot is free") };
        ledger.cancel("a");
        assert!(cancel.is_cancelled() && ledger.is_empty());
        assert!(ledger.end(outcome("a")).is_none());
        ledger.cancel("never heard of");
    }

    #[test]
    fn a_lease_that_still_runs_is_not_forgotten_by_a_stray_confirmation() {
        let mut ledger = Ledger::new(1);
        ledger.grant(&lease("a"));
        ledger.kept("a");
        assert_eq!(ledger.running_count(), 1);
    }
}
