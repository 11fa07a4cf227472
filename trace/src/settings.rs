//! [`Settings`]: where the collector is, by the variables that OpenTelemetry has for it.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::Endpoint;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Most attributes that are taken from `OTEL_RESOURCE_ATTRIBUTES`.
const ATTRIBUTES_MAX: usize = 64;

pub(crate) const MILLION: u32 = 1_000_000;

/// Where spans go, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT`, which has been checked.
    pub(crate) address: String,
    pub(crate) headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    /// Who we say that we are; `None` for the program's own name.
    pub(crate) service: Option<String>,
    pub(crate) attributes: Vec<(String, String)>,
    /// How many of a million new traces are told of.
    pub(crate) share_ppm: u32,
}

/// Why there are no traces though somebody seems to want them.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The address can't be one.
    #[error("`{0}` is no collector's address; write http://HOST:4317")]
    Endpoint(String),
    /// There is no TLS.
    #[error("`{0}` needs TLS, which is not there for traces; send them to a collector nearby")]
    Tls(String),
    /// Another way to send.
    #[error("OTLP by `{0}` is not there; only `grpc` is")]
    Protocol(String),
    /// Headers that can't be.
    #[error("`OTEL_EXPORTER_OTLP_HEADERS` is not NAME=VALUE,…")]
    Headers,
    /// A share of traces that is none.
    #[error("`OTEL_TRACES_SAMPLER_ARG` is `{0}`, which is no share between 0 and 1")]
    Share(String),
}

impl Settings {
    /// What the environment says; `None` if it says nothing of a collector, or that nothing is to be told.
    ///
    /// # Errors
    /// [`SettingsError`], if it says what is not there.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let of_traces = |end: &str| {
            set(&format!("OTEL_EXPORTER_OTLP_TRACES_{end}"))
                .or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{end}")))
        };
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(address) = of_traces("ENDPOINT").filter(|_| !is_off) else { return Ok(None) };
        if set("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp") {
            return Ok(None);
        }
        if let Some(protocol) = of_traces("PROTOCOL").filter(|protocol| protocol != "grpc") {
            return Err(SettingsError::Protocol(protocol));
        }
        let share_ppm = share(set("OTEL_TRACES_SAMPLER").as_deref(), set("OTEL_TRACES_SAMPLER_ARG"))?;
        let attributes = set("OTEL_RESOURCE_ATTRIBUTES").and_then(|text| pairs(&text)).unwrap_or_default();
        let (names, attributes): (Vec<_>, Vec<_>) =
            attributes.into_iter().partition(|(name, _)| name == "service.name");
        let named = names.into_iter().next().map(|(_, name)| name);
        Ok(Some(Self {
            address: checked(address)?,
            headers: of_traces("HEADERS").map_or(Ok(Vec::new()), |text| headers(&text))?,
            service: set("OTEL_SERVICE_NAME").or(named),
            attributes,
            share_ppm,
        }))
    }

    /// Where the collector is: `http://HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether a trace that begins now is told of: a matter of chance, if only a share is.
    pub fn chooses(&self) -> bool {
        rand::random_range(0..MILLION) < self.share_ppm
    }

    /// The way to the collector.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::from_shared(self.address.clone()).expect("an address that was checked");
        endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT)
    }

    /// What this process's environment says; what is wrong with it is logged.
    pub fn of_process() -> Option<Self> {
        let settings = Self::from_environment(|name| std::env::var(name).ok());
        settings.unwrap_or_else(|error| {
            tracing::warn!(%error, "no traces");
            None
        })
    }
}

fn checked(address: String) -> Result<String, SettingsError> {
    if address.starts_with("https://") {
        return Err(SettingsError::Tls(address));
    }
    let is_one = address.starts_with("http://") && Endpoint::from_shared(address.clone()).is_ok();
    if is_one { Ok(address) } else { Err(SettingsError::Endpoint(address)) }
}

/// How many of a million new traces are told of. What another program began, it has decided about.
fn share(sampler: Option<&str>, argument: Option<String>) -> Result<u32, SettingsError> {
    match sampler.map(|name| name.trim_start_matches("parentbased_")) {
        Some("always_off") => Ok(0),
        Some("traceidratio") => {
            let Some(text) = argument else { return Ok(MILLION) };
            let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1")]
            let of_million = |share: f64| (share * f64::from(MILLION)) as u32;
            share.map(of_million).ok_or(SettingsError::Share(text))
        }
        _ => Ok(MILLION),
    }
}

/// A header of a call, by name and value.
type Header = (MetadataKey<Ascii>, MetadataValue<Ascii>);

fn headers(text: &str) -> Result<Vec<Header>, SettingsError> {
    let pairs = pairs(text).ok_or(SettingsError::Headers)?;
    let header = |(name, value): (String, String)| {
        let name = name.to_ascii_lowercase().parse().map_err(|_| SettingsError::Headers)?;
        Ok((name, value.parse().map_err(|_| SettingsError::Headers)?))
    };
    pairs.into_iter().map(header).collect()
}

/// Reads `NAME=VALUE,…`; what may not stand in a value is written `%20` and so on.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        Some((name.trim().to_owned(), plain(value.trim())?))
    };
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    entries.take(ATTRIBUTES_MAX).map(pair).collect()
}

/// A text without its `%20`.
fn plain(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2)?;
        bytes.extend(hex::decode(code).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");

    #[test]
    fn without_a_collector_nothing_is_told() {
        assert!(settings(&[]).unwrap().is_none());
        assert!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
        assert!(settings(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(settings(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        assert!(settings(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().is_some());
    }

    #[test]
    fn the_variable_of_traces_goes_before_that_of_everything() {
        let both = [ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/")];
        let settings = settings(&both).unwrap().unwrap();
        assert_eq!(settings.endpoint().uri().authority().unwrap().as_str(), "traces:1");
    }

    #[test]
    fn what_is_not_there_is_refused_and_not_done_otherwise() {
        let wrong = |name, value| settings(&[ENDPOINT, (name, value)]).unwrap_err().to_string();
        assert!(wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").contains("http/protobuf"));
        assert!(wrong("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://x:1").contains("TLS"));
        assert!(wrong("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "x:1").contains("http://HOST:4317"));
        assert!(wrong("OTEL_EXPORTER_OTLP_HEADERS", "x").contains("HEADERS"));
        let share = [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(settings(&share).is_err());
    }

    #[test]
    fn headers_attributes_and_the_share_are_read() {
        let settings = settings(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x, tenant=a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=ci"),
            ("OTEL_SERVICE_NAME", "farm"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.headers[0].0.as_str(), "authorization");
        assert_eq!(settings.headers[0].1.to_str().unwrap(), "Bearer x");
        assert_eq!(settings.headers.len(), 2);
        assert_eq!(settings.attributes, [("deployment.environment".to_owned(), "ci".to_owned())]);
        assert_eq!(settings.service.as_deref(), Some("farm"));
        assert_eq!(settings.share_ppm, MILLION / 4);
    }
}
