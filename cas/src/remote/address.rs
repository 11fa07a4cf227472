//! Reads addresses, and sets up connections to them.

use std::time::Duration;

use tonic::transport::Endpoint;

/// The longest wait for a connection; shorter if a call may not take as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent server is asked whether it is still there this often, and given as long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What may be under way unread, in bytes: enough for a gigabit at 30 ms.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Reads `grpc://HOST:PORT`.
///
/// # Errors
/// In words, what to write instead.
pub(super) fn endpoint(address: &str, timeout: Duration) -> Result<Endpoint, String> {
    let authority = match address.split_once("://") {
        Some(("grpc", authority)) => authority,
        Some(("grpcs", _)) => {
            return Err("grpcs:// (TLS) is not supported yet; use grpc:// through a tunnel".to_owned());
        }
        Some((scheme, _)) => return Err(format!("`{scheme}://` is not an address of a server; use grpc://")),
        None => return Err("an address is written grpc://HOST:PORT".to_owned()),
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if !has_port || authority.contains(['/', '?', '#', '@']) {
        return Err("an address is written grpc://HOST:PORT, with nothing after the port".to_owned());
    }
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
    Ok(endpoint
        // Otherwise small messages wait for the acknowledgement of earlier ones, 40 ms each.
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<Endpoint, String> {
        endpoint(address, Duration::from_secs(1))
    }

    #[test]
    fn hosts_and_both_kinds_of_numbers_are_addresses() {
        for address in
            ["grpc://localhost:8980", "grpc://10.0.0.1:1", "grpc://[::1]:8980", "grpc://a.b-c:65535"]
        {
            let endpoint = read(address).expect(address);
            assert_eq!(endpoint.uri().authority().unwrap().as_str(), &address["grpc://".len()..]);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_the_reason_says_what_to_write() {
        for address in [
            "",
            "localhost:8980",
            "grpc://",
            "grpc://localhost",
            "grpc://:8980",
            "grpc://a:0",
            "grpc://a:b",
            "grpc://a:65536",
            "grpc://a:1/",
            "grpc://a:1/x",
            "grpc://u@a:1",
            "grpc://a b:1",
        ] {
            assert!(read(address).is_err(), "{address:?}");
        }
        assert!(read("grpcs://a:1").unwrap_err().contains("not supported yet"));
        assert!(read("http://a:1").unwrap_err().contains("use grpc://"));
    }
}
