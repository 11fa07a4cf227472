//! Why a run had no more hits, in sentences for people.

use castwork_proto::runs::Report;

use super::totals::Totals;

/// Most sentences; the weightiest come first.
const SENTENCES_MAX: usize = 5;

/// Why there were not more hits, as far as anybody knows.
pub(super) fn because(report: &Report) -> Vec<String> {
    let totals = Totals::of(report);
    let mut causes: Vec<(u64, String)> = Vec::new();
    let told = totals.told.clone().unwrap_or_default();
    if told.fallbacks > 0 {
        let text = "had to be compiled here, because something remote failed: see `reasons`";
        causes.push((told.fallbacks, text.to_owned()));
    }
    if let Some(seen) = &totals.seen {
        causes.extend(seen.misses.iter().map(|(cause, count)| (*count, of_cause(cause))));
    }
    let explained: u64 = causes.iter().map(|(count, _)| count).sum();
    let misses = totals.rate.asked.saturating_sub(totals.rate.hits);
    if misses > explained {
        let text =
            "nothing like it was kept, as far as this machine knows: `castwork why FILE` names what differs";
        causes.push((misses - explained, text.to_owned()));
    }
    causes.retain(|(count, _)| *count > 0);
    causes.sort_by(|(a, _), (b, _)| b.cmp(a));
    causes.into_iter().take(SENTENCES_MAX).map(|(count, text)| format!("{count} × {text}")).collect()
}

/// What a cause that the server names means.
fn of_cause(cause: &str) -> String {
    let text = match cause {
        "never_seen" => {
            "the server has never had a result of it, so it is new, or something in it differs: `castwork why FILE` names what"
        }
        "evicted" => "the server had a result and let it go to make room: its `--max-size` is small for this",
        "incomplete" => "the server has a result, and a file of it is gone",
        "too_old" => "the server had a result, and it was too old",
        "do_not_cache" => "its result must not be kept, says the client",
        "skip_cache_lookup" => "the client did not want the cache asked",
        // Of a server that knows more than we do.
        other => other,
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use castwork_proto::runs::{Part, Seen, Told};

    use super::*;

    fn because_of(seen: Option<Seen>, told: Told) -> Vec<String> {
        because(&Report {
            parts: vec![Part { seen, told: Some(told), ..Part::default() }],
            ..Report::default()
        })
    }

    #[test]
    fn causes_are_named_the_weightiest_first_and_what_nobody_knows_too() {
        let misses = [("evicted".to_owned(), 1), ("never_seen".to_owned(), 3)].into();
        let told = Told { compiles: 8, local_hits: 1, fallbacks: 2, ..Told::default() };
        let said = because_of(Some(Seen { misses, ..Seen::default() }), told);
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].starts_with("3 × the server has never had"), "{said:?}");
        assert!(said[1].starts_with("2 × had to be compiled here"), "{said:?}");
        assert!(
            said.iter().any(|it| it.contains("--max-size")) && said[3].contains("castwork why"),
            "{said:?}"
        );
    }

    #[test]
    fn without_a_server_it_says_where_to_look() {
        let said = because_of(None, Told { compiles: 2, ..Told::default() });
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("2 × nothing like it was kept"), "{said:?}");
        assert!(because_of(None, Told { compiles: 2, local_hits: 2, ..Told::default() }).is_empty());
    }
}
