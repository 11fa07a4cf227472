//! [`Weights`]: how large the shares of instances and principals are, where they are not equal.

use std::collections::BTreeMap;

/// Weights in hundredths, by name; who has none has 100. Twice the weight is twice the share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// By instance name.
    pub instances: BTreeMap<String, u32>,
    /// By principal.
    pub principals: BTreeMap<String, u32>,
}

impl Weights {
    pub(super) fn of_instance(&self, name: &str) -> u32 {
        self.instances.get(name).copied().unwrap_or(100)
    }

    pub(super) fn of_principal(&self, name: &str) -> u32 {
        self.principals.get(name).copied().unwrap_or(100)
    }
}
