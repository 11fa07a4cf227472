//! Who is an operator: whose calls may change what others see, and see what others could be disturbed with.

use tonic::{Request, Status};

use crate::config::Operators;

/// Whether a call comes from an operator.
pub(super) fn is_operator<T>(request: &Request<T>, operators: Operators) -> bool {
    operators == Operators::Anyone
        || request.remote_addr().is_none_or(|address| address.ip().to_canonical().is_loopback())
}

/// Refuses a call that does not come from one.
pub(super) fn check_operator<T>(request: &Request<T>, operators: Operators) -> Result<(), Status> {
    const WHY: &str = "only from the server's own machine; with `operators = \"anyone\"` in its configuration from everywhere";
    if is_operator(request, operators) { Ok(()) } else { Err(Status::permission_denied(WHY)) }
}

#[cfg(test)]
mod tests {
    use tonic::transport::server::TcpConnectInfo;

    use super::*;

    fn from(address: &str) -> Request<()> {
        let mut request = Request::new(());
        let remote_addr = Some(address.parse().unwrap());
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
        request
    }

    #[test]
    fn operators_call_from_the_servers_own_machine_unless_everybody_is_one() {
        for here in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "127.3.4.5:1"] {
            assert!(check_operator(&from(here), Operators::Local).is_ok(), "{here}");
        }
        for elsewhere in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1"] {
            let refused = check_operator(&from(elsewhere), Operators::Local).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{elsewhere}");
            assert!(check_operator(&from(elsewhere), Operators::Anyone).is_ok(), "{elsewhere}");
        }
    }
}
