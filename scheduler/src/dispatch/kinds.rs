//! [`Kinds`]: how each platform property is matched, and what actions and workers say with them.

use std::collections::BTreeMap;

use crate::config::parse_size;
use crate::front::instance::clip;
use crate::queue::{Amounts, Demand, Needs, Properties};

/// Counted in a worker's slots.
const CORES: &str = "cores";
/// In bytes, or with a unit such as `2GB`.
const MEMORY: &str = "memory";

/// How a platform property is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The worker must offer that very value.
    Exact,
    /// A number: the worker must have so much left, and the action takes it up.
    Minimum,
    /// Says nothing about who may run the action.
    Ignored,
    /// A worker that offers that value is the better choice.
    Preferred,
}

impl Kind {
    /// The name in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "exact" => Self::Exact,
            "minimum" => Self::Minimum,
            "ignored" => Self::Ignored,
            "priority" => Self::Preferred,
            _ => return None,
        })
    }

    /// All names in the configuration.
    pub const NAMES: [&'static str; 4] = ["exact", "minimum", "ignored", "priority"];
}

/// How each property is matched; exactly, if nothing is said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(BTreeMap<String, Kind>);

/// A property whose value can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KindError {
    #[error("property `{name}` is `{value}`, which is no number above zero")]
    Number { name: String, value: String },
    #[error("property `{name}` is `{value}`, which is no size such as 512MB or 2GiB")]
    Size { name: String, value: String },
    #[error("property `{0}` is there twice, and it is an amount")]
    Twice(String),
    #[error("a worker's cores are its slots, so it does not say `cores`")]
    Cores,
}

/// What a worker's properties say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) properties: Properties,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) others: Amounts,
}

type Pairs = Vec<(String, String)>;

impl Kinds {
    /// Those of the configuration; a later word about a name counts.
    pub fn new(named: impl IntoIterator<Item = (String, Kind)>) -> Self {
        Self(named.into_iter().collect())
    }

    fn of(&self, name: &str) -> Kind {
        let usual = if name == CORES || name == MEMORY { Kind::Minimum } else { Kind::Exact };
        self.0.get(name).copied().unwrap_or(usual)
    }

    /// What an action with these properties needs.
    pub(crate) fn needs(&self, pairs: Pairs) -> Result<Needs, KindError> {
        let (mut exact, mut preferred, mut amounts) = (Pairs::new(), Pairs::new(), BTreeMap::new());
        for (name, value) in pairs {
            match self.of(&name) {
                Kind::Exact => exact.push((name, value)),
                Kind::Preferred => preferred.push((name, value)),
                Kind::Ignored => {}
                Kind::Minimum => insert_once(&mut amounts, &name, &value)?,
            }
        }
        let slots = amounts.remove(CORES).map_or(1, |cores| u32::try_from(cores).unwrap_or(u32::MAX));
        let memory_bytes = amounts.remove(MEMORY).unwrap_or(0);
        let others = Amounts::new(amounts);
        let demand = Demand { slots, memory_bytes, memory_is_estimate: false, others };
        Ok(Needs { properties: Properties::new(exact), preferred: Properties::new(preferred), demand })
    }

    /// What a worker with these properties offers.
    pub(crate) fn offered(&self, pairs: Pairs) -> Result<Offered, KindError> {
        let (amounts, exact): (Pairs, Pairs) =
            pairs.into_iter().partition(|(name, _)| self.of(name) == Kind::Minimum);
        let mut by_name = BTreeMap::new();
        for (name, value) in amounts {
            insert_once(&mut by_name, &name, &value)?;
        }
        if by_name.contains_key(CORES) {
            return Err(KindError::Cores);
        }
        let memory_bytes = by_name.remove(MEMORY);
        Ok(Offered { properties: Properties::new(exact), memory_bytes, others: Amounts::new(by_name) })
    }
}

fn insert_once(amounts: &mut BTreeMap<String, u64>, name: &str, value: &str) -> Result<(), KindError> {
    match amounts.insert(name.to_owned(), amount(name, value)?) {
        None => Ok(()),
        Some(_) => Err(KindError::Twice(clip(name).to_owned())),
    }
}

/// Reads a number; part of a thing takes all of it.
fn amount(name: &str, value: &str) -> Result<u64, KindError> {
    let (shown_name, shown_value) = (clip(name).to_owned(), clip(value).to_owned());
    if name == MEMORY {
        let bytes = parse_size(value).or_else(|| value.parse().ok()).filter(|bytes| *bytes > 0);
        return bytes.ok_or(KindError::Size { name: shown_name, value: shown_value });
    }
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = if digits(whole) && digits(part) { whole.parse().ok() } else { None };
    let rounded =
        number.and_then(|number| number.checked_add(u64::from(part.bytes().any(|digit| digit != b'0'))));
    let rounded = rounded.filter(|amount| *amount > 0);
    rounded.ok_or(KindError::Number { name: shown_name, value: shown_value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn kinds() -> Kinds {
        let named = [("gpu", Kind::Minimum), ("note", Kind::Ignored), ("disk", Kind::Preferred)];
        Kinds::new(named.map(|(name, kind)| (name.to_owned(), kind)))
    }

    #[test]
    fn each_property_counts_as_its_kind_says() {
        let asked = pairs(&[
            ("OSFamily", "linux"),
            ("cores", "2.5"),
            ("disk", "fast"),
            ("gpu", "1"),
            ("memory", "2GiB"),
            ("note", "x"),
        ]);
        let needs = kinds().needs(asked).unwrap();
        assert_eq!(needs.properties.pairs(), pairs(&[("OSFamily", "linux")]));
        assert_eq!(needs.preferred.pairs(), pairs(&[("disk", "fast")]));
        let others = Amounts::new([("gpu".to_owned(), 1)]);
        let demand = Demand { slots: 3, memory_bytes: 2 << 30, memory_is_estimate: false, others };
        assert_eq!(needs.demand, demand);
    }

    #[test]
    fn without_a_word_an_action_takes_one_slot_and_everything_is_matched_exactly() {
        let needs = Kinds::default().needs(pairs(&[("gpu", "1")])).unwrap();
        assert_eq!((needs.properties.pairs().len(), needs.demand), (1, Demand::default()));
    }

    #[test]
    fn what_is_no_amount_is_refused_by_name() {
        for (name, value) in
            [("cores", "many"), ("cores", "0"), ("cores", "-1"), ("cores", "1.x"), ("cores", "")]
        {
            assert!(
                matches!(kinds().needs(pairs(&[(name, value)])), Err(KindError::Number { .. })),
                "{value}"
            );
        }
        let none = kinds().needs(pairs(&[("memory", "much")])).unwrap_err();
        assert_eq!(none.to_string(), "property `memory` is `much`, which is no size such as 512MB or 2GiB");
        let twice = kinds().needs(pairs(&[("gpu", "1"), ("gpu", "2")])).unwrap_err();
        assert_eq!(twice, KindError::Twice("gpu".to_owned()));
    }

    #[test]
    fn a_worker_says_its_amounts_as_properties_too() {
        let offered = kinds().offered(pairs(&[("ISA", "x86-64"), ("gpu", "2"), ("memory", "1000")])).unwrap();
        assert_eq!(offered.properties.pairs(), pairs(&[("ISA", "x86-64")]));
        assert_eq!((offered.memory_bytes, offered.others.of("gpu")), (Some(1_000), 2));
        assert_eq!(kinds().offered(pairs(&[("cores", "2")])), Err(KindError::Cores));
    }
}
