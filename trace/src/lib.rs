//! What happened when, told to a collector of OpenTelemetry, so that the way of an action can be looked at.
//!
//! One action is one trace. Who asks for it begins the trace, and says so to whom it asks ([`Context`]); each
//! program on the way tells the collector what it did ([`Span`]) by OTLP over gRPC. A program is told where the
//! collector is by the environment variables that OpenTelemetry has for that ([`Settings`]). None of it is
//! needed, so nothing waits for it: what the collector does not take in time is left out.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod context;
mod export;
mod settings;
mod span;

pub use context::{Begun, Context, HEADER};
pub use export::{Exporter, Exporting, Tracer};
pub use settings::{Settings, SettingsError};
pub use span::{Kind, Span, Value, unix_nanos};
