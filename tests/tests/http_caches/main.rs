//! ccache and sccache, unmodified, with the HTTP port of ours as their remote storage.
//!
//! Each says itself how many of its lookups the remote answered: that is what is checked, and that the objects are
//! those of the compiler.

#![allow(clippy::unwrap_used, reason = "a test")]

mod ccache;
mod sccache;
mod sources;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use castwork_tests::Farm;

/// What the HTTP port counts: the value of `castwork_http_NAME_total` for one cache.
pub(crate) fn counted(farm: &Farm, name: &str, cache: &str) -> u64 {
    let mut stream = TcpStream::connect(farm.http()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let line = format!("castwork_http_{name}_total{{cache=\"{cache}\"}} ");
    let value = metrics.lines().find_map(|row| row.strip_prefix(&line));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no `{line}` in\n{metrics}"))
}
