//! The gRPC services: messages become checked types here, and errors become gRPC codes.

pub mod action_cache;
pub mod admin;
mod batch;
pub mod bytestream;
pub mod capabilities;
pub mod cas;
pub mod chunks;
pub mod errors;
pub mod execution;
mod hello;
pub mod instance;
pub mod layer;
pub mod limits;
pub mod metadata;
pub mod operations;
mod operator;
pub(crate) mod outgoing;
mod report;
mod request_body;
pub(crate) mod room;
pub mod runs;
pub(crate) mod tree;
pub mod workers;
