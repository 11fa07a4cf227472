//! [`Network`]: a network namespace with one way out, which can be cut.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use castwork_tests::{have, skip};

/// Tells the networks of one process apart.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace; gone when this is dropped.
pub(crate) struct Network {
    namespace: String,
    /// Our end of the way out. The other is in the namespace.
    link: String,
    address: String,
}

impl Network {
    /// Makes one. `None` where that is not allowed; the test is skipped then.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !have(test, "ip") || !have(test, "nsenter") {
            return None;
        }
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number}", std::process::id() % 100_000);
        let third = std::process::id() % 250;
        let (ours, theirs) = (format!("10.213.{third}.{}", 4 * number + 1), 4 * number + 2);
        let made = Self { namespace: format!("cw{name}"), link: format!("cwa{name}"), address: ours.clone() };
        let (space, link, inner) = (made.namespace.clone(), made.link.clone(), format!("cwb{name}"));
        let steps = [
            format!("netns add {space}"),
            format!("link add {link} type veth peer name {inner} netns {space}"),
            format!("addr add {ours}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {space} addr add 10.213.{third}.{theirs}/30 dev {inner}"),
            format!("-n {space} link set {inner} up"),
            format!("-n {space} link set lo up"),
        ];
        match steps.iter().find(|step| !ip(step)) {
            None => Some(made),
            Some(step) => {
                skip(test, &format!("`ip {step}` fails: it wants root"));
                None
            }
        }
    }

    /// Our address, which can be reached from inside.
    pub(crate) fn outside(&self) -> &str {
        &self.address
    }

    /// What has to stand before a command for it to run inside.
    pub(crate) fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace)]
    }

    /// Has nothing pass any more, in neither direction, and tells nobody.
    pub(crate) fn cut(&self) {
        assert!(self.set("down"), "cut the network");
    }

    /// Has everything pass again.
    pub(crate) fn mend(&self) {
        assert!(self.set("up"), "mend the network");
    }

    fn set(&self, state: &str) -> bool {
        let inner = self.link.replacen("cwa", "cwb", 1);
        ip(&format!("-n {} link set {inner} {state}", self.namespace))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link goes with the namespace.
        ip(&format!("netns del {}", self.namespace));
    }
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
