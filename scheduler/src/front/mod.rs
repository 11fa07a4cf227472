//! The gRPC services: messages become checked types here, and errors become gRPC codes.

pub mod errors;
pub mod instance;
pub mod metadata;
