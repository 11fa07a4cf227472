//! [`Listings`]: what is in the folders that are searched for headers.
//!
//! With ten folders of headers, of ten questions for a header nine are answered by "no such file", and that for each
//! header. A folder that is asked often is read once instead.

use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Questions about a folder before it is worth reading.
const QUESTIONS: u32 = 24;

/// Most entries of a folder that is read: of a larger one most are never asked for.
const ENTRIES_MAX: usize = 2000;

enum Folder {
    /// Asked so often.
    Asked(u32),
    /// What is in it, in small letters: some file systems take these for the same.
    Read(HashSet<String>),
    /// It can't be read, or has too much in it.
    Unknown,
}

/// What is in some folders.
#[derive(Default)]
pub(super) struct Listings {
    folders: HashMap<String, Folder>,
}

impl Listings {
    /// Whether a header is surely not found through a folder, given by its absolute path, because what its name begins with
    /// isn't there. `false` says nothing.
    pub(super) fn lack(&mut self, folder: &str, header: &str) -> bool {
        let first = header.split('/').next().unwrap_or_default();
        if folder.is_empty()
            || !first.is_ascii()
            || header.contains(char::is_control)
            || matches!(first, "" | "." | "..")
        {
            return false;
        }
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), Folder::Asked(0));
        }
        let Some(known) = self.folders.get_mut(folder) else { return false };
        if let Folder::Asked(times) = known {
            *times += 1;
            if *times < QUESTIONS {
                return false;
            }
            *known = read(Path::new(folder)).map_or(Folder::Unknown, Folder::Read);
        }
        matches!(known, Folder::Read(names) if !names.contains(&first.to_ascii_lowercase()))
    }
}

fn read(folder: &Path) -> Option<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in folder.read_dir().ok()? {
        // Other names are none that is asked for.
        if let Ok(mut name) = entry.ok()?.file_name().into_string() {
            name.make_ascii_lowercase();
            names.insert(name);
        }
        if names.len() > ENTRIES_MAX {
            return None;
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_a_folder_is_known_once_it_was_asked_often() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        std::fs::create_dir(folder.path().join("sys")).unwrap();
        std::fs::write(folder.path().join("Some.h"), "").unwrap();
        let mut listings = Listings::default();
        for _ in 1..QUESTIONS {
            assert!(!listings.lack(path, "other.h"));
        }
        assert!(listings.lack(path, "other.h"));
        assert!(listings.lack(path, "net/types.h"));
        for there in ["some.h", "sys/types.h", "./other.h", "../other.h", "\u{e4}.h", "other.h\0x"] {
            assert!(!listings.lack(path, there), "{there}");
        }
        assert!(!listings.lack("", "other.h"));
    }

    #[test]
    fn nothing_is_known_of_a_folder_that_can_t_be_read() {
        let mut listings = Listings::default();
        assert!((0..2 * QUESTIONS).all(|_| !listings.lack("/no/such/folder", "a.h")));
    }
}
