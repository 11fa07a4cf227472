//! [`Limits`]: the bounds of `dispatch`, and those of the queue that it owns.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Kinds;
use crate::config::Operators;
use crate::queue;

/// Priorities that are told apart; what is beyond counts as the nearest. Lower is sooner.
pub const PRIORITIES: RangeInclusive<i32> = -1_000..=1_000;

/// How much, how many and how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Those of the queue. `silence_max` is set from [`Limits::heartbeat_interval`].
    pub queue: queue::Limits,
    /// How platform properties are matched.
    pub kinds: Kinds,
    /// Who may drain workers and end what others asked for.
    pub operators: Operators,
    /// How often the queue is told that time passes; its graces are as exact as that.
    pub tick_interval: Duration,
    /// How often a worker has to say something.
    pub heartbeat_interval: Duration,
    /// How often a client that waits is told that it still does.
    pub reminder_interval: Duration,
    /// Wall-clock bound of a command whose action sets none.
    pub timeout_default: Duration,
    /// The largest such bound that an action may set.
    pub timeout_max: Duration,
    /// Streams of `Execute` and `WaitExecution` at a time, at most.
    pub waiters_max: usize,
    /// Events that wait for the queue, at most; who has another waits.
    pub events_max: usize,
    /// Actions that are checked at the same time, at most.
    pub checks_at_once: usize,
    /// Outcomes that are published at the same time, at most.
    pub publications_at_once: usize,
    /// Bytes of an `Action` message, at most.
    pub action_bytes_max: u64,
    /// Bytes of a `Command` message, at most.
    pub command_bytes_max: u64,
    /// Bytes of `Action` and `Command` messages kept at hand, at most; others are read again when
    /// a worker gets them.
    pub prepared_bytes_max: usize,
    /// Inputs of actions in the queue that are kept from eviction, at most; those of further
    /// actions merely count as used when the action came.
    pub pins_max: usize,
    /// Bytes of outputs that one answer carries in itself, at most.
    pub inline_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: queue::Limits::default(),
            kinds: Kinds::default(),
            operators: Operators::default(),
            tick_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(5),
            reminder_interval: Duration::from_secs(15),
            timeout_default: Duration::from_secs(60 * 60),
            timeout_max: Duration::from_secs(24 * 60 * 60),
            waiters_max: 100_000,
            events_max: 4_096,
            checks_at_once: 32,
            publications_at_once: 64,
            action_bytes_max: 1 << 20,
            command_bytes_max: 8 << 20,
            prepared_bytes_max: 64 << 20,
            pins_max: 4_000_000,
            inline_bytes_max: 1 << 20,
        }
    }
}
