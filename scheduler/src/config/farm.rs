//! What the file says about the farm: how properties are matched, and who gets how much.

use super::Checker;
use super::file::Entry;
use crate::dispatch::{Kind, Kinds};
use crate::queue::Weights;

/// The largest weight, in hundredths.
const WEIGHT_MAX: u32 = 100_000;

impl Checker<'_> {
    pub(super) fn kinds(&mut self, rows: Vec<[Option<Entry>; 2]>) -> Kinds {
        let mut named = Vec::new();
        for [name, kind] in rows {
            let (Some(name), Some(kind)) = (name, kind) else {
                self.complain("[[property]]", "property", "has both a `name` and a `kind`".to_owned());
                continue;
            };
            if let Some(kind) = self.parse("property.kind", &kind, parse_kind) {
                named.push((name.text, kind));
            }
        }
        Kinds::new(named)
    }

    pub(super) fn weights(&mut self, rows: Vec<[Option<Entry>; 3]>) -> Weights {
        let mut weights = Weights::default();
        for [instance, principal, weight] in rows {
            let weight = weight.and_then(|weight| self.parse("share.weight", &weight, parse_weight));
            match (instance, principal, weight) {
                (Some(instance), None, Some(weight)) => {
                    weights.instances.insert(instance.text, weight);
                }
                (None, Some(principal), Some(weight)) => {
                    weights.principals.insert(principal.text, weight);
                }
                _ => {
                    let problem = "has a `weight` and either an `instance` or a `principal`".to_owned();
                    self.complain("[[share]]", "share", problem);
                }
            }
        }
        weights
    }
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::from_name(text).ok_or_else(|| format!("is `{text}`; there are `{}`", Kind::NAMES.join("`, `")))
}

/// In hundredths.
fn parse_weight(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hundredths = format!("{part:0<2}");
    let legal = !whole.is_empty() && digits(whole) && digits(part) && hundredths.len() == 2;
    let weight = if legal { format!("{whole}{hundredths}").parse().ok() } else { None };
    weight
        .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
        .ok_or_else(|| format!("is `{text}`, which is no weight from 0.01 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::parse_weight;

    #[test]
    fn weights_have_two_places() {
        assert_eq!(
            ["1", "0.5", "2.25", "1000"].map(|text| parse_weight(text).unwrap()),
            [100, 50, 225, 100_000]
        );
        for text in ["", "0", "-1", "1001", "0.001", "x", ".5"] {
            assert!(parse_weight(text).is_err(), "{text}");
        }
    }
}
