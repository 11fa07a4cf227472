//! Which records of a segment must not come back when the table is filled anew: those that were damaged, and
//! results that were replaced or evicted.
//!
//! Segments themselves never change. Beside one lies a file with 8 bytes for each such record: its offset and
//! the complement of that, so that what a power cut tore is no entry.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

const ENTRY_BYTES: usize = 8;

/// Adds a record, and returns how long the file is now. A power cut may undo it until [`sync`].
pub(super) fn add(path: &Path, offset: u32) -> io::Result<u64> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let torn = file.metadata()?.len() % ENTRY_BYTES as u64;
    if torn > 0 {
        file.write_all(&[0; ENTRY_BYTES][usize::try_from(torn).expect("less than an entry")..])?;
    }
    let entry = u64::from(offset) << 32 | u64::from(!offset);
    file.write_all(&entry.to_be_bytes())?;
    Ok(file.metadata()?.len())
}

/// Has the file's bytes survive a loss of power; its name is up to the folder.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    match File::options().append(true).open(path) {
        Ok(file) => file.sync_data(),
        // Its segment has gone, and with it the need.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The records in it; none if there is no such file.
pub(super) fn read(path: &Path) -> io::Result<HashSet<u32>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let (entries, _torn) = bytes.as_chunks::<ENTRY_BYTES>();
    let offset = |entry: &[u8; ENTRY_BYTES]| {
        let (high, low) = entry.split_at(4);
        let offset = u32::from_be_bytes(high.try_into().expect("four bytes"));
        let check = u32::from_be_bytes(low.try_into().expect("four bytes"));
        (check == !offset).then_some(offset)
    };
    Ok(entries.iter().filter_map(offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_torn_is_no_entry_and_spoils_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("voids");
        assert!(read(&path).unwrap().is_empty());
        add(&path, 0).unwrap();
        assert_eq!(add(&path, 77_000).unwrap(), 16);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[1, 2, 3]).unwrap();
        assert_eq!(read(&path).unwrap(), HashSet::from([0, 77_000]));
        assert_eq!(add(&path, 8).unwrap(), 32);
        sync(&path).unwrap();
        assert_eq!(read(&path).unwrap(), HashSet::from([0, 8, 77_000]));
    }
}
