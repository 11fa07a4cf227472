//! What the configuration says about the store: times, and how much runs may hold.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::size::parse_size;

/// The units of times, in seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];

/// Reads a length of time, such as `90s` or `30d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, factor) =
        UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))?;
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(factor)?))
}

/// Reads a moment: `2026-11-21T13:00:00Z`, or a length of time, which means so long ago.
pub(crate) fn parse_moment(text: &str) -> Result<SystemTime, String> {
    let ago = parse_duration(text).and_then(|ago| SystemTime::now().checked_sub(ago));
    let stated = || text.parse::<Timestamp>().ok().and_then(|at| SystemTime::try_from(at).ok());
    ago.or_else(stated).ok_or_else(|| {
        format!("is `{text}`, which is no time such as 2026-11-21T13:00:00Z, or 3h for so long ago")
    })
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("is `{text}`, which is no time such as 90s, 10m, 12h or 30d"))
}

/// A time that need not be set.
pub(super) fn parse_age(text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() { Ok(None) } else { parse_time(text).map(Some) }
}

/// A day that need not be set. It stays where it is, so it is no length of time.
pub(super) fn parse_since(text: &str) -> Result<Option<SystemTime>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = text.parse::<Timestamp>().ok().and_then(|at| SystemTime::try_from(at).ok());
    at.map(Some).ok_or_else(|| format!("is `{text}`, which is no time such as 2026-11-21T13:00:00Z"))
}

/// How much runs may hold of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseSize {
    Bytes(u64),
    Percent(u64),
}

impl LeaseSize {
    pub(super) fn bytes(self, store_bytes_max: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => store_bytes_max / 100 * percent,
        }
    }
}

pub(super) fn parse_lease_size(text: &str) -> Result<LeaseSize, String> {
    const PERCENT_MAX: u64 = 80;
    let problem = || format!("is `{text}`; it is a size such as 5GB, up to {PERCENT_MAX}%, or 0 for none");
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.trim().parse().ok().filter(|percent| *percent <= PERCENT_MAX);
        return percent.map(LeaseSize::Percent).ok_or_else(problem);
    }
    parse_size(text).map(LeaseSize::Bytes).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("30d"), Some(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "d", "5", "5y", "-1h", "99999999999999999999s", "999999999999999999w"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        let day = parse_moment("2026-11-21T13:00:00Z").unwrap();
        assert_eq!(parse_since("2026-11-21T13:00:00Z"), Ok(Some(day)));
        assert!(parse_moment("1h").unwrap() < SystemTime::now());
        assert!(parse_moment("yesterday").is_err() && parse_since("1h").is_err());
    }

    #[test]
    fn what_runs_may_hold_is_a_size_or_a_part_of_the_store() {
        assert_eq!(parse_lease_size("25%").unwrap().bytes(2000), 500);
        assert_eq!(parse_lease_size("5KB").unwrap().bytes(2000), 5000);
        assert_eq!(parse_lease_size("0").unwrap().bytes(2000), 0);
        assert!(parse_lease_size("90%").is_err() && parse_lease_size("lots").is_err());
    }
}
