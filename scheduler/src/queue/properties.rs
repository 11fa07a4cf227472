//! [`Properties`]: what workers offer and actions require, and how the two compare.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Needs, Offer};

/// Differences that a message names, at most.
const NAMED_MAX: usize = 5;
/// Characters of a property's value that a message quotes, at most.
const QUOTED_MAX: usize = 80;

/// Pairs of name and value, sorted, each once. A name may have several values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Properties(Arc<[(String, String)]>);

impl Properties {
    /// Sorts `pairs`.
    pub fn new(mut pairs: Vec<(String, String)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        Self(pairs.into())
    }

    /// The pairs, sorted.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// With that pair, unless the name has a value already.
    #[must_use]
    pub fn with_default(self, name: &str, value: &str) -> Self {
        if self.values(name).next().is_some() {
            return self;
        }
        let added = (name.to_owned(), value.to_owned());
        Self::new(self.0.iter().cloned().chain([added]).collect())
    }

    /// Whether every pair that is required is offered.
    pub fn satisfy(&self, required: &Self) -> bool {
        required.missing_from(self).next().is_none()
    }

    /// How many of `wanted` are offered.
    pub(super) fn count_of(&self, wanted: &Self) -> usize {
        wanted.0.len() - wanted.missing_from(self).count()
    }

    fn missing_from<'a>(&'a self, offered: &'a Self) -> impl Iterator<Item = &'a (String, String)> {
        self.0.iter().filter(|pair| offered.0.binary_search(pair).is_err())
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Something that is asked for and that an offer lacks: the name, what is wanted, and what there is.
type Lack = (String, String, String);

/// Says what `needs` asks for that the nearest of `offers` lacks; `None` without offers.
pub(super) fn nearest<'a>(
    needs: &Needs,
    offers: &(impl Iterator<Item = &'a Offer> + Clone),
) -> Option<String> {
    let (nearest, lacks) = offers
        .clone()
        .map(|offer| (offer, lacks(needs, offer)))
        .min_by_key(|(offer, lacks)| (lacks.len(), &offer.name))?;
    let named = || lacks.iter().take(NAMED_MAX);
    let wanted = list(named().map(|(_, wanted, _)| wanted.clone()));
    let has = list(named().map(|(.., has)| has.clone()));
    let unheard = |name: &str| {
        let mut offers = offers.clone();
        let knows =
            |offer: &Offer| offer.properties.values(name).next().is_some() || offer.others.of(name) > 0;
        !BUILT_IN.contains(&name) && !offers.any(knows)
    };
    let hint = named().find(|(name, ..)| unheard(name)).map_or_else(String::new, |(name, ..)| {
        let name = quoted(name);
        format!(
            "; hint: no worker says anything about `{name}`: start one with `--property {name}=...`, or have the \
             server ignore it ([[property]] in its configuration)"
        )
    });
    Some(format!("no worker offers {wanted}; nearest is `{}`, which has {has}{hint}", nearest.name))
}

/// Names whose amounts are part of every offer.
const BUILT_IN: [&str; 2] = ["cores", "memory"];

fn lacks(needs: &Needs, offer: &Offer) -> Vec<Lack> {
    let missing = needs.properties.missing_from(&offer.properties);
    let pair = |(name, value): &(String, String)| {
        let wanted = format!("{}={}", quoted(name), quoted(value));
        (name.clone(), wanted, what_it_has(&offer.properties, name))
    };
    let mut lacks: Vec<Lack> = missing.map(pair).collect();
    let demand = &needs.demand;
    let mut amount = |name: &str, wanted: u64, has: u64| {
        if wanted > has {
            lacks.push((
                name.to_owned(),
                format!("{}={wanted}", quoted(name)),
                format!("{}={has}", quoted(name)),
            ));
        }
    };
    amount("cores", demand.slots.into(), offer.slots.into());
    if !demand.memory_is_estimate {
        amount("memory", demand.memory_bytes, offer.memory_of_one().unwrap_or(u64::MAX));
    }
    for (name, wanted) in demand.others.pairs() {
        amount(name, *wanted, offer.others.of(name));
    }
    lacks
}

fn what_it_has(properties: &Properties, name: &str) -> String {
    let values = list(properties.values(name).take(NAMED_MAX).map(quoted));
    if values.is_empty() {
        format!("no property `{}`", quoted(name))
    } else {
        format!("{}={values}", quoted(name))
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.enumerate().fold(String::new(), |mut all, (index, item)| {
        let separator = if index == 0 { "" } else { ", " };
        write!(all, "{separator}{item}").expect("writing to a string does not fail");
        all
    })
}

/// Some pairs, for a message.
pub(super) fn some_of(properties: &Properties) -> String {
    let pairs = properties.pairs().iter().take(NAMED_MAX);
    list(pairs.map(|(name, value)| format!("{}={}", quoted(name), quoted(value))))
}

/// Cuts what a stranger wrote to something that can stand in a message.
fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::{Amounts, Demand};
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        Properties::new(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn offer(name: &str, pairs: &[(&str, &str)]) -> Offer {
        Offer { name: name.into(), properties: properties(pairs), slots: 1, ..Offer::default() }
    }

    #[test]
    fn every_required_value_of_a_repeated_name_must_be_offered() {
        let offered = properties(&[("ISA", "x86-64"), ("ISA", "avx2"), ("OSFamily", "linux")]);
        assert!(offered.satisfy(&properties(&[("ISA", "avx2"), ("ISA", "x86-64")])));
        assert!(offered.satisfy(&properties(&[])));
        assert!(!offered.satisfy(&properties(&[("ISA", "avx2"), ("ISA", "avx512f")])));
    }

    #[test]
    fn a_default_does_not_replace_what_was_asked_for() {
        let asked = properties(&[("root", "worker")]);
        assert_eq!(asked.clone().with_default("root", "inputs"), asked);
        let both = properties(&[("ISA", "x86-64"), ("root", "inputs")]);
        assert_eq!(properties(&[("ISA", "x86-64")]).with_default("root", "inputs"), both);
    }

    fn needs(pairs: &[(&str, &str)]) -> Needs {
        Needs { properties: properties(pairs), ..Needs::default() }
    }

    #[test]
    fn the_nearest_worker_and_the_difference_are_named() {
        let offers = [
            offer("far", &[("OSFamily", "macos"), ("ISA", "x86-64")]),
            offer("near", &[("OSFamily", "linux"), ("ISA", "x86-64")]),
        ];
        assert_eq!(
            nearest(&needs(&[("OSFamily", "linux"), ("ISA", "arm-a64")]), &offers.iter()).as_deref(),
            Some("no worker offers ISA=arm-a64; nearest is `near`, which has ISA=x86-64")
        );
        assert_eq!(nearest(&needs(&[]), &[].iter()), None);
    }

    #[test]
    fn a_property_that_nobody_has_heard_of_is_explained() {
        let offers = [offer("near", &[("OSFamily", "linux")])];
        let message = nearest(&needs(&[("OSFamily", "linux"), ("gpu", "1")]), &offers.iter()).unwrap();
        let said = "no worker offers gpu=1; nearest is `near`, which has no property `gpu`; hint: no worker says \
                    anything about `gpu`";
        assert!(message.starts_with(said), "{message}");
    }

    #[test]
    fn amounts_that_are_too_large_are_named_with_what_there_is() {
        let demand = Demand {
            slots: 8,
            memory_bytes: 2_000,
            others: Amounts::new([("licence".to_owned(), 1)]),
            ..Demand::default()
        };
        let needs = Needs { demand, ..Needs::default() };
        let small = Offer {
            slots: 2,
            memory_bytes: Some(1_000),
            others: Amounts::new([("gpu".to_owned(), 1)]),
            ..offer("small", &[])
        };
        let message = nearest(&needs, &[small].iter()).unwrap();
        let said = "no worker offers cores=8, memory=2000, licence=1; nearest is `small`, which has cores=2, \
                    memory=1000, licence=0; hint: no worker says anything about `licence`";
        assert!(message.starts_with(said), "{message}");
    }

    #[test]
    fn a_message_stays_short_and_printable_whatever_was_asked_for() {
        let required = needs(&[("a\nb", &"x".repeat(5_000))]);
        let message = nearest(&required, &[offer("w", &[])].iter()).unwrap();
        assert!(message.len() < 600 && !message.contains('\n'), "{message}");
    }
}
