//! [`Span`]: something that was done, from when to when.

use std::time::{Duration, SystemTime};

use castwork_proto::otlp::common::v1::{AnyValue, KeyValue, any_value};
use castwork_proto::otlp::trace::v1::span::SpanKind;
use castwork_proto::otlp::trace::v1::{self as proto, Status, status::StatusCode};

use crate::Begun;

/// On which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None: it is the program's own doing.
    Internal,
    /// It answers.
    Server,
    /// It asks.
    Client,
}

/// What can be said of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that was done, from when to when.
#[derive(Clone, Debug)]
pub struct Span {
    /// What was done.
    pub name: &'static str,
    /// On which side of a call.
    pub kind: Kind,
    /// Its names, and what it is a part of.
    pub begun: Begun,
    /// When it began.
    pub from: SystemTime,
    /// When it ended.
    pub to: SystemTime,
    /// What else is to be known: `castwork.action` and the like.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Span {
    /// A span that ends now.
    pub fn until_now(name: &'static str, kind: Kind, begun: Begun, from: SystemTime) -> Self {
        Self { name, kind, begun, from, to: SystemTime::now(), attributes: Vec::new(), failure: None }
    }

    /// A part of this span that the same program did.
    #[must_use]
    pub fn part(&self, name: &'static str, from: SystemTime, to: SystemTime) -> Self {
        let begun = Begun::within(&self.begun.context);
        Self { name, kind: Kind::Internal, begun, from, to, attributes: Vec::new(), failure: None }
    }

    /// The same with one more attribute; an empty text says nothing and is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if value != Value::Text(String::new()) {
            self.attributes.push((name, value));
        }
        self
    }

    pub(crate) fn into_proto(self) -> proto::Span {
        let Self { name, kind, begun, from, to, attributes, failure } = self;
        let kind = match kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        };
        let status = |message| Status { message, code: StatusCode::Error as i32 };
        proto::Span {
            trace_id: begun.context.trace().to_vec().into(),
            span_id: begun.context.span().to_vec().into(),
            parent_span_id: begun.parent.map(|parent| parent.to_vec()).unwrap_or_default().into(),
            name: name.to_owned(),
            kind: kind as i32,
            start_time_unix_nano: nanos(from),
            // A clock that was set back makes no span of less than nothing.
            end_time_unix_nano: nanos(to.max(from)),
            attributes: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            status: failure.map(status),
        }
    }
}

/// An attribute as it is sent.
pub(crate) fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn nanos(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of so many nanoseconds since the epoch of Unix.
pub fn unix_nanos(nanos: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
