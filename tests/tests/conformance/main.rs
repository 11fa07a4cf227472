//! The Remote Execution API, as any server has to speak it: a black box over gRPC.
//!
//! Numbers in brackets are those of the cases in `docs/conformance.md`. `tests/conformance ADDRESS` asks the server at
//! that address; without one, each test starts a server of ours. What a server says that it does not offer is left out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(clippy::cast_possible_wrap, reason = "no size here comes near the limit of its type")]

mod actions;
mod batches;
mod capabilities;
mod chunks;
mod connections;
mod digests;
mod execution;
mod jobs;
mod outputs;
mod raw;
mod reads;
mod results;
mod support;
mod trees;
mod writes;
