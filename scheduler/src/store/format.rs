//! Which layout a data folder has, and whether this version understands it.

use std::fs;
use std::io::{self, Write as _};

use castwork_cas::files::sync_folder;

use super::layout::Layout;
use super::segments::SMALL_BYTES_MAX;

/// The layout that is written. The first had no segments and no such file, and the second nothing that is compressed.
const VERSION: u64 = 3;

/// What a data folder turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As it is written now.
    Current,
    /// There may be files of what belongs into segments.
    Older,
    /// Written by a later version.
    Later(u64),
}

/// Reads which layout the folder has; a folder without anything is made one of the current.
pub(super) fn read(layout: &Layout) -> io::Result<Format> {
    let text = match fs::read_to_string(layout.format()) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if layout.trees().iter().any(|tree| tree.exists()) {
                return Ok(Format::Older);
            }
            write(layout)?;
            return Ok(Format::Current);
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Format::Older),
        Err(error) => return Err(error),
    };
    let version = text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    Ok(match version {
        _ if text == current() => Format::Current,
        version if version > VERSION => Format::Later(version),
        _ => Format::Older,
    })
}

/// States that the folder has the current layout.
pub(super) fn write(layout: &Layout) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(layout.tmp())?;
    file.write_all(current().as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(layout.format()).map_err(|error| error.error)?;
    sync_folder(layout.root())
}

/// The version, and which blobs are in segments.
fn current() -> String {
    format!("{VERSION} small-bytes-max={SMALL_BYTES_MAX}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_which_layout_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.tmp()).unwrap();
        fs::create_dir_all(layout.root().join("cas")).unwrap();
        assert_eq!(read(&layout).unwrap(), Format::Older);
        write(&layout).unwrap();
        assert_eq!(read(&layout).unwrap(), Format::Current);
        for (text, format) in [
            ("2 small-bytes-max=4096\n", Format::Older),
            ("", Format::Older),
            ("4 anything\n", Format::Later(4)),
        ] {
            fs::write(layout.format(), text).unwrap();
            assert_eq!(read(&layout).unwrap(), format, "{text}");
        }
    }

    #[test]
    fn a_new_folder_has_the_current_layout() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.tmp()).unwrap();
        assert_eq!(read(&layout).unwrap(), Format::Current);
        assert!(layout.format().exists());
    }
}
