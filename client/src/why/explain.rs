//! Puts two accounts side by side.

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Part};
use crate::link_time;
use crate::paths::{ABSOLUTE, INPUT_ROOT};

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Of which kind it is: `source`, `header`, `flag`, `path`, `compiler`, `setting`, `place`, `evicted` or `new`.
    pub what: &'static str,
    /// What differs, for people.
    pub text: String,
}

fn culprit(what: &'static str, text: String) -> Culprit {
    Culprit { what, text }
}

/// What made the latest compile of a source a miss, against the nearest of the earlier ones, which is returned too.
pub fn explain<'a>(latest: &Account, earlier: &'a [Account]) -> (Vec<Culprit>, Option<&'a Account>) {
    let nearest = earlier
        .iter()
        .map(|account| (differences(latest, account), account))
        .min_by_key(|(culprits, _)| culprits.len());
    match nearest {
        None => (vec![culprit("new", "no compile of this source was known before".to_owned())], None),
        Some((culprits, account)) if culprits.is_empty() => {
            let text = "nothing differs: the result was there, and has been evicted, or could not be kept";
            (vec![culprit("evicted", text.to_owned())], Some(account))
        }
        Some((culprits, account)) => (culprits, Some(account)),
    }
}

fn differences(latest: &Account, earlier: &Account) -> Vec<Culprit> {
    let mut culprits = of_files(latest, earlier);
    culprits.extend(of_words(latest, earlier));
    for change in changes(&latest.tools, &earlier.tools) {
        let name = change.name().rsplit('/').next().unwrap_or_default();
        culprits.push(culprit("compiler", format!("the compiler differs in `{name}` ({})", change.name())));
    }
    for change in changes(&latest.settings, &earlier.settings) {
        let text = match change {
            Change::Differs(name, then, now) => format!("`{name}` was `{then}` and is `{now}`"),
            Change::Came(name) => format!("`{name}` is set"),
            Change::Went(name) => format!("`{name}` is not set any more"),
        };
        culprits.push(culprit("setting", text));
    }
    if latest.place != earlier.place && !latest.place.is_empty() && !earlier.place.is_empty() {
        let (then, now) = (&earlier.place, &latest.place);
        let mut text =
            format!("the result holds the name of its project's folder: `{then}` then, `{now}` now");
        if !latest.bound_by.is_empty() {
            text.extend(["; ", latest.bound_by.as_str()]);
        }
        if latest.bound_by == link_time::STAYS.as_str() {
            text += "; hint: CASTWORK_SHARE_LTO=yes shares what gcc compiles without `-g`";
        }
        culprits.push(culprit("place", text));
    }
    culprits
}

fn of_files(latest: &Account, earlier: &Account) -> Vec<Culprit> {
    let culprits = changes(&latest.files, &earlier.files).into_iter().map(|change| match change {
        Change::Differs(name, ..) if name == latest.source => {
            culprit("source", format!("the source `{name}` has changed"))
        }
        Change::Differs(name, ..) => culprit("header", format!("header `{name}` has changed")),
        Change::Came(name) => culprit("header", format!("header `{name}` is read now, and was not")),
        Change::Went(name) => culprit("header", format!("header `{name}` was read, and is not")),
    });
    culprits.collect()
}

fn of_words(latest: &Account, earlier: &Account) -> Vec<Culprit> {
    let only = |of: &Account, other: &Account| -> Vec<String> {
        let mut left = other.words.clone();
        of.words
            .iter()
            .filter(|word| match left.iter().position(|known| known == *word) {
                Some(at) => {
                    left.remove(at);
                    false
                }
                None => true,
            })
            .cloned()
            .collect()
    };
    let mut culprits = Vec::new();
    let absolute = format!("{INPUT_ROOT}/{ABSOLUTE}/");
    for (words, how) in [(only(latest, earlier), "new"), (only(earlier, latest), "gone")] {
        for word in words {
            culprits.push(match word.split_once(&absolute) {
                Some((flag, path)) => culprit(
                    "path",
                    format!(
                        "`{flag}/{path}` is {how}: a path outside of the project, which counts as it is spelled; \
                         hint: CASTWORK_PROJECT_ROOT says what belongs to the project"
                    ),
                ),
                None => culprit("flag", format!("flag `{word}` is {how}")),
            });
        }
    }
    if culprits.is_empty() && latest.words != earlier.words {
        culprits.push(culprit("flag", "the flags are the same in another order".to_owned()));
    }
    culprits
}

/// A part that is not the same.
enum Change<'a> {
    Differs(&'a str, &'a str, &'a str),
    Came(&'a str),
    Went(&'a str),
}

impl<'a> Change<'a> {
    const fn name(&self) -> &'a str {
        match self {
            Self::Differs(name, ..) | Self::Came(name) | Self::Went(name) => name,
        }
    }
}

fn changes<'a>(now: &'a [Part], then: &'a [Part]) -> Vec<Change<'a>> {
    let by_name = |parts: &'a [Part]| -> BTreeMap<&'a str, &'a str> {
        parts.iter().map(|part| (part.name.as_str(), part.content.as_str())).collect()
    };
    let (now, then) = (by_name(now), by_name(then));
    let names: BTreeSet<&str> = now.keys().chain(then.keys()).copied().collect();
    let changes = names.into_iter().filter_map(|name| match (now.get(name), then.get(name)) {
        (Some(now), Some(then)) if now != then => Some(Change::Differs(name, then, now)),
        (Some(_), None) => Some(Change::Came(name)),
        (None, Some(_)) => Some(Change::Went(name)),
        _ => None,
    });
    changes.collect()
}
