//! The durable store on disk.

pub mod pins;
