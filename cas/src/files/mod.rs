//! Plain files: [`FileBlobs`] and [`FileActions`], a cache in a folder.
//!
//! Any number of processes may use one folder at once, without a daemon: files come by rename, the account
//! of bytes and the cleaning are behind file locks. Nothing is synced to the disk, because everything is
//! verified when it is read (or, where only its path is asked for, once by each process): what a power cut
//! tore counts as missing. So this is a cache, and never the only place of anything.
//!
//! ```text
//! DIR/blobs/sha256/ab/HASH-SIZE            the bytes of a blob
//! DIR/results/INSTANCE/sha256/ab/HASH-SIZE checksum and ActionResult
//! DIR/tmp/                                 files that are being written
//! DIR/usage                                bytes of all of the above, and the lock around them
//! ```

mod blobs;
mod folder;
mod marks;
mod results;
mod stamp;
#[cfg(test)]
mod tests;
#[cfg(unix)]
pub(crate) mod unix;
#[cfg(windows)]
pub(crate) mod windows;

pub use blobs::{FileBlobs, Pinned};
pub use results::FileActions;
#[cfg(feature = "objects")]
pub(crate) use results::{decode_result, encode_result};
pub use stamp::Stamp;
#[cfg(unix)]
pub use unix::{free_bytes, free_files, raise_open_files, read_exact_at, sync_folder};
#[cfg(windows)]
pub use windows::{free_bytes, free_files, raise_open_files, read_exact_at, sync_folder};

#[cfg(unix)]
pub(crate) use unix as platform;
#[cfg(windows)]
pub(crate) use windows as platform;
