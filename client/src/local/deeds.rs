//! [`Deeds`]: what a program, and all that it started, was seen to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Stamp;
use crate::reason::Reason;

/// What a run was seen to do. Paths are absolute.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Deeds {
    /// Paths that were asked for, whatever came of it; with links and `..` in them.
    pub looked: BTreeSet<String>,
    /// What was found at those, where that is known.
    pub saw: BTreeMap<String, Saw>,
    /// Files of others that were opened to be read, or started, by their true names.
    pub read: BTreeSet<String>,
    /// Folders whose entries were listed, by their true names.
    pub listed: BTreeSet<String>,
    /// The same of the program itself, not of what it started.
    pub listed_by_itself: BTreeSet<String>,
    /// Programs that were started, by the names that they were asked for under.
    pub started: BTreeSet<String>,
    /// Files that the run made, or emptied and filled, and that are left; by their true names.
    pub made: BTreeSet<String>,
    /// What the file system said of those when they were closed.
    pub closed: BTreeMap<String, Option<Stamp>>,
    /// Folders that it made, and that are left.
    pub made_folders: BTreeSet<String>,
    /// All that it made, whether it is left or not.
    pub ever_made: BTreeSet<String>,
    /// What it made or removed, with whether there was something before it did the first of that.
    pub before: BTreeMap<String, bool>,
    /// Files that were there and that it emptied and filled: their permissions are as they were.
    pub filled: BTreeSet<String>,
    /// Files that it made by opening them as they are, to write behind what they hold: which was nothing.
    pub grown: BTreeSet<String>,
    /// Paths, as they were spelled, that it made something at.
    pub spelled: BTreeSet<String>,
    /// Files that were opened to be written in a way in which it counts whether they are there: to be added to, or
    /// only if they are.
    pub added_to: BTreeSet<String>,
    /// Files that were there before and have been removed.
    pub removed: BTreeSet<String>,
    /// Whether it removed preprocessed text (`*.ii`) that it had made, and that was read before it was gone.
    pub has_read_preprocessed: bool,
    /// What has the form of a date or time in such text.
    pub dates: BTreeSet<Vec<u8>>,
    /// Whether it asked what this system is.
    pub asked_system: bool,
    /// Whether it asked who it is run by.
    pub asked_user: bool,
    /// Whether it looked at its standard input, or read it where there is nothing to be read.
    pub asked_input: bool,
    /// Whether it asked if its standard input, output or error is a terminal.
    pub asked_terminals: bool,
    /// Whether it wrote to our standard output or error.
    pub said: bool,
    /// Whether it can't do what it does while it is watched: what came of it is not what would have come.
    pub is_disturbed: bool,
    /// Whether it was watched no longer from some time on, since it would have done something else under watch.
    pub is_let_go: bool,
    /// The first thing it did of which we can't tell what it depends on, or what it changes.
    pub refused: Option<Reason>,
}

/// What was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    /// Nothing.
    Nothing,
    /// Something, by its device and number.
    Something((u64, u64)),
    /// Not always the same.
    Changing,
}

impl Deeds {
    /// Whether a file holds preprocessed text, by its name.
    pub fn is_preprocessed(path: &str) -> bool {
        Path::new(path).extension().is_some_and(|ending| ending == "ii")
    }

    /// Whether what is found at a path counts: it has been looked at, and nothing has been made there.
    pub fn is_counted(&self, path: &str) -> bool {
        self.looked.contains(path) && !self.spelled.contains(path)
    }

    /// Notes what was found at a path, if it counts: nothing, or something by its device and number.
    pub fn saw(&mut self, path: &str, found: Option<(u64, u64)>) {
        if self.is_counted(path) {
            self.note(path, found.map_or(Saw::Nothing, Saw::Something));
        }
    }

    /// Notes which file was read, by its true name.
    pub fn saw_file(&mut self, path: &str, found: (u64, u64)) {
        self.note(path, Saw::Something(found));
    }

    fn note(&mut self, path: &str, found: Saw) {
        let known = self.saw.entry(path.to_owned()).or_insert(found);
        if *known != found {
            *known = Saw::Changing;
        }
    }

    /// Whether a file that was made is as the run left it, for all that its stamp tells.
    pub fn is_as_left(&self, path: &str, stamp: &Stamp) -> bool {
        let of = |stamp: &Stamp| (stamp.device, stamp.inode, stamp.size_bytes, stamp.modified_ns);
        self.closed.get(path).is_some_and(|then| then.as_ref().map(of) == Some(of(stamp)))
    }

    /// Notes the first thing that is not understood.
    pub fn refuse(&mut self, reason: impl Into<Reason>) {
        if self.refused.is_none() {
            self.refused = Some(reason.into());
        }
    }
}
