//! What the file says about the farm: how properties are matched, and who gets how much.

use std::time::Duration;

use super::file::Entry;
use super::{Checker, Operators};
use crate::dispatch::{Kind, Kinds};
use crate::queue::Weights;

/// The largest weight, in hundredths.
const WEIGHT_MAX: u32 = 100_000;

/// The most seconds that can be asked for: a week.
const SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// What the queue is told.
pub(super) struct Farm {
    pub(super) wait_for_workers: Duration,
    pub(super) hedge_after: Option<Duration>,
    pub(super) recheck_per_million: u32,
    pub(super) operators: Operators,
}

impl Checker<'_> {
    pub(super) fn farm(
        &mut self,
        wait_for_workers: Option<Entry>,
        hedge_after: Option<Entry>,
        recheck_percent: Option<Entry>,
        operators: Option<Entry>,
    ) -> Farm {
        let wait = self.pick("wait-for-workers", None, wait_for_workers, "60", parse_seconds);
        let hedge_after = self.pick("hedge-after", None, hedge_after, "30", parse_seconds);
        let recheck = self.pick("recheck-percent", None, recheck_percent, "0", parse_percent);
        let operators = self.pick("operators", None, operators, "local", parse_operators);
        Farm {
            wait_for_workers: wait.flatten().unwrap_or_default(),
            hedge_after: hedge_after.flatten(),
            recheck_per_million: recheck.unwrap_or_default(),
            operators: operators.unwrap_or_default(),
        }
    }

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

fn parse_operators(text: &str) -> Result<Operators, String> {
    match text {
        "local" => Ok(Operators::Local),
        "anyone" => Ok(Operators::Anyone),
        _ => Err(format!("is `{text}`; there are `local` and `anyone`")),
    }
}

/// `None` for 0.
fn parse_seconds(text: &str) -> Result<Option<Duration>, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX);
    let seconds =
        seconds.ok_or_else(|| format!("is `{text}`, which is no number of seconds up to a week"))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Into parts of a million.
fn parse_percent(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let legal = !whole.is_empty() && digits(whole) && digits(part) && part.len() <= 4;
    let number = if legal { format!("{whole}{part:0<4}").parse().ok() } else { None };
    number
        .filter(|parts| *parts <= 1_000_000)
        .ok_or_else(|| format!("is `{text}`, which is no percentage from 0 to 100 with four places at most"))
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
    use super::*;

    #[test]
    fn percentages_and_seconds_are_read_exactly() {
        assert_eq!(
            ["0", "0.1", "100", "0.0001"].map(|text| parse_percent(text).unwrap()),
            [0, 1_000, 1_000_000, 1]
        );
        for text in ["", "-1", "100.1", "0.00001", "x", ".5", "1e3"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
        assert_eq!(parse_seconds("0"), Ok(None));
        assert_eq!(parse_seconds("30"), Ok(Some(Duration::from_secs(30))));
        assert!(parse_seconds("604801").is_err() && parse_seconds("30s").is_err());
    }

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
