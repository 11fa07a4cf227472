//! [`PreparedActions`]: the messages that workers get with their leases, as far as there is room.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use castwork_cas::ActionKey;

/// The bytes of an `Action` and of its `Command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) action: Bytes,
    pub(super) command: Bytes,
}

impl Prepared {
    fn bytes(&self) -> usize {
        self.action.len() + self.command.len()
    }
}

/// Messages of actions that were checked, within a bound; the oldest goes first.
pub(super) struct PreparedActions {
    by_key: HashMap<ActionKey, Prepared>,
    order: VecDeque<ActionKey>,
    bytes: usize,
    bytes_max: usize,
}

impl PreparedActions {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, key: &ActionKey) -> Option<&Prepared> {
        self.by_key.get(key)
    }

    pub(super) fn insert(&mut self, key: ActionKey, prepared: Prepared) {
        if self.by_key.contains_key(&key) {
            return;
        }
        self.bytes += prepared.bytes();
        self.order.push_back(key.clone());
        self.by_key.insert(key, prepared);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.by_key.remove(&oldest).map_or(0, |gone| gone.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use castwork_cas::{Digest, DigestFunction};

    use super::*;

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let key = |text: &str| ActionKey {
            instance: "".into(),
            action: Digest::of(DigestFunction::Sha256, text.as_bytes()),
        };
        let prepared =
            Prepared { action: Bytes::from_static(b"action"), command: Bytes::from_static(b"comm") };
        let mut actions = PreparedActions::new(25);
        for text in ["1", "2", "2", "3"] {
            actions.insert(key(text), prepared.clone());
        }
        assert_eq!(actions.get(&key("1")), None);
        assert_eq!(actions.get(&key("2")), Some(&prepared));
        assert_eq!(actions.get(&key("3")), Some(&prepared));
    }
}
