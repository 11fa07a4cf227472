//! [`Reason`]: why a call was not answered from a cache or a worker, as `castwork stats` counts it.

use std::borrow::Cow;
use std::fmt;

/// Most bytes of a reason; flags that users invent can be long.
const REASON_BYTES_MAX: usize = 120;

/// Why something was not done, in words that are the same for each call of the kind.
///
/// It is a name to count under, so it holds no file names; a flag's spelling is the most specific thing in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(Cow<'static, str>);

impl Reason {
    /// A reason that is known beforehand.
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A reason with something of this call in it, cut to a bounded length.
    pub fn of(mut text: String) -> Self {
        if text.len() > REASON_BYTES_MAX {
            let mut end = REASON_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
        Self(Cow::Owned(text))
    }

    /// The name to count under.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}
