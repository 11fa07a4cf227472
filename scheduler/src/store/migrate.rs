//! Moves what an older layout kept as files into segments.

use std::fs;
use std::io;

use tracing::warn;

use super::layout::{FileKey, Layout};
use super::ledger::Use;
use super::segments::{Item, Origin, Segments, body_is_right};
use crate::counters::Counters;

/// Bytes that are moved with one sync.
const MOVE_BYTES: u64 = 4 << 20;

/// Moves files, and returns how many. A file goes only when its bytes are kept elsewhere, or are not what
/// its name says. Blocks.
///
/// # Errors
/// If the disk fails; then the rest is where it was.
pub(super) fn migrate(
    layout: &Layout,
    segments: &Segments,
    counters: &Counters,
    files: &[(FileKey, Use)],
) -> io::Result<u64> {
    let mut moved = 0;
    let mut rest = files;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, file)| {
            bytes += file.bytes;
            bytes <= MOVE_BYTES
        });
        let (some, others) = rest.split_at(fits.count().max(1));
        rest = others;
        let items = some.iter().filter_map(|(key, file)| read(layout, counters, key, file).transpose());
        let items = items.collect::<io::Result<Vec<Item>>>()?;
        let keys: Vec<FileKey> = items.iter().map(|item| item.key).collect();
        segments.append_blocking(items)?;
        for key in &keys {
            fs::remove_file(layout.path(key))?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Reads a file; `None` if it is gone or damaged.
fn read(layout: &Layout, counters: &Counters, key: &FileKey, file: &Use) -> io::Result<Option<Item>> {
    let path = layout.path(key);
    let body = match fs::read(&path) {
        Ok(body) => body,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if body_is_right(key, &body) {
        let origin = Origin::Older { stored_ms: file.used_ms };
        return Ok(Some(Item { key: *key, body: body.into(), origin }));
    }
    warn!(%key, "a file of an older layout was dropped because its bytes are not what its name says");
    counters.corrupt.add(1);
    fs::remove_file(path)?;
    Ok(None)
}
