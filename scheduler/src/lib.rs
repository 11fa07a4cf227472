//! The server: REAPI front end, durable store, queue of actions and the door for workers.
//!
//! [`serve`] is the composition root: it decides which store sits under which service. `front` turns
//! messages into checked types and errors into gRPC codes; `store` keeps blobs and results on
//! disk; `queue` decides what runs where, as a pure state machine, and `dispatch` acts on it; `runs` counts what
//! became of each build.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod caller;
pub mod config;
mod connections;
pub mod counters;
pub mod dispatch;
#[cfg(fuzzing)]
pub mod doors;
pub mod front;
mod grpc;
mod http;
pub mod queue;
mod ready;
pub mod revoke;
pub mod runs;
pub mod serve;
pub mod services;
pub mod store;
mod tier;

pub use caller::Caller;
pub use counters::{Counters, Gauge};
pub use services::Services;
