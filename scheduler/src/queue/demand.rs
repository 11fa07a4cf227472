//! [`Needs`] and [`Demand`]: what a worker must be like, and what an action takes up while it runs there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Offer, Properties};

/// Amounts of named resources, sorted by name, each once and above zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amounts(Arc<[(String, u64)]>);

impl Amounts {
    /// Sorts `pairs`; of a name that stands twice the larger amount counts.
    pub fn new(pairs: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut by_name = BTreeMap::new();
        for (name, amount) in pairs.into_iter().filter(|(_, amount)| *amount > 0) {
            let known: &mut u64 = by_name.entry(name).or_default();
            *known = amount.max(*known);
        }
        Self(by_name.into_iter().collect())
    }

    /// The names and amounts, sorted by name.
    pub fn pairs(&self) -> &[(String, u64)] {
        &self.0
    }

    /// How much there is of a resource.
    pub fn of(&self, name: &str) -> u64 {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(name)).map_or(0, |at| self.0[at].1)
    }
}

/// What an action takes up at its worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Demand {
    /// Slots, at least one: cores are counted in them.
    pub slots: u32,
    /// Bytes of memory; 0 if nothing is known.
    pub memory_bytes: u64,
    /// Whether that is what earlier runs took rather than what the client asks for. An estimate is never a
    /// reason to refuse: a worker that runs nothing else takes the action whatever it is.
    pub memory_is_estimate: bool,
    /// What else is consumed: licences, devices.
    pub others: Amounts,
}

impl Default for Demand {
    /// One slot and nothing else.
    fn default() -> Self {
        Self { slots: 1, memory_bytes: 0, memory_is_estimate: false, others: Amounts::default() }
    }
}

impl Demand {
    /// Whether it is no more than one slot, of which some worker frees one now and then.
    pub(super) fn is_small(&self) -> bool {
        self.slots <= 1 && self.memory_bytes == 0 && self.others.pairs().is_empty()
    }
}

/// What a worker must be like to be given an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Needs {
    /// Pairs that it must offer.
    pub properties: Properties,
    /// Pairs that make it the better choice where there is one.
    pub preferred: Properties,
    /// What it must have left.
    pub demand: Demand,
}

/// What the actions at one worker take up together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) slots: u32,
    pub(super) memory_bytes: u64,
    others: BTreeMap<String, u64>,
}

impl Used {
    pub(super) fn add(&mut self, demand: &Demand) {
        self.slots = self.slots.saturating_add(demand.slots);
        self.memory_bytes = self.memory_bytes.saturating_add(demand.memory_bytes);
        for (name, amount) in demand.others.pairs() {
            let used = self.others.entry(name.clone()).or_default();
            *used = used.saturating_add(*amount);
        }
    }

    pub(super) fn subtract(&mut self, demand: &Demand) {
        self.slots = self.slots.saturating_sub(demand.slots);
        self.memory_bytes = self.memory_bytes.saturating_sub(demand.memory_bytes);
        for (name, amount) in demand.others.pairs() {
            if let Some(used) = self.others.get_mut(name) {
                *used = used.saturating_sub(*amount);
            }
        }
    }

    /// How much of a resource is taken.
    pub(super) fn of(&self, name: &str) -> u64 {
        self.others.get(name).copied().unwrap_or(0)
    }
}

impl Offer {
    /// Whether an action could be run here, if nothing else were.
    pub fn can_run(&self, needs: &Needs) -> bool {
        self.properties.satisfy(&needs.properties) && self.has_room(&needs.demand, &Used::default())
    }

    /// Whether there is room for one more action beside what is used.
    pub(super) fn has_room(&self, demand: &Demand, used: &Used) -> bool {
        let others = demand.others.pairs().iter();
        used.slots.saturating_add(demand.slots) <= self.slots
            && self.has_memory(demand, used)
            && others.into_iter().all(|(name, amount)| {
                used.of(name).checked_add(*amount).is_some_and(|sum| sum <= self.others.of(name))
            })
    }

    /// The most memory that one action gets here, if it is known.
    pub(super) fn memory_of_one(&self) -> Option<u64> {
        self.memory_bytes.into_iter().chain(self.action_bound()).min()
    }

    /// The most memory that one action may use here, if that is bounded, when so much is set aside for it.
    pub(super) fn action_bound_with(&self, memory_bytes: u64) -> Option<u64> {
        Some(memory_bytes.clamp(self.action_memory_bytes?, self.action_bound()?))
    }

    /// The same, when as much is set aside for it as can be.
    fn action_bound(&self) -> Option<u64> {
        self.action_memory_bytes.map(|usual| usual.max(self.action_memory_bytes_max.unwrap_or(0)))
    }

    pub(super) fn has_memory(&self, demand: &Demand, used: &Used) -> bool {
        let bound = self.action_bound().filter(|_| !demand.memory_is_estimate);
        if bound.is_some_and(|bound| demand.memory_bytes > bound) {
            return false;
        }
        let Some(total) = self.memory_bytes else { return true };
        let alone = demand.memory_is_estimate && used.slots == 0;
        alone || used.memory_bytes.saturating_add(demand.memory_bytes) <= total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            slots: 4,
            memory_bytes: Some(1_000),
            others: Amounts::new([("gpu".to_owned(), 1)]),
            ..Offer::default()
        }
    }

    #[test]
    fn what_is_consumed_is_counted_until_it_is_given_back() {
        let gpu = Demand { others: Amounts::new([("gpu".to_owned(), 1)]), ..Demand::default() };
        let mut used = Used::default();
        assert!(offer().has_room(&gpu, &used));
        used.add(&gpu);
        assert!(!offer().has_room(&gpu, &used) && offer().has_room(&Demand::default(), &used));
        used.subtract(&gpu);
        assert!(offer().has_room(&gpu, &used));
    }

    #[test]
    fn whatever_workers_bring_along_can_be_counted() {
        let all = Demand { slots: u32::MAX, ..Demand::default() };
        let mut used = Used::default();
        used.add(&all);
        used.add(&all);
        used.subtract(&all);
        used.subtract(&all);
        assert_eq!(used, Used::default());
    }

    #[test]
    fn memory_that_a_client_asks_for_is_a_bound_and_an_estimate_only_keeps_others_away() {
        let stated = Demand { memory_bytes: 1_001, ..Demand::default() };
        assert!(!offer().has_room(&stated, &Used::default()));
        let estimate = Demand { memory_is_estimate: true, ..stated };
        assert!(offer().has_room(&estimate, &Used::default()));
        let mut used = Used::default();
        used.add(&Demand::default());
        assert!(!offer().has_room(&estimate, &used));
    }

    #[test]
    fn no_action_is_given_to_a_worker_that_would_kill_it_for_what_it_asks_for() {
        let bounded = Offer { action_memory_bytes: Some(500), ..offer() };
        let asks = |memory_bytes| Demand { memory_bytes, ..Demand::default() };
        assert!(bounded.has_room(&asks(500), &Used::default()));
        assert!(!bounded.has_room(&asks(501), &Used::default()));
        assert_eq!((bounded.memory_of_one(), offer().memory_of_one()), (Some(500), Some(1_000)));
        let bends = Offer { action_memory_bytes_max: Some(900), ..bounded };
        assert!(bends.has_room(&asks(900), &Used::default()));
        assert!(!bends.has_room(&asks(901), &Used::default()));
        assert_eq!([0, 700, 1_000].map(|bytes| bends.action_bound_with(bytes)), [500, 700, 900].map(Some));
    }

    #[test]
    fn amounts_that_overflow_are_too_much_and_not_little() {
        let all = Demand { others: Amounts::new([("gpu".to_owned(), u64::MAX)]), ..Demand::default() };
        let mut used = Used::default();
        used.add(&Demand { others: Amounts::new([("gpu".to_owned(), 1)]), ..Demand::default() });
        assert!(!offer().has_room(&all, &used));
    }
}
