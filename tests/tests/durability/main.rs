//! What was acknowledged stays: a server that is killed, or loses power, at any moment under load.
//!
//! The server is a real process. Both tests run a few cycles here; `tests/kill-cycles` and `tests/power-cuts` run as
//! many as they are told.

#![allow(clippy::unwrap_used, reason = "a test")]

mod builds;
mod disk;
mod faults;
mod kill;
mod load;
mod power;
mod server;
mod verify;
