//! [`FolderLock`]: one server a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::StoreOpenError;

/// Held for as long as a server uses a data folder. The system lets go of it when the process ends,
/// however it ends.
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub(crate) fn take(path: &Path) -> Result<Self, StoreOpenError> {
        let failed = |source| StoreOpenError::Lock { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Where locks are mandatory the owner's name is not legible; the refusal stands without.
                let _ = file.read_to_string(&mut owner);
                return Err(StoreOpenError::InUse { path: path.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let sign = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FolderLock::take(&path).unwrap();
        let Err(StoreOpenError::InUse { owner, .. }) = FolderLock::take(&path) else {
            panic!("it is in use");
        };
        assert_eq!(owner, std::process::id().to_string());
        drop(first);
        assert!(FolderLock::take(&path).is_ok());
    }
}
