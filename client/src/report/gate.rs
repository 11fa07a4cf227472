//! [`Gate`]: whether enough of a run came from a cache.

use castwork_proto::runs::{Part, Report};

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// So many of a hundred have to be hits.
    pub(super) percent_min: f64,
    /// Whether what was built in a configuration for the first time does not count.
    pub(super) graces_first: bool,
}

/// Whether a run came up to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It did.
    Held,
    /// All of it was the first run of its configuration.
    FirstRun,
    /// It did not.
    Fallen,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) hits: u64,
    pub(super) asked: u64,
}

impl Rate {
    /// Of a part of a run: by what its client says, who knows of local hits too; else by what the server saw.
    pub(super) fn of(part: &Part) -> Self {
        if let Some(told) = &part.told {
            return Self { hits: told.local_hits + told.remote_hits, asked: told.compiles };
        }
        let seen = part.seen.clone().unwrap_or_default();
        Self { hits: seen.hits, asked: seen.hits + seen.misses.values().sum::<u64>() }
    }

    /// Of several.
    pub(super) fn of_all<'a>(parts: impl Iterator<Item = &'a Part>) -> Self {
        parts.map(Self::of).fold(Self::default(), |sum, part| Self {
            hits: sum.hits + part.hits,
            asked: sum.asked + part.asked,
        })
    }

    /// Hits of a hundred; of nothing, none.
    #[expect(clippy::cast_precision_loss, reason = "counts of a build, compared in percent")]
    pub(super) fn percent(self) -> f64 {
        if self.asked == 0 { 0.0 } else { self.hits as f64 * 100.0 / self.asked as f64 }
    }
}

impl Gate {
    /// Judges a run in which something was asked for; and says what was judged.
    pub(super) fn judge(self, report: &Report) -> (Verdict, Rate) {
        let judged = report.parts.iter().filter(|part| !(self.graces_first && part.is_first));
        let rate = Rate::of_all(judged);
        let verdict = if self.graces_first && rate.asked == 0 {
            Verdict::FirstRun
        } else if rate.percent() >= self.percent_min {
            Verdict::Held
        } else {
            Verdict::Fallen
        };
        (verdict, rate)
    }
}

#[cfg(test)]
mod tests {
    use castwork_proto::runs::{Seen, Told};

    use super::*;

    fn told(compiles: u64, local_hits: u64, remote_hits: u64, is_first: bool) -> Part {
        let told = Told { compiles, local_hits, remote_hits, ..Told::default() };
        Part { told: Some(told), is_first, ..Part::default() }
    }

    fn verdict(parts: Vec<Part>, percent_min: f64, graces_first: bool) -> Verdict {
        Gate { percent_min, graces_first }.judge(&Report { parts, ..Report::default() }).0
    }

    #[test]
    fn as_many_as_are_asked_for_are_enough() {
        assert_eq!(verdict(vec![told(10, 4, 5, false)], 90.0, false), Verdict::Held);
        assert_eq!(verdict(vec![told(1000, 400, 499, false)], 90.0, false), Verdict::Fallen);
        assert_eq!(verdict(vec![told(3, 0, 0, false)], 0.0, false), Verdict::Held);
    }

    #[test]
    fn a_first_run_passes_only_where_that_was_said() {
        let cold = || vec![told(10, 0, 0, true)];
        assert_eq!(verdict(cold(), 90.0, true), Verdict::FirstRun);
        assert_eq!(verdict(cold(), 90.0, false), Verdict::Fallen);
    }

    #[test]
    fn a_new_compiler_does_not_excuse_the_old_one() {
        let parts = vec![told(10, 0, 0, true), told(10, 5, 0, false)];
        assert_eq!(verdict(parts, 90.0, true), Verdict::Fallen);
        let parts = vec![told(10, 0, 0, true), told(10, 9, 0, false)];
        assert_eq!(verdict(parts, 90.0, true), Verdict::Held);
    }

    #[test]
    fn a_client_that_tells_nothing_is_judged_by_what_the_server_saw() {
        let seen = Seen { hits: 19, misses: [("evicted".to_owned(), 1)].into(), ..Seen::default() };
        let part = Part { seen: Some(seen), ..Part::default() };
        assert_eq!(Rate::of(&part), Rate { hits: 19, asked: 20 });
        assert_eq!(verdict(vec![part], 95.0, false), Verdict::Held);
    }
}
