//! Small files that are there whole or not at all.

use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use crate::local::Platform;

/// Most files that [`write_one_of_many`] leaves in a folder.
const MANY: usize = 4096;

/// Writes a file beside its place and moves it there, so that whoever reads sees the old bytes or the new.
/// Makes the folder if it is not there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".castwork-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Writes a file as [`write_whole`] does, into a folder of such files that may each be written again at any time. Of more
/// than 4096, the half that was written last stays.
pub fn write_one_of_many(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if folder.read_dir()?.count() <= MANY {
        return Ok(());
    }
    let aged = |entry: std::fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut files: Vec<(SystemTime, _)> = folder.read_dir()?.flatten().filter_map(aged).collect();
    files.sort();
    for (_, old) in &files[..files.len().saturating_sub(MANY / 2)] {
        // Another may have been quicker.
        let _ = std::fs::remove_file(old);
    }
    Ok(())
}

/// Writes an object where the compiler would have: a link to a file is replaced as well, as assemblers do, unless that
/// file is empty.
pub fn write_object(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let leads_to_file = || path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0);
    if is_link && leads_to_file() { replace(path, bytes) } else { write_output(path, bytes) }
}

/// Writes a compiler's output where the compiler would have: a new file in place of the old one, or through a link
/// or device.
pub fn write_output(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|metadata| !Platform::is_replaceable(&metadata)) {
        return std::fs::write(path, bytes);
    }
    replace(path, bytes)
}

/// Writes a file in place of an old one, as one that may be run if it `is_executable`; makes its folder if it is not there.
pub fn write_made(path: &Path, bytes: &[u8], is_executable: bool) -> io::Result<()> {
    let make = || put(path, bytes, is_executable);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path.parent().ok_or(error)?)?;
            make()
        }
        made => made,
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, false)
}

fn put(path: &Path, bytes: &[u8], is_executable: bool) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = Platform::new_output(folder, is_executable)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_files_the_younger_half_stays() {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..MANY {
            std::fs::write(folder.path().join(format!("old{at}")), "x").unwrap();
        }
        let count = || folder.path().read_dir().unwrap().count();
        let old = std::fs::File::options().write(true).open(folder.path().join("old7")).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        write_one_of_many(&folder.path().join("new"), b"y").unwrap();
        assert_eq!(count(), MANY / 2);
        assert!(folder.path().join("new").is_file() && !folder.path().join("old7").exists());
        write_one_of_many(&folder.path().join("newer"), b"y").unwrap();
        assert_eq!(count(), MANY / 2 + 1);
    }
}
