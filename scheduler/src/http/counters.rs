//! [`HttpCounters`]: what clients without gRPC have asked for, by the cache that they use.

use std::fmt::Write as _;

use super::route::Protocol;
use crate::counters::Counter;

/// What was asked of one cache.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Requests that arrived, whatever their answer.
    pub(super) requests: Counter,
    /// Lookups that found something.
    pub(super) hits: Counter,
    /// Lookups that found nothing.
    pub(super) misses: Counter,
    /// Entries that were stored.
    pub(super) stored: Counter,
}

/// One number of a row.
type Column = fn(&Row) -> &Counter;

/// A row for each protocol.
#[derive(Debug, Default)]
pub(crate) struct HttpCounters {
    rows: [Row; Protocol::ALL.len()],
}

impl HttpCounters {
    pub(super) fn of(&self, protocol: Protocol) -> &Row {
        &self.rows[protocol as usize]
    }

    /// Appends them in Prometheus' text format.
    pub(crate) fn write_to(&self, text: &mut String) {
        let columns: [(&str, &str, Column); 4] = [
            ("castwork_http_requests_total", "HTTP requests that arrived.", |row| &row.requests),
            ("castwork_http_hits_total", "HTTP lookups that found an entry.", |row| &row.hits),
            ("castwork_http_misses_total", "HTTP lookups that found none.", |row| &row.misses),
            ("castwork_http_stored_total", "Entries stored over HTTP.", |row| &row.stored),
        ];
        for (name, help, column) in columns {
            write_to(text, format_args!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            for protocol in Protocol::ALL {
                let value = column(self.of(protocol)).value();
                write_to(text, format_args!("{name}{{cache=\"{}\"}} {value}\n", protocol.name()));
            }
        }
    }
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_has_numbers_of_its_own() {
        let counters = HttpCounters::default();
        counters.of(Protocol::Ccache).hits.add(2);
        let mut text = String::new();
        counters.write_to(&mut text);
        assert!(text.contains("castwork_http_hits_total{cache=\"ccache\"} 2\n"), "{text}");
        assert!(text.contains("castwork_http_hits_total{cache=\"bazel\"} 0\n"), "{text}");
    }
}
