//! [`Context`]: which span of which trace, as programs tell each other.

use std::fmt;
use std::str::FromStr;

/// The header that carries a context from one program to the next: W3C Trace Context.
pub const HEADER: &str = "traceparent";

/// A span of a trace, by its names. Neither of them is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

/// What was given as a context is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a `traceparent` as W3C has it")]
pub struct NoContext;

impl Context {
    /// The outermost span of a new trace.
    pub fn root() -> Self {
        // All zeros mean none, so the last bit is set.
        let trace = (rand::random::<u128>() | 1).to_be_bytes();
        Self { trace, span: span_id(), is_sampled: true }
    }

    /// A span within this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: span_id(), ..*self }
    }

    /// The trace's name.
    pub const fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The trace's name as people see it.
    pub fn trace_hex(&self) -> String {
        hex::encode(self.trace)
    }

    /// The span's name within the trace.
    pub const fn span(&self) -> [u8; 8] {
        self.span
    }

    /// Whether anybody wants to hear of it.
    pub const fn is_sampled(&self) -> bool {
        self.is_sampled
    }
}

fn span_id() -> [u8; 8] {
    (rand::random::<u64>() | 1).to_be_bytes()
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace), hex::encode(self.span))
    }
}

impl FromStr for Context {
    type Err = NoContext;

    /// Takes later versions by what they share with the first, as the standard wants it.
    fn from_str(text: &str) -> Result<Self, NoContext> {
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|part| !part.bytes().any(|it| it.is_ascii_uppercase()));
        let mut version = [0; 1];
        let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0; 1]);
        let fields: [&mut [u8]; 4] = [&mut version, &mut trace, &mut span, &mut flags];
        for field in fields {
            hex::decode_to_slice(next().ok_or(NoContext)?, field).map_err(|_| NoContext)?;
        }
        let is_first_version = version == [0];
        let has_more = parts.next().is_some();
        if version == [0xff] || trace == [0; 16] || span == [0; 8] || is_first_version && has_more {
            return Err(NoContext);
        }
        Ok(Self { trace, span, is_sampled: flags[0] & 1 == 1 })
    }
}

/// A span that has begun, and what it is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its own names.
    pub context: Context,
    /// The span around it, unless it is the outermost.
    pub parent: Option<[u8; 8]>,
}

impl Begun {
    /// A span within another one, of which another program may have told.
    pub fn within(parent: &Context) -> Self {
        Self { context: parent.child(), parent: Some(parent.span) }
    }

    /// The outermost span of a new trace.
    pub fn root() -> Self {
        Self { context: Context::root(), parent: None }
    }

    /// Another program's span, that what is called is told of as if there was nothing between.
    pub const fn elsewhere(context: Context) -> Self {
        Self { context, parent: None }
    }
}

impl fmt::Display for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.map(hex::encode).unwrap_or_default();
        write!(f, "{}/{parent}", self.context)
    }
}

impl FromStr for Begun {
    type Err = NoContext;

    fn from_str(text: &str) -> Result<Self, NoContext> {
        let (context, parent) = text.split_once('/').ok_or(NoContext)?;
        let mut id = [0; 8];
        let parent = match parent {
            "" => None,
            parent => {
                hex::decode_to_slice(parent, &mut id).map_err(|_| NoContext)?;
                Some(id)
            }
        };
        Ok(Self { context: context.parse()?, parent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_as_it_is_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: Context = text.parse().unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), text);
        let child = context.child();
        assert_eq!(child.trace(), context.trace());
        assert_ne!(child.span(), context.span());
        assert_eq!(child.to_string().parse(), Ok(child));
        assert!(!text.replace("-01", "-00").parse::<Context>().unwrap().is_sampled());
    }

    #[test]
    fn a_span_that_has_begun_is_read_as_it_is_written() {
        for begun in [Begun::root(), Begun::within(&Context::root())] {
            assert_eq!(begun.to_string().parse(), Ok(begun));
        }
        assert!("".parse::<Begun>().is_err());
    }

    #[test]
    fn a_later_version_may_say_more_and_the_first_may_not() {
        let text = |version: &str| {
            format!("{version}-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").parse::<Context>()
        };
        assert!(text("01").is_ok());
        assert!(text("00").is_err() && text("ff").is_err());
    }

    #[test]
    fn what_is_no_context_is_refused() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        ] {
            assert!(text.parse::<Context>().is_err(), "{text}");
        }
    }
}
