//! What literals of C and C++ stand for.

/// Where `needle` begins in `hay`; nowhere, if it is empty.
pub(crate) fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(hay, needle).filter(|_| !needle.is_empty())
}

/// What a literal stands for, its escapes replaced; those that name a letter of Unicode stay.
pub(super) fn decoded(inside: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else { break };
        let digits = |base: u32, most: usize, from: &[u8]| {
            from.iter().take(most).take_while(|byte| char::from(**byte).is_digit(base)).count()
        };
        match escape {
            b'0'..=b'7' => {
                let length = digits(8, 3, rest);
                bytes.push(number(&rest[..length], 8));
                rest = &rest[length..];
            }
            b'x' => {
                let length = digits(16, usize::MAX, after);
                bytes.push(number(&after[..length], 16));
                rest = &after[length..];
            }
            b'u' | b'U' | b'N' => {
                bytes.extend([b'\\', escape]);
                rest = after;
            }
            other => {
                bytes.push(match other {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => other,
                });
                rest = after;
            }
        }
    }
    bytes
}

/// The last byte of a number.
fn number(digits: &[u8], base: u32) -> u8 {
    let value = digits.iter().filter_map(|digit| char::from(*digit).to_digit(base));
    let value = value.fold(0_u32, |sum, digit| sum.wrapping_mul(base).wrapping_add(digit));
    value.to_le_bytes()[0]
}

/// The pieces of a text that have the form of what `__DATE__`, `__TIME__` or `__TIMESTAMP__` stand for, wherever they are.
pub(crate) fn like_dates(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let piece = |at: usize, before: usize, length: usize| {
        let begin = at.checked_sub(before)?;
        text.get(begin..begin + length)
    };
    let times = memchr::memchr_iter(b':', text).filter_map(move |at| {
        let is_time = |it: &&[u8]| {
            it.iter().enumerate().all(|(at, byte)| match at {
                2 | 5 => *byte == b':',
                _ => byte.is_ascii_digit(),
            })
        };
        piece(at, 2, TIME_LENGTH).filter(is_time)
    });
    let dates = memchr::memchr_iter(b' ', text)
        .filter(move |at| piece(*at, 3, 3).is_some_and(|name| MONTHS.iter().any(|month| name == *month)));
    let dates = dates.flat_map(move |at| [piece(at, 3, DATE_LENGTH), piece(at, 7, TIMESTAMP_LENGTH)]);
    times.chain(dates.flatten())
}

/// How long what they stand for is: `12:34:56`, `Jan  1 2026` and `Thu Jan  1 12:34:56 2026`.
const TIME_LENGTH: usize = 8;
const DATE_LENGTH: usize = 11;
const TIMESTAMP_LENGTH: usize = 24;

/// As they are called there.
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Whether a literal is what `__DATE__`, `__TIME__` or `__TIMESTAMP__` may have given between two instants.
///
/// The words themselves are looked for in the files; this is for those that are pasted together from pieces.
pub(crate) fn reads_like_now(literal: &[u8], seconds: (u64, u64)) -> bool {
    let is_month = |at: usize| MONTHS.iter().any(|month| literal[at..].starts_with(*month));
    match literal.len() {
        TIME_LENGTH => {
            let number = |at: usize| std::str::from_utf8(&literal[at..at + 2]).ok()?.parse::<u64>().ok();
            let (Some(_), Some(minute), Some(second)) = (number(0), number(3), number(6)) else {
                return false;
            };
            let is_time = literal[2] == b':' && literal[5] == b':';
            // Time zones differ by quarters of an hour, so the rest is the same everywhere.
            let is_at = |instant: u64| (instant / 60 % 15, instant % 60) == (minute % 15, second);
            is_time && (has_odd_zone() || (seconds.0.saturating_sub(1)..=seconds.1 + 1).any(is_at))
        }
        DATE_LENGTH => {
            is_month(0)
                && literal[3] == b' '
                && literal[6] == b' '
                && literal[7..].iter().all(u8::is_ascii_digit)
        }
        TIMESTAMP_LENGTH => is_month(4) && literal[13] == b':' && literal[16] == b':',
        _ => false,
    }
}

/// Whether the time here may differ from that elsewhere by other than quarters of an hour.
fn has_odd_zone() -> bool {
    let is_odd = |zone: &str| zone.contains(':') || zone.contains("right/");
    match std::env::var("TZ") {
        Ok(zone) => is_odd(&zone),
        Err(std::env::VarError::NotUnicode(_)) => true,
        Err(std::env::VarError::NotPresent) => {
            let zone = std::path::Path::new("/etc/localtime").canonicalize();
            zone.is_ok_and(|zone| is_odd(&zone.to_string_lossy()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_found_wherever_they_stand() {
        // 2026-11-22 16:12:49.
        let seconds = (1_795_363_969, 1_795_363_969);
        let shows_now = |text: &str| like_dates(text.as_bytes()).any(|date| reads_like_now(date, seconds));
        for text in [
            "const char *t = \"16:12:49\";",
            "16:12:49",
            "\"\\\"17:57:50\\\"\"",
            "x(\"Nov 22 2026\")",
            "Nov  2 2026",
            "\"Sun Nov 22 16:12:49 2026\"",
            "\"Sun Nov  2 01:02:03 2025\"",
        ] {
            assert!(shows_now(text), "{text}");
        }
        for text in ["", ":", "a::b", "16:12:59", "1:2:3", "Nov", " Nov 22", "16:13:49", "[12:34:56]"] {
            assert!(!shows_now(text), "{text}");
        }
    }
}
