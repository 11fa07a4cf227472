//! The server as clients see it: everything but execution, over loopback, with raw gRPC clients.
//!
//! Numbers in brackets are those of the conformance cases; most of them are a suite of their own, in the folder
//! `tests`, that runs against any server.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(clippy::cast_possible_wrap, reason = "no size here comes near the limit of its type")]

mod capabilities;
mod connections;
mod digests;
mod disk;
mod http;
mod leases;
mod parts;
mod programs;
mod results;
mod revoke;
mod support;
mod writes;
