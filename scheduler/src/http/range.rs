//! [`Part`]: which bytes of an entry a client wants.

use axum::http::{HeaderMap, header};

/// The bytes from `start` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What the headers of a request ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// Some of it: the answer is `206`.
    Some(Part),
    /// What lies past the end: the answer is `416`.
    PastTheEnd,
}

/// Reads `Range` for an entry of `bytes` bytes.
///
/// Several ranges, other units, and what is no range at all mean the whole entry (RFC 9110, 14.2), and so
/// does a range under a condition, because no version that a client may know can be compared here.
pub(super) fn wanted(headers: &HeaderMap, bytes: u64) -> Wanted {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some(range) = range.filter(|_| !headers.contains_key(header::IF_RANGE)) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => part(start, last.saturating_add(1).min(bytes)),
        (Some(start), None) if last.is_empty() => part(start, bytes),
        (None, Some(count)) if first.is_empty() && count > 0 => part(bytes.saturating_sub(count), bytes),
        (None, Some(_)) if first.is_empty() => Wanted::PastTheEnd,
        _ => Wanted::Whole,
    }
}

fn part(start: u64, end: u64) -> Wanted {
    if start < end { Wanted::Some(Part { start, end }) } else { Wanted::PastTheEnd }
}

/// Digits and nothing else; what does not fit is beyond any entry.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(range: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        wanted(&headers, 10)
    }

    #[test]
    fn a_range_is_from_to_or_the_last_so_many() {
        let some = |start, end| Wanted::Some(Part { start, end });
        assert_eq!(read("bytes=2-4"), some(2, 5));
        assert_eq!(read("bytes=2-"), some(2, 10));
        assert_eq!(read("bytes=-3"), some(7, 10));
        assert_eq!(read("bytes=0-99999999999999999999999"), some(0, 10));
        assert_eq!(read("bytes=-99"), some(0, 10));
    }

    #[test]
    fn what_lies_past_the_end_is_told_from_what_is_no_range() {
        for past in ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(read(past), Wanted::PastTheEnd, "{past}");
        }
        for no_range in ["bytes=4-2", "bytes=1-2,4-5", "bytes=", "bytes=-", "bytes=+1-2", "lines=1-2", "x"] {
            assert_eq!(read(no_range), Wanted::Whole, "{no_range}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_judged_means_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=2-4".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"v1\"".parse().unwrap());
        assert_eq!(wanted(&headers, 10), Wanted::Whole);
    }
}
