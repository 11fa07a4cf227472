//! [`Above`]: the folders of the files that include each other, in which Microsoft's rules look for a header as well.
//!
//! `#include "…"` looks beside the file that asks, then beside the file that includes that one, and so on. Which of several
//! ways led to a file isn't kept: the folders of all of them count, which is more than has to be.

use std::collections::{BTreeSet, HashMap};

use super::looked::folder_of;

/// The folders above each file.
#[derive(Default)]
pub(super) struct Above(HashMap<String, BTreeSet<String>>);

impl Above {
    /// Notes that a file was entered from another.
    pub(super) fn enter(&mut self, file: &str, from: &str) {
        let mut folders = self.of(from);
        folders.insert(folder_of(from).to_owned());
        self.0.entry(file.to_owned()).or_default().extend(folders);
    }

    /// The folders of the files through which a file may have been reached, as spelled.
    pub(super) fn of(&self, file: &str) -> BTreeSet<String> {
        self.0.get(file).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_a_file_count() {
        let mut above = Above::default();
        above.enter("a/x.h", "src/m.cc");
        above.enter("b/y.h", "a/x.h");
        assert_eq!(above.of("b/y.h"), BTreeSet::from(["a".to_owned(), "src".to_owned()]));
        above.enter("b/y.h", "c/z.h");
        assert_eq!(above.of("b/y.h").len(), 3);
        assert_eq!(above.of("src/m.cc"), BTreeSet::new());
    }
}
