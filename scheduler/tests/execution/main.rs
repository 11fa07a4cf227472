//! The execution services over loopback, with workers that follow a script.
//!
//! The workers speak the real protocol on real connections; only what they claim to have run is
//! made up. Numbers in brackets are those of the conformance cases.

#![allow(clippy::unwrap_used)]

mod answers;
mod inputs;
mod leases;
mod operations;
mod operators;
mod restarts;
mod sharing;
mod support;
mod workers;
