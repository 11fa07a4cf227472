//! The time in a COFF object, which incremental linkers go by.
//!
//! `clang-cl` writes into each object when it was made, unless it is told `/Brepro`. All other bytes are the same each
//! time. So an object from a cache gets the time at which it is delivered, as the compiler would have given it now.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machines whose objects are known: x86, Arm, x86-64, Arm64 and its two mixtures, as their first two bytes say.
const MACHINES: [[u8; 2]; 6] =
    [[0x4c, 0x01], [0xc4, 0x01], [0x64, 0x86], [0x64, 0xaa], [0x41, 0xa6], [0x4e, 0xa6]];

/// Where an object's time is.
const TIME_AT: usize = 4;

/// How an object of many sections begins (`/bigobj`), version 2.
const BIG: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x02, 0x00];

/// Where its time is.
const BIG_TIME_AT: usize = 8;

/// The object with the present time, if it has one.
pub fn with_time_of_now(object: &[u8]) -> Cow<'_, [u8]> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The format has no more bytes for it.
    #[expect(clippy::cast_possible_truncation, reason = "as the compiler does")]
    with_time(object, now as u32)
}

/// The object with another time, if it has one.
fn with_time(object: &[u8], seconds: u32) -> Cow<'_, [u8]> {
    let at = match object {
        [a, b, ..] if MACHINES.contains(&[*a, *b]) => TIME_AT,
        _ if object.starts_with(&BIG) => BIG_TIME_AT,
        _ => return object.into(),
    };
    match object.get(at..at + 4) {
        None | Some([0, 0, 0, 0]) => object.into(),
        Some(_) => {
            let mut object = object.to_vec();
            object[at..at + 4].copy_from_slice(&seconds.to_le_bytes());
            object.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_replaced_where_there_is_one_and_nowhere_else() {
        let plain = [0x64, 0x86, 9, 9, 1, 2, 3, 4, 9];
        assert_eq!(with_time(&plain, 0x0807_0605)[..], [0x64, 0x86, 9, 9, 5, 6, 7, 8, 9]);
        let big = [0, 0, 0xff, 0xff, 2, 0, 0x64, 0x86, 1, 2, 3, 4, 9];
        assert_eq!(with_time(&big, 0x0807_0605)[..], [0, 0, 0xff, 0xff, 2, 0, 0x64, 0x86, 5, 6, 7, 8, 9]);
        for other in
            [&[0x64, 0x86, 9, 9, 0, 0, 0, 0, 9][..], b"\x7fELF\x02\x01\x01\0\0\0", &[0x64, 0x86], &[]]
        {
            assert_eq!(with_time(other, 7)[..], *other);
        }
    }
}
