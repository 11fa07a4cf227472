//! `castwork upload`: sends what still waits to be sent.

use castwork_cas::Objects;

use crate::config::{Address, Config};
use crate::run::complain;
use crate::tiers::ObjectsTier;

/// Sends it to every store where something waits, and returns the exit code.
pub fn run(config: &Config) -> u8 {
    let mut code = 0;
    for remote in config.remotes.iter().filter(|remote| !remote.is_read_only) {
        let Address::Objects(url) = &remote.address else { continue };
        let sent = match ObjectsTier::new(url, remote.is_read_only, config) {
            Ok(tier) => tier.flush().map_err(|error| error.reason().to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = sent {
            complain(&format!("what waited for {} could not be sent: {reason}", Objects::shown(url)));
            code = 1;
        }
    }
    code
}
