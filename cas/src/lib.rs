//! Content: what a blob is called, where it is kept, and how it moves.
//!
//! Names are checked types ([`Digest`], resource names, Merkle trees). Places are ends behind two
//! small traits, [`BlobStore`] and [`ActionCache`], and wrappers around them, a file each. Which
//! wrapper sits on which end is decided in the composition roots of the programs, not here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod complete;
pub mod digest;
pub mod existence;
pub mod files;
pub mod memory;
pub mod merkle;
#[cfg(feature = "objects")]
pub mod objects;
pub mod outputs;
pub mod read_through;
pub mod remote;
pub mod resource;
pub mod store;
pub mod verified;

pub use complete::Complete;
pub use digest::{Digest, DigestError, DigestFunction, Hasher};
pub use existence::ExistenceCached;
pub use memory::{MemoryActions, MemoryBlobs};
#[cfg(feature = "objects")]
pub use objects::Objects;
pub use read_through::ReadThrough;
pub use remote::{Remote, RemoteConfig};
pub use resource::{Compressor, ReadName, ResourceError, ResourceName, WriteName};
pub use store::{ActionCache, ActionKey, BlobStore, BlobStream, ByteRange, StoreError};
pub use verified::Verified;
