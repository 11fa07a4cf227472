//! [`Properties`]: what workers offer and actions require, and how the two compare.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Offer;

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

    fn missing_from<'a>(&'a self, offered: &'a Self) -> impl Iterator<Item = &'a (String, String)> {
        self.0.iter().filter(|pair| offered.0.binary_search(pair).is_err())
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Says what `required` asks for that the nearest of `offers` lacks; `None` without offers.
pub(super) fn nearest<'a>(required: &Properties, offers: impl Iterator<Item = &'a Offer>) -> Option<String> {
    let nearest =
        offers.min_by_key(|offer| (required.missing_from(&offer.properties).count(), &offer.name))?;
    let missing: Vec<_> = required.missing_from(&nearest.properties).take(NAMED_MAX).collect();
    let wanted = list(missing.iter().map(|(name, value)| format!("{}={}", quoted(name), quoted(value))));
    let has = list(missing.iter().map(|(name, _)| what_it_has(&nearest.properties, name)));
    Some(format!("no worker offers {wanted}; nearest is `{}`, which has {has}", nearest.name))
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
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        Properties::new(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn offer(name: &str, pairs: &[(&str, &str)]) -> Offer {
        Offer { name: name.into(), properties: properties(pairs), slots: 1 }
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

    #[test]
    fn the_nearest_worker_and_the_difference_are_named() {
        let offers = [
            offer("far", &[("OSFamily", "macos"), ("ISA", "x86-64")]),
            offer("near", &[("OSFamily", "linux"), ("ISA", "x86-64")]),
        ];
        assert_eq!(
            nearest(&properties(&[("OSFamily", "linux"), ("ISA", "arm-a64")]), offers.iter()).as_deref(),
            Some("no worker offers ISA=arm-a64; nearest is `near`, which has ISA=x86-64")
        );
        assert_eq!(
            nearest(&properties(&[("OSFamily", "linux"), ("gpu", "1")]), offers.iter()).as_deref(),
            Some("no worker offers gpu=1; nearest is `near`, which has no property `gpu`")
        );
        assert_eq!(nearest(&properties(&[]), [].iter()), None);
    }

    #[test]
    fn a_message_stays_short_and_printable_whatever_was_asked_for() {
        let required = properties(&[("a\nb", &"x".repeat(5_000))]);
        let message = nearest(&required, [offer("w", &[])].iter()).unwrap();
        assert!(message.len() < 400 && !message.contains('\n'), "{message}");
    }
}
