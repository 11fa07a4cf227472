//! [`Limits`]: the bounds of the front end, and those that every client is told.

use std::time::Duration;

/// Bytes of blobs in one batch, as advertised: with names and framing it still fits into the 4 MiB that
/// most clients receive at most.
pub const BATCH_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// Bytes of a request. More than a batch needs, because lists of digests come whole.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Bytes of an answer, so that clients with the usual limit of 4 MiB can receive it.
pub const ANSWER_BYTES_MAX: usize = (4 << 20) - (4 << 10);

/// Bytes of outputs that one result carries in itself, at most.
pub const INLINE_BYTES_MAX: u64 = 1 << 20;

/// How much, how many and how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What requests that are under way may hold in memory together, in bytes; who comes then waits a while.
    pub requests_bytes_max: usize,
    /// The largest blob that is taken, in bytes.
    pub blob_bytes_max: u64,
    /// How long an upload may be silent before its stream is ended.
    pub upload_idle: Duration,
    /// How long a client may take nothing of a download before its stream is ended.
    pub download_idle: Duration,
    /// How long an upload is kept after its stream has ended, for the client to go on with it.
    pub upload_kept: Duration,
    /// Uploads that are kept at a time, at most; beyond it the oldest is dropped.
    pub uploads_kept_max: usize,
    /// Uploads by stream at a time, at most; who comes then waits a while.
    pub uploads_max: usize,
    /// Downloads by stream at a time, at most; who comes then waits a while.
    pub downloads_max: usize,
    /// How long one of those waits.
    pub turn_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_bytes_max: 512 << 20,
            blob_bytes_max: 10 << 30,
            upload_idle: Duration::from_secs(60),
            download_idle: Duration::from_secs(60),
            upload_kept: Duration::from_secs(600),
            uploads_kept_max: 256,
            uploads_max: 512,
            downloads_max: 1024,
            turn_wait: Duration::from_secs(15),
        }
    }
}
