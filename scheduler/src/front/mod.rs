//! The gRPC services: messages become checked types here, and errors become gRPC codes.

pub mod errors;
pub mod execution;
mod hello;
pub mod instance;
pub mod metadata;
pub mod operations;
mod report;
pub mod workers;
