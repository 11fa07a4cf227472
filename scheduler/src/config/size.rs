//! Sizes as people write them.

/// The units, with what they stand for.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("B", 1),
    ("K", 1_000),
    ("KB", 1_000),
    ("KIB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("MIB", 1 << 20),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("GIB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TIB", 1 << 40),
];

/// Reads a whole number and a unit, such as `20GB` or `1 TiB`; upper and lower case are the same.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_uppercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("20GB", 20_000_000_000),
            ("500MB", 500_000_000),
            ("1TiB", 1 << 40),
            ("64 kib", 65_536),
            ("7", 7),
            ("7B", 7),
            ("3g", 3_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_none() {
        for text in ["", "GB", "-1GB", "1.5GB", "20GX", "99999999999TB", "1 0GB", "0x10"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
